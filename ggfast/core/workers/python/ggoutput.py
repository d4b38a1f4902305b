"""What a function prints and logs: one stream (fd 1) for print and `logging`, so that their order is kept.

A logging record is a line that begins with RECORD and the first letter of its level; line ends inside it are
written as LINE_END, so that a traceback stays one record. The daemon turns both into log lines: print is
INFO, a record keeps its level, fd 2 is ERROR (greengrass-core 6.6).
"""

import logging
import sys

RECORD = "\x1e"
LINE_END = "\x1d"
LEVELS = {"DEBUG": 10, "INFO": 20, "WARN": 30, "ERROR": 40, "FATAL": 50}

_FORMATTER = logging.Formatter("%(filename)s:%(lineno)d,%(message)s")  # made in the image: every worker shares it


class RecordHandler(logging.Handler):
    """Writes records to the function's own output, whatever `sys.stdout` has been replaced by."""

    def __init__(self, stream):
        logging.Handler.__init__(self)
        self._stream = stream
        self.formatter = _FORMATTER

    def emit(self, record):
        try:
            write_record(self._stream, record.levelno, self.format(record))
        except Exception:
            self.handleError(record)


def write_record(stream, level, text):
    """One record of any number of lines; `level` as in `logging`."""
    letter = "F" if level >= 50 else "E" if level >= 40 else "W" if level >= 30 else "I" if level >= 20 else "D"
    stream.write(RECORD + letter + text.replace("\n", LINE_END) + "\n")


def install(level):
    """Point print, stderr and the root logger at fds 1 and 2; returns the stream on fd 1."""
    sys.stdout = sys.__stdout__ = _line_stream(1)
    sys.stderr = sys.__stderr__ = _line_stream(2)
    logging.raiseExceptions = False
    root = logging.getLogger()
    root.handlers[:] = [RecordHandler(sys.stdout)]
    root.setLevel(LEVELS.get(level, 20))
    return sys.stdout


def flush():
    """Push out what print(end="") left in the buffers; a broken pipe at the end is nobody's concern."""
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except Exception:
            pass


def _line_stream(fd):
    return open(fd, "w", 1, "utf-8", "backslashreplace", closefd=False)
