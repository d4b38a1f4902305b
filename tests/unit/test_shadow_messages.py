"""Shadow requests and answers: every documented text and form."""

from __future__ import annotations

import json
from typing import Any

import pytest

from ggfast.shadows.document import Shadow, ShadowRefused
from ggfast.shadows.messages import deleted, emptied, got, missing, read_token, rejected, update
from ggfast.shadows.topics import ShadowRequest, parse_request, topic_of

EMPTY = Shadow()


def body(**members: Any) -> bytes:
    return json.dumps(members).encode()


def after(*states: Any) -> Shadow:
    shadow = EMPTY
    for time, state in enumerate(states, start=1):
        shadow = update(shadow, body(state=state), time).shadow
    return shadow


@pytest.mark.parametrize(
    ("payload", "code", "text"),
    [
        (b"", 400, "Payload contains invalid json"),
        (b"[1]", 400, "Payload contains invalid json"),
        (b'{"state":{"desired":{"a":NaN}}}', 400, "Payload contains invalid json"),
        (b'{"state":{"desired":{"a":1e400}}}', 400, "Payload contains invalid json"),
        (b'{"state":{"desired":{"a":"\\ud800"}}}', 400, "Payload contains invalid json"),
        (b'\xef\xbb\xbf{"state":{}}', 400, "Payload contains invalid json"),
        (b'{"a":"\xff"}', 415, "Unsupported documented encoding; supported encoding is UTF-8"),
        (b"{}", 400, "Missing required node: state"),
        (b'{"state":null}', 400, "Missing required node: state"),
        (b'{"state":[]}', 400, "State contains invalid type; expected object"),
        (b'{"state":{"desired":1}}', 400, "Desired contains invalid type; expected object"),
        (b'{"state":{"reported":[]}}', 400, "Reported contains invalid type; expected object"),
        (b'{"state":{"delta":{}}}', 400, "State contains an invalid node: 'delta'"),
        (b'{"state":{"desired":{"a":[1,null]}}}', 400, "State contains an invalid node: null in an array"),
        (b'{"state":{},"version":"1"}', 400, "Invalid version"),
        (b'{"state":{},"version":true}', 400, "Invalid version"),
        (b'{"state":{},"version":-1}', 400, "Invalid version"),
        (b'{"state":{},"version":4}', 409, "Version conflict"),
        (b'{"state":{},"clientToken":5}', 400, "Invalid clientToken"),
        (b'{"state":{},"clientToken":""}', 400, "Invalid clientToken"),
        ('{"state":{},"clientToken":"' + "ä" * 33 + '"}', 400, "Invalid clientToken"),
        (b'{"state":{}}' + b" " * 131_072, 413, "The payload exceeds the maximum size allowed"),
        (body(state={"desired": {"a": "x" * 8_192}}), 413, "The payload exceeds the maximum size allowed"),
    ],
)
def test_every_refusal_has_its_code_and_text(payload: bytes | str, code: int, text: str) -> None:
    payload = payload.encode() if isinstance(payload, str) else payload
    with pytest.raises(ShadowRefused) as refused:
        update(after({"desired": {"a": 1}}), payload, 9)
    assert (refused.value.code, refused.value.text) == (code, text)


def test_nesting_has_eight_levels() -> None:
    def nested(levels: int) -> dict[str, Any]:
        return {"k": nested(levels - 1)} if levels > 1 else {"k": 1}

    assert update(EMPTY, body(state={"desired": nested(8)}), 1).shadow.version == 1
    with pytest.raises(ShadowRefused, match="JSON contains too many levels of nesting; maximum is 8"):
        update(EMPTY, body(state={"desired": nested(9)}), 1)


def test_a_refusal_repeats_the_client_token() -> None:
    with pytest.raises(ShadowRefused) as refused:
        update(EMPTY, body(state={"desired": 1}, clientToken="t"), 9)
    assert json.loads(rejected(refused.value, 9)) == {
        "code": 400,
        "message": "Desired contains invalid type; expected object",
        "timestamp": 9,
        "clientToken": "t",
    }


