"""The Helm chart: each mode makes the objects of the files for Kubernetes, Istio and Envoy Gateway. Wrong values are
refused."""

import functools
import json
import os
import re
import shutil
import subprocess
import tempfile
import unittest
from copy import deepcopy
from pathlib import Path
from typing import Any

import crds
import kubernetes_validate
import test_kubernetes as kubernetes
import yaml
from crds import DEPLOY, ROOT, document, documents

CHART = DEPLOY / "helm/vkey"
DIGEST = f"sha256:{'0' * 64}"
IMAGE = {"repository": "registry.example/vkey-gate", "digest": DIGEST}
PULLED = {"url": "https://artifacts.example/vkey/vkey.wasm", "sha256": "0" * 64}
# What has no default.
MODES: dict[str, dict[str, Any]] = {
    "proxy": {"image": IMAGE},
    "sidecar": {"mode": "sidecar", "image": IMAGE},
    "istio": {"mode": "istio", "istio": PULLED},
    "envoy-gateway": {"mode": "envoy-gateway", "image": IMAGE},
}
NAMESPACES = {"istio": "istio-system", "envoy-gateway": "gateways"}
# Other values in every place of the configuration of Envoy that has some.
OTHER = {
    "secrets": {"VKEY_MAIN_SECRET_2": {"name": "other", "key": "second"}},
    "upstream": {"host": "models.team.svc.cluster.local", "port": 9000},
    "config": {
        "keyring": [
            {"name": "second", "secret": "${VKEY_MAIN_SECRET_2}"},
            {"name": "main", "secret": "${VKEY_MAIN_SECRET}", "state": "retiring"},
        ],
        "tenants": {"acme": {"quotas": [{"requests": 1000000, "per": "month"}]}},
        "public": [{"methods": ["GET"], "paths": ["/healthz"]}],
    },
}
# The application of `test_kubernetes`, in a chart that has this one as a dependency.
PARENT = {
    "Chart.yaml": "{apiVersion: v2, name: application, version: 0.1.0, dependencies: [{name: vkey, version: 0.1.0}]}",
    "values.yaml": "{}",
}

Object = dict[str, Any]


def helm(*words: object) -> "subprocess.CompletedProcess[str]":
    program = Path(os.environ["VKEY_TEST_DEPLOY_TOOLS"]) / "helm"
    return subprocess.run([program, *map(str, words)], capture_output=True, text=True, check=False)


def of_chart(command: list[str], mode: str, values: Object) -> "subprocess.CompletedProcess[str]":
    """A command of helm about the chart, or for a sidecar about the chart of an application."""
    with tempfile.TemporaryDirectory() as name:
        chart = application(Path(name) / "application") if mode == "sidecar" else CHART
        file = Path(name) / "values.json"
        file.write_text(json.dumps({"vkey": values} if mode == "sidecar" else values))
        return helm(*command, chart, "--namespace", NAMESPACES.get(mode, "gate"), "--values", file)


def application(folder: Path) -> Path:
    """A chart with the Deployment of the documentation."""
    shutil.copytree(CHART, folder / "charts/vkey")
    for name, text in (PARENT | {"templates/application.yaml": documented("gotmpl")[0]}).items():
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_text(text)
    return folder


def documented(language: str) -> list[str]:
    """The blocks of code in the section about Helm."""
    page = (ROOT / "docs/deploy-kubernetes.md").read_text()
    section = page.split("\n## Helm\n")[1].split("\n## ")[0]
    return re.findall(f"```{language}\n(.*?)```", section, re.DOTALL)


def merged(values: Object, more: Object) -> Object:
    """As helm merges values."""
    inner = {name: merged(values[name], more[name]) for name in values.keys() & more.keys()
             if isinstance(values[name], dict) and isinstance(more[name], dict)}
    return values | more | inner


def rendered(mode: str, more: Object | None = None) -> list[Object]:
    return deepcopy(render(mode, json.dumps(more or {})))


@functools.cache
def render(mode: str, more: str) -> list[Object]:
    return [one for one in yaml.load_all(template(mode, more), yaml.CSafeLoader) if one]


@functools.cache
def template(mode: str, more: str) -> str:
    done = of_chart(["template", "vkey"], mode, merged(MODES[mode], json.loads(more)))
    assert done.returncode == 0, done.stderr
    return done.stdout


def refusal(mode: str, more: Object) -> str:
    """What helm says of values that are refused."""
    done = of_chart(["template", "vkey"], mode, merged(MODES[mode], more))
    return done.stderr if done.returncode else "rendered"


