"""Messages of Envoy, read as Envoy reads them: an unknown member or type is an error."""

import importlib
import pkgutil
from collections.abc import Iterator
from functools import cache
from typing import Any

from google.protobuf import descriptor_pool, json_format, message_factory
from google.protobuf.message import Message

# What the `value` of a patch of an EnvoyFilter is.
PATCHED = {
    "CLUSTER": "envoy.config.cluster.v3.Cluster",
    "EXTENSION_CONFIG": "envoy.config.core.v3.TypedExtensionConfig",
    "HTTP_FILTER": "envoy.extensions.filters.network.http_connection_manager.v3.HttpFilter",
    "LISTENER": "envoy.config.listener.v3.Listener",
    "NETWORK_FILTER": "envoy.config.listener.v3.Filter",
}


def parse(name: str, value: dict[str, Any]) -> Message:
    """A message of this name. Raises `json_format.ParseError`."""
    for one in {name, *types(value)}:
        load(one.rpartition(".")[0])
    described = descriptor_pool.Default().FindMessageTypeByName(name)
    return json_format.ParseDict(value, message_factory.GetMessageClass(described)())


def types(value: Any) -> Iterator[str]:
    """The names of all messages in an `Any`."""
    if isinstance(value, dict):
        if "@type" in value:
            yield value["@type"].rpartition("/")[2]
        value = list(value.values())
    if isinstance(value, list):
        for one in value:
            yield from types(one)


@cache
def load(package: str) -> None:
    """Makes the messages of a package known."""
    try:
        folder = importlib.import_module(package)
    except ModuleNotFoundError:
        return
    for module in pkgutil.iter_modules(folder.__path__):
        if module.name.endswith("_pb2"):
            importlib.import_module(f"{package}.{module.name}")
