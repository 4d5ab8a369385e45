"""The images: the same bytes each time, in the form that Istio's agent reads."""

import gzip
import hashlib
import io
import json
import os
import shutil
import subprocess
import tarfile
import tempfile
import unittest
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[4]
COPIED = ["Cargo.toml", "tools/image.sh", "filters/vkey/deploy"]


def checkout(folder: Path, module: bytes, mode: int) -> None:
    """What the script needs of a checkout, with a module and a command of this mode."""
    for name in COPIED:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        copy = shutil.copytree if (ROOT / name).is_dir() else shutil.copy
        copy(ROOT / name, folder / name)
    (folder / "target/release").mkdir(parents=True)
    for name, content in (("target/vkey.wasm", module), ("target/release/vkey", b"a command")):
        (folder / name).write_bytes(content)
        (folder / name).chmod(mode)


def build(folder: Path, umask: int, *names: str, base: Path | None = None) -> dict[str, str]:
    """The digests of images. Their base is an image of the module, in one folder: its name is in the images."""
    base_image = f"oci:{(base or folder) / 'target/image/module'}"
    digests = {}
    for name in names:
        done = subprocess.run(
            [folder / "tools/image.sh", "build", name],
            env=os.environ | {"GATE_BASE": base_image, "COMMAND_BASE": base_image},
            capture_output=True, text=True, umask=umask, check=False,
        )
        assert done.returncode == 0, done.stderr
        digests[name] = done.stdout.split()[-1]
    return digests


def blob(image: Path, digest: str) -> bytes:
    return (image / "blobs" / digest.replace(":", "/")).read_bytes()


def manifest(image: Path) -> dict[str, Any]:
    index = json.loads((image / "index.json").read_text())
    return json.loads(blob(image, index["manifests"][0]["digest"]))


def configuration(image: Path) -> dict[str, Any]:
    return json.loads(blob(image, manifest(image)["config"]["digest"]))["config"]


def sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def files(image: Path) -> dict[str, tuple[int, str]]:
    """Mode and checksum of each file of the image."""
    found = {}
    for layer in manifest(image)["layers"]:
        with tarfile.open(fileobj=io.BytesIO(gzip.decompress(blob(image, layer["digest"])))) as archive:
            for entry in archive:
                if (content := archive.extractfile(entry)) is not None:
                    found[entry.name.lstrip("./")] = (entry.mode & 0o7777, sha256(content.read()))
    return found


@unittest.skipUnless(shutil.which("buildah"), "buildah is not installed")
class Images(unittest.TestCase):
    @classmethod
    def setUpClass(cls) -> None:
        cls.folder = Path(cls.enterClassContext(tempfile.TemporaryDirectory()))
        cls.module = Path(os.environ["VKEY_TEST_WASM"]).read_bytes()
        checkout(cls.folder / "one", cls.module, 0o644)
        cls.digests = build(cls.folder / "one", 0o022, "module", "gate", "command")

    def image(self, name: str) -> Path:
        return self.folder / "one/target/image" / name

    def test_another_checkout_makes_the_same_digests(self) -> None:
        checkout(self.folder / "another/place", self.module, 0o700)
        digests = build(self.folder / "another/place", 0o077, *self.digests, base=self.folder / "one")
        self.assertEqual(digests, self.digests)

    def test_another_module_makes_another_digest(self) -> None:
        checkout(self.folder / "changed", self.module + b"\0", 0o644)
        self.assertNotEqual(build(self.folder / "changed", 0o022, "module")["module"], self.digests["module"])

    def test_the_digest_is_that_of_the_manifest(self) -> None:
        for name, digest in self.digests.items():
            index = json.loads((self.image(name) / "index.json").read_text())
            self.assertEqual([each["digest"] for each in index["manifests"]], [digest])

    def test_the_image_of_the_module_has_the_form_that_istio_reads(self) -> None:
        read = manifest(self.image("module"))
        self.assertEqual(read["mediaType"], "application/vnd.oci.image.manifest.v1+json")
        self.assertEqual(read["layers"][-1]["mediaType"], "application/vnd.oci.image.layer.v1.tar+gzip")
        self.assertEqual(files(self.image("module")), {"plugin.wasm": (0o444, sha256(self.module))})

    def test_the_gate_has_the_module_and_a_configuration(self) -> None:
        found = files(self.image("gate"))
        self.assertEqual(found["etc/vkey/vkey.wasm"], (0o444, sha256(self.module)))
        base = ROOT / "filters/vkey/deploy/kubernetes/base/envoy.yaml"
        self.assertEqual(found["etc/envoy/envoy.yaml"], (0o444, sha256(base.read_bytes())))
        read = configuration(self.image("gate"))
        self.assertEqual((read["User"], read["Entrypoint"]), ("101:101", ["/usr/local/bin/envoy"]))
        self.assertEqual(read["Cmd"], ["--config-path", "/etc/envoy/envoy.yaml", "--disable-hot-restart"])

    def test_the_command_is_the_entry_point_of_its_image(self) -> None:
        self.assertEqual(files(self.image("command"))["usr/local/bin/vkey"], (0o555, sha256(b"a command")))
        read = configuration(self.image("command"))
        self.assertEqual((read["User"], read["Entrypoint"]), ("101:101", ["/usr/local/bin/vkey"]))

    def test_without_a_module_nothing_is_built(self) -> None:
        checkout(self.folder / "empty", b"", 0o644)
        (self.folder / "empty/target/vkey.wasm").unlink()
        with self.assertRaisesRegex(AssertionError, "run `make build` first"):
            build(self.folder / "empty", 0o022, "module")


if __name__ == "__main__":
    unittest.main()