def one(objects: list[Object], kind: str) -> Object:
    (found,) = (each for each in objects if each["kind"] == kind)
    return found


def normalized(objects: list[Object]) -> dict[str, Object]:
    """Objects by kind and name. The name of the ConfigMap ends with a hash that kustomize and Helm compute in different
    ways; that it does, and that pods mount it by that name, is compared. A chart adds no name, no label and no
    annotation: Helm itself labels what it installs."""
    (name,) = (each["metadata"]["name"] for each in objects if each["kind"] == "ConfigMap")
    assert re.fullmatch("vkey-gate-[a-z0-9]{10}", name), name
    objects = json.loads(json.dumps(objects).replace(name, "vkey-gate-HASH"))
    data = one(objects, "ConfigMap")["data"]
    data["envoy.yaml"] = bootstrap(data["envoy.yaml"])
    return {f"{each['kind']} {each['metadata']['name']}": each for each in objects}


def bootstrap(text: str) -> Object:
    """A configuration of Envoy, with the plugin configuration as an object."""
    read = yaml.load(text, yaml.CSafeLoader)
    configuration = module(read)["configuration"]
    configuration["value"] = json.loads(configuration["value"])
    return read


def module(read: Object) -> Object:
    """The module of the gate."""
    (gate,) = read["static_resources"]["listeners"]
    wasm = gate["filter_chains"][0]["filters"][0]["typed_config"]["http_filters"][0]
    assert wasm["name"] == "envoy.filters.http.wasm", wasm["name"]
    return wasm["typed_config"]["config"]


def envoy_of(mode: str, more: Object | None = None) -> str:
    return one(rendered(mode, more), "ConfigMap")["data"]["envoy.yaml"]


def replaced(text: str, was: str, by: str) -> str:
    assert text.count(was) == 1, was
    return text.replace(was, by)


