"""The gate for Kubernetes: what kustomize makes of it, and what Envoy does with the configuration in it."""

import contextlib
import functools
import http.client
import http.server
import json
import os
import re
import ssl
import subprocess
import tempfile
import threading
import time
import unittest
from collections.abc import Callable, Iterator
from copy import deepcopy
from pathlib import Path
from typing import Any, TypeVar

import kubernetes_validate
import yaml

ROOT = Path(__file__).resolve().parents[4]
FILES = ROOT / "filters/vkey/deploy/kubernetes"
VERSIONS = ["1.33", "1.37"]
VARIANTS: dict[str, list[str]] = {
    "base": [],
    "tls": ["tls"],
    "mtls": ["mtls"],
    "sidecar": ["sidecar"],
    "collector": ["collector"],
    "secret files": ["secret-files"],
    "cluster limits": ["cluster-limits"],
    "gates of all kinds": ["mtls", "collector", "cluster-limits"],
    "sidecars of all kinds": ["collector", "sidecar", "cluster-limits", "mtls"],
    "sidecar with secret files": ["sidecar", "secret-files"],
}
PLACEHOLDER = re.compile(r"registry\.example/[a-z-]+@sha256:0{64}")
SECONDS = 20.0

# An application for the sidecar, as an overlay would have it.
APPLICATION = """
apiVersion: apps/v1
kind: Deployment
metadata:
  name: application
  labels: {vkey-sidecar: "true"}
spec:
  selector:
    matchLabels: {app: application}
  template:
    metadata:
      labels: {app: application}
    spec:
      containers:
      - {name: application, image: registry.example/application}
"""

Object = dict[str, Any]
T = TypeVar("T")


@functools.cache
def rendered(variant: str) -> str:
    """What `kubectl kustomize` makes of the base with these components."""
    components = VARIANTS[variant]
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name).resolve()
        (folder / "application.yaml").write_text(APPLICATION)
        resources = [os.path.relpath(FILES / "base", folder)]
        if "sidecar" in components:
            resources.append("application.yaml")
        overlay = {
            "resources": resources,
            "components": [os.path.relpath(FILES / "components" / name, folder) for name in components],
        }
        (folder / "kustomization.yaml").write_text(yaml.safe_dump(overlay))
        return kustomize(folder)


def kustomize(folder: Path) -> str:
    kubectl = Path(os.environ["VKEY_TEST_DEPLOY_TOOLS"]) / "kubectl"
    return subprocess.run([kubectl, "kustomize", folder], check=True, capture_output=True, text=True).stdout


@functools.cache
def parsed(variant: str) -> list[Object]:
    return list(yaml.load_all(rendered(variant), yaml.CSafeLoader))


def objects(variant: str) -> list[Object]:
    return deepcopy(parsed(variant))


def one(variant: str, kind: str, name: str) -> Object:
    found = [o for o in objects(variant) if o["kind"] == kind and o["metadata"]["name"].startswith(name)]
    assert len(found) == 1, f"{variant}: {len(found)} of {kind} {name}"
    return found[0]


def pods(variant: str) -> dict[str, Object]:
    """The template of each pod, by the name of its owner."""
    templates = {}
    for o in objects(variant):
        spec = o["spec"]["jobTemplate"]["spec"] if o["kind"] == "CronJob" else o.get("spec", {})
        if "template" in spec:
            templates[o["metadata"]["name"]] = spec["template"]
    return templates


def containers_of_vkey(pod: Object) -> list[Object]:
    """All containers but that of the application."""
    spec = pod["spec"]
    return [c for c in spec["containers"] + spec.get("initContainers", []) if c["name"] != "application"]


def faults(pod: Object) -> set[str]:
    """What is wrong with a pod."""
    found = set()
    if pod["spec"].get("automountServiceAccountToken") is not False:
        found.add("token")
    if any(pod["spec"].get(name) for name in ("hostNetwork", "hostPID", "hostIPC")):
        found.add("host")
    if any("hostPath" in volume for volume in pod["spec"]["volumes"]):
        found.add("host")
    for container in containers_of_vkey(pod):
        found |= faults_of_container(container)
    return found


RESTRICTED = {
    "runAsNonRoot": True,
    "runAsUser": 10101,
    "runAsGroup": 10101,
    "seccompProfile": {"type": "RuntimeDefault"},
    "allowPrivilegeEscalation": False,
    "readOnlyRootFilesystem": True,
    "capabilities": {"drop": ["ALL"]},
}


