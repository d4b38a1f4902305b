"""The bounds of one broker as a value; the reasons stand beside the numbers in ggfast.limits."""

from __future__ import annotations

from dataclasses import dataclass

from ggfast import limits
from ggfast._ext.bounds import SessionLimits


@dataclass(frozen=True, slots=True)
class BrokerLimits:
    """Bytes, entries and seconds. Topic bounds belong to the Router, which checks every topic it resolves."""

    packet_bytes_max: int = limits.OPEN_PAYLOAD_BYTES_MAX + 64 * limits.KIB + 16
    payload_bytes_max: int = limits.OPEN_PAYLOAD_BYTES_MAX
    connect_timeout_s: float = limits.BROKER_CONNECT_TIMEOUT_S
    connections_max: int = limits.BROKER_CONNECTIONS_MAX
    subscriptions_max: int = limits.BROKER_SUBSCRIPTIONS_MAX
    filter_bytes_max: int = limits.BROKER_FILTER_BYTES_MAX
    inflight_max: int = limits.BROKER_INFLIGHT_MAX
    queue_bytes_max: int = limits.BROKER_QUEUE_BYTES_MAX
    queue_entries_max: int = limits.BROKER_QUEUE_ENTRIES_MAX
    stored_bytes_max: int = limits.BROKER_STORED_BYTES_MAX
    queue_share_bytes: int = limits.BROKER_QUEUE_SHARE_BYTES
    strangers_bytes_max: int = limits.BROKER_STRANGERS_BYTES_MAX
    output_bytes_max: int = limits.BROKER_OUTPUT_BYTES_MAX
    write_high_bytes: int = limits.BROKER_WRITE_HIGH_BYTES
    will_bytes_max: int = limits.BROKER_WILL_BYTES_MAX
    retained_bytes_max: int = limits.BROKER_RETAINED_BYTES_MAX
    sessions_offline_max: int = limits.BROKER_SESSIONS_OFFLINE_MAX
    tick_s: float = limits.BROKER_TICK_S
    stall_ticks_max: int = limits.BROKER_STALL_TICKS
    receive_max: int = limits.BROKER_RECEIVE_MAX
    aliases_max: int = limits.BROKER_ALIASES_MAX
    alias_bytes_max: int = limits.BROKER_ALIAS_BYTES_MAX
    session_expiry_max_s: int = limits.BROKER_SESSION_EXPIRY_S_MAX
    keep_alive_max_s: int = limits.BROKER_KEEP_ALIVE_S_MAX  # 0: no maximum
    sys_interval_s: float = limits.BROKER_SYSTEM_INTERVAL_S

    def for_sessions(self) -> SessionLimits:
        """The part the sessions share."""
        return SessionLimits(
            packet_bytes_max=self.packet_bytes_max,
            payload_bytes_max=self.payload_bytes_max,
            inflight_max=self.inflight_max,
            queue_bytes_max=self.queue_bytes_max,
            queue_entries_max=self.queue_entries_max,
            stored_bytes_max=self.stored_bytes_max,
            queue_share_bytes=self.queue_share_bytes,
            strangers_bytes_max=self.strangers_bytes_max,
            output_bytes_max=self.output_bytes_max,
            stall_ticks_max=self.stall_ticks_max,
            receive_max=self.receive_max,
            aliases_max=self.aliases_max,
            alias_bytes_max=self.alias_bytes_max,
        )


V1_LIMITS = BrokerLimits(
    packet_bytes_max=limits.V1_PAYLOAD_BYTES_MAX + 64 * limits.KIB,
    payload_bytes_max=limits.V1_PAYLOAD_BYTES_MAX,
)
