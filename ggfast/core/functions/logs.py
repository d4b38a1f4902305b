"""From a worker's log pipe to the function's log: bytes to lines, lines to levels.

    print("x")             x\\n                               level of the pipe: stdout INFO, stderr ERROR
    logging.warning("a")   \\x1e W file.py:3,a \\n             level of the record
    a traceback            \\x1e E first \\x1d second \\n       one record, its line ends written as \\x1d

A function may print without end: lines are cut, a pipe has a rate, above it lines are thrown away unseen and
counted, and far above it the pipe is not read for the rest of the second, so that the function waits in its
print and the daemon's time stays its own.
"""

from __future__ import annotations

import asyncio
import os
from typing import Final, Protocol

from ggfast import limits
from ggfast.clock import Clock
from ggfast.counters import Counters
from ggfast.log import Level

_READ_BYTES: Final = 65_536
_RECORD: Final = b"\x1e"
_LINE_END: Final = b"\x1d"
_LEVELS: Final = {
    b"D"[0]: Level.DEBUG,
    b"I"[0]: Level.INFO,
    b"W"[0]: Level.WARN,
    b"E"[0]: Level.ERROR,
    b"F"[0]: Level.FATAL,
}


class LineSink(Protocol):
    """Where lines go: the function's log."""

    def write(self, level: Level, text: str) -> None:
        """Take one record of one or more lines; never raises, never blocks for long."""


class LogPipe:
    """Reads one pipe until its end; owns `fd`. `close` may be called at any time, also twice."""

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        clock: Clock,
        counters: Counters,
        fd: int,
        level: Level,
        sink: LineSink,
    ) -> None:
        os.set_blocking(fd, False)
        self._loop = loop
        self._clock = clock
        self._counters = counters
        self._fd = fd
        self._level = level
        self._sink = sink
        self._partial = b""
        self._cutting = False
        self._window = clock.monotonic()
        self._window_bytes = 0
        self._lost_lines = 0
        self._timer: asyncio.TimerHandle | None = None
        loop.add_reader(fd, self._readable)

    def drain(self) -> None:
        """Read what a dead worker left in the pipe, then close it."""
        for _ in range(limits.LOG_PIPE_BYTES_PER_S // _READ_BYTES):
            if self._fd < 0 or not self._read():
                break
        self.close()

    def close(self) -> None:
        """Write what is left of a line and let go of the pipe."""
        if self._fd < 0:
            return
        self._loop.remove_reader(self._fd)
        os.close(self._fd)
        self._fd = -1
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self._partial:
            self._line(self._partial)
            self._partial = b""
        self._report()

    def _readable(self) -> None:
        if self._read() and self._window_bytes > limits.LOG_PIPE_DISCARD_BYTES_PER_S:
            self._loop.remove_reader(self._fd)
            self._timer = self._loop.call_later(1.0, self._resume)

    def _resume(self) -> None:
        self._timer = None
        self._report()
        self._loop.add_reader(self._fd, self._readable)

    def _read(self) -> bool:
        """One read; False when nothing was there or the pipe has ended."""
        try:
            data = os.read(self._fd, _READ_BYTES)
        except BlockingIOError:
            return False
        except OSError:
            data = b""
        if not data:
            self.close()
            return False
        now = self._clock.monotonic()
        if now - self._window >= 1.0:
            self._window, self._window_bytes = now, 0
            self._report()
        self._window_bytes += len(data)
        if self._window_bytes > limits.LOG_PIPE_BYTES_PER_S:
            self._discard(data)
        else:
            self._take(data)
        return True

    def _take(self, data: bytes) -> None:
        lines = data.split(b"\n")
        if self._cutting and len(lines) > 1:
            lines[0], self._cutting = b"", False
            del lines[0]
        elif self._cutting:
            return
        else:
            lines[0] = self._partial + lines[0]
        self._partial = lines.pop()
        for line in lines:
            self._line(line)
        if len(self._partial) > limits.LOG_PIPE_LINE_BYTES_MAX:
            self._line(self._partial)
            self._partial = b""
            self._cutting = True

    def _discard(self, data: bytes) -> None:
        """Throw a piece away; the line it begins in and the one it ends in are incomplete and go with it."""
        self._lost_lines += data.count(b"\n") + (1 if self._partial else 0)
        self._partial = b""
        self._cutting = not data.endswith(b"\n")

    def _line(self, line: bytes) -> None:
        if _RECORD not in line:
            self._sink.write(self._level, _text(line))
            return
        before, _, record = line.partition(_RECORD)
        if before:
            self._sink.write(self._level, _text(before))
        level = _LEVELS.get(record[0]) if record else None
        if level is None:
            self._sink.write(self._level, _text(record))
        else:
            self._sink.write(level, _text(record[1:].replace(_LINE_END, b"\n")))

    def _report(self) -> None:
        lost, self._lost_lines = self._lost_lines, 0
        if lost:
            self._counters.add("functions.log.dropped_lines", lost)
            self._sink.write(Level.WARN, f"{lost} lines dropped: the function prints faster than its log is written")


def _text(line: bytes) -> str:
    return line[: limits.LOG_PIPE_LINE_BYTES_MAX].decode("utf-8", "backslashreplace")
