#!/usr/bin/env -S python3 -B
"""sbom.py MODULE [FEATURES]: writes what the module consists of, as CycloneDX 1.6 in JSON. The module was built with
these features. The same module and sources make the same bytes: there is no time, and the serial number is made of the
module's checksum.
"""

import hashlib
import json
import sys
import uuid
from pathlib import Path
from typing import Any

from packages import Package, linked

MODULE = "vkey-filter"
TARGET = "wasm32-wasip1"


def reference(package: Package) -> str:
    """A package of this workspace has no purl: in the registry its name may be that of another package."""
    return f"{package.name}@{package.version}" if package.own else f"pkg:cargo/{package.name}@{package.version}"


def component(package: Package) -> dict[str, Any]:
    described = {
        "type": "library",
        "bom-ref": reference(package),
        "name": package.name,
        "version": package.version,
        "licenses": [{"expression": package.licence}],
    }
    if package.checksum is not None:
        described["hashes"] = [{"alg": "SHA-256", "content": package.checksum}]
        described["purl"] = reference(package)
    return described


def bill(module: Path, features: str) -> dict[str, Any]:
    packages = linked(MODULE, "--target", TARGET, "--features", features)
    (root,) = (each for each in packages if each.name == MODULE)
    checksum = hashlib.sha256(module.read_bytes()).hexdigest()
    return {
        "$schema": "http://cyclonedx.org/schema/bom-1.6.schema.json",
        "bomFormat": "CycloneDX",
        "specVersion": "1.6",
        "serialNumber": uuid.uuid5(uuid.NAMESPACE_URL, f"sha256:{checksum}").urn,
        "version": 1,
        "metadata": {
            "component": component(root) | {
                "type": "application",
                "name": module.name,
                "hashes": [{"alg": "SHA-256", "content": checksum}],
            },
        },
        "components": [component(each) for each in sorted(packages) if each != root],
        "dependencies": [
            {"ref": reference(each), "dependsOn": [reference(needed) for needed in sorted(needs)]}
            for each, needs in sorted(packages.items())
        ],
    }


def main() -> None:
    module, features = (*sys.argv[1:], "")[:2]
    json.dump(bill(Path(module), features), sys.stdout, indent=2)
    print()


if __name__ == "__main__":
    main()
