"""Hostile functions against the network and the sockets of the host: loopback only."""

from __future__ import annotations

import asyncio
import json
import os
import select
import socket
import struct
from collections.abc import Iterator
from pathlib import Path

import pytest
import uvloop

from ggfast._ext import kernel
from tests.sandbox.hostile import WHO, Cage, cage, listener, row

__all__ = ["cage"]
pytestmark = pytest.mark.root
ALLOWED = ("tcp", "udp", "tcp6", "unix", "netlink")


@row(26, "raw, packet, AF_ALG, vsock and other rare sockets", by="seccomp", result="EPERM; EAFNOSUPPORT")
@WHO
def test_row_26_socket_families(cage: Cage, who: str) -> None:
    """Raw sockets of allowed families are EPERM, families are EAFNOSUPPORT; what programs need still works."""
    control = cage.outside("network.families", "root")
    assert {control[name] for name in ("packet", "vsock", "raw inet")} == {"OK"}
    found = cage.run("network.families", who)
    assert {found.pop(name) for name in ALLOWED} == {"OK"}
    raw = {found.pop(name) for name in list(found) if name.startswith("raw") or name == "packet kind"}
    assert raw == {"EPERM"}
    assert found.pop("pair of alg") in ("EAFNOSUPPORT", "ENOTSUP")  # no family but unix has pairs
    assert set(found.values()) == {"EAFNOSUPPORT"}, found


@row(27, "netlink: change links and routes; interface ioctls", by="capabilities", result="EPERM")
@WHO
def test_row_27_netlink(cage: Cage, who: str) -> None:
    """Outside root is told that the interface does not exist. Asking for the list is allowed."""
    control = cage.outside("network.netlink", "root")
    assert control.pop("list links") == "answer 16" and "EPERM" not in control.values()
    found = cage.run("network.netlink", who)
    assert found.pop("list links") == "answer 16"
    assert set(found.values()) == {"EPERM"}, found


def _low_port() -> int:
    """A port below 1024 that is free on loopback."""
    for port in range(1023, 600, -1):
        with socket.socket() as probe:
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
            return port
    raise AssertionError("no free port below 1024")


@row(28, "bind a port below 1024", by="capabilities", result="EACCES")
@WHO
def test_row_28_low_port(cage: Cage, who: str) -> None:
    """Any port below the kernel's limit, on loopback; a high one can be had."""
    assert int(Path("/proc/sys/net/ipv4/ip_unprivileged_port_start").read_text()) == 1024
    port = _low_port()
    assert cage.outside("network.low_port", "root", port=port)["low"] == "OK"
    assert cage.run("network.low_port", who, port=port) == {"low": "EACCES", "high": "OK"}


@row(29, "connect to unix sockets of the host's services", by="opaque /run and /var, own /tmp", result="ENOENT")
@WHO
def test_row_29_unix_sockets(cage: Cage, who: str) -> None:
    """Everybody may connect to them on the host. No socket of anybody is in sight either."""
    addresses = [f"{place}/ggfast-hostile-{os.getpid()}" for place in ("/run", "/var/lib", "/tmp", "/var/tmp")]
    with listener(addresses[0]), listener(addresses[1]), listener(addresses[2]), listener(addresses[3]):
        control = cage.outside("network.connect", "user", addresses=addresses)
        assert set(control.values()) == {"OK"}
        assert set(cage.run("network.connect", who, addresses=addresses).values()) == {"ENOENT"}
        assert cage.run("network.sockets_in_sight", who) == []


@row(30, "connect to an abstract socket of the host", by="Landlock scope (Linux 6.12)", result="EPERM")
@WHO
def test_row_30_abstract_socket(cage: Cage, who: str) -> None:
    """Older kernels have nothing against it while the network is shared: the core never listens on one."""
    if kernel.landlock_abi() < 6:
        pytest.skip("needs Landlock 6 (Linux 6.12)")
    address = f"@ggfast-hostile-{os.getpid()}"
    with listener(address):
        assert cage.outside("network.connect", who, addresses=[address]) == {address: "OK"}
        assert cage.run("network.connect", who, addresses=[address]) == {address: "EPERM"}


@pytest.fixture(scope="module")
def uvloop_runner() -> Iterator[asyncio.Runner]:
    """A runner with the daemon's event loop; libuv keeps a pipe of its own for the rest of the process."""
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.get_loop()
        yield runner


class _Reader(asyncio.Protocol):
    """Collects one byte and one answer of the harness's worker behind it."""

    def __init__(self) -> None:
        self.answer: asyncio.Future[bytes] = asyncio.get_running_loop().create_future()
        self._data = b""

    def data_received(self, data: bytes) -> None:
        self._data += data
        if len(self._data) >= 5 and len(self._data) == 5 + struct.unpack_from("<I", self._data, 1)[0]:
            self.answer.set_result(self._data[5:])


async def _read_like_the_daemon(sock: socket.socket) -> bytes:
    loop = asyncio.get_running_loop()
    transport, protocol = await loop.create_connection(_Reader, sock=sock)
    try:
        return await asyncio.wait_for(protocol.answer, 20)
    finally:
        transport.abort()


@row(51, "send descriptors over the IPC socket", by="no ancillary buffer", result="dropped by the kernel")
@WHO
def test_row_51_descriptors_to_the_daemon(cage: Cage, who: str, uvloop_runner: asyncio.Runner) -> None:
    """Read as the daemon reads, by an event loop's transport: the pipe that was sent has no writer left."""
    worker = cage.start("network.send_descriptor", who)
    data = uvloop_runner.run(_read_like_the_daemon(socket.socket(fileno=os.dup(worker.ipc.fileno()))))
    assert json.loads(data)["value"] == [select.POLLHUP]
    cage.box.end(worker)
