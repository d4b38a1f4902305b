"""The README's commands do what it says: every ```console block is run, or says why not.

    <!-- test: run -->                      the block below is run, in an empty directory
    <!-- test: run in the checkout -->      the block below is run where the reader's checkout is
    <!-- test: no, because ... -->          it is not, and this is why

In a block, a line starting with `$ ` is a command (a line ending in a backslash goes on in the next one, which
starts with `> `), and the lines below it are what it prints; `...` stands for any text within a line, a line of its
own `...` for any lines. A command without lines below it must merely succeed. All blocks that are run share one
shell and one directory, in order, as a reader would work; the programs of the environment are first on PATH.
"""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

README = Path(__file__).resolve().parents[2] / "README.md"
BLOCK = re.compile(r"(?P<before>[^\n]*)\n```console\n(?P<body>.*?)^```$", re.MULTILINE | re.DOTALL)
MARK = re.compile(r"<!-- test: (?:(?P<run>run)(?P<checkout> in the checkout)?|no, because (?P<reason>\S.*)) -->")
COMMAND_TIMEOUT_S = 300  # the longest thing a reader is asked to wait for, on a slow machine


@dataclass(frozen=True)
class Step:
    """One command and the lines that must come of it."""

    command: str
    expected: tuple[str, ...]


def blocks(text: str) -> Iterator[tuple[int, str, str]]:
    """(line number, the line before the block, its body) of every console block."""
    for match in BLOCK.finditer("\n" + text):
        yield text.count("\n", 0, max(match.start("body") - 1, 0)), match["before"], match["body"]


def steps(body: str) -> list[Step]:
    """The commands of one block; raises ValueError if it starts with something else."""
    found: list[tuple[str, list[str]]] = []
    for line in body.splitlines():
        if line.startswith("$ "):
            found.append((line[2:], []))
        elif not found:
            raise ValueError(f"a console block starts with a command (`$ ...`), found {line!r}")
        elif line.startswith("> ") and found[-1][0].endswith("\\") and not found[-1][1]:
            found[-1] = (f"{found[-1][0]}\n{line[2:]}", [])
        else:
            found[-1][1].append(line)
    return [Step(command, tuple(lines)) for command, lines in found]


def matches(expected: tuple[str, ...], printed: str) -> bool:
    """Whether `printed` is what the README shows, `...` standing for anything."""
    pattern = ""
    for line in expected:
        if line.strip() == "...":
            pattern += r"(?:.*\n)*?"
        else:
            pattern += r".*?".join(re.escape(part) for part in line.rstrip().split("...")) + r"[ \t]*\n"
    text = printed if printed.endswith("\n") or not printed else printed + "\n"
    return re.fullmatch(pattern, text) is not None


def marked_to_run(text: str) -> list[tuple[int, str, bool]]:
    """(line number, body, whether in the checkout) of the blocks to run; ValueError for a block without a mark."""
    found = []
    for line, before, body in blocks(text):
        mark = MARK.fullmatch(before.strip())
        if mark is None:
            raise ValueError(f"line {line}: mark the console block with <!-- test: run --> or no, because ...")
        if mark["run"]:
            found.append((line, body, bool(mark["checkout"])))
    return found


SAMPLE = """# x
<!-- test: run -->
```console
$ echo one \\
> two
one two
$ true
```

<!-- test: no, because it reboots -->
```console
$ reboot
```
"""


def test_the_reader_of_blocks() -> None:
    assert marked_to_run(SAMPLE) == [(3, "$ echo one \\\n> two\none two\n$ true\n", False)]
    assert steps("$ echo one \\\n> two\none two\n$ true\n") == [
        Step("echo one \\\ntwo", ("one two",)),
        Step("true", ()),
    ]
    with pytest.raises(ValueError, match="line 2"):
        marked_to_run("# x\n```console\n$ true\n```\n")
    with pytest.raises(ValueError, match="starts with a command"):
        steps("true\n")


@pytest.mark.parametrize(
    ("expected", "printed", "same"),
    [
        (("PID: ...",), "PID: 12\n", True),
        (("PID: ...",), "PID: 12\nmore\n", False),
        (("a", "...", "z"), "a\nb\nc\nz\n", True),
        (("a", "...", "z"), "a\nz\n", True),
        (("a", "..."), "a", True),
        (("a (b)?",), "a b\n", False),
    ],
)
def test_elided_output(expected: tuple[str, ...], printed: str, same: bool) -> None:
    assert matches(expected, printed) is same


def test_every_block_of_the_readme_is_marked() -> None:
    for _, body, _ in marked_to_run(README.read_text(encoding="utf-8")):
        assert steps(body)


def test_the_readme_commands_do_what_it_says(open_directory: Path) -> None:
    """One shell runs the whole page; a line with a unique word and the status ends each command's output."""
    marked = marked_to_run(README.read_text(encoding="utf-8"))
    todo = [(line, step, where) for line, body, where in marked for step in steps(body)]
    assert todo, "the README has no command that is run"
    environment = dict(os.environ, PATH=f"{Path(sys.executable).parent}:{os.environ['PATH']}", LC_ALL="C.UTF-8")
    end = "ggfast-readme-step-ended"
    for name in ("MAKEFLAGS", "MFLAGS", "MAKELEVEL"):  # of the make that may run this test
        environment.pop(name, None)
    script = "".join(
        f"{{ {f'cd {shlex.quote(str(README.parent))}; ' if in_checkout else ''}{step.command}\n"
        f"}} </dev/null 2>&1; echo {end} $?; cd {shlex.quote(str(open_directory))}\n"
        for _, step, in_checkout in todo
    )
    shell = ["timeout", "--kill-after=5", str(COMMAND_TIMEOUT_S), "bash", "-c", script]
    done = subprocess.run(
        shell, cwd=open_directory, env=environment, stdout=subprocess.PIPE, text=True, check=False, errors="replace"
    )
    parts = re.split(rf"{end} (\d+)\n", done.stdout)
    outcomes = list(zip(parts[0::2], parts[1::2], strict=False))
    for number, (line, step, _) in enumerate(todo):
        where = f"README.md, console block at line {line}: $ {step.command}"
        assert number < len(outcomes), f"{where}\ndid not end within {COMMAND_TIMEOUT_S} s:\n{parts[-1]}"
        printed, status = outcomes[number]
        assert status == "0", f"{where}\nended with status {status}:\n{printed}"
        if step.expected:
            shown = "\n".join(step.expected)
            assert matches(step.expected, printed), f"{where}\nprinted:\n{printed}\nREADME shows:\n{shown}"
