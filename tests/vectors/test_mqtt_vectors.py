"""MQTT 3.1.1 and 5.0 as data: every vector against a live broker, and the vectors against their own rules.

All selected cases are played once, at the same time, against one broker process; each is then a test of
its own, so that `-k MQTT-3.3.1` plays and reports just those.
"""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass

import pytest
from runner import Player, broker, foreign_target, play_all, playable, waits_ms
from vectorfile import (
    MQTT_3_1_1,
    MQTT_5,
    Case,
    Pattern,
    Step,
    VectorError,
    Version,
    load_cases,
    load_statements,
    parse_pattern,
    parse_wanted,
    statement_table,
)

VERSIONS = (MQTT_3_1_1, MQTT_5)  # the broker's versions
CASES = load_cases(*VERSIONS)


@dataclass(frozen=True)
class Run:
    """What one broker did with all cases that were selected."""

    results: dict[str, str]
    crash: str


@pytest.fixture(scope="module")
def run(request: pytest.FixtureRequest) -> Iterator[Run]:
    """Plays, once, the cases pytest has selected."""
    wanted = {_case_name(item) for item in request.session.items}
    chosen = [case for case in playable(CASES) if case.name in wanted] or playable(CASES)
    with broker() as running:
        results = asyncio.run(play_all(chosen, running.host, running.port))
        yield Run(results, running.verdict())


def _case_name(item: pytest.Item) -> str:
    callspec = getattr(item, "callspec", None)
    case = callspec.params.get("case") if callspec else None
    return case.name if isinstance(case, Case) else ""


@pytest.mark.parametrize("case", playable(CASES), ids=lambda case: case.name)
def test_vector(case: Case, run: Run) -> None:
    failure = run.results[case.name]
    if failure and case.peer_deviates and foreign_target():
        pytest.xfail(case.peer_deviates)
    assert not failure, f"{failure}\n{case.why}\n{run.crash}"


def test_broker_survives_all_of_them(run: Run) -> None:
    assert run.crash == ""


@pytest.mark.parametrize("seed", [1, 2])
def test_fragments_change_nothing(seed: int) -> None:
    """All cases but the timed ones again, each send cut into pieces at random."""
    timeless = [case for case in playable(CASES) if not waits_ms(case)]
    with broker() as running:
        results = asyncio.run(play_all(timeless, running.host, running.port, seed))
        crash = running.verdict()
    tolerated = {case.name for case in timeless if case.peer_deviates and foreign_target()}
    assert {name: text for name, text in results.items() if text and name not in tolerated} == {}, crash


# --- the vectors themselves ----------------------------------------------------------------------------


@pytest.mark.parametrize("version", VERSIONS, ids=lambda version: version.title)
def test_every_statement_is_covered(version: Version) -> None:
    """A statement has a case (a choice of ours does not count) or a reason why no vector can show it."""
    cases = [case for case in CASES if case.level == version.level]
    covered = {statement for case in cases if not case.choice for statement in case.statements}
    statements = load_statements(version)
    assert covered <= statements.keys()
    assert [name for name, entry in statements.items() if (name in covered) == ("not_here" in entry)] == []


@pytest.mark.parametrize("version", VERSIONS, ids=lambda version: version.title)
def test_table_is_current(version: Version) -> None:
    """If not: python tests/vectors/runner.py table"""
    assert version.table.read_text() == statement_table(version, CASES)


def test_cases_are_named_after_what_they_prove() -> None:
    choices = {version.level: version.choice for version in VERSIONS}
    for case in CASES:
        first, _, slug = case.name.partition(".") if case.choice else case.name.rpartition(".")
        assert slug, case.name
        assert first == (choices[case.level] if case.choice else case.statements[0]), case.name
        assert case.why.endswith("."), case.name


def test_cases_do_not_meet() -> None:
    """They run at the same time against one broker: no two may share a client id or a published topic."""
    users: dict[bytes, set[str]] = defaultdict(set)
    for case in CASES:
        for step in case.steps:
            if step.kind == "send" and not case.alone:
                for text in _client_id_or_topic(step.value):
                    users[text].add(case.name)
    assert {text: names for text, names in users.items() if len(names) > 1} == {}


