"""Names and addresses as certificates may carry them, each in its one spelling."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterable

_LABEL = re.compile(r"[a-z0-9_]([a-z0-9_-]{0,61}[a-z0-9_])?")
_NAME_CHARACTERS_MAX = 253  # of a DNS name as text (RFC 1035 2.3.4)


def host_of(text: str) -> str:
    """An address or DNS name in its one spelling. Raises ValueError with what was expected.

    No zones: they mean something on one machine alone. No wildcards: a certificate is good for nobody but its core.
    """
    if len(text) <= _NAME_CHARACTERS_MAX + 1:
        try:
            address = ipaddress.ip_address(text)
        except ValueError:
            name = text.lower().removesuffix(".")
            labels = name.split(".")
            # A number at the end would be an address that is not one: clients differ in what they make of it.
            if len(name) <= _NAME_CHARACTERS_MAX and all(map(_LABEL.fullmatch, labels)) and not labels[-1].isdigit():
                return name
        else:
            if isinstance(address, ipaddress.IPv4Address) or address.scope_id is None:
                return str(address)
    raise ValueError(f"{text[:80]!r} is no IP address without zone and no DNS name without wildcard")


def usable_hosts(texts: Iterable[str]) -> list[str]:
    """The one spelling of those that can stand in a certificate, each once, in their order."""
    found: dict[str, None] = {}
    for text in texts:
        try:
            found[host_of(text)] = None
        except ValueError:
            continue
    return list(found)
