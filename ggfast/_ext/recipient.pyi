"""Face of ext/recipient.pyx."""

from collections.abc import Callable, Mapping
from typing import Any, Protocol, final

from ggfast._ext.framing import Bare, Connect, Subscribe, Unsubscribe
from ggfast._ext.wire import Wire

class SessionOwner(Protocol):
    """The slow lane: what a session asks of the connection around it."""

    def packet(self, packet: Connect | Subscribe | Unsubscribe | Bare) -> None:
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

@final
class SessionLimits:
    packet_bytes_max: int
    payload_bytes_max: int
    inflight_max: int
    queue_bytes_max: int
    queue_entries_max: int
    output_bytes_max: int
    stall_ticks_max: int
    def __init__(
        self,
        *,
        packet_bytes_max: int,
        payload_bytes_max: int,
        inflight_max: int,
        queue_bytes_max: int,
        queue_entries_max: int,
        output_bytes_max: int,
        stall_ticks_max: int,
    ) -> None: ...

class Outlet: ...

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
    def __init__(
        self,
        outlet: Outlet,
        limits: SessionLimits,
        owner: SessionOwner | None,
        write: Wire | Callable[[bytes], object] | None = None,
    ) -> None: ...
    def start(self, client_id: str, source: str, level: int, clean: bool, keep_alive_s: int, now: float) -> None: ...
    def attach(self, way: Wire | Callable[[bytes], object] | None) -> None: ...
    def send(self, data: bytes) -> None: ...
    def flush(self) -> None: ...
    def offer(self, topic: bytes, payload: bytes, qos: int, retain: bool) -> bool: ...
    def adopt(self, old: Recipient) -> None: ...
    def replay(self) -> None: ...
    def detach(self, offline: bool) -> None: ...
    def pause_writing(self) -> None: ...
    def resume_writing(self) -> None: ...
    def export(self) -> dict[str, Any]: ...
    def restore(self, state: Mapping[str, Any]) -> None: ...
    @property
    def state_name(self) -> str: ...
    @property
    def inflight(self) -> int: ...
    @property
    def waiting(self) -> int: ...
    @property
    def output_bytes(self) -> int: ...
    @property
    def is_congested(self) -> bool: ...
    @property
    def is_frozen(self) -> bool: ...
