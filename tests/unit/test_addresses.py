"""This machine's addresses: what the kernel's messages say, what is left out, and being told of a change."""

from __future__ import annotations

import asyncio
import errno
import json
import socket
import struct
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path

import pytest

from ggfast import limits
from ggfast.config import CONTAINER_INTERFACES, parse_config
from ggfast.core import certificate_hosts
from ggfast.net import addresses, netlink
from ggfast.net.addresses import Address, AddressWatch, chosen, host_names, local_hosts, normal_host, read_addresses
from tests.patience import patience
from tests.unit.http_support import run, until

SEQUENCE = 7


def message(kind: int, body: bytes, *, flags: int = 2, sequence: int = SEQUENCE) -> bytes:
    return struct.pack("=IHHII", 16 + len(body), kind, flags, sequence, 4242) + body + b"\0" * (-len(body) % 4)


def attributes(pairs: Iterable[tuple[int, bytes]]) -> bytes:
    return b"".join(struct.pack("=HH", 4 + len(v), kind) + v + b"\0" * (-len(v) % 4) for kind, v in pairs)


def link(index: int, name: str, flags: int = 0x1043) -> bytes:
    return message(16, struct.pack("=BxHiII", 0, 1, index, flags, 0) + attributes([(3, name.encode() + b"\0")]))


def address(index: int, text: str, flags: int = 0x80, *, peer: str = "", wide: int | None = None) -> bytes:
    family = socket.AF_INET6 if ":" in text else socket.AF_INET
    pairs = [(1, socket.inet_pton(family, peer or text))]
    if peer or family == socket.AF_INET:
        pairs.append((2, socket.inet_pton(family, text)))
    pairs += [(3, b"label\0")] + ([(8, struct.pack("=I", wide))] if wide is not None else [])
    return message(20, struct.pack("=BBBBI", family, 24, flags & 0xFF, 0, index) + attributes(pairs))


DONE = message(3, b"\0\0\0\0")
LINKS = b"".join(
    link(index, name, flags)
    for index, name, flags in (
        (1, "lo", 0x49),
        (2, "eth0", 0x1043),
        (3, "docker0", 0x1003),
        (4, "eth1", 0x1002),
        (5, "tun0", 0x10D1),
        (6, "br-0123456789ab", 0x1003),
        (7, "br-lan", 0x1003),
    )
)
ADDRESSES = b"".join(
    (
        address(1, "127.0.0.1"),
        address(1, "::1"),
        address(5, "10.8.0.6", peer="10.8.0.5"),
        address(2, "192.168.1.5"),
        address(2, "192.168.1.6", 0x81),  # a second one: in IPv4 the bit says no more than that
        address(2, "169.254.7.7"),
        address(2, "2001:db8::5"),
        address(2, "2001:db8::bad", 0x01),
        address(2, "2001:db8::b0b", 0x80, wide=0xC0),
        address(2, "2001:db8::dead", 0x20),
        address(2, "fe80::1"),
        address(3, "172.17.0.1"),
        address(4, "10.1.1.1"),  # of an interface that is down
        address(6, "172.18.0.1"),
        address(7, "192.168.7.1"),
        address(99, "10.2.2.2"),  # of one that went while the kernel was telling
    )
)


def recorded() -> netlink.Dump:
    dump = netlink.Dump()
    assert not dump.feed(LINKS, SEQUENCE)
    assert dump.feed(ADDRESSES + DONE, SEQUENCE)
    return dump