class Rendered(unittest.TestCase):
    maxDiff = None

    def test_proxy_is_the_base(self) -> None:
        self.assertEqual(normalized(rendered("proxy")), normalized(kubernetes.objects("base")))

    def test_sidecar_is_the_component(self) -> None:
        expected = kubernetes.objects("sidecar")
        labels = one(expected, "Deployment")["metadata"].pop("labels")
        self.assertEqual(labels, {"vkey-sidecar": "true"})  # by it the component finds the Deployment
        self.assertEqual(normalized(rendered("sidecar")), normalized(expected))

    def test_istio_is_the_file(self) -> None:
        expected = documents("istio/wasmplugin.yaml")
        plugin = expected[0]["spec"]
        plugin["sha256"] = "1" * 64
        istio = {"selector": plugin["selector"]["matchLabels"], "url": plugin["url"], "sha256": plugin["sha256"]}
        found = rendered("istio", {"istio": istio, "config": plugin["pluginConfig"]})
        self.assertEqual(sorted(found, key=kind), sorted(expected, key=kind))

    def test_envoy_gateway_is_the_files(self) -> None:
        files = ["extension-policy", "seal", "envoyproxy"]
        expected = [each for file in files for each in documents(f"envoy-gateway/{file}.yaml")]
        wasm = document("envoy-gateway/extension-policy.yaml", "EnvoyExtensionPolicy")["spec"]["wasm"][0]
        repository, _, digest = wasm["code"]["image"]["url"].partition("@")
        more = {
            "image": {"repository": repository, "digest": digest},
            "secrets": {"VKEY_MAIN_SECRET": {"name": "vkey", "key": "main"}},
            "config": wasm["config"],
        }
        found = rendered("envoy-gateway", more)
        self.assertEqual(sorted(found, key=kind), sorted(expected, key=kind))

    def test_the_configuration_of_envoy_is_that_of_the_base(self) -> None:
        base = (DEPLOY / "kubernetes/base/envoy.yaml").read_text()
        text = re.sub("^#<[a-z-]+>\n", "", base, flags=re.MULTILINE)
        text = replaced(text, "#\n# Components insert their parts between two equal markers, `#<NAME>`, and use the"
                              " anchors.\n", "")
        text = replaced(text, "        # PLACEHOLDER: your service.\n", "")
        text = replaced(text, "{address: upstream, port_value: 8080}",
                        '{address: {{ include "vkey.upstream" . | quote }}, port_value: {{ .Values.upstream.port }}}')
        text = replaced(text, "[VKEY_MAIN_SECRET]", '{{ include "vkey.variables" . }}')
        policy = re.search(r'^ {20}\{\n(?: {21}.*\n)+ {20}\}\n', text, re.MULTILINE).group()
        text = replaced(text, policy, f"{' ' * 20}{{{{- toPrettyJson .Values.config | nindent 20 }}}}\n")
        self.assertEqual((CHART / "files/envoy.yaml").read_text(), text)

    def test_objects_are_valid(self) -> None:
        for mode in MODES:
            for each in rendered(mode) + rendered(mode, OTHER):
                with self.subTest(mode=mode, kind=each["kind"]):
                    if mode in NAMESPACES:
                        self.assertEqual(crds.faults(each), [])
                        continue
                    for version in kubernetes.VERSIONS:
                        kubernetes_validate.validate(each, version, strict=True)

    def test_other_values_are_in_their_places(self) -> None:
        read = bootstrap(envoy_of("proxy", OTHER))
        endpoint = read["static_resources"]["clusters"][0]["load_assignment"]["endpoints"][0]["lb_endpoints"][0]
        address = endpoint["endpoint"]["address"]["socket_address"]
        self.assertEqual(address, {"address": OTHER["upstream"]["host"], "port_value": 9000})
        policy = module(read)["configuration"]["value"]
        self.assertEqual(policy | OTHER["config"], policy)
        variables = ["VKEY_MAIN_SECRET", "VKEY_MAIN_SECRET_2"]
        self.assertEqual(module(read)["vm_config"]["environment_variables"]["host_env_keys"], variables)
        ports = {port["port"] for each in rendered("proxy", OTHER) if each["metadata"]["name"] == "vkey-upstream"
                 for port in each["spec"]["ingress"][0]["ports"]}
        self.assertEqual(ports, {9000})
        container = one(rendered("proxy", OTHER), "Deployment")["spec"]["template"]["spec"]["containers"][0]
        reference = {"secretKeyRef": {"name": "other", "key": "second"}}
        self.assertIn({"name": "VKEY_MAIN_SECRET_2", "valueFrom": reference}, container["env"])

    def test_module_and_seal_are_for_the_same_proxies(self) -> None:
        labels = {"app": "edge", "istio": "ingressgateway"}
        objects = rendered("istio", {"istio": {"selector": {"app": "edge"}}})
        self.assertEqual(one(objects, "WasmPlugin")["spec"]["selector"]["matchLabels"], labels)
        self.assertEqual(one(objects, "EnvoyFilter")["spec"]["workloadSelector"]["labels"], labels)
        objects = rendered("envoy-gateway", {"envoyGateway": {"gateway": "edge"}})
        for of in ("EnvoyExtensionPolicy", "SecurityPolicy", "ClientTrafficPolicy"):
            self.assertEqual([target["name"] for target in one(objects, of)["spec"]["targetRefs"]], ["edge"])

    def test_another_configuration_is_a_rollout(self) -> None:
        names = {one(rendered("proxy", more), "ConfigMap")["metadata"]["name"] for more in ({}, OTHER)}
        self.assertEqual(len(names), 2)

    def test_envoy_has_a_worker_for_each_cpu(self) -> None:
        for cpu, workers in (("2", "2"), (4, "4"), ("500m", "1"), ("1500m", "2"), ("0.5", "1"), (2.5, "3")):
            deployment = one(rendered("proxy", {"resources": {"limits": {"cpu": cpu}}}), "Deployment")
            arguments = deployment["spec"]["template"]["spec"]["containers"][0]["args"]
            self.assertEqual(arguments[arguments.index("--concurrency") + 1], workers, cpu)

    def test_without_production_a_tag_takes_the_place_of_the_digest(self) -> None:
        more = {"production": False, "image": {"digest": "", "tag": "dev"}}
        deployment = one(rendered("proxy", more), "Deployment")
        image = deployment["spec"]["template"]["spec"]["containers"][0]["image"]
        self.assertEqual(image, "registry.example/vkey-gate:dev")
        image = one(rendered("envoy-gateway", more), "EnvoyExtensionPolicy")["spec"]["wasm"][0]["code"]["image"]
        self.assertEqual(image, {"url": "registry.example/vkey-gate:dev"})


def kind(of: Object) -> str:
    return of["kind"]


def ring(**members: Any) -> Object:
    return {"config": {"keyring": [{"name": "main", "secret": "${VKEY_MAIN_SECRET}"} | members]}}


