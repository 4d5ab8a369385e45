"""The images: the same bytes each time, in the form that Istio's agent reads."""

import base64
import gzip
import hashlib
import io
import json
import os
import re
import shutil
import subprocess
import tarfile
import tempfile
import unittest
import urllib.request
from pathlib import Path
from typing import Any

from proxy import minted, send, wait_for

ROOT = Path(__file__).resolve().parents[4]
COPIED = ["Cargo.toml", "tools/image.sh", "tools/oci.py", "filters/vkey/deploy"]


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
        printed = (line.split() for line in done.stdout.splitlines())
        digests |= {Path(image).name: digest for image, digest in printed}
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
        names = ("module", "gate", "command")
        digests = build(self.folder / "another/place", 0o077, *names, base=self.folder / "one")
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
        self.assertEqual((read["User"], read["Entrypoint"]), ("10101:10101", ["/usr/local/bin/envoy"]))
        self.assertEqual(read["Cmd"], ["--config-path", "/etc/envoy/envoy.yaml", "--disable-hot-restart"])

    def test_the_command_is_the_entry_point_of_its_image(self) -> None:
        self.assertEqual(files(self.image("command"))["usr/local/bin/vkey"], (0o555, sha256(b"a command")))
        read = configuration(self.image("command"))
        self.assertEqual((read["User"], read["Entrypoint"]), ("10101:10101", ["/usr/local/bin/vkey"]))

    def test_without_a_module_nothing_is_built(self) -> None:
        checkout(self.folder / "empty", b"", 0o644)
        (self.folder / "empty/target/vkey.wasm").unlink()
        with self.assertRaisesRegex(AssertionError, "run `make build` first"):
            build(self.folder / "empty", 0o022, "module")


def extracted(registry: "Registry", repository: str, reference: str) -> bytes:
    """The module, as Istio's agent finds it in an image (istio/istio, `pkg/wasm/imagefetcher.go`)."""
    read = json.loads(registry.get(f"{repository}/manifests/{reference}"))
    layers = read["layers"]
    last = layers[-1]
    if last["mediaType"] == "application/vnd.oci.image.layer.v1.tar+gzip":
        content = gzip.decompress(registry.get(f"{repository}/blobs/{last['digest']}"))
        with tarfile.open(fileobj=io.BytesIO(content)) as archive:
            (entry,) = (each for each in archive if Path(each.name).name == "plugin.wasm")
            found = archive.extractfile(entry)
            assert found is not None
            return found.read()
    kind = "application/vnd.module.wasm"
    expected = [f"{kind}.config.v1+json", f"{kind}.content.layer.v1+wasm"]
    assert [each["mediaType"] for each in layers] == expected, layers
    return registry.get(f"{repository}/blobs/{last['digest']}")


class Registry:
    """A registry on this machine. It ends with its `with` block."""

    def __init__(self, folder: Path) -> None:
        self.log = folder / "registry.log"
        settings = {
            "version": 0.1,
            "http": {"addr": "127.0.0.1:0"},
            "storage": {"filesystem": {"rootdirectory": str(folder / "registry")}},
        }
        (folder / "registry.yml").write_text(json.dumps(settings))
        with self.log.open("w") as log:
            words = ["docker-registry", "serve", str(folder / "registry.yml")]
            self.process = subprocess.Popen(words, stdout=log, stderr=log)

    def __enter__(self) -> "Registry":
        self.address = wait_for(self.listening, self.log.read_text)
        return self

    def __exit__(self, *_: object) -> None:
        self.process.kill()
        self.process.wait()

    def listening(self) -> str | None:
        found = re.search(r"listening on (127\.0\.0\.1:\d+)", self.log.read_text())
        return found and found[1]

    def get(self, path: str) -> bytes:
        accepted = "application/vnd.oci.image.manifest.v1+json"
        asked = urllib.request.Request(f"http://{self.address}/v2/team/{path}", headers={"accept": accepted})
        with urllib.request.urlopen(asked, timeout=20) as reply:
            return bytes(reply.read())