def faults_of_container(container: Object) -> set[str]:
    found = set()
    if container.get("securityContext") != RESTRICTED:
        found.add("security context")
    if not PLACEHOLDER.fullmatch(container["image"]):
        found.add("image")
    if container["name"] != "backup" and not {"readinessProbe", "livenessProbe"} <= container.keys():
        found.add("probes")
    resources = container.get("resources", {})
    if not all({"cpu", "memory"} <= resources.get(part, {}).keys() for part in ("requests", "limits")):
        found.add("resources")
    for variable in container.get("env", []):
        source = variable.get("valueFrom", {})
        if "value" in variable or not source.keys() <= {"secretKeyRef", "fieldRef"}:
            found.add("literal")
        if variable["name"].endswith("_SECRET") and "secretKeyRef" not in source:
            found.add("literal")
    return found


# Each break of a good pod, and the fault that it is.
BREAKS: dict[str, tuple[str, Callable[[Object], Any]]] = {
    "token": ("token", lambda pod: pod["spec"].pop("automountServiceAccountToken")),
    "network": ("host", lambda pod: pod["spec"].update(hostNetwork=True)),
    "path": ("host", lambda pod: pod["spec"]["volumes"].append({"name": "x", "hostPath": {"path": "/"}})),
    "root": ("security context", lambda pod: pod["spec"]["containers"][0]["securityContext"].pop("runAsNonRoot")),
    "tag": ("image", lambda pod: pod["spec"]["containers"][0].update(image="registry.example/vkey-gate:latest")),
    "readiness": ("probes", lambda pod: pod["spec"]["containers"][0].pop("readinessProbe")),
    "memory": ("resources", lambda pod: pod["spec"]["containers"][0]["resources"]["limits"].pop("memory")),
    "secret": ("literal", lambda pod: pod["spec"]["containers"][0]["env"].append({"name": "A_SECRET", "value": "x"})),
}


def matches(selector: Object, labels: dict[str, str]) -> bool:
    """Whether a label selector of those used here selects labels."""
    assert selector.keys() <= {"matchLabels", "matchExpressions"}
    equal = all(labels.get(name) == value for name, value in selector.get("matchLabels", {}).items())
    expressions = selector.get("matchExpressions", [])
    assert all(expression["operator"] == "Exists" for expression in expressions)
    return equal and all(expression["key"] in labels for expression in expressions)


def allowed(policies: list[Object], labels: dict[str, str], direction: str) -> set[str] | None:
    """What may go in or out of a pod with these labels; None is everything, without any policy."""
    end, kind = ("from", "Ingress") if direction == "ingress" else ("to", "Egress")
    applying = [p["spec"] for p in policies if matches(p["spec"]["podSelector"], labels)]
    applying = [spec for spec in applying if kind in spec["policyTypes"]]
    if not applying:
        return None
    rules = [rule for spec in applying for rule in spec.get(direction, [])]
    return {
        f"{peer_name(peer)} {port['protocol']} {port['port']}"
        for rule in rules
        for peer in rule.get(end, [{}])
        for port in rule["ports"]
    }


def peer_name(peer: Object) -> str:
    parts = [peer[name].get("matchLabels", {}) for name in ("namespaceSelector", "podSelector") if name in peer]
    return " ".join(value for labels in parts for value in labels.values()) or "anyone"


