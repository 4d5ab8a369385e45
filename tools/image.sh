#!/usr/bin/env bash
# Builds images with buildah, and pushes them.
#   image.sh build module|gate|command ...  writes target/image/NAME, and prints its digest
#   image.sh push REGISTRY NAME...          pushes what was built, and prints what to deploy
# The module is also written as target/image/artifact, in the artifact form, and pushed under the tag TAG-artifact.
# The same files make the same digest, whatever their times, modes and folder: the digests of two builds can be compared
# if the version of buildah is the same.
#
# Environment: GATE_BASE and COMMAND_BASE replace the base images; TAG is the tag that is pushed; SIGN_KEY is the private
# key of signatures in the form of cosign (ECDSA P-256, PEM); IMAGE_FOLDER replaces target/image.
set -euo pipefail
cd "$(dirname "$0")/.."

folder=${IMAGE_FOLDER:-target/image}
deploy=filters/vkey/deploy
work=

fail() {
    echo "image: $*" >&2
    exit 1
}

# All that buildah keeps is in the working folder.
storage() {
    buildah --root "$work/storage" --runroot "$work/run" --storage-driver vfs "$@"
}

# digest NAME: that of the manifest, which a registry keeps.
digest() {
    sed -n 's/.*"digest":"\(sha256:[0-9a-f]*\)".*/\1/p' "$folder/$1/index.json"
}

# build NAME CONTAINERFILE BASE [SOURCE NAME-IN-CONTEXT]...
build() {
    local name=$1 file=$2 base=$3 context=$work/$1 arguments=()
    shift 3
    mkdir -p "$context"
    while [ $# -gt 0 ]; do
        [ -f "$1" ] || fail "$1 is missing: run \`make build\` first"
        cp "$1" "$context/$2"
        shift 2
    done
    [ -z "$base" ] || arguments=(--build-arg "BASE=$base")
    storage build --quiet --format oci --timestamp 0 --identity-label=false "${arguments[@]}" \
        --file "$deploy/$file" --tag "vkey-$name" "$context" >/dev/null
    rm -rf "${folder:?}/$name"
    storage push --quiet "vkey-$name" "oci:$folder/$name"
    echo "$folder/$name $(digest "$name")"
}

build_one() {
    case $1 in
        module)
            build module oci/Containerfile "" target/vkey.wasm plugin.wasm
            tools/oci.py artifact target/vkey.wasm "$folder/artifact"
            echo "$folder/artifact $(digest artifact)"
            ;;
        gate)
            build gate image/Containerfile "${GATE_BASE:-}" target/vkey.wasm vkey.wasm \
                $deploy/kubernetes/base/envoy.yaml envoy.yaml
            ;;
        command) build command command/Containerfile "${COMMAND_BASE:-}" target/release/vkey vkey ;;
        *) fail "no such image: $1" ;;
    esac
}

# repository NAME: how kubernetes/ calls the image. The artifact is another form of the image of the module.
repository() {
    case $1 in
        command) echo vkey ;;
        artifact) echo vkey-module ;;
        *) echo "vkey-$1" ;;
    esac
}

# copy LAYOUT TARGET. A registry on this machine has no certificate.
copy() {
    local verify=true
    case $2 in 127.0.0.1:* | localhost:*) verify=false ;; esac
    skopeo copy --quiet --preserve-digests --dest-tls-verify=$verify "oci:$1" "docker://$2"
}

# push_one REGISTRY NAME [SUFFIX-OF-TAG]
push_one() {
    local tag=${TAG:-$(sed -n 's/^version = "\(.*\)"/\1/p' Cargo.toml | head -1)} target image
    [ -f "$folder/$2/index.json" ] || fail "$folder/$2 is missing: run \`make image\` first"
    target=$1/$(repository "$2")
    image=$(digest "$2")
    copy "$folder/$2" "$target:$tag${3:-}"
    if [ -n "${SIGN_KEY:-}" ]; then
        tools/oci.py signature "$folder/$2" "$target" "$SIGN_KEY" "$work/signature"
        copy "$work/signature" "$target:${image/:/-}.sig"
    fi
    echo "$target@$image"
    [ "$2" != module ] || push_one "$1" artifact -artifact
}

part=${1:-}
shift || true
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
case $part in
    build)
        mkdir -p "$folder"
        for name in "$@"; do build_one "$name"; done
        ;;
    push)
        registry=${1:-}
        [ -n "$registry" ] || fail "name the registry: make push REGISTRY=registry.example/team"
        shift
        for name in "$@"; do push_one "$registry" "$name"; done
        ;;
    *) fail "no such part: $part" ;;
esac
