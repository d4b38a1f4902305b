"""Shadows as values: the rules and their slow twin agree, no bytes crash the reader, limits hold."""

from __future__ import annotations

import json
from typing import Any

from hypothesis import example, given, settings
from hypothesis import strategies as st

from ggfast.limits import SHADOW_DEPTH_MAX, SHADOW_STATE_BYTES_MAX
from ggfast.shadows.document import Shadow, ShadowRefused, difference, merged
from ggfast.shadows.messages import Update, from_body, got, rejected, to_body, update
from ggfast.shadows.topics import parse_request, topic_of
from tests.model import shadows as model

keys = st.sampled_from(["a", "b", "ä", "", "timestamp"])
numbers = st.integers(-3, 3) | st.sampled_from([0.5, 1.0, -0.0, 2**63, 1e300])
leaves = st.booleans() | numbers | st.text("x☃", max_size=2)
items = st.lists(
    st.recursive(leaves, lambda below: st.lists(below, max_size=2) | st.dictionaries(keys, below), max_leaves=3)
)
patches = st.recursive(
    st.dictionaries(keys, st.none() | leaves | items, max_size=3),
    lambda below: st.dictionaries(keys, below | st.none() | leaves, max_size=3),
    max_leaves=6,
)
sections = st.dictionaries(st.sampled_from(["desired", "reported"]), st.none() | patches)


@settings(max_examples=400, deadline=None)
@given(st.lists(patches, min_size=1, max_size=5), st.lists(patches, max_size=3))
@example([{"a": {"b": 1}}, {"a": {"b": None}}], [])
@example([{"a": {"b": 1}}, {"a": 1}, {"a": {}}], [{"a": {"c": 1}}])
@example([{"a": True}], [{"a": 1}])
def test_rules_and_slow_twin_agree(wanted: list[dict[str, Any]], told: list[dict[str, Any]]) -> None:
    trees: list[tuple[dict[str, Any], dict[str, Any]]] = []
    rows: list[model.Rows] = []
    for series in (wanted, told):
        state, metadata, table = {}, {}, {}
        for time, patch in enumerate(series, start=1):
            state, metadata = merged(state, metadata, patch, time)
            table = model.merged(table, patch, time)
        assert state == model.tree_of(table)
        assert metadata == model.times_of(table)
        trees.append((state, metadata))
        rows.append(table)
    (desired, stamps), (reported, _) = trees
    different = model.difference(*rows)
    assert difference(desired, reported, stamps) == (model.tree_of(different), model.times_of(different))


def apply(shadow: Shadow, payload: bytes) -> Update | ShadowRefused:
    try:
        return update(shadow, payload, 7)
    except ShadowRefused as refused:
        return refused


@settings(max_examples=300, deadline=None)
@given(st.lists(sections, min_size=1, max_size=5))
def test_versions_rise_and_a_body_keeps_everything(updates: list[dict[str, Any]]) -> None:
    shadow = Shadow()
    for state in updates:
        before = shadow
        frozen = json.dumps(to_body(before))
        made = apply(shadow, json.dumps({"state": state, "version": shadow.version}).encode())
        assert isinstance(made, Update), made
        shadow = made.shadow
        assert json.dumps(to_body(before)) == frozen, "an update changed the shadow it began from"
        assert shadow.version == before.version + 1
        assert from_body(json.loads(json.dumps(to_body(shadow)))) == shadow
        answer = json.loads(got(shadow, 7))
        assert (made.delta is not None) == ("delta" in answer["state"])
        if made.delta is not None:
            assert json.loads(made.delta)["state"] == answer["state"]["delta"]
        documents = json.loads(made.documents)
        assert documents["previous"]["version"] + 1 == documents["current"]["version"] == shadow.version


anything = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda below: (
        st.lists(below, max_size=3) | st.dictionaries(st.text(max_size=3) | st.just("state"), below, max_size=3)
    ),
    max_leaves=20,
)
requests = (
    st.binary(max_size=200)
    | anything.map(lambda value: json.dumps(value).encode())
    | st.builds(
        lambda state, version, token: json.dumps({"state": state, "version": version, "clientToken": token}).encode(),
        anything | st.dictionaries(st.sampled_from(["desired", "reported", "delta"]), anything),
        anything,
        anything,
    )
)


@settings(max_examples=500, deadline=None)
@given(requests)
@example(b'{"state":{"desired":{"a":1e999}}}')
@example(b'{"state":{"desired":{"a":NaN}}}')
@example(b"[" * 100_000)
@example(b'{"state":{"desired":' + b'{"a":' * 1_000 + b"1" + b"}" * 1_002)
def test_p7_any_bytes_are_accepted_or_refused_with_a_code(payload: bytes) -> None:
    made = apply(Shadow(desired={"a": 1}, desired_metadata={"a": {"timestamp": 1}}, version=3), payload)
    if isinstance(made, ShadowRefused):
        assert made.code in (400, 409, 413, 415)
        assert json.loads(rejected(made, 9))["message"] == made.text
    else:
        assert made.shadow.version == 4
        assert len(json.dumps(made.shadow.state(), ensure_ascii=False, separators=(",", ":")).encode()) < 9_000


@given(st.integers(1, 20), st.integers(0, 9_000))
def test_depth_and_size_have_their_bounds(depth: int, size: int) -> None:
    tree: dict[str, Any] = {"t": "x" * size}
    for _ in range(depth - 1):
        tree = {"a": tree}
    made = apply(Shadow(), json.dumps({"state": {"reported": tree}}).encode())
    state_bytes = len(json.dumps({"reported": tree}, separators=(",", ":")))
    if depth > SHADOW_DEPTH_MAX:
        assert isinstance(made, ShadowRefused)
        assert made.code == 400
    elif state_bytes > SHADOW_STATE_BYTES_MAX:
        assert isinstance(made, ShadowRefused)
        assert made.code == 413
    else:
        assert isinstance(made, Update)


names = st.text("aZ0:_-", min_size=1, max_size=64)


@given(
    names, names | st.just(""), st.sampled_from(["get", "update", "delete"]), st.sampled_from(["", "accepted", "delta"])
)
def test_topics_are_read_as_they_are_written(thing: str, name: str, operation: str, answer: str) -> None:
    found = parse_request(topic_of(thing, name, operation, answer))
    if answer:
        assert found is None
    else:
        assert found is not None
        assert (found.thing, found.name, found.operation) == (thing, name, operation)