@unittest.skipUnless(shutil.which("buildah") and shutil.which("docker-registry"), "buildah or a registry is missing")
class Pushed(unittest.TestCase):
    @classmethod
    def setUpClass(cls) -> None:
        cls.folder = Path(cls.enterClassContext(tempfile.TemporaryDirectory()))
        cls.module = Path(os.environ["VKEY_TEST_WASM"]).read_bytes()
        checkout(cls.folder, cls.module, 0o644)
        cls.digests = build(cls.folder, 0o022, "module")
        cls.registry = cls.enterClassContext(Registry(cls.folder))
        for name in ("key", "other"):
            new = ["openssl", "ecparam", "-genkey", "-name", "prime256v1", "-noout", "-out", cls.folder / name]
            subprocess.run(new, check=True, capture_output=True)
        public = ["openssl", "ec", "-in", cls.folder / "key", "-pubout", "-out", cls.folder / "key.pub"]
        subprocess.run(public, check=True, capture_output=True)
        cls.pushed = cls.push(SIGN_KEY=str(cls.folder / "key"), TAG="1").stdout.split()

    @classmethod
    def push(cls, **environment: str) -> "subprocess.CompletedProcess[str]":
        words = [cls.folder / "tools/image.sh", "push", f"{cls.registry.address}/team", "module"]
        done = subprocess.run(words, env=os.environ | environment, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        return done

    def test_both_forms_are_read_as_istio_reads_them(self) -> None:
        for tag in ("1", "1-artifact"):
            self.assertEqual(extracted(self.registry, "vkey-module", tag), self.module, tag)

    def test_what_is_printed_is_what_the_registry_has(self) -> None:
        where = f"{self.registry.address}/team/vkey-module"
        self.assertEqual(self.pushed, [f"{where}@{self.digests[name]}" for name in ("module", "artifact")])
        for digest in self.digests.values():
            self.assertEqual(f"sha256:{sha256(self.registry.get(f'vkey-module/manifests/{digest}'))}", digest)

    def test_other_forms_are_refused(self) -> None:
        class Broken:
            def __init__(self, layers: list[str]) -> None:
                self.layers = [{"mediaType": f"application/vnd.{each}", "digest": "sha256:0"} for each in layers]

            def get(self, _: str) -> bytes:
                return json.dumps({"layers": self.layers}).encode()

        content, config = "module.wasm.content.layer.v1+wasm", "module.wasm.config.v1+json"
        for layers in ([content], [config, config, content], [content, config], [config, "oci.image.layer.v1.tar"]):
            with self.assertRaises(AssertionError):
                extracted(Broken(layers), "vkey-module", "1")

    def test_each_image_has_a_signature_of_its_digest(self) -> None:
        for name, digest in self.digests.items():
            with self.subTest(name):
                read = json.loads(self.registry.get(f"vkey-module/manifests/{digest.replace(':', '-')}.sig"))
                (layer,) = read["layers"]
                self.assertEqual(layer["mediaType"], "application/vnd.dev.cosign.simplesigning.v1+json")
                payload = self.registry.get(f"vkey-module/blobs/{layer['digest']}")
                signed = json.loads(payload)["critical"]
                self.assertEqual(signed["image"], {"docker-manifest-digest": digest})
                self.assertEqual(signed["identity"], {"docker-reference": f"{self.registry.address}/team/vkey-module"})
                signature = base64.b64decode(layer["annotations"]["dev.cosignproject.cosign/signature"])
                self.assertTrue(self.verifies(payload, signature))
                self.assertFalse(self.verifies(payload.replace(b"vkey", b"ykev"), signature))

    def verifies(self, payload: bytes, signature: bytes) -> bool:
        (self.folder / "signature").write_bytes(signature)
        words = ["openssl", "dgst", "-sha256", "-verify", "key.pub", "-signature", "signature"]
        return subprocess.run(words, input=payload, cwd=self.folder, capture_output=True, check=False).returncode == 0

    def test_a_file_that_is_no_key_signs_nothing(self) -> None:
        with self.assertRaisesRegex(AssertionError, "is no private key"):
            self.push(SIGN_KEY=str(self.folder / "Cargo.toml"), TAG="2")


def write_base(folder: Path) -> Path:
    """An image with Envoy and what it links, in the place of Envoy's own."""
    envoy = Path(os.environ["VKEY_TEST_ENVOY"]).resolve()
    listed = subprocess.run(["ldd", envoy], check=True, capture_output=True, text=True).stdout
    root = folder / "base-root"
    for path in re.findall(r"(/\S+)", listed):
        (root / path[1:]).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(path, root / path[1:])
    (root / "usr/local/bin").mkdir(parents=True)
    shutil.copy(envoy, root / "usr/local/bin/envoy")
    (root / "Containerfile").write_text("FROM scratch\nCOPY . /\n")
    storage = ["--root", folder / "storage", "--runroot", folder / "run", "--storage-driver", "vfs"]
    made = ["buildah", *storage, "build", "--quiet", "--format", "oci", "--tag", "base", root]
    subprocess.run(made, check=True, capture_output=True)
    image = folder / "base"
    subprocess.run(["buildah", *storage, "push", "--quiet", "base", f"oci:{image}"], check=True, capture_output=True)
    return image


def bound(place: str, source: Path, mode: str) -> dict[str, Any]:
    """A mount of a file or a folder of this machine."""
    return {"destination": place, "type": "bind", "source": str(source), "options": ["bind", mode]}


@unittest.skipUnless(all(map(shutil.which, ("buildah", "umoci", "runc"))), "buildah, umoci or runc is missing")
class Restricted(unittest.TestCase):
    """The gate's image under runc: not as root, without capabilities, with a read-only file system."""

    @classmethod
    def setUpClass(cls) -> None:
        cls.folder = Path(cls.enterClassContext(tempfile.TemporaryDirectory()))
        checkout(cls.folder, Path(os.environ["VKEY_TEST_WASM"]).read_bytes(), 0o644)
        base = write_base(cls.folder)
        words = [cls.folder / "tools/image.sh", "build", "gate"]
        environment = os.environ | {"GATE_BASE": f"oci:{base}"}
        done = subprocess.run(words, env=environment, check=False, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        cls.bundle = cls.folder / "bundle"
        named = cls.folder / "named"
        copy = ["skopeo", "copy", "--quiet", f"oci:{cls.folder / 'target/image/gate'}", f"oci:{named}:gate"]
        subprocess.run(copy, check=True, capture_output=True)
        unpack = ["umoci", "unpack", "--image", f"{named}:gate", cls.bundle]
        subprocess.run(unpack, check=True, capture_output=True)
        cls.config = (cls.bundle / "config.json").read_text()
        cls.secret, cls.key = minted()

    def setUp(self) -> None:
        self.files = Path(self.enterContext(tempfile.TemporaryDirectory()))
        self.files.chmod(0o777)
        text = (ROOT / "filters/vkey/deploy/kubernetes/base/envoy.yaml").read_text()
        text = re.sub(r"address: (0\.0\.0\.0|127\.0\.0\.1), port_value: \d+", "address: 127.0.0.1, port_value: 0", text)
        text = text.replace("address: upstream,", "address: 127.0.0.1,")
        # The reply of an upstream, without one.
        reply = "direct_response: {status: 200, body: {inline_string: passed}}"
        text = text.replace("route: {cluster: upstream, timeout: 300s}", reply)
        (self.files / "envoy.yaml").write_text(text)

    def start(self, *mounts: dict[str, Any]) -> None:
        config = json.loads(self.config)
        config["process"] |= {
            "terminal": False,
            "noNewPrivileges": True,
            "capabilities": {name: [] for name in ("bounding", "effective", "permitted", "inheritable", "ambient")},
            "env": [f"VKEY_MAIN_SECRET={self.secret}"],
        }
        config["process"]["args"] += ["--concurrency", "1", "--admin-address-path", "/tmp/files/admin"]
        config["root"]["readonly"] = True
        config["linux"]["namespaces"] = [n for n in config["linux"]["namespaces"] if n["type"] != "network"]
        config["mounts"] = [m for m in config["mounts"] if m["destination"] not in ("/etc/resolv.conf", "/sys")]
        config["mounts"] += [
            bound("/etc/envoy/envoy.yaml", self.files / "envoy.yaml", "ro"),
            bound("/tmp/files", self.files, "rw"),
            *mounts,
        ]
        (self.bundle / "config.json").write_text(json.dumps(config))
        self.name = f"vkey-{os.getpid()}-{self.id().rpartition('.')[2]}"
        state = ["runc", "--root", str(self.folder / "runc")]
        log = self.enterContext((self.files / "log").open("w"))
        run = [*state, "run", "--bundle", str(self.bundle), self.name]
        self.process = subprocess.Popen(run, stdin=subprocess.DEVNULL, stdout=log, stderr=log)
        self.addCleanup(self.process.wait)
        self.addCleanup(lambda: subprocess.run([*state, "delete", "--force", self.name], capture_output=True, check=False))

    def ports(self) -> dict[str, int] | None:
        assert self.process.poll() is None, (self.files / "log").read_text()
        admin = self.files / "admin"
        if not admin.exists() or not admin.read_text():
            return None
        port = int(admin.read_text().rpartition(":")[2])
        try:
            if send(port, "GET", "/ready")[1] != "LIVE\n":
                return None
            lines = send(port, "GET", "/listeners")[1].splitlines()
        except OSError:
            return None
        return {line.split("::")[0]: int(line.rpartition(":")[2]) for line in lines}

    def wait(self) -> int:
        return wait_for(self.ports, (self.files / "log").read_text)["gate"]

    def status(self) -> dict[str, str]:
        """What the kernel says of the process."""
        state = subprocess.run(
            ["runc", "--root", str(self.folder / "runc"), "state", self.name], check=True, capture_output=True, text=True
        )
        lines = Path(f"/proc/{json.loads(state.stdout)['pid']}/status").read_text().splitlines()
        return {name: value.strip() for name, _, value in (line.partition(":") for line in lines)}

    def test_a_key_opens_the_gate_and_nothing_is_privileged(self) -> None:
        self.start()
        port = self.wait()
        self.assertEqual(send(port, "GET", "/v1/models")[0], 401)
        self.assertEqual(send(port, "GET", "/v1/models", self.key), (200, "passed"))
        status = self.status()
        self.assertEqual(status["Uid"].split(), ["10101"] * 4)
        self.assertEqual((status["CapBnd"], status["CapEff"], status["NoNewPrivs"]), ("0" * 16, "0" * 16, "1"))

    def test_without_the_module_nothing_starts(self) -> None:
        (self.files / "none").mkdir()
        self.start(bound("/etc/vkey", self.files / "none", "ro"))
        self.assertNotEqual(self.process.wait(timeout=60), 0)
        self.assertIn("/etc/vkey/vkey.wasm", (self.files / "log").read_text())

    def test_with_a_broken_module_nothing_passes(self) -> None:
        (self.files / "broken").write_bytes(b"\0asm\1\0\0\0")
        self.start(bound("/etc/vkey/vkey.wasm", self.files / "broken", "ro"))
        try:
            port = self.wait()
        except AssertionError:
            self.assertNotEqual(self.process.wait(timeout=60), 0)
            return
        for key in (None, self.key):
            self.assertIn(send(port, "GET", "/v1/models", key)[0], (403, 503))


if __name__ == "__main__":
    unittest.main()
