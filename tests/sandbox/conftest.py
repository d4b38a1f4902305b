"""A supervisor shared by the tests of one module; tests that kill or stop it make their own."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.sandbox.harness import Sandbox


@pytest.fixture(scope="module")
def box() -> Iterator[Sandbox]:
    """A running supervisor with the harness's daemon."""
    with Sandbox() as sandbox:
        yield sandbox
