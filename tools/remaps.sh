# remaps.sh: to be sourced. Sets cargo_home, sysroot and remap_flags, with which a build names no path of this machine.
#
# Panic messages name source files. These become names that are the same for everyone: the checkout, the registry's
# folder (called after the registry's host) and the standard library (elsewhere where rust-src is installed).
cargo_home=${CARGO_HOME:-$HOME/.cargo}
sysroot=$(rustc --print sysroot)
cargo fetch --quiet --locked
commit=$(rustc -vV | sed -n 's/^commit-hash: //p')
remaps=("$PWD=/vkey" "$cargo_home=/cargo" "$sysroot/lib/rustlib/src/rust=/rustc/$commit")
for registry in "$cargo_home"/registry/src/*/; do
    remaps+=("${registry%/}=/cargo/registry")
done
remap_flags=$(printf -- '--remap-path-prefix=%s\x1f' "${remaps[@]}")
