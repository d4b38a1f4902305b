"""What all entities of a group share: ids, ARNs, cores and devices (greengrass-core 4.1, 4.2).

The same readers serve the API's shapes and the file on a core, which writes some keys with a small first letter
and may leave ids out (`deployed`).
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Final, TypeVar

from ggfast import arns, limits
from ggfast.fields import Fields, shown
from ggfast.group.document import Core, Device

_ID: Final = re.compile(r"[a-zA-Z0-9:_-]{1,128}")
_ID_EXPECTED: Final = "1 to 128 characters out of a-z A-Z 0-9 : _ -"
_CORE_NAME_BYTES_MAX: Final = 124  # greengrass-core 16

Member = TypeVar("Member", Core, Device)


def read_id(source: Fields, *, default: str | None = None, key: str = "Id") -> str:
    """An entity's id (or name); `default` None means required."""
    return source.text(key, default=default, pattern=_ID, expected=_ID_EXPECTED)


def read_arn(source: Fields, key: str, check: Callable[[str], object], expected: str) -> str:
    """An ARN that `check` accepts (raises ValueError otherwise); handed out as written even if it does not."""
    written = source.text(key, expected=expected)
    if written:
        try:
            check(written)
        except ValueError:
            source.problems.add(source.at(key), shown(written), expected)
    return written


def read_member(source: Fields, kind: type[Member], position: int, *, deployed: bool) -> Member:
    """A core or a device: a thing, its certificate, whether its shadow is synced."""

    def spelled(key: str) -> str:
        small = key[0].lower() + key[1:]
        return small if deployed and source.has(small) else key

    thing_arn = read_arn(
        source, spelled("ThingArn"), arns.ThingArn.parse, "arn:aws:iot:<region>:<account>:thing/<name>"
    )
    name = thing_arn.partition(":thing/")[2]
    if kind is Core and len(name.encode()) > _CORE_NAME_BYTES_MAX:
        source.problems.add(
            source.at("ThingArn"), f"a name of {len(name)} bytes", f"at most {_CORE_NAME_BYTES_MAX} bytes"
        )
    certificate_arn = read_arn(
        source,
        spelled("CertificateArn"),
        arns.certificate_id,
        "arn:aws:iot:<region>:<account>:cert/<64 hex digits, the SHA-256 of the certificate>",
    )
    return kind(
        id=read_id(source, default=f"{kind.__name__.lower()}-{position}" if deployed else None),
        thing_arn=thing_arn,
        certificate_arn=certificate_arn,
        sync_shadow=source.boolean(spelled("SyncShadow")),
    )


def read_linux_id(source: Fields, key: str) -> int | None:
    """A numeric user or group id, None if absent."""
    return source.optional_integer(key, 0, limits.UID_MAX)
