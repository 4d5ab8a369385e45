#!/usr/bin/env bash
# Runs envoy.yaml on a real Envoy ($ENVOY) with a secret of this checkout, and prints a key to try.
set -euo pipefail
cd "$(dirname "$0")/.."

binary=${ENVOY:?must name the Envoy to run; make run sets it}
vkey=target/release/vkey
state=target/demo
admin=http://127.0.0.1:9901

sed -n 's/.*port_value: \([0-9]*\).*/\1/p' envoy.yaml | sort -u | while read -r port; do
    if (exec 3<>"/dev/tcp/127.0.0.1/$port") 2>/dev/null; then
        echo "run: port $port is in use; stop the program that listens there (another \`make run\`?) or change envoy.yaml" >&2
        exit 1
    fi
done

umask 077
mkdir -p "$state"
[ -s "$state/main.secret" ] || "$vkey" secret new --out "$state/main.secret" --force
VKEY_MAIN_SECRET=$(<"$state/main.secret")
export VKEY_MAIN_SECRET

# Envoy and the provider end with this script, and the script waits for them.
trap 'kill "$envoy" "$provider" 2>/dev/null || true; wait "$envoy" "$provider" "$tee" 2>/dev/null || true' EXIT
trap 'exit 0' INT
trap 'exit 143' TERM HUP

# By default Envoy flushes access log lines every ten seconds.
rm -f "$state/audit.pipe"
mkfifo "$state/audit.pipe"
tee -i "$state/audit.log" < "$state/audit.pipe" &
tee=$!
python3 examples/provider/provider.py 10002 &
provider=$!
"$binary" --config-path envoy.yaml --disable-hot-restart --log-level warning \
    --file-flush-interval-msec 100 > "$state/audit.pipe" &
envoy=$!

until [ "$(curl -s --max-time 1 $admin/ready)" = LIVE ]; do
    kill -0 "$envoy" 2>/dev/null || { echo "run: Envoy did not start" >&2; exit 1; }
    sleep 0.1
done

key=$("$vkey" mint --config envoy.yaml --tenant acme --sub demo --lifetime 1h)
cat <<END

The gate is open on 127.0.0.1:10000. A key of tenant acme, for one hour:

  $key

Try it:

  curl -i -H 'authorization: Bearer $key' http://127.0.0.1:10000/v1/models
  curl -N -H 'authorization: Bearer $key' http://127.0.0.1:10000/v1/chat/completions --json \
    '{"model":"gpt-4o-mini","stream":true,"messages":[{"role":"user","content":"Name three rivers."}]}'
  curl -H 'authorization: Bearer $key' http://127.0.0.1:10000/mcp --json \
    '{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"search_rivers"}}'

\`make demo\` in a second terminal shows more. Audit lines follow below; Ctrl-C stops Envoy.

END
wait "$envoy"
