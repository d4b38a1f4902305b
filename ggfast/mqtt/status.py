"""`$SYS`: the broker's figures as retained messages, in the open mode alone.

With a subscription table nothing passes without an entry, so there is no `$SYS` there. Nothing is worked out
while nobody has subscribed to it: the first such SUBSCRIBE brings the figures up to date, and rounds follow
every `sys_interval_s` until the last subscription is gone. A figure is published when it has changed.
"""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING

from ggfast import __version__
from ggfast._ext.recipient import Recipient
from ggfast.errors import PeerError
from ggfast.mqtt.wills import SYSTEM_PREFIX

if TYPE_CHECKING:
    from ggfast.mqtt.broker import Broker

ROOT = SYSTEM_PREFIX + b"broker/"
FIRST_LEVEL = SYSTEM_PREFIX.rstrip(b"/")
OWN_SOURCE = "$SYS"  # whom the router lets publish there


class SystemTopics:
    """The publisher of `$SYS`."""

    def __init__(self, broker: Broker) -> None:
        self._broker = broker
        self._watchers: set[Recipient] = set()
        self._next_at = 0.0

    def notice(self, session: Recipient, pattern: bytes) -> None:
        """A session subscribes to a filter, or comes back with it."""
        if not self._broker.router.open or not _names_system(pattern):
            return
        was_watched = bool(self._watchers)
        self._watchers.add(session)
        if not was_watched:
            self._publish()

    def tick(self, now: float) -> None:
        """One sweep of the broker: a round, if it is time for one and somebody listens."""
        if not self._watchers or now < self._next_at:
            return
        self._watchers = {
            session for session in self._watchers if any(_names_system(pattern) for pattern in session.subscriptions)
        }
        if self._watchers:
            self._publish()

    def _publish(self) -> None:
        broker = self._broker
        self._next_at = broker.clock.monotonic() + broker.limits.sys_interval_s
        for name, value in self._figures().items():
            payload = str(value).encode()
            known = broker.retained.get("", ROOT + name)
            if known is None or known.payload != payload:
                with contextlib.suppress(PeerError):  # the router's bounds may be too narrow for this topic
                    broker.router.publish(OWN_SOURCE, ROOT + name, payload, 0, True)

    def _figures(self) -> dict[bytes, int | str]:
        broker = self._broker
        broker.count()
        counters = broker.counters
        connected, absent = broker.client_count, len(broker.absent)
        dropped = sum(count for name, count in counters.snapshot().items() if name.startswith("broker.dropped."))
        return {
            b"version": f"ggfast {__version__}",
            b"uptime": f"{int(broker.clock.monotonic() - broker.started_at)} seconds",
            b"clients/connected": connected,
            b"clients/disconnected": absent,
            b"clients/total": connected + absent,
            b"clients/maximum": broker.clients_most,
            b"messages/received": counters.get("broker.messages.received"),
            b"messages/sent": counters.get("broker.messages.sent"),
            b"messages/dropped": dropped,
            b"subscriptions/count": sum(len(session.subscriptions) for session in broker.sessions()),
            b"retained messages/count": broker.retained.count,
            b"retained messages/bytes": broker.retained.bytes,
        }


def _names_system(pattern: bytes) -> bool:
    """Whether a filter's first level is `$SYS`, a shared subscription's included."""
    levels = pattern.split(b"/", 3)
    if levels[0] == b"$share" and len(levels) > 2:
        levels = levels[2:]
    return levels[0] == FIRST_LEVEL
