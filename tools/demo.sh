#!/usr/bin/env bash
# Walks through the gate that `make run` holds open. Exits with 1 when an answer is not the expected one.
set -euo pipefail
cd "$(dirname "$0")/.."

vkey=target/release/vkey
state=target/demo
gate=http://127.0.0.1:10000
sent=0
failed=0

if [ "$(curl -s --max-time 1 http://127.0.0.1:9901/ready)" != LIVE ]; then
    echo "demo: nothing runs here; start \`make run\` in another terminal first" >&2
    exit 1
fi
VKEY_MAIN_SECRET=$(<"$state/main.secret")
export VKEY_MAIN_SECRET
answer=$(mktemp)
trap 'rm -f "$answer"' EXIT
lines_before=$(wc -l < "$state/audit.log")

mint() {
    "$vkey" mint --config "$state/config.json" --tenant acme --sub demo "$@"
}

wrong() {
    echo "!! $*"
    failed=1
}

# expect STATUS TITLE KEY PATH [CURL OPTIONS]: the key goes in by stdin, so that no list of processes shows it.
expect() {
    local wanted=$1 title=$2 key=$3 path=$4 status
    shift 4
    printf '\n== %s\n$ curl %s%s%s\n' "$title" "${key:+-H 'authorization: Bearer <key>' }" "${*:+$* }" "$gate$path"
    status=$(printf '%s' "${key:+authorization: Bearer $key}" |
        curl -sS -o "$answer" -w '%{http_code}' -H @- "$@" "$gate$path")
    sent=$((sent + 1))
    echo "$status"
    sed 's/^/  /' "$answer"
    echo
    [ "$status" = "$wanted" ] || wrong "expected $wanted"
    # Nothing of a key comes back, neither from the gate nor from what stands behind it.
    if [ -n "$key" ] && grep -qF "${key#vk1.}" "$answer"; then wrong "the answer holds the key"; fi
}

key=$(mint --lifetime 10m)
reader=$("$vkey" attenuate --caveat '{"methods":["GET"]}' <<< "$key")
short=$(mint --lifetime 1s)
minted_at=$(date +%s)

expect 401 "No key" "" /v1/models
expect 200 "A good key: the echo shows what reaches the upstream, and the key is not among it" "$key" /v1/models
expect 200 "Narrowed offline to GET, by whoever holds the key" "$reader" /v1/models
expect 403 "POST with the narrowed key" "$reader" /v1/chat/completions -X POST -d '{}'
expect 200 "POST with the key it came from" "$key" /v1/chat/completions -X POST -d '{}'
expect 403 "A path that the tier does not open" "$key" /admin
expect 502 "A known provider's host, to which the echo's plain connection is not good enough: nothing of it leaves" \
    "$key" /v1/models -H "host: api.openai.com"
until [ "$(date +%s)" -gt $((minted_at + 1)) ]; do sleep 0.1; done
expect 401 "A key of one second, two seconds old" "$short" /v1/models
expect 200 "The key's own counters; what was narrowed from it counts with it" "$key" /.vkey/usage
tr -d ' \n' < "$answer" | grep -qF '"seen":6,"allowed":3' || wrong "expected 6 seen, 3 allowed"

printf '\n== The audit lines, one per request\n'
deadline=$((SECONDS + 10))
while [ $(($(wc -l < "$state/audit.log") - lines_before)) -lt "$sent" ] && [ $SECONDS -lt $deadline ]; do sleep 0.1; done
tail -n +$((lines_before + 1)) "$state/audit.log"
lines=$(($(wc -l < "$state/audit.log") - lines_before))
[ "$lines" = "$sent" ] || wrong "expected $sent lines, found $lines"
if tail -n +$((lines_before + 1)) "$state/audit.log" | grep -qF "${key#vk1.}"; then wrong "a line holds the key"; fi

echo
if [ $failed = 0 ]; then echo "demo: every answer as expected"; else echo "demo: FAILED"; fi
exit $failed
