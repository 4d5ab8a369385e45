"""The objects for Envoy Gateway and Consul: their schemas, and what an Envoy does with what becomes of them.

Neither control plane runs here. The listeners have the form of Envoy Gateway's own examples of its translation: the
module is switched off in the listener and on for each route, and RBAC has its rules at the route.
"""

import copy
import json
import re
import unittest
from base64 import b64encode
from typing import Any

import yaml
from crds import ROOT, changed, document, documents, faults
from google.protobuf import json_format
from messages import parse
from proxy import MODULE, ROUTER, UPSTREAM, Envoy, lint, listener, minted

FOLDER = "envoy-gateway"
FILES = ["backend-tls", "envoyproxy", "extension-policy", "held-bodies", "limits", "seal"]
RBAC = "envoy.filters.http.rbac"
TYPE = "type.googleapis.com/"
WASM = f"{TYPE}envoy.extensions.filters.http.wasm.v3.Wasm"


def object_of(file: str, kind: str) -> dict[str, Any]:
    return document(f"{FOLDER}/{file}.yaml", kind)


def policy() -> dict[str, Any]:
    """The policy of envoy.yaml."""
    gate = yaml.safe_load((ROOT / "envoy.yaml").read_text())["static_resources"]["listeners"][0]
    filters = gate["filter_chains"][0]["filters"][0]["typed_config"]["http_filters"]
    return json.loads(filters[0]["typed_config"]["config"]["configuration"]["value"])


def text_value(text: str) -> dict[str, str]:
    return {"@type": f"{TYPE}google.protobuf.StringValue", "value": text}


def filter_name() -> str:
    metadata = object_of("extension-policy", "EnvoyExtensionPolicy")["metadata"]
    return f"envoy.filters.http.wasm/envoyextensionpolicy/{metadata['namespace']}/{metadata['name']}/wasm/0"


def wasm_filter() -> dict[str, Any]:
    (wasm,) = object_of("extension-policy", "EnvoyExtensionPolicy")["spec"]["wasm"]
    name = filter_name()
    vm = {
        "vm_id": name.partition("/")[2],
        "runtime": "envoy.wasm.runtime.v8",
        "code": {"local": {"filename": MODULE}},
        "environment_variables": {"host_env_keys": wasm["env"]["hostKeys"]},
    }
    config = {"name": wasm["name"], "vm_config": vm, "configuration": text_value(json.dumps(wasm["config"]))}
    return {"name": name, "disabled": True, "typed_config": {"@type": WASM, "config": config}}


def action(name: str, verdict: str) -> dict[str, Any]:
    typed_config = {"@type": f"{TYPE}envoy.config.rbac.v3.Action", "name": name, "action": verdict}
    return {"name": name, "typed_config": typed_config}


def parsed(expression: str) -> dict[str, Any]:
    """An expression of the form of the seal, parsed as Envoy Gateway does it: Envoy does not read the text itself."""
    name, key, as_bytes, value = re.fullmatch(r"(\w+)\['([\w.]+)'\] == (b?)'(\w+)'", expression).groups()
    constant = {"bytes_value": b64encode(value.encode()).decode()} if as_bytes else {"string_value": value}
    member = [{"id": 1, "ident_expr": {"name": name}}, {"id": 3, "const_expr": {"string_value": key}}]
    sides = [{"id": 2, "call_expr": {"function": "_[_]", "args": member}}, {"id": 5, "const_expr": constant}]
    return {"id": 4, "call_expr": {"function": "_==_", "args": sides}}


def seal(expression: str | None = None) -> dict[str, Any]:
    """RBAC at the route, from the SecurityPolicy; with another expression, if one is given."""
    authorization = object_of("seal", "SecurityPolicy")["spec"]["authorization"]
    (rule,) = authorization["rules"]
    matcher = {"@type": f"{TYPE}xds.type.matcher.v3.CelMatcher"}
    matcher |= {"expr_match": {"cel_expr_parsed": {"expr": parsed(expression or rule["cel"])}}}
    attributes = {"name": "cel", "typed_config": {"@type": f"{TYPE}xds.type.matcher.v3.HttpAttributesCelMatchInput"}}
    single = {"input": attributes, "custom_match": {"name": "cel_matcher", "typed_config": matcher}}
    allow = {"action": action(rule["name"], rule["action"].upper())}
    matchers = {"matcher_list": {"matchers": [{"predicate": {"single_predicate": single}, "on_match": allow}]}}
    matchers |= {"on_no_match": {"action": action("default", authorization["defaultAction"].upper())}}
    return {"@type": f"{TYPE}envoy.extensions.filters.http.rbac.v3.RBACPerRoute", "rbac": {"matcher": matchers}}


