"""The packages that a build links, as cargo resolves them: for the lists of a release."""

import re
import subprocess
import tomllib
from dataclasses import dataclass, field
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent


@dataclass(frozen=True, order=True)
class Package:
    name: str
    version: str
    licence: str
    # SHA-256 of the package's archive; none for a package of this workspace.
    checksum: str | None = field(compare=False)

    @property
    def own(self) -> bool:
        return self.checksum is None


def checksums() -> dict[tuple[str, str], str | None]:
    lock = tomllib.loads((ROOT / "Cargo.lock").read_text())
    return {(each["name"], each["version"]): each.get("checksum") for each in lock["package"]}


def spdx(licence: str) -> str:
    """Old packages write a choice with a slash."""
    return re.sub(r" */ *", " OR ", licence)


def linked(package: str, *options: str, edges: str = "normal,no-proc-macro") -> dict[Package, set[Package]]:
    """The package and all that it needs, each with what it needs itself.

    They are read from `cargo tree`: `cargo metadata` also has features that other packages of the workspace ask for.
    """
    tree = subprocess.run(
        ["cargo", "tree", "--locked", "--package", package, "--edges", edges, "--prefix", "depth", "--no-dedupe",
         "--format", "|{p}|{l}", *options],
        cwd=ROOT, capture_output=True, text=True, check=True,
    ).stdout
    known = checksums()
    found: dict[Package, set[Package]] = {}
    path: list[Package] = []
    for line in tree.splitlines():
        depth, described, licence = line.split("|")
        name, version = described.split()[:2]
        version = version.removeprefix("v")
        each = Package(name, version, spdx(licence), known[name, version])
        found.setdefault(each, set())
        del path[int(depth):]
        if path:
            found[path[-1]].add(each)
        path.append(each)
    return found
