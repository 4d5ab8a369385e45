#!/usr/bin/env bash
# rest-tests.sh: the tests that quick-tests.sh leaves out.
set -euo pipefail
cd "$(dirname "$0")/.."

# Every test target of the native packages, so that a new one is run.
mapfile -t targets < <(cargo metadata --no-deps --format-version 1 | python3 -c '
import json, sys
metadata = json.load(sys.stdin)
native = set(metadata["workspace_default_members"])
for package in metadata["packages"]:
    for target in package["targets"] if package["id"] in native else []:
        if "test" in target["kind"]:
            print(target["name"])
' | sort -u | grep -vxF -e envoy -e command -e repository -e scenarios)
[ "${#targets[@]}" -gt 0 ] || { echo "rest-tests: found no test targets" >&2; exit 1; }

cargo test --bins --examples "${targets[@]/#/--test=}"
cargo test --doc
tools/main-tests.sh --others
