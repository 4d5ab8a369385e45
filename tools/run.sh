#!/usr/bin/env bash
# Runs envoy.yaml on a real Envoy ($ENVOY) with secrets of this checkout and the collector beside it, and prints keys to
# try.
set -euo pipefail
cd "$(dirname "$0")/.."

binary=${ENVOY:?must name the Envoy to run; make run sets it}
vkey=target/release/vkey
state=target/demo
admin=http://127.0.0.1:9901
page=127.0.0.1:9911

{ sed -n 's/.*port_value: \([0-9]*\).*/\1/p' envoy.yaml; echo "${page#*:}"; } | sort -u | while read -r port; do
    if (exec 3<>"/dev/tcp/127.0.0.1/$port") 2>/dev/null; then
        echo "run: port $port is in use; stop the program that listens there (another \`make run\`?) or change envoy.yaml" >&2
        exit 1
    fi
done

umask 077
mkdir -p "$state"
for name in main audit; do
    [ -s "$state/$name.secret" ] || "$vkey" secret new --out "$state/$name.secret" --force
done
VKEY_MAIN_SECRET=$(<"$state/main.secret")
VKEY_AUDIT_SECRET=$(<"$state/audit.secret")
export VKEY_MAIN_SECRET VKEY_AUDIT_SECRET

# The records form a chain.
sed -e 's/host_env_keys: \[VKEY_MAIN_SECRET\]/host_env_keys: [VKEY_MAIN_SECRET, VKEY_AUDIT_SECRET]/' \
    -e 's/"audit": {"sink": "access_log"}/"audit": {"sink": "access_log", "secret": "${VKEY_AUDIT_SECRET}"}/' \
    envoy.yaml > "$state/envoy.yaml"

# All end with this script, and the script waits for them: the collector last, so that it has all lines.
trap 'kill "$envoy" "$provider" 2>/dev/null || true; wait "$envoy" "$provider" "$tee" 2>/dev/null || true
    kill "$collector" 2>/dev/null || true; wait "$collector" 2>/dev/null || true' EXIT
trap 'exit 0' INT
trap 'exit 143' TERM HUP

# By default Envoy flushes access log lines every ten seconds.
rm -f "$state/audit.pipe"
mkfifo "$state/audit.pipe"
for log in audit.log envoy.log; do
    if [ -s "$state/$log" ]; then mv "$state/$log" "$state/$log.1"; fi
done
tee -i "$state/audit.log" < "$state/audit.pipe" &
tee=$!
python3 examples/provider/provider.py 10002 &
provider=$!
"$binary" --config-path "$state/envoy.yaml" --disable-hot-restart --log-level warning \
    --file-flush-interval-msec 100 > "$state/audit.pipe" 2> >(tee -i "$state/envoy.log" >&2) &
envoy=$!
VKEY_GATE_KEY=$("$vkey" mint --config envoy.yaml --tenant ops --tier operator --sub vkey-serve --lifetime 1d)
export VKEY_GATE_KEY
"$vkey" serve --config "$state/envoy.yaml" --store "$state/audit.db" --listen "$page" \
    --gate http://127.0.0.1:10000 --gate-key-env VKEY_GATE_KEY \
    --follow "$state/audit.log" --follow "$state/envoy.log" 2> "$state/serve.log" &
collector=$!

until [ "$(curl -s --max-time 1 $admin/ready)" = LIVE ]; do
    kill -0 "$envoy" 2>/dev/null || { echo "run: Envoy did not start" >&2; exit 1; }
    sleep 0.1
done

until [ "$(curl -s --max-time 1 "http://$page/healthz")" = ok ]; do
    kill -0 "$collector" 2>/dev/null || { cat "$state/serve.log" >&2; echo "run: the collector did not start" >&2; exit 1; }
    sleep 0.1
done

key=$("$vkey" mint --config envoy.yaml --tenant acme --sub demo --lifetime 1h)
operator=$("$vkey" mint --config envoy.yaml --tenant ops --tier operator --sub demo --aud vkey-serve --lifetime 1h)
cat <<END

The gate is open on 127.0.0.1:10000. A key of tenant acme, for one hour:

  $key

Try it:

  curl -i -H 'authorization: Bearer $key' http://127.0.0.1:10000/v1/models
  curl -N -H 'authorization: Bearer $key' http://127.0.0.1:10000/v1/chat/completions --json \
    '{"model":"gpt-4o-mini","stream":true,"messages":[{"role":"user","content":"Name three rivers."}]}'
  curl -H 'authorization: Bearer $key' http://127.0.0.1:10000/mcp --json \
    '{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"search_rivers"}}'

The audit trail is on http://$page/ and asks for a key of an operator:

  $operator

\`make demo\` in a second terminal shows more. Audit lines follow below; Ctrl-C stops Envoy.

END
wait "$envoy"
