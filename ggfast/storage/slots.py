"""A small record that is replaced in place: always the old one or the new one, also on a disk that is full.

Two slots of one file, made at once and never grown, are written in turn. Each has a checksum and a number that grows;
reading takes the newest one that is whole. A write that a power cut tears leaves the other slot as it was, and one that
the disk has no room for cannot happen, except on file systems that copy on write.

    file = slot slot          slot = magic, crc32 of the rest, number, length, content, zeros
"""

from __future__ import annotations

import os
import struct
import zlib
from io import FileIO
from pathlib import Path
from typing import Final

from ggfast.errors import CorruptRecord, LimitReached, StorageFailed

_MAGIC: Final = b"ggs1"
_HEAD: Final = struct.Struct(">4sIQI")  # magic, checksum, number, length
_CHECKED: Final = 8  # what the checksum does not cover: the magic and itself


class Slots:
    """The record in `path`. `slot_bytes`: the largest content and 20 bytes. `fsync` False gives up safety against power
    loss, not against crashes. Everything blocks. One process at a time."""

    def __init__(self, path: Path, slot_bytes: int, *, fsync: bool = True) -> None:
        self._path = path
        self._slot_bytes = slot_bytes
        self._fsync = fsync

    def read(self) -> bytes | None:
        """The newest content; None if there is none yet. Raises StorageFailed, CorruptRecord."""
        try:
            data = self._path.read_bytes() if self._path.stat().st_size <= 2 * self._slot_bytes else b"?"
        except FileNotFoundError:
            return None
        except OSError as error:
            raise StorageFailed(f"{self._path} cannot be read: {error}") from error
        found = self._newest(data)
        if found is None and any(data):
            hint = "Remove the file: what it said is forgotten then."
            raise CorruptRecord(f"{self._path} is damaged: neither of its records is whole.", hint=hint)
        return found[1] if found is not None else None

    def write(self, content: bytes) -> None:
        """Replace it. Raises StorageFailed, LimitReached; what was there before is there still."""
        most = self._slot_bytes - _HEAD.size
        if len(content) > most:
            raise LimitReached(f"a record in {self._path}", len(content), most)
        try:
            with self._open() as file:
                found = self._newest(file.read(2 * self._slot_bytes))
                number, place = (found[0] + 1, 1 - found[2]) if found is not None else (1, 0)
                head = struct.pack(">QI", number, len(content))
                slot = _MAGIC + struct.pack(">I", zlib.crc32(head + content)) + head + content
                os.pwrite(file.fileno(), slot, place * self._slot_bytes)
                if self._fsync:
                    os.fsync(file.fileno())
        except OSError as error:
            raise StorageFailed(f"{self._path} cannot be written: {error}") from error

    def _open(self) -> FileIO:
        made = not self._path.exists()
        file = FileIO(os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600), "r+")
        try:
            missing = 2 * self._slot_bytes - os.fstat(file.fileno()).st_size
            if missing:
                os.ftruncate(file.fileno(), 2 * self._slot_bytes)
                os.posix_fallocate(file.fileno(), 0, 2 * self._slot_bytes)
            if made and self._fsync:
                directory = os.open(self._path.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
                try:
                    os.fsync(directory)
                finally:
                    os.close(directory)
        except BaseException:
            file.close()
            raise
        return file

    def _newest(self, data: bytes) -> tuple[int, bytes, int] | None:
        """Number, content and place of the newest whole slot."""
        found = [self._slot(data[place * self._slot_bytes :][: self._slot_bytes], place) for place in (0, 1)]
        return max((slot for slot in found if slot is not None), default=None)

    @staticmethod
    def _slot(slot: bytes, place: int) -> tuple[int, bytes, int] | None:
        if len(slot) < _HEAD.size:
            return None
        magic, checksum, number, length = _HEAD.unpack_from(slot)
        end = _HEAD.size + length
        if magic != _MAGIC or end > len(slot) or zlib.crc32(slot[_CHECKED:end]) != checksum:
            return None
        return number, slot[_HEAD.size : end], place
