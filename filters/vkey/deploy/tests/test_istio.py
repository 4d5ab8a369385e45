"""The objects for Istio: their schemas, their patches as messages of Envoy, and the gateway on an Envoy that gets the
module by ECDS from a file, as Istio's agent delivers it.

Istio does not run here. `apply` patches a listener in the order of Istio's `listener_patch.go`.
"""

import copy
import json
import tempfile
import threading
import unittest
from hashlib import sha256
from pathlib import Path
from typing import Any

import yaml
from crds import DEPLOY, ROOT, changed, document, documents, faults
from google.protobuf import json_format
from messages import PATCHED, parse
from proxy import MODULE, ROUTER, UPSTREAM, Envoy, lint, listener, minted, wait_for

FILES = ["wasmplugin", "trafficextension", "waypoint", "variants/extension-config", "limits"]
TYPE = "type.googleapis.com/"
RBAC = f"{TYPE}envoy.extensions.filters.http.rbac.v3.RBAC"


def patches(file: str, applied_to: str | None = None) -> list[dict[str, Any]]:
    """The patches of the EnvoyFilter of a file, in their order."""
    found = document(f"istio/{file}.yaml", "EnvoyFilter")["spec"]["configPatches"]
    return [one for one in found if applied_to in (None, one["applyTo"])]


def envoy_gate() -> dict[str, Any]:
    """The gate of envoy.yaml."""
    return yaml.safe_load((ROOT / "envoy.yaml").read_text())["static_resources"]["listeners"][0]


def manager(target: dict[str, Any]) -> dict[str, Any]:
    return target["filter_chains"][0]["filters"][0]["typed_config"]


def policy() -> dict[str, Any]:
    (wasm,) = (one for one in manager(envoy_gate())["http_filters"] if one["name"].endswith("wasm"))
    return json.loads(wasm["typed_config"]["config"]["configuration"]["value"])


def merge(target: Any, patch: Any) -> Any:
    """As protobuf merges: members one by one, and lists one after the other."""
    if isinstance(target, dict) and isinstance(patch, dict):
        return target | {name: merge(target.get(name), value) for name, value in patch.items()}
    return target + patch if isinstance(target, list) and isinstance(patch, list) else patch


def apply(file: str, target: dict[str, Any]) -> dict[str, Any]:
    """The listener of a gateway with the patches of a file."""
    target = copy.deepcopy(target)
    for one in patches(file, "LISTENER"):
        target = merge(target, one["patch"]["value"])
    for one in patches(file, "NETWORK_FILTER"):
        filters = target["filter_chains"][0]["filters"]
        filters[0] = merge(filters[0], one["patch"]["value"])
    filters = manager(target)["http_filters"]
    for one in patches(file, "HTTP_FILTER"):
        patch_filters(filters, one["patch"])
    return target


def patch_filters(filters: list[dict[str, Any]], patch: dict[str, Any]) -> None:
    place = {"INSERT_FIRST": 0, "INSERT_BEFORE": len(filters) - 1}.get(patch["operation"])
    if place is None:
        filters[-1] = merge(filters[-1], patch["value"])
    else:
        filters.insert(place, copy.deepcopy(patch["value"]))


def filter_of(name: str, message: str) -> dict[str, Any]:
    return {"name": name, "typed_config": {"@type": f"{TYPE}envoy.extensions.filters.http.{message}"}}


def gateway(extra: list[dict[str, Any]]) -> dict[str, Any]:
    """The listener of a gateway, with some of the filters that Istio has there."""
    return listener("gateway", [*extra, filter_of("istio.alpn", "grpc_stats.v3.FilterConfig"), ROUTER])


