"""This machine's addresses, and being told when they change.

The kernel is asked over netlink; where that is refused, /proc says nearly the same. Changes come as netlink news; a
look every ADDRESS_LOOK_S finds what news did not say, and is all there is where they are refused.
"""

from __future__ import annotations

import asyncio
import ipaddress
import re
import socket
import sys
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Final

from ggfast import limits
from ggfast.net import netlink
from ggfast.net.netlink import IpAddress

_LABEL: Final = re.compile(r"(?!-)[a-z0-9_-]{1,63}(?<!-)")
_HOST_NAME_MAX: Final = 253  # RFC 1035 2.3.4 in text form
_PASSING: Final = (
    netlink.ADDRESS_TEMPORARY | netlink.ADDRESS_DUPLICATE | netlink.ADDRESS_DEPRECATED | netlink.ADDRESS_TENTATIVE
)


@dataclass(frozen=True, slots=True)
class Address:
    """An address that stays, and the interface it belongs to; "" where only the address is known."""

    text: str
    interface: str

    @property
    def is_loopback(self) -> bool:
        """Whether only programs on this machine reach it."""
        return ipaddress.ip_address(self.text).is_loopback


def read_addresses() -> tuple[Address, ...]:
    """The addresses of all interfaces that are up: IPv4 first, then in the order of the interfaces, each once.

    Link-local, temporary, deprecated and unsettled ones are left out: they come and go. Blocks for a moment; never
    raises: a machine that says nothing has none.
    """
    try:
        found = _from_kernel(netlink.dump())
    except OSError:
        found = _from_proc(_read_proc("fib_trie"), _read_proc("route"), _read_proc("if_inet6"))
    once: dict[str, Address] = {}
    for _, address, interface in sorted(found, key=lambda entry: (entry[1].version, entry[0], int(entry[1]))):
        if not (address.is_link_local or address.is_multicast or address.is_unspecified):
            once.setdefault(str(address), Address(str(address), interface))
    return tuple(once.values())


def chosen(addresses: Iterable[Address], skipped: Sequence[str], *, loopback: bool) -> tuple[Address, ...]:
    """Those that other machines can use: none of interfaces whose name fits a pattern of `skipped` (as of a shell), and
    loopback ones only with `loopback`."""
    return tuple(
        address
        for address in addresses
        if (loopback if address.is_loopback else not any(fnmatchcase(address.interface, name) for name in skipped))
    )


def host_names(addresses: Iterable[Address]) -> tuple[str, ...]:
    """What a certificate of this machine's servers names: the local names, the host name, `addresses`. Asks no name
    server."""
    found: dict[str, None] = {"localhost": None, "127.0.0.1": None}
    try:
        found[normal_host(socket.gethostname())] = None
    except ValueError:
        pass  # a host name no certificate can carry; devices cannot use it either
    for address in addresses:
        found[address.text] = None
    return tuple(found)[: limits.CERTIFICATE_HOSTS_MAX]


def local_hosts(skipped: Sequence[str] = ()) -> tuple[str, ...]:
    """Every address and name of this machine that a device could use, in a stable order; `skipped` as in `chosen`.
    Blocks for a moment."""
    return host_names(chosen(read_addresses(), skipped, loopback=True))


def normal_host(text: str) -> str:
    """The one spelling of an address or host name: addresses compressed, names in lower case without a final
    dot. Raises ValueError, saying why, for anything a certificate cannot name (link-scoped addresses too)."""
    if "%" in text:
        raise ValueError(f"{text!r} belongs to one network interface; a certificate cannot name a zone")
    try:
        return str(ipaddress.ip_address(text))
    except ValueError:
        pass
    name = text.lower().removesuffix(".")
    labels = name.split(".")
    if len(name) > _HOST_NAME_MAX or not all(_LABEL.fullmatch(label) for label in labels):
        raise ValueError(f"{text!r} is neither an IP address nor an ASCII host name")
    if labels[-1].isdigit():
        raise ValueError(f"{text!r} looks like an IPv4 address and is none")
    return name


# --- changes ----------------------------------------------------------------------------------------------


