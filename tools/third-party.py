#!/usr/bin/env -S python3 -B
"""third-party.py: lists the packages of others that the modules, the command and the npm package are made of, macros
included, each with its licence, and the texts of all licences.
"""

import json
import subprocess
import sys
from pathlib import Path

from packages import ROOT, Package, linked

RULE = "-" * 80


def folders() -> dict[tuple[str, str], Path]:
    """Where the sources of each package are."""
    metadata = json.loads(subprocess.run(
        ["cargo", "metadata", "--locked", "--format-version", "1"],
        cwd=ROOT, capture_output=True, text=True, check=True,
    ).stdout)
    return {(each["name"], each["version"]): Path(each["manifest_path"]).parent for each in metadata["packages"]}


def packages() -> list[Package]:
    found = linked("vkey-filter", "--target", "wasm32-wasip1", edges="normal").keys() \
        | linked("vkey-js", "--target", "wasm32-unknown-unknown", edges="normal").keys() \
        | linked("vkey-cli", edges="normal").keys()
    return sorted(each for each in found if not each.own)


def texts(folder: Path) -> list[str]:
    starts = ("licen", "copying", "copyright", "notice", "unlicense")
    files = (each for each in sorted(folder.iterdir()) if each.is_file() and each.name.lower().startswith(starts))
    return [each.read_text("utf-8", "replace").replace("\r\n", "\n").strip("\n") for each in files]


def main() -> None:
    sys.stdout.reconfigure(encoding="utf-8")
    sources = folders()
    found = packages()
    of_text: dict[str, list[str]] = {}
    print("Packages of others in vkey: name, version, licence.\n")
    for each in found:
        print(f"{each.name} {each.version} {each.licence}")
        for text in texts(sources[each.name, each.version]) or ["(The package has no text of its licence.)"]:
            of_text.setdefault(text, []).append(f"{each.name} {each.version}")
    for text, names in of_text.items():
        print(f"\n{RULE}\n{', '.join(dict.fromkeys(names))}\n{RULE}\n\n{text}")


if __name__ == "__main__":
    main()
