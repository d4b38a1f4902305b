"""`ggfast-core logs [-f] FUNCTION`: what a function printed, from the files on disk, also of a core that is stopped.

FUNCTION may be a function's name or ARN, or `system` or a component of it (`system/runtime`) for the core's own log.
"""

from __future__ import annotations

import argparse
import io
import os
import sys
import time
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TextIO

from ggfast import limits
from ggfast.cli.terminal import for_output
from ggfast.config import load_config
from ggfast.errors import OperatingError
from ggfast.layout import DEFAULT_ROOT, Layout
from ggfast.plainfile import open_plain


@dataclass(frozen=True, slots=True)
class Place:
    """How far a log was read: which file, and where in it."""

    inode: int = -1
    position: int = 0


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of logs."""
    parser.add_argument("function", metavar="FUNCTION", help="a function's name or ARN, or system/COMPONENT")
    parser.add_argument("-f", "--follow", action="store_true", help="go on with new lines until Ctrl-C")
    parser.add_argument(
        "-n", "--lines", type=int, default=limits.LOG_LINES_SHOWN, metavar="N", help="last lines (default %(default)s)"
    )
    parser.add_argument("--root", type=Path, default=DEFAULT_ROOT, help="Greengrass root (default %(default)s)")


def run(arguments: argparse.Namespace) -> int:
    """Print the last lines, and new ones with --follow. Raises OperatingError if there is no such log."""
    layout = load_config(arguments.root).layout
    path = find_log(layout, arguments.function, may_come=arguments.follow)
    lines, place = last_lines(path, max(arguments.lines, 0))
    sys.stdout.write(for_output("".join(lines)))
    sys.stdout.flush()
    if arguments.follow:
        for text in follow(path, place):
            sys.stdout.write(for_output(text))
            sys.stdout.flush()
    return 0


def find_log(layout: Layout, name: str, *, may_come: bool = False) -> Path:
    """The log file of a function or component. Raises OperatingError naming what there is."""
    found = _candidates(layout, name)
    if len(found) == 1:
        return found[0]
    if len(found) > 1:
        named = ", ".join(f"{path.parent.parent.name}:{path.parent.name}:{path.stem}" for path in found)
        raise OperatingError(f"{name} has logs in several accounts or regions.", hint=f"Give an ARN of: {named}.")
    expected = _expected(layout, name)
    if may_come and expected is not None:
        return expected
    there = sorted({path.stem for path in layout.user_logs.glob("*/*/*.log")})
    there += sorted(f"system/{path.stem}" for path in layout.system_logs.glob("*.log"))
    hint = f"There are: {', '.join(there)}." if there else f"{layout.logs} holds no log yet."
    raise OperatingError(f"There is no log of {name}.", hint=hint)


def last_lines(path: Path, count: int) -> tuple[list[str], Place]:
    """The last `count` lines of a log and its rotated parts, oldest first, and how far that went."""
    kept: deque[str] = deque(maxlen=count)
    place = Place()
    for part in _parts(path):
        try:
            with _open_log(part) as file:
                while line := file.readline():
                    kept.append(line)
                place = Place(os.fstat(file.fileno()).st_ino, file.tell())
        except OSError:
            continue  # rotated away meanwhile
    return list(kept), place


def follow(path: Path, place: Place, *, pause_s: float = limits.LOG_FOLLOW_S) -> Iterator[str]:
    """What was appended to `path` since `place`, also after rotations; never ends. A log need not be there yet."""
    file: TextIO | None = None
    try:
        while True:
            if file is None:
                file = _open_at(path, place)
            if file is not None:
                yield from iter(lambda file=file: file.read(limits.LOG_READ_CHARACTERS), "")  # type: ignore[misc]
                if _rotated(path, file):
                    yield file.read()  # what came between the last look and the rotation
                    file.close()
                    file, place = None, Place()
                    continue
            time.sleep(pause_s)
    finally:
        if file is not None:
            file.close()


def _open_at(path: Path, place: Place) -> TextIO | None:
    """The log from `place` on; from its beginning if it is another file by now; None if there is none."""
    try:
        file = _open_log(path)
    except OSError:
        return None
    if os.fstat(file.fileno()).st_ino == place.inode:
        file.seek(place.position)
    return file


def _open_log(path: Path) -> TextIO:
    """A log as text. Its directory is the daemon's: what is a link or a pipe there is not read as root."""
    return io.TextIOWrapper(open_plain(path, follow_links=False), encoding="utf-8", errors="replace")


def _rotated(path: Path, file: TextIO) -> bool:
    try:
        return os.stat(path).st_ino != os.fstat(file.fileno()).st_ino
    except OSError:
        return False  # between the two steps of a rotation: look again


def _candidates(layout: Layout, name: str) -> list[Path]:
    expected = _expected(layout, name)
    if expected is not None:
        return [expected] if expected.exists() else []
    return sorted(path for path in layout.user_logs.glob("*/*/*.log") if path.stem == name.partition(":")[0])


def _expected(layout: Layout, name: str) -> Path | None:
    """The file of a name that leaves no choice: a component, or a whole ARN."""
    if name == "system":
        return layout.system_logs / "runtime.log"
    parts = name.split("/")
    if parts[0] == "system" and len(parts) == 2 and parts[1] not in ("", ".", ".."):
        return layout.system_logs / f"{parts[1]}.log"
    words = name.split(":")
    if len(words) >= 7 and words[0] == "arn" and "/" not in name:
        return layout.user_logs / words[3] / words[4] / f"{words[6]}.log"
    return None


def _parts(path: Path) -> list[Path]:
    """The rotated parts of a log, oldest first, then the log itself."""
    numbered = []
    for part in path.parent.glob(f"{path.name}.*"):
        suffix = part.name[len(path.name) + 1 :]
        if suffix.isdecimal():
            numbered.append((int(suffix), part))
    return [part for _, part in sorted(numbered, reverse=True)] + [path]