class Rendered(unittest.TestCase):
    def test_objects_are_valid_in_each_version(self) -> None:
        every = {json.dumps(o): o for variant in VARIANTS for o in objects(variant)}
        self.assertGreater(len(every), 20)
        for version in VERSIONS:
            for o in every.values():
                kubernetes_validate.validate(o, version, strict=True)

    def test_a_misspelt_member_is_invalid(self) -> None:
        deployment = one("base", "Deployment", "vkey-gate")
        deployment["spec"]["template"]["spec"]["containers"][0]["securityContext"]["runAsNonroot"] = True
        with self.assertRaises(kubernetes_validate.ValidationError):
            kubernetes_validate.validate(deployment, "1.33", strict=True)

    def test_pods_are_restricted(self) -> None:
        for variant in VARIANTS:
            self.assertTrue(pods(variant))
            for name, pod in pods(variant).items():
                with self.subTest(variant=variant, pod=name):
                    self.assertEqual(faults(pod), set())
                    self.assertTrue(containers_of_vkey(pod))

    def test_each_break_of_a_pod_is_found(self) -> None:
        for name, (fault, breaks) in BREAKS.items():
            with self.subTest(name):
                pod = deepcopy(pods("base")["vkey-gate"])
                breaks(pod)
                self.assertEqual(faults(pod), {fault})

    def test_no_secret_and_no_account_with_a_token(self) -> None:
        for variant in VARIANTS:
            self.assertNotIn("Secret", {o["kind"] for o in objects(variant)})
            for account in (o for o in objects(variant) if o["kind"] == "ServiceAccount"):
                self.assertIs(account["automountServiceAccountToken"], False)

    def test_sources_of_components_are_no_objects(self) -> None:
        for variant in VARIANTS:
            names = [o["metadata"]["name"] for o in objects(variant) if o["kind"] == "ConfigMap"]
            self.assertEqual([name for name in names if "part" in name], [])
            self.assertEqual(len([name for name in names if re.fullmatch("vkey-gate-[a-z0-9]{10}", name)]), 1)
            mounted = [v["configMap"]["name"] for pod in pods(variant).values()
                       for v in pod["spec"].get("volumes", []) if "configMap" in v]
            settings = [source["configMapRef"]["name"] for pod in pods(variant).values()
                        for c in pod["spec"]["containers"] for source in c.get("envFrom", [])]
            self.assertEqual(set(names), {*mounted, *settings})

    def test_a_sidecar_is_the_container_of_the_base(self) -> None:
        for gate, sidecar in (
            ("base", "sidecar"),
            ("gates of all kinds", "sidecars of all kinds"),
            ("secret files", "sidecar with secret files"),
        ):
            spec = pods(sidecar)["application"]["spec"]
            container = dict(spec["initContainers"][0])
            self.assertEqual(container.pop("restartPolicy"), "Always")
            other = pods(gate)["vkey-gate"]["spec"]
            for part in ("volumeMounts", "ports"):
                container[part] = sorted(container[part], key=str)
                other["containers"][0][part] = sorted(other["containers"][0][part], key=str)
            self.assertEqual(container, other["containers"][0])
            names = [sorted(volume["name"] for volume in each["volumes"]) for each in (spec, other)]
            self.assertEqual(names[0], names[1])

    def test_services_and_budgets_select_the_gate(self) -> None:
        for variant in VARIANTS:
            gate = pods(variant).get("vkey-gate") or pods(variant)["application"]
            labels = gate["metadata"]["labels"]
            self.assertTrue(matches({"matchLabels": one(variant, "Service", "vkey-gate")["spec"]["selector"]}, labels))
            budget = one(variant, "PodDisruptionBudget", "vkey-gate")["spec"]
            self.assertTrue(matches(budget["selector"], labels))

    def test_probes_ask_a_listener_that_needs_no_certificate(self) -> None:
        schemes = {"base": (10000, None), "tls": (10000, "HTTPS"), "mtls": (10001, "HTTP")}
        for variant, expected in schemes.items():
            probe = pods(variant)["vkey-gate"]["spec"]["containers"][0]["readinessProbe"]["httpGet"]
            self.assertEqual((probe["port"], probe.get("scheme")), expected)
            self.assertEqual(probe["path"], "/.vkey/ready")

    def test_a_backup_runs_alone_beside_the_store(self) -> None:
        job = one("collector", "CronJob", "vkey-backup")["spec"]
        self.assertEqual(job["concurrencyPolicy"], "Forbid")
        pod, collector = pods("collector")["vkey-backup"], pods("collector")["vkey-collector"]
        rule = pod["spec"]["affinity"]["podAffinity"]["requiredDuringSchedulingIgnoredDuringExecution"][0]
        self.assertTrue(matches(rule["labelSelector"], collector["metadata"]["labels"]))
        claims = [
            {v["persistentVolumeClaim"]["claimName"] for v in p["spec"]["volumes"] if "persistentVolumeClaim" in v}
            for p in (pod, collector)
        ]
        self.assertEqual(claims, [{"vkey-collector", "vkey-backup"}, {"vkey-collector"}])


