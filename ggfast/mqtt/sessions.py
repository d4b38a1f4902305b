"""Sessions whose client is away: kept until they expire or there are too many, with the wills that wait.

    client leaves -> keep -> take (it is back in time: the will is forgotten)
                          -> end  (expired, pushed out, discarded: the will goes out) [MQTT5-3.1.2-8]
                          -> the will's delay is over: it goes out, the session stays

Time is the caller's monotonic clock. Work per `sweep` is bounded; what is left over comes with the next one.
"""

from __future__ import annotations

import heapq
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Final

from ggfast._ext.routes import Router
from ggfast._ext.session import Session
from ggfast.counters import Counters
from ggfast.limits import BROKER_SWEEP_SESSIONS
from ggfast.mqtt.wills import StoredWill

NEVER: Final = 0xFFFF_FFFF  # a session expiry interval of this many seconds is no expiry [MQTT5-3.1.2.11.2]
STALE_FREE = 64  # outdated alarms that are not worth a clean-up


@dataclass(slots=True, eq=False)
class AbsentSession:
    """One session without a connection, and when what happens to it."""

    session: Session
    ends_at: float = math.inf
    will: StoredWill | None = None
    will_at: float = math.inf


class AbsentSessions:
    """By client id, longest absent first. `publish(will)` must not raise."""

    def __init__(
        self, router: Router, sessions_max: int, counters: Counters, publish: Callable[[StoredWill], None]
    ) -> None:
        self._router = router
        self._sessions_max = sessions_max
        self._counters = counters
        self._publish = publish
        self._entries: dict[str, AbsentSession] = {}
        # When to look at an entry again. An alarm of an entry that is gone or was changed finds nothing to do.
        self._alarms: list[tuple[float, int, str, AbsentSession]] = []
        self._serial = 0

    def __len__(self) -> int:
        return len(self._entries)

    def session_of(self, client_id: str) -> Session | None:
        """One that waits, or None."""
        entry = self._entries.get(client_id)
        return None if entry is None else entry.session

    def items(self) -> Iterator[tuple[str, AbsentSession]]:
        """A copy's items: entries may come and go meanwhile."""
        return iter(list(self._entries.items()))

    def keep(
        self,
        client_id: str,
        session: Session,
        now: float,
        expiry_s: float = NEVER,
        will: StoredWill | None = None,
        will_in_s: float = 0.0,
    ) -> None:
        """Keep a detached session for `expiry_s`; its will goes out in `will_in_s`, or when it ends if that is
        sooner. Past the bound the longest absent one ends."""
        entry = AbsentSession(session, math.inf if expiry_s >= NEVER else now + expiry_s)
        if will is not None:
            entry.will, entry.will_at = will, now + will_in_s
        self.end(client_id)
        self._entries[client_id] = entry
        due = min(entry.ends_at, entry.will_at)
        if due < math.inf:
            self._set_alarm(due, client_id, entry)
        if len(self._entries) > self._sessions_max:
            self._counters.add("broker.dropped.oldest_session")
            self.end(next(iter(self._entries)))

    def take(self, client_id: str) -> AbsentSession | None:
        """The client is back: its session leaves the store, will and all."""
        return self._entries.pop(client_id, None)

    def end(self, client_id: str) -> bool:
        """End a session now; False if there is none."""
        entry = self._entries.pop(client_id, None)
        if entry is not None:
            self.finish(entry)
        return entry is not None

    def finish(self, entry: AbsentSession) -> None:
        """End a session that has been taken: subscriptions and queue go, the will goes out [MQTT5-3.1.2-8]."""
        self.discard(entry.session)
        if entry.will is not None:
            self._publish(entry.will)

    def discard(self, session: Session) -> None:
        """Give back everything a session holds."""
        self._router.leave(session)
        session.detach(False)

    def sweep(self, now: float) -> None:
        """Publish the wills and end the sessions that are due."""
        left = BROKER_SWEEP_SESSIONS
        while self._alarms and self._alarms[0][0] <= now and left:
            _, _, client_id, entry = heapq.heappop(self._alarms)
            if self._entries.get(client_id) is not entry:
                continue
            left -= 1
            if entry.ends_at <= now:
                self._counters.add("broker.sessions.expired")
                self.end(client_id)
            elif entry.will is not None and entry.will_at <= now:
                will, entry.will = entry.will, None
                if entry.ends_at < math.inf:
                    self._set_alarm(entry.ends_at, client_id, entry)
                self._publish(will)

    def _set_alarm(self, due: float, client_id: str, entry: AbsentSession) -> None:
        if len(self._alarms) > 2 * len(self._entries) + STALE_FREE:
            self._alarms = [alarm for alarm in self._alarms if self._entries.get(alarm[2]) is alarm[3]]
            heapq.heapify(self._alarms)
        self._serial += 1
        heapq.heappush(self._alarms, (due, self._serial, client_id, entry))
