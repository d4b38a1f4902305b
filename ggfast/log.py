"""Log files as Greengrass users know them: names, line format, levels, space (greengrass-core 14).

    [2018-01-17T21:14:01.318Z][INFO]-Created worker.<TAB>{"functionArn": "...", "pid": 123}

One record is one line, whatever is in it: control characters are escaped. A component's current file keeps its
name; older parts are `<name>.log.1` (newest) and up, and all of them together stay within the component's space.
Files belong to their owner alone. Nothing is buffered: after a crash the last line is on disk. A full disk or a
function that prints too fast loses lines, never raises; the next line that gets through says how many were lost.
Payloads, tokens and keys do not belong in fields.
"""

from __future__ import annotations

import json
import logging
import os
import re
import time
from collections.abc import Iterator
from dataclasses import dataclass
from enum import IntEnum
from pathlib import Path
from typing import Final

from ggfast import limits
from ggfast.clock import Clock
from ggfast.counters import Counters

# Component → file name of early and of late versions (14.2); names V1 does not give are ours.
_FILE_NAMES: Final = {
    "runtime": ("runtime", "runtime"),
    "router": ("router", "router"),
    "connection_manager": ("connection_manager", "GGConnManager"),
    "certificate_manager": ("certificate_manager", "GGDeviceCertificateManager"),
    "ip_detector": ("ip_detector", "GGIPDetector"),
    "shadow_service": ("shadow_service", "GGShadowService"),
    "shadow_sync": ("shadow_sync", "GGShadowSyncManager"),
    "tes": ("tes", "GGTES"),
    "spooler": ("spooler", "GGCloudSpooler"),
}
_CONTROLS: Final = {
    code: f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}"
    for code in (*range(0x20), *range(0x7F, 0xA0), 0x2028, 0x2029)
} | {ord("\n"): "\\n", ord("\r"): "\\r", ord("\t"): "\\t"}
_CONTROLS_IN_JSON: Final = {code: f"\\u{code:04x}" for code in _CONTROLS}
_CONTROLS_BUT_TAB: Final = {code: text for code, text in _CONTROLS.items() if code != ord("\t")}
_PATH_PART: Final = re.compile(r"[A-Za-z0-9_-]{1,140}")


class Level(IntEnum):
    """Severity; a threshold lets through itself and everything above."""

    DEBUG = 10
    INFO = 20
    WARN = 30
    ERROR = 40
    FATAL = 50


@dataclass(frozen=True, slots=True)
class LogRule:
    """From which level lines are written, and how much space the files of one component may take."""

    level: Level = Level.INFO
    space_bytes: int = limits.LOG_SPACE_BYTES_DEFAULT


class RotatingFile:
    """A log file and its older parts, together at most `space_bytes`. Blocking, short writes only."""

    def __init__(self, path: Path, space_bytes: int) -> None:
        self.path = path
        self.space_bytes = space_bytes
        self._descriptor = -1

    @property
    def part_bytes(self) -> int:
        """Where the current file ends and the next begins."""
        return self.space_bytes // limits.LOG_PARTS

    def append(self, data: bytes) -> bool:
        """Write all of `data` or nothing; False if the disk refused or it is more than one part."""
        try:
            size = self._open()
            if size and size + len(data) > self.part_bytes:
                self._rotate()
                size = self._open()
            if size + len(data) > self.part_bytes:
                return False
            if os.write(self._descriptor, data) == len(data):
                return True
            os.ftruncate(self._descriptor, size)  # half a line would run into the next one
        except OSError:
            self.close()
        return False

    def sync(self) -> bool:
        """Wait until what was appended to the current file is on disk; False if the disk refused."""
        try:
            os.fsync(self._descriptor)
        except OSError:
            return False
        return True

    def close(self) -> None:
        """Let go of the file; the next append opens it again."""
        descriptor, self._descriptor = self._descriptor, -1
        if descriptor >= 0:
            os.close(descriptor)

    def _open(self) -> int:
        """Size of the open current file; opens or re-opens it if somebody removed it."""
        if self._descriptor >= 0:
            status = os.fstat(self._descriptor)
            if status.st_nlink:
                return status.st_size
            self.close()
        flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW
        try:
            self._descriptor = os.open(self.path, flags, 0o600)
        except FileNotFoundError:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self._descriptor = os.open(self.path, flags, 0o600)
        self._trim()
        return os.fstat(self._descriptor).st_size

    def _rotate(self) -> None:
        self.close()
        parts = [self._part(number) for number in range(limits.LOG_PARTS)]
        for older, newer in zip(reversed(parts), reversed(parts[:-1]), strict=False):
            try:
                os.replace(newer, older)
            except FileNotFoundError:
                continue

    def _trim(self) -> None:
        """Remove the oldest parts that no longer fit beside a full current file: space may have been lowered."""
        left = self.space_bytes - self.part_bytes
        for number in range(1, limits.LOG_PARTS):
            part = self._part(number)
            try:
                left -= part.stat().st_size
            except FileNotFoundError:
                continue
            if left < 0:
                part.unlink()

    def _part(self, number: int) -> Path:
        return self.path.with_name(f"{self.path.name}.{number}") if number else self.path


