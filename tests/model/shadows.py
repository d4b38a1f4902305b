"""Shadows as lists of paths: the slow twin of ggfast/shadows/document.py.

A section is a table from paths to what lies there: `EMPTY` for an empty object, else a JSON value that is no object,
with the time it was set. Merging is then removing and adding rows, and the difference is a comparison of rows.
"""

from __future__ import annotations

import json
from typing import Any

EMPTY = object()
Path = tuple[str, ...]
Rows = dict[Path, tuple[Any, int]]


def rows_of(tree: dict[str, Any], now: int, path: Path = ()) -> Rows:
    """Every leaf of a patch without its nulls; objects without leaves are leaves themselves."""
    found: Rows = {}
    for key, value in tree.items():
        if isinstance(value, dict):
            below = rows_of(value, now, (*path, key))
            found |= below or {(*path, key): (EMPTY, now)}
        elif value is not None:
            found[*path, key] = (value, now)
    return found


def nulls_of(tree: dict[str, Any], path: Path = ()) -> list[Path]:
    """Every path at which a patch has null."""
    found = []
    for key, value in tree.items():
        if value is None:
            found.append((*path, key))
        elif isinstance(value, dict):
            found += nulls_of(value, (*path, key))
    return found


def objects_of(tree: dict[str, Any], path: Path = ()) -> list[Path]:
    """Every path at which a patch has an object, the section itself left out."""
    found = []
    for key, value in tree.items():
        if isinstance(value, dict):
            found += [(*path, key), *objects_of(value, (*path, key))]
    return found


def merged(rows: Rows, patch: dict[str, Any], now: int) -> Rows:
    """A section after a patch."""
    result = dict(rows)

    def drop(path: Path) -> None:
        for known in [known for known in result if known[: len(path)] == path]:
            del result[known]

    objects = objects_of(patch)
    for path in objects:  # what was no object gives way to one
        if path in result and result[path][0] is not EMPTY:
            del result[path]
    for path in nulls_of(patch):
        drop(path)
    for path, row in rows_of(patch, now).items():
        if row[0] is EMPTY and any(known[: len(path)] == path for known in result):
            continue
        drop(path)
        for length in range(1, len(path)):
            result.pop(path[:length], None)
        result[path] = row
    holders = objects + [known[:length] for known in rows for length in range(1, len(known))]
    for path in sorted(set(holders), key=len, reverse=True):  # an object whose members are gone remains, empty
        replaced = any(known == path[: len(known)] for known in result if len(known) <= len(path))
        removed = any(path[: len(null)] == null for null in nulls_of(patch))
        if not removed and not replaced and not any(known[: len(path)] == path for known in result):
            result[path] = (EMPTY, now)
    return result


def same(one: Any, other: Any) -> bool:
    """Equality of JSON values: numbers by value, booleans only to themselves."""
    return canonical(one) == canonical(other)


def canonical(value: Any) -> str:
    """A text that two values share if and only if they are equal."""
    if isinstance(value, dict):
        return "{" + ",".join(f"{json.dumps(key)}:{canonical(value[key])}" for key in sorted(value)) + "}"
    if isinstance(value, list):
        return "[" + ",".join(map(canonical, value)) + "]"
    if isinstance(value, float) and value.is_integer():
        return str(int(value))
    return json.dumps(value)


def tree_of(rows: Rows) -> dict[str, Any]:
    """The section as an object."""
    tree: dict[str, Any] = {}
    for path, (value, _) in rows.items():
        place = tree
        for key in path[:-1]:
            place = place.setdefault(key, {})
        place[path[-1]] = {} if value is EMPTY else value
    return tree


def times_of(rows: Rows) -> dict[str, Any]:
    """The section's metadata."""
    return tree_of({path: (stamped(value, at), at) for path, (value, at) in rows.items()})


def stamped(value: Any, at: int) -> Any:
    """The metadata of one leaf."""
    if value is EMPTY:
        return EMPTY
    if isinstance(value, list):
        return [stamped(entry, at) for entry in value]
    if isinstance(value, dict):
        return {key: stamped(entry, at) for key, entry in value.items()}
    return {"timestamp": at}


def difference(desired: Rows, reported: Rows) -> Rows:
    """The rows of `desired` that `reported` does not hold."""
    found = {}
    for path, row in desired.items():
        if row[0] is EMPTY:
            held = any(
                known[: len(path)] == path and (known != path or reported[known][0] is EMPTY) for known in reported
            )
        else:
            held = path in reported and reported[path][0] is not EMPTY and same(row[0], reported[path][0])
        if not held:
            found[path] = row
    return found