def gateway(name: str, *, module: bool = True, expression: str | None = None) -> dict[str, Any]:
    rbac = {"name": RBAC, "typed_config": {"@type": f"{TYPE}envoy.extensions.filters.http.rbac.v3.RBAC"}}
    on = {filter_name(): {"@type": f"{TYPE}envoy.config.route.v3.FilterConfig", "config": {}}} if module else {}
    return listener(name, [wasm_filter(), rbac, ROUTER], on | {RBAC: seal(expression)})


def patched(target: dict[str, Any]) -> dict[str, Any]:
    """The listener with the patches of held-bodies.yaml."""
    target = copy.deepcopy(target)
    for patch in object_of("held-bodies", "EnvoyPatchPolicy")["spec"]["jsonPatches"]:
        operation = patch["operation"]
        every, name = re.fullmatch(r"\.\.(\w+)\[\?\(@\.name=='(.*)'\)\]", operation["jsonPath"]).groups()
        manager = target["filter_chains"][0]["filters"][0]
        among = {"filters": [manager], "http_filters": manager["typed_config"]["http_filters"]}[every]
        (place,) = (one for one in among if one["name"] == name)
        *way, last = operation["path"].strip("/").split("/")
        for step in way:
            place = place[step]
        place[last] = operation["value"]
    return target


class Schemas(unittest.TestCase):
    def test_every_object_has_the_form_of_its_kind(self) -> None:
        objects = [one for file in FILES for one in documents(f"{FOLDER}/{file}.yaml")]
        self.assertEqual(len(objects), 7)
        for one in objects:
            self.assertEqual(faults(one), [], one["kind"])

    def test_a_broken_copy_is_refused(self) -> None:
        target = {"group": "gateway.networking.k8s.io", "kind": "Service", "name": "llm"}
        breaks = [
            ("extension-policy", "EnvoyExtensionPolicy", "wasm.0.failopen", False, "failopen"),
            ("extension-policy", "EnvoyExtensionPolicy", "wasm.0.code.type", "HTTP", "self.type == 'HTTP'"),
            ("extension-policy", "EnvoyExtensionPolicy", "targetRefs.0", target, "ref.kind in"),
            ("seal", "SecurityPolicy", "authorization.defaultAction", "Refuse", "'Refuse' is not one of"),
            ("seal", "SecurityPolicy", "authorization.rules.0", {"action": "Allow"}, "has(self.cel)"),
            ("seal", "SecurityPolicy", "targetRefs.0", target, "ref.kind in"),
            ("envoyproxy", "EnvoyProxy", "telemetry.accessLog.settings.0.sinks.0", {"type": "File"}, "has(self.file)"),
            ("envoyproxy", "ClientTrafficPolicy", "connection.bufferLimit", "9 MiB", "does not match"),
            ("held-bodies", "EnvoyPatchPolicy", "jsonPatches.0.nameSelector", {"value": "x"}, "has(self.nameSelector)"),
            ("limits", "BackendTrafficPolicy", "rateLimit.global.rules.0.limit.unit", "minute", "is not one of"),
            ("limits", "BackendTrafficPolicy", "rateLimit.global.rules.0.clientSelectors.0", {}, "has(self.headers)"),
            ("backend-tls", "BackendTLSPolicy", "validation", {"hostname": "a.example"}, "has(self.caCertificateRefs)"),
        ]
        for file, kind, way, value, expected in breaks:
            broken = changed(object_of(file, kind), way, value)
            found = faults(broken)
            self.assertTrue(any(expected in one for one in found), f"{kind} {way}: {found}")


