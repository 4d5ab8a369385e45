#!/usr/bin/env bash
# precompile.sh MODULE OUTPUT CARGO-OPTIONS: compiles a wasm module for the command's embedded host. The compiler is
# built without optimisation, which is faster; the code that it generates is optimised anyway.
set -euo pipefail
cd "$(dirname "$0")/.."

module=$1
output=$2
shift 2
cargo build --locked --bin precompile "$@"
# The result depends on the module, the engine and its configuration.
from=$(cat "$module" crates/vm/src/module.rs <(sed -n '/^name = "wasmtime"$/,/^$/p' Cargo.lock) | sha256sum)
if [ ! -s "$output" ] || [ "$(cat "$output.from" 2>/dev/null)" != "$from" ]; then
    target/debug/precompile "$module" "$output"
    echo "$from" > "$output.from"
fi
echo "$output: $(wc -c < "$output") bytes, compiled from $module"
