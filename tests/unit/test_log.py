"""Log files: names, format, one line per record, space, rate, and a disk that refuses."""

from __future__ import annotations

import json
import logging
import os
import re
import resource
import signal
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from ggfast import limits
from ggfast.counters import Counters
from ggfast.log import FunctionLog, Level, LogRule, Logs, RotatingFile, SystemLog, bridge_standard_logging

LINE = re.compile(r"\[\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z\]\[(DEBUG|INFO|WARN|ERROR|FATAL)\]-(.*)")


class Hand:
    """A clock that is turned by hand; 2018-01-17T21:14:01.318Z at first."""

    def __init__(self) -> None:
        self.now = 0.0

    def monotonic(self) -> float:
        return self.now

    def wall(self) -> float:
        return 1_516_223_641.3185 + self.now


@pytest.fixture
def clock() -> Hand:
    return Hand()


@pytest.fixture
def counters() -> Counters:
    return Counters()


@pytest.fixture
def logs(tmp_path: Path, clock: Hand, counters: Counters) -> Iterator[Logs]:
    made = Logs(tmp_path, clock, counters, lines_per_s=100)
    yield made
    made.close()


@contextmanager
def file_size_limit(size: int) -> Iterator[None]:
    """Writes beyond `size` bytes of any file are cut off, then refused, as on a full disk."""
    before, handler = resource.getrlimit(resource.RLIMIT_FSIZE), signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        signal.signal(signal.SIGXFSZ, handler)


def total_bytes(file: Path) -> int:
    return sum(part.stat().st_size for part in file.parent.glob(file.name + "*"))


def lines_of(file: Path) -> list[str]:
    """Every line of a log and its older parts, oldest first."""
    parts = sorted(file.parent.glob(file.name + ".*"), key=lambda part: -int(part.suffix[1:]))
    return [line for part in (*parts, file) for line in part.read_text().splitlines()]


def test_system_line(logs: Logs, tmp_path: Path) -> None:
    logs.system("runtime").info("Created worker.", functionArn="arn:x", pid=123, more=None)
    expected = '[2018-01-17T21:14:01.318Z][INFO]-Created worker.\t{"functionArn": "arn:x", "pid": 123, "more": null}\n'
    assert (tmp_path / "system" / "runtime.log").read_text() == expected


def test_function_line(logs: Logs, tmp_path: Path) -> None:
    logs.function("eu-west-1", "123456789012", "hello").write(Level.INFO, "started : 305964\n")
    file = tmp_path / "user" / "eu-west-1" / "123456789012" / "hello.log"
    assert file.read_text() == "[2018-01-17T21:14:01.318Z][INFO]-started : 305964\n"
    assert stat.S_IMODE(file.stat().st_mode) == 0o600


@pytest.mark.parametrize(
    ("late", "names"),
    [
        (True, ["GGConnManager", "GGShadowService", "router", "runtime"]),
        (False, ["connection_manager", "router", "runtime", "shadow_service"]),
    ],
)
def test_file_names_by_version(late: bool, names: list[str], tmp_path: Path, clock: Hand, counters: Counters) -> None:
    logs = Logs(tmp_path, clock, counters, late_names=late)
    for component in ("runtime", "router", "connection_manager", "shadow_service"):
        logs.system(component).error("x")
    logs.close()
    assert sorted(file.stem for file in (tmp_path / "system").iterdir()) == names


def test_thresholds(logs: Logs, tmp_path: Path) -> None:
    runtime, function = logs.system("runtime"), logs.function("eu-west-1", "123456789012", "f")
    logs.configure(LogRule(Level.WARN), LogRule(Level.ERROR))
    for log in (runtime.debug, runtime.info, runtime.warn, runtime.error, runtime.fatal):
        log("x")
    for level in Level:
        function.write(level, "y")
    levels = [LINE.fullmatch(line)[1] for line in lines_of(tmp_path / "system" / "runtime.log")]  # type: ignore[index]
    assert levels == ["WARN", "ERROR", "FATAL"]
    assert len(lines_of(tmp_path / "user/eu-west-1/123456789012/f.log")) == 2
    assert not runtime.enabled(Level.INFO)


def test_nothing_is_written_without_a_rule(logs: Logs, tmp_path: Path) -> None:
    logs.configure(None, None)
    logs.system("runtime").fatal("x")
    logs.function("eu-west-1", "123456789012", "f").write(Level.FATAL, "x")
    assert list(tmp_path.iterdir()) == []
    logs.configure(LogRule(), None)
    logs.system("runtime").info("back")
    assert "back" in (tmp_path / "system" / "runtime.log").read_text()