def _client_id_or_topic(pattern: Pattern) -> list[bytes]:
    """The client id of a CONNECT or the topic of a PUBLISH, if the packet is good enough to have one."""
    data = pattern.parts[0]
    assert isinstance(data, bytes)
    body = 1
    while body < len(data) and data[body] & 128 and body < 5:
        body += 1
    body += 1
    if data[0] == 0x10 and data[body : body + 6] == b"\0\4MQTT":
        body += 10
        if data[body - 4 : body - 3] == b"\5":
            body += _property_bytes(data, body)
    elif data[0] >> 4 != 3:
        return []
    length = int.from_bytes(data[body : body + 2], "big")
    text = data[body + 2 : body + 2 + length]
    return [text] if text and len(text) == length else []


def _property_bytes(data: bytes, at: int) -> int:
    """How long the properties at `at` are, with their own length."""
    value = shift = 0
    for used, byte in enumerate(data[at : at + 4], 1):
        value |= (byte & 127) << shift
        if byte < 128:
            return used + value
        shift += 7
    return 0


# --- the runner itself: it must be able to say no ------------------------------------------------------


@pytest.mark.parametrize(
    ("steps", "answer", "complaint"),
    [
        ([("send", "c0 00"), ("expect", "d0 00")], "d0 00", ""),
        ([("send", "c0 00"), ("expect", "d0 00")], "d0 01", "expected d0 00, got d0 01"),
        ([("send", "c0 00"), ("expect", "d0 00 00")], "d0 00", "and then the end of the connection"),
        ([("send", "c0 00"), ("expect", "d0 00")], "d0 00 20", "left over at the end: 20"),
        ([("send", "c0 00"), ("expect-close", True)], "", ""),
        ([("send", "c0 00"), ("expect-close", True)], "d0 00", "expected the end of the connection, got d0 00"),
        ([("expect-nothing", "ping")], "d0 00", ""),
        ([("expect-nothing", "ping")], "30 00", "expected nothing but a PINGRESP, got 30 00"),
        ([("send", "c0 00"), ("expect-nothing", "wait")], "30 00", "expected silence"),
        ([("send", "c0 00"), ("expect-set", ["40 02 {p}", "d0 00"])], "d0 00 40 02 0007", ""),
        ([("send", "c0 00"), ("expect-set", ["d0 00"])], "40 02 0007", "got 40 02 00 07"),
        ([("expect-any", [["40 02 0007"], []])], "40 02 0007 d0 00", ""),
        ([("expect-any", [["40 02 0007"], []])], "40 02 0008 d0 00", "none of the allowed answers"),
        ([("send", "c0 00"), ("expect", "40 02 {p}")], "40 02 0000", "expected 40 02 {p}"),
        ([("send", "c0 00"), ("expect", "40 02 {p} 40 02 {p}")], "40 02 0001 40 02 0002", "expected 40 02"),
        ([("send", "c0 00"), ("expect", "{p} {q}"), ("distinct", ["p", "q"])], "0001 0001", "['0001', '0001']"),
        ([("send", "c0 00"), ("expect-connack", {})], "20 03 00 00 00", ""),
        ([("send", "c0 00"), ("expect-connack", {})], "20 03 01 00 00", "session present 1, expected 0"),
        ([("send", "c0 00"), ("expect-connack", {})], "20 03 00 87 00", "reason code 87, expected 00"),
        ([("send", "c0 00"), ("expect-connack", {})], "20 03 00 42 00", "42 does not belong"),
        ([("send", "c0 00"), ("expect-connack", {})], "20 03 02 00 00", "may be 0 or 1 is 2"),
        ([("send", "c0 00"), ("expect-connack", "87")], "20 03 01 87 00", "session present in a refusal"),
        (
            [("send", "c0 00"), ("expect-connack", "87")],
            "20 03 00 87 00 d0",
            "expected the end of the connection, got d0",
        ),
        ([("send", "c0 00"), ("expect-connack", {})], "20 02 00 00", "1 bytes expected at 4, 0 there"),
        ([("send", "c0 00"), ("expect-connack", {})], "20 06 00 00 03 21 0000", "receive_maximum is 0"),
        ([("send", "c0 00"), ("expect-connack", {})], "20 09 00 00 06 21 0001 21 0001", "receive_maximum twice"),
        ([("send", "c0 00"), ("expect-connack", {})], "20 06 00 00 03 23 0001", "property 23 does not belong"),
        ([("send", "c0 00"), ("expect-connack", {})], "20 07 00 00 04 21 0001", "cut short"),
        ([("send", "c0 00"), ("expect-connack", {})], "20 06 00 00 04 21 0001", "property length is not what is left"),
        ([("send", "c0 00"), ("expect-connack", {})], "20 06 00 00 03 12 0000 d0", "left over at the end: d0"),
        ([("send", "c0 00"), ("expect-connack", {})], "20 07 00 00 04 1f 0001 ff", "not UTF-8"),
        ([("send", "c0 00"), ("expect-connack", {})], "20 8300 00 00 00", "more bytes than it needs"),
        ([("send", "c0 00"), ("expect-connack", {})], "d0 00", "another packet; got d0 00"),
        (
            [("send", "c0 00"), ("expect-connack", {"properties": {"receive_maximum": 2, "maximum_qos": False}})],
            "20 06 00 00 03 21 0002",
            "",
        ),
        (
            [("send", "c0 00"), ("expect-connack", {"properties": {"receive_maximum": 3}})],
            "20 06 00 00 03 21 0002",
            "receive_maximum is 2, expected 3",
        ),
        (
            [("send", "c0 00"), ("expect-connack", {"properties": {"maximum_qos": True}})],
            "20 06 00 00 03 21 0002",
            "maximum_qos is None, expected any value",
        ),
        (
            [("send", "c0 00"), ("expect-connack", {"properties": {"receive_maximum": False}})],
            "20 06 00 00 03 21 0002",
            "receive_maximum is 2, expected none",
        ),
        (
            [
                ("send", "c0 00"),
                ("expect-connack", {"properties": {"assigned_client_identifier": "{id}"}}),
                ("expect", "0002 'xy' d0"),
                ("expect-connack", {"properties": {"assigned_client_identifier": "{id}"}}),
            ],
            "20 08 00 00 05 12 0002 'xy' 0002 'xy' d0 20 08 00 00 05 12 0002 'xz'",
            "assigned_client_identifier is 'xz', expected 'xy'",
        ),
        ([("send", "c0 00"), ("expect-disconnect", "82")], "e0 01 82", ""),
        ([("send", "c0 00"), ("expect-disconnect", {"code": "82", "bytes-max": 3})], "e0 01 82", ""),
        ([("send", "c0 00"), ("expect-disconnect", {"code": "82", "bytes-max": 2})], "e0 01 82", "the client takes 2"),
        ([("send", "c0 00"), ("expect-disconnect", "00")], "e0 00", ""),
        ([("send", "c0 00"), ("expect-disconnect", "81 82")], "e0 07 82 05 1f 0002 'no'", ""),
        ([("send", "c0 00"), ("expect-disconnect", "81")], "e0 01 82", "reason code 82, expected 81"),
        ([("send", "c0 00"), ("expect-disconnect", "82")], "e0 01 82 d0 00", "expected the end of the connection"),
        ([("send", "c0 00"), ("expect-disconnect", "82")], "e0 07 82 05 11 00000001", "property 11 does not belong"),
        ([("send", "c0 00"), ("expect-disconnect", "82")], "", "another packet; got nothing"),
    ],
)
def test_runner_notices(steps: list[tuple[str, object]], answer: str, complaint: str) -> None:
    """Against a server that answers the first bytes it gets with `answer` and closes."""
    compiled = [
        Step(
            kind,
            "a",
            parse_wanted(value) if kind.endswith(("connack", "disconnect")) else _compiled(value),
            "",
        )
        for kind, value in steps
    ]
    case = Case("self", "self.json", (), "", tuple(compiled))
    found = asyncio.run(_play_against(parse_pattern(answer).fill({}), case))
    assert complaint in found if complaint else found == ""


def _compiled(value: object) -> object:
    if isinstance(value, list):
        return [_compiled(item) if item not in ("p", "q") else item for item in value]
    return parse_pattern(value) if isinstance(value, str) and value not in ("ping", "wait") else value


async def _play_against(answer: bytes, case: Case) -> str:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(64)
        writer.write(answer)
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    async with server:
        return await Player("127.0.0.1", server.sockets[0].getsockname()[1], case).play()


@pytest.mark.parametrize("text", ["1", "zz", "'open", "{P}", "00 é"])
def test_notation_refuses(text: str) -> None:
    with pytest.raises(VectorError, match="cannot read"):
        parse_pattern(text)


def test_notation_reads() -> None:
    pattern = parse_pattern("10 0e0004 'MQTT' {p} 61*3 'ab'*2")
    assert pattern.fill({"p": b"\1\2"}) == b"\x10\x0e\0\4MQTT\1\2aaaabab"
    assert pattern.size == 17
