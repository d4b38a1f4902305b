"""Severity levels of log lines, in Greengrass' words (greengrass-core 14.1)."""

from __future__ import annotations

from enum import IntEnum


class Level(IntEnum):
    """Severity; a threshold lets through itself and everything above."""

    DEBUG = 10
    INFO = 20
    WARN = 30
    ERROR = 40
    FATAL = 50