class _Writer:
    """What system and function logs share: a rule, a file, a count of lost lines."""

    def __init__(self, path: Path, rule: LogRule | None, clock: Clock, counters: Counters) -> None:
        self._path = path
        self._clock = clock
        self._counters = counters
        self._lost = 0
        self._second = -1
        self._prefix = ""
        self._file: RotatingFile | None = None
        self._threshold = Level.FATAL + 1
        self.apply(rule)

    def apply(self, rule: LogRule | None) -> None:
        """Follow another rule from now on; None writes nothing."""
        self.close()
        self._file = RotatingFile(self._path, rule.space_bytes) if rule else None
        self._threshold = rule.level if rule else Level.FATAL + 1

    def enabled(self, level: Level) -> bool:
        """Whether a line of this level would be written: ask before building an expensive one."""
        return level >= self._threshold

    def close(self) -> None:
        """Say what was lost and let go of the file."""
        if self._file is not None:
            if self._lost and self._file.append(self._line(Level.WARN, f"{self._lost} lines dropped")):
                self._lost = 0
            self._file.close()

    def _line(self, level: Level, text: str) -> bytes:
        now = self._clock.wall()
        second = int(now // 1)
        if second != self._second:
            self._second = second
            self._prefix = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(second))
        stamp = f"[{self._prefix}.{int((now - second) * 1_000):03d}Z][{level.name}]-"
        room = limits.LOG_LINE_BYTES_MAX
        if self._file is not None:
            room = min(room, self._file.part_bytes)
        return _cut(stamp.encode() + text.encode("utf-8", "backslashreplace"), room - 1) + b"\n"

    def _append(self, data: bytes) -> bool:
        """Write lines, preceded by the count of lost ones; False if the disk refused."""
        if self._file is None:
            return False
        if self._lost:
            if not self._file.append(self._line(Level.WARN, f"{self._lost} lines dropped")):
                return False
            self._lost = 0
        return self._file.append(data)

    def _lose(self, lines: int, reason: str) -> None:
        self._lost += lines
        self._counters.add(reason, lines)


class SystemLog(_Writer):
    """The log of one system component. Message is constant text, the variables are fields. Never raises."""

    def debug(self, message: str, /, **fields: object) -> None:
        """Write at DEBUG."""
        self.log(Level.DEBUG, message, **fields)

    def info(self, message: str, /, **fields: object) -> None:
        """Write at INFO."""
        self.log(Level.INFO, message, **fields)

    def warn(self, message: str, /, **fields: object) -> None:
        """Write at WARN."""
        self.log(Level.WARN, message, **fields)

    def error(self, message: str, /, **fields: object) -> None:
        """Write at ERROR."""
        self.log(Level.ERROR, message, **fields)

    def fatal(self, message: str, /, **fields: object) -> None:
        """Write at FATAL."""
        self.log(Level.FATAL, message, **fields)

    def log(self, level: Level, message: str, /, **fields: object) -> None:
        """Write one line if `level` is at least the threshold."""
        if not self.enabled(level):
            return
        text = message.translate(_CONTROLS)
        if fields:
            text += "\t" + _as_json(fields).translate(_CONTROLS_IN_JSON)
        if not self._append(self._line(level, text)):
            self._lose(1, "log.dropped.disk")


class FunctionLog(_Writer):
    """The log of one function (all its versions): what it prints. Rate-limited, never raises."""

    def __init__(self, path: Path, rule: LogRule | None, clock: Clock, counters: Counters, lines_per_s: int) -> None:
        super().__init__(path, rule, clock, counters)
        self._lines_per_s = lines_per_s
        self._lines_left = float(lines_per_s)
        self._bytes_left = float(limits.FUNCTION_LOG_BYTES_PER_S)
        self._filled_at = clock.monotonic()

    def write(self, level: Level, text: str) -> None:
        """Write each line of `text` as a line; a line feed at the very end does not make an empty one."""
        if self._file is None or not self.enabled(level):
            return
        lines = text.removesuffix("\n").split("\n")
        accepted = self._accept(level, lines)
        for batch in _batches(accepted, self._file.part_bytes):
            if not self._append(b"".join(batch)):
                self._lose(len(batch), "log.dropped.disk")
        if len(accepted) < len(lines):
            self._lose(len(lines) - len(accepted), "log.dropped.rate")

    def _accept(self, level: Level, lines: list[str]) -> list[bytes]:
        """The first of `lines` that the rate limit allows, as they go to the file."""
        now = self._clock.monotonic()
        passed, self._filled_at = now - self._filled_at, now
        self._lines_left = min(self._lines_left + passed * self._lines_per_s, self._lines_per_s)
        bytes_per_s = limits.FUNCTION_LOG_BYTES_PER_S
        self._bytes_left = min(self._bytes_left + passed * bytes_per_s, bytes_per_s)
        accepted = []
        for line in lines[: int(self._lines_left)]:
            encoded = self._line(level, line.removesuffix("\r").translate(_CONTROLS_BUT_TAB))
            if len(encoded) > self._bytes_left:
                break
            self._bytes_left -= len(encoded)
            accepted.append(encoded)
        self._lines_left -= len(accepted)
        return accepted


