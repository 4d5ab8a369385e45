#!/usr/bin/env bash
# [PACKAGE=NAME] [POLICY=PATH] [LEVEL=-O3] build-wasm.sh OUTPUT [CARGO OPTIONS]: a module (without PACKAGE the gate),
# optimised and stripped, the same bytes from any checkout path. The names of its functions are in a list beside it.
# LEVEL=none: only what the optimiser reads.
set -euo pipefail
cd "$(dirname "$0")/.."

output=$1
shift
package=${PACKAGE:-vkey-filter}
profile=module
level=${LEVEL:--O3}
wasm_opt=.tools/npm/node_modules/.bin/wasm-opt
# The upstream-TLS policy that is compiled in, from the root of the checkout.
policy=${POLICY:-filters/vkey/upstream-tls.json}
# Cargo builds a module anew whenever its options or its policy change, so one with others gets a folder of its own.
folder=target
if [ $# -gt 0 ] || [ -n "${POLICY:-}" ]; then
    folder=target/$(basename "$output" .wasm)
fi
raw=$folder/wasm32-wasip1/$profile/${package//-/_}.wasm
optimised_from=${output%.wasm}.raw.wasm
names=${output%.wasm}.symbols
. tools/remaps.sh
# The dependencies are the same, so a new folder begins with those that are built.
if [ ! -e "$folder" ] && [ -d "target/wasm32-wasip1/$profile/deps" ]; then
    rm -rf "$folder.new"
    mkdir -p "$folder.new/wasm32-wasip1"
    cp -a "target/$profile" "$folder.new/"
    cp -a "target/wasm32-wasip1/$profile" "$folder.new/wasm32-wasip1/"
    mv "$folder.new" "$folder"
fi
# Cargo does not see the linker change.
if [ tools/link-wasm.mjs -nt "$raw" ]; then
    rm -f "$raw" "${raw%/*}/deps/${raw##*/}"
fi
flags=$remap_flags
# With LLVM's own threshold (250) the module is a seventh larger, and hardly faster.
flags+=$'-Cllvm-args=-inline-threshold=60\x1f'
CARGO_ENCODED_RUSTFLAGS=${flags%$'\x1f'} \
    cargo build --locked --profile "$profile" -p "$package" --target wasm32-wasip1 --target-dir "$folder" "$@"
if [ "$level" = none ]; then
    exit
fi

# Cargo knows best whether a source has changed; the optimiser runs when its result has.
if [ ! "$output" -nt "$wasm_opt" ] || [ ! "$output" -nt "$0" ] || ! cmp -s "$raw" "$optimised_from" || [ ! -e "$names" ]; then
    # The features that rustc uses by default for this target. The memory below 1024 is the far end of the
    # stack, so no offset from a pointer wraps around to it.
    "$wasm_opt" "$level" --low-memory-unused --enable-bulk-memory --enable-multivalue --enable-mutable-globals \
        --enable-nontrapping-float-to-int --enable-reference-types --enable-sign-ext --symbolmap="$names" \
        --strip-debug --strip-producers --strip-target-features "$raw" -o "$output.new"
    if [ "$package" = vkey-filter ]; then
        tools/dep-section.mjs "$package" "$output.new" "$@"
    fi
    if grep -aqF -e "$PWD" -e "$cargo_home" -e "$sysroot" "$output.new"; then
        echo "build-wasm: $output.new holds a path of this machine" >&2
        exit 1
    fi
    mv "$output.new" "$output"
    cp "$raw" "$optimised_from"
fi
sum=$(sha256sum < "$output")
echo "$output: $(wc -c < "$output") bytes, sha256 ${sum%% *}"
if [ "$package" != vkey-filter ]; then
    exit
fi
sum=$(sha256sum < "$policy")
echo "$output: upstream TLS policy $policy, sha256 ${sum%% *}"
