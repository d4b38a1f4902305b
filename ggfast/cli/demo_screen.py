"""What the demo shows: the flows of the cold room, what was seen of each, and how that looks. Pure: no clock, no
terminal, no process; reports and times go in, lines come out."""

from __future__ import annotations

import json
import math
from collections import deque
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from ggfast.limits import DEMO_LATENCIES_MAX

TITLE = "ggfast demo: a cold room"
INVOKE = "(invoke)"
_PROBLEMS_MAX = 20  # lines a person reads


@dataclass
class Flow:
    """One way a message can go. `closed` ones have no line in the table and must stay empty (promise P1)."""

    topic: str
    source: str
    target: str
    closed: bool = False
    count: int = 0
    last: str = ""
    rate: float = 0.0
    latencies_us: deque[int] = field(default_factory=lambda: deque(maxlen=DEMO_LATENCIES_MAX))
    counted_before: int = 0

    @property
    def as_expected(self) -> bool:
        """Seen if it is open, empty if it is closed."""
        return (self.count == 0) == self.closed


@dataclass(frozen=True)
class FunctionRow:
    """What the core says about one function."""

    name: str
    state: str
    invocations: int
    errors: int
    p50_ms: float | None
    p99_ms: float | None


class Board:
    """Everything known about the running demo."""

    def __init__(self) -> None:
        self.readings = Flow("coldroom/temperature", "thermometer", "monitor")
        self.averages = Flow("coldroom/average", "monitor", "display")
        self.doors = Flow("coldroom/door", "door", "monitor")
        self.direct = Flow("coldroom/door", "door", "display")
        self.calls = Flow(INVOKE, "monitor", "counter")
        self.alarms = Flow("coldroom/alarm", "monitor", "door")
        self.leak = Flow("coldroom/temperature", "thermometer", "display", closed=True)
        self.flows = (self.readings, self.averages, self.doors, self.direct, self.calls, self.alarms, self.leak)
        self.functions: tuple[FunctionRow, ...] = ()
        self.spooled = 0
        self.problems: list[str] = []
        self._at_devices = {
            ("display", "coldroom/average"): self.averages,
            ("display", "coldroom/door"): self.direct,
            ("door", "coldroom/alarm"): self.alarms,
            ("display", "coldroom/temperature"): self.leak,
        }
        self._rated_at: float | None = None

    # --- what comes in ---

    def report(self, device: str, report: Mapping[str, Any]) -> None:
        """Take a device's report. What a function got is known by what came of it, not by what was sent."""
        if "error" in report:
            self.problem(f"{device}: {report['error']}")
        for entry in report.get("received", ()):
            flow = self._at_devices.get((device, entry["topic"]))
            if flow is None:
                self.problem(f"{device}: message on unexpected topic {entry['topic']}")
                continue
            flow.count += entry["count"]
            flow.last = printable(entry["last"])
            flow.latencies_us.extend(entry["latencies_us"])
            self._causes(flow, entry["count"], entry["last"])

    def _causes(self, flow: Flow, count: int, last: str) -> None:
        """Each average answers one reading and tells how many door events the counter has counted; each alarm
        carries a number that only the counter gives."""
        if flow is self.averages:
            self.readings.count += count
            events = number_in(last, "doorEvents")
            self.doors.count = max(self.doors.count, events)
        if flow in (self.averages, self.alarms):
            alarm_number = number_in(self.alarms.last, "number")
            self.calls.count = max(self.calls.count, self.doors.count + alarm_number)

    def status(self, status: Mapping[str, Any]) -> None:
        """Take the core's answer to `status`; members that are not there are left as they were."""
        rows = status.get("functions")
        if isinstance(rows, list):
            self.functions = tuple(function_row(row) for row in rows if isinstance(row, dict))
        spool = status.get("spool")
        if isinstance(spool, dict):
            self.spooled = int(spool.get("messages", 0))

    def problem(self, text: str) -> None:
        """Note something that went wrong, once."""
        text = printable(text)
        if text not in self.problems and len(self.problems) < _PROBLEMS_MAX:
            self.problems.append(text)

    def tick(self, now_s: float) -> None:
        """Work out messages per second since the last call."""
        if self._rated_at is not None and now_s > self._rated_at:
            for flow in self.flows:
                flow.rate = (flow.count - flow.counted_before) / (now_s - self._rated_at)
        for flow in self.flows:
            flow.counted_before = flow.count
        self._rated_at = now_s

    # --- what comes out ---

    @property
    def complete(self) -> bool:
        """Whether every expected flow was seen, no closed one was, and nothing else went wrong."""
        return all(flow.as_expected for flow in self.flows) and not self.problems

    @property
    def messages(self) -> int:
        """Messages that arrived at devices and functions."""
        return sum(flow.count for flow in self.flows if flow is not self.calls)

    @property
    def invocations(self) -> int:
        """Function invocations, by the core's count."""
        return sum(row.invocations for row in self.functions)

    def screen(self, elapsed_s: float, width: int) -> list[str]:
        """The live table, each line at most `width` characters."""
        lines = [f"{TITLE}, {elapsed_s:.0f} s   (Ctrl-C ends it)", ""]
        lines.append(f"{'topic':21}{'from → to':23}{'msg/s':>7}{'total':>8}{'p50 ms':>9}{'p99 ms':>9}  last value")
        for flow in self.flows:
            way = f"{flow.source} {'╳' if flow.closed else '→'} {flow.target}"
            last = "closed: not in the table" if flow.closed and not flow.count else flow.last
            numbers = f"{flow.rate:7.1f}{flow.count:8}{_percentiles(flow.latencies_us)}"
            lines.append(f"{flow.topic:21}{way:23}{numbers}  {last}")
        lines += ["", f"{'function':21}{'state':23}{'calls':>7}{'errors':>8}{'p50 ms':>9}{'p99 ms':>9}"]
        for row in self.functions:
            times = f"{_number(row.p50_ms):>9}{_number(row.p99_ms):>9}"
            lines.append(f"{row.name:21}{row.state:23}{row.invocations:7}{row.errors:8}{times}")
        lines += ["", f"waiting for the cloud: {self.spooled} messages (there is none in this demo)"]
        lines += [f"! {problem}" for problem in self.problems]
        return [line[:width] for line in lines]

    def line(self, elapsed_s: float) -> str:
        """The same second as one line, for a log."""
        open_flows = [flow for flow in self.flows if not flow.closed]
        counts = "  ".join(f"{flow.topic.removeprefix('coldroom/')}>{flow.target} {flow.count}" for flow in open_flows)
        return f"{elapsed_s:5.1f} s  {counts}  invocations {self.invocations}  {_p50_p99(self.averages)}"

    def summary(self) -> list[str]:
        """The end: totals, then each flow with seen or not."""
        every = [sample for flow in (self.averages, self.direct, self.alarms) for sample in flow.latencies_us]
        lines = [
            f"{self.messages} messages, {self.invocations} function invocations, {len(every)} measured from end to end",
            f"device → function → device: {_p50_p99(self.averages)}; device → device: {_p50_p99(self.direct)}",
            f"{self.spooled} messages wait for the cloud",
        ]
        for flow in self.flows:
            way = f"{flow.source} → {flow.target}"
            lines.append(f"flow {flow.topic:22}{way:26}{flow.count:7} messages  {_verdict(flow)}")
        return [*lines, *(f"! {problem}" for problem in self.problems)]


