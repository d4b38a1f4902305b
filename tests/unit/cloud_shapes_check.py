"""Whether a reply is what botocore's own model of a service says it is.

conforms("iot", "CreateThing", desk.call("CreateThing", thingName="a"))
"""

from __future__ import annotations

import base64
import re
from collections.abc import Mapping
from datetime import datetime
from functools import cache
from typing import Any

import botocore.session
from botocore.model import ServiceModel


@cache
def model(service: str) -> ServiceModel:
    """The model of a service by botocore's name of it: greengrass, iot, iot-data, iot-jobs-data, lambda, ..."""
    session = botocore.session.Session()
    return ServiceModel(session.get_component("data_loader").load_service_model(service, "service-2"), service)


def conforms(service: str, operation: str, members: Mapping[str, Any]) -> None:
    """Fail, naming the member, unless a reply's members are of the operation's output: all known, types right, the
    required ones there, no null (clients take null for absent, but the service sends none)."""
    shape = model(service).operation_model(operation).output_shape
    if shape is None:
        assert not members, f"{operation} answers nothing, found {sorted(members)}"
        return
    _structure(shape, members, operation, model(service).protocol)


def _walk(shape: Any, value: Any, path: str, protocol: str) -> None:
    kind = shape.type_name
    assert value is not None, f"{path} is null, expected {kind}"
    if getattr(shape, "document_type", False):
        return
    if kind == "structure":
        _structure(shape, value, path, protocol)
    elif kind == "list":
        assert isinstance(value, list | tuple), f"{path} is {value!r}, expected a list"
        for number, entry in enumerate(value):
            _walk(shape.member, entry, f"{path}[{number}]", protocol)
    elif kind == "map":
        assert isinstance(value, Mapping), f"{path} is {value!r}, expected a map"
        for name, entry in value.items():
            _walk(shape.key, name, f"a key of {path}", protocol)
            _walk(shape.value, entry, f"{path}.{name}", protocol)
    else:
        _scalar(shape, value, path)


def _structure(shape: Any, value: Any, path: str, protocol: str) -> None:
    assert isinstance(value, Mapping), f"{path} is {value!r}, expected an object"
    wire = {}
    for name, member in shape.members.items():
        plain = protocol in ("query", "ec2") or member.serialization.get("location") in ("header", "statusCode")
        wire[name if plain else member.serialization.get("name", name)] = member
        if name in shape.required_members:
            known = name if plain else member.serialization.get("name", name)
            assert known in value, f"{path} has no {known}"
    for name, entry in value.items():
        assert name in wire, f"{path}.{name} is not in the model, which has {sorted(wire)}"
        _walk(wire[name], entry, f"{path}.{name}", protocol)


def _scalar(shape: Any, value: Any, path: str) -> None:
    kind = shape.type_name
    if kind == "boolean":
        right = isinstance(value, bool)
    elif kind in ("integer", "long"):
        right = isinstance(value, int) and not isinstance(value, bool)
    elif kind in ("double", "float"):
        right = isinstance(value, int | float) and not isinstance(value, bool)
    elif kind == "timestamp":
        right = _is_time(value)
    elif kind == "blob":
        right = isinstance(value, bytes) or (
            isinstance(value, str) and bool(base64.b64decode(value, validate=True) or 1)
        )
    else:
        right = isinstance(value, str)
    assert right, f"{path} is {value!r}, expected {kind}"
    if kind == "string":
        if shape.enum:
            assert value in shape.enum, f"{path} is {value!r}, expected one of {shape.enum}"
        least, most = shape.metadata.get("min", 0), shape.metadata.get("max")
        assert len(value) >= least and (most is None or len(value) <= most), f"{path} has {len(value)} characters"
        pattern = shape.metadata.get("pattern")
        if pattern and "\\p{" not in pattern:
            assert re.fullmatch(pattern, value), f"{path} is {value!r}, expected {pattern}"


def _is_time(value: Any) -> bool:
    if isinstance(value, int | float):
        return not isinstance(value, bool)
    try:
        return isinstance(value, str) and datetime.fromisoformat(value).tzinfo is not None
    except ValueError:
        return False
