"""Reading a zip archive made by somebody hostile: the list of its entries, and the bytes of each, all bounded.

Only what function packages need: one part, no encryption, no 64-bit extension, methods "stored" and "deflated".
The central directory is believed only where the entry's own header agrees. Nothing is written here. Every fault
is a ValueError with a text for people. Blocking.
"""

from __future__ import annotations

import os
import struct
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import BinaryIO, Final

from ggfast import limits

_END: Final = struct.Struct("<4s4H2LH")
_CENTRAL: Final = struct.Struct("<4s6H3L5H2L")
_LOCAL: Final = struct.Struct("<4s5H3L2H")
_ENCRYPTED: Final = 0x1 | 0x40 | 0x2000  # plain, strong, and hidden central directory
_UTF8: Final = 0x800
_STORED: Final = 0
_DEFLATED: Final = 8
_UNIX: Final = 3  # "made by": the upper half of the attributes is a Unix mode
_NOT_THIS: Final = 0xFFFF
_NOT_THIS_LONG: Final = 0xFFFFFFFF
_CHUNK_BYTES: Final = 256 * limits.KIB  # one read, one write


@dataclass(frozen=True, slots=True)
class Entry:
    """One entry as the central directory has it. `mode` is the Unix mode, 0 if the maker gave none."""

    name: str
    is_directory: bool
    mode: int
    size_bytes: int
    compressed_bytes: int
    checksum: int
    method: int
    header_at: int
    raw_name: bytes


def read_entries(file: BinaryIO, archive_bytes_max: int = limits.PACKAGE_ARCHIVE_BYTES_MAX) -> list[Entry]:
    """All entries. Raises ValueError if this is no archive we take; bounded by the limits of packages."""
    size = file.seek(0, os.SEEK_END)
    if size > archive_bytes_max:
        raise ValueError(f"an archive of {size} bytes, at most {archive_bytes_max} are allowed")
    end_at, count, directory_bytes, directory_at = _find_end(file, size)
    if count > limits.PACKAGE_ENTRIES_MAX or directory_bytes > limits.PACKAGE_DIRECTORY_BYTES_MAX:
        raise ValueError(f"{count} entries, at most {limits.PACKAGE_ENTRIES_MAX} are allowed")
    if directory_at + directory_bytes > end_at:
        raise ValueError("an archive whose directory lies outside of it")
    file.seek(directory_at)
    entries = list(_parse_directory(file.read(directory_bytes), count))
    _refuse_overlaps(entries, directory_at)
    return entries


class Unjudged(ValueError):
    """An archive of a form or size that we do not read."""


def holds_entry(file: BinaryIO, name: str) -> bool:
    """Whether an archive has an entry, by its directory. Raises Unjudged for a large one, ValueError if damaged."""
    end_at, count, directory_bytes, _ = _find_end(file, file.seek(0, os.SEEK_END))
    if directory_bytes > limits.PACKAGE_JAR_DIRECTORY_BYTES_MAX:
        raise Unjudged(f"a directory of {directory_bytes} bytes")
    if directory_bytes > end_at:
        raise ValueError("an archive whose directory lies outside of it")
    file.seek(end_at - directory_bytes)  # not where it says: a program may stand in front of the archive
    data, wanted = file.read(directory_bytes), name.encode()
    at = 0
    for _ in range(count):
        if at + _CENTRAL.size > len(data) or data[at : at + 4] != b"PK\x01\x02":
            raise ValueError("an archive whose directory is damaged")
        name_bytes, extra_bytes, comment_bytes = _CENTRAL.unpack_from(data, at)[10:13]
        at += _CENTRAL.size
        if data[at : at + name_bytes] == wanted:
            return True
        at += name_bytes + extra_bytes + comment_bytes
    return False


def _find_end(file: BinaryIO, size: int) -> tuple[int, int, int, int]:
    """Position of the end record; number of entries, size and position of the directory."""
    tail_bytes = min(size, _END.size + 0xFFFF)
    file.seek(size - tail_bytes)
    tail = file.read(tail_bytes)
    at = len(tail) - _END.size
    while at >= 0:
        at = tail.rfind(b"PK\x05\x06", 0, at + 4)
        if at < 0:
            break
        _, disk, first_disk, here, count, length, offset, comment = _END.unpack_from(tail, at)
        if at + _END.size + comment == len(tail):
            if disk or first_disk or here != count:
                raise ValueError("an archive in several parts")
            if count == _NOT_THIS or _NOT_THIS_LONG in (length, offset):
                raise Unjudged("a 64-bit zip archive, larger than any function package")
            return size - tail_bytes + at, count, length, offset
        at -= 1
    raise ValueError("a file that is not a zip archive, or one that was cut off")


