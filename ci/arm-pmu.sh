#!/usr/bin/env bash
# Tests on an aarch64 machine with a hardware PMU (PMUv3), rseq and the architecture's counter: one that qemu emulates, with
# Debian's kernel, for hosts that are no aarch64 or have no PMU.
#
#   ci/arm-pmu.sh                  what the gate runs: the list at the end of this file
#   ci/arm-pmu.sh run [OPTION]... BINARY [ARGUMENT]...
#                                  one aarch64 program in a machine of its own; the exit status is the program's
#       --cpu MODEL                max, with 64-bit event counters (the default), or cortex-a72, with 32-bit ones
#       --parallel                 two CPUs, and no fixed time for an instruction: see below
#       --user NAME                root (the default) or nobody
#       --sysctl KEY=VALUE         may be repeated
#
# `run` is fit for CARGO_TARGET_AARCH64_UNKNOWN_LINUX_GNU_RUNNER, and hands on the variables PERTASK_* and RUST_*. What is
# downloaded is kept in target/arm-pmu, or in $ARM_PMU_DIR. Needs a Debian host, and root unless the host's packages (qemu, a
# linker, cpio) are installed.
#
# By default the machine has one CPU, on which each instruction takes 2 ns (qemu's icount). That makes time, cycles and
# instructions exact, however busy the host is. What else there is to know:
#   - Without icount, instructions cannot be counted. With icount and two CPUs, counts are inflated. So --parallel, which is
#     for what needs two CPUs at once, is for everything but counts and times.
#   - Cycles and instructions are the only hardware events. Those of caches and branches do not exist; as raw events they
#     open and stay at 0.
#   - The kernel's settings are mainline's (perf_event_paranoid=2, perf_user_access=0) unless --sysctl says otherwise;
#     Debian's own refuse nobody all of perf.
#   - Programs are linked dynamically: glibc's rseq area is looked up by name, which a static program cannot do.
#   - Nothing here says what anything costs: the machine has no caches and no pipeline.
set -euo pipefail

REPOSITORY=$(realpath "$(dirname "$0")/..")
CACHE=$(realpath -m "${ARM_PMU_DIR:-$REPOSITORY/target/arm-pmu}")
TARGET=aarch64-unknown-linux-gnu
LIBRARIES=/usr/aarch64-linux-gnu/lib
# Against a machine that hangs.
LIMIT=300

export CARGO_TARGET_AARCH64_UNKNOWN_LINUX_GNU_LINKER=aarch64-linux-gnu-gcc

host_packages() {
    type qemu-system-aarch64 aarch64-linux-gnu-gcc cpio >/dev/null 2>&1 && [ -e $LIBRARIES/libc.so ] && return
    export DEBIAN_FRONTEND=noninteractive
    apt-get update -q
    apt-get install -qy --no-install-recommends qemu-system-arm gcc-aarch64-linux-gnu libc6-dev-arm64-cross cpio
}

# The kernel and busybox. apt is given a state of its own, so that the host's knows nothing of arm64.
guest_packages() {
    [ -e "$CACHE/vmlinuz" ] && [ -e "$CACHE/busybox" ] && return
    local work=$CACHE/packages
    rm -rf "$work" && mkdir -p "$work"/{lists/partial,archives/partial}
    : >"$work/status"
    cat >"$work/apt.conf" <<CONF
APT::Architecture "arm64"; APT::Architectures { "arm64"; };
APT::Sandbox::User "root";
Acquire::Languages "none"; Acquire::IndexTargets::deb::DEP-11::DefaultEnabled "false";
Dir::State "$work"; Dir::State::status "$work/status"; Dir::Cache "$work";
CONF
    (
        cd "$work"
        export APT_CONFIG=$work/apt.conf
        apt-get update -q
        # The package without a version in its name only depends on the newest one.
        kernel=$(apt-cache depends linux-image-cloud-arm64 | sed -n 's/^ *Depends: //p')
        apt-get download -q "$kernel" busybox-static
        for package in *.deb; do dpkg-deb -x "$package" root; done
        find root -path '*/bin/busybox' -exec mv {} "$CACHE/" ';'
        mv root/boot/vmlinuz-* "$CACHE/vmlinuz"
    )
    rm -rf "$work"
}

