"""Plays the protocol vectors of `mqtt/` (3.1.1) and `mqtt5/` (5.0) against a live broker, over real sockets.

A vector is data: named connections, bytes sent, bytes expected. This module knows how to read that
data, how to start the broker and how to play many cases at once; it knows nothing of what a packet
means beyond its length (packet5.py reads the two whose bytes are a broker's choice). The format is described
in README.md beside it.

    python tests/vectors/runner.py play [part of a case name …]     play and print what failed
    python tests/vectors/runner.py table                            rewrite the STATEMENTS.md of both

GGFAST_VECTOR_BROKER=host:port plays against a broker that already runs. Cases marked `choice` (the
specification leaves it open, we decided) are then left out, and a case with `peer_deviates` may fail.
"""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import itertools
import os
import random
import re
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from packet5 import CONNACK, DISCONNECT, BadPacket, complain, read_answer
from vectorfile import MQTT_3_1_1, MQTT_5, Case, Pattern, Step, load_cases, shown, statement_table

TARGET_VARIABLE: Final = "GGFAST_VECTOR_BROKER"

ANSWER_S: Final = 10.0  # only a failing case waits this long; a busy machine must not look like a fault
CUT_S: Final = 0.002  # between pieces of one send, so that each travels alone
QUIET_S: Final = 0.15  # `expect-nothing: wait`, for connections that cannot be asked with a PINGREQ
START_S: Final = 20.0
CASE_S: Final = 40.0
AT_ONCE: Final = 24  # cases in flight; the broker sees about three connections of each

VERSIONS: Final = (MQTT_3_1_1, MQTT_5)
PINGREQ: Final = b"\xc0\x00"
PINGRESP: Final = b"\xd0\x00"


class Mismatch(Exception):
    """The broker did something else than the case expects."""


# --- one connection ------------------------------------------------------------------------------------


class Wire(asyncio.Protocol):
    """The client end of one TCP connection; keeps what arrived also when the broker resets it."""

    def __init__(self) -> None:
        self.buffer = bytearray()
        self.closed_at: float | None = None
        self.last_sent = time.monotonic()
        self._transport: asyncio.Transport | None = None
        self._changed = asyncio.Event()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        transport.get_extra_info("socket").setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def data_received(self, data: bytes) -> None:
        self.buffer += data
        self._changed.set()

    def connection_lost(self, error: Exception | None) -> None:
        self.closed_at = time.monotonic()
        self._changed.set()

    def send(self, data: bytes) -> None:
        """Hand to the kernel; a connection the broker has closed already swallows it."""
        assert self._transport is not None
        if self.closed_at is None:
            self.last_sent = time.monotonic()
            self._transport.write(data)

    def drop(self, how: str) -> None:
        """End without DISCONNECT: `fin` closes in order, `reset` cuts."""
        assert self._transport is not None
        if how == "reset" and self.closed_at is None:
            linger = b"\1\0\0\0\0\0\0\0"  # on, 0 s: the kernel sends RST
            self._transport.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
        self._transport.abort()

    async def take(self, count: int, timeout_s: float = ANSWER_S) -> bytes:
        """The next `count` bytes, or fewer if the connection ends or the time is over."""
        deadline = time.monotonic() + timeout_s
        while len(self.buffer) < count and self.closed_at is None and await self._change(deadline):
            pass
        taken = bytes(self.buffer[:count])
        del self.buffer[:count]
        return taken

    async def take_packet(self) -> bytes:
        """The next whole packet by its Remaining Length, or less if the connection ends or goes silent."""
        packet = await self.take(2)
        length, shift = packet[-1] & 127 if packet else 0, 7
        while len(packet) > 1 and packet[-1] & 128 and shift < 28:
            packet += await self.take(1)
            length |= (packet[-1] & 127) << shift
            shift += 7
        return packet + await self.take(length) if length else packet

    async def until_closed(self, deadline: float) -> bool:
        """Wait for the end of the connection or for unexpected bytes; True if it ended."""
        while self.closed_at is None and not self.buffer and await self._change(deadline):
            pass
        return self.closed_at is not None

    async def _change(self, deadline: float) -> bool:
        """Wait until something arrived or ended; False when the time is over."""
        self._changed.clear()
        try:
            await asyncio.wait_for(self._changed.wait(), max(0.0, deadline - time.monotonic()))
        except TimeoutError:
            return False
        return True