LITERAL = "Literal-secret-1-of-a-ring"
NAMED = "value must be '${VARIABLE}, never the secret itself'"
# Values that are refused, and what helm says.
REFUSED: list[tuple[str, Object, str]] = [
    ("proxy", {"seal": False}, "additional properties 'seal' not allowed"),
    ("proxy", {"seal": {"enabled": True}}, "additional properties 'seal' not allowed"),
    ("istio", {"istio": {"seal": False}}, "at '/istio': additional properties 'seal' not allowed"),
    ("envoy-gateway", {"envoyGateway": {"seal": False}}, "at '/envoyGateway': additional properties 'seal' not"),
    ("sidecar", {"seal": False}, "additional properties 'seal' not allowed"),
    ("proxy", {"replica": 3}, "additional properties 'replica' not allowed"),
    ("proxy", {"mode": "gateway"}, "at '/mode': value must be one of 'proxy', 'sidecar', 'istio', 'envoy-gateway'"),
    ("proxy", {"image": {"digest": ""}}, "at '/image/digest': '' does not match pattern '^sha256:"),
    ("sidecar", {"image": {"digest": ""}}, "at '/image/digest': '' does not match pattern '^sha256:"),
    ("envoy-gateway", {"image": {"digest": ""}}, "at '/image/digest': '' does not match pattern '^sha256:"),
    ("proxy", {"image": {"digest": "", "tag": "v1"}}, "at '/image/digest': '' does not match pattern '^sha256:"),
    ("proxy", {"image": {"tag": "v1"}}, "at '/image/tag': maxLength: got 2, want 0"),
    ("proxy", {"image": {"repository": ""}}, "at '/image/repository': minLength: got 0, want 1"),
    ("proxy", {"production": False, "image": {"digest": ""}}, "at '/image/tag': minLength: got 0, want 1"),
    ("istio", {"istio": {"sha256": ""}}, "at '/istio/sha256': '' does not match pattern '^[0-9a-f]{64}$'"),
    ("istio", {"production": False, "istio": {"sha256": ""}}, "at '/istio/sha256': '' does not match pattern"),
    ("istio", {"istio": {"url": "file:///etc/vkey.wasm"}}, "at '/istio/url': 'file:///etc/vkey.wasm' does not match"),
    ("istio", {"istio": {"selector": {"istio": None}}}, "at '/istio/selector': minProperties: got 0, want 1"),
    ("proxy", ring(secret=LITERAL), f"at '/config/keyring/0/secret': {NAMED}"),
    ("istio", ring(secret=LITERAL), f"at '/config/keyring/0/secret': {NAMED}"),
    ("envoy-gateway", ring(secret=LITERAL), f"at '/config/keyring/0/secret': {NAMED}"),
    ("proxy", ring(secret="${A}" + LITERAL), f"at '/config/keyring/0/secret': {NAMED}"),
    ("proxy", ring(secret={"value": LITERAL}), "at '/config/keyring/0/secret': missing property 'filter_state'"),
    ("proxy", ring(keys={"main-0": LITERAL}), f"at '/config/keyring/0/keys/main-0': {NAMED}"),
    ("proxy", {"config": {"audit": {"secret": LITERAL}}}, f"at '/config/audit/secret': {NAMED}"),
    ("proxy", {"config": {"deep": [{"er": {"secret": LITERAL}}]}}, f"at '/config/deep/0/er/secret': {NAMED}"),
    ("proxy", {"config": {"forward": {"credentials": [{"value": f"Bearer {LITERAL}"}]}}},
     "at '/config/forward/credentials/0/value': value must be 'a text with ${VARIABLE}, never the secret itself'"),
    ("proxy", {"secrets": {"VKEY_MAIN_SECRET": LITERAL}}, "at '/secrets/VKEY_MAIN_SECRET': got string, want object"),
    ("proxy", {"secrets": {"VKEY_MAIN_SECRET": {"value": LITERAL}}}, "additional properties 'value' not allowed"),
    ("proxy", ring(secret="${ANOTHER}"), "config names ${ANOTHER}, which is not in secrets"),
    ("istio", ring(secret="${ANOTHER}"), "config names ${ANOTHER}, which is not in secrets"),
    ("envoy-gateway", ring(secret="${ANOTHER}"), "config names ${ANOTHER}, which is not in secrets"),
    ("proxy", {"config": {"keyring": []}}, "at '/config/keyring': minItems: got 0, want 1"),
    ("proxy", {"upstream": {"host": "a, port_value: 1}} #"}}, "at '/upstream/host': "),
    ("proxy", {"upstream": {"port": "8080"}}, "at '/upstream/port': got string, want integer"),
    ("proxy", {"resources": {"limits": {"cpu": None}}}, "at '/resources/limits': missing property 'cpu'"),
    ("proxy", {"production": None}, "missing property 'production'"),
    ("istio", {"config": None}, "missing property 'config'"),
    ("proxy", {"mode": "sidecar"}, "mode sidecar is for a chart that has this one as a dependency"),
]


