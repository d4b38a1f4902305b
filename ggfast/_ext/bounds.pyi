"""Face of ext/bounds.pyx."""

from typing import Final, final

PACKET_BYTES_TOP: Final = 268_000_000

@final
class SessionLimits:
    packet_bytes_max: int
    payload_bytes_max: int
    inflight_max: int
    queue_bytes_max: int
    queue_entries_max: int
    stored_bytes_max: int
    queue_share_bytes: int
    strangers_bytes_max: int
    output_bytes_max: int
    stall_ticks_max: int
    receive_max: int
    aliases_max: int
    alias_bytes_max: int
    def __init__(
        self,
        *,
        packet_bytes_max: int,
        payload_bytes_max: int,
        inflight_max: int,
        queue_bytes_max: int,
        queue_entries_max: int,
        stored_bytes_max: int,
        queue_share_bytes: int,
        strangers_bytes_max: int,
        output_bytes_max: int,
        stall_ticks_max: int,
        receive_max: int,
        aliases_max: int,
        alias_bytes_max: int,
    ) -> None: ...
