#!/usr/bin/env bash
# What recording a running server from outside costs it: its CPU time for the same load, while nobody records it, while `pertask record` does,
# and while `perf record` does. All take turns, and each is compared with that round's run without.
#
#   bench/record.sh PID LOAD [ROUNDS]
#
#   mini-redis-server --port 7777 &
#   bench/record.sh $! 'redis-benchmark -p 7777 -t get -n 150000 -c 20 -q'
#
# LOAD is a command that always does the same. Medians of ROUNDS (default 7) are printed, with the least and the most.
set -euo pipefail
cd "$(dirname "$0")/.."
[ $# -ge 2 ] || { sed -n '2,/^set /s/^# \{0,1\}//p' "$0"; exit 2; }
cargo build -q --release
scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT
uname -srm
grep -m1 'model name' /proc/cpuinfo || true
python3 - "$1" "$2" "${3:-7}" "$scratch" <<'PYTHON'
import os, shutil, signal, statistics, subprocess, sys, time

pid, load, rounds, scratch = sys.argv[1], sys.argv[2], int(sys.argv[3]), sys.argv[4]
quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}


def cpu_ns():
    """What the server's threads have used so far."""
    tasks = f"/proc/{pid}/task"
    return sum(int(open(f"{tasks}/{thread}/schedstat").read().split()[0]) for thread in os.listdir(tasks))


def used_ns(recorder):
    """What the load takes of the server, beside a recorder."""
    running = None
    if recorder:
        running = subprocess.Popen(recorder, **quiet)
        time.sleep(0.6)
    before = cpu_ns()
    subprocess.run(load, shell=True, check=True, **quiet)
    used = cpu_ns() - before
    if running:
        running.send_signal(signal.SIGINT)
        running.wait()
    return used


def pertask(hertz):
    return ["target/release/pertask", "record", "--pid", pid, "-F", hertz, "--unresolved", "-o", f"{scratch}/p.pb.gz"]


recorders = {"pertask record, 199 Hz": pertask("199"), "pertask record, 999 Hz": pertask("999")}
if shutil.which("perf"):
    perf = ["perf", "record", "-qN", "-F", "999", "-e", "cpu-clock", "--call-graph", "dwarf,16384", "-p", pid]
    recorders["perf record, 999 Hz, dwarf,16384"] = perf + ["-o", f"{scratch}/p.data"]
used_ns(None)
ratios = {name: [] for name in recorders}
for _ in range(rounds):
    alone = used_ns(None)
    for name, recorder in recorders.items():
        ratios[name].append(100 * (used_ns(recorder) / alone - 1))
for name, found in ratios.items():
    print(f"{name:34} {statistics.median(found):+6.1f} %  ({min(found):+.1f} to {max(found):+.1f})")
PYTHON
