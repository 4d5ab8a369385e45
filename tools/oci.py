#!/usr/bin/env -S python3 -B
"""Writes as OCI layouts what buildah does not make. The same input makes the same bytes, but for signatures.

  oci.py artifact MODULE FOLDER              the module in the artifact form that Istio reads: two layers, of which the
                                             second is the module as it is
  oci.py signature IMAGE REFERENCE KEY FOLDER  a signature of the image of a layout, in the form of cosign. REFERENCE is
                                             where the image is pushed, KEY a private key of ECDSA P-256 in PEM
"""

import base64
import hashlib
import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

MANIFEST = "application/vnd.oci.image.manifest.v1+json"
Descriptor = dict[str, Any]


class Layout:
    """An OCI layout with one manifest (OCI image specification, "image-layout")."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.blobs = folder, folder / "blobs/sha256"
        shutil.rmtree(folder, ignore_errors=True)
        self.blobs.mkdir(parents=True)
        self.write("oci-layout", {"imageLayoutVersion": "1.0.0"})

    def write(self, name: str, value: Any) -> None:
        (self.folder / name).write_bytes(compact(value))

    def add(self, media_type: str, content: bytes, **members: Any) -> Descriptor:
        digest = hashlib.sha256(content).hexdigest()
        (self.blobs / digest).write_bytes(content)
        return {"mediaType": media_type, "digest": f"sha256:{digest}", "size": len(content)} | members

    def finish(self, config: Descriptor, layers: list[Descriptor]) -> None:
        manifest = {"schemaVersion": 2, "mediaType": MANIFEST, "config": config, "layers": layers}
        index = {"schemaVersion": 2, "manifests": [self.add(MANIFEST, compact(manifest))]}
        self.write("index.json", index)


def compact(value: Any) -> bytes:
    return json.dumps(value, separators=(",", ":")).encode()


def write_artifact(module: Path, folder: Path) -> None:
    layout = Layout(folder)
    kind = "application/vnd.module.wasm"
    settings = layout.add(f"{kind}.config.v1+json", b"{}")
    layout.finish(settings, [settings, layout.add(f"{kind}.content.layer.v1+wasm", module.read_bytes())])


def write_signature(image: Path, reference: str, key: Path, folder: Path) -> None:
    (manifest,) = json.loads((image / "index.json").read_text())["manifests"]
    payload = compact({
        "critical": {
            "identity": {"docker-reference": reference},
            "image": {"docker-manifest-digest": manifest["digest"]},
            "type": "cosign container image signature",
        },
        "optional": None,
    })
    words = ["openssl", "dgst", "-sha256", "-sign", str(key)]
    signature = subprocess.run(words, input=payload, capture_output=True, check=False)
    if signature.returncode != 0:
        sys.exit(f"oci: {key} is no private key of ECDSA P-256 in PEM: {signature.stderr.decode().strip()}")
    layout = Layout(folder)
    signed = {"dev.cosignproject.cosign/signature": base64.b64encode(signature.stdout).decode()}
    layer = layout.add("application/vnd.dev.cosign.simplesigning.v1+json", payload, annotations=signed)
    config = {"architecture": "", "os": "", "config": {}, "rootfs": {"type": "layers", "diff_ids": [layer["digest"]]}}
    layout.finish(layout.add("application/vnd.oci.image.config.v1+json", compact(config)), [layer])


def main() -> None:
    match sys.argv[1:]:
        case ["artifact", module, folder]:
            write_artifact(Path(module), Path(folder))
        case ["signature", image, reference, key, folder]:
            write_signature(Path(image), reference, Path(key), Path(folder))
        case _:
            sys.exit(__doc__)


if __name__ == "__main__":
    main()
