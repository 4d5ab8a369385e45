#!/usr/bin/env bash
# Two Envoys ($ENVOY) share one budget of 100 requests, and one of them is killed. Starts all that it needs on free ports.
# Exits with 1 if more than the budget passes, or if a part of it is neither spent nor held by the one that was killed.
set -euo pipefail
cd "$(dirname "$0")/.."

binary=${ENVOY:?must name the Envoy to run; make demo-budgets sets it}
vkey=target/release/vkey
accounts='/v1/ledger/accounts?account=key/acme/k_demo/requests/total'
budget=100 failed=0
declare -A pid gate passed=([A]=0 [B]=0) retries=([A]=0 [B]=0)

umask 077
dir=$(mktemp -d)
trap 'kill "${pid[@]}" 2>/dev/null || true; wait; rm -rf "$dir"' EXIT
trap 'exit 130' INT
trap 'exit 143' TERM HUP

# claim TEXT CONDITION: what must be true here.
claim() {
    if (($2)); then echo "   $1"; else echo "!! not so: $1"; failed=1; fi
}

# pause PROCESS [SECONDS]: between two attempts. Ends the demo if the process has ended, or all of it takes too long.
pause() {
    if [ $SECONDS -lt 120 ] && kill -0 "${pid[$1]}" 2>/dev/null; then sleep "${2:-0.1}"; return; fi
    tail -n 20 "$dir/$1.log" >&2
    echo "demo-budgets: process $1 has ended, or two minutes were too short" >&2
    exit 1
}

# get KEY URL [CURL OPTIONS]: curl reads the key from stdin, so that no list of processes shows it.
get() {
    printf 'authorization: Bearer %s' "$1" | curl -s --max-time 10 -H @- "${@:3}" "$2"
}

finds_gate() {
    local admin
    admin=$(cat "$dir/$1.admin" 2>/dev/null) && [ "$(curl -s --max-time 1 "http://$admin/ready")" = LIVE ] &&
        gate[$1]=$(curl -s --max-time 1 "http://$admin/listeners" | sed -n 's/^gate::/http:\/\//p') && [ -n "${gate[$1]}" ]
}

start_proxy() {
    rm -f "$dir/$1.admin"
    sed "s/@echo/@${dir##*/}-$1/" "$dir/envoy.yaml" > "$dir/$1.yaml"
    "$binary" --config-path "$dir/$1.yaml" --admin-address-path "$dir/$1.admin" --disable-hot-restart --concurrency 2 \
        --log-level warning > "$dir/$1.audit" 2> "$dir/$1.log" &
    pid[$1]=$!
    until finds_gate "$1"; do pause "$1"; done
}

# send PROXY: one request, until it passes (0) or the budget is spent (1). A proxy that has ordered more asks to try again.
send() {
    local status after code
    while true; do
        read -r status after < <(get "$key" "${gate[$1]}/v1/models" -o "$dir/reply" -w '%{http_code} %header{retry-after}\n')
        code=$(sed -n 's/.*"code":"\([a-z_]*\)".*/\1/p' "$dir/reply")
        case $status$code in
            200) passed[$1]=$((passed[$1] + 1)); return 0 ;;
            429quota) return 1 ;;
            429lease_spent) retries[$1]=$((retries[$1] + 1)); pause "$1" "$after" ;;
            *) echo "demo-budgets: proxy $1 responds with status $status, code $code" >&2; exit 1 ;;
        esac
    done
}

# Whether the ledger knows of all that has passed. A proxy reports it when it orders more, and when it is idle.
knows_all() {
    reply=$(get "$VKEY_LEDGER_KEY" "$ledger$accounts")
    [[ $reply =~ \"used\":([0-9]+),\"held\":([0-9]+),\"left\":([0-9]+) ]] || return 1
    held=${BASH_REMATCH[2]} left=${BASH_REMATCH[3]} total=$((passed[A] + passed[B]))
    [ "${BASH_REMATCH[1]}" = $total ]
}

show() {
    until knows_all; do pause serve; done
    echo "   A let ${passed[A]} pass, B ${passed[B]}. Retries after lease_spent: ${retries[A]} at A, ${retries[B]} at B."
    printf "   \$ curl -H 'authorization: Bearer <key>' '%s'\n   %s\n" "$ledger$accounts" "$reply"
}

"$vkey" secret new --out "$dir/main.secret"
VKEY_MAIN_SECRET=$(<"$dir/main.secret")
export VKEY_MAIN_SECRET VKEY_LEDGER_KEY=unused # by the server
sed -e 's/port_value: \(9901\|10000\)}/port_value: 0}/' \
    -e 's/socket_address: {address: 127.0.0.1, port_value: 10001}/pipe: {path: "@echo"}/' \
    -e 's/host_env_keys: \[VKEY_MAIN_SECRET\]/host_env_keys: [VKEY_MAIN_SECRET, VKEY_LEDGER_KEY]/' \
    -e 's/"keyring": /"ledger": {"cluster": "vkey_ledger", "key": "${VKEY_LEDGER_KEY}"}, &/' \
    -e 's/{"requests": 100000, "per": "day"}/{"requests": '$budget', "per": "total", "scope": "cluster"}/' \
    envoy.yaml > "$dir/envoy.yaml"
"$vkey" serve --config "$dir/envoy.yaml" --store "$dir/audit.db" --ledger "$dir/ledger.db" --listen 127.0.0.1:0 \
    2> "$dir/serve.log" &
pid[serve]=$!
until ledger=$(grep -so 'http://127\.0\.0\.1:[0-9]*' "$dir/serve.log") && [ "$(curl -s --max-time 1 "$ledger/healthz")" = ok ]; do
    pause serve
done
cat >> "$dir/envoy.yaml" <<END
  - name: vkey_ledger
    type: STATIC
    connect_timeout: 1s
    load_assignment:
      cluster_name: vkey_ledger
      endpoints: [{lb_endpoints: [{endpoint: {address: {socket_address: {address: 127.0.0.1, port_value: ${ledger##*:}}}}}]}]
END
VKEY_LEDGER_KEY=$("$vkey" mint --config "$dir/envoy.yaml" --tenant ops --sub proxies --aud vkey-ledger --lifetime 1h)
key=$("$vkey" mint --config "$dir/envoy.yaml" --tenant acme --jti k_demo --lifetime 1h)
start_proxy A; start_proxy B

printf '\n== 1. Two proxies, A on %s and B on %s, take requests of one key in turn\n' "${gate[A]#*//}" "${gate[B]#*//}"
for _ in {1..20}; do send B || failed=1; send A || failed=1; done
show
printf '\n== 2. kill -9 of A, which holds a part of the budget\n'
{ kill -9 "${pid[A]}"; wait "${pid[A]}" || true; unset 'pid[A]'; } 2>/dev/null
printf '\n== 3. B goes on until it refuses with 429 quota\n'
while send B; do :; done
show
printf '\n== 4. What became of the budget of %s requests\n' $budget
claim "passed: $total" "total <= budget"
claim "held by A when it was killed, so that they pass nowhere else: $held" "total + held == budget"
claim "left: $left" "left == 0"
before=$total
printf '\n== 5. A starts again, and gets a new lease of what is left\n'
start_proxy A
while send A; do :; done
show
claim "passed since then: $((total - before))" "total == before"

echo
if [ $failed = 0 ]; then echo "demo-budgets: every number as expected"; else echo "demo-budgets: FAILED"; fi
exit $failed
