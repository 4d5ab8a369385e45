#!/usr/bin/env bash
# Makes the files of a release.
#   release.sh ready                   fails if the checkout has changes that are not committed, or the key is missing
#   release.sh collect BUILT FOLDER    copies what was built, with the lists of what it consists of, into a new folder
#   release.sh finish FOLDER           writes the checksums, signs them, and prints them
#   release.sh rebuild MODULE...       builds modules once more from a copy of the checkout, and compares the bytes
#
# Environment: MINISIGN_KEY is the secret key that signs; without it, nothing is signed. POLICY is the upstream-TLS
# policy that is compiled in.
set -euo pipefail
cd "$(dirname "$0")/.."

fail() {
    echo "release: $*" >&2
    exit 1
}

ready() {
    local changes
    [ -z "${MINISIGN_KEY:-}" ] || [ -r "$MINISIGN_KEY" ] || fail "MINISIGN_KEY=$MINISIGN_KEY cannot be read"
    changes=$(git status --porcelain)
    [ -z "$changes" ] || fail "the checkout has changes that are not committed:"$'\n'"$changes"
}

# collect BUILT FOLDER
collect() {
    local built=$1 folder=$2 name
    for name in vkey.wasm vkey-nginx.wasm release/vkey js/package.json; do
        [ -f "$built/$name" ] || fail "$built/$name is missing: run \`make build\` first"
    done
    # Nothing of an earlier release stays.
    rm -rf "$folder"
    mkdir -p "$folder"
    folder=$(realpath "$folder")
    install -m 644 "$built/vkey.wasm" "$built/vkey-nginx.wasm" LICENSE "$folder"
    install -m 755 "$built/release/vkey" "$folder"
    install -m 644 "${POLICY:-filters/vkey/upstream-tls.json}" "$folder/upstream-tls.json"
    (cd "$built/js" && npm pack --silent --ignore-scripts --pack-destination "$folder" >/dev/null)
    tools/sbom.py "$folder/vkey.wasm" > "$folder/vkey.cdx.json"
    tools/sbom.py "$folder/vkey-nginx.wasm" nginx > "$folder/vkey-nginx.cdx.json"
    tools/third-party.py > "$folder/THIRD-PARTY.txt"
}

# sign FOLDER: one signature, of the checksums, because they name the files: another file of the release cannot take the
# place of the one that was asked for.
sign() {
    local version commit
    version=$(sed -n 's/^version = "\(.*\)"/\1/p' Cargo.toml | head -1)
    commit=$(git rev-parse HEAD)
    minisign -S -s "$MINISIGN_KEY" -t "vkey $version, commit $commit, $(rustc --version)" -m "$1/SHA256SUMS"
}

# finish FOLDER
finish() {
    local sums
    rm -f "$1"/SHA256SUMS*
    sums=$(cd "$1" && LC_ALL=C && sha256sum -- *)
    echo "$sums" > "$1/SHA256SUMS"
    if [ -n "${MINISIGN_KEY:-}" ]; then
        sign "$1"
    else
        echo "release: unsigned: MINISIGN_KEY names no key"
    fi
    cat "$1/SHA256SUMS"
}

# rebuild MODULE...: another folder, and another home of cargo, whose packages are unpacked anew.
rebuild() {
    local home=${CARGO_HOME:-$HOME/.cargo} name options
    work=$(mktemp -d)
    trap 'rm -rf "$work"' EXIT
    mkdir -p "$work/another/checkout" "$work/cargo/registry"
    git ls-files -z | tar --null --files-from - --create | tar --extract --directory "$work/another/checkout"
    ln -s "$PWD/.tools" "$work/another/checkout/.tools"
    for name in registry/index registry/cache config.toml; do
        [ ! -e "$home/$name" ] || cp -r "$home/$name" "$work/cargo/$name"
    done
    for name in "$@"; do
        options=()
        [ "${name##*/}" != vkey-nginx.wasm ] || options=(--features nginx)
        (
            cd "$work/another/checkout"
            mkdir -p target
            CARGO_HOME=$work/cargo tools/build-wasm.sh "target/${name##*/}" "${options[@]}"
        )
        cmp "$name" "$work/another/checkout/target/${name##*/}" || fail "the second build of $name has other bytes"
        echo "release: the second build of $name has the same bytes"
    done
}

part=${1:-}
shift || true
case $part in
    ready | collect | finish | rebuild) "$part" "$@" ;;
    *) fail "no such part: $part" ;;
esac