class Contents(unittest.TestCase):
    def test_the_policy_is_that_of_envoy(self) -> None:
        self.assertEqual(object_of("extension-policy", "EnvoyExtensionPolicy")["spec"]["wasm"][0]["config"], policy())

    def test_module_and_seal_are_for_the_same_gateway_and_closed(self) -> None:
        module = object_of("extension-policy", "EnvoyExtensionPolicy")
        seals = object_of("seal", "SecurityPolicy")
        self.assertEqual(module["spec"]["targetRefs"], seals["spec"]["targetRefs"])
        self.assertEqual(module["spec"]["targetRefs"][0]["kind"], "Gateway")
        self.assertEqual(module["metadata"]["namespace"], seals["metadata"]["namespace"])
        self.assertIs(module["spec"]["wasm"][0]["failOpen"], False)
        self.assertEqual(seals["spec"]["authorization"]["defaultAction"], "Deny")

    def test_the_limits_are_for_the_same_gateway_and_by_what_the_module_sets(self) -> None:
        limits, seals = object_of("limits", "BackendTrafficPolicy"), object_of("seal", "SecurityPolicy")
        self.assertEqual(limits["spec"]["targetRefs"], seals["spec"]["targetRefs"])
        self.assertEqual(limits["metadata"]["namespace"], seals["metadata"]["namespace"])
        rules = limits["spec"]["rateLimit"]["global"]["rules"]
        names = [[h["name"] for h in s["headers"]] for rule in rules for s in rule["clientSelectors"]]
        self.assertEqual(names, [["x-vkey-tenant"], ["x-vkey-tenant", "x-vkey-key"]])

    def test_the_image_is_pinned_by_its_digest(self) -> None:
        image = object_of("extension-policy", "EnvoyExtensionPolicy")["spec"]["wasm"][0]["code"]["image"]
        self.assertRegex(image["url"], r"@sha256:[0-9a-f]{64}$")
        self.assertEqual(image["url"].rpartition(":")[2], image["sha256"])

    def test_every_variable_of_the_module_comes_from_a_secret(self) -> None:
        names = object_of("extension-policy", "EnvoyExtensionPolicy")["spec"]["wasm"][0]["env"]["hostKeys"]
        proxy = object_of("envoyproxy", "EnvoyProxy")["spec"]["provider"]["kubernetes"]["envoyDeployment"]
        variables = {one["name"]: one for one in proxy["container"]["env"]}
        self.assertEqual(sorted(variables), sorted(names))
        for one in variables.values():
            self.assertEqual(list(one), ["name", "valueFrom"])
            self.assertIn("secretKeyRef", one["valueFrom"])

    def test_the_buffer_holds_what_a_body_may_have(self) -> None:
        limit = object_of("envoyproxy", "ClientTrafficPolicy")["spec"]["connection"]["bufferLimit"]
        gate = yaml.safe_load((ROOT / "envoy.yaml").read_text())["static_resources"]["listeners"][0]
        self.assertEqual(int(limit.removesuffix("Mi")) << 20, gate["per_connection_buffer_limit_bytes"])

    def test_the_patches_make_a_listener_that_envoy_can_read(self) -> None:
        parse("envoy.config.listener.v3.Listener", patched(gateway("patched")))
        metadata = object_of("seal", "SecurityPolicy")["metadata"]
        for patch in object_of("held-bodies", "EnvoyPatchPolicy")["spec"]["jsonPatches"]:
            self.assertEqual(patch["name"], f"{metadata['namespace']}/llm/http")
        wrong = gateway("wrong")
        http_filters = wrong["filter_chains"][0]["filters"][0]["typed_config"]["http_filters"]
        http_filters[0]["typed_config"]["config"]["fail_closed"] = True
        with self.assertRaises(json_format.ParseError):
            parse("envoy.config.listener.v3.Listener", wrong)


