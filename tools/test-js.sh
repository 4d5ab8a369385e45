#!/usr/bin/env bash
# Tests the library for JavaScript in Node and Chromium, and the package target/js as a TypeScript project uses it.
set -euo pipefail
cd "$(dirname "$0")/.."

typescript=$PWD/.tools/npm-js/node_modules
export VKEY_TEST_ROOT=$PWD
VKEY_TEST_CHROMIUM=$(type -P chromium)
export VKEY_TEST_CHROMIUM

# In wasm, the runner chooses where. It accepts a binary without tests; the last check does not.
export CARGO_TARGET_WASM32_UNKNOWN_UNKNOWN_RUNNER=$PWD/.tools/bin/wasm-bindgen-test-runner
CHROMEDRIVER=$(type -P chromedriver)
wasm_tests() {
    env "$@" cargo test --package vkey-js --target wasm32-unknown-unknown --test keys 2>&1 | tee target/test-js.log
    ! grep -F 'no tests to run' target/test-js.log
}
wasm_tests WASM_BINDGEN_USE_NODE_EXPERIMENTAL=1
wasm_tests WASM_BINDGEN_USE_BROWSER=1 CHROMEDRIVER="$CHROMEDRIVER"

rm -rf target/js-test
cp -r crates/js/tests/package target/js-test
cd target/js-test
npm pack --silent "$VKEY_TEST_ROOT/target/js" >/dev/null
npm install --offline --no-save --no-audit --no-fund --loglevel=error ./vkey-*.tgz >/dev/null
ln -s "$typescript/@types" "$typescript/undici-types" node_modules/
"$typescript/.bin/tsc"
node --test out/
