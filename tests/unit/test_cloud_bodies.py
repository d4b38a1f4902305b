"""Bodies of requests: their bounds in bytes and in time, what one sender may hold, and for how long."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterable
from typing import Any, cast

import pytest
from aiohttp.web import BaseRequest

from ggfast.cloud import bodies, limits
from ggfast.cloud.bodies import Bodies
from ggfast.cloud.faults import Fault

MIB = 2**20


class Sent:
    """A request whose body comes in parts with pauses between them, in seconds."""

    def __init__(self, parts: Iterable[bytes | float] = (), length: int | None = None) -> None:
        self._parts = list(parts)
        self.content_length = length
        self.can_read_body = True
        self.headers: dict[str, str] = {}
        self.content = self

    async def iter_any(self) -> AsyncIterator[bytes]:
        for part in self._parts:
            if isinstance(part, float):
                await asyncio.sleep(part)
            else:
                yield part


def too_large(most: int) -> Fault:
    return Fault("TooLarge", f"at most {most}", status=413)


def reading(held: Bodies, sent: Sent, source: str = "a", most: int = 70 * MIB) -> Any:
    return held.read(cast(BaseRequest, sent), source, most, too_large)


def test_a_body_counts_until_its_request_is_done() -> None:
    async def run() -> None:
        held = Bodies()
        async with reading(held, Sent([b"ab", b"c"], 3)) as body:
            assert body == b"abc" and held.reading == 3
        with pytest.raises(RuntimeError):
            async with reading(held, Sent([b"abc"])):
                assert held.reading == 70 * MIB, "without a length it may become as large as allowed"
                raise RuntimeError
        assert held.reading == 0

    asyncio.run(run())


def test_one_sender_leaves_room_for_others() -> None:
    async def run() -> None:
        held = Bodies()
        async with reading(held, Sent(length=70 * MIB)):
            with pytest.raises(Fault, match="at once") as caught:
                async with reading(held, Sent(length=70 * MIB)):
                    pass
            assert caught.value.status == 429
            async with reading(held, Sent(length=70 * MIB), "b"):
                with pytest.raises(Fault):
                    async with reading(held, Sent(length=70 * MIB), "c"):
                        pass
                async with reading(held, Sent(length=MIB)):
                    assert held.reading == 141 * MIB
        async with reading(held, Sent(length=70 * MIB)):
            pass
        assert held.reading == 0 and limits.BODIES_BYTES_OF_ONE_MAX < limits.BODIES_BYTES_MAX

    asyncio.run(run())


def test_a_body_past_its_bound() -> None:
    async def run() -> None:
        held = Bodies()
        for sent in (Sent([b"abc", b"d"]), Sent([], 4)):
            with pytest.raises(Fault) as caught:
                async with reading(held, sent, most=3):
                    pass
            assert caught.value.status == 413 and held.reading == 0

    asyncio.run(run())


def test_time_is_given_for_what_has_come_not_for_what_is_announced(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bodies, "BODY_S", 0.05)
    monkeypatch.setattr(bodies, "BODY_BYTES_PER_S", 10)

    async def run() -> None:
        held = Bodies()
        with pytest.raises(Fault) as caught:
            async with reading(held, Sent([b"a", 60.0, b"b"], 70 * MIB)):
                pass
        assert (caught.value.code, caught.value.status) == ("RequestTimeoutException", 408)
        async with reading(held, Sent([b"a" * 20, 0.2, b"b"], 21)) as body:
            assert len(body) == 21

    asyncio.run(run())
