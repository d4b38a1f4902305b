"""HOSTILE.md says what the tests do, and no row of the checklist is missing from them."""

from __future__ import annotations

import re

from tests.sandbox.hostile_table import HERE, modules, rows, table

ROWS = set(range(1, 57))  # of section 13


def test_table_is_current() -> None:
    """Run `python -m tests.sandbox.hostile_table` after a change."""
    assert (HERE / "HOSTILE.md").read_text() == table()


def test_every_row_has_its_test() -> None:
    """The number in a test's name is that of its row."""
    assert {row.number for row, _, _ in rows()} == ROWS
    for row, _, name in rows():
        assert name.startswith(f"test_row_{row.number:02d}_")


def test_no_test_of_a_row_is_unmarked() -> None:
    """Controls say so in their names."""
    for module in modules():
        for name, value in vars(module).items():
            if re.match(r"test_row_\d\d_(?!control)", name):
                assert getattr(value, "rows", ()), name
