"""Text of others on a person's terminal: file names, what functions print and return, errors with all of it in them."""

from __future__ import annotations

import sys


def printable(text: str, keep: str = "") -> str:
    """The text with everything escaped that would do something to a terminal, but the characters of `keep`."""
    return "".join(c if c.isprintable() or c in keep else c.encode("unicode_escape").decode("ascii") for c in text)


def for_output(text: str) -> str:
    """Lines for standard output: made harmless for a terminal, as they are for a file or another program."""
    return printable(text, keep="\n\t") if sys.stdout.isatty() else text
