"""HOSTILE.md: which test holds which row of the hostile-function checklist, what stops it, with what result.

python -m tests.sandbox.hostile_table            writes the table beside this file
"""

from __future__ import annotations

import importlib
from pathlib import Path
from types import ModuleType

from tests.sandbox.hostile import Row

HERE = Path(__file__).parent
FOLDERS = ("sandbox", "e2e")
HEAD = """# What hostile functions try, and what they get

Written by `python -m tests.sandbox.hostile_table` from the tests; a test holds it to them and to the 56 rows of the
checklist (section 13 of the isolation reference). Each runs as `ggc_user` and as uid 0, but where its test says why
not. Files named `sandbox/` try one container, `e2e/` a whole core with its broker, its logs and other functions
beside. Result: what the function sees; for a user and uid 0 where they differ.

| row | attempt | stopped by | result | test |
|---|---|---|---|---|
"""


def modules() -> list[ModuleType]:
    """The test files of the checklist."""
    tests = HERE.parent
    paths = [path for folder in FOLDERS for path in sorted((tests / folder).glob("test_hostile_*.py"))]
    return [importlib.import_module(f"tests.{path.parent.name}.{path.stem}") for path in paths]


def rows() -> list[tuple[Row, str, str]]:
    """(row, file, test), by number."""
    found = []
    for module in modules():
        for name, value in vars(module).items():
            if name.startswith("test_row_"):
                file = "/".join(module.__name__.split(".")[1:]) + ".py"
                found += [(row, file, name) for row in getattr(value, "rows", ())]
    return sorted(found, key=lambda entry: (entry[0].number, entry[2]))


def table() -> str:
    """The whole file."""
    lines = [
        f"| {row.number} | {row.attempt} | {row.stopped_by} | {row.result} | `{file}` `{test}` |"
        for row, file, test in rows()
    ]
    return HEAD + "\n".join(lines) + "\n"


if __name__ == "__main__":
    (HERE / "HOSTILE.md").write_text(table())
