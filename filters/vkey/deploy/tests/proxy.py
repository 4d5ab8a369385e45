"""A real Envoy with listeners on free ports of the loopback interface."""

import http.client
import json
import os
import subprocess
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

VARIABLE = "VKEY_MAIN_SECRET"
MODULE = os.environ["VKEY_TEST_WASM"]
UPSTREAM = "from the upstream"
PATIENCE = 60

T = TypeVar("T")


def minted(*arguments: str) -> tuple[str, str]:
    """A new secret, and a key of the ring `main` of envoy.yaml."""
    command = os.environ["VKEY_TEST_COMMAND"]
    config = str(Path(__file__).resolve().parents[4] / "envoy.yaml")
    secret = output([command, "secret", "new"])
    words = ["mint", "--config", config, "--tenant", "acme", "--lifetime", "1h", *arguments]
    return secret, output([command, *words], secret)


def lint(config: str) -> str:
    """What `vkey tls lint` says of a configuration, e.g. of a dump."""
    with tempfile.NamedTemporaryFile("w", suffix=".json") as file:
        file.write(config)
        file.flush()
        words = [os.environ["VKEY_TEST_COMMAND"], "tls", "lint", file.name]
        return subprocess.run(words, check=False, capture_output=True, text=True).stdout


def output(words: list[str], secret: str = "") -> str:
    environment = os.environ | {VARIABLE: secret}
    return subprocess.run(words, env=environment, check=True, capture_output=True, text=True).stdout.strip()


def wait_for(what: Callable[[], T | None], explain: Callable[[], str]) -> T:
    """Asks until there is something that is not false."""
    end = time.monotonic() + PATIENCE
    while time.monotonic() < end:
        if found := what():
            return found
        time.sleep(0.02)
    raise AssertionError(f"not within {PATIENCE} s: {explain()}")


def listener(name: str, filters: list[Any], per_route: dict[str, Any] | None = None, **members: Any) -> dict[str, Any]:
    """A listener whose one route replies in the place of an upstream."""
    reply = {"status": 200, "body": {"inline_string": UPSTREAM}}
    route = {"match": {"prefix": "/"}, "direct_response": reply, "typed_per_filter_config": per_route or {}}
    kind = "envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager"
    manager = {
        "@type": f"type.googleapis.com/{kind}",
        "stat_prefix": name,
        "http_filters": filters,
        "route_config": {"virtual_hosts": [{"name": "any", "domains": ["*"], "routes": [route]}]},
    }
    chain = {"filters": [{"name": "envoy.filters.network.http_connection_manager", "typed_config": manager}]}
    address = {"socket_address": {"address": "127.0.0.1", "port_value": 0}}
    return {"name": name, "address": address, "filter_chains": [chain]} | members


ROUTER = {
    "name": "envoy.filters.http.router",
    "typed_config": {"@type": "type.googleapis.com/envoy.extensions.filters.http.router.v3.Router"},
}


class Envoy:
    """Ends with its `with` block."""

    def __init__(self, listeners: list[dict[str, Any]], secret: str) -> None:
        self.folder = tempfile.TemporaryDirectory(prefix="vkey-deploy-")
        here = Path(self.folder.name)
        self.names = [one["name"] for one in listeners]
        admin = {"address": {"socket_address": {"address": "127.0.0.1", "port_value": 0}}}
        node = {"id": "test", "cluster": "test"}
        config = {"node": node, "admin": admin, "static_resources": {"listeners": listeners}}
        (here / "envoy.json").write_text(json.dumps(config))
        self.admin_file, self.log_file = here / "admin", here / "log"
        words = [os.environ["VKEY_TEST_ENVOY"], "-c", str(here / "envoy.json"), "--use-dynamic-base-id"]
        words += ["--concurrency", "1", "--admin-address-path", str(self.admin_file), "--log-path", str(self.log_file)]
        quiet = {"stdin": subprocess.DEVNULL, "stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
        self.process = subprocess.Popen(words, env=os.environ | {VARIABLE: secret}, **quiet)

    def __enter__(self) -> "Envoy":
        try:
            self.admin = wait_for(self.admin_address, self.log)
            self.ports = wait_for(self.listening, self.log)
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        self.process.kill()
        self.process.wait()
        self.folder.cleanup()

    def log(self) -> str:
        return self.log_file.read_text() if self.log_file.exists() else ""

    def admin_address(self) -> int | None:
        self.assert_running()
        text = self.admin_file.read_text() if self.admin_file.exists() else ""
        return int(text.rpartition(":")[2]) if text else None

    def listening(self) -> dict[str, int] | None:
        """The ports of all listeners, once each is there and Envoy is live."""
        try:
            statuses = json.loads(self.ask("/listeners?format=json")).get("listener_statuses", [])
            live = self.ask("/ready").strip() == "LIVE"
        except OSError:
            return self.assert_running()
        ports = {one["name"]: one["local_address"]["socket_address"]["port_value"] for one in statuses}
        return ports if live and all(ports.get(name) for name in self.names) else None

    def assert_running(self) -> None:
        if self.process.poll() is not None:
            raise AssertionError(f"Envoy has ended: {self.log()}")

    def ask(self, path: str) -> str:
        return send(self.admin, "GET", path)[1]

    def stat(self, name: str) -> int:
        found = [line.rpartition(": ")[2] for line in self.ask("/stats").splitlines() if line.startswith(f"{name}: ")]
        return int(found[0]) if found else 0

    def get(self, name: str, key: str | None = None, path: str = "/v1/models") -> tuple[int, str]:
        return send(self.ports[name], "GET", path, key)

    def call_tool(self, name: str, key: str) -> tuple[int, str]:
        """A request that is held until its body has been read."""
        body = {"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": {"name": "find", "arguments": {}}}
        return send(self.ports[name], "POST", "/mcp", key, json.dumps(body))


def send(port: int, method: str, path: str, key: str | None = None, body: str | None = None) -> tuple[int, str]:
    """The status and the body of the reply."""
    headers = {"authorization": f"Bearer {key}"} if key else {}
    if body:
        headers |= {"content-type": "application/json", "accept": "application/json, text/event-stream"}
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=PATIENCE)
    try:
        connection.request(method, path, body, headers)
        reply = connection.getresponse()
        return reply.status, reply.read().decode()
    finally:
        connection.close()
