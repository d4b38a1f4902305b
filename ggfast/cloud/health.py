"""`/healthz`: whether the store takes writes, every listener is up, the servers' certificate has not ended."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import orjson

from ggfast.clock import Clock
from ggfast.cloud.limits import HEALTH_S
from ggfast.cloud.protocols import JSON, Answer
from ggfast.cloud.store.interface import Store, Transaction
from ggfast.cloud.surroundings import timestamp
from ggfast.errors import StorageFailed


class Health:
    """See the module. `listeners` says which are up. What was found is good for HEALTH_S: nobody makes the store work
    by asking."""

    def __init__(
        self, store: Store, clock: Clock, certificate_end: Callable[[], float], listeners: Callable[[], dict[str, bool]]
    ) -> None:
        self._store = store
        self._clock = clock
        self._certificate_end = certificate_end
        self._listeners = listeners
        self._checked = -HEALTH_S
        self._fault = ""
        self._asking = asyncio.Lock()

    async def answer(self) -> Answer:
        """200 when all is well, 503 otherwise; the body says what was found."""
        now = self._clock.wall()
        async with self._asking:
            if self._clock.monotonic() - self._checked >= HEALTH_S:
                self._fault = await self._store_fault()
                self._checked = self._clock.monotonic()
        listeners = self._listeners()
        well = not self._fault and all(listeners.values()) and now < self._certificate_end()
        found = {
            "status": "ok" if well else "failing",
            "store": self._fault or "ok",
            "listeners": {name: "up" if up else "down" for name, up in listeners.items()},
            "certificateExpires": timestamp(self._certificate_end()),
        }
        return Answer(200 if well else 503, {"Content-Type": JSON, "Cache-Control": "no-store"}, orjson.dumps(found))

    async def _store_fault(self) -> str:
        def touch(tx: Transaction) -> None:
            tx.put("health", "", "last", {"at": self._clock.wall()})

        try:
            async with asyncio.timeout(HEALTH_S):
                await self._store.write(touch)
        except TimeoutError:
            return f"no answer within {HEALTH_S:g} s"
        except StorageFailed:
            return "cannot be written"
        return ""
