"""What a function prints and logs: one stream (fd 1) for print and `logging`, so that their order is kept.

A logging record is a line that begins with RECORD and the first letter of its level; line ends inside it are
written as LINE_END, so that a traceback stays one record. The daemon turns both into log lines: print is
INFO, a record keeps its level, fd 2 is ERROR (greengrass-core 6.6).
"""

import logging
import os
import sys

RECORD = "\x1e"
LINE_END = "\x1d"
LEVELS = {"DEBUG": 10, "INFO": 20, "WARN": 30, "ERROR": 40, "FATAL": 50}

_FORMATTER = logging.Formatter("%(filename)s:%(lineno)d,%(message)s")  # made in the image: every worker shares it


def _line_stream(fd):
    return open(fd, "w", 1, "utf-8", "backslashreplace", closefd=False)


def _streams():
    """The streams on fds 1 and 2, made in the image: 130 KB less of its own in each worker for each.

    A stream asks its descriptor what it is only when it is made, so both stand for a pipe meanwhile, as they will
    in the worker.
    """
    reader, writer = os.pipe()
    streams = []
    for fd in (1, 2):
        try:
            kept = os.dup(fd)
        except OSError:
            kept = -1
        os.dup2(writer, fd)
        streams.append(_line_stream(fd))
        if kept >= 0:
            os.dup2(kept, fd)
            os.close(kept)
        else:
            os.close(fd)
    os.close(reader)
    os.close(writer)
    return streams


_STDOUT, _STDERR = _streams()


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
    if sys.stdout is not _STDOUT:  # else the image has done it
        sys.stdout = sys.__stdout__ = _STDOUT
        sys.stderr = sys.__stderr__ = _STDERR
        logging.raiseExceptions = False
        logging.getLogger().handlers[:] = [RecordHandler(_STDOUT)]
    logging.getLogger().setLevel(LEVELS.get(level, 20))
    return _STDOUT


def flush():
    """Push out what print(end="") left in the buffers; a broken pipe at the end is nobody's concern."""
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except Exception:
            pass
