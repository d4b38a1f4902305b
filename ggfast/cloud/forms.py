"""Forms of the query protocol: `Tags.member.1.Key=a` and the members they stand for."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any
from urllib.parse import unquote_to_bytes

from ggfast.cloud.faults import Fault
from ggfast.cloud.limits import FORM_FIELDS_MAX
from ggfast.cloud.shapes import DEPTH_MAX, Items, Record, Shape, Table, Wrong

_NOT_MEMBERS = ("Action", "Version")
_Tree = dict[str, Any]  # part of a dotted name -> text, or the tree below it


def read_form(body: bytes) -> dict[str, str]:
    """The fields of a form. Raises Fault for what is none, or has a name twice."""
    parts = body.split(b"&") if body else []
    if len(parts) > FORM_FIELDS_MAX:
        raise Fault("MalformedQueryString", f"The form has {len(parts)} fields, expected at most {FORM_FIELDS_MAX}.")
    fields: dict[str, str] = {}
    for part in parts:
        raw_name, _, raw_value = part.replace(b"+", b" ").partition(b"=")
        try:
            name, value = unquote_to_bytes(raw_name).decode(), unquote_to_bytes(raw_value).decode()
        except UnicodeDecodeError as error:
            raise Fault("MalformedQueryString", "The form is not UTF-8, percent-encoded.") from error
        if name in fields:
            raise Fault("MalformedQueryString", f"The form has the field '{name[:80]}' twice.")
        if name:
            fields[name] = value
    return fields


def read_members(takes: Record, fields: Mapping[str, str], *, open_members: bool) -> dict[str, Any]:
    """The members of an operation from a form's fields. Raises Wrong."""
    tree: _Tree = {}
    for name, value in fields.items():
        if name not in _NOT_MEMBERS:
            _hang(tree, name, value)
    return _record(takes, tree, "", open_members)


def _hang(tree: _Tree, name: str, value: str) -> None:
    parts = name.split(".")
    if len(parts) > DEPTH_MAX:
        raise Wrong(name[:80], f"{len(parts)} levels", f"at most {DEPTH_MAX}")
    for part in parts[:-1]:
        below = tree.setdefault(part, {})
        if not isinstance(below, dict):
            raise Wrong(name[:80], "a value and members below it", "one of them")
        tree = below
    if isinstance(tree.get(parts[-1]), dict):
        raise Wrong(name[:80], "a value and members below it", "one of them")
    tree[parts[-1]] = value


def _record(record: Record, tree: _Tree, path: str, open_members: bool) -> dict[str, Any]:
    found = {}
    for name, value in tree.items():
        at = f"{path}.{name}" if path else name
        member = record.members.get(name)
        if member is not None:
            found[name] = _value(member.shape, value, at, open_members)
        elif not (open_members or record.open):
            raise Wrong(at[:80], "an unknown member", "one of " + ", ".join(sorted(record.members)))
    return found


def _value(shape: Shape, value: Any, path: str, open_members: bool) -> Any:
    if isinstance(shape, Items):
        return _entries(shape, value, path, open_members)
    if isinstance(shape, Table):
        return _pairs(shape, value, path, open_members)
    if isinstance(shape, Record):
        if not isinstance(value, dict):
            raise shape.wrong(value, path)
        return _record(shape, value, path, open_members)
    if isinstance(value, dict):
        raise Wrong(path, "members below it", shape.expected)
    return shape.read_text(value, path)


def _entries(shape: Items, value: Any, path: str, open_members: bool) -> list[Any]:
    if value == "":  # how clients send an empty list
        return []
    if not isinstance(value, dict):
        raise shape.wrong(value, path)
    numbered = _numbered(value.get("member", value), path)
    return [_value(shape.of, entry, f"{path}.member.{number}", open_members) for number, entry in numbered]


def _pairs(shape: Table, value: Any, path: str, open_members: bool) -> dict[str, Any]:
    if value == "":
        return {}
    if not isinstance(value, dict):
        raise shape.wrong(value, path)
    found = {}
    for number, pair in _numbered(value.get("entry", value), path):
        if not isinstance(pair, dict) or not isinstance(pair.get("key"), str):
            raise Wrong(f"{path}.entry.{number}", "no key", "key and value")
        found[pair["key"]] = _value(shape.of, pair.get("value", ""), f"{path}.{pair['key']}"[:160], open_members)
    return found


def _numbered(value: Any, path: str) -> list[tuple[int, Any]]:
    if not isinstance(value, dict) or not all(key.isascii() and key.isdigit() and len(key) < 6 for key in value):
        raise Wrong(path, "a list whose entries are not numbered", f"{path}.member.1 and so on")
    return sorted((int(key), entry) for key, entry in value.items())
