"""The record that is replaced in place: torn, damaged, full, too large."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ggfast.errors import CorruptRecord, LimitReached, StorageFailed
from ggfast.storage.slots import Slots

SLOT = 64


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "record"


def test_there_is_nothing_before_the_first_write(path: Path) -> None:
    assert Slots(path, SLOT).read() is None


def test_the_newest_record_is_read(path: Path) -> None:
    slots = Slots(path, SLOT)
    for number in range(5):
        slots.write(b"%d" % number)
        assert Slots(path, SLOT).read() == b"%d" % number
    assert path.stat().st_size == 2 * SLOT


@pytest.mark.parametrize("torn", range(SLOT))
def test_a_torn_write_leaves_the_record_before_it(path: Path, torn: int) -> None:
    slots = Slots(path, SLOT)
    slots.write(b"one")
    slots.write(b"two, kept")
    before = path.read_bytes()
    slots.write(b"three, which is torn")
    after = path.read_bytes()
    place = next(at for at in (0, SLOT) if before[at : at + SLOT] != after[at : at + SLOT])
    path.write_bytes(before[:place] + after[place : place + torn] + before[place + torn :])
    whole = torn >= 20 + len(b"three, which is torn")
    assert Slots(path, SLOT).read() == (b"three, which is torn" if whole else b"two, kept")
    Slots(path, SLOT).write(b"four")
    assert Slots(path, SLOT).read() == b"four"


def test_two_damaged_records_are_an_error_and_can_be_written_over(path: Path) -> None:
    slots = Slots(path, SLOT)
    slots.write(b"one")
    path.write_bytes(b"\xff" * 2 * SLOT)
    with pytest.raises(CorruptRecord, match="neither of its records"):
        slots.read()
    slots.write(b"new")
    assert slots.read() == b"new"


def test_what_is_too_large_is_refused_and_changes_nothing(path: Path) -> None:
    slots = Slots(path, SLOT)
    slots.write(b"kept")
    with pytest.raises(LimitReached):
        slots.write(bytes(SLOT))
    assert slots.read() == b"kept"


def test_a_directory_that_is_not_there_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(StorageFailed, match="cannot be written"):
        Slots(tmp_path / "none" / "record", SLOT).write(b"x")


def test_a_full_disk_takes_further_records(tmp_path: Path) -> None:
    disk = tmp_path / "disk"
    disk.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", str(disk)], check=True)
    try:
        slots = Slots(disk / "record", 4096)
        slots.write(b"before")
        with pytest.raises(OSError), (disk / "fill").open("wb", buffering=0) as file:
            while True:
                file.write(os.urandom(4096))
        for number in range(4):
            slots.write(b"after %d" % number)
        assert slots.read() == b"after 3"
    finally:
        subprocess.run(["umount", str(disk)], check=True)


@given(st.binary(max_size=3 * SLOT))
def test_arbitrary_bytes_are_nothing_a_record_or_an_error(
    tmp_path_factory: pytest.TempPathFactory, data: bytes
) -> None:
    path = tmp_path_factory.mktemp("slots") / "record"
    path.write_bytes(data)
    try:
        assert Slots(path, SLOT).read() is None or b"ggs1" in data
    except CorruptRecord:
        assert any(data)