class Schemas(unittest.TestCase):
    def test_every_object_has_the_form_of_its_kind(self) -> None:
        folder = DEPLOY / "istio"
        self.assertEqual({folder / f"{file}.yaml" for file in FILES}, set(folder.rglob("*.yaml")))
        objects = [one for file in FILES for one in documents(f"istio/{file}.yaml")]
        self.assertEqual(len(objects), 7)
        for one in objects:
            self.assertEqual(faults(one), [], one["kind"])

    def test_a_broken_copy_is_refused(self) -> None:
        target = {"kind": "Gateway", "name": "gw"}
        breaks = [
            ("wasmplugin", "WasmPlugin", "targetRefs", [target], "has(self.selector)"),
            ("wasmplugin", "WasmPlugin", "url", "ftp://a.example/x.wasm", "getScheme"),
            ("wasmplugin", "WasmPlugin", "vmConfig.env.0.value", "literal", "HOST"),
            ("wasmplugin", "WasmPlugin", "failStrategy", "FAIL_CLOSED", "is not one of"),
            ("trafficextension", "TrafficExtension", "lua", {"inlineCode": "x"}, "valid under each"),
            ("trafficextension", "TrafficExtension", "wasm.url", "ftp://a.example/x.wasm", "getScheme"),
            ("trafficextension", "TrafficExtension", "url", "https://a.example/x.wasm", "unexpected"),
            ("waypoint", "WasmPlugin", "targetRefs.0.namespace", "elsewhere", "self.size() == 0"),
            ("waypoint", "EnvoyFilter", "workloadSelector", {"labels": {}}, "has(self.workloadSelector)"),
            ("waypoint", "EnvoyFilter", "configPatches.0.match.context", "INBOUND", "is not one of"),
        ]
        for file, kind, way, value, expected in breaks:
            broken = changed(document(f"istio/{file}.yaml", kind), way, value)
            found = faults(broken)
            self.assertTrue(any(expected in one for one in found), f"{kind} {way}: {found}")


class Contents(unittest.TestCase):
    def test_every_patch_is_a_message_of_envoy(self) -> None:
        for file in ["wasmplugin", "waypoint", "variants/extension-config", "limits"]:
            for one in patches(file):
                value = named(one["patch"]["value"], one["applyTo"])
                parse(PATCHED[one["applyTo"]], value)
                for wrong in broken_copies(value):
                    with self.assertRaises(json_format.ParseError):
                        parse(PATCHED[one["applyTo"]], wrong)

    def test_every_variant_has_the_policy_of_envoy(self) -> None:
        gate = patches("variants/extension-config", "EXTENSION_CONFIG")[0]["patch"]["value"]["typed_config"]["config"]
        held = [
            document("istio/wasmplugin.yaml", "WasmPlugin")["spec"]["pluginConfig"],
            document("istio/trafficextension.yaml", "TrafficExtension")["spec"]["wasm"]["pluginConfig"],
            document("istio/waypoint.yaml", "WasmPlugin")["spec"]["pluginConfig"],
            json.loads(gate["configuration"]["value"]),
        ]
        for one in held:
            self.assertEqual(one, policy())

    def test_the_traffic_extension_is_the_plugin(self) -> None:
        plugin = document("istio/wasmplugin.yaml", "WasmPlugin")
        extension = document("istio/trafficextension.yaml", "TrafficExtension")
        wasm = extension["spec"].pop("wasm")
        self.assertEqual(extension["spec"] | wasm, plugin["spec"])
        self.assertEqual(extension["metadata"], plugin["metadata"])

    def test_plugin_and_seal_are_for_the_same_workload(self) -> None:
        for file, target in [("wasmplugin", "selector"), ("waypoint", "targetRefs")]:
            plugin = document(f"istio/{file}.yaml", "WasmPlugin")
            seal = document(f"istio/{file}.yaml", "EnvoyFilter")
            expected = plugin["spec"][target]
            found = seal["spec"].get(target) or {"matchLabels": seal["spec"]["workloadSelector"]["labels"]}
            self.assertEqual(found, expected)
            self.assertEqual(seal["metadata"]["namespace"], plugin["metadata"]["namespace"])

    def test_a_waypoint_is_an_inbound_sidecar_to_envoy_filters(self) -> None:
        for one in patches("waypoint"):
            self.assertEqual(one["match"]["context"], "SIDECAR_INBOUND")

    def test_the_seal_is_the_same_everywhere(self) -> None:
        files = ["wasmplugin", "waypoint", "variants/extension-config"]
        values = [one["patch"]["value"] for file in files for one in patches(file, "HTTP_FILTER")]
        values = [one for one in values if one["name"] == "vkey.seal"]
        self.assertEqual(len(values), 3)
        (rbac,) = (one for one in manager(envoy_gate())["http_filters"] if one["name"].endswith("rbac"))
        for one in values:
            self.assertEqual(one["typed_config"], rbac["typed_config"])

    def test_the_variant_patches_what_the_plugin_patches(self) -> None:
        mine, theirs = patches("variants/extension-config"), patches("wasmplugin")
        self.assertEqual(mine[-1], theirs[-1])
        self.assertEqual(mine[-3], theirs[-3])
        (buffer,) = patches("variants/extension-config", "LISTENER")
        limit = "per_connection_buffer_limit_bytes"
        self.assertEqual(buffer["patch"]["value"][limit], envoy_gate()[limit])

    def test_gate_and_upstream_gate_share_one_vm(self) -> None:
        gate = patches("variants/extension-config", "EXTENSION_CONFIG")[0]["patch"]["value"]["typed_config"]["config"]
        router = patches("variants/extension-config", "HTTP_FILTER")[-1]["patch"]["value"]["typed_config"]
        upstream = router["upstream_http_filters"][0]["typed_config"]["config"]
        self.assertEqual(gate["vm_config"], upstream["vm_config"])
        self.assertEqual(gate["failure_policy"], "FAIL_RELOAD")
        self.assertIs(gate["allow_on_headers_stop_iteration"], True)

    def test_the_order_of_the_filters(self) -> None:
        first = filter_of("istio.metadata_exchange", "cors.v3.Cors")
        names = [one["name"] for one in manager(apply("variants/extension-config", gateway([first])))["http_filters"]]
        expected = ["vkey", "istio.metadata_exchange", "istio.alpn", "vkey.seal", "envoy.filters.http.router"]
        self.assertEqual(names, expected)

    def test_the_limits_are_behind_the_seal_and_as_in_kubernetes(self) -> None:
        target = apply("limits", apply("wasmplugin", gateway([])))
        *_, seal, limits, _ = manager(target)["http_filters"]
        self.assertEqual((seal["name"], limits["name"]), ("vkey.seal", "vkey.cluster_limits"))
        folder = DEPLOY / "kubernetes/components/cluster-limits"
        self.assertEqual([limits], yaml.safe_load((folder / "filter.yaml").read_text()))
        (ours,) = (one["patch"]["value"] for one in patches("limits", "CLUSTER"))
        (theirs,) = yaml.safe_load((folder / "cluster.yaml").read_text())
        for one in (ours, theirs):
            del one["load_assignment"]
        self.assertEqual(ours, theirs)
        spec, seal = (document(f"istio/{file}.yaml", "EnvoyFilter")["spec"] for file in ("limits", "wasmplugin"))
        self.assertEqual(spec["workloadSelector"], seal["workloadSelector"])
        self.assertGreater(spec["priority"], seal.get("priority", 0))


