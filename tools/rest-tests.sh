#!/usr/bin/env bash
# rest-tests.sh [--short]: the tests that quick-tests.sh leaves out. --short: of the end-to-end tests a part, and none
# with MCP peers of other authors.
set -euo pipefail
cd "$(dirname "$0")/.."

left_out=(envoy command repository scenarios)
others=--others
if [ "${1-}" = --short ]; then
    left_out+=(mcp)
    others=--some
fi

# Every test target of the native packages, so that a new one is run.
mapfile -t targets < <(cargo metadata --no-deps --format-version 1 | python3 -c '
import json, sys
metadata = json.load(sys.stdin)
native = set(metadata["workspace_default_members"])
for package in metadata["packages"]:
    for target in package["targets"] if package["id"] in native else []:
        if "test" in target["kind"]:
            print(target["name"])
' | sort -u | grep -vxF "${left_out[@]/#/--regexp=}")
[ "${#targets[@]}" -gt 0 ] || { echo "rest-tests: found no test targets" >&2; exit 1; }

cargo test --bins --examples "${targets[@]/#/--test=}"
cargo test --doc
tools/main-tests.sh $others
