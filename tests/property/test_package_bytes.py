"""Archives with any byte wrong: unpacked whole, or refused with nothing left; never another outcome."""

from __future__ import annotations

import io
import os
import shutil
import tempfile
import zipfile
from pathlib import Path

from hypothesis import given, settings
from hypothesis import strategies as st

from ggfast.core.functions.packages import unpack
from ggfast.errors import ConfigError, StorageFailed


def sample() -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as zipped:
        zipped.writestr("main.py", "def handler(event, context):\n    return event\n" * 20)
        zipped.writestr("lib/", "")
        zipped.writestr("lib/data.bin", bytes(range(256)) * 4, zipfile.ZIP_STORED)
        zipped.writestr("lib/é.txt", "x")
    return buffer.getvalue()


SAMPLE = sample()


def outcome(data: bytes) -> str:
    """Unpack `data`; what came of it, after checking that nothing is outside the target or half done."""
    directory = Path(tempfile.mkdtemp(prefix="ggfast-test-"))
    try:
        (directory / "package.zip").write_bytes(data)
        try:
            package = unpack(directory / "package.zip", directory / "target", python=False)
        except ConfigError as error:
            assert error.problems
            assert sorted(os.listdir(directory)) == ["package.zip"]
            return "refused"
        except StorageFailed:
            assert sorted(os.listdir(directory)) == ["package.zip"]
            return "failed"
        assert sorted(os.listdir(directory)) == ["package.zip", "target"]
        files = [path for path in (directory / "target").rglob("*") if not path.is_dir()]
        assert len(files) == package.files
        assert not any(path.is_symlink() for path in files)
        return "unpacked"
    finally:
        shutil.rmtree(directory)


def test_the_sample_itself() -> None:
    assert outcome(SAMPLE) == "unpacked"


@settings(max_examples=400, deadline=None)
@given(st.lists(st.tuples(st.integers(0, len(SAMPLE) - 1), st.integers(0, 255)), min_size=1, max_size=6))
def test_P7_bytes_changed(changes: list[tuple[int, int]]) -> None:
    data = bytearray(SAMPLE)
    for place, value in changes:
        data[place] = value
    assert outcome(bytes(data)) in ("unpacked", "refused")


@settings(max_examples=200, deadline=None)
@given(st.integers(0, len(SAMPLE)), st.integers(0, len(SAMPLE)), st.binary(max_size=40))
def test_P7_a_piece_replaced(start: int, end: int, piece: bytes) -> None:
    assert outcome(SAMPLE[:start] + piece + SAMPLE[end:]) in ("unpacked", "refused")


@settings(max_examples=100, deadline=None)
@given(st.binary(max_size=300))
def test_P7_any_bytes(data: bytes) -> None:
    assert outcome(data) == "refused"
