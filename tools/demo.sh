#!/usr/bin/env bash
# Sends requests to the gate that `make run` has started. Exits with 1 if a response is not the expected one.
set -euo pipefail
cd "$(dirname "$0")/.."

vkey=target/release/vkey
state=target/demo
gate=http://127.0.0.1:10000
page=127.0.0.1:9911
sent=0
failed=0

if [ "$(curl -s --max-time 1 http://127.0.0.1:9901/ready)" != LIVE ]; then
    echo "demo: no Envoy is running; start \`make run\` in another terminal first" >&2
    exit 1
fi
VKEY_MAIN_SECRET=$(<"$state/main.secret")
export VKEY_MAIN_SECRET
response=$(mktemp)
trap 'rm -f "$response"' EXIT
lines_before=$(wc -l < "$state/audit.log")

mint() {
    "$vkey" mint --config envoy.yaml --tenant acme --sub demo "$@"
}

wrong() {
    echo "!! $*"
    failed=1
}

# Whether the response has this text, without regard to spaces.
shows() {
    tr -d ' \n' < "$response" | grep -qF "$1"
}

# expect STATUS TITLE KEY PATH [CURL OPTIONS]: curl reads the key from stdin, so that no list of processes shows it.
expect() {
    local wanted=$1 title=$2 key=$3 path=$4 status
    shift 4
    printf '\n== %s\n$ curl %s%s%s\n' "$title" "${key:+-H 'authorization: Bearer <key>' }" "${*:+$* }" "$gate$path"
    status=$(printf '%s' "${key:+authorization: Bearer $key}" |
        curl -sS -o "$response" -w '%{http_code}' -H @- "$@" "$gate$path")
    sent=$((sent + 1))
    echo "$status"
    sed 's/^/  /' "$response"
    echo
    [ "$status" = "$wanted" ] || wrong "expected $wanted"
    # No response contains a key, neither from the gate nor from the upstream.
    if [ -n "$key" ] && grep -qF "${key#vk1.}" "$response"; then wrong "the response contains the key"; fi
}

key=$(mint --lifetime 10m)
reader=$("$vkey" attenuate --caveat '{"methods":["GET"]}' <<< "$key")
short=$(mint --lifetime 1s)
minted_at=$(date +%s)

expect 401 "No key" "" /v1/models
expect 200 "A valid key: the echo shows the request that reaches the upstream, without the key" "$key" /v1/models
expect 200 "A key narrowed to GET, offline" "$reader" /v1/models
expect 403 "POST with the narrowed key" "$reader" /v1/images -X POST -d '{}'
expect 200 "POST with the original key" "$key" /v1/images -X POST -d '{}'
expect 403 "A path that the tier does not allow" "$key" /admin
expect 502 "The host of a known provider over the plaintext connection to the echo: nothing is sent" \
    "$key" /v1/models -H "host: api.openai.com"
until [ "$(date +%s)" -gt $((minted_at + 1)) ]; do sleep 0.1; done
expect 401 "A key of one second, two seconds old" "$short" /v1/models
expect 200 "The counts of the key, those of the narrowed key included" "$key" /.vkey/usage
shows '"seen":6,"allowed":3' || wrong "expected 6 seen, 3 allowed"

# Chat completions: the provider in examples/provider streams as OpenAI does.
chat() {
    printf '{"model":"%s","max_tokens":100,"stream":true,"messages":[{"role":"user","content":"Name three rivers."}]}' "$1"
}
trial=$(mint --tier trial --lifetime 10m)
mini=$("$vkey" attenuate --caveat '{"models":["gpt-4o-mini"]}' <<< "$trial")
expect 403 "A model that the key may not use" "$mini" /v1/chat/completions --json "$(chat gpt-4o)"
expect 200 "A stream, whose tokens are counted" "$mini" /v1/chat/completions --json "$(chat gpt-4o-mini)"
expect 200 "The tokens that it used" "$trial" /.vkey/usage
shows '"name":"tier_tokens_day","limit":120,"used":10,' || wrong "expected 10 tokens used"
expect 200 "Another stream" "$mini" /v1/chat/completions --json "$(chat gpt-4o-mini)"
expect 429 "The quota has no room for what one more request may use" "$mini" /v1/chat/completions --json "$(chat gpt-4o-mini)"

# MCP: the same program is a server with the tools search_rivers and delete_river.
message() {
    printf '{"jsonrpc":"2.0","id":7,"method":"%s","params":%s}' "$1" "${2:-{\}}"
}
tools=$("$vkey" attenuate --tools 'search_*' <<< "$key")
expect 200 "A tool that the key may call" "$tools" /mcp --json "$(message tools/call '{"name":"search_rivers"}')"
shows '"result":{"content":[' || wrong "expected the result of the tool"
expect 200 "Another tool: an error of JSON-RPC, so that the client keeps its session" \
    "$tools" /mcp --json "$(message tools/call '{"name":"delete_river"}')"
shows '"id":7,"error":{"code":403,' || wrong "expected the error 403"
expect 200 "The tools that the server lists, without the one that the key may not call" \
    "$tools" /mcp --json "$(message tools/list)"
if ! shows '"name":"search_rivers"' || shows delete_river; then wrong "expected search_rivers alone"; fi

printf '\n== The audit lines, one per request\n'
deadline=$((SECONDS + 10))
while [ $(($(wc -l < "$state/audit.log") - lines_before)) -lt "$sent" ] && [ $SECONDS -lt $deadline ]; do sleep 0.1; done
tail -n +$((lines_before + 1)) "$state/audit.log"
lines=$(($(wc -l < "$state/audit.log") - lines_before))
[ "$lines" = "$sent" ] || wrong "expected $sent lines, found $lines"
if tail -n +$((lines_before + 1)) "$state/audit.log" | grep -qF "${key#vk1.}"; then wrong "a line contains the key"; fi

# The collector has read them, and verified their chain.
printf '\n== The audit trail on http://%s/\n' "$page"
operator=$("$vkey" mint --config envoy.yaml --tenant ops --tier operator --sub demo --aud vkey-serve --lifetime 10m)
ask() {
    printf 'authorization: Bearer %s' "$operator" | curl -s --max-time 5 -H @- "http://$page$1"
}
shown() {
    ask "/api/audit/logs?status=failed&limit=1000" | grep -qF "\"request_id\":\"$last\""
}
last=$(tail -n +$((lines_before + 1)) "$state/audit.log" | grep '"decision":"deny"' | tail -1 | sed 's/.*"req":"\([^"]*\)".*/\1/')
deadline=$((SECONDS + 10))
until shown || [ $SECONDS -ge $deadline ]; do sleep 0.1; done
shown || wrong "the collector does not have the refused request $last"
echo "$ curl -H 'authorization: Bearer …' 'http://$page/api/audit/logs?status=failed&limit=2&format=csv'"
ask "/api/audit/logs?status=failed&limit=2&format=csv" | cut -c 1-160
echo "$ curl -H 'authorization: Bearer …' 'http://$page/api/usage?by=model&tenant=acme'"
ask "/api/usage?by=model&tenant=acme"
printf '\n'
ask /api/chain | grep -qF '"intact":true' || wrong "the chain is not intact: $(ask /api/chain)"
echo "the chain is intact"

echo
if [ $failed = 0 ]; then echo "demo: every response as expected"; else echo "demo: FAILED"; fi
exit $failed
