#!/usr/bin/env bash
# main-tests.sh [--faults] ENVOY...: runs on each Envoy the end-to-end tests that are most likely to fail after a change
# here or in Envoy. --faults: also those that need a module with faults. main-tests.sh --others: runs all others;
# --some: those of them that judge requests, count them and write them down.
set -euo pipefail
cd "$(dirname "$0")/.."

tests=(
    scenarios::every_scenario_that_can_be_said_to_envoy_holds_there
    scenarios::a_step_that_may_be_sent_again_holds_when_it_is
    hostile::
    identity::
    views::
    rotation::
    counts::no_request_for_a_fresh_key_is_lost
    limits::a_key_gets_exactly_as_much_as_its_limit_says
    limits::a_rate_holds_in_real_time
    upstream_gate::
)
if [ "${1-}" = --some ]; then
    tests=(
        audit_lines::
        budgets::two_
        closed::
        credentials::
        limits::the_
        limits::what_
        llm::quotas::
        reasons::
        refunds::
        secrets::
    )
fi
if [ "${1-}" = --faults ]; then
    tests+=(closed::a_module_that_)
    shift
fi

run() {
    cargo test --test envoy -- "$@"
}

# A name alone would match in the middle of other names too, and run tests whose tools may not be there.
known=$(run --list)
chosen=()
for name in "${tests[@]}"; do
    matches=$(sed -n "s/^\($name.*\): test$/\1/p" <<< "$known")
    [ -n "$matches" ] || { echo "main-tests: no test is called $name" >&2; exit 1; }
    mapfile -t -O "${#chosen[@]}" chosen <<< "$matches"
done

if [ "${1-}" = --some ]; then
    run --exact "${chosen[@]}"
    exit
fi
if [ "${1-}" = --others ]; then
    others=()
    for name in "${chosen[@]}"; do
        others+=(--skip "$name")
    done
    run --exact "${others[@]}"
    exit
fi

for envoy in "$@"; do
    "$envoy" --version | sed -n 's/.*version: /on Envoy /p'
    SECONDS=0
    VKEY_TEST_ENVOY=$envoy VKEY_TEST_ENVOYS=$envoy run --exact "${chosen[@]}"
    echo "after $SECONDS s"
done
