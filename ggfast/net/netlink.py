"""What the kernel says of its network interfaces and their addresses: a dump, and news of changes (rtnetlink(7)).

Messages are taken apart by hand, each length checked against what is there; bytes that are no message end the reading
of their datagram. Layouts: linux/netlink.h, linux/rtnetlink.h, linux/if_link.h, linux/if_addr.h.
"""

from __future__ import annotations

import errno
import ipaddress
import os
import socket
import struct
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Final

from ggfast.limits import NETLINK_DATAGRAM_BYTES, NETLINK_DUMP_BYTES_MAX, NETLINK_DUMP_TRIES

IpAddress = ipaddress.IPv4Address | ipaddress.IPv6Address

INTERFACE_UP: Final = 0x1
INTERFACE_LOOPBACK: Final = 0x8
# Of IPv6 alone: the lowest bit of an IPv4 address says that it is not the first one of its interface.
ADDRESS_TEMPORARY: Final = 0x01
ADDRESS_DUPLICATE: Final = 0x08
ADDRESS_DEPRECATED: Final = 0x20
ADDRESS_TENTATIVE: Final = 0x40

_HEADER: Final = struct.Struct("=IHHII")  # length with the header, type, flags, sequence, port
_LINK: Final = struct.Struct("=BxHiII")  # family, type, index, flags, changed flags
_ADDRESS: Final = struct.Struct("=BBBBI")  # family, prefix, flags, scope, index
_ATTRIBUTE: Final = struct.Struct("=HH")  # length with these four bytes, type
_ERROR: Final = struct.Struct("=i")

_MESSAGE_ERROR, _MESSAGE_DONE = 2, 3
_NEW_LINK, _GET_LINK, _NEW_ADDRESS, _GET_ADDRESS = 16, 18, 20, 22
_REQUEST_DUMP: Final = 0x301
_DUMP_INTERRUPTED: Final = 0x10
_ATTRIBUTE_TYPE: Final = 0x3FFF  # the two highest bits are flags
_LINK_NAME: Final = 3
_PEER, _LOCAL, _FLAGS = 1, 2, 8
_GROUPS: Final = 0x1 | 0x10 | 0x100  # links, IPv4 addresses, IPv6 addresses


@dataclass(frozen=True, slots=True)
class Link:
    """A network interface; `flags` as ioctl(SIOCGIFFLAGS) gives them."""

    index: int
    name: str
    flags: int


@dataclass(frozen=True, slots=True)
class LinkAddress:
    """An address of the interface `index`."""

    index: int
    address: IpAddress
    flags: int


@dataclass(slots=True)
class Dump:
    """What has been read so far."""

    links: dict[int, Link] = field(default_factory=dict)
    addresses: list[LinkAddress] = field(default_factory=list)
    interrupted: bool = False  #: something changed meanwhile: parts may be missing

    def feed(self, datagram: bytes, sequence: int) -> bool:
        """Take over a datagram; True when the answer to request `sequence` is complete. Raises OSError for an answer
        that is an error of the kernel; what is no message is passed over."""
        for kind, flags, number, body in _messages(datagram):
            if number != sequence:
                continue
            self.interrupted |= bool(flags & _DUMP_INTERRUPTED)
            if kind == _MESSAGE_DONE:
                return True
            if kind == _MESSAGE_ERROR:
                code = -_ERROR.unpack_from(body)[0] if len(body) >= _ERROR.size else errno.EPROTO
                if code:
                    raise OSError(code, os.strerror(code) if code > 0 else "the kernel's answer is no error number")
            elif kind == _NEW_LINK:
                self._link(body)
            elif kind == _NEW_ADDRESS:
                self._address(body)
        return False

    def _link(self, body: bytes) -> None:
        if len(body) < _LINK.size:
            return
        _, _, index, flags, _ = _LINK.unpack_from(body)
        name = _attributes(body[_LINK.size :]).get(_LINK_NAME, b"").partition(b"\0")[0]
        self.links[index] = Link(index, name.decode("utf-8", "replace"), flags)

    def _address(self, body: bytes) -> None:
        if len(body) < _ADDRESS.size:
            return
        family, _, flags, _, index = _ADDRESS.unpack_from(body)
        attributes = _attributes(body[_ADDRESS.size :])
        wide = attributes.get(_FLAGS, b"")
        if len(wide) == 4:
            flags = struct.unpack("=I", wide)[0]
        # Where an interface has one peer, the peer's address stands in the place of the own one.
        raw = attributes.get(_LOCAL) or attributes.get(_PEER, b"")
        if len(raw) == {socket.AF_INET: 4, socket.AF_INET6: 16}.get(family):
            self.addresses.append(LinkAddress(index, ipaddress.ip_address(raw), flags))