@pytest.mark.parametrize(
    "text",
    ["a\nb", "a\r\n[2018-01-17T21:14:01.318Z][FATAL]-forged", "\x1b[2J", "a\tb", "\0", "\x85\u2028\u2029", "\ud800"],
)
def test_one_system_record_is_one_line(text: str, logs: Logs, tmp_path: Path) -> None:
    logs.system("runtime").info(text, field=text, other={text: [text]})
    content = (tmp_path / "system" / "runtime.log").read_bytes()
    assert content.count(b"\n") == 1
    assert content.endswith(b"\n")
    line = content.decode()
    assert line.count("\t") == 1
    assert not re.search(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u2028\u2029]", line.removesuffix("\n"))
    assert LINE.fullmatch(line.removesuffix("\n"))
    fields = json.loads(line.partition("\t")[2])
    assert set(fields) == {"field", "other"}


def test_function_lines(logs: Logs, tmp_path: Path) -> None:
    logs.function("eu-west-1", "123456789012", "f").write(Level.ERROR, "a\tb\r\n\n\x07c\x1b[0m\nlast")
    texts = [LINE.fullmatch(line) for line in lines_of(tmp_path / "user/eu-west-1/123456789012/f.log")]
    assert [match and (match[1], match[2]) for match in texts] == [
        ("ERROR", "a\tb"),
        ("ERROR", ""),
        ("ERROR", "\\x07c\\x1b[0m"),
        ("ERROR", "last"),
    ]


def test_fields_that_are_no_json(logs: Logs, tmp_path: Path) -> None:
    cycle: list[object] = []
    cycle.append(cycle)
    logs.system("runtime").info("x", a={1, 2}, b={(1, 2): 3}, c=cycle, d=float("nan"))
    assert len(lines_of(tmp_path / "system" / "runtime.log")) == 1


@pytest.mark.parametrize("space", [1_024, 8_192, 131_072])
def test_space_is_kept_and_the_current_file_keeps_its_name(
    space: int, tmp_path: Path, clock: Hand, counters: Counters
) -> None:
    file = tmp_path / "f.log"
    log = SystemLog(file, LogRule(Level.INFO, space), clock, counters)
    number = 0
    written = 0
    while written < space * 3:
        log.info(f"{number} " + "x" * (number % 90))
        assert total_bytes(file) <= space
        written += 40 + number % 90
        number += 1
    found = [int(line.partition("]-")[2].split()[0]) for line in lines_of(file)]
    assert found == list(range(found[0], number)), "the newest lines, none missing in between"
    assert total_bytes(file) >= space * 2 // 4
    assert counters.snapshot() == {}
    for part in tmp_path.iterdir():
        assert stat.S_IMODE(part.stat().st_mode) == 0o600
    log.close()


def test_less_space_removes_older_parts(logs: Logs, tmp_path: Path) -> None:
    runtime = logs.system("runtime")
    for number in range(2_000):
        runtime.info("x" * 80, number=number)
    assert total_bytes(tmp_path / "system" / "runtime.log") > 64 * 1_024
    logs.configure(LogRule(Level.INFO, 4_096), None)
    for _ in range(2):
        runtime.info("after")
    assert total_bytes(tmp_path / "system" / "runtime.log") <= 4_096


def test_long_lines_are_cut(logs: Logs, tmp_path: Path) -> None:
    logs.system("runtime").info("é" * 40_000)
    line = (tmp_path / "system" / "runtime.log").read_text()
    assert len(line.encode()) <= limits.LOG_LINE_BYTES_MAX
    assert re.search(r"\.\.\. \(\d+ bytes more\)\n$", line)


def test_rate_limit_counts_what_it_drops(logs: Logs, tmp_path: Path, clock: Hand, counters: Counters) -> None:
    function = logs.function("eu-west-1", "123456789012", "f")
    function.write(Level.INFO, "\n".join(str(number) for number in range(250)))
    clock.now += 0.5
    function.write(Level.INFO, "\n".join(f"later {number}" for number in range(50)))
    function.write(Level.INFO, "lost")
    texts = [line.partition("]-")[2] for line in lines_of(tmp_path / "user/eu-west-1/123456789012/f.log")]
    assert texts == [*map(str, range(100)), "150 lines dropped", *(f"later {number}" for number in range(50))]
    assert counters.get("log.dropped.rate") == 151
    logs.close()
    assert lines_of(tmp_path / "user/eu-west-1/123456789012/f.log")[-1].endswith("[WARN]-1 lines dropped")


