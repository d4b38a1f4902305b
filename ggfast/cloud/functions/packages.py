"""What is looked at before the code of a function is kept: a zip that can be unpacked somewhere, of bounded size.

The archive comes from a client. Its list of files is bounded before it is read, and only the list is read: the core
that unpacks it holds its own bounds again.
"""

from __future__ import annotations

import base64
import hashlib
import io
import struct
import zipfile
from dataclasses import dataclass

from ggfast.cloud.faults import Fault
from ggfast.cloud.functions.service import invalid
from ggfast.cloud.limits import CODE_DIRECTORY_BYTES_MAX, CODE_ENTRIES_MAX, CODE_UNZIPPED_BYTES_MAX
from ggfast.cloud.surroundings import Surroundings

_END = struct.Struct("<4s4H2LH")  # the record at an archive's end
_END_MARK = b"PK\x05\x06"
_LOCAL_MARK = b"PK\x03\x04"
_ZIP64_LOCATOR_MARK = b"PK\x06\x07"
_ZIP64_LOCATOR_BYTES = 20
_COMMENT_MAX = 65_535  # the archive format's bound: its length has 16 bits
_ENCRYPTED = 0x1
_METHODS = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)  # what every unpacker on a core knows


@dataclass(frozen=True, slots=True)
class Code:
    """Code that is kept: the artifact's digest, its SHA-256 as Lambda writes it (base64), its bytes."""

    digest: str
    sha256: str
    size: int


def keep_code(cloud: Surroundings, content: bytes, *, keep: bool = True) -> Code:
    """Check a zip and keep it as an artifact (unless `keep` is False). Blocks. Raises Fault, StorageFailed."""
    check_package(content)
    digest = hashlib.sha256(content)
    if keep:
        cloud.artifacts.keep(content)
    return Code(digest.hexdigest(), base64.b64encode(digest.digest()).decode(), len(content))


def check_package(content: bytes) -> None:
    """Raise Fault with the first thing that is wrong with a function's zip."""
    _check_end(content)
    try:
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            entries = archive.infolist()
    except (
        zipfile.BadZipFile,
        NotImplementedError,
        ValueError,
        OverflowError,
        LookupError,
        OSError,
        struct.error,
    ) as e:
        raise _not_unzipped(f"its list of files is damaged ({type(e).__name__})") from e
    if not entries:
        raise invalid("Uploaded file must be a non-empty zip")
    if len(entries) > CODE_ENTRIES_MAX:
        raise _not_unzipped(f"it has {len(entries)} files, at most {CODE_ENTRIES_MAX} are taken")
    total = 0
    seen: set[str] = set()
    for entry in entries:
        _check_entry(content, entry)
        name = entry.filename.rstrip("/")
        if name in seen:
            raise _not_unzipped(f"it has {entry.filename[:80]!r} twice")
        seen.add(name)
        total += entry.file_size
    if total > CODE_UNZIPPED_BYTES_MAX:
        raise invalid(f"Unzipped size must be smaller than {CODE_UNZIPPED_BYTES_MAX} bytes")


def _check_end(content: bytes) -> None:
    """The record at the end must be the only one a reader could take, and its list of files short enough to read."""
    at = content.rfind(_END_MARK, max(0, len(content) - _END.size - _COMMENT_MAX))
    if at < 0 or at + _END.size > len(content):
        raise _not_unzipped("it is no zip archive")
    _, disk, start_disk, _, entries, size, offset, comment = _END.unpack_from(content, at)
    if at + _END.size + comment != len(content):
        raise _not_unzipped("bytes follow the archive's end")
    if disk or start_disk:
        raise _not_unzipped("it is one part of several")
    if content[max(0, at - _ZIP64_LOCATOR_BYTES) : at].startswith(_ZIP64_LOCATOR_MARK):
        raise _not_unzipped("it is a ZIP64 archive, which its size does not need")
    if entries > CODE_ENTRIES_MAX or size > CODE_DIRECTORY_BYTES_MAX:
        raise _not_unzipped(f"its list of files has {entries} entries in {size} bytes, at most {CODE_ENTRIES_MAX}")
    if offset + size != at:
        raise _not_unzipped("bytes stand before the archive or behind its list of files")


def _check_entry(content: bytes, entry: zipfile.ZipInfo) -> None:
    shown = repr(entry.orig_filename[:80])
    name = entry.orig_filename.replace("\\", "/")
    if "\0" in name or name.startswith("/") or (len(name) > 1 and name[1] == ":" and name[0].isalpha()):
        raise _not_unzipped(f"its file {shown} has an absolute name")
    if any(part in ("", ".", "..") for part in name.removesuffix("/").split("/")):
        raise _not_unzipped(f"its file {shown} has an empty part, '.' or '..' in its name")
    if not name.isprintable():
        raise _not_unzipped(f"its file {shown} has characters in its name that cannot be printed")
    if entry.flag_bits & _ENCRYPTED:
        raise _not_unzipped(f"its file {shown} is encrypted")
    if entry.compress_type not in _METHODS:
        raise _not_unzipped(f"its file {shown} is packed by method {entry.compress_type}, expected stored or deflated")
    if content[entry.header_offset : entry.header_offset + 4] != _LOCAL_MARK:
        raise _not_unzipped(f"its file {shown} is not where the list of files says")


def _not_unzipped(reason: str) -> Fault:
    return invalid(
        f"Could not unzip uploaded file. Please check your file, then try to upload again. (Found: {reason}.)"
    )
