"""Runtimes and handlers by name: which language a runtime id asks for, and what its handlers look like.

Source: greengrass-core 6.2 (ids, handlers), 17.1 (executables). Pure; which program runs a language is
core/functions/runtimes.py.
"""

from __future__ import annotations

import re
import shlex
from enum import StrEnum
from typing import Final

EXECUTABLE_RUNTIME: Final = "arn:aws:greengrass:::runtime/function/executable"
RUNTIMES_EXPECTED: Final = f"python3.x, python2.7, nodejs<version>, java<version> or {EXECUTABLE_RUNTIME}"


class Language(StrEnum):
    """What a function is written in, as far as starting it goes."""

    PYTHON = "python"
    NODEJS = "nodejs"
    JAVA = "java"
    EXECUTABLE = "executable"


_RUNTIMES: Final = {
    Language.PYTHON: re.compile(r"python(2\.7|3(\.[0-9]{1,2})?)"),
    Language.NODEJS: re.compile(r"nodejs([0-9]{1,2}(\.(x|[0-9]{1,2}))?)?"),
    Language.JAVA: re.compile(r"java[0-9]{1,2}(\.al2)?"),
}
_HANDLERS: Final = {
    Language.PYTHON: (
        re.compile(r"(?=.{3,1024}$)[A-Za-z0-9_-]+([./][A-Za-z0-9_-]+)*\.[A-Za-z_][A-Za-z0-9_]*"),
        "module.function, the module's file in the package",
    ),
    Language.NODEJS: (
        re.compile(r"(?=.{3,1024}$)(?!/)(?!(.*/)?\.\.?/)[A-Za-z0-9_./-]+\.[A-Za-z_$][A-Za-z0-9_$]*"),
        "file.exportedFunction, the file in the package",
    ),
    Language.JAVA: (
        re.compile(r"(?=.{1,1024}$)[A-Za-z_$][\w$]*(\.[A-Za-z_$][\w$]*)*(::[A-Za-z_$][\w$]*)?"),
        "package.Class::method, or package.Class with a method handleRequest",
    ),
    Language.EXECUTABLE: (
        re.compile(r"(?=.{1,1024}$)[A-Za-z0-9_.+-]+(/[A-Za-z0-9_.+-]+)*"),
        "the name of the executable file in the package",
    ),
}


def language_of(runtime: str) -> Language | None:
    """The language of a runtime id, None for an id nobody knows."""
    if runtime == EXECUTABLE_RUNTIME:
        return Language.EXECUTABLE
    return next((language for language, pattern in _RUNTIMES.items() if pattern.fullmatch(runtime)), None)


def has_words(text: str) -> bool:
    """Whether text can be taken apart into words as a shell does it."""
    try:
        shlex.split(text)
    except ValueError:
        return False
    return True


def handler_fault(language: Language, handler: str) -> str:
    """What a handler of this language looks like, if `handler` does not; else empty."""
    pattern, expected = _HANDLERS[language]
    parts = handler.split("/")
    return "" if pattern.fullmatch(handler) and "." not in parts and ".." not in parts else expected
