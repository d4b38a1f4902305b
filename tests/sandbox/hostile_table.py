"""HOSTILE.md: which test holds which row of the hostile-function checklist, what stops it, with what result.

python -m tests.sandbox.hostile_table            writes the table beside this file
"""

from __future__ import annotations

import importlib
from pathlib import Path
from types import ModuleType

from tests.sandbox.hostile import Row

HERE = Path(__file__).parent
HEAD = """# What hostile functions try, and what they get

Written by `python -m tests.sandbox.hostile_table` from the tests; a test holds it to them. Rows are those of the
checklist (section 13 of the isolation reference). Unless the test's name says otherwise each runs as `ggc_user` and
as uid 0. Result: what the function sees; for a user and uid 0 where they differ.

| row | attempt | stopped by | result | test |
|---|---|---|---|---|
"""


def modules() -> list[ModuleType]:
    """The test files of the checklist."""
    return [importlib.import_module(f"tests.sandbox.{path.stem}") for path in sorted(HERE.glob("test_hostile_*.py"))]


def rows() -> list[tuple[Row, str, str]]:
    """(row, file, test), by number."""
    found = []
    for module in modules():
        for name, value in vars(module).items():
            if name.startswith("test_row_"):
                found += [(row, f"{module.__name__.rpartition('.')[2]}.py", name) for row in getattr(value, "rows", ())]
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