class Documentation(unittest.TestCase):
    page = (ROOT / "docs/deploy-kubernetes.md").read_text()

    def test_the_overlay_has_its_image_its_configuration_and_the_component(self) -> None:
        component, overlay = re.findall("```yaml\n(.*?)```", self.page, re.DOTALL)
        with tempfile.TemporaryDirectory() as name:
            folder = Path(name).resolve()
            (folder / "config").mkdir()
            (folder / "config/kustomization.yaml").write_text(component)
            text = (FILES / "base/envoy.yaml").read_text().replace("address: upstream,", "address: mine,")
            (folder / "config/envoy.yaml").write_text(text)
            (folder / "kustomization.yaml").write_text(overlay.replace("../vkey", os.path.relpath(ROOT, folder)))
            made = {o["kind"]: o for o in yaml.safe_load_all(kustomize(folder)) if o["kind"] != "NetworkPolicy"}
        image = made["Deployment"]["spec"]["template"]["spec"]["containers"][0]["image"]
        self.assertEqual(image, f"registry.example/team/vkey-gate@sha256:{'1' * 64}")
        envoy = made["ConfigMap"]["data"]["envoy.yaml"]
        self.assertIn("address: mine,", envoy)
        self.assertIn("DownstreamTlsContext", envoy)
        self.assertEqual({o["metadata"]["namespace"] for o in made.values()}, {"gate"})

    def test_all_secrets_and_components_are_listed(self) -> None:
        for component in (FILES / "components").iterdir():
            self.assertIn(f"| `components/{component.name}` |", self.page)
        for variant in VARIANTS:
            volumes = [v for pod in pods(variant).values() for v in pod["spec"].get("volumes", [])]
            names = {v["secret"]["secretName"] for v in volumes if "secret" in v}
            self.assertEqual([name for name in names if f"| `{name}` |" not in self.page], [])


DNS = {"kube-system kube-dns UDP 53", "kube-system kube-dns TCP 53"}
GATE_IN, UPSTREAM_OUT, COLLECTOR_OUT = {"anyone TCP 10000"}, {"true TCP 8080"}, {"collector TCP 9470"}
LIMITS_OUT = {"limits TCP 8081"}


class Network(unittest.TestCase):
    def assert_allowed(self, variant: str, pod: str, ingress: set[str], egress: set[str]) -> None:
        policies = [o for o in objects(variant) if o["kind"] == "NetworkPolicy"]
        labels = pods(variant)[pod]["metadata"]["labels"]
        self.assertEqual(allowed(policies, labels, "ingress"), ingress, (variant, pod))
        self.assertEqual(allowed(policies, labels, "egress"), egress, (variant, pod))

    def test_only_what_is_needed_goes_in_and_out(self) -> None:
        for variant in ("base", "tls", "mtls"):
            self.assert_allowed(variant, "vkey-gate", GATE_IN, DNS | UPSTREAM_OUT)
        self.assert_allowed("collector", "vkey-gate", GATE_IN, DNS | UPSTREAM_OUT | COLLECTOR_OUT)
        self.assert_allowed("collector", "vkey-collector", {"gate TCP 9470"}, set())
        self.assert_allowed("collector", "vkey-backup", set(), set())
        self.assert_allowed("sidecar", "application", GATE_IN, DNS)
        self.assert_allowed("sidecars of all kinds", "application", GATE_IN, DNS | COLLECTOR_OUT | LIMITS_OUT)
        self.assert_allowed("cluster limits", "vkey-gate", GATE_IN, DNS | UPSTREAM_OUT | LIMITS_OUT)
        self.assert_allowed("cluster limits", "vkey-limits", {"gate TCP 8081"}, DNS | {"redis TCP 6379"})
        self.assert_allowed("cluster limits", "vkey-redis", {"limits TCP 6379"}, set())

    def test_without_the_default_other_pods_are_open(self) -> None:
        policies = [o for o in objects("collector") if o["kind"] == "NetworkPolicy"]
        policies = [p for p in policies if p["metadata"]["name"] != "vkey-default-deny"]
        self.assertIsNone(allowed(policies, pods("collector")["vkey-backup"]["metadata"]["labels"], "egress"))

    def test_the_service_takes_requests_from_the_gate_only(self) -> None:
        policies = [o for o in objects("base") if o["kind"] == "NetworkPolicy"]
        self.assertEqual(allowed(policies, {"vkey-upstream": "true"}, "ingress"), {"gate TCP 8080"})


