#!/usr/bin/env bash
# deny.sh [CARGO-DENY-OPTIONS]: checks licences, versions and sources of all dependencies, offline, by deny.toml.
#
# Environment: ADVISORY_DB is a clone of https://github.com/rustsec/advisory-db, whose advisories are checked too;
# CARGO_DENY replaces the installed cargo-deny.
set -euo pipefail
cd "$(dirname "$0")/.."

cargo_deny=${CARGO_DENY:-.tools/release/bin/cargo-deny}

fail() {
    echo "deny: $*" >&2
    exit 1
}

checks=(licenses bans sources)
config=deny.toml
if [ -z "${ADVISORY_DB:-}" ]; then
    echo "deny: advisories are not checked: ADVISORY_DB names no database"
else
    [ -e "$ADVISORY_DB/.git" ] && [ -d "$ADVISORY_DB/crates" ] ||
        fail "$ADVISORY_DB is no clone of the advisory database"
    newest=$(git -C "$ADVISORY_DB" log -1 --format=%ct)
    days=$(( ($(date +%s) - newest) / 86400 ))
    echo "deny: the newest advisory is of $(date -u -d "@$newest" +%F), $days days ago"
    work=$(mktemp -d)
    trap 'rm -rf "$work"' EXIT
    # The folder is called after the address of the database.
    ln -s "$(realpath "$ADVISORY_DB")" "$work/advisory-db-3157b0e258782691"
    config=$work/deny.toml
    sed "s|^db-path = .*|db-path = \"$work\"|" deny.toml > "$config"
    checks+=(advisories)
fi
# Without --workspace only the dependencies of the library are checked.
"$cargo_deny" --offline --locked --workspace --config "$config" "$@" check --hide-inclusion-graph "${checks[@]}"
