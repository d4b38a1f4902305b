"""Matching and the tree against the slow matcher; packets against themselves."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from ggfast._ext.framing import (
    Ack,
    Bare,
    Connack,
    Connect,
    Packet,
    Publish,
    Suback,
    Subscribe,
    Unsubscribe,
    Will,
    decode,
    encode,
)
from ggfast._ext.topics import TopicTree, check_filter, check_topic, match
from ggfast.errors import Malformed
from tests.model.topics import matches

LEVEL = st.sampled_from(["", "a", "b", "$x", "ab"])
TOPIC = st.lists(LEVEL, min_size=1, max_size=5).map("/".join).filter(bool)
FILTER = st.builds(
    lambda levels, tail: "/".join([*levels, *tail]),
    st.lists(LEVEL | st.just("+"), max_size=4),
    st.sampled_from([[], ["#"]]),
).filter(bool)


@given(FILTER, TOPIC, st.booleans())
def test_match_agrees_with_the_model(pattern: str, topic: str, parent: bool) -> None:
    assert check_filter(pattern.encode()) is None
    assert check_topic(topic.encode()) is None
    assert match(pattern.encode(), topic.encode(), parent) is matches(pattern, topic, parent)


@settings(max_examples=300)
@given(
    st.lists(st.tuples(st.booleans(), FILTER, st.integers(0, 3), st.integers(0, 2)), max_size=40),
    st.lists(TOPIC, max_size=8),
    st.booleans(),
)
def test_tree_agrees_with_the_model(changes: list[tuple[bool, str, int, int]], topics: list[str], parent: bool) -> None:
    tree: TopicTree[int] = TopicTree(hash_takes_parent=parent)
    model: dict[tuple[str, int], int] = {}
    for add, pattern, key, value in changes:
        if add:
            assert tree.insert(pattern.encode(), key, value) is ((pattern, key) not in model)
            model[pattern, key] = value
        else:
            assert tree.remove(pattern.encode(), key) is ((pattern, key) in model)
            model.pop((pattern, key), None)
    assert len(tree) == len(model)
    for topic in topics:
        expected: dict[int, int] = {}
        for (pattern, key), value in model.items():
            if matches(pattern, topic, parent):
                expected[key] = max(value, expected.get(key, 0))
        assert tree.match(topic.encode()) == expected


@given(st.text(max_size=20))
def test_validity_of_any_text(text: str) -> None:
    good_text = "\0" not in text and not any("\ud800" <= character <= "\udfff" for character in text)
    data = text.encode("utf-8", "surrogatepass")
    is_topic = good_text and text != "" and "+" not in text and "#" not in text
    assert (check_topic(data) is None) is is_topic
    levels = text.split("/")
    is_filter = good_text and text != "" and all(level in ("+", "#") or not set("+#") & set(level) for level in levels)
    is_filter = is_filter and "#" not in levels[:-1]
    assert (check_filter(data) is None) is is_filter


@given(st.binary(max_size=8))
def test_utf8_agrees_with_python(data: bytes) -> None:
    from ggfast._ext.topics import valid_utf8

    try:
        good = b"\0" not in data and data.decode() is not None
    except UnicodeDecodeError:
        good = False
    assert valid_utf8(data) is good


TEXT = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=12)
NAME = TEXT.map(str.encode)
ID = st.integers(1, 65_535)
BYTES = st.binary(max_size=300)
PUBLISH = st.builds(
    lambda topic, payload, qos, retain, dup, packet_id: Publish(
        topic, payload, qos, retain, dup and qos > 0, packet_id if qos else 0
    ),
    NAME,
    BYTES,
    st.integers(0, 2),
    st.booleans(),
    st.booleans(),
    ID,
)
WILL = st.none() | st.builds(Will, NAME, BYTES, st.integers(0, 2), st.booleans())
CONNECT = st.builds(
    lambda level, clean, keep, client_id, will, user, password: Connect(
        level, clean, keep, client_id, will, user, password if user is not None else None
    ),
    st.sampled_from([3, 4]),
    st.booleans(),
    st.integers(0, 65_535),
    TEXT,
    WILL,
    st.none() | TEXT,
    st.none() | BYTES,
)
PACKET: st.SearchStrategy[Packet] = st.one_of(
    PUBLISH,
    CONNECT,
    st.builds(Connack, st.booleans(), st.integers(0, 5)),
    st.builds(Ack, st.sampled_from(["PUBACK", "PUBREC", "PUBREL", "PUBCOMP", "UNSUBACK"]), ID),
    st.builds(Subscribe, ID, st.lists(st.tuples(NAME, st.integers(0, 2)), min_size=1, max_size=5).map(tuple)),
    st.builds(Unsubscribe, ID, st.lists(NAME, min_size=1, max_size=5).map(tuple)),
    st.builds(Suback, ID, st.lists(st.sampled_from([0, 1, 2, 128]), min_size=1, max_size=5).map(tuple)),
    st.builds(Bare, st.sampled_from(["PINGREQ", "PINGRESP", "DISCONNECT"])),
)


@given(PACKET)
def test_decode_undoes_encode(packet: Packet) -> None:
    assert decode(encode(packet)) == packet


@given(PACKET, st.data())
def test_damaged_packets_decode_or_are_malformed(packet: Packet, data: st.DataObject) -> None:
    frame = bytearray(encode(packet))
    for _ in range(data.draw(st.integers(1, 3))):
        frame[data.draw(st.integers(0, len(frame) - 1))] = data.draw(st.integers(0, 255))
    try:
        again = decode(bytes(frame))
    except Malformed:
        return
    assert decode(encode(again)) == again or isinstance(again, Connect)