def test_what_stays_is_found_in_a_useful_order(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(netlink, "dump", recorded)
    found = read_addresses()
    texts = [entry.text for entry in found]
    assert texts == [
        *("127.0.0.1", "192.168.1.5", "192.168.1.6", "172.17.0.1", "10.8.0.6", "172.18.0.1", "192.168.7.1"),
        *("::1", "2001:db8::5"),
    ]
    usable = [entry.text for entry in chosen(found, CONTAINER_INTERFACES, loopback=False)]
    assert usable == ["192.168.1.5", "192.168.1.6", "10.8.0.6", "192.168.7.1", "2001:db8::5"]
    assert chosen(found, (), loopback=True) == found
    assert [entry.text for entry in chosen(found, ("eth*", "t?n0", "br-*", "docker0"), loopback=False)] == []
    assert {"localhost", "127.0.0.1", *texts} <= set(local_hosts())


def test_an_answer_of_the_kernel_may_be_an_error() -> None:
    with pytest.raises(PermissionError):
        netlink.Dump().feed(message(2, struct.pack("=i", -errno.EPERM)), SEQUENCE)
    with pytest.raises(OSError, match="error number"):
        netlink.Dump().feed(message(2, struct.pack("=i", 5)), SEQUENCE)
    assert not netlink.Dump().feed(message(2, struct.pack("=i", 0)), SEQUENCE)
    assert not netlink.Dump().feed(DONE, SEQUENCE + 1)  # of another request
    dump = netlink.Dump()
    dump.feed(message(16, b"", flags=0x12), SEQUENCE)
    assert dump.interrupted


def test_this_machine_is_read_and_both_ways_agree(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = read_addresses()
    assert Address("127.0.0.1", "lo") in asked
    monkeypatch.setattr(netlink, "dump", refuse)
    assert {entry.text for entry in read_addresses()} == {entry.text for entry in asked}
    assert certificate_hosts.normal_hosts(local_hosts()) == local_hosts() == certificate_hosts.local_hosts()


def refuse(*_: object) -> netlink.Dump:
    raise PermissionError(errno.EPERM, "refused")


FIB_TRIE = """Main:
  +-- 0.0.0.0/0 3 0 5
     |-- 0.0.0.0
        /0 universe UNICAST
        |-- 127.0.0.1
           /32 host LOCAL
        |-- 127.255.255.255
           /32 link BROADCAST
     |-- 169.254.7.7
        /32 host LOCAL
     |-- 192.168.1.0
        /24 link UNICAST
     |-- 192.168.1.5
        /32 host LOCAL
     |-- 10.5.5.5
        /32 host LOCAL
"""
ROUTE = """Iface\tDestination\tGateway \tFlags\tRefCnt\tUse\tMetric\tMask\t\tMTU\tWindow\tIRTT
eth0\t00000000\t0101A8C0\t0003\t0\t0\t0\t00000000\t0\t0\t0
wide\t0000A8C0\t00000000\t0001\t0\t0\t0\t0000FFFF\t0\t0\t0
eth0\t0001A8C0\t00000000\t0001\t0\t0\t0\t00FFFFFF\t0\t0\t0
cut short
"""
IF_INET6 = """00000000000000000000000000000001 01 80 10 80       lo
20010db8000000000000000000000005 02 40 00 80     eth0
20010db8000000000000000000000bad 02 40 00 01     eth0
20010db8000000000000000000000b0b 02 40 00 c0     eth0
fe8000000000000000fc00fffe000001 02 40 20 80     eth0
a line that is something else
"""


def test_without_netlink_proc_says_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(netlink, "dump", refuse)
    texts = {"fib_trie": FIB_TRIE, "route": ROUTE, "if_inet6": IF_INET6}
    monkeypatch.setattr(addresses, "_read_proc", texts.__getitem__)
    assert read_addresses() == (
        Address("10.5.5.5", ""),
        Address("127.0.0.1", "lo"),
        Address("192.168.1.5", "eth0"),
        Address("::1", "lo"),
        Address("2001:db8::5", "eth0"),
    )
    monkeypatch.setattr(addresses, "_read_proc", lambda _: "")
    assert read_addresses() == ()


def test_names_are_bounded_and_the_host_may_have_a_strange_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(socket, "gethostname", lambda: "My Gateway!")
    many = [Address(f"10.0.{number // 250}.{number % 250}", "eth0") for number in range(200)]
    names = host_names(many)
    assert (names[:3], len(names)) == (("localhost", "127.0.0.1", "10.0.0.0"), limits.CERTIFICATE_HOSTS_MAX)
    monkeypatch.setattr(socket, "gethostname", lambda: "Gate-7.Example.")
    assert host_names(())[2] == normal_host("gate-7.example") == "gate-7.example"


# --- changes ----------------------------------------------------------------------------------------------


def test_where_news_is_refused_addresses_are_looked_at(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(netlink, "open_news", refuse)
    monkeypatch.setattr(limits, "ADDRESS_LOOK_S", 0.01)
    seen: list[tuple[Address, ...]] = []

    async def body() -> None:
        watch = AddressWatch(asyncio.get_running_loop(), seen.append, lambda: (Address(f"10.0.0.{len(seen)}", ""),))
        await watch.start()
        assert len(seen) == 1
        assert "refused" in watch.refused
        await until(lambda: len(seen) > 2, "more looks")
        await watch.stop()

    run(body())


def test_a_burst_is_one_change_and_a_broken_socket_is_survived(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "ADDRESS_SETTLE_S", 0.05)
    seen: list[object] = []
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
    ours.setblocking(False)
    monkeypatch.setattr(netlink, "open_news", lambda: ours)
    told: list[BaseException | bool] = [True, True, True, OSError(errno.EBADF, "gone")]

    def take(sock: socket.socket) -> bool:
        sock.recv(100)
        found = told.pop(0)
        if isinstance(found, BaseException):
            raise found
        return found

    monkeypatch.setattr(netlink, "take_news", take)

    async def body() -> None:
        watch = AddressWatch(asyncio.get_running_loop(), seen.append, lambda: ())
        await watch.start()
        for _ in range(3):
            theirs.send(b"x")
        await until(lambda: len(seen) == 2, "the look after the burst")
        theirs.send(b"x")
        await until(lambda: watch.refused, "the end of news")
        assert len(seen) == 2
        watch.look()
        await until(lambda: len(seen) == 3, "a look that was asked for")
        await watch.stop()

    with theirs:
        run(body())


def test_news_from_the_kernel_alone_count() -> None:
    class Socket:
        def __init__(self, *results: object) -> None:
            self.results = [*results]

        def recvfrom(self, size: int) -> object:
            result = self.results.pop(0) if self.results else BlockingIOError()
            if isinstance(result, BaseException):
                raise result
            return result

    def taken(*results: object) -> bool:
        return netlink.take_news(Socket(*results))  # type: ignore[arg-type]

    assert not taken()
    assert taken((b"x", (0, 1)))
    assert not taken((b"x", (4711, 0)))
    assert taken(OSError(errno.ENOBUFS, "lost some"))
    with pytest.raises(OSError, match="gone"):
        taken(OSError(errno.EBADF, "gone"))


IN_A_NAMESPACE = """
import asyncio, ctypes, fcntl, json, socket, struct, sys, uvloop
assert ctypes.CDLL(None, use_errno=True).unshare(0x40000000) == 0  # CLONE_NEWNET
from ggfast import limits
from ggfast.net.addresses import AddressWatch
limits.ADDRESS_LOOK_S, limits.ADDRESS_SETTLE_S = 1e6, 0.2  # so it is news or nothing

def change(request, name, value):
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        fcntl.ioctl(sock, request, struct.pack("16s24s", name.encode(), value))

def assign(text):
    change(0x8916, "lo:1", struct.pack("=HH4s", socket.AF_INET, 0, socket.inet_aton(text)))

async def main():
    seen = asyncio.Queue()
    def looked(found):
        seen.put_nowait([(address.text, address.interface) for address in found])
    watch = AddressWatch(asyncio.get_running_loop(), looked)
    await watch.start()
    looks = [await seen.get()]
    up = lambda: change(0x8914, "lo", struct.pack("=H", 0x41))
    for step in (up, lambda: assign("10.9.8.7"), lambda: assign("0.0.0.0")):
        step()
        async with asyncio.timeout(float(sys.argv[1])):
            looks.append(await seen.get())
    await watch.stop()
    print(json.dumps([watch.refused, looks]))

uvloop.run(main()) if sys.argv[2] == "uvloop" else asyncio.run(main())
"""


@pytest.mark.root
@pytest.mark.parametrize("loop", ["uvloop", "asyncio"])
def test_a_real_change_is_seen_at_once(repository: Path, loop: str) -> None:
    command = [sys.executable, "-c", IN_A_NAMESPACE, str(patience(20)), loop]
    done = subprocess.run(command, cwd=repository, capture_output=True, timeout=patience(90), text=True)
    assert done.returncode == 0, done.stderr
    refused, (at_first, up, with_address, without) = json.loads(done.stdout)
    assert (refused, at_first) == ("", [])
    assert ["127.0.0.1", "lo"] in up
    assert ["10.9.8.7", "lo"] in with_address
    assert without == up


# --- settings ---------------------------------------------------------------------------------------------


def settings_of(**own: object) -> tuple[tuple[str, ...], bool]:
    thing = {"thingArn": "arn:aws:iot:eu-west-1:123456789012:thing/gw"}
    document = {"coreThing": thing, "ggfast": {"local": True, **own}}
    read = parse_config(json.dumps(document).encode(), Path("/greengrass")).ggfast
    return read.detect_skip_interfaces, read.detect_loopback


def test_what_is_skipped_can_be_configured() -> None:
    assert settings_of() == (CONTAINER_INTERFACES, False)
    assert settings_of(detectSkipInterfaces=[], detectLoopback=True) == ((), True)
    assert settings_of(detectSkipInterfaces=list(CONTAINER_INTERFACES)) == (CONTAINER_INTERFACES, False)
    assert settings_of(detectSkipInterfaces=["wlan*"]) == (("wlan*",), False)
    with pytest.raises(Exception, match="detectSkipInterfaces"):
        settings_of(detectSkipInterfaces=["a b", 5])
