"""Objects of Kubernetes against the CRDs of their kinds: the schemas, and the rules in CEL."""

import copy
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import cel
import jsonschema
import yaml

DEPLOY = Path(__file__).resolve().parents[1]
ROOT = DEPLOY.parents[2]

# What Kubernetes adds to CEL for URLs. A method is a function whose first argument is the value before the dot.
LIBRARY: dict[str, Callable[..., Any]] = {
    "isURL": lambda text: bool(urlsplit(text).scheme and urlsplit(text).netloc),
    "url": lambda text: text,
    "getScheme": lambda text: urlsplit(text).scheme,
}


def documents(file: str) -> list[dict[str, Any]]:
    """The objects in a file of the folder `deploy`."""
    return [one for one in yaml.safe_load_all((DEPLOY / file).read_text()) if one]


def document(file: str, kind: str) -> dict[str, Any]:
    """The one object of a kind in a file."""
    (found,) = (one for one in documents(file) if one["kind"] == kind)
    return found


@cache
def schemas() -> dict[tuple[str, str], dict[str, Any]]:
    """The schemas by apiVersion and kind, with what every object has."""
    found = {}
    for file in sorted((ROOT / "testdata/crds").glob("*.yaml")):
        spec = yaml.safe_load(file.read_text())["spec"]
        for version in spec["versions"]:
            schema = version["schema"]["openAPIV3Schema"]
            close(schema)
            schema["properties"] |= {
                "apiVersion": {"type": "string"},
                "kind": {"type": "string"},
                "metadata": {"type": "object", "required": ["name"]},
            }
            schema["required"] = ["apiVersion", "kind", "metadata", "spec"]
            found[f"{spec['group']}/{version['name']}", spec["names"]["kind"]] = schema
    return found


def close(schema: Any) -> None:
    """Refuses unknown members: an API server may drop them in silence."""
    if isinstance(schema, list):
        for one in schema:
            close(one)
    elif isinstance(schema, dict):
        for one in schema.values():
            close(one)
        if isinstance(schema.get("properties"), dict) and not schema.get("x-kubernetes-preserve-unknown-fields"):
            schema.setdefault("additionalProperties", False)


def faults(value: dict[str, Any]) -> list[str]:
    """What is wrong with an object, one line each."""
    schema = schemas().get((value["apiVersion"], value["kind"]))
    if schema is None:
        return [f"no CRD for {value['kind']} of {value['apiVersion']}"]
    errors = jsonschema.Draft202012Validator(schema).iter_errors(value)
    found = [f"{error.json_path}: {error.message}" for error in errors]
    return found or [f"{place}: {rule}" for place, rule in broken_rules(schema, value, "$")]


def broken_rules(schema: dict[str, Any], value: Any, place: str) -> Iterator[tuple[str, str]]:
    """The rules that do not hold for a value or for a part of it. A rule that cannot be evaluated does not hold."""
    for rule in schema.get("x-kubernetes-validations", []):
        if not holds(rule["rule"], value):
            yield place, rule["rule"]
    if isinstance(value, dict):
        for name, member in value.items():
            inner = schema.get("properties", {}).get(name, schema.get("additionalProperties"))
            if isinstance(inner, dict):
                yield from broken_rules(inner, member, f"{place}.{name}")
    elif isinstance(value, list):
        for index, item in enumerate(value):
            yield from broken_rules(schema.get("items", {}), item, f"{place}[{index}]")


def holds(rule: str, value: Any) -> bool:
    try:
        return cel.evaluate(rule, {"self": value} | LIBRARY) is True
    except (RuntimeError, TypeError, ValueError):
        return False


def changed(good: dict[str, Any], way: str, value: object) -> dict[str, Any]:
    """An object with another value at a place of its `spec`, whose steps are joined by dots."""
    broken = copy.deepcopy(good)
    place: Any = broken["spec"]
    *steps, last = (int(step) if step.isdigit() else step for step in way.split("."))
    for step in steps:
        place = place[step]
    place[last] = value
    return broken
