#!/usr/bin/env bash
# What pertask and other tools cost a service with very short requests, and a task's life: one table each.
#
#   bench/peers.sh        15 rounds, some two minutes each after building
#   bench/peers.sh 5      a first look
#   bench/peers.sh 15 2   beside two programs that want a CPU all the time
#
# Each tool is in the build that its documentation asks for, and is compared with the same build without it.
set -euo pipefail
shopt -s inherit_errexit
cd "$(dirname "$0")/peers"
ROUNDS=${1:-15}
TARGET=${CARGO_TARGET_DIR:-target}

build() {
    local name=$1 flags=$2
    RUSTFLAGS=$flags CARGO_TARGET_DIR=$TARGET/$name cargo build -q --release --locked --features "$name"
    printf '%s' "$TARGET/$name/release/pertask-bench-peers"
}

plain=$(build peers '')
PEERS_CONSOLE=$(build console '--cfg tokio_unstable')
PEERS_DIAL9=$(build dial9 '--cfg tokio_unstable -C force-frame-pointers=yes')
export PEERS_CONSOLE PEERS_DIAL9
"$plain" "$ROUNDS" "${2:-0}"