# boot CPU MODE PROGRAM...: a machine that has the programs in /, and runs the jobs on our stdin. A job is a line
#     USER SETTINGS COMMAND...
# with a comma between settings, or - for none. Ours is the exit status of the last job that failed.
boot() (
    cpu=$1 mode=$2
    shift 2
    work=$(mktemp -d)
    trap 'rm -rf "$work"' EXIT
    root=$work/root
    mkdir -p "$root"/{bin,lib,etc,proc,sys,dev,tmp}
    cp "$CACHE/busybox" "$root/bin/"
    cp -L $LIBRARIES/{ld-linux-aarch64.so.1,libc.so.6,libm.so.6,libgcc_s.so.1} "$root/lib/"
    cp "$@" "$root/"
    cat >"$root/jobs"
    printf '%s\n' root:x:0:0::/:/bin/sh nobody:x:65534:65534::/:/bin/sh >"$root/etc/passwd"
    cat >"$root/init" <<'INIT'
#!/bin/busybox sh
/bin/busybox --install -s /bin
export PATH=/bin
mount -t proc proc /proc && mount -t sysfs sys /sys && mount -t devtmpfs dev /dev && mount -t tmpfs -o mode=1777 tmp /tmp
status=0
while read -r user settings command; do
    sysctl -qw kernel.perf_event_paranoid=2 kernel.perf_user_access=0
    [ "$settings" = - ] || sysctl -qw ${settings//,/ }
    echo "-- $user, $settings: $command"
    start=$(cut -d. -f1 /proc/uptime)
    su -s /bin/sh "$user" -c "$command" </dev/null || { status=$?; echo "-- FAILED: $status"; }
    echo "-- $(($(cut -d. -f1 /proc/uptime) - start)) s of the machine's time"
done </jobs
echo "guest status: $status"
poweroff -f
INIT
    chmod 755 "$root/init"
    (cd "$root" && find . | cpio -o -H newc --quiet) >"$work/initramfs"
    case $mode in
    exact) cpus=(-smp 1 -icount shift=1,sleep=off) ;;
    parallel) cpus=(-smp 2) ;;
    esac
    # Pointer authentication is left out, as emulating it takes most of the time; and all that would differ from run to run.
    timeout "$LIMIT" qemu-system-aarch64 -M virt,dtb-randomness=off -cpu "${cpu/#max/max,pauth=off}" "${cpus[@]}" -m 1G \
        -seed 1 -rtc base=2026-01-01,clock=vm -nodefaults -display none -no-reboot -serial stdio \
        -kernel "$CACHE/vmlinuz" -initrd "$work/initramfs" \
        -append "console=ttyAMA0 quiet loglevel=1 panic=-1 nokaslr norandmaps" \
        </dev/null 2>&1 | sed -u 's/\r$//' | tee "$work/console" | sed -u '/^guest status: /,$d' || true
    status=$(sed -n 's/^guest status: //p' "$work/console")
    [ -n "$status" ] || echo "arm-pmu: the machine broke down, or was stopped after $LIMIT s"
    exit "${status:-125}"
)

run() {
    local cpu=max mode=exact user=root settings=()
    while [[ ${1-} == --* ]]; do
        case $1 in
        --cpu) cpu=$2 && shift ;;
        --parallel) mode=parallel ;;
        --user) user=$2 && shift ;;
        --sysctl) settings+=("$2") && shift ;;
        *) echo "arm-pmu: what is $1?" >&2 && exit 2 ;;
        esac
        shift
    done
    local program=$1
    shift
    local command="/${program##*/} ${*@Q}" name
    for name in "${!PERTASK_@}" "${!RUST_@}"; do command="$name=${!name@Q} $command"; done
    local IFS=,
    boot "$cpu" "$mode" "$program" <<<"$user ${settings[*]:--} $command"
}

# collect FOLDER CARGO-ARGUMENT...: builds test binaries and puts them there, without the hash in their names.
collect() {
    local folder=$1
    shift
    rm -rf "$folder" && mkdir -p "$folder"
    # Cargo knows what it has built; "running" that is to copy it. Debug information would only make the machine's disk large.
    CARGO_PROFILE_DEV_DEBUG=0 cargo test --manifest-path "$REPOSITORY/Cargo.toml" --target "$TARGET" \
        --config "target.$TARGET.runner = ['cp', '--target-directory', '$folder']" "$@"
    for program in "$folder"/*; do mv "$program" "${program%-*}"; done
}

host_packages >&2
guest_packages >&2
if [ "${1-}" = run ]; then
    shift
    run "$@"
    exit
fi

# What the gate runs, all machines at once. A clock that is not found here is a failure; each test of the clocks is short, as
# nothing disturbs an exact machine. The report's tests read the repository, and no processor matters to them.
rustup target add "$TARGET"
collect "$CACHE/programs" -p pertask-core -p pertask --lib --test switch --test truth --test counters

exact_jobs() {
    for user in root nobody; do
        cat <<JOBS
$user - /pertask_core --quiet
$user - /switch --quiet
$user - /pertask --quiet --skip report::
$user - PERTASK_TRUTH_ALL=1 PERTASK_TRUTH_MS=300 /truth --nocapture
JOBS
        # Counts read by system call, and in user space. What is left out reads /proc thousands of times, which is slow to emulate
        # and the same on any processor.
        for access in 0 1; do
            echo "$user kernel.perf_user_access=$access PERTASK_COUNTERS_ALL=1 /counters --nocapture --test-threads=1" \
                "--skip snapshots_beside_short_polls"
        done
    done
}

# Threads that do run at once; and a counter whose rate cannot be measured exactly.
parallel_jobs() {
    cat <<JOBS
root - /switch --quiet
root - /pertask --quiet clock::counter
JOBS
}

machines=(max-exact cortex-a72-exact max-parallel)
declare -A running
for machine in "${machines[@]}"; do
    cpu=${machine%-*} mode=${machine##*-}
    "${mode}_jobs" | boot "$cpu" "$mode" "$CACHE"/programs/* >"$CACHE/$machine.log" 2>&1 &
    running[$machine]=$!
done
failed=0
for machine in "${machines[@]}"; do
    wait "${running[$machine]}" || failed=1
    printf '\n-- %s\n' "$machine"
    cat "$CACHE/$machine.log"
done
exit $failed
