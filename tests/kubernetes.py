"""Manifests against the types of Kubernetes' own API description, as its Python client has them."""

import re
from collections.abc import Iterator
from typing import Any

PLAIN: dict[str, type | tuple[type, ...]] = {"str": str, "int": int, "bool": bool, "float": (int, float)}
ANY = {"object", "datetime"}  # an int or a string, as a port may be, is an object there
QUANTITIES = (".limits", ".requests")  # 2Gi, and 1 as well


def faults(manifest: dict[str, Any]) -> Iterator[str]:
    """Each field of a manifest that its kind does not have, lacks, or has with another type."""
    from kubernetes_asyncio import client

    group, _, version = manifest["apiVersion"].rpartition("/")
    assert version == "v1", group
    place = f"{manifest['kind']} {manifest['metadata'].get('name', '')}"
    yield from _faults(client, f"V1{manifest['kind']}", manifest, place)


def _faults(client: Any, kind: str, value: Any, place: str) -> Iterator[str]:
    if value is None or kind in ANY:
        return
    if inner := re.fullmatch(r"list\[(.+)\]", kind):
        if not isinstance(value, list):
            yield f"{place}: {type(value).__name__}, not {kind}"
            return
        for index, each in enumerate(value):
            yield from _faults(client, inner[1], each, f"{place}[{index}]")
    elif inner := re.fullmatch(r"dict[\[(]str, (.+)[\])]", kind):
        if not isinstance(value, dict):
            yield f"{place}: {type(value).__name__}, not {kind}"
            return
        if not place.endswith(QUANTITIES):
            for name, each in value.items():
                yield from _faults(client, inner[1], each, f"{place}.{name}")
    elif kind in PLAIN:
        if not isinstance(value, PLAIN[kind]) or (kind == "int" and isinstance(value, bool)):
            yield f"{place}: {type(value).__name__}, not {kind}"
    else:
        yield from _faults_of_a_model(client, getattr(client, kind), value, place)


def _faults_of_a_model(client: Any, model: Any, value: Any, place: str) -> Iterator[str]:
    if not isinstance(value, dict):
        yield f"{place}: {type(value).__name__}, not {model.__name__}"
        return
    ours = {theirs: name for name, theirs in model.attribute_map.items()}
    for name in value.keys() - ours.keys():
        yield f"{place}: no field {name}"
    for name, theirs in model.attribute_map.items():
        if theirs not in value and _is_required(client, model, name):
            yield f"{place}: {theirs} is missing"
    for name in value.keys() & ours.keys():
        yield from _faults(client, model.openapi_types[ours[name]], value[name], f"{place}.{name}")


def _is_required(client: Any, model: Any, name: str) -> bool:
    """Its setter refuses None."""
    strict = client.Configuration()
    strict.client_side_validation = True
    made = object.__new__(model)
    made.local_vars_configuration = strict
    try:
        setattr(made, name, None)
    except ValueError:
        return True
    return False
