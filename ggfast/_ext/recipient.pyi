"""Face of ext/recipient.pyx."""

from collections.abc import Callable
from typing import Protocol

from ggfast._ext.bounds import SessionLimits
from ggfast._ext.framing import Auth, Bare, Connect, Disconnect, Subscribe, Unsubscribe
from ggfast._ext.pledges import Pledge
from ggfast._ext.wire import Wire

class SessionOwner(Protocol):
    """The slow lane: what a session asks of the connection around it."""

    def packet(self, packet: Connect | Subscribe | Unsubscribe | Bare | Disconnect | Auth) -> None:
        """A packet that is not the lane's; may raise PeerError, which ends in `failed`."""

    def failed(self, error: Exception) -> None:
        """The peer broke the protocol, or we broke; the session reads nothing more."""

    def pause_reading(self) -> None:
        """Take nothing more from the transport."""

    def resume_reading(self) -> None:
        """Take from the transport again."""

    def resume_soon(self) -> None:
        """Call `Session.resume` on a later turn of the loop."""

    def relieved(self) -> None:
        """The client takes messages again."""

class Outlet:
    now: int
    def pledge(self) -> Pledge: ...

class Recipient:
    client_id: str
    source: str
    subscriptions: dict[bytes, int]
    level: int
    clean: bool
    keep_alive_s: int
    messages_in: int
    messages_out: int
    dropped: int
    stored_bytes: int
    congested: bool
    frozen: bool
    def __init__(
        self,
        outlet: Outlet,
        limits: SessionLimits,
        owner: SessionOwner | None,
        write: Wire | Callable[[bytes], object] | None = None,
    ) -> None: ...
    problem_info: bool
    def start(
        self,
        client_id: str,
        source: str,
        level: int,
        clean: bool,
        keep_alive_s: int,
        now: float,
        *,
        receive_maximum: int = 65535,
        packet_bytes_max: int = 0,
        topic_alias_max: int = 0,
        problem_info: bool = True,
    ) -> None: ...
    def attach(self, way: Wire | Callable[[bytes], object] | None) -> None: ...
    def send(self, data: bytes) -> None: ...
    def flush(self) -> None: ...
    def offer(
        self,
        topic: bytes,
        payload: bytes,
        qos: int,
        retain: bool,
        properties: bytes = b"",
        expires: int = 0,
        options: int = 0,
    ) -> bool: ...
    def detach(self, offline: bool) -> None: ...
    def pause_writing(self) -> None: ...
    def resume_writing(self) -> None: ...
    @property
    def state_name(self) -> str: ...
    @property
    def inflight(self) -> int: ...
    @property
    def waiting(self) -> int: ...
    @property
    def output_bytes(self) -> int: ...
