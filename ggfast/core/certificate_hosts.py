"""Which hosts a server certificate can name, and which ones this machine has."""

from __future__ import annotations

import ipaddress
import re
import socket
from collections.abc import Iterable
from pathlib import Path

from ggfast.errors import ConfigError, LimitReached, Problem
from ggfast.limits import CERTIFICATE_HOSTS_MAX

_LABEL = re.compile(r"(?!-)[a-z0-9_-]{1,63}(?<!-)")
_HOST_NAME_MAX = 253  # RFC 1035 2.3.4 in text form


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


def normal_hosts(hosts: Iterable[str]) -> tuple[str, ...]:
    """`hosts` normalised, each once, in order. Raises ConfigError (all problems at once) or LimitReached."""
    found: dict[str, None] = {}
    problems = []
    for host in hosts:
        try:
            found[normal_host(host)] = None
        except ValueError as error:
            problems.append(Problem("hosts", str(error), "an IP address or a host name"))
    if problems:
        raise ConfigError("A server certificate cannot name these hosts:", problems)
    if not found:
        raise ConfigError("A server certificate needs at least one host.", hint="Give an address or a name.")
    if len(found) > CERTIFICATE_HOSTS_MAX:
        raise LimitReached("hosts in one server certificate", len(found), CERTIFICATE_HOSTS_MAX)
    return tuple(found)


def local_hosts() -> tuple[str, ...]:
    """Every address and name of this machine that a device could use, in a stable order. Reads /proc, asks no
    name server. Link-local, temporary and unsettled addresses are left out: they come and go."""
    found: dict[str, None] = {"localhost": None, "127.0.0.1": None}
    try:
        found[normal_host(socket.gethostname())] = None
    except ValueError:
        pass  # a host name no certificate can carry; devices cannot use it either
    addresses = {*_ipv4_addresses(_read_proc("fib_trie")), *_ipv6_addresses(_read_proc("if_inet6"))}
    for address in sorted(addresses, key=lambda text: (":" in text, text)):
        found[address] = None
    return tuple(found)[:CERTIFICATE_HOSTS_MAX]


def nameable(hosts: Iterable[str]) -> tuple[str, ...]:
    """Like `normal_hosts` for hosts that nobody here chose: those that no certificate can name, and those beyond the
    limit, are left out."""
    found: dict[str, None] = {}
    for host in hosts:
        try:
            found[normal_host(host)] = None
        except ValueError:
            continue
    return tuple(found)[:CERTIFICATE_HOSTS_MAX]


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
    return {address for address in found if not ipaddress.ip_address(address).is_link_local}


def _ipv6_addresses(if_inet6: str) -> set[str]:
    """The addresses in /proc/net/if_inet6 (hex, index, prefix, scope, flags, interface) that stay."""
    passing = 0x01 | 0x08 | 0x20 | 0x40  # temporary, duplicate found, deprecated, tentative (linux/if_addr.h)
    found = set()
    for line in if_inet6.splitlines():
        words = line.split()
        if len(words) != 6 or len(words[0]) != 32 or int(words[4], 16) & passing:
            continue
        address = ipaddress.IPv6Address(bytes.fromhex(words[0]))
        if not address.is_link_local:
            found.add(str(address))
    return found


def _read_proc(name: str) -> str:
    try:
        return Path("/proc/net", name).read_text()
    except OSError:
        return ""
