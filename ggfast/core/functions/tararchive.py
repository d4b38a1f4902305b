"""Reading a gzip-compressed tar archive made by somebody hostile: the list of its entries, and the bytes of each.

Only what models need: one gzip member, regular files and directories, POSIX and GNU headers with their long names.
Links, devices, sparse files and extended headers that change more than a name are refused. The archive is read twice,
once to judge it whole and once for the contents. Nothing is written here. Every fault is a ValueError with a text for
people. Blocking.
"""

from __future__ import annotations

import os
import stat
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import BinaryIO, Final

from ggfast import limits

MAGIC: Final = b"\x1f\x8b"
_BLOCK: Final = 512
_CHUNK_BYTES: Final = 256 * limits.KIB  # one read, one write
_POSIX: Final = b"ustar\x0000"
_GNU: Final = b"ustar  \x00"
_KINDS: Final = {
    "1": "a hard link",
    "2": "a symbolic link",
    "3": "a device",
    "4": "a device",
    "6": "a named pipe",
    "S": "a sparse file",
}
# In an extended header these say that the entry is something else than its header shows.
_CHANGING: Final = ("linkpath", "GNU.sparse.")


@dataclass(frozen=True, slots=True)
class TarEntry:
    """One file or directory. The directory that the archive was made in has the name ""."""

    name: str
    is_directory: bool
    mode: int
    size_bytes: int
    offset: int


def read_entries(file: BinaryIO, archive_bytes_max: int, bytes_max: int) -> list[TarEntry]:
    """All entries, in the archive's order. Raises ValueError if this is no archive we take; reads all of it once."""
    packed = file.seek(0, os.SEEK_END)
    if packed > archive_bytes_max:
        raise ValueError(f"an archive of {packed} bytes, at most {archive_bytes_max} are allowed")
    stream = _Stream(file, packed, bytes_max + limits.MODEL_HEADERS_BYTES_MAX)
    entries = list(_parse(stream))
    while rest := stream.some():
        if rest.strip(b"\0"):
            raise ValueError("an archive with bytes behind its end")
    return entries


class Contents:
    """The bytes of the entries, to be taken in the archive's order."""

    def __init__(self, file: BinaryIO, archive_bytes_max: int, bytes_max: int) -> None:
        packed = min(file.seek(0, os.SEEK_END), archive_bytes_max)
        self._stream = _Stream(file, packed, bytes_max + limits.MODEL_HEADERS_BYTES_MAX)

    def read(self, entry: TarEntry) -> Iterator[bytes]:
        """The bytes of a file in chunks, as many as its header said. Raises ValueError if they are not there."""
        self._stream.skip(entry.offset - self._stream.position)
        left = entry.size_bytes
        while left:
            chunk = self._stream.exactly(min(left, _CHUNK_BYTES))
            left -= len(chunk)
            yield chunk


class _Stream:
    """The plain bytes of one gzip member, a bounded number of them."""

    def __init__(self, file: BinaryIO, packed: int, bytes_max: int) -> None:
        file.seek(0)
        self._file = file
        self._packed = packed
        self._bytes_max = bytes_max
        self._inflater = zlib.decompressobj(31)  # with the gzip header and its checksum
        self._input = b""
        self._made = 0
        self._ready = b""
        self._at = 0
        self.position = 0

    def exactly(self, count: int) -> bytes:
        """The next `count` bytes; ValueError if there are fewer."""
        parts = []
        while count:
            if self._at == len(self._ready):
                self._ready, self._at = self._inflate(), 0
                if not self._ready:
                    raise ValueError("an archive that was cut off")
            part = self._ready[self._at : self._at + count]
            self._at += len(part)
            self.position += len(part)
            count -= len(part)
            parts.append(part)
        return b"".join(parts)

    def skip(self, count: int) -> None:
        """Pass over `count` bytes."""
        assert count >= 0, "contents are read in the archive's order"
        while count:
            count -= len(self.exactly(min(count, _CHUNK_BYTES)))

    def some(self) -> bytes:
        """Some of the next bytes; none at the end, whose checksum was right."""
        ready = self._ready[self._at :] or self._inflate()
        self._ready, self._at = b"", 0
        self.position += len(ready)
        return ready

    def _inflate(self) -> bytes:
        inflater = self._inflater
        try:
            while not inflater.eof:
                data = self._input or self._file.read(_CHUNK_BYTES)
                plain = inflater.decompress(data, _CHUNK_BYTES)
                self._input = inflater.unconsumed_tail
                if plain:
                    self._made += len(plain)
                    self._check_size()
                    return plain
                if not data:
                    raise ValueError("an archive that was cut off")
        except zlib.error as error:
            raise ValueError(f"a damaged gzip file ({error})") from None
        if inflater.unused_data or self._file.read(1):
            raise ValueError("a gzip file with bytes behind its end")
        return b""

    def _check_size(self) -> None:
        if self._made > self._bytes_max:
            raise ValueError(f"an archive of more than {self._bytes_max} bytes unpacked")
        if self._made > limits.PACKAGE_RATIO_FREE_BYTES and self._made > self._packed * limits.PACKAGE_RATIO_MAX:
            raise ValueError(f"more than {limits.PACKAGE_RATIO_MAX} times its packed size of {self._packed} bytes")


