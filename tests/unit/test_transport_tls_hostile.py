"""TLS handshakes that are not meant to end: what a stranger may take of memory and of places."""

from __future__ import annotations

import asyncio
import logging
import ssl

import pytest
from test_transport_tls import Door, MakeLoop, echo
from tls_support import ByHand, People, people
from transport_support import LOOPS, run, until, warm_loop

from ggfast import limits

__all__ = ["people", "warm_loop"]  # fixtures: used by being there

pytestmark = pytest.mark.parametrize("make_loop", LOOPS)


def records(message: bytes) -> bytes:
    """A handshake message cut into records, in the clear."""
    parts = (message[at : at + 16_000] for at in range(0, len(message), 16_000))
    return b"".join(b"\x16\x03\x01" + len(part).to_bytes(2, "big") + part for part in parts)


def test_P8_a_hello_without_end_is_not_kept(
    make_loop: MakeLoop, people: People, caplog: pytest.LogCaptureFixture
) -> None:
    async def body() -> None:
        door = Door(people.serving())
        with caplog.at_level(logging.WARNING):
            door.knock().sendall(records(b"\x01" + (131_000).to_bytes(3, "big") + bytes(120_000)))
            await until(lambda: door.counters.get("broker.refused.handshakes"))
        assert f"it sent {limits.TLS_HANDSHAKE_BYTES_MAX} bytes and was not done" in caplog.text
        await door.shut()

    run(make_loop, body())


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
def test_what_follows_a_handshake_in_the_same_read_is_not_counted(
    make_loop: MakeLoop, people: People, version: ssl.TLSVersion
) -> None:
    async def body() -> None:
        door = Door(people.serving())
        client = ByHand(door.knock(), people.visiting(people.device, version))
        await client.shake()
        data = bytes(range(256)) * (4 * limits.TLS_HANDSHAKE_BYTES_MAX // 256)
        await client.say(data, 10 * len(data))
        await until(lambda: door.made and door.made[0].received == data)
        await door.shut()

    run(make_loop, body())


def test_P7_those_who_owe_an_answer_give_way(
    make_loop: MakeLoop, people: People, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def body() -> None:
        monkeypatch.setattr(limits, "TLS_HANDSHAKES_MAX", 2)
        monkeypatch.setattr(limits, "HANDSHAKE_PAUSE_S", 0.01)
        monkeypatch.setattr(limits, "TLS_ANSWER_S", 0.1)
        door = Door(people.serving(), echo)
        for _ in range(2):
            client = ByHand(door.knock(), people.visiting(people.device))
            client.step()
            client.sock.sendall(client.leaving.read())
            await client.hear()
        late = await door.enter(people.visiting(people.device))
        late.sendall(b"in")
        assert await asyncio.to_thread(late.recv, 10) == b"in"
        assert door.counters.get("broker.refused.handshakes") == 1
        await door.shut()

    run(make_loop, body())
