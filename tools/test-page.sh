#!/usr/bin/env bash
# test-page.sh TOOLS: tests the page of the server in Chromium, with the tools of that folder.
set -euo pipefail
cd "$(dirname "$0")/.."

export VKEY_TEST_ROOT=$PWD
export VKEY_TEST_PAGE_SERVER=$PWD/target/debug/examples/page
VKEY_TEST_PAGE_TOOLS=$(realpath "$1")
VKEY_TEST_CHROMIUM=$(type -P chromium)
export VKEY_TEST_PAGE_TOOLS VKEY_TEST_CHROMIUM
node --test crates/server/tests/page/