class AddressWatch:
    """Calls `looked(addresses)` on the loop, with all of them: at the start, after changes, and every ADDRESS_LOOK_S.

    Changes within ADDRESS_SETTLE_S are one. `looked` must not raise.
    """

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        looked: Callable[[tuple[Address, ...]], None],
        read: Callable[[], tuple[Address, ...]] = read_addresses,
    ) -> None:
        self.refused = ""  #: why the kernel tells no news; "" if it does
        self._loop = loop
        self._looked = looked
        self._read = read
        self._changed = asyncio.Event()
        self._news: socket.socket | None = None
        self._task: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Look once, then watch until `stop`."""
        try:
            self._news = netlink.open_news()
            self._loop.add_reader(self._news, self._take)
        except OSError as error:
            self.refused = str(error)
        await self._look()
        self._task = self._loop.create_task(self._watch())

    async def stop(self) -> None:
        """End it."""
        self._end_news()
        task, self._task = self._task, None
        if task is not None:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)

    def look(self) -> None:
        """Look again soon."""
        self._changed.set()

    async def _watch(self) -> None:
        while True:
            try:
                async with asyncio.timeout(limits.ADDRESS_LOOK_S):  # wait_for may lose a cancellation
                    await self._changed.wait()
            except TimeoutError:
                pass
            else:
                await asyncio.sleep(limits.ADDRESS_SETTLE_S)
            self._changed.clear()
            await self._look()

    async def _look(self) -> None:
        self._looked(await asyncio.to_thread(self._read))

    def _take(self) -> None:
        assert self._news is not None
        try:
            if netlink.take_news(self._news):
                self._changed.set()
        except OSError as error:
            self.refused = str(error)
            self._end_news()

    def _end_news(self) -> None:
        news, self._news = self._news, None
        if news is not None:
            self._loop.remove_reader(news)
            news.close()


# --- reading ----------------------------------------------------------------------------------------------

_Found = list[tuple[int, IpAddress, str]]  # interface's number, address, interface's name


def _from_kernel(dump: netlink.Dump) -> _Found:
    found: _Found = []
    for entry in dump.addresses:
        link = dump.links.get(entry.index)
        passes = entry.address.version == 6 and entry.flags & _PASSING
        if link is not None and link.flags & netlink.INTERFACE_UP and not passes:
            found.append((entry.index, entry.address, link.name))
    return found


def _from_proc(fib_trie: str, route: str, if_inet6: str) -> _Found:
    """The same from /proc/net, which names no interface for an IPv4 address: the route to its network does."""
    networks = _networks(route)
    found: _Found = []
    for text in _ipv4_addresses(fib_trie):
        address = ipaddress.IPv4Address(text)
        names = [(network.prefixlen, name) for network, name in networks if address in network]
        found.append((0, address, "lo" if address.is_loopback else max(names)[1] if names else ""))
    return found + _ipv6_addresses(if_inet6)


def _ipv4_addresses(fib_trie: str) -> set[str]:
    """The addresses that /proc/net/fib_trie calls local to this host."""
    found = set()
    address = ""
    for line in fib_trie.splitlines():
        words = line.split()
        if words[:1] == ["|--"] and len(words) == 2:
            address = words[1]
        elif words[:3] == ["/32", "host", "LOCAL"] and address:
            found.add(address)
    return found


def _networks(route: str) -> list[tuple[ipaddress.IPv4Network, str]]:
    """Networks that are reached without a gateway, and by which interface, from /proc/net/route."""
    found = []
    for line in route.splitlines()[1:]:
        words = line.split()
        if len(words) < 8 or words[2] != "00000000":
            continue
        # The kernel prints the bytes of an address as one number of the machine.
        network, mask = (int(words[place], 16).to_bytes(4, sys.byteorder) for place in (1, 7))
        if any(mask):
            parts = f"{ipaddress.IPv4Address(network)}/{ipaddress.IPv4Address(mask)}"
            found.append((ipaddress.IPv4Network(parts, strict=False), words[0]))
    return found


def _ipv6_addresses(if_inet6: str) -> _Found:
    """The addresses in /proc/net/if_inet6 (hex, index, prefix, scope, flags, interface) that stay."""
    found: _Found = []
    for line in if_inet6.splitlines():
        words = line.split()
        if len(words) == 6 and len(words[0]) == 32 and not int(words[4], 16) & _PASSING:
            found.append((int(words[1], 16), ipaddress.IPv6Address(bytes.fromhex(words[0])), words[5]))
    return found


def _read_proc(name: str) -> str:
    try:
        return Path("/proc/net", name).read_text()
    except OSError:
        return ""
