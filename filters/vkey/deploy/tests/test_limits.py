"""Limits of the whole cluster: two gates, a rate-limit service, and a real Redis."""

import contextlib
import http.client
import http.server
import json
import os
import re
import signal
import subprocess
import tempfile
import threading
import time
import unittest
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import yaml
from crds import DEPLOY
from ratelimit import RateLimit
from test_kubernetes import FILES, SECONDS, command, envoy, place, running, wait_for

VARIANT = "cluster limits"
LIMIT, THREADS = 50, 8
Reply = tuple[int, dict[str, str], str]


class Redis:
    """A Redis with the settings of the component, which may be killed."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.socket = folder, folder / "redis.sock"
        settings = (FILES / "components/cluster-limits/redis.conf").read_text()
        settings = settings.replace("dir /data", f"dir {folder}").replace("everysec", "always")
        (folder / "redis.conf").write_text(settings + f"port 0\nunixsocket {self.socket}\n")
        self.start()

    def start(self) -> None:
        self.socket.unlink(missing_ok=True)
        words = ["redis-server", str(self.folder / "redis.conf")]
        self.process = subprocess.Popen(words, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, text=True)
        wait_for(lambda: True if self.socket.exists() else None, self.process)

    def kill(self) -> None:
        self.process.send_signal(signal.SIGKILL)
        self.process.wait()

    def __enter__(self) -> "Redis":
        return self

    def __exit__(self, *_: object) -> None:
        self.kill()


class Model(http.server.BaseHTTPRequestHandler):
    """An AI service: each answer costs 30 tokens."""

    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        self.reply(b"{}")

    def do_POST(self) -> None:
        asked = json.loads(self.rfile.read(int(self.headers["content-length"])))
        if asked.get("stream"):
            return self.stream()
        usage = {"prompt_tokens": 10, "completion_tokens": 20, "total_tokens": 30}
        self.reply(json.dumps({"model": "m", "choices": [], "usage": usage}).encode())

    def stream(self) -> None:
        """Begins an answer that does not end."""
        self.send_response(200)
        self.send_header("content-type", "text/event-stream")
        self.end_headers()
        self.close_connection = True
        with contextlib.suppress(OSError):
            self.wfile.write(b'data: {"choices": [{"index": 0, "delta": {"content": "Once"}}]}\n\n')
            self.connection.recv(1)

    def reply(self, body: bytes) -> None:
        self.send_response(200)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        pass


@contextlib.contextmanager
def model() -> Iterator[int]:
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Model) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield server.server_address[1]
        server.shutdown()


def ask(port: int, key: str, path: str = "/v1/models", body: Any = None) -> Reply:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=SECONDS)
    with contextlib.closing(connection):
        headers = {"authorization": f"Bearer {key}", "content-type": "application/json"}
        text = None if body is None else json.dumps(body)
        connection.request("GET" if body is None else "POST", path, text, headers)
        reply = connection.getresponse()
        return reply.status, {name.lower(): value for name, value in reply.getheaders()}, reply.read().decode()


def error(reply: Reply) -> str:
    return str(json.loads(reply[2])["error"]["code"])


def limits(**most: int) -> list[dict[str, Any]]:
    """The descriptors of the component with other amounts, for a day. No test lasts from one day into the next."""
    descriptors = yaml.safe_load((FILES / "components/cluster-limits/ratelimit.yaml").read_text())["descriptors"]
    descriptors.append({"key": "tenant_tokens"})
    for entry in (*descriptors, *descriptors[0]["descriptors"]):
        entry["rate_limit"] = {"unit": "day", "requests_per_unit": most.get(entry["key"], 10**9)}
    return list(descriptors)


class Cluster(unittest.TestCase):
    """Two gates that share their limits."""

    more = '"limits": {"cluster": true}, '

    def setUp(self) -> None:
        self.folder = Path(self.enterContext(tempfile.TemporaryDirectory()))
        self.secret = command("secret", "new").strip()
        self.model = self.enterContext(model())
        self.redis = self.enterContext(Redis(self.folder))

    def serve(self, **most: int) -> RateLimit:
        file = self.folder / "ratelimit.yaml"
        file.write_text(yaml.safe_dump({"domain": "vkey", "descriptors": limits(**most)}))
        return RateLimit(file, self.redis.socket)

    def gates(self, port: int) -> list[int]:
        """The ports of the gates, which ask the service on this port."""
        return [self.gate(name, port) for name in ("a", "b")]

    def gate(self, name: str, port: int) -> int:
        folder = self.folder / name
        folder.mkdir()
        place(VARIANT, folder, {"upstream": self.model, "limits": port})
        file = folder / "envoy.yaml"
        file.write_text(self.edited(file.read_text()))
        return self.enterContext(envoy(VARIANT, folder, self.secret))["gate"]

    def edited(self, text: str) -> str:
        """The configuration in which only the limits of the cluster refuse a good key."""
        text = re.sub(r'"default": \{.*?\]\},\n', '"default": {},\n', text, flags=re.DOTALL)
        return text.replace('"auth_failures"', f'{self.more}"auth_failures"')

    def key(self, *arguments: str) -> str:
        config = ("--config", self.folder / "a/envoy.yaml", "--lifetime", "1h", "--tenant", "acme")
        return command("mint", *config, *arguments, secret=self.secret).strip()

    def counts(self, port: int, key: str) -> dict[str, int]:
        return dict(json.loads(ask(port, key, "/.vkey/usage")[2]))

    def lines(self) -> Counter[tuple[str, str | None]]:
        """The decisions and reasons of all requests so far, but those for usage."""
        found: Counter[tuple[str, str | None]] = Counter()
        for name in ("a", "b"):
            for line in (self.folder / name / "envoy.log").read_text().splitlines():
                if line.startswith('{"vkey"') and (record := json.loads(line)).get("path") != "/.vkey/usage":
                    found[record.get("decision"), record.get("reason")] += 1
        return found

    def counts_of_both(self, gates: list[int], key: str) -> tuple[int, int]:
        """How many requests both have counted as allowed, and as limited."""
        both = [self.counts(gate, key) for gate in gates]
        return sum(each["allowed"] for each in both), sum(each["denied"]["limited"] for each in both)


def settled(count: Callable[[], Any], expected: Any) -> None:
    end = time.monotonic() + SECONDS
    while (found := count()) != expected:
        assert time.monotonic() < end, (found, expected)
        time.sleep(0.05)


class Requests(Cluster):
    def test_two_gates_let_through_what_the_limit_of_a_key_says(self) -> None:
        with self.serve(key=LIMIT) as service:
            gates, sent = self.gates(service.port), 3 * LIMIT
            key, other = self.key("--jti", "k1"), self.key("--jti", "k2")
            with ThreadPoolExecutor(THREADS) as threads:
                replies = list(threads.map(lambda n: ask(gates[n % 2], key), range(sent)))
            passed, refused = ([r for r in replies if r[0] == status] for status in (200, 429))
            self.assertEqual((len(passed), len(refused)), (LIMIT, sent - LIMIT))
            self.assertEqual({error(r) for r in refused}, {"cluster_rate"})
            for _, headers, _ in refused:
                self.assertTrue(0 < int(headers["retry-after"]) <= 86400)
                self.assertEqual((headers["content-type"], headers["x-should-retry"]), ("application/json", "false"))
                self.assertNotIn("ratelimit", headers)
            self.assertEqual(ask(gates[0], other)[0], 200)
            # What was refused is charged to nobody, and counted as refused.
            self.assertEqual(self.counts_of_both(gates, key), (LIMIT, sent - LIMIT))
            expected = {("allow", None): LIMIT + 1, ("deny", "cluster_rate"): sent - LIMIT}
            settled(lambda: dict(self.lines()), expected)
            self.assertEqual(service.used(("tenant", "acme"), ("key", "k1")), sent)
            # It is charged for what its key had no room for only while requests at once reach the limit.
            self.assertIn(service.used(("tenant", "acme")) - LIMIT - 1, range(THREADS))

    def test_nothing_is_asked_for_a_request_that_the_gate_refuses(self) -> None:
        with self.serve() as service:
            gate = self.gates(service.port)[0]
            self.assertEqual(ask(gate, "vk1.nothing")[0], 401)
            denied = self.key("--only", '{"paths": ["/v1/other"]}')
            self.assertEqual(ask(gate, denied)[0], 403)
            self.assertEqual(service.calls, [])
            self.assertEqual(ask(gate, self.key("--jti", "k3"))[0], 200)
            [call] = service.calls
            entries = [[(entry.key, entry.value) for entry in d.entries] for d in call.descriptors]
            acme = ("tenant", "acme")
            self.assertEqual(entries, [[acme], [acme, ("key", "k3")]])

    def test_without_redis_nothing_passes_and_its_counts_stay(self) -> None:
        with self.serve(tenant=LIMIT) as service:
            gates = self.gates(service.port)
            key = self.key()
            for n in range(LIMIT - 1):
                self.assertEqual(ask(gates[n % 2], key)[0], 200)
            self.redis.kill()
            for gate in gates * 3:
                reply = ask(gate, key)
                self.assertEqual((reply[0], error(reply)), (503, "cluster_unknown"))
            self.redis.start()
            replies = [ask(gate, key)[0] for gate in gates * 3]
            self.assertEqual(replies, [200] + [429] * 5)
            both = [self.counts(gate, key) for gate in gates]
            self.assertEqual(sum(each["allowed"] for each in both), LIMIT)
            self.assertEqual(sum(each["denied"]["unavailable"] for each in both), 6)

    def test_without_the_service_nothing_passes(self) -> None:
        with self.serve() as service:
            gates = self.gates(service.port)
            key = self.key()
            self.assertEqual(ask(gates[0], key)[0], 200)
        for gate in gates:
            reply = ask(gate, key)
            self.assertEqual((reply[0], error(reply)), (503, "cluster_unknown"))


class Tokens(Cluster):
    more = '"limits": {"cluster": true}, "llm": {"audit_tokens": true}, '
    path = "/v1/chat/completions"
    body: dict[str, Any] = {"model": "m", "max_tokens": 20, "messages": []}

    def edited(self, text: str) -> str:
        bootstrap = yaml.safe_load(super().edited(text))
        gate = next(one for one in bootstrap["static_resources"]["listeners"] if one["name"] == "gate")
        filters = gate["filter_chains"][0]["filters"][0]["typed_config"]["http_filters"]
        limits = next(one for one in filters if one["name"] == "vkey.cluster_limits")["typed_config"]
        limits["rate_limits"] += yaml.safe_load((DEPLOY / "limits/tokens.yaml").read_text())
        return yaml.safe_dump(bootstrap)

    def test_tokens_are_counted_when_they_are_known(self) -> None:
        with self.serve(tenant_tokens=100) as service:
            gates = self.gates(service.port)
            key = self.key()
            for n in range(4):
                self.assertEqual(ask(gates[n % 2], key, self.path, self.body)[0], 200)
                settled(lambda n=n: service.used(("tenant_tokens", "acme")), 30 * (n + 1))
            reply = ask(gates[0], key, self.path, self.body)
            self.assertEqual((reply[0], error(reply)), (429, "cluster_rate"))
            self.assertEqual(service.used(("tenant_tokens", "acme")), 120)

    def test_a_client_that_leaves_is_counted_too(self) -> None:
        with self.serve() as service:
            gate = self.gates(service.port)[0]
            connection = http.client.HTTPConnection("127.0.0.1", gate, timeout=SECONDS)
            headers = {"authorization": f"Bearer {self.key()}", "content-type": "application/json"}
            connection.request("POST", self.path, json.dumps(self.body | {"stream": True}), headers)
            self.assertIn(b"Once", connection.getresponse().read1())
            self.assertEqual(service.used(("tenant_tokens", "acme")), 0)
            connection.close()
            settled(lambda: service.used(("tenant_tokens", "acme")) > 0, True)


@unittest.skipUnless("VKEY_TEST_LIMITADOR" in os.environ, "make test-limitador has it")
class Limitador(Cluster):
    """Limitador's library as the service."""

    def service(self) -> int:
        limits = yaml.safe_load((DEPLOY / "limits/limitador.yaml").read_text())
        most = {"tenant": 10**9, "key": LIMIT}
        file = self.folder / "limitador.yaml"
        file.write_text(yaml.safe_dump([one | {"max_value": most[one["name"]], "seconds": 86400} for one in limits]))
        log = self.folder / "limitador.log"
        words = [os.environ["VKEY_TEST_LIMITADOR"], str(file)]
        self.process = self.enterContext(running(words, self.secret, log))
        return wait_for(lambda: int(port) if (port := log.read_text().strip()).isdigit() else None, self.process)

    def test_two_gates_let_through_what_the_limit_of_a_key_says(self) -> None:
        gates = self.gates(self.service())
        key = self.key()
        replies = [ask(gates[n % 2], key) for n in range(2 * LIMIT)]
        self.assertEqual([reply[0] for reply in replies], [200] * LIMIT + [429] * LIMIT)
        self.assertEqual({error(reply) for reply in replies[LIMIT:]}, {"cluster_rate"})
        self.assertGreater(int(replies[-1][1]["retry-after"]), 0)
        self.assertEqual(self.counts_of_both(gates, key), (LIMIT, LIMIT))

    def test_requests_at_once_pass_the_limit_by_fewer_than_there_are(self) -> None:
        gates = self.gates(self.service())
        key = self.key()
        with ThreadPoolExecutor(THREADS) as threads:
            statuses = Counter(threads.map(lambda n: ask(gates[n % 2], key)[0], range(3 * LIMIT)))
        self.assertEqual(statuses.keys(), {200, 429})
        self.assertLess(statuses[200], LIMIT + THREADS)
        self.assertEqual(self.counts_of_both(gates, key), (statuses[200], statuses[429]))

    def test_without_the_service_nothing_passes(self) -> None:
        gates = self.gates(self.service())
        key = self.key()
        self.assertEqual([ask(gate, key)[0] for gate in gates], [200, 200])
        self.process.kill()
        self.process.wait()
        for gate in gates * 3:
            reply = ask(gate, key)
            self.assertEqual((reply[0], error(reply)), (503, "cluster_unknown"))


if __name__ == "__main__":
    unittest.main()
