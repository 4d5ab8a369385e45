#!/usr/bin/env bash
# plugin-config.sh [FILE]: prints the plugin configuration in FILE, an envoy.yaml (the default) or an nginx.conf, for
# `vkey mint --config`, `vkey explain --config` and `vkey config check`.
set -euo pipefail
file=${1:-$(dirname "$0")/../envoy.yaml}

# In envoy.yaml: the lines after `value: |` that are indented deeper. In nginx.conf: the text between the quotes of
# `proxy_wasm vkey '…';`.
awk '
    { match($0, /^ */) }
    inside && NF && RLENGTH <= depth { exit }
    inside { print substr($0, depth + 3) }
    /^ *value: \|$/ { inside = 1; depth = RLENGTH }
    sub(/^ *proxy_wasm vkey '\''/, "") { quoted = 1 }
    quoted { last = sub(/'\'';.*/, ""); print; if (last) exit }
' "$file"
