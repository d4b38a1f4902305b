"""Secrets in the store are sealed with a key that lies outside it: a copy of the store's files alone tells nothing.

AES-256-GCM; the purpose ("secret-key/<id>") is authenticated with it, so that a sealed text serves nowhere else.
"""

from __future__ import annotations

import base64
import binascii
import os
import secrets
from pathlib import Path

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from ggfast.errors import ConfigError, CorruptRecord

KEY_BYTES = 32
_NONCE_BYTES = 12


def make_key(path: Path) -> None:
    """Write a new key, mode 0600. Raises FileExistsError: a key is never replaced, what it sealed would be lost."""
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    with open(descriptor, "wb") as file:
        file.write(secrets.token_bytes(KEY_BYTES))
        file.flush()
        os.fsync(file.fileno())


class KeySealer:
    """See the module and `surroundings.Sealer`. Safe to use from several threads; never blocks."""

    def __init__(self, key: bytes) -> None:
        self._cipher = AESGCM(key)

    @classmethod
    def from_file(cls, path: Path) -> KeySealer:
        """The sealer of a key file. Raises ConfigError if it is missing or no key."""
        try:
            key = path.read_bytes()
        except OSError as error:
            raise ConfigError(f"the sealing key {path} cannot be read: {error}.") from error
        if len(key) != KEY_BYTES:
            raise ConfigError(f"the sealing key {path} has {len(key)} bytes, expected {KEY_BYTES}.")
        return cls(key)

    def seal(self, secret: bytes, purpose: str) -> str:
        """See `surroundings.Sealer`."""
        nonce = secrets.token_bytes(_NONCE_BYTES)
        return base64.b64encode(nonce + self._cipher.encrypt(nonce, secret, purpose.encode())).decode()

    def unseal(self, sealed: str, purpose: str) -> bytes:
        """See `surroundings.Sealer`."""
        try:
            raw = base64.b64decode(sealed, validate=True)
            return self._cipher.decrypt(raw[:_NONCE_BYTES], raw[_NONCE_BYTES:], purpose.encode())
        except (InvalidTag, binascii.Error, ValueError) as error:
            raise CorruptRecord(
                f"a sealed secret ({purpose}) does not open.", hint="Is master.key the one it was sealed with?"
            ) from error
