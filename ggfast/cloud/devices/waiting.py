"""Cores that wait for a deployment: woken when there is one, bounded in number and time."""

from __future__ import annotations

import asyncio
from collections import Counter

from ggfast.cloud.events import CertificateEnded, DeploymentReady
from ggfast.cloud.limits import DEVICE_POLLS_MAX, DEVICE_POLLS_OF_ONE_MAX


class Polls:
    """Everything runs on the loop."""

    def __init__(self) -> None:
        self._waiting: dict[tuple[str, str], set[asyncio.Event]] = {}  # by region and thing
        self._of: Counter[str] = Counter()  # by certificate
        self.count = 0
        self._closed = False

    def hear(self, event: object) -> None:
        """Wake those whom an event of the store is about."""
        if isinstance(event, DeploymentReady):
            for waiting in self._waiting.get((event.region, event.thing_name), ()):
                waiting.set()
        elif isinstance(event, CertificateEnded):
            self._wake_all()  # they look at their certificate again; it is rare

    def close(self) -> None:
        """Nobody waits any more."""
        self._closed = True
        self._wake_all()

    def begin(self, region: str, thing: str) -> asyncio.Event:
        """To be called before looking whether there is something; `end` must follow."""
        waiting = asyncio.Event()
        self._waiting.setdefault((region, thing), set()).add(waiting)
        return waiting

    def end(self, region: str, thing: str, waiting: asyncio.Event) -> None:
        """Done waiting."""
        others = self._waiting[region, thing]
        others.discard(waiting)
        if not others:
            del self._waiting[region, thing]

    async def wait(self, certificate_id: str, waiting: asyncio.Event, seconds: float) -> bool:
        """Wait to be woken; False if the time is over, or nobody may wait now."""
        full = self.count >= DEVICE_POLLS_MAX or self._of[certificate_id] >= DEVICE_POLLS_OF_ONE_MAX
        if self._closed or full or seconds <= 0:
            return False
        self.count += 1
        self._of[certificate_id] += 1
        try:
            async with asyncio.timeout(seconds):
                await waiting.wait()
        except TimeoutError:
            return False
        finally:
            self.count -= 1
            self._of[certificate_id] -= 1
            if not self._of[certificate_id]:
                del self._of[certificate_id]
        waiting.clear()
        return not self._closed

    def _wake_all(self) -> None:
        for events in self._waiting.values():
            for waiting in events:
                waiting.set()