# --- playing -------------------------------------------------------------------------------------------


@dataclass(slots=True)
class Player:
    """Plays one case; `names` are the packet identifiers the broker has chosen so far.

    With `cut` every send is cut into a few pieces at places it chooses.
    """

    host: str
    port: int
    case: Case
    wires: dict[str, Wire] = field(default_factory=dict)
    names: dict[str, bytes] = field(default_factory=dict)
    cut: random.Random | None = None

    async def play(self) -> str:
        """Empty text if all went as written, else which step failed and how."""
        number, step = 1, self.case.steps[0]
        try:
            await self._clean_up()
            async with asyncio.timeout(CASE_S):
                for number, step in enumerate(self.case.steps, 1):  # noqa: B007 (the handler names the step)
                    await self._play_step(step)
            for name, wire in self.wires.items():
                if wire.buffer:
                    raise Mismatch(f"{name}: left over at the end: {shown(bytes(wire.buffer))}")
        except (Mismatch, OSError, TimeoutError) as error:
            return (
                f"{self.case.file}: step {number} ({step.on} {step.kind}: {step.note}): {error or type(error).__name__}"
            )
        finally:
            for wire in self.wires.values():
                wire.drop("fin")
            with contextlib.suppress(Mismatch, OSError, TimeoutError):
                await self._clean_up()
        return ""

    async def _play_step(self, step: Step) -> None:
        if step.kind == "wait-ms":
            await asyncio.sleep(step.value / 1000)
        elif step.kind == "distinct":
            values = [self.names[name] for name in step.value]
            if len(set(values)) != len(values):
                raise Mismatch(f"packet identifiers {step.value} are {[value.hex() for value in values]}")
        else:
            if step.on not in self.wires:
                self.wires[step.on] = await _open(self.host, self.port)
            play = getattr(self, "_" + step.kind.replace("-", "_"))
            await play(self.wires[step.on], step)

    async def _send(self, wire: Wire, step: Step) -> None:
        data = step.value.fill(self.names)
        places = list(range(1, len(data))) if step.bytewise else []
        if self.cut:
            places = sorted(self.cut.randrange(len(data)) for _ in range(self.cut.randrange(1, 5)))
        for start, end in itertools.pairwise([0, *places, len(data)]):
            wire.send(data[start:end])
            await asyncio.sleep(CUT_S if places else 0)

    async def _expect(self, wire: Wire, step: Step) -> None:
        pattern: Pattern = step.value
        found = await wire.take(pattern.size)
        if not pattern.match(found, self.names):
            found += bytes(wire.buffer)
            end = " and then the end of the connection" if wire.closed_at else ""
            raise Mismatch(f"expected {pattern.show(self.names)}, got {shown(found) or 'nothing'}{end}")

    async def _expect_set(self, wire: Wire, step: Step) -> None:
        waiting: list[Pattern] = list(step.value)
        while waiting:
            packet = await wire.take_packet()
            hit = next((pattern for pattern in waiting if pattern.match(packet, self.names)), None)
            if hit is None:
                wanted = " | ".join(pattern.show(self.names) for pattern in waiting)
                raise Mismatch(f"expected in any order {wanted}, got {shown(packet) or 'nothing'}")
            waiting.remove(hit)

    async def _expect_any(self, wire: Wire, step: Step) -> None:
        wire.send(PINGREQ)
        packets: list[bytes] = []
        while not packets or packets[-1] not in (PINGRESP, b""):
            packets.append(await wire.take_packet())
        if packets.pop() != PINGRESP:
            raise Mismatch(f"no PINGRESP after {[packet.hex() for packet in packets]}")
        for alternative in step.value:
            if _same_packets(alternative, packets, self.names):
                return
        raise Mismatch(f"got {[shown(packet) for packet in packets]}, which is none of the allowed answers")

    async def _expect_close(self, wire: Wire, step: Step) -> None:
        limit_s = step.before_ms / 1000 or ANSWER_S
        ended = await wire.until_closed(wire.last_sent + limit_s if step.before_ms else time.monotonic() + limit_s)
        if wire.buffer:
            raise Mismatch(f"expected the end of the connection, got {shown(bytes(wire.buffer))}")
        if not ended or wire.closed_at is None:
            raise Mismatch(f"the connection is still open after {limit_s} s")
        after_ms = (wire.closed_at - wire.last_sent) * 1000
        if step.after_ms and after_ms < step.after_ms:
            raise Mismatch(f"the connection was closed after {after_ms:.0f} ms, expected {step.after_ms} at least")

    async def _expect_connack(self, wire: Wire, step: Step) -> None:
        await self._expect_answer(wire, step, CONNACK)
        if step.value["codes"][0] >= 0x80:  # a refusal is the last word
            await self._expect_end(wire)

    async def _expect_disconnect(self, wire: Wire, step: Step) -> None:
        await self._expect_answer(wire, step, DISCONNECT)
        await self._expect_end(wire)

    async def _expect_answer(self, wire: Wire, step: Step, first: int) -> None:
        packet = await wire.take_packet()
        if not packet and step.value["codes"][0] >= 0x80 and foreign_target():
            return  # a server may leave without saying why; ours does say it
        try:
            complaint = complain(read_answer(packet, first), step.value, self.names)
        except BadPacket as error:
            complaint = str(error)
        if complaint:
            end = " and then the end of the connection" if wire.closed_at else ""
            raise Mismatch(f"{complaint}; got {shown(packet) or 'nothing'}{end}")

    async def _expect_end(self, wire: Wire) -> None:
        if not await wire.until_closed(time.monotonic() + ANSWER_S) or wire.buffer:
            raise Mismatch(f"expected the end of the connection, got {shown(bytes(wire.buffer)) or 'nothing'}")

    async def _expect_nothing(self, wire: Wire, step: Step) -> None:
        if step.value == "wait":
            if await wire.until_closed(time.monotonic() + QUIET_S):
                raise Mismatch("the connection was closed, expected silence")
            if wire.buffer:
                raise Mismatch(f"expected silence, got {shown(bytes(wire.buffer))}")
            return
        wire.send(PINGREQ)
        found = await wire.take(2)
        if found != PINGRESP:
            found += bytes(wire.buffer)
            raise Mismatch(f"expected nothing but a PINGRESP, got {shown(found) or 'the end of the connection'}")

    async def _close(self, wire: Wire, step: Step) -> None:
        wire.drop(step.value)

    async def _clean_up(self) -> None:
        """Leave nothing behind in the broker and rely on nothing left there: sessions, retained messages."""
        level = self.case.level
        for client_id in self.case.sessions:
            await _visit(self.host, self.port, level, client_id, b"")
        for topic in self.case.retained:
            clear = len(topic).to_bytes(2, "big") + topic + (b"\0" if level == 5 else b"")
            size = len(clear)
            length = bytes([size]) if size < 128 else bytes([size & 127 | 128, size >> 7])
            await _visit(self.host, self.port, level, b"", b"\x31" + length + clear)