class Logs:
    """All log files of one core: hands out the logs of components and functions, applies the group's loggers."""

    def __init__(
        self,
        directory: Path,
        clock: Clock,
        counters: Counters,
        *,
        late_names: bool = True,
        lines_per_s: int = limits.FUNCTION_LOG_LINES_PER_S,
    ) -> None:
        """`directory` is Layout.logs; `late_names` and `lines_per_s` come from the configuration."""
        self._directory = directory
        self._clock = clock
        self._counters = counters
        self._late_names = late_names
        self._lines_per_s = lines_per_s
        self._system_rule: LogRule | None = LogRule()
        self._function_rule: LogRule | None = LogRule()
        self._systems: dict[str, SystemLog] = {}
        self._functions: dict[tuple[str, str, str], FunctionLog] = {}

    def system(self, component: str) -> SystemLog:
        """The log of a system component (`runtime`, `router`, `connection_manager`, …), the same one each time."""
        if component not in self._systems:
            name = _FILE_NAMES[component][self._late_names]
            path = self._directory / "system" / f"{name}.log"
            self._systems[component] = SystemLog(path, self._system_rule, self._clock, self._counters)
        return self._systems[component]

    def function(self, region: str, account: str, name: str) -> FunctionLog:
        """The log of a function, shared by its versions, the same one each time."""
        key = (region, account, name)
        if key not in self._functions:
            assert all(_PATH_PART.fullmatch(part) for part in key), f"not parts of a function ARN: {key}"
            path = self._directory / "user" / region / account / f"{name}.log"
            self._functions[key] = FunctionLog(
                path, self._function_rule, self._clock, self._counters, self._lines_per_s
            )
        return self._functions[key]

    def configure(self, system: LogRule | None, functions: LogRule | None) -> None:
        """Follow the loggers of a deployed group from now on; None: that side writes nothing."""
        self._system_rule, self._function_rule = system, functions
        for system_log in self._systems.values():
            system_log.apply(system)
        for function_log in self._functions.values():
            function_log.apply(functions)

    def forget_function(self, region: str, account: str, name: str) -> None:
        """Close the log of a function that left the group."""
        log = self._functions.pop((region, account, name), None)
        if log is not None:
            log.close()

    def forget_functions(self) -> None:
        """Close the logs of all functions: their files may be removed."""
        for log in self._functions.values():
            log.close()
        self._functions.clear()

    def close(self) -> None:
        """Write what is still to be said and close every file; logs may be used again afterwards."""
        for log in (*self._systems.values(), *self._functions.values()):
            log.close()


class StandardLogBridge(logging.Handler):
    """Brings lines of libraries that use the standard `logging` module into a system log, usually `runtime`."""

    def __init__(self, target: SystemLog) -> None:
        super().__init__()
        self._target = target

    def emit(self, record: logging.LogRecord) -> None:
        """One record is one line; a traceback travels as a field."""
        try:
            message = record.getMessage()
        except Exception:  # arguments that do not fit the text are the library's mistake, the text still helps
            message = str(record.msg)
        level = Level.FATAL if record.levelno >= logging.CRITICAL else Level(max(record.levelno // 10, 1) * 10)
        fields: dict[str, object] = {"logger": record.name}
        if record.exc_info:
            fields["traceback"] = logging.Formatter().formatException(record.exc_info)
        self._target.log(level, message, **fields)


def bridge_standard_logging(target: SystemLog) -> StandardLogBridge:
    """Send the root logger of `logging` to `target` from now on; `logging.getLogger().removeHandler` undoes it."""
    handler = StandardLogBridge(target)
    logging.getLogger().addHandler(handler)
    return handler


def _as_json(fields: dict[str, object]) -> str:
    try:
        return json.dumps(fields, default=str, ensure_ascii=False)
    except (TypeError, ValueError, RecursionError):  # keys of a nested dict, cycles: not worth losing the line
        return json.dumps({key: repr(value) for key, value in fields.items()}, ensure_ascii=False)


def _cut(line: bytes, room: int) -> bytes:
    """`line`, or its beginning and how much is missing."""
    if len(line) <= room:
        return line
    note = f"... ({len(line) - room} bytes more)".encode()
    return line[: max(room - len(note), 0)].decode("utf-8", "ignore").encode() + note


def _batches(lines: list[bytes], bytes_max: int) -> Iterator[list[bytes]]:
    """`lines` in groups that fit into `bytes_max` each."""
    batch: list[bytes] = []
    size = 0
    for line in lines:
        if batch and size + len(line) > bytes_max:
            yield batch
            batch, size = [], 0
        batch.append(line)
        size += len(line)
    if batch:
        yield batch