def named(value: dict[str, Any], applied_to: str) -> dict[str, Any]:
    """A patch of a filter may leave out its name."""
    return {"name": "patched"} | value if applied_to == "NETWORK_FILTER" else value


def broken_copies(value: dict[str, Any]) -> list[dict[str, Any]]:
    """The message with a member that is not there: in itself, and in its typed_config."""
    copies = [value | {"unknown": 1}]
    if "typed_config" in value:
        copies.append(value | {"typed_config": value["typed_config"] | {"unknown": 1}})
    return copies


class Built(unittest.TestCase):
    """What `make istio` writes."""

    def test_every_plugin_has_the_checksum_of_the_module_and_a_seal(self) -> None:
        digest = sha256(Path(MODULE).read_bytes()).hexdigest()
        for file in FILES[:3]:
            shipped = documents(f"istio/{file}.yaml")[0]
            plugin, seal = yaml.safe_load_all((ROOT / f"target/istio/{file}.yaml").read_text())
            places = [one["spec"].get("wasm", one["spec"]) for one in (shipped, plugin)]
            self.assertEqual([one.pop("sha256") for one in places], ["", digest])
            self.assertEqual(plugin, shipped)
            sealed = "waypoint" if file == "waypoint" else "wasmplugin"
            self.assertEqual(seal, document(f"istio/{sealed}.yaml", "EnvoyFilter"))


class Extension:
    """The resource `vkey` in a file that Envoy watches."""

    def __init__(self, folder: Path) -> None:
        self.file, self.version = folder / "ecds.json", 0

    def publish(self, typed_config: dict[str, Any]) -> None:
        self.version += 1
        kind = f"{TYPE}envoy.config.core.v3.TypedExtensionConfig"
        resource = {"@type": kind, "name": "vkey", "typed_config": typed_config}
        following = self.file.with_suffix(".next")
        following.write_text(json.dumps({"version_info": str(self.version), "resources": [resource]}))
        following.rename(self.file)


def wasm(configuration: str) -> dict[str, Any]:
    """The shipped resource, with the built module and this plugin configuration."""
    found = copy.deepcopy(patches("variants/extension-config", "EXTENSION_CONFIG")[0]["patch"]["value"]["typed_config"])
    found["config"]["vm_config"]["code"]["local"]["filename"] = MODULE
    found["config"]["configuration"]["value"] = configuration
    return found


DENY_ALL = {"@type": RBAC, "rules": {"action": "ALLOW", "policies": {}}}