def _same_packets(patterns: Sequence[Pattern], packets: Sequence[bytes], names: dict[str, bytes]) -> bool:
    """Whether each packet fits one pattern of its own; binds names only if all do."""
    trial = dict(names)
    waiting = list(patterns)
    for packet in packets:
        hit = next((pattern for pattern in waiting if pattern.match(packet, trial)), None)
        if hit is None:
            return False
        waiting.remove(hit)
    if not waiting:
        names.update(trial)
    return not waiting


async def _open(host: str, port: int) -> Wire:
    _, wire = await asyncio.get_running_loop().create_connection(Wire, host, port)
    return wire


async def _visit(host: str, port: int, level: int, client_id: bytes, packets: bytes) -> None:
    """Connect with a session that ends at once, send, be sure it was processed, leave."""
    properties = b"\0" if level == 5 else b""  # no session expiry interval: 0 s
    body = b"\0\4MQTT" + bytes([level]) + b"\2\0\0" + properties + len(client_id).to_bytes(2, "big") + client_id
    wire = await _open(host, port)
    wire.send(b"\x10" + bytes([len(body)]) + body + packets + PINGREQ)
    connack = await wire.take_packet()
    pingresp = await wire.take(2)
    if connack[:1] != b"\x20" or connack[2:4] != b"\0\0" or pingresp != PINGRESP:
        raise Mismatch(f"cannot clean up, the broker answered {(connack + pingresp).hex(' ')}")
    wire.send(b"\xe0\0")
    await wire.until_closed(time.monotonic() + ANSWER_S)
    wire.drop("fin")