def _messages(datagram: bytes) -> Iterator[tuple[int, int, int, bytes]]:
    """(type, flags, sequence, body) of each whole message."""
    offset = 0
    while offset + _HEADER.size <= len(datagram):
        length, kind, flags, sequence, _ = _HEADER.unpack_from(datagram, offset)
        if length < _HEADER.size or offset + length > len(datagram):
            return
        yield kind, flags, sequence, datagram[offset + _HEADER.size : offset + length]
        offset += (length + 3) & ~3


def _attributes(data: bytes) -> dict[int, bytes]:
    """Values by type; of one that is there twice the first."""
    found: dict[int, bytes] = {}
    offset = 0
    while offset + _ATTRIBUTE.size <= len(data):
        length, kind = _ATTRIBUTE.unpack_from(data, offset)
        if length < _ATTRIBUTE.size or offset + length > len(data):
            break
        found.setdefault(kind & _ATTRIBUTE_TYPE, data[offset + _ATTRIBUTE.size : offset + length])
        offset += (length + 3) & ~3
    return found


def dump() -> Dump:
    """All interfaces and addresses as they are now. Blocks for a moment: the kernel may hold its lock. Raises OSError
    where the kernel, a container or a policy refuses it."""
    found = Dump()
    for _ in range(NETLINK_DUMP_TRIES):
        found = Dump()
        with _open() as sock:
            sock.settimeout(1.0)
            _ask(sock, _GET_LINK, 1, found)
            _ask(sock, _GET_ADDRESS, 2, found)
        if not found.interrupted:
            break
    return found


def _ask(sock: socket.socket, kind: int, sequence: int, found: Dump) -> None:
    body = b"\0" * _LINK.size
    sock.sendto(_HEADER.pack(_HEADER.size + len(body), kind, _REQUEST_DUMP, sequence, 0) + body, (0, 0))
    size = 0
    while size < NETLINK_DUMP_BYTES_MAX:
        data, _, flags, sender = sock.recvmsg(NETLINK_DATAGRAM_BYTES)
        if flags & socket.MSG_TRUNC:
            raise OSError(errno.EMSGSIZE, "the kernel's answer does not fit its buffer")
        size += len(data)
        if sender[0] == 0 and found.feed(data, sequence):
            return
    raise OSError(errno.EMSGSIZE, f"the kernel's answer is longer than {NETLINK_DUMP_BYTES_MAX} bytes")


def open_news() -> socket.socket:
    """A socket that becomes readable when an interface or an address comes, changes or goes. Never blocks. Raises
    OSError where that is refused."""
    sock = _open()
    try:
        sock.setblocking(False)
        sock.bind((0, _GROUPS))
    except BaseException:
        sock.close()
        raise
    return sock


def take_news(sock: socket.socket) -> bool:
    """Whether the kernel has said anything since the last call; what it said is in the next dump. Never blocks. Raises
    OSError when no more news will come."""
    told = False
    for _ in range(64):  # a flood is taken in turns of the loop
        try:
            _, sender = sock.recvfrom(NETLINK_DATAGRAM_BYTES)
        except BlockingIOError:
            break
        except OSError as error:
            if error.errno != errno.ENOBUFS:  # some were lost, so there were some
                raise
            told = True
        else:
            told |= sender[0] == 0
    return told


def _open() -> socket.socket:
    return socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, socket.NETLINK_ROUTE)