def _parse(stream: _Stream) -> Iterator[TarEntry]:
    found, extended, long_name = 0, 0, None
    while True:
        header = stream.exactly(_BLOCK)
        if not header.strip(b"\0"):
            if stream.exactly(_BLOCK).strip(b"\0"):
                raise ValueError("an archive with an empty header in it")
            if long_name is not None:
                raise ValueError("an archive that ends with a long name of nothing")
            return
        _check_header(header)
        kind, size = chr(header[156]), _number(header[124:136], "a length")
        found += 1
        if found > limits.PACKAGE_ENTRIES_MAX * 2:  # an extended header each
            raise ValueError(f"more than {limits.PACKAGE_ENTRIES_MAX} entries")
        if kind in "xgL":
            extended += size
            if extended > limits.MODEL_EXTENSIONS_BYTES_MAX:
                raise ValueError(f"more than {limits.MODEL_EXTENSIONS_BYTES_MAX} bytes of extended headers")
            text = _extension(stream, size)
            name = _long_name(text) if kind == "L" else _extended_name(text, common=kind == "g")
            if name is not None and long_name is not None:
                raise ValueError(f"{name[:80]!r} has two names")
            long_name = name if name is not None else long_name
            continue
        yield _entry(header, kind, size, stream.position, long_name)
        long_name = None
        stream.skip((size + _BLOCK - 1) // _BLOCK * _BLOCK)


def _entry(header: bytes, kind: str, size: int, offset: int, long_name: str | None) -> TarEntry:
    name = long_name if long_name is not None else _name(header)
    mode = _number(header[100:108], "a mode")
    if kind in _KINDS:
        raise ValueError(f"{name[:80]!r} is {_KINDS[kind]}")
    if kind not in "0\x005":
        raise ValueError(f"{name[:80]!r} is an entry of type {kind!r}, neither a regular file nor a directory")
    is_directory = kind == "5"
    if is_directory and size:
        raise ValueError(f"{name[:80]!r} is a directory of {size} bytes")
    if mode & ~0o7777 or (mode & (stat.S_ISUID | stat.S_ISGID) and not is_directory):
        raise ValueError(f"{name[:80]!r} is a setuid or setgid file")
    if len(name) > limits.PACKAGE_NAME_BYTES_MAX:  # here already: all names stay in memory until they are judged
        raise ValueError(f"{name[:80]!r} is the start of a name of {len(name)} characters")
    while name.startswith("./"):
        name = name[2:]
    if is_directory:
        name = "" if name == "." else name.removesuffix("/")
    elif not name:
        raise ValueError("a file without a name")
    return TarEntry(name, is_directory, mode, size, offset)


def _check_header(header: bytes) -> None:
    plain = header[:148] + b" " * 8 + header[156:]
    if header[257:265] not in (_POSIX, _GNU) or _number(header[148:156], "a checksum") != sum(plain):
        raise ValueError("a file that is not a tar archive, or a damaged one")


def _number(field: bytes, what: str) -> int:
    digits = field.strip(b" \0")
    if not digits or digits.strip(b"01234567"):
        raise ValueError(f"an archive with {what} that is no octal number: {field!r}")
    return int(digits, 8)


def _name(header: bytes) -> str:
    raw = header[:100].partition(b"\0")[0]
    prefix = header[345:500].partition(b"\0")[0] if header[257:265] == _POSIX else b""
    return _text(prefix + b"/" + raw if prefix else raw)


def _text(raw: bytes) -> str:
    try:
        return raw.decode()
    except UnicodeDecodeError:
        raise ValueError(f"a name that is not UTF-8: {raw[:80]!r}") from None


def _extension(stream: _Stream, size: int) -> bytes:
    if not 0 < size <= limits.MODEL_EXTENSION_BYTES_MAX:
        raise ValueError(f"an extended header of {size} bytes, at most {limits.MODEL_EXTENSION_BYTES_MAX} are allowed")
    text = stream.exactly(size)
    stream.skip(-size % _BLOCK)
    return text


def _long_name(text: bytes) -> str:
    name, _, rest = text.partition(b"\0")
    if not name or rest.strip(b"\0"):
        raise ValueError(f"a long name that is damaged: {text[:80]!r}")
    return _text(name)


def _extended_name(text: bytes, *, common: bool) -> str | None:
    """The name in a POSIX extended header, None without one. `common` headers count for all entries behind them."""
    found: str | None = None
    at = 0
    while at < len(text):
        length = text[at : at + 8].partition(b" ")[0]
        size = int(length) if length.isdigit() and len(length) < 8 else 0
        key, equals, value = text[at + len(length) + 1 : at + size].partition(b"=")
        if size > len(text) - at or not equals or not value.endswith(b"\n"):
            raise ValueError(f"an extended header that is damaged: {text[at : at + 80]!r}")
        word = _text(key)
        if word.startswith(_CHANGING) or (word in ("path", "size", "hdrcharset") and common) or word == "size":
            raise ValueError(f"an extended header with {word[:40]!r}, which models do not need")
        if word == "hdrcharset" and value[:-1] != b"ISO-IR 10646 2000 UTF-8":
            raise ValueError(f"names in the encoding {value[:40]!r}, expected UTF-8")
        if word == "path":
            if found is not None or b"\0" in value:
                raise ValueError(f"an extended header with two names: {text[at : at + 80]!r}")
            found = _text(value[:-1])
        at += size
    return found
