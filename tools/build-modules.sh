#!/usr/bin/env bash
# build-modules.sh CARGO-OPTIONS: both modules, and what the command carries of them. The compiler of the embedded host
# (with what the options name) is built meanwhile: the end of a module's build keeps one processor busy alone.
set -euo pipefail
cd "$(dirname "$0")/.."

log=$(mktemp)
trap 'kill $(jobs -p) 2>/dev/null || true; rm -f "$log"' EXIT

cargo build --locked --bin precompile "$@" > "$log" 2>&1 &
compiler=$!
tools/build-wasm.sh target/vkey.wasm
tools/build-wasm.sh target/vkey-nginx.wasm --features nginx
wait "$compiler" || { cat "$log" >&2; exit 1; }

tools/precompile.sh target/vkey.wasm target/vkey.cwasm "$@" &
first=$!
tools/precompile.sh target/vkey-nginx.wasm target/vkey-nginx.cwasm "$@"
wait "$first"