class Refused(unittest.TestCase):
    def test_wrong_values_are_refused_and_no_secret_is_shown(self) -> None:
        for mode, more, expected in REFUSED:
            with self.subTest(mode=mode, values=more):
                said = refusal(mode, more)
                self.assertIn(expected, said)
                self.assertNotIn(LITERAL, said)

    def test_the_seal_stays_without_the_schema(self) -> None:
        for mode, values in MODES.items():
            sealed = of_chart(["template", "vkey"], mode, values).stdout
            more = {"seal": False, "istio": {"seal": False}, "envoyGateway": {"seal": False}}
            done = of_chart(["template", "vkey", "--skip-schema-validation"], mode, merged(values, more))
            self.assertEqual((done.returncode, done.stdout), (0, sealed), mode)

    def test_without_values_nothing_is_deployed(self) -> None:
        self.assertIn("at '/image/digest': ", helm("template", "vkey", CHART).stderr)

    def test_secrets_that_are_named_are_not_refused(self) -> None:
        for secret in ("${VKEY_MAIN_SECRET}", {"filter_state": "vkey.secret.main"}):
            value = module(bootstrap(envoy_of("proxy", ring(secret=secret))))["configuration"]["value"]
            self.assertEqual(value["keyring"][0]["secret"], secret)

    def test_a_tenant_may_be_called_secret(self) -> None:
        more = {"config": {"tenants": {"secret": {"quotas": [{"requests": 10, "per": "day"}]}}}}
        self.assertEqual(len(rendered("proxy", more)), len(rendered("proxy")))


class Tools(unittest.TestCase):
    def test_lint_finds_no_mistake(self) -> None:
        for mode, values in MODES.items():
            done = of_chart(["lint", "--strict"], mode, values)
            self.assertEqual(done.returncode, 0, done.stdout + done.stderr)

    def test_the_command_checks_what_is_deployed(self) -> None:
        for mode in MODES:
            for more in ({}, OTHER):
                with self.subTest(mode), tempfile.TemporaryDirectory() as name:
                    file = Path(name) / "objects.yaml"
                    file.write_text(template(mode, json.dumps(more)))
                    self.assertIn("\nok", kubernetes.command("config", "check", "--kubernetes", file))

    def test_envoy_accepts_the_configuration(self) -> None:
        with tempfile.TemporaryDirectory() as name:
            file = Path(name) / "envoy.yaml"
            text = replaced(envoy_of("proxy", OTHER), "/etc/vkey/vkey.wasm", os.environ["VKEY_TEST_WASM"])
            file.write_text(re.sub(r"port_value: (10000|9901)\b", "port_value: 0", text))
            words = [os.environ["VKEY_TEST_ENVOY"], "--mode", "validate", "--config-path", str(file)]
            done = subprocess.run(words, env={"VKEY_MAIN_SECRET": "x"}, capture_output=True, text=True, check=False)
            self.assertEqual(done.returncode, 0, done.stderr[-2000:])

    def test_the_notes_show_the_seal_and_a_request(self) -> None:
        command = ["install", "vkey", "--dry-run=client", "--render-subchart-notes"]
        for mode, values in MODES.items():
            said = of_chart(command, mode, values).stdout.partition("\nNOTES:\n")[2]
            self.assertIn("The first 401, for a request without a key", said, mode)
            self.assertIn("The seal is on if ", said, mode)
            self.assertIn(f"kubectl -n {NAMESPACES.get(mode, 'gate')} ", said, mode)


class Documentation(unittest.TestCase):
    def test_the_commands_run(self) -> None:
        with tempfile.TemporaryDirectory() as name:
            folder = Path(name) / "my-gate"
            folder.mkdir()
            (Path(name) / "vkey").symlink_to(ROOT)
            tools = os.environ["VKEY_TEST_DEPLOY_TOOLS"]
            path = [tools, str(Path(os.environ["VKEY_TEST_COMMAND"]).parent), os.environ["PATH"]]
            environment = os.environ | {"PATH": ":".join(path)}
            words = ["bash", "-euo", "pipefail", "-c", documented("sh")[0]]
            done = subprocess.run(words, cwd=folder, env=environment, capture_output=True, text=True, check=False)
            self.assertEqual(done.returncode, 0, done.stdout + done.stderr)
            self.assertTrue(list(folder.glob("vkey-*.tgz")))


if __name__ == "__main__":
    unittest.main()
