#!/usr/bin/env bash
# Prints the plugin configuration inside envoy.yaml, for `vkey mint --config` and `vkey explain --config`.
set -euo pipefail
cd "$(dirname "$0")/.."

# The lines below `value: |`, for as long as they are indented deeper than it.
awk '
    { match($0, /^ */) }
    inside && NF && RLENGTH <= depth { exit }
    inside { print substr($0, depth + 3) }
    /^ *value: \|$/ { inside = 1; depth = RLENGTH }
' envoy.yaml
