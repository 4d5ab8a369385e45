#!/usr/bin/env bash
# Counts the instructions of the core for each scenario, into target/bench/core.csv.
#   bench-core.sh check             compares the counts with benches/core/baseline.csv: fails if they rose too far
#   bench-core.sh accept            makes them the baseline
#   bench-core.sh profile SCENARIO  shows the functions that a scenario spends its instructions in
#   bench-core.sh compare REVISION  shows what changed since a revision, as a table in Markdown
#   bench-core.sh count FOLDER      writes core.csv into a folder, and compares nothing
set -euo pipefail
cd "$(dirname "$0")/.."

baseline=benches/core/baseline.csv

# fail STATUS MESSAGE: 2 for wrong usage, 3 if something is missing.
fail() {
    echo "bench-core: $2" >&2
    exit "$1"
}

# count FOLDER
count() {
    command -v valgrind >/dev/null || fail 3 "valgrind is missing: tools/setup.sh valgrind"
    cargo build --quiet --profile bench -p vkey-bench
    bench=${CARGO_TARGET_DIR:-target}/release/bench-core
    mkdir -p "$1"
    "$bench" count testdata/bench "$1"
}

profile() {
    count target/bench
    local profile=target/bench/core/${1//\//.}
    [ -n "$1" ] && [ -f "$profile" ] || fail 2 "no scenario \"$1\": target/bench/core.csv lists them"
    "$bench" profile "$profile"
}

# The revision is counted by its own bench, in a copy of its sources.
compare() {
    local revision base=target/bench/base
    [ -n "$1" ] || fail 2 "missing revision: make bench-compare BASE=HEAD~1"
    revision=$(git rev-parse --quiet --verify "$1^{commit}") || fail 2 "unknown revision: $1"
    git cat-file -e "$revision:tools/bench-core.sh" 2>/dev/null ||
        fail 2 "revision $1 has no benchmark of the core"
    rm -rf "$base/sources"
    mkdir -p "$base/sources"
    # Cargo compares modification times, so they must be those of the copy.
    git archive "$revision" | tar --extract --touch --directory="$base/sources"
    CARGO_TARGET_DIR=$PWD/$base/build "$base/sources/tools/bench-core.sh" count "$PWD/$base" ||
        fail 3 "revision $1 could not be counted"
    count target/bench
    "$bench" compare "$base/core.csv" target/bench/core.csv
}

case ${1:-} in
check)
    count target/bench
    "$bench" check $baseline target/bench/core.csv
    ;;
accept)
    count target/bench
    cp target/bench/core.csv $baseline
    "$bench" show $baseline
    ;;
profile) profile "${2:-}" ;;
compare) compare "${2:-}" ;;
count) count "${2:?name a folder}" ;;
*) fail 2 "expected check, accept, profile, compare or count" ;;
esac