class Probe:
    """Asks without a key until its block ends, and keeps every status."""

    def __init__(self, envoy: Envoy) -> None:
        self.envoy, self.statuses, self.ended = envoy, set(), threading.Event()
        self.thread = threading.Thread(target=self.run)

    def run(self) -> None:
        while not self.ended.wait(0.005):
            self.statuses.add(self.envoy.get("gateway")[0])

    def __enter__(self) -> "Probe":
        self.thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.ended.set()
        self.thread.join()


class Delivery(unittest.TestCase):
    """The listener of the variant; its resource comes from a file in the place of istiod."""

    def start(self, *, upstream_gate: bool) -> None:
        secret, self.key = minted()
        folder = Path(self.enterContext(tempfile.TemporaryDirectory(prefix="vkey-deploy-")))
        self.extension = Extension(folder)
        self.extension.publish(DENY_ALL)
        self.envoy = self.enterContext(Envoy([self.listener(upstream_gate)], secret))

    def listener(self, upstream_gate: bool) -> dict[str, Any]:
        target = apply("variants/extension-config", gateway([]))
        filters = manager(target)["http_filters"]
        source = filters[0]["config_discovery"]["config_source"]
        self.assertEqual(source.pop("ads"), {})
        source["path_config_source"] = {"path": str(self.extension.file)}
        upstream = filters[-1]["typed_config"]["upstream_http_filters"]
        upstream[0]["typed_config"]["config"]["vm_config"]["code"]["local"]["filename"] = MODULE
        if not upstream_gate:
            upstream.pop(0)
        return target

    def stat(self, name: str) -> int:
        return self.envoy.stat(f"extension_config_discovery.http_filter.vkey.{name}")

    def arrives(self, name: str, value: int) -> None:
        wait_for(lambda: self.stat(name) >= value, lambda: f"{name} {self.stat(name)}\n{self.envoy.log()}")

    def opens(self) -> None:
        """A key opens the gate, once the worker has the module."""
        wait_for(lambda: self.envoy.get("gateway", self.key) == (200, UPSTREAM), self.envoy.log)

    def closes(self) -> None:
        """What Istio's agent delivers if it cannot fetch the module."""
        self.extension.publish(DENY_ALL)
        wait_for(lambda: self.envoy.get("gateway", self.key)[0] == 403, self.envoy.log)

    def test_never_open_and_the_counts_stay(self) -> None:
        self.start(upstream_gate=True)
        text = json.dumps(policy())
        with Probe(self.envoy) as probe:
            self.assertEqual(self.envoy.get("gateway", self.key)[0], 403)
            self.extension.publish(wasm(text))
            self.opens()
            self.assertEqual(self.envoy.call_tool("gateway", self.key), (200, UPSTREAM))
            self.extension.publish(wasm('{"keyring": "none"}'))
            self.arrives("config_fail", 1)
            self.assertEqual(self.envoy.get("gateway", self.key), (200, UPSTREAM))
            refused = self.stat("config_fail")
            self.extension.publish(wasm(json.dumps(policy() | {"revoked": {"version": 2, "keys": []}})))
            self.arrives("config_reload", 4)
            self.assertEqual(self.stat("config_fail"), refused)
            self.opens()
            self.closes()
            self.extension.publish(wasm(text))
            self.opens()
        self.assertEqual(probe.statuses, {401, 403})
        # A request may be counted and still be refused, while the worker changes from one filter to the other.
        self.assertGreaterEqual(self.seen(), 5)

    def test_without_upstream_gates_the_counts_go_with_the_module(self) -> None:
        self.start(upstream_gate=False)
        text = json.dumps(policy())
        for _ in range(2):
            self.extension.publish(wasm(text))
            self.opens()
            self.assertLess(self.seen(), 4)
            for _ in range(5):
                self.assertEqual(self.envoy.get("gateway", self.key), (200, UPSTREAM))
            self.assert_lint_sees_the_seal()
            self.closes()

    def assert_lint_sees_the_seal(self) -> None:
        dump = self.envoy.ask("/config_dump")
        found = lint(dump)
        self.assertIn("1 listener with the module", found)
        self.assertNotIn("seal_missing", found)
        self.assertIn("seal_missing", lint(dump.replace("wasm.vkey.decision", "another")))

    def seen(self) -> int:
        """How many requests of the key are counted."""
        usage = json.loads(self.envoy.get("gateway", self.key, "/.vkey/usage")[1])
        return usage["seen"]


if __name__ == "__main__":
    unittest.main()