def test_forms_of_an_update() -> None:
    shadow = after({"desired": {"colour": "red", "at": [1, 2]}, "reported": {"colour": "red"}})
    made = update(shadow, body(state={"desired": {"colour": "blue"}}, clientToken="t", version=1), 5)
    assert json.loads(made.accepted) == {
        "state": {"desired": {"colour": "blue"}},
        "metadata": {"desired": {"colour": {"timestamp": 5}}},
        "version": 2,
        "timestamp": 5,
        "clientToken": "t",
    }
    assert made.delta is not None
    assert json.loads(made.delta) == {
        "version": 2,
        "timestamp": 5,
        "state": {"colour": "blue", "at": [1, 2]},
        "metadata": {"colour": {"timestamp": 5}, "at": [{"timestamp": 1}, {"timestamp": 1}]},
        "clientToken": "t",
    }
    documents = json.loads(made.documents)
    assert documents["previous"]["state"]["desired"]["colour"] == "red"
    assert documents["current"]["metadata"]["desired"]["colour"] == {"timestamp": 5}
    assert (documents["previous"]["version"], documents["current"]["version"]) == (1, 2)
    assert json.loads(got(made.shadow, 6, "u")) == {
        "state": {
            "desired": {"colour": "blue", "at": [1, 2]},
            "reported": {"colour": "red"},
            "delta": {"colour": "blue", "at": [1, 2]},
        },
        "metadata": {
            "desired": {"colour": {"timestamp": 5}, "at": [{"timestamp": 1}, {"timestamp": 1}]},
            "reported": {"colour": {"timestamp": 1}},
        },
        "version": 2,
        "timestamp": 6,
        "clientToken": "u",
    }
    assert json.loads(deleted(made.shadow, 7, "v")) == {"version": 2, "timestamp": 7, "clientToken": "v"}


def test_null_removes_members_and_sections() -> None:
    shadow = after({"desired": {"a": {"b": 1, "c": 2}}, "reported": {"a": 1}}, {"desired": {"a": {"b": None}}})
    assert shadow.state() == {"desired": {"a": {"c": 2}}, "reported": {"a": 1}}
    made = update(shadow, body(state={"reported": None}), 9)
    assert made.shadow.state() == {"desired": {"a": {"c": 2}}}
    assert json.loads(made.accepted)["state"] == {"reported": None}
    assert json.loads(got(update(made.shadow, body(state={"desired": None}), 10).shadow, 11)) == {
        "state": {},
        "metadata": {},
        "version": 4,
        "timestamp": 11,
    }


@pytest.mark.parametrize(
    ("desired", "reported", "delta"),
    [
        ({"a": 1}, {"a": 1.0}, {}),
        ({"a": True}, {"a": 1}, {"a": True}),
        ({"a": 0}, {"a": False}, {"a": 0}),
        ({"a": [1, 2]}, {"a": [2, 1]}, {"a": [1, 2]}),
        ({"a": {"b": 1, "c": 2}}, {"a": {"b": 1}}, {"a": {"c": 2}}),
        ({"a": {}}, {"a": {"b": 1}}, {}),
        ({"a": {}}, {}, {"a": {}}),
        ({"a": {"b": 1}}, {"a": 1}, {"a": {"b": 1}}),
    ],
)
def test_differences(desired: Any, reported: Any, delta: Any) -> None:
    assert after({"desired": desired, "reported": reported}).delta()[0] == delta


def test_duplicate_keys_and_huge_numbers_are_defined() -> None:
    shadow = update(EMPTY, b'{"state":{"reported":{"a":1,"a":123456789012345678901234567890}}}', 1).shadow
    assert shadow.reported == {"a": 1.2345678901234568e29}
    assert update(EMPTY, body(state={"reported": {"a": 2**64 - 1}}), 1).shadow.reported == {"a": 2**64 - 1}


def test_a_version_of_nothing_and_of_what_was_deleted() -> None:
    assert update(EMPTY, body(state={}, version=0), 1).shadow.version == 1
    with pytest.raises(ShadowRefused, match="Version conflict"):
        update(EMPTY, body(state={}, version=1), 1)
    rest = emptied(after({"desired": {"a": 1}}, {"desired": {"a": 2}}))
    assert (rest.state(), update(rest, body(state={}), 1).shadow.version) == ({}, 3)


def test_tokens_of_requests_without_state() -> None:
    assert read_token(b"") == ""
    assert read_token(b"{}") == ""
    assert read_token(b'{"clientToken":"t"}') == "t"
    with pytest.raises(ShadowRefused, match="invalid json"):
        read_token(b"x")
    assert missing("lamp").text == "No shadow exists with name: 'lamp'"
    assert missing("lamp", "night").text == "No shadow exists with name: 'lamp~night'"


def test_topics() -> None:
    assert topic_of("lamp", "", "update", "delta") == "$aws/things/lamp/shadow/update/delta"
    assert parse_request("$aws/things/lamp/shadow/name/night/get") == ShadowRequest("lamp", "night", "get")
    for other in (
        "$aws/things/lamp/shadow/get/accepted",
        "$aws/things//shadow/get",
        "$aws/things/lamp/shadow/name//get",
        "$aws/things/la mp/shadow/get",
        f"$aws/things/{'x' * 129}/shadow/get",
        f"$aws/things/lamp/shadow/name/{'x' * 65}/get",
        "$aws/things/lamp/shadow/get\n",
        "things/lamp/shadow/get",
    ):
        assert parse_request(other) is None, other
