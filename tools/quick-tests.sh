#!/usr/bin/env bash
# quick-tests.sh ENVOY: the tests of the library, of the ledger, of the command and of the repository, and meanwhile the main end-to-end
# tests on this Envoy, which wait for a proxy most of the time.
set -euo pipefail
set -m # the end-to-end tests get a process group, so that their proxies end with them
cd "$(dirname "$0")/.."

quick=(--lib --test budgets --test command --test repository --test scenarios)
log=target/main-tests.log

cargo test --no-run --test envoy "${quick[@]}"
tools/main-tests.sh "$1" > "$log" 2>&1 &
main=$!
trap 'kill -- "-$main" 2>/dev/null || true' EXIT
cargo test "${quick[@]}"
wait "$main" || { cat "$log"; exit 1; }
cat "$log"
