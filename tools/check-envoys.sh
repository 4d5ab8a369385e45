#!/usr/bin/env bash
# check-envoys.sh ENVOY...: the end-to-end tests that a change of Envoy's could fail first, on each of these.
set -euo pipefail
cd "$(dirname "$0")/.."

tests=(
    scenarios::every_scenario_that_can_be_said_to_envoy_holds_there
    hostile::
    identity::
    views::
    closed::a_module_that_
    counts::no_request_for_a_fresh_key_is_lost
    limits::a_key_gets_exactly_as_much_as_its_limit_says
    limits::a_rate_holds_in_real_time
    upstream_gate::
)

run() {
    cargo test --features compiler --test envoy -- "$@"
}

known=$(run --list)
for name in "${tests[@]}"; do
    grep -q "^$name.*: test$" <<< "$known" || { echo "check-envoys: no test is called $name" >&2; exit 1; }
done

for envoy in "$@"; do
    "$envoy" --version | sed -n 's/.*version: /on Envoy /p'
    SECONDS=0
    VKEY_TEST_ENVOY=$envoy VKEY_TEST_ENVOYS=$envoy run "${tests[@]}"
    echo "after $SECONDS s"
done
