"""What the control plane says of certificates: its form, its way to disk and back, who is told."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ggfast.core.kept_trust import KeptTrust, checked
from ggfast.errors import Malformed

GOOD: dict[str, Any] = {
    "version": "7",
    "groupId": "g",
    "endedCertificates": ["ab"],
    "authorities": ["PEM"],
    "certificateSeconds": 604_800,
    "connectivity": [{"Id": "a", "HostAddress": "10.0.0.1", "PortNumber": 8883, "Metadata": ""}],
    "delegation": {"seconds": 0, "revokedBefore": 0},
}


class Log:
    def __init__(self) -> None:
        self.lines: list[str] = []

    def error(self, message: str, **fields: Any) -> None:
        self.lines.append(f"{message} {fields}")


class Told:
    def __init__(self) -> None:
        self.found: list[Mapping[str, Any] | None] = []

    async def __call__(self, found: Mapping[str, Any] | None) -> None:
        self.found.append(found)


def made(path: Path) -> tuple[KeptTrust, Told, Log]:
    told, log = Told(), Log()
    found: Any = log
    return KeptTrust(path, told, found), told, log


def test_what_is_taken_is_told_and_outlives_the_process(tmp_path: Path) -> None:
    path = tmp_path / "trust.json"
    trust, told, _ = made(path)
    asyncio.run(trust.take(GOOD))
    assert told.found == [GOOD]
    assert (trust.version, path.stat().st_mode & 0o777) == ("7", 0o600)
    again, told, _ = made(path)
    asyncio.run(again.start({**GOOD, "version": "deployed"}))
    assert again.current == GOOD
    assert told.found == []


def test_without_a_word_of_the_control_plane_what_was_deployed_counts(tmp_path: Path) -> None:
    trust, _, log = made(tmp_path / "trust.json")
    asyncio.run(trust.start(GOOD | {"version": ""}))
    assert (trust.current, trust.version, log.lines) == (GOOD | {"version": ""}, "", [])


def test_damage_on_disk_is_said_and_forgotten(tmp_path: Path) -> None:
    path = tmp_path / "trust.json"
    path.write_bytes(b'{"version": 1')
    trust, _, log = made(path)
    asyncio.run(trust.start(None))
    assert trust.current is None
    assert "lost until the next contact" in log.lines[0]


def test_a_disk_that_refuses_keeps_nobody_from_being_told(tmp_path: Path) -> None:
    trust, told, log = made(tmp_path / "none" / "trust.json")
    asyncio.run(trust.take(GOOD))
    assert told.found == [GOOD]
    assert "could not be kept" in log.lines[0]


def test_forgetting_leaves_nothing(tmp_path: Path) -> None:
    path = tmp_path / "trust.json"
    trust, _, _ = made(path)
    asyncio.run(trust.take(GOOD))
    trust.forget()
    assert (os.listdir(tmp_path), trust.current) == ([], None)
    trust.forget()


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"version": 1}, "trust.version: found int, expected str"),
        ({"certificateSeconds": True}, "trust.certificateSeconds: found bool"),
        ({"endedCertificates": [1]}, "trust.endedCertificates"),
        ({"connectivity": [{"HostAddress": 1}]}, "trust.connectivity"),
        ({"delegation": {"seconds": 1}}, "trust.delegation"),
    ],
)
def test_another_form_is_refused_with_its_place(change: dict[str, Any], words: str) -> None:
    with pytest.raises(Malformed, match=words):
        checked(GOOD | change)


_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)


@given(st.fixed_dictionaries(dict.fromkeys(GOOD, _JSON)) | _JSON)
def test_whatever_comes_is_taken_or_refused(found: object) -> None:
    try:
        assert checked(found) is found
    except Malformed as error:
        assert str(error).startswith("trust")