def _parse_directory(data: bytes, count: int) -> Iterator[Entry]:
    at = 0
    for _ in range(count):
        if at + _CENTRAL.size > len(data):
            raise ValueError("an archive whose directory is cut off")
        (
            signature, made_by, _, flags, method, _, _, checksum, compressed, plain,
            name_bytes, extra_bytes, comment_bytes, disk, _, attributes, header_at,
        ) = _CENTRAL.unpack_from(data, at)  # fmt: skip
        raw_name = data[at + _CENTRAL.size : at + _CENTRAL.size + name_bytes]
        at += _CENTRAL.size + name_bytes + extra_bytes + comment_bytes
        if signature != b"PK\x01\x02" or at > len(data) or disk:
            raise ValueError("an archive whose directory is damaged")
        name = _decode(raw_name, flags)
        if flags & _ENCRYPTED:
            raise ValueError(f"{name!r} is encrypted")
        if method not in (_STORED, _DEFLATED) or (method == _STORED and plain != compressed):
            raise ValueError(f"{name!r} is packed with method {method}, only stored (0) and deflated (8) are allowed")
        if _NOT_THIS_LONG in (compressed, plain, header_at):
            raise ValueError(f"{name!r} needs the 64-bit zip extension")
        mode = attributes >> 16 if made_by >> 8 == _UNIX else 0
        yield Entry(name, name.endswith("/"), mode, plain, compressed, checksum, method, header_at, raw_name)
    if at != len(data):
        raise ValueError("an archive with more in its directory than it says")


def _decode(raw: bytes, flags: int) -> str:
    try:
        return raw.decode("utf-8" if flags & _UTF8 else "ascii")
    except UnicodeDecodeError:
        if flags & _UTF8:
            raise ValueError(f"a name that is not UTF-8: {raw[:80]!r}") from None
        return raw.decode("cp437")


def _refuse_overlaps(entries: list[Entry], directory_at: int) -> None:
    """Entries that share bytes are how small archives become huge ones."""
    end = 0
    for entry in sorted(entries, key=lambda entry: entry.header_at):
        if entry.header_at < end:
            raise ValueError(f"{entry.name!r} overlaps another entry")
        end = entry.header_at + _LOCAL.size + len(entry.raw_name) + entry.compressed_bytes
    if end > directory_at:
        raise ValueError("an archive whose entries lie outside of it")


def read_content(file: BinaryIO, entry: Entry) -> Iterator[bytes]:
    """The bytes of a file entry in chunks, never more than it said. Raises ValueError if they are not what it said."""
    file.seek(entry.header_at)
    header = file.read(_LOCAL.size)
    if len(header) != _LOCAL.size:
        raise ValueError(f"{entry.name!r} is cut off")
    signature, _, flags, method, _, _, _, _, _, name_bytes, extra_bytes = _LOCAL.unpack(header)
    if signature != b"PK\x03\x04" or file.read(name_bytes) != entry.raw_name or method != entry.method:
        raise ValueError(f"{entry.name!r} has another name or method in its own header")
    if flags & _ENCRYPTED:
        raise ValueError(f"{entry.name!r} is encrypted")
    file.seek(extra_bytes, os.SEEK_CUR)
    length = checksum = 0
    for chunk in _plain(file, entry):
        length += len(chunk)
        if length > entry.size_bytes:
            raise ValueError(f"{entry.name!r} is longer than the {entry.size_bytes} bytes it says")
        checksum = zlib.crc32(chunk, checksum)
        yield chunk
    if length != entry.size_bytes or checksum != entry.checksum:
        raise ValueError(f"{entry.name!r} is damaged: length or checksum differ")


def _plain(file: BinaryIO, entry: Entry) -> Iterator[bytes]:
    left = entry.compressed_bytes
    inflater = zlib.decompressobj(-15) if entry.method == _DEFLATED else None
    try:
        while left > 0:
            data = file.read(min(left, _CHUNK_BYTES))
            if not data:
                raise ValueError(f"{entry.name!r} is cut off")
            left -= len(data)
            if inflater is None:
                yield data
                continue
            while data:
                if inflater.eof:
                    raise ValueError(f"{entry.name!r} has bytes behind its end")
                yield inflater.decompress(data, _CHUNK_BYTES)
                data = inflater.unconsumed_tail or inflater.unused_data
        if inflater is not None:
            while not inflater.eof:
                plain = inflater.decompress(b"", _CHUNK_BYTES)
                if not plain:
                    raise ValueError(f"{entry.name!r} is cut off")
                yield plain
    except zlib.error as error:
        raise ValueError(f"{entry.name!r} is damaged ({error})") from None
