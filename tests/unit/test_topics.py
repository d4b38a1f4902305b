"""What a topic and a filter may be, what matches, and the tree."""

from __future__ import annotations

import pytest

from ggfast._ext.topics import TREE_LEVELS_MAX, TopicTree, check_filter, check_topic, match, valid_utf8
from tests.model.topics import matches


@pytest.mark.parametrize("topic", ["a", "/", "//", "a/b", " ", "$SYS/x", "ü/漢/😀", "a" * 65535])
def test_valid_topics(topic: str) -> None:
    assert check_topic(topic.encode()) is None


@pytest.mark.parametrize(
    ("topic", "words"),
    [
        (b"", "empty"),
        (b"a/+", "wildcard"),
        (b"#", "wildcard"),
        (b"a#b", "wildcard"),
        (b"a\0", "UTF-8"),
        (b"\xff", "UTF-8"),
        (b"x" * 65536, "65536 bytes"),
    ],
)
def test_invalid_topics(topic: bytes, words: str) -> None:
    assert words in (check_topic(topic) or "")


def test_bounds_of_the_v1_profile() -> None:
    assert check_topic(b"a/b/c/d/e/f/g/h", 256, 7) is None
    assert "levels" in (check_topic(b"a/b/c/d/e/f/g/h/", 256, 7) or "")
    assert "257 bytes" in (check_topic(b"x" * 257, 256, 7) or "")
    assert "levels" in (check_filter(b"+/+/+/+/+/+/+/+/#", 256, 7) or "")


@pytest.mark.parametrize("pattern", ["#", "+", "/#", "+/#", "a/+/b", "+/+", "/", "a/#", "$x/#", "/+"])
def test_valid_filters(pattern: str) -> None:
    assert check_filter(pattern.encode()) is None


@pytest.mark.parametrize("pattern", ["", "#/a", "a#", "a/#/b", "a+", "+a", "a/b+", "a/+b/c", "##", "++", "/+#"])
def test_invalid_filters(pattern: str) -> None:
    assert check_filter(pattern.encode()) is not None


@pytest.mark.parametrize(
    ("text", "good"),
    [
        (b"\x7f\xc2\x80\xdf\xbf\xe0\xa0\x80\xed\x9f\xbf\xee\x80\x80\xef\xbf\xbf\xf0\x90\x80\x80\xf4\x8f\xbf\xbf", True),
        (b"\0", False),
        (b"\x80", False),
        (b"\xc1\xbf", False),  # overlong
        (b"\xe0\x9f\xbf", False),  # overlong
        (b"\xf0\x8f\xbf\xbf", False),  # overlong
        (b"\xed\xa0\x80", False),  # surrogate
        (b"\xf4\x90\x80\x80", False),  # past U+10FFFF
        (b"\xf5\x80\x80\x80", False),
        (b"\xc3", False),
        (b"\xe2\x82", False),
        (b"\xf0\x9f\x98", False),
        (b"\xc3a", False),
    ],
)
def test_utf8(text: bytes, good: bool) -> None:
    assert valid_utf8(text) is good


MATCHES = [
    ("sport/tennis/player1/#", "sport/tennis/player1", True),  # this and the next six: MQTT 3.1.1, 4.7.1
    ("sport/tennis/player1/#", "sport/tennis/player1/score/wimbledon", True),
    ("sport/tennis/+", "sport/tennis/player1/ranking", False),
    ("sport/+", "sport", False),
    ("sport/+", "sport/", True),
    ("+/+", "/finance", True),
    ("/+", "/finance", True),
    ("+", "/finance", False),
    ("#", "$SYS/x", False),
    ("+/x", "$SYS/x", False),
    ("$SYS/#", "$SYS/x", True),
    ("a/$x", "a/$x", True),
    ("a/+", "a/$x", True),
    ("sensor/+/input", "sensor/id-123/input", True),
    ("sensor/+/input", "sensor/group-a/id-123/input", False),
    ("sensor/", "sensor", False),
    ("Sensor", "sensor", False),
    ("#", "a", True),
    ("a/b", "a/bc", False),
    ("a/bc", "a/b", False),
]


@pytest.mark.parametrize(("pattern", "topic", "expected"), MATCHES)
def test_match(pattern: str, topic: str, expected: bool) -> None:
    assert matches(pattern, topic) is expected
    assert match(pattern.encode(), topic.encode()) is expected
    tree: TopicTree[str] = TopicTree()
    tree.insert(pattern.encode(), "k")
    assert (tree.match(topic.encode()) == {"k": 0}) is expected


@pytest.mark.parametrize(("topic", "expected"), [("sensor", False), ("sensor/", True), ("sensor/a/b", True)])
def test_subjects_do_not_take_the_parent_level(topic: str, expected: bool) -> None:
    assert match(b"sensor/#", topic.encode(), False) is expected
    tree: TopicTree[int] = TopicTree(hash_takes_parent=False)
    tree.insert(b"sensor/#", 1)
    assert (1 in tree.match(topic.encode())) is expected


def test_tree_gives_each_key_once_with_its_largest_value() -> None:
    tree: TopicTree[str] = TopicTree()
    for pattern, qos in ((b"a/b", 0), (b"a/+", 2), (b"#", 1), (b"a/#", 1)):
        assert tree.insert(pattern, "k", qos)
    assert not tree.insert(b"a/+", "k", 1)
    assert tree.match(b"a/b") == {"k": 1}
    assert len(tree) == 4


def test_removed_filters_leave_nothing() -> None:
    tree: TopicTree[int] = TopicTree()
    patterns = [b"a/b/c", b"a/+/c", b"a/#", b"#", b"+", b"a/b"]
    for pattern in patterns:
        tree.insert(pattern, 1)
    assert not tree.remove(b"a/b/c/d", 1)
    assert not tree.remove(b"a/b/c", 2)
    for pattern in patterns:
        assert tree.remove(pattern, 1)
        assert not tree.remove(pattern, 1)
    assert len(tree) == 0
    assert tree.match(b"a/b/c") == {}


def test_tree_bounds_the_depth_of_its_filters() -> None:
    tree: TopicTree[int] = TopicTree()
    tree.insert(b"/" * (TREE_LEVELS_MAX - 1), 1)
    with pytest.raises(ValueError, match="levels"):
        tree.insert(b"/" * TREE_LEVELS_MAX, 1)
    with pytest.raises(ValueError, match="not valid"):
        tree.insert(b"a#", 1)
    assert tree.match(b"/" * 60_000) == {}
