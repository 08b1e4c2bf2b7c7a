#!/usr/bin/env bash
# How long an agent takes to answer, and what `pertask top` costs the program and itself.
#
#   bench/agent.sh [ROUNDS]
#
# Medians of ROUNDS (default 7) are printed, with the least and the most.
set -euo pipefail
cd "$(dirname "$0")/.."
rounds=${1:-7}
[[ $rounds =~ ^[1-9][0-9]*$ ]] || { sed -n '2,/^set /s/^# \{0,1\}//p' "$0" >&2; exit 2; }
cargo build -q --release
cargo build -q --release -p pertask --features agent,tokio --example crowd
uname -srm
grep -m1 'model name' /proc/cpuinfo || true
python3 - "$rounds" "${CARGO_TARGET_DIR:-target}/release" <<'PYTHON'
import contextlib, os, pty, socket, statistics, subprocess, sys, tempfile, threading, time

rounds, built = int(sys.argv[1]), sys.argv[2]
place = tempfile.TemporaryDirectory()
SECONDS = 20


@contextlib.contextmanager
def crowd(*arguments):
    """The program, and a function that asks it and returns milliseconds."""
    path = f"{place.name}/agent.sock"
    environment = dict(os.environ, PERTASK=f"{path},listen")
    command = [f"{built}/examples/crowd", *map(str, arguments)]
    program = subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
    assert program.stdout.readline() == b"ready\n"
    # Its tasks begin to sleep.
    time.sleep(1)

    def ask(target):
        began = time.perf_counter()
        caller = socket.socket(socket.AF_UNIX)
        caller.connect(path)
        caller.sendall(f"GET {target} HTTP/1.1\r\nHost: agent\r\n\r\n".encode())
        answer = b"".join(iter(lambda: caller.recv(1 << 16), b""))
        caller.close()
        assert answer.startswith(b"HTTP/1.1 200 "), answer[:400]
        return 1e3 * (time.perf_counter() - began)

    try:
        yield program.pid, ask
    finally:
        program.kill()
        program.wait()


def cpu_seconds(pid):
    threads = f"/proc/{pid}/task"
    return 1e-9 * sum(int(open(f"{threads}/{it}/schedstat").read().split()[0]) for it in os.listdir(threads))


def say(what, unit, found):
    print(f"{what:58} {statistics.median(found):8.2f} {unit}  ({min(found):.2f} to {max(found):.2f})", flush=True)


def used(pid, also=None):
    """Percent of a CPU that processes use."""
    processes = [pid] + ([also] if also else [])
    before = [cpu_seconds(it) for it in processes]
    time.sleep(SECONDS)
    return [100 * (cpu_seconds(it) - was) / SECONDS for it, was in zip(processes, before)]


def look(terminal):
    """Takes what is written to a screen, until it is gone."""
    with contextlib.suppress(OSError):
        while os.read(terminal, 1 << 16):
            pass


def stat(pid):
    """Milliseconds from the start of `pertask stat` to its first report, which is of 10 ms."""
    began = time.perf_counter()
    command = [f"{built}/pertask", "stat", "-I", "10", "--json", "--pid", str(pid)]
    shows = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
    assert shows.stdout.readline().startswith(b"{")
    took = 1e3 * (time.perf_counter() - began)
    shows.kill()
    shows.wait()
    return took


first, later, listed, blocked, shown = [], [], [], [], []
for _ in range(rounds):
    with crowd(100_000) as (_, ask):
        first.append(ask("/v1/report?seconds=0"))
        later.append(ask("/v1/report?seconds=0"))
        listed.append(ask("/v1/tasks"))
    with crowd(100_000) as (pid, _):
        shown.append(stat(pid))
    with crowd(0, "blocked") as (_, ask):
        blocked.append(ask("/"))
say("first report of a process with 100,000 live tasks", "ms", first)
say("its next report", "ms", later)
say("the first line of `pertask stat -I 10`, 10 ms included", "ms", shown)
say("the list of 100 of these tasks", "ms", listed)
say("the list of paths while all workers are blocked", "ms", blocked)

process, top = [], []
with crowd(10_000) as (pid, _):
    for _ in range(min(rounds, 3)):
        [alone] = used(pid)
        child, terminal = pty.fork()
        if child == 0:
            os.environ.setdefault("TERM", "xterm-256color")
            os.execv(f"{built}/pertask", ["pertask", "top", "--pid", str(pid)])
        threading.Thread(target=look, args=[terminal], daemon=True).start()
        time.sleep(2)
        beside, by_top = used(pid, child)
        os.write(terminal, b"q")
        os.waitpid(child, 0)
        process.append(beside - alone)
        top.append(by_top)
say("`pertask top` on 10,000 live tasks: more in the process", "% of a CPU", process)
say("the same: in `top`", "% of a CPU", top)
PYTHON
