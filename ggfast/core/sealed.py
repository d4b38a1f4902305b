"""Files that only this core can read again: sealed with a key made from the core's private key.

The daemon has no cryptography library, so the construction is made of HMAC-SHA256 alone, and each part is a known one:

    keys        HKDF (RFC 5869) of the private key's text, with 32 random bytes as salt and the purpose as info;
                one for the cipher, one for the tag; new ones for each file, for the salt is new
    cipher      the content XOR HMAC(key, counter): a pseudo-random function in counter mode
    tag         HMAC over magic, salt and cipher text: encrypt then authenticate
    file        magic, salt (32 bytes), cipher text, tag (32 bytes)

What it gives: a copy of the state directory, a backup or a flash card without the core's key says nothing but the
length, and a changed or torn file is noticed. What it does not give: it hides nothing from root or the daemon's account
on the running core; an old file put back is accepted as far as its content allows; whoever gets the core's key later
can read older copies. A key in a hardware module cannot be used: then there is no sealer, and nothing is kept.
"""

from __future__ import annotations

import hashlib
import hmac
import re
import secrets
from pathlib import Path
from typing import Final

from ggfast.errors import CorruptRecord
from ggfast.limits import CERTIFICATE_FILE_BYTES_MAX
from ggfast.plainfile import open_plain

_MAGIC: Final = b"ggfast sealed 1\n"
_SALT_BYTES: Final = 32
_TAG_BYTES: Final = 32
_PRIVATE_KEY: Final = re.compile(
    rb"-----BEGIN (?:[A-Z]{2,10} )?PRIVATE KEY-----(.+?)-----END (?:[A-Z]{2,10} )?PRIVATE KEY-----", re.DOTALL
)


class Sealer:
    """Seals and opens contents for one purpose. Never blocks."""

    def __init__(self, secret: bytes, purpose: str) -> None:
        self._secret = secret
        self._purpose = purpose.encode()

    @classmethod
    def of(cls, identity: Path, purpose: str) -> Sealer | None:
        """With the private key in a PEM file; None if there is no key in it. Blocks for a small read. Raises
        OSError."""
        with open_plain(identity) as file:
            found = _PRIVATE_KEY.search(file.read(CERTIFICATE_FILE_BYTES_MAX))
        return cls(b"".join(found[1].split()), purpose) if found is not None else None

    def seal(self, content: bytes) -> bytes:
        """`content` so that `open` of the same key and purpose gives it back."""
        salt = secrets.token_bytes(_SALT_BYTES)
        cipher_key, tag_key = self._keys(salt)
        body = _MAGIC + salt + _xor(content, cipher_key)
        return body + _hmac(tag_key, body)

    def open(self, sealed: bytes) -> bytes:
        """What was sealed. Raises CorruptRecord if it is torn, changed, or sealed with another key."""
        if not sealed.startswith(_MAGIC) or len(sealed) < len(_MAGIC) + _SALT_BYTES + _TAG_BYTES:
            raise CorruptRecord("found no sealed file")
        body, tag = sealed[:-_TAG_BYTES], sealed[-_TAG_BYTES:]
        cipher_key, tag_key = self._keys(body[len(_MAGIC) :][:_SALT_BYTES])
        if not hmac.compare_digest(tag, _hmac(tag_key, body)):
            raise CorruptRecord("it is torn, was changed, or was sealed with another key")
        return _xor(body[len(_MAGIC) + _SALT_BYTES :], cipher_key)

    def _keys(self, salt: bytes) -> tuple[bytes, bytes]:
        extracted = _hmac(salt, self._secret)
        first = _hmac(extracted, self._purpose + b"\1")
        return first, _hmac(extracted, first + self._purpose + b"\2")


def _xor(content: bytes, key: bytes) -> bytes:
    blocks = range((len(content) + 31) // 32)
    stream = b"".join(_hmac(key, block.to_bytes(8, "big")) for block in blocks)[: len(content)]
    return (int.from_bytes(content, "big") ^ int.from_bytes(stream, "big")).to_bytes(len(content), "big")


def _hmac(key: bytes, message: bytes) -> bytes:
    return hmac.digest(key, message, hashlib.sha256)
