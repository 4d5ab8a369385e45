#!/usr/bin/env bash
# Prints the plugin configuration inside envoy.yaml, or inside FILE, which may be an nginx.conf: for `vkey mint --config`,
# `vkey explain --config` and `vkey config check`.
set -euo pipefail
file=${1:-$(dirname "$0")/../envoy.yaml}

# Of Envoy's: the lines below `value: |`, for as long as they are indented deeper than it. Of nginx's: what stands
# between the quotes of `proxy_wasm vkey '…';`.
awk '
    { match($0, /^ */) }
    inside && NF && RLENGTH <= depth { exit }
    inside { print substr($0, depth + 3) }
    /^ *value: \|$/ { inside = 1; depth = RLENGTH }
    sub(/^ *proxy_wasm vkey '\''/, "") { quoted = 1 }
    quoted { last = sub(/'\'';.*/, ""); print; if (last) exit }
' "$file"
