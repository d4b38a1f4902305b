"""Cores that wait for news: woken by what concerns them alone, bounded in number and time."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import TypeVar

from ggfast.cloud.devices.routing import Asked, bad
from ggfast.cloud.events import CertificateEnded, CoreChanged, DeploymentReady
from ggfast.cloud.limits import DEVICE_POLL_S_MAX, DEVICE_POLLS_MAX, DEVICE_POLLS_OF_ONE_MAX
from ggfast.cloud.operations import Reply

Key = TypeVar("Key")


@dataclass(frozen=True, slots=True, eq=False)
class Waiting:
    """One request that waits: for which core, with which certificate."""

    core: tuple[str, str]  # region and thing's name
    certificate_id: str
    woken: asyncio.Event = field(default_factory=asyncio.Event)


class Polls:
    """Everything runs on the loop."""

    def __init__(self) -> None:
        self._cores: dict[tuple[str, str], set[Waiting]] = {}
        self._certificates: dict[str, set[Waiting]] = {}
        self._of: Counter[str] = Counter()  # those that are in `wait`, by certificate
        self.count = 0
        self._closed = False

    def hear(self, event: object) -> None:
        """Wake those whom an event of the store is about."""
        if isinstance(event, DeploymentReady | CoreChanged):
            _wake(self._cores.get((event.region, event.thing_name)))
        elif isinstance(event, CertificateEnded):
            _wake(self._certificates.get(event.certificate_id))  # they look at their certificate again

    def close(self) -> None:
        """Nobody waits any more."""
        self._closed = True
        for waiting in self._cores.values():
            _wake(waiting)

    async def until(
        self, asked: Asked, thing: str, seconds: float, look: Callable[[Asked], Awaitable[Reply | None]]
    ) -> Reply | None:
        """What `look` gives, at once or after it was called again because something was heard about the core; None
        after `seconds`. Raises Fault when the certificate is not good for the thing any more."""
        deadline = asyncio.get_running_loop().time() + seconds
        waiting = self.begin(asked.identity.region, thing, asked.identity.certificate_id)
        try:
            while True:
                asked.require_thing(thing)
                found = await look(asked)
                if found is not None:
                    return found
                if not await self.wait(waiting, deadline - asyncio.get_running_loop().time()):
                    return None
                asked = await asked.again()
        finally:
            self.end(waiting)

    def begin(self, region: str, thing: str, certificate_id: str) -> Waiting:
        """To be called before looking whether there is something; `end` must follow."""
        waiting = Waiting((region, thing), certificate_id)
        self._cores.setdefault(waiting.core, set()).add(waiting)
        self._certificates.setdefault(certificate_id, set()).add(waiting)
        return waiting

    def end(self, waiting: Waiting) -> None:
        """Done waiting."""
        _drop(self._cores, waiting.core, waiting)
        _drop(self._certificates, waiting.certificate_id, waiting)

    async def wait(self, waiting: Waiting, seconds: float) -> bool:
        """Wait to be woken; False if the time is over, or nobody may wait now."""
        certificate_id = waiting.certificate_id
        full = self.count >= DEVICE_POLLS_MAX or self._of[certificate_id] >= DEVICE_POLLS_OF_ONE_MAX
        if self._closed or full or seconds <= 0:
            return False
        self.count += 1
        self._of[certificate_id] += 1
        try:
            async with asyncio.timeout(seconds):
                await waiting.woken.wait()
        except TimeoutError:
            return False
        finally:
            self.count -= 1
            self._of[certificate_id] -= 1
            if not self._of[certificate_id]:
                del self._of[certificate_id]
        waiting.woken.clear()
        return not self._closed


def seconds_to_wait(asked: Asked) -> float:
    """The query's `wait`, at most DEVICE_POLL_S_MAX. Raises Fault."""
    text = asked.query("wait", "0")
    if not text.isascii() or not text.isdigit() or len(text) > 4:
        raise bad(f"wait is {text[:20]!r}, expected whole seconds from 0 to {DEVICE_POLL_S_MAX:g}.")
    return min(float(text), DEVICE_POLL_S_MAX)


def _wake(waiting: set[Waiting] | None) -> None:
    for each in waiting or ():
        each.woken.set()


def _drop(kept: dict[Key, set[Waiting]], key: Key, waiting: Waiting) -> None:
    kept[key].discard(waiting)
    if not kept[key]:
        del kept[key]