def test_rate_limit_in_bytes(tmp_path: Path, clock: Hand, counters: Counters) -> None:
    log = FunctionLog(tmp_path / "f.log", LogRule(Level.INFO, 1 << 30), clock, counters, 100_000)
    for _ in range(100):
        log.write(Level.INFO, "x" * 16_000)
    assert total_bytes(tmp_path / "f.log") <= limits.FUNCTION_LOG_BYTES_PER_S
    assert counters.get("log.dropped.rate") > 50
    log.close()


def test_full_disk_never_raises_and_is_told_afterwards(logs: Logs, tmp_path: Path, counters: Counters) -> None:
    runtime, function = logs.system("runtime"), logs.function("eu-west-1", "123456789012", "f")
    runtime.info("before")
    function.write(Level.INFO, "before")
    with file_size_limit(100):
        for number in range(5):
            runtime.info(f"while full {number}")
            function.write(Level.INFO, f"while full {number}\nand more")
    runtime.info("after")
    function.write(Level.INFO, "after")
    texts = [line.partition("]-")[2] for line in lines_of(tmp_path / "system" / "runtime.log")]
    kept = [text for text in texts if text.startswith("while full")]
    assert texts == ["before", *kept, f"{5 - len(kept)} lines dropped", "after"]
    assert 5 - len(kept) > 0
    for line in lines_of(tmp_path / "user/eu-west-1/123456789012/f.log"):
        assert LINE.fullmatch(line), "no torn line"
    assert counters.get("log.dropped.disk") >= 2


def test_dev_full_and_a_missing_directory(tmp_path: Path, clock: Hand, counters: Counters) -> None:
    SystemLog(Path("/dev/full"), LogRule(), clock, counters).info("x")
    (tmp_path / "file").write_text("")
    SystemLog(tmp_path / "file" / "x.log", LogRule(), clock, counters).info("x")
    assert counters.get("log.dropped.disk") == 2


def test_a_link_in_place_of_the_file_is_not_followed(logs: Logs, tmp_path: Path, counters: Counters) -> None:
    (tmp_path / "system").mkdir()
    (tmp_path / "target").write_text("precious")
    os.symlink(tmp_path / "target", tmp_path / "system" / "runtime.log")
    logs.system("runtime").info("x")
    assert (tmp_path / "target").read_text() == "precious"
    assert counters.get("log.dropped.disk") == 1


def test_a_removed_file_is_made_again(logs: Logs, tmp_path: Path) -> None:
    runtime = logs.system("runtime")
    runtime.info("one")
    (tmp_path / "system" / "runtime.log").unlink()
    runtime.info("two")
    assert [line.partition("]-")[2] for line in lines_of(tmp_path / "system" / "runtime.log")] == ["two"]


def test_one_log_per_function_whatever_its_version(logs: Logs) -> None:
    first = logs.function("eu-west-1", "123456789012", "f")
    assert logs.function("eu-west-1", "123456789012", "f") is first
    logs.forget_function("eu-west-1", "123456789012", "f")
    assert logs.function("eu-west-1", "123456789012", "f") is not first


def test_names_never_become_paths(logs: Logs) -> None:
    for bad in ("../x", "a/b", "", "."):
        with pytest.raises(AssertionError):
            logs.function("eu-west-1", "123456789012", bad)


def test_append_is_all_or_nothing(tmp_path: Path) -> None:
    file = RotatingFile(tmp_path / "f", 400)
    assert file.append(b"x" * 100)
    assert not file.append(b"y" * 101)
    file.close()
    assert b"y" not in b"".join(part.read_bytes() for part in tmp_path.iterdir())


def test_standard_logging_arrives(logs: Logs, tmp_path: Path) -> None:
    handler = bridge_standard_logging(logs.system("runtime"))
    try:
        logger = logging.getLogger("some.library")
        logger.warning("lost %s", "a\nb")
        try:
            raise ValueError("why")
        except ValueError:
            logger.exception("failed")
    finally:
        logging.getLogger().removeHandler(handler)
    handler.emit(logging.LogRecord("x", logging.CRITICAL, "f.py", 1, "%d", ("not a number",), None))
    lines = lines_of(tmp_path / "system" / "runtime.log")
    assert [line.partition("][")[2].partition("\t")[0] for line in lines] == [
        "WARN]-lost a\\nb",
        "ERROR]-failed",
        "FATAL]-%d",
    ]
    assert "ValueError: why" in json.loads(lines[1].partition("\t")[2])["traceback"]