def configuration(variant: str) -> dict[str, str]:
    """The files of /etc/envoy."""
    return one(variant, "ConfigMap", "vkey-gate")["data"]


def listener(text: str) -> tuple[Object, Object]:
    """The listener `gate` of a configuration, and its connection manager."""
    listeners = yaml.safe_load(text)["static_resources"]["listeners"]
    gate = next(each for each in listeners if each["name"] == "gate")
    return gate, gate["filter_chains"][0]["filters"][0]["typed_config"]


def without_what_differs(text: str) -> tuple[Object, Object]:
    gate, manager = listener(text)
    module = manager["http_filters"][0]["typed_config"]["config"]
    for of, name in ((gate, "address"), (manager, "route_config"), (module, "configuration")):
        del of[name]
    del module["vm_config"]["code"]
    return gate, manager


class Configuration(unittest.TestCase):
    def test_the_listener_is_that_of_the_reference(self) -> None:
        reference = without_what_differs((ROOT / "envoy.yaml").read_text())
        self.assertEqual(without_what_differs(configuration("base")["envoy.yaml"]), reference)

    def test_other_parts_are_those_of_the_reference(self) -> None:
        reference, base = (ROOT / "envoy.yaml").read_text(), configuration("base")["envoy.yaml"]
        for part in ("stats_config", "overload_manager"):
            self.assertEqual(yaml.safe_load(base)[part], yaml.safe_load(reference)[part])

    def test_each_marker_occurs_twice(self) -> None:
        text = (FILES / "base/envoy.yaml").read_text()
        markers = re.findall("#<[a-z-]+>", text)
        self.assertEqual({marker: markers.count(marker) for marker in markers}, dict.fromkeys(markers, 2))

    def test_the_admin_interface_is_on_a_loopback_address(self) -> None:
        for variant in VARIANTS:
            admin = yaml.safe_load(configuration(variant)["envoy.yaml"])["admin"]
            self.assertEqual(admin["address"]["socket_address"]["address"], "127.0.0.1")

    def test_lint_and_check_find_nothing(self) -> None:
        for variant in ("base", "cluster limits", "gates of all kinds"):
            with self.subTest(variant), tempfile.TemporaryDirectory() as name:
                file = Path(name) / "envoy.yaml"
                file.write_text(configuration(variant)["envoy.yaml"])
                self.assertIn(" 0 findings", command("tls", "lint", file))
                self.assertIn("\nok", command("config", "check", file))

    def test_sidecars_differ_in_the_upstream_only(self) -> None:
        for gate, sidecar in (("base", "sidecar"), ("gates of all kinds", "sidecars of all kinds")):
            bootstraps = [yaml.safe_load(configuration(each)["envoy.yaml"]) for each in (gate, sidecar)]
            assignments = [b["static_resources"]["clusters"][0]["load_assignment"] for b in bootstraps]
            addresses = [a["endpoints"][0]["lb_endpoints"][0]["endpoint"].pop("address") for a in assignments]
            names = [each["socket_address"]["address"] for each in addresses]
            self.assertEqual(names, ["upstream", "127.0.0.1"])
            self.assertEqual(bootstraps[0], bootstraps[1])

    def test_tls_is_mtls_without_what_is_about_clients(self) -> None:
        tls, mtls = (yaml.safe_load(configuration(each)["envoy.yaml"]) for each in ("tls", "mtls"))
        gate, ready = mtls["static_resources"]["listeners"]
        self.assertEqual(ready["name"], "ready")
        mtls["static_resources"]["listeners"] = [gate]
        chain = gate["filter_chains"][0]
        context = chain["transport_socket"]["typed_config"]
        self.assertIs(context.pop("require_client_certificate"), True)
        del context["common_tls_context"]["validation_context_sds_secret_config"]
        manager = chain["filters"][0]["typed_config"]
        del manager["http1_safe_max_connection_duration"]
        del manager["common_http_protocol_options"]["max_connection_duration"]
        self.assertEqual(tls, mtls)

    def test_the_oldest_envoy_accepts_all_components(self) -> None:
        oldest, variant = os.environ["VKEY_TEST_ENVOYS"].split(":")[0], "gates of all kinds"
        with tempfile.TemporaryDirectory() as name:
            place(variant, Path(name), {})
            arguments = [oldest, "--mode", "validate", *arguments_of_envoy(variant, Path(name))]
            done = subprocess.run(arguments, capture_output=True, text=True, env={"VKEY_MAIN_SECRET": "x"})
            self.assertEqual(done.returncode, 0, done.stderr[-2000:])


