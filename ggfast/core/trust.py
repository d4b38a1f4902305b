"""What the control plane says a core's certificates depend on, as a value.

It comes with every deployment and, when it changes in between, by the core's long poll. What is missing or of another
form counts as not said: a control plane's mistake must not take the core's listener down.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from ggfast.core.certificate_hosts import nameable
from ggfast.core.certificates import pem_id


@dataclass(frozen=True, slots=True)
class Trust:
    """The default: no group is deployed."""

    group_id: str = ""
    ended: frozenset[str] = frozenset()  #: ids of devices' certificates that no longer count
    authorities: tuple[str, ...] = ()  #: ids of the group's CAs, newest first; empty: not said
    hosts: tuple[str, ...] = ()  #: the core's connectivity information
    certificate_s: float = 0.0  #: life of server certificates; 0: not said
    delegation_s: float | None = None  #: life of a delegated CA; 0: not allowed, None: not said
    revoked_before: float = 0.0  #: delegated CAs from before then do not count; seconds since 1970, 0: never

    @classmethod
    def read(cls, found: Mapping[str, Any]) -> Trust:
        """From JSON. Never raises."""
        delegation = found.get("delegation")
        delegation = delegation if isinstance(delegation, Mapping) else {}
        group = found.get("groupId")
        return cls(
            group_id=group if isinstance(group, str) else "",
            ended=frozenset(_texts(found.get("endedCertificates"))),
            authorities=tuple(filter(None, map(_id, _texts(found.get("authorities"))))),
            hosts=nameable(_hosts(found.get("connectivity"))),
            certificate_s=_number(found.get("certificateSeconds")) or 0.0,
            delegation_s=_number(delegation.get("seconds")),
            revoked_before=_number(delegation.get("revokedBefore")) or 0.0,
        )


def _texts(found: Any) -> list[str]:
    return [text for text in found if isinstance(text, str)] if isinstance(found, list) else []


def _hosts(found: Any) -> list[str]:
    rows = [row for row in found if isinstance(row, Mapping)] if isinstance(found, list) else []
    return _texts([row.get("HostAddress") for row in rows])


def _number(found: Any) -> float | None:
    if isinstance(found, bool) or not isinstance(found, (int, float)) or not math.isfinite(found) or found < 0:
        return None
    return float(found)


def _id(pem: str) -> str:
    try:
        return pem_id(pem)
    except ValueError:
        return ""