class Running(unittest.TestCase):
    """One Envoy has a listener for each case."""

    @classmethod
    def setUpClass(cls) -> None:
        secret, cls.key = minted()
        cls.envoy = Envoy(
            [
                patched(gateway("gate")),
                gateway("no_module", module=False),
                gateway("string", expression="filter_state['wasm.vkey.decision'] == 'allow'"),
                consul("consul", module=True),
                consul("consul_no_module", module=False),
            ],
            secret,
        )
        cls.enterClassContext(cls.envoy)

    def test_a_key_opens_the_gate(self) -> None:
        self.assertEqual(self.envoy.get("gate", self.key), (200, UPSTREAM), self.envoy.log())
        self.assertEqual(self.envoy.get("gate")[0], 401)

    def test_a_held_body_decides(self) -> None:
        self.assertEqual(self.envoy.call_tool("gate", self.key), (200, UPSTREAM), self.envoy.log())

    def test_the_seal_refuses_without_the_module(self) -> None:
        for key in [self.key, None]:
            self.assertEqual(self.envoy.get("no_module", key)[0], 403)

    def test_compared_with_a_string_the_seal_refuses_everything(self) -> None:
        self.assertEqual(self.envoy.get("string", self.key)[0], 403)
        self.assertEqual(self.envoy.get("string")[0], 401)

    def test_lint_does_not_know_a_seal_in_cel(self) -> None:
        self.assertIn("listener gate: seal_missing", lint(self.envoy.ask("/config_dump")))

    def test_the_seal_of_consul(self) -> None:
        self.assertEqual(self.envoy.get("consul", self.key), (200, UPSTREAM), self.envoy.log())
        self.assertEqual(self.envoy.get("consul")[0], 401)
        self.assertEqual(self.envoy.get("consul_no_module", self.key)[0], 403)


def arguments(name: str) -> dict[str, Any]:
    extensions = document("consul/service-defaults.yaml", "ServiceDefaults")["spec"]["envoyExtensions"]
    (found,) = (one for one in extensions if one["name"] == name)
    return found["arguments"]


def consul(name: str, *, module: bool) -> dict[str, Any]:
    """Consul puts each extension directly before the router."""
    plugin = arguments("builtin/wasm")["PluginConfig"]
    vm = copy.deepcopy(wasm_filter()["typed_config"]["config"]["vm_config"])
    vm["environment_variables"] = {"host_env_keys": plugin["VmConfig"]["EnvironmentVariables"]["HostEnvKeys"]}
    config = {"name": plugin["Name"], "vm_config": vm, "configuration": text_value(plugin["Configuration"])}
    wasm = {"name": "envoy.filters.http.wasm", "typed_config": {"@type": WASM, "config": config}}
    script = {"inline_string": arguments("builtin/lua")["Script"]}
    lua = {"@type": f"{TYPE}envoy.extensions.filters.http.lua.v3.Lua", "default_source_code": script}
    return listener(name, [wasm] * module + [{"name": "envoy.filters.http.lua", "typed_config": lua}, ROUTER])


class Consul(unittest.TestCase):
    def test_the_extensions_are_required_and_in_order(self) -> None:
        spec = document("consul/service-defaults.yaml", "ServiceDefaults")["spec"]
        self.assertEqual([one["name"] for one in spec["envoyExtensions"]], ["builtin/wasm", "builtin/lua"])
        for one in spec["envoyExtensions"]:
            self.assertIs(one["required"], True)
            self.assertEqual(sorted(one), ["arguments", "name", "required"])
        self.assertEqual(spec["protocol"], "http")

    def test_the_arguments_are_those_that_consul_decodes(self) -> None:
        wasm, lua = arguments("builtin/wasm"), arguments("builtin/lua")
        self.assertEqual(sorted(wasm), ["ListenerType", "PluginConfig", "Protocol"])
        self.assertEqual((wasm["Protocol"], wasm["ListenerType"]), ("http", "inbound"))
        plugin = wasm["PluginConfig"]
        self.assertEqual(sorted(plugin), ["Configuration", "Name", "VmConfig"])
        self.assertEqual(sorted(plugin["VmConfig"]), ["Code", "EnvironmentVariables", "Runtime", "VmID"])
        self.assertEqual(plugin["VmConfig"]["Code"], {"Local": {"Filename": "/etc/vkey/vkey.wasm"}})
        self.assertEqual(sorted(lua), ["Listener", "ProxyType", "Script"])
        self.assertEqual((lua["ProxyType"], lua["Listener"]), ("connect-proxy", "inbound"))

    def test_the_policy_is_that_of_envoy(self) -> None:
        self.assertEqual(json.loads(arguments("builtin/wasm")["PluginConfig"]["Configuration"]), policy())


if __name__ == "__main__":
    unittest.main()
