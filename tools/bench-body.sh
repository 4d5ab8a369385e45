#!/usr/bin/env bash
# Measures how fast bodies are read, in MB/s: natively, and by a module that is built like that of the gate, in Node.
# Writes target/bench/body.csv. With STRICT=1 it fails if requests for chats are read too slowly.
set -euo pipefail
cd "$(dirname "$0")/.."

# The least for a request for a chat, in MB/s.
min_native=200
min_wasm=80

cargo build --quiet --release -p vkey-bench-body --bin bench-body
PACKAGE=vkey-bench-body tools/build-wasm.sh target/bench-body.wasm --lib >/dev/null
native=$("${CARGO_TARGET_DIR:-target}/release/bench-body")
read -ra names <<< "$(cut -d' ' -f1 <<< "$native" | tr '\n' ' ')"
wasm=$(node benches/body/run.mjs target/bench-body.wasm "${names[@]}")

mkdir -p target/bench
{
    echo "body,native_mb_per_sec,wasm_mb_per_sec"
    join <(sort <<< "$native") <(sort <<< "$wasm") | tr ' ' ,
} > target/bench/body.csv
column -s, -t target/bench/body.csv
awk -F, -v native=$min_native -v wasm=$min_wasm -v strict="${STRICT:-}" '
    $1 == "Chat" {
        is_met = $2 >= native && $3 >= wasm
        print "chat: " (is_met ? "met" : "missed") ": at least " native " MB/s natively, " wasm " MB/s as wasm"
        exit strict && !is_met
    }' target/bench/body.csv