def command(*arguments: object, secret: str | None = None) -> str:
    """What the command prints."""
    environment = os.environ | ({"VKEY_MAIN_SECRET": secret} if secret else {})
    program = os.environ["VKEY_TEST_COMMAND"]
    done = subprocess.run(
        [program, *map(str, arguments)], env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, (arguments, done.returncode, done.stdout, done.stderr)
    return done.stdout


def place(variant: str, folder: Path, services: dict[str, int]) -> None:
    """Writes /etc/envoy of a pod into a folder, with paths of this machine and ports that are free. `services` are the
    ports of the upstream and the collector."""
    for name, text in configuration(variant).items():
        upstream = r"address: (upstream|127\.0\.0\.1), port_value: 8080"
        text = re.sub(upstream, f"address: 127.0.0.1, port_value: {services.get('upstream', 1)}", text)
        collector = f"address: 127.0.0.1, port_value: {services.get('collector', 1)}"
        text = text.replace("address: vkey-collector, port_value: 9470", collector)
        limits = f"address: 127.0.0.1, port_value: {services.get('limits', 1)}"
        text = text.replace("address: vkey-limits, port_value: 8081", limits)
        text = re.sub(r"address: (0\.0\.0\.0|127\.0\.0\.1), port_value: (10000|10001|9901)\b",
                      "address: 127.0.0.1, port_value: 0", text)
        text = text.replace("/etc/vkey/vkey.wasm", os.environ["VKEY_TEST_WASM"])
        text = text.replace("/etc/vkey/", f"{folder}/").replace("/etc/envoy", str(folder))
        (folder / name).write_text(text)


def wait_for(condition: Callable[[], T | None], process: subprocess.Popen[str]) -> T:
    """Polls until a condition holds."""
    end = time.monotonic() + SECONDS
    while time.monotonic() < end and process.poll() is None:
        if (value := condition()) is not None:
            return value
        time.sleep(0.02)
    raise AssertionError(f"ended with {process.poll()}, or not ready in {SECONDS} s")


@contextlib.contextmanager
def running(arguments: list[str], secret: str, log: Path) -> Iterator[subprocess.Popen[str]]:
    """A process that ends with the test."""
    with log.open("w") as file:
        environment = {"VKEY_MAIN_SECRET": secret, "PATH": os.environ["PATH"]}
        process = subprocess.Popen(arguments, env=environment, stdout=file, stderr=file, text=True)
        try:
            yield process
        finally:
            process.kill()
            process.wait()


def arguments_of_envoy(variant: str, folder: Path) -> list[str]:
    """The arguments of the container, with /etc/envoy in a folder."""
    arguments = pods(variant)["vkey-gate"]["spec"]["containers"][0]["args"]
    return [a.replace("/etc/envoy", str(folder)).replace("$(POD_NAME)", "vkey-gate-0") for a in arguments]


@contextlib.contextmanager
def envoy(variant: str, folder: Path, secret: str) -> Iterator[dict[str, int]]:
    """Envoy with the arguments of the container, and the ports of its listeners."""
    admin = folder / "admin"
    arguments = [os.environ["VKEY_TEST_ENVOY"], *arguments_of_envoy(variant, folder)]
    arguments += ["--admin-address-path", str(admin)]
    with running(arguments, secret, folder / "envoy.log") as process:
        def ports() -> dict[str, int] | None:
            if not admin.exists() or not admin.read_text():
                return None
            port = int(admin.read_text().rsplit(":", 1)[1])
            if get(port, "/ready")[1] != "LIVE\n":
                return None
            lines = get(port, "/listeners")[1].splitlines()
            return {line.split("::")[0]: int(line.rsplit(":", 1)[1]) for line in lines}
        yield wait_for(ports, process)


def get(port: int, path: str, key: str | None = None, tls: ssl.SSLContext | None = None) -> tuple[int, str]:
    """Status and body of a request."""
    if tls:
        connection = http.client.HTTPSConnection("127.0.0.1", port, timeout=SECONDS, context=tls)
    else:
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=SECONDS)
    with contextlib.closing(connection):
        connection.request("GET", path, headers={"authorization": f"Bearer {key}"} if key else {})
        response = connection.getresponse()
        return response.status, response.read().decode()


