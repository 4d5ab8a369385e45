#!/usr/bin/env bash
# build-js.sh FOLDER: the npm package for JavaScript, of two modules: what reads keys, and what writes them.
set -euo pipefail
cd "$(dirname "$0")/.."

folder=$1
wasm_opt=.tools/npm/node_modules/.bin/wasm-opt
bindgen=.tools/bin/wasm-bindgen-cli
raw=target/wasm32-unknown-unknown/small/vkey_js.wasm
. tools/remaps.sh
export CARGO_ENCODED_RUSTFLAGS=${remap_flags%$'\x1f'}

rm -rf "$folder.new"
mkdir -p target "$(dirname "$folder")"
cp -r crates/js/npm "$folder.new"
for part in read write; do
    cargo build --quiet --locked --profile small -p vkey-js --no-default-features --features $part \
        --target wasm32-unknown-unknown --target-dir target
    "$bindgen" --target web --no-typescript --out-name $part --out-dir "$folder.new/wasm" "$raw"
    module=$folder.new/wasm/${part}_bg.wasm
    # The features that rustc uses by default for this target.
    "$wasm_opt" -Oz --converge --enable-bulk-memory --enable-multivalue --enable-mutable-globals \
        --enable-nontrapping-float-to-int --enable-reference-types --enable-sign-ext --strip-debug --strip-producers \
        --strip-target-features "$module" -o "$module.small"
    mv "$module.small" "$module"
    if grep -aqF -e "$PWD" -e "$cargo_home" -e "$sysroot" "$module"; then
        echo "build-js: $module holds a path of this machine" >&2
        exit 1
    fi
    echo "$folder/wasm/${part}_bg.wasm: $(wc -c < "$module") bytes"
done
# The server includes the package, and is built again if it changes.
if diff -rq "$folder" "$folder.new" > target/js.diff 2>&1; then
    rm -rf "$folder.new"
else
    rm -rf "$folder"
    mv "$folder.new" "$folder"
fi
