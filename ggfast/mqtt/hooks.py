"""What a broker asks of its owner: who a client is, and who came and went."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from ggfast._ext.framing import BAD_CREDENTIALS, NOT_AUTHORIZED, SERVER_UNAVAILABLE

__all__ = [
    "BAD_CREDENTIALS",
    "NOT_AUTHORIZED",
    "SERVER_UNAVAILABLE",
    "Accepted",
    "Client",
    "ConnectInfo",
    "Hooks",
    "OpenHooks",
    "Refused",
]


@dataclass(frozen=True, slots=True)
class ConnectInfo:
    """What a CONNECT says and what the connection proves. The client id is never empty here."""

    client_id: str
    username: str | None
    password: bytes | None
    level: int  # 3 for MQTT 3.1, 4 for 3.1.1, 5 for 5.0
    clean: bool
    peer: str  # address and port
    certificate: bytes | None  # the peer's, DER, verified in the handshake; None without TLS
    user_properties: tuple[tuple[str, str], ...] = ()  # in their order; MQTT 5.0 alone has them


@dataclass(frozen=True, slots=True)
class Accepted:
    """Let the client in; `source` is its name in the subscription table.

    `session`: under which name its session is kept, for brokers where client ids are unique within something smaller.
    "": under the client id.
    """

    source: str
    session: str = ""


@dataclass(frozen=True, slots=True)
class Refused:
    """Turn the client away with a CONNACK: a return code [MQTT-3.2.2.3] or a reason code [MQTT5-3.2.2.2].

    Either is translated for a client of the other version. What follows reaches MQTT 5.0 clients alone.
    """

    code: int
    reason: str = ""  # for people; sent if the client wants such texts
    server_reference: str = ""  # with 0x9C and 0x9D: which server to use instead


@dataclass(frozen=True, slots=True)
class Client:
    """A connected client, as hooks see it."""

    client_id: str  # or what `Accepted.session` said
    source: str
    peer: str
    clean: bool  # nothing of its session outlives the connection
    level: int = 4


class Hooks(Protocol):
    """Called on the loop; must not block. An exception in `authenticate` refuses the client."""

    def authenticate(self, info: ConnectInfo) -> Accepted | Refused:
        """Decide about a CONNECT."""

    def connected(self, client: Client) -> None:
        """The client has its CONNACK."""

    def disconnected(self, client: Client, reason: str) -> None:
        """The client is gone; `reason` is for people."""


class OpenHooks:
    """Everyone may come in under the client id; for the broker alone."""

    def authenticate(self, info: ConnectInfo) -> Accepted | Refused:
        """Accept; the source is the client id."""
        return Accepted(info.client_id)

    def connected(self, client: Client) -> None:
        """Nothing to do."""

    def disconnected(self, client: Client, reason: str) -> None:
        """Nothing to do."""
