#!/usr/bin/env bash
# build-modules.sh CARGO-OPTIONS: builds both modules, and compiles them for the command. The compiler of the embedded
# host (and what the options name) is built at the same time, and one module is optimised while the other is built,
# because the end of a module's build and the optimiser use one processor.
set -euo pipefail
cd "$(dirname "$0")/.."

log=$(mktemp)
trap 'kill $(jobs -p) 2>/dev/null || true; rm -f "$log"' EXIT

cargo build --locked --bin precompile "$@" > "$log" 2>&1 &
compiler=$!
LEVEL=none tools/build-wasm.sh target/vkey.wasm
wait "$compiler" || { cat "$log" >&2; exit 1; }
{
    tools/build-wasm.sh target/vkey.wasm
    tools/precompile.sh target/vkey.wasm target/vkey.cwasm "$@"
} &
first=$!
tools/build-wasm.sh target/vkey-nginx.wasm --features nginx
tools/precompile.sh target/vkey-nginx.wasm target/vkey-nginx.cwasm "$@"
wait "$first"