def function_row(row: Mapping[str, Any]) -> FunctionRow:
    """One row of the core's status, whatever of it is there."""
    return FunctionRow(
        name=printable(str(row.get("name", "?"))),
        state=printable(str(row.get("state", ""))),
        invocations=int(row.get("invocations") or 0),
        errors=int(row.get("errors") or 0),
        p50_ms=row.get("p50_ms"),
        p99_ms=row.get("p99_ms"),
    )


def percentile(samples: Iterable[int], percent: int) -> float | None:
    """The nearest-rank percentile in milliseconds of samples in microseconds; None without samples."""
    ordered = sorted(samples)
    if not ordered:
        return None
    return ordered[max(0, math.ceil(len(ordered) * percent / 100) - 1)] / 1_000


def printable(text: str) -> str:
    """`text` without anything a terminal would act upon."""
    return "".join(letter if letter.isprintable() else "·" for letter in text)


def number_in(payload: str, member: str) -> int:
    """A whole number out of a JSON message, 0 if it is not there."""
    try:
        value = json.loads(payload)[member]
    except (ValueError, TypeError, KeyError):
        return 0
    return value if type(value) is int else 0


def redraw(lines: Sequence[str], lines_before: int) -> str:
    """Terminal codes that put `lines` in the place of the `lines_before` drawn last."""
    up = f"\x1b[{lines_before}A" if lines_before else ""
    return up + "\r" + "".join(f"\x1b[2K{line}\n" for line in lines) + "\x1b[J"


def _verdict(flow: Flow) -> str:
    if flow.closed:
        return "NOT ALLOWED, BUT SEEN" if flow.count else "none, as the table has no line for it"
    return "seen" if flow.count else "NOT SEEN"


def _percentiles(samples: Iterable[int]) -> str:
    kept = list(samples)
    return f"{_number(percentile(kept, 50)):>9}{_number(percentile(kept, 99)):>9}"


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.2f}"


def _p50_p99(flow: Flow) -> str:
    return ", ".join(f"p{rank} {_number(percentile(flow.latencies_us, rank))} ms" for rank in (50, 99))