async def play_all(cases: Sequence[Case], host: str, port: int, seed: int | None = None) -> dict[str, str]:
    """Case name → what went wrong (empty: nothing). Cases marked `alone` come first, one by one.

    With a `seed` the bytes arrive in pieces cut at random, which must change nothing.
    """
    results: dict[str, str] = {}
    gate = asyncio.Semaphore(AT_ONCE)

    async def play_one(case: Case) -> None:
        async with gate:
            cut = None if seed is None else random.Random(f"{seed} {case.name}")
            results[case.name] = await Player(host, port, case, cut=cut).play()

    for case in cases:
        if case.alone:
            await play_one(case)
    rest = [case for case in cases if not case.alone]
    rest.sort(key=waits_ms, reverse=True)  # the long ones first, so that they do not make the tail
    await asyncio.gather(*(play_one(case) for case in rest))
    return results


def playable(cases: Sequence[Case]) -> list[Case]:
    """The cases for this target: what the specification leaves open is ours alone."""
    return [case for case in cases if not (case.choice and foreign_target())]


def foreign_target() -> bool:
    """Whether GGFAST_VECTOR_BROKER names another broker."""
    return TARGET_VARIABLE in os.environ


def waits_ms(case: Case) -> int:
    """How long the case waits because time is its subject."""
    return sum(step.value if step.kind == "wait-ms" else step.before_ms for step in case.steps)


# --- the broker ----------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Broker:
    """Where to play, and the process if it is ours."""

    host: str
    port: int
    process: subprocess.Popen[bytes] | None
    log: Path | None

    def verdict(self) -> str:
        """Empty text while the broker lives and is well; else its exit status or traceback and last words."""
        if self.process is None:
            return ""
        if self.process.poll() is not None:
            return f"the broker ended with status {self.process.returncode}:\n{self.last_words()}"
        return f"the broker met a fault of its own:\n{self.last_words()}" if "Traceback" in self.last_words() else ""

    def last_words(self) -> str:
        """Its log, or the end of a long one."""
        return self.log.read_text(errors="replace")[-20_000:] if self.log else ""


@contextlib.contextmanager
def broker() -> Iterator[Broker]:
    """A broker process of our own on a free port, or the one GGFAST_VECTOR_BROKER names."""
    if target := os.environ.get(TARGET_VARIABLE):
        host, _, port = target.rpartition(":")
        yield Broker(host, int(port), None, None)
        return
    with tempfile.TemporaryDirectory(prefix="ggfast-vectors-") as folder:
        log = Path(folder, "broker.log")
        command = [sys.executable, "-m", "ggfast.cli.broker", "--host", "127.0.0.1", "--port", "0"]
        with log.open("wb") as output:
            process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=output, stderr=output, cwd=folder)
        try:
            yield _await_listener(Broker("127.0.0.1", 0, process, log))
        finally:
            process.terminate()
            try:
                process.wait(START_S)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


def _await_listener(starting: Broker) -> Broker:
    """The broker with the port its listening line names."""
    deadline = time.monotonic() + START_S
    while time.monotonic() < deadline and not starting.verdict():
        if line := re.search(r"^ggfast broker listening on \S+ port (\d+)", starting.last_words(), re.M):
            return dataclasses.replace(starting, port=int(line[1]))
        time.sleep(0.05)
    raise RuntimeError(starting.verdict() or f"no listening line after {START_S} s:\n{starting.last_words()}")


def main(arguments: Sequence[str]) -> int:
    """The command line of the module's docstring; exit status 1 if a case failed."""
    cases = load_cases(*VERSIONS)
    if arguments == ["table"]:
        for version in VERSIONS:
            version.table.write_text(statement_table(version, cases))
        return 0
    if not arguments or arguments[0] != "play":
        print(__doc__, file=sys.stderr)
        return 2
    parts = arguments[1:] or [""]
    chosen = [case for case in playable(cases) if any(part in case.name for part in parts)]
    started = time.monotonic()
    with broker() as running:
        results = asyncio.run(play_all(chosen, running.host, running.port))
        failed = {name: text for name, text in results.items() if text}
        for case in chosen:
            if text := results[case.name]:
                known = f"    known: {case.peer_deviates}\n" if case.peer_deviates else ""
                print(f"{case.name}\n    {text}\n{known}", end="")
        if verdict := running.verdict():
            print(verdict)
    print(f"{len(results)} cases, {len(failed)} failed, {time.monotonic() - started:.1f} s")
    return 1 if failed or verdict else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