class Upstream(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        tenant = self.headers.get("x-vkey-tenant", "").encode()
        self.send_response(200)
        self.send_header("content-length", str(len(tenant)))
        self.end_headers()
        self.wfile.write(tenant)

    def log_message(self, *_: object) -> None:
        pass


@contextlib.contextmanager
def upstream() -> Iterator[int]:
    """A server that replies with the tenant that the gate names."""
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Upstream) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield server.server_address[1]
        server.shutdown()


def certificates(folder: Path) -> None:
    """An authority with an empty list of revocations, and in each of three folders a certificate of it."""
    def openssl(*arguments: object) -> None:
        subprocess.run(["openssl", *map(str, arguments)], check=True, capture_output=True, cwd=folder)

    new = ["req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", 2]
    openssl(*new, "-subj", "/CN=authority", "-addext", "keyUsage=critical,keyCertSign,cRLSign",
            "-keyout", "ca.key", "-out", "ca.crt")
    (folder / "index").touch()
    (folder / "number").write_text("01\n")
    (folder / "ca.cnf").write_text(
        "[ca]\ndefault_ca=a\n[a]\ncertificate=ca.crt\nprivate_key=ca.key\ndatabase=index\ncrlnumber=number\n"
        "default_md=sha256\ndefault_crl_days=2\n"
    )
    openssl("ca", "-config", "ca.cnf", "-gencrl", "-out", "ca.crl")
    for name in ("tls", "clients", "collector"):
        (folder / name).mkdir()
        openssl(*new, "-subj", f"/CN={name}", "-CA", "ca.crt", "-CAkey", "ca.key",
                "-addext", "subjectAltName=DNS:vkey-collector,IP:127.0.0.1", "-addext", "basicConstraints=CA:FALSE",
                "-keyout", f"{name}/tls.key", "-out", f"{name}/tls.crt")
        for file in ("ca.crt", "ca.crl"):
            (folder / name / file).write_bytes((folder / file).read_bytes())


