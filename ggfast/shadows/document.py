"""One shadow as a value, and the rules of its state: merging, metadata, difference (greengrass-core 9.3).

What the references leave open is decided here:

- numbers are equal by value (1 and 1.0 are), but true is not 1; numbers beyond 64 bits become floating point, those
  beyond its range, NaN and Infinity are invalid JSON; of duplicate keys the last counts;
- an object that is sent is merged even when it is empty, so `{}` is a value inside a section; an empty section is as
  good as none;
- metadata has the shape of the state, with `{"timestamp": seconds}` for every value that is no object and no array.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Final

import orjson

from ggfast.errors import PeerError
from ggfast.limits import SHADOW_DEPTH_MAX, SHADOW_STATE_BYTES_MAX

Json = Any
Tree = dict[str, Any]

SECTIONS: Final = ("desired", "reported")


class ShadowRefused(PeerError):
    """A request that is answered on `.../rejected`: `code` and `text` as the service words them (greengrass-core 9.4).

    `token` is the request's clientToken if it could be read, "" if not.
    """

    def __init__(self, code: int, text: str, token: str = "") -> None:
        super().__init__(text)
        self.code = code
        self.text = text
        self.token = token


@dataclass(frozen=True, slots=True)
class Shadow:
    """A shadow at one version. Its trees are never changed: an update makes new ones.

    `version` 0 and nothing in it: there is none yet. `timestamp` is when it was last changed, in seconds since 1970.
    """

    desired: Tree = field(default_factory=dict)
    reported: Tree = field(default_factory=dict)
    desired_metadata: Tree = field(default_factory=dict)
    reported_metadata: Tree = field(default_factory=dict)
    version: int = 0
    timestamp: int = 0

    def state(self) -> Tree:
        """The sections that hold anything."""
        return _without_empty(desired=self.desired, reported=self.reported)

    def metadata(self) -> Tree:
        """When each value of `state` was set."""
        return _without_empty(desired=self.desired_metadata, reported=self.reported_metadata)

    def delta(self) -> tuple[Tree, Tree]:
        """What is desired and not reported, and when it was desired; two empty trees if nothing is."""
        return difference(self.desired, self.reported, self.desired_metadata)

    def updated(self, sections: Tree, now: int) -> Shadow:
        """The next version, after `sections` ("desired", "reported": tree or None) were merged.

        Raises ShadowRefused for a state that would be too large; sections were checked by `check_section`.
        """
        trees: dict[str, Tree] = {}
        for name in SECTIONS:
            state, metadata = getattr(self, name), getattr(self, f"{name}_metadata")
            if name in sections:
                state, metadata = ({}, {}) if sections[name] is None else merged(state, metadata, sections[name], now)
            trees[name], trees[f"{name}_metadata"] = state, metadata
        shadow = Shadow(**trees, version=self.version + 1, timestamp=now)
        if len(orjson.dumps(shadow.state())) > SHADOW_STATE_BYTES_MAX:
            raise ShadowRefused(413, "The payload exceeds the maximum size allowed")
        return shadow


def merged(state: Tree, metadata: Tree, patch: Tree, now: int) -> tuple[Tree, Tree]:
    """State and metadata after a patch: objects merge, null removes, everything else replaces."""
    new_state, new_metadata = dict(state), dict(metadata)
    for key, value in patch.items():
        if value is None:
            new_state.pop(key, None)
            new_metadata.pop(key, None)
        elif isinstance(value, dict):
            below, stamps = new_state.get(key), new_metadata.get(key)
            if not isinstance(below, dict) or not isinstance(stamps, dict):
                below, stamps = {}, {}
            new_state[key], new_metadata[key] = merged(below, stamps, value, now)
        else:
            new_state[key], new_metadata[key] = value, stamped(value, now)
    return new_state, new_metadata


def stamped(value: Json, now: int) -> Json:
    """The metadata of a value; members that are null have none."""
    if isinstance(value, dict):
        return {key: stamped(entry, now) for key, entry in value.items() if entry is not None}
    if isinstance(value, list):
        return [stamped(entry, now) for entry in value]
    return {"timestamp": now}


def difference(desired: Tree, reported: Tree, metadata: Tree) -> tuple[Tree, Tree]:
    """The members of `desired` that `reported` lacks or has otherwise, with their metadata.

    Objects are compared member by member, arrays as a whole.
    """
    state: Tree = {}
    stamps: Tree = {}
    for key, wanted in desired.items():
        found = reported.get(key)
        if isinstance(wanted, dict) and isinstance(found, dict):
            below, below_stamps = difference(wanted, found, metadata[key])
            if below:
                state[key], stamps[key] = below, below_stamps
        elif key not in reported or not same(wanted, found):
            state[key], stamps[key] = wanted, metadata[key]
    return state, stamps


def same(one: Json, other: Json) -> bool:
    """Whether two JSON values are equal."""
    if isinstance(one, bool) or isinstance(other, bool):
        return one is other
    if isinstance(one, dict) and isinstance(other, dict):
        return one.keys() == other.keys() and all(same(value, other[key]) for key, value in one.items())
    if isinstance(one, list) and isinstance(other, list):
        return len(one) == len(other) and all(map(same, one, other))
    return bool(one == other)


def check_section(name: str, section: Json) -> None:
    """Raise ShadowRefused unless `section` may be merged: an object of bounded depth, or None; no null in arrays."""
    if section is None:
        return
    if not isinstance(section, dict):
        raise ShadowRefused(400, f"{name.capitalize()} contains invalid type; expected object")
    check_depth(section)
    if _null_in_array(section, in_array=False):
        raise ShadowRefused(400, "State contains an invalid node: null in an array")


def check_depth(section: Json) -> None:
    """Raise ShadowRefused if values lie more than SHADOW_DEPTH_MAX levels below the section."""
    if _deeper(section, SHADOW_DEPTH_MAX):
        raise ShadowRefused(400, f"JSON contains too many levels of nesting; maximum is {SHADOW_DEPTH_MAX}")


def _deeper(value: Json, levels: int) -> bool:
    entries = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    return bool(entries) and (levels == 0 or any(_deeper(entry, levels - 1) for entry in entries))


def _null_in_array(value: Json, *, in_array: bool) -> bool:
    if isinstance(value, dict):
        return any(_null_in_array(entry, in_array=in_array) for entry in value.values())
    if isinstance(value, list):
        return any(_null_in_array(entry, in_array=True) for entry in value)
    return value is None and in_array


def _without_empty(**sections: Tree) -> Tree:
    return {name: section for name, section in sections.items() if section}
