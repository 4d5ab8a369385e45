#!/usr/bin/env bash
# build-js.sh FOLDER: the npm package for JavaScript, of two modules: what reads keys, and what writes them.
set -euo pipefail
cd "$(dirname "$0")/.."

folder=$1
wasm_opt=.tools/npm/node_modules/.bin/wasm-opt
bindgen=.tools/bin/wasm-bindgen-cli
raw=target/wasm32-unknown-unknown/small/vkey_js.wasm
cargo_home=${CARGO_HOME:-$HOME/.cargo}
sysroot=$(rustc --print sysroot)

# Panic messages name source files, which are the same for everyone: see build-wasm.sh.
cargo fetch --quiet --locked
commit=$(rustc -vV | sed -n 's/^commit-hash: //p')
remaps=("$PWD=/vkey" "$cargo_home=/cargo" "$sysroot/lib/rustlib/src/rust=/rustc/$commit")
for registry in "$cargo_home"/registry/src/*/; do
    remaps+=("${registry%/}=/cargo/registry")
done
flags=$(printf -- '--remap-path-prefix=%s\x1f' "${remaps[@]}")
export CARGO_ENCODED_RUSTFLAGS=${flags%$'\x1f'}

rm -rf "$folder.new"
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
rm -rf "$folder"
mv "$folder.new" "$folder"