class Run(unittest.TestCase):
    def setUp(self) -> None:
        self.folder = Path(self.enterContext(tempfile.TemporaryDirectory()))
        self.secret = command("secret", "new").strip()
        self.upstream = self.enterContext(upstream())

    def key(self, *arguments: str) -> str:
        file = self.folder / "envoy.yaml"
        return command("mint", "--config", file, "--lifetime", "1h", *arguments, secret=self.secret).strip()

    def test_a_request_needs_a_key(self) -> None:
        place("base", self.folder, {"upstream": self.upstream})
        key = self.key("--tenant", "acme")
        with envoy("base", self.folder, self.secret) as ports:
            self.assertEqual(get(ports["gate"], "/.vkey/ready")[0], 200)
            self.assertEqual(get(ports["gate"], "/v1/models")[0], 401)
            self.assertEqual(get(ports["gate"], "/v1/models", key), (200, "acme"))

    def test_without_the_module_the_seal_refuses(self) -> None:
        place("base", self.folder, {"upstream": self.upstream})
        key = self.key("--tenant", "acme")
        file = self.folder / "envoy.yaml"
        bootstrap = yaml.safe_load(file.read_text())
        gate = bootstrap["static_resources"]["listeners"][0]
        filters = gate["filter_chains"][0]["filters"][0]["typed_config"]["http_filters"]
        self.assertEqual(filters.pop(0)["name"], "envoy.filters.http.wasm")
        del bootstrap["static_resources"]["clusters"][0]["typed_extension_protocol_options"]
        file.write_text(yaml.safe_dump(bootstrap))
        with envoy("base", self.folder, self.secret) as ports:
            self.assertEqual(get(ports["gate"], "/v1/models", key), (403, "RBAC: access denied"))

    def test_a_mounted_secret_changes_without_a_restart(self) -> None:
        place("secret files", self.folder, {"upstream": self.upstream})
        file = self.folder / "envoy.yaml"
        text = file.read_text()
        self.assertEqual(text.count('"secret": "${VKEY_MAIN_SECRET}"'), 1)
        text = text.replace('"secret": "${VKEY_MAIN_SECRET}"', '"secret": {"filter_state": "vkey.secret.main"}')
        file.write_text(text)
        (self.folder / "secrets").mkdir()
        keys = [self.mounted(version) for version in ("1", "2")]
        mount(self.folder / "secrets", "1")
        for name in ("main", "next"):
            (self.folder / "secrets" / name).symlink_to(f"..data/{name}")
        with envoy("secret files", self.folder, "none") as ports:
            def statuses() -> list[int]:
                return [get(ports["gate"], "/v1/models", key)[0] for key in keys]
            self.assertEqual(statuses(), [200, 401])
            mount(self.folder / "secrets", "2")
            end = time.monotonic() + SECONDS
            while statuses() != [401, 200]:
                self.assertLess(time.monotonic(), end)
                time.sleep(0.05)

    def mounted(self, version: str) -> str:
        """Makes a version of the mounted files, and returns a key of its secret."""
        folder = self.folder / "secrets" / f"..{version}"
        folder.mkdir()
        (folder / "main").write_text(command("secret", "new"))
        (folder / "next").touch()
        config = ("--config", self.folder / "envoy.yaml", "--secret-file", folder / "main")
        return command("mint", *config, "--tenant", "acme", "--lifetime", "1h").strip()

    def test_clients_need_a_certificate_and_the_collector_has_their_records(self) -> None:
        variant = "gates of all kinds"
        certificates(self.folder)
        with collector(variant, self.folder, self.secret, self.upstream):
            key = self.key("--tenant", "acme")
            tls = ssl.create_default_context(cafile=str(self.folder / "ca.crt"))
            with envoy(variant, self.folder, self.secret) as ports:
                with self.assertRaises((ssl.SSLError, ConnectionError, http.client.RemoteDisconnected)):
                    get(ports["gate"], "/v1/models", key, tls)
                self.assertEqual(get(ports["ready"], "/.vkey/ready")[0], 200)
                self.assertEqual(get(ports["ready"], "/v1/models", key)[0], 404)
                tls.load_cert_chain(self.folder / "clients/tls.crt", self.folder / "clients/tls.key")
                self.assertEqual(get(ports["gate"], "/v1/models", key, tls), (200, "acme"))
                self.wait_for_record()
        self.back_up(variant)

    def wait_for_record(self) -> None:
        end = time.monotonic() + SECONDS
        query = ("audit", "query", "--store", self.folder / "audit.db", "--tenant", "acme", "--code", 200, "--lines")
        while '"upstream":"127.0.0.1:' not in (lines := command(*query)):
            self.assertLess(time.monotonic(), end)
            time.sleep(0.05)
        self.assertIn('"host":"vkey-gate-0"', lines)

    def back_up(self, variant: str) -> None:
        arguments = pods(variant)["vkey-backup"]["spec"]["containers"][0]["args"]
        arguments = [a.replace("/var/lib/vkey", str(self.folder)) for a in arguments]
        arguments = [a.replace("/var/backups/vkey/$(POD_NAME)", f"{self.folder}/backup") for a in arguments]
        command(*arguments)
        self.assertIn("acme", command("audit", "query", "--store", self.folder / "backup.db"))


def mount(folder: Path, version: str) -> None:
    """Replaces the files, as the kubelet does."""
    link = folder / "..data_tmp"
    link.symlink_to(f"..{version}")
    link.replace(folder / "..data")


@contextlib.contextmanager
def collector(variant: str, folder: Path, secret: str, upstream: int) -> Iterator[None]:
    """`vkey serve` with the arguments of the container. Its port is in the configuration of Envoy."""
    with http.server.HTTPServer(("127.0.0.1", 0), Upstream) as free:
        port = free.server_address[1]
    place(variant, folder, {"upstream": upstream, "collector": port})
    arguments = pods(variant)["vkey-collector"]["spec"]["containers"][0]["args"]
    for path, here in (("/etc/envoy", folder), ("/var/lib/vkey", folder), ("/etc/vkey", folder)):
        arguments = [a.replace(path, str(here)) for a in arguments]
    arguments = [a.replace("0.0.0.0:9470", f"0.0.0.0:{port}") for a in arguments]
    arguments = [os.environ["VKEY_TEST_COMMAND"], *arguments, "--listen", "127.0.0.1:0"]
    log = folder / "serve.log"
    with running(arguments, secret, log) as process:
        wait_for(lambda: True if "the page and the API are on" in log.read_text() else None, process)
        yield


if __name__ == "__main__":
    unittest.main()
