"""A rate-limit service that counts as envoyproxy/ratelimit does, which cannot be installed by a package manager: it adds
in Redis first and compares then, reads its limits from the same file, and takes the addend of each descriptor."""

import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import grpc
import redis
import yaml
from envoy.service.ratelimit.v3 import rls_pb2, rls_pb2_grpc

SECONDS = {"second": 1, "minute": 60, "hour": 3600, "day": 86400}
OK, OVER_LIMIT = rls_pb2.RateLimitResponse.OK, rls_pb2.RateLimitResponse.OVER_LIMIT
Limit = dict[str, Any]


class RateLimit(rls_pb2_grpc.RateLimitServiceServicer):
    """Ends with its `with` block."""

    def __init__(self, limits: Path, socket: Path) -> None:
        file = yaml.safe_load(limits.read_text())
        self.domain, self.descriptors = file["domain"], file["descriptors"]
        self.redis = redis.Redis(unix_socket_path=str(socket))
        self.calls: list[rls_pb2.RateLimitRequest] = []
        self.server = grpc.server(ThreadPoolExecutor(32), options=[("grpc.so_reuseport", 0)])
        rls_pb2_grpc.add_RateLimitServiceServicer_to_server(self, self.server)
        self.port = self.server.add_insecure_port("127.0.0.1:0")

    def __enter__(self) -> "RateLimit":
        self.server.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.server.stop(None).wait()
        self.redis.close()

    def ShouldRateLimit(self, request: Any, context: grpc.ServicerContext) -> Any:  # noqa: N802
        self.calls.append(request)
        assert request.domain == self.domain
        found = [(d, limit) for d in request.descriptors if (limit := find(self.descriptors, list(d.entries)))]
        now = int(time.time())
        names = [name(d, limit, now) for d, limit in found]
        added = [d.hits_addend.value if d.HasField("hits_addend") else 1 for d, _ in found]
        allowed = [limit["requests_per_unit"] for _, limit in found]
        try:
            before = [int(used or 0) for used in self.redis.mget(names)] if names else []
            # STOP_CACHE_KEY_INCREMENT_WHEN_OVERLIMIT: only the first that has no room is charged.
            full = [used + addend > most for used, addend, most in zip(before, added, allowed, strict=True)]
            if any(full):
                added = [addend if at == full.index(True) else 0 for at, addend in enumerate(added)]
            after = self.add(names, added, [limit["unit"] for _, limit in found])
        except redis.RedisError as error:
            context.abort(grpc.StatusCode.UNKNOWN, str(error))
        statuses = [status(limit, used, now) for (_, limit), used in zip(found, after, strict=True)]
        over = any(each.code == OVER_LIMIT for each in statuses)
        return rls_pb2.RateLimitResponse(overall_code=OVER_LIMIT if over else OK, statuses=statuses)

    def add(self, names: list[str], added: list[int], units: list[str]) -> list[int]:
        pipeline = self.redis.pipeline(transaction=False)
        for key, addend, unit in zip(names, added, units, strict=True):
            pipeline.incrby(key, addend)
            pipeline.expire(key, SECONDS[unit])
        return [int(result) for result in pipeline.execute()[::2]]

    def used(self, *entries: tuple[str, str]) -> int:
        """What is counted today under these entries."""
        pattern = "_".join([self.domain, *(part for entry in entries for part in entry), "[0-9]*"])
        return sum(int(self.redis.get(key) or 0) for key in self.redis.scan_iter(pattern))


def find(descriptors: list[Limit], entries: list[Any]) -> Limit | None:
    """The limit of a descriptor: the entry with its value comes before one for every value."""
    entry, *rest = entries
    for value in (entry.value, None):
        for each in descriptors:
            if each["key"] == entry.key and each.get("value") == value:
                return find(each.get("descriptors", []), rest) if rest else each.get("rate_limit")
    return None


def name(descriptor: Any, limit: Limit, now: int) -> str:
    entries = "_".join(f"{entry.key}_{entry.value}" for entry in descriptor.entries)
    divider = SECONDS[limit["unit"]]
    return f"vkey_{entries}_{now // divider * divider}"


def status(limit: Limit, used: int, now: int) -> Any:
    divider = SECONDS[limit["unit"]]
    each = rls_pb2.RateLimitResponse.DescriptorStatus(
        code=OVER_LIMIT if used > limit["requests_per_unit"] else OK,
        current_limit={"requests_per_unit": limit["requests_per_unit"]},
        limit_remaining=max(0, limit["requests_per_unit"] - used),
    )
    each.current_limit.unit = rls_pb2.RateLimitResponse.RateLimit.Unit.Value(limit["unit"].upper())
    each.duration_until_reset.seconds = divider - now % divider
    return each
