"""What handlers may use beside the store: who we are, time, keys, files, names."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Protocol

from ggfast.clock import Clock
from ggfast.cloud.limits import DELEGATED_AUTHORITY_DAYS


class Sealer(Protocol):
    """Keeps secrets unreadable to whoever has only the store's files."""

    def seal(self, secret: bytes, purpose: str) -> str:
        """Text that only `unseal` with the same purpose turns back."""

    def unseal(self, sealed: str, purpose: str) -> bytes:
        """The secret. Raises CorruptRecord for a text that was not sealed here for that purpose."""


class Artifacts(Protocol):
    """Files by the SHA-256 of their content: code of functions, models."""

    def keep(self, content: bytes) -> str:
        """Write `content`, on disk when this returns; its SHA-256 in hex. Blocks. Raises StorageFailed."""

    def read(self, digest: str) -> bytes:
        """The content. Blocks. Raises StorageFailed for an unknown or damaged one."""

    def checked(self, digest: str) -> Path:
        """Where the file lies, once all of it has been read and is what it should be. Blocks. Raises StorageFailed."""

    def size(self, digest: str) -> int:
        """Its bytes, -1 if there is none."""

    def path(self, digest: str) -> Path:
        """Where the file lies. Raises StorageFailed for what is no digest."""


class Authority(Protocol):
    """Makes keys and certificates. Everything blocks for up to a second: call it in an operation's `before`."""

    ca_pem: str  # of the CA that signs device certificates and our own servers'

    def new_keys_and_certificate(self, common_name: str) -> tuple[str, str, str]:
        """(certificate PEM, public key PEM, private key PEM) of a new client certificate."""

    def certificate_for(self, csr_pem: str) -> str:
        """A client certificate for a signing request. Raises ValueError with the reason."""

    def check(self, certificate_pem: str) -> tuple[str, float, float]:
        """(certificate id, not before, not after) of one PEM certificate; times in seconds since 1970.
        The id is SHA-256 of the DER form, in hex. Raises ValueError with the reason."""

    def issued(self, certificate_pem: str, ca_pem: str = "") -> bool:
        """Whether a CA, ours unless given, signed a certificate."""

    def new_group_ca(self, common_name: str) -> tuple[str, str]:
        """(certificate PEM, private key PEM) of a new group CA."""


class GroupKeys(Protocol):
    """Keys for cores that come from elsewhere than the roles kept here."""

    async def credentials(self) -> dict[str, str]:
        """`AccessKeyId`, `SecretAccessKey`, `SessionToken`, `Expiration`. Raises PeerError; may wait."""


@dataclass(frozen=True, slots=True)
class Endpoints:
    """Names under which clients reach us: "host" or "host:port", and the API's URL."""

    api_url: str
    mqtt: str
    https: str


@dataclass(frozen=True, slots=True)
class Surroundings:
    """One cloud, as its handlers see it."""

    account: str
    clock: Clock
    sealer: Sealer
    artifacts: Artifacts
    authority: Authority
    endpoints: Endpoints
    group_keys: GroupKeys | None = None  # what cores get in place of keys of their group's role
    server_certificate_s: int = 0  # life of every core's server certificate; 0: as its group says
    delegated_authority_s: int = DELEGATED_AUTHORITY_DAYS * 86_400  # life of a core's delegated CA; 0: none is given


def timestamp(seconds: float) -> str:
    """ISO 8601 with milliseconds and Z, as Greengrass writes it (cloud-api 3)."""
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%S.") + f"{int(seconds * 1000) % 1000:03d}Z"
