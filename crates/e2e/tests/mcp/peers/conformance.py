"""Runs the conformance suites of MCP against the server of a URL, and prints a line for each scenario.

    conformance.py URL

    2025-11-25 tools-list PASS 3
    2025-11-25 completion-complete FAIL 1 wire-schema-valid=FAILURE

The first word is the revision, or the version of the suite that knows no revisions; the number counts the checks that
succeeded; all others are named. Lines are sorted, and nothing in them depends on the time or on the address, so that
two runs can be compared. Packages: VKEY_TEST_MCP_PEERS. No suite can send a header of its own: whatever the server
wants besides, the proxy in front of it adds.
"""

import json
import os
import subprocess
import sys
import tempfile
from collections import Counter
from pathlib import Path

PACKAGES = Path(os.environ["VKEY_TEST_MCP_PEERS"]).parent / "node_modules"
NODE = next(PACKAGES.glob("node-linux-*")) / "bin/node"
REVISIONS = ["2025-06-18", "2025-11-25", "2026-07-28"]
RUNS = [("@modelcontextprotocol/conformance", revision, ["--spec-version", revision]) for revision in REVISIONS]
RUNS += [("conformance-0-1", "0.1.16", [])]
TIMEOUT_SECS = 240
# What says nothing about the server: the suite's notes, of which there are as many as events came.
NOTES = {"INFO"}


def run(package, name, options, url):
    """The lines of one suite."""
    with tempfile.TemporaryDirectory() as results:
        command = [NODE, PACKAGES / package / "dist/index.js", "server", "--url", url, "--suite", "all"]
        command += [*options, "--output-dir", results]
        done = subprocess.run(command, capture_output=True, text=True, timeout=TIMEOUT_SECS)
        lines = sorted(line_of(name, folder) for folder in Path(results).iterdir())
    if not lines:
        raise SystemExit(f"{package} {name}: {done.stdout}{done.stderr}")
    return lines


def line_of(name, folder):
    """The folder has the time in its name: server-SCENARIO-2026-01-01T00-00-00-000Z."""
    scenario = folder.name.removeprefix("server-")[: -len("-2026-01-01T00-00-00-000Z")]
    checks = json.loads((folder / "checks.json").read_text())
    seen = Counter((check["id"], check["status"]) for check in checks if check["status"] not in NOTES)
    succeeded = sum(count for (_, status), count in seen.items() if status == "SUCCESS")
    others = sorted(f"{check}={status}" for check, status in seen.elements() if status != "SUCCESS")
    verdict = "FAIL" if any(status == "FAILURE" for _, status in seen) else "PASS"
    return " ".join([name, scenario, verdict, str(succeeded), *others])


def main():
    url = sys.argv[1]
    for package, name, options in RUNS:
        print("\n".join(run(package, name, options, url)))


if __name__ == "__main__":
    main()
