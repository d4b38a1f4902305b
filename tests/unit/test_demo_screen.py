"""What the demo shows, as a function of reports: nothing here runs."""

from __future__ import annotations

import json
from typing import Any

import pytest

from ggfast.cli.demo_screen import Board, Flow, percentile, printable, redraw


def received(topic: str, count: int = 1, last: str = "{}", latencies: tuple[int, ...] = ()) -> dict[str, Any]:
    entry = {"topic": topic, "count": count, "last": last, "latencies_us": list(latencies)}
    return {"connected": True, "sent": {}, "received": [entry]}


def average(door_events: int) -> str:
    return json.dumps({"celsius": 4.5, "readings": 10, "doorEvents": door_events, "sentAt": 1})


def alarm(number: int) -> str:
    return json.dumps({"state": "on", "celsius": 6.5, "number": number, "sentAt": 1})


@pytest.fixture
def board() -> Board:
    return Board()


def play_everything(board: Board) -> None:
    board.report("display", received("coldroom/average", 5, average(2), (900, 1_000, 1_100, 1_200, 9_000)))
    board.report("display", received("coldroom/door", 3, '{"state": "open"}', (200, 300, 400)))
    board.report("door", received("coldroom/alarm", 1, alarm(1), (2_000,)))


def verdicts(board: Board) -> list[str]:
    return [line for line in board.summary() if line.startswith("flow ")]


def test_nothing_seen_is_not_complete(board: Board) -> None:
    assert not board.complete
    assert sum("NOT SEEN" in line for line in verdicts(board)) == 6


def test_every_flow_seen_is_complete(board: Board) -> None:
    play_everything(board)
    assert board.complete
    assert sum(line.endswith("  seen") for line in verdicts(board)) == 6
    assert verdicts(board)[-1].endswith("none, as the table has no line for it")
    assert board.messages == 5 + 5 + 2 + 3 + 1


@pytest.mark.parametrize(
    ("device", "topic", "last", "missing"),
    [
        ("display", "coldroom/average", average(2), 4),  # without it only the direct flow and the alarm are known
        ("display", "coldroom/door", "{}", 1),
        ("door", "coldroom/alarm", alarm(1), 1),
    ],
)
def test_one_flow_missing_is_not_complete(board: Board, device: str, topic: str, last: str, missing: int) -> None:
    play_everything(board)
    partial = Board()
    for flow_device, flow_topic, flow_last in (
        ("display", "coldroom/average", average(2)),
        ("display", "coldroom/door", "{}"),
        ("door", "coldroom/alarm", alarm(1)),
    ):
        if (flow_device, flow_topic) != (device, topic):
            partial.report(flow_device, received(flow_topic, 1, flow_last))
    assert not partial.complete
    expected = missing - 1 if topic == "coldroom/average" else missing
    assert sum("NOT SEEN" in line for line in verdicts(partial)) == expected


def test_calls_are_known_by_the_numbers_only_the_counter_gives(board: Board) -> None:
    board.report("display", received("coldroom/average", 1, average(0)))
    assert (board.calls.count, board.doors.count) == (0, 0)
    board.report("display", received("coldroom/average", 1, average(3)))
    assert (board.calls.count, board.doors.count) == (3, 3)
    board.report("door", received("coldroom/alarm", 1, alarm(2)))
    assert board.calls.count == 5


def test_message_without_a_line_in_the_table_fails_the_demo_P1(board: Board) -> None:
    play_everything(board)
    board.report("display", received("coldroom/temperature"))
    assert not board.complete
    assert verdicts(board)[-1].endswith("NOT ALLOWED, BUT SEEN")


def test_rates_are_per_second_since_the_last_tick(board: Board) -> None:
    board.tick(10.0)
    board.report("display", received("coldroom/door", 6))
    board.tick(12.0)
    assert board.direct.rate == 3.0
    board.tick(13.0)
    assert board.direct.rate == 0.0


def test_status_fills_the_function_table_and_tolerates_missing_members(board: Board) -> None:
    row = {"name": "coldroom-monitor", "state": "running", "invocations": 7, "errors": 1, "p50_ms": 0.5, "p99_ms": None}
    board.status({"functions": [row, {"name": "bare"}], "spool": {"messages": 4}})
    text = "\n".join(board.screen(3.0, 200))
    assert "coldroom-monitor" in text and "0.50" in text
    assert "waiting for the cloud: 4 messages" in text
    assert board.invocations == 7
    board.status({})
    assert board.invocations == 7


def test_screen_keeps_to_its_width(board: Board) -> None:
    play_everything(board)
    board.report("display", received("coldroom/door", 1, "x" * 500))
    board.problem("p" * 500)
    for width in (20, 79, 200):
        assert max(len(line) for line in board.screen(1.0, width)) == width


def test_screen_shows_every_flow_with_its_numbers(board: Board) -> None:
    play_everything(board)
    board.tick(0.0)
    line = next(line for line in board.screen(1.0, 200) if line.startswith("coldroom/average"))
    assert "monitor → display" in line
    assert line.split()[4:8] == ["0.0", "5", "1.10", "9.00"]
    assert any("closed: not in the table" in line for line in board.screen(1.0, 200))


def test_messages_cannot_steer_the_terminal(board: Board) -> None:
    board.report("display", received("coldroom/door", 1, "\x1b[2Jgone\r\n\x07\x9b"))
    board.report("display", received("other\x1b[0m"))
    board.report("door", {"error": "x\x1b[31m"})
    assert not any(set("\x1b\r\n\x07\x9b") & set(line) for line in [*board.screen(1.0, 300), *board.summary()])


def test_plain_line_says_counts_and_latency(board: Board) -> None:
    play_everything(board)
    line = board.line(2.0)
    assert "average>display 5" in line and "door>monitor 2" in line and "p50 1.10 ms, p99 9.00 ms" in line
    assert "\n" not in line


def test_failure_on_the_way_fails_the_demo_although_all_was_seen(board: Board) -> None:
    play_everything(board)
    board.problem("the core ended by itself")
    assert not board.complete


def test_problems_are_said_once_and_bounded(board: Board) -> None:
    for number in range(1_000):
        board.problem(f"problem {number % 500}")
    assert len(board.problems) == 20
    assert board.summary()[-1] == "! problem 19"


@pytest.mark.parametrize(
    ("samples", "percent", "expected"),
    [
        ((), 50, None),
        ((5_000,), 99, 5.0),
        (tuple(range(1_000, 101_000, 1_000)), 50, 50.0),
        (tuple(range(100_000, 0, -1_000)), 99, 99.0),
        ((1_000, 2_000, 3_000), 50, 2.0),
    ],
)
def test_percentiles_are_nearest_rank(samples: tuple[int, ...], percent: int, expected: float | None) -> None:
    assert percentile(samples, percent) == expected


def test_latencies_kept_are_bounded() -> None:
    flow = Flow("t", "a", "b")
    flow.latencies_us.extend(range(1_000_000))
    assert len(flow.latencies_us) == flow.latencies_us.maxlen


def test_redraw_goes_up_as_many_lines_as_were_drawn() -> None:
    assert redraw(["a", "b"], 0) == "\r\x1b[2Ka\n\x1b[2Kb\n\x1b[J"
    assert redraw(["a"], 2).startswith("\x1b[2A\r")


def test_printable_keeps_letters_of_all_languages() -> None:
    assert printable("Kühlraum → 3 °C\t") == "Kühlraum → 3 °C·"
