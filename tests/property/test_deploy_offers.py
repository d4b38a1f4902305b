"""Whatever an offer holds: nothing is written outside of the staging and download directories, and nothing is raised
but what the agent expects."""

from __future__ import annotations

import asyncio
import copy
import io
import json
import os
import tempfile
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import orjson
import pytest
from group_support import CORE
from hypothesis import given, settings
from hypothesis import strategies as st
from offer_support import Shop, offer_of

from ggfast.config import parse_config
from ggfast.core.deploy.offered import stage_offer
from ggfast.errors import DeploymentFailed, LinkDown


def archive(name: str) -> bytes:
    raw = io.BytesIO()
    with zipfile.ZipFile(raw, "w") as made:
        made.writestr(zipfile.ZipInfo(name), "def handler(event, context): pass\n")
    return raw.getvalue()


PACKAGE, MODEL = archive("main.py"), archive("weights")
OFFER = offer_of(PACKAGE, MODEL)
HOSTILE = st.sampled_from(
    [
        "../../../escaped",
        "/etc/escaped",
        "..",
        ".",
        "",
        "a/b",
        "\0",
        "\ud7ff\u2028",
        "x" * 5_000,
        "arn:aws:lambda:eu-west-1:123456789012:function:../../escaped:1",
        "arn:aws:iot:eu-west-1:123456789012:cert/../../escaped",
        "0" * 64,
        "-----BEGIN CERTIFICATE-----\n????\n-----END CERTIFICATE-----\n",
        2**53,
        2**64 - 1,
        -(2**63),
        1e300,
        -1,
        0,
        True,
        None,
        [],
        {},
        [[[[]]]],
        {"Id": {"Id": {}}},
    ]
)
ANYTHING = st.recursive(
    HOSTILE
    | st.text(max_size=20)
    | st.integers(-(2**63), 2**64 - 1)
    | st.floats(allow_nan=False, allow_infinity=False),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=6,
)


def places(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """The ways to every value inside."""
    if path:
        yield path
    members = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, member in members:
        yield from places(member, (*path, key))


PLACES = list(places(OFFER))


def changed(offer: Any, path: tuple[Any, ...], value: Any, how: str) -> None:
    """Replace, remove or double what is there; nothing happens where it has gone already."""
    try:
        for key in path[:-1]:
            offer = offer[key]
        if how == "remove":
            del offer[path[-1]]
        elif how == "double" and isinstance(offer, list):
            offer.append(copy.deepcopy(offer[path[-1]]))
        else:
            offer[path[-1]] = value
    except (KeyError, IndexError, TypeError):
        pass


CHANGES = st.lists(
    st.tuples(st.sampled_from(PLACES), ANYTHING, st.sampled_from(["replace", "replace", "remove", "double"])),
    min_size=1,
    max_size=3,
)


def attempt(data: bytes) -> str:
    """What comes of it; everything that is written lies where it may."""
    with tempfile.TemporaryDirectory() as directory:
        root = Path(directory) / "a" / "b" / "greengrass"
        root.mkdir(parents=True)
        document = {"coreThing": {"thingArn": CORE}, "ggfast": {"local": True}}
        config = parse_config(json.dumps(document).encode(), root)
        shop = Shop(PACKAGE, MODEL, piece=1_000)
        try:
            asyncio.run(stage_offer(data, "new", config, shop, shop.pause))
            result = "staged"
        except (DeploymentFailed, LinkDown) as error:
            assert len(str(error)) < 2_000_000
            result = str(error)
        allowed = (config.layout.staging / "new", config.layout.downloads)
        for path in Path(directory).rglob("*"):
            if not path.is_dir() or path.is_symlink():
                assert any(path.is_relative_to(place) for place in allowed), path
        assert result == "staged" or not (config.layout.staging / "new").exists()
        return result


@pytest.fixture(autouse=True)
def no_power_cuts(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing here depends on what has reached the disk itself."""
    monkeypatch.setattr(os, "sync", lambda: None)


def test_the_offer_itself_is_taken() -> None:
    assert attempt(orjson.dumps(OFFER)) == "staged"


@settings(max_examples=200, deadline=None)
@given(CHANGES)
def test_a_hostile_offer_is_refused_or_harmless(changes: list[tuple[tuple[Any, ...], Any, str]]) -> None:
    offer = copy.deepcopy(OFFER)
    for path, value, how in changes:
        changed(offer, path, value, how)
    attempt(orjson.dumps(offer))


@settings(max_examples=60, deadline=None)
@given(st.binary(max_size=200) | ANYTHING.map(orjson.dumps) | st.integers(0, len(orjson.dumps(OFFER))))
def test_what_is_no_offer_is_refused(data: bytes | int) -> None:
    text = orjson.dumps(OFFER)[:data] if isinstance(data, int) else data
    assert attempt(text) != "staged" or text == orjson.dumps(OFFER)


@pytest.mark.parametrize("number", [b"1" * 400, b"1e999", b"-1e999", b"1" * 30], ids=["400", "inf", "-inf", "30"])
def test_numbers_without_end_are_refused(number: bytes) -> None:
    size = b'"size":%d' % len(PACKAGE)
    assert attempt(orjson.dumps(OFFER).replace(size, b'"size":' + number)) != "staged"


def test_an_offer_of_a_hundred_thousand_artifacts_is_refused() -> None:
    artifacts = [{"kind": "model", "name": f"m{at}", "digest": f"{at:064x}", "size": 1} for at in range(100_000)]
    assert "expected at most 400" in attempt(orjson.dumps(OFFER | {"artifacts": artifacts}))
