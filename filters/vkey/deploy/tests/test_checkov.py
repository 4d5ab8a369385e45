"""What checkov says of the objects for Kubernetes, from the files and from the chart."""

import json
import os
import subprocess
import tempfile
import unittest
from copy import deepcopy
from pathlib import Path
from typing import Any

import test_helm
import test_kubernetes
import yaml

# Checks that are skipped where the annotation of an object says why.
SKIPPED = {"CKV_K8S_35"}


@unittest.skipUnless("VKEY_TEST_CHECKOV" in os.environ, "make test-checkov has it")
class Checkov(unittest.TestCase):
    def checked(self, objects: list[dict[str, Any]]) -> tuple[set[str], set[str], int]:
        """The failed and the skipped checks, and how many passed."""
        with tempfile.TemporaryDirectory() as name:
            file = Path(name) / "objects.yaml"
            # Without a namespace each object is one of `default`, which is a failure of the overlay.
            named = [one | {"metadata": {"namespace": "gate"} | one["metadata"]} for one in deepcopy(objects)]
            file.write_text(yaml.safe_dump_all(named))
            words = [os.environ["VKEY_TEST_CHECKOV"], "--file", file, "--framework", "kubernetes", "--output", "json"]
            done = subprocess.run(words, capture_output=True, text=True, check=False)
        found = json.loads(done.stdout[done.stdout.index("{"):])["results"]
        failed, skipped = ({one["check_id"] for one in found[f"{part}_checks"]} for part in ("failed", "skipped"))
        return failed, skipped, len(found["passed_checks"])

    def test_the_files_fail_no_check(self) -> None:
        for variant in ("base", "sidecar with secret files", "gates of all kinds"):
            with self.subTest(variant):
                objects = [o for o in test_kubernetes.objects(variant) if o["metadata"]["name"] != "application"]
                failed, skipped, passed = self.checked(objects)
                self.assertEqual(failed, set())
                self.assertLessEqual(skipped, SKIPPED)
                self.assertGreater(passed, 50 if variant != "sidecar with secret files" else 0)

    def test_the_chart_fails_no_check(self) -> None:
        failed, skipped, passed = self.checked(test_helm.rendered("proxy"))
        self.assertEqual(failed, set())
        self.assertLessEqual(skipped, SKIPPED)
        self.assertGreater(passed, 50)

    def test_a_broken_object_fails(self) -> None:
        objects = test_kubernetes.objects("base")
        for one in objects:
            if one["kind"] == "Deployment":
                one["spec"]["template"]["spec"]["containers"][0]["securityContext"]["privileged"] = True
        self.assertIn("CKV_K8S_16", self.checked(objects)[0])


if __name__ == "__main__":
    unittest.main()
