"""Whom the group trusts now, as the control plane last said: certificates that ended, CAs, addresses, delegation.

It changes without a deployment (a device's certificate is revoked, a CA rotated), so it comes by the long poll, is kept
on disk for starts without a network (design P3), and is handed to the parts that depend on it. Before the control plane
has said anything, what came with the deployed group counts.

    {"version", "groupId", "endedCertificates": [ids], "authorities": [PEM, newest first], "certificateSeconds",
     "connectivity": [{Id, HostAddress, PortNumber, Metadata}], "delegation": {"seconds", "revokedBefore"}}
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path
from typing import Any, Final

import orjson

from ggfast import limits
from ggfast.errors import Malformed
from ggfast.log import SystemLog
from ggfast.plainfile import open_plain

Follow = Callable[[Mapping[str, Any] | None], Awaitable[None]]
"""What depends on trust: called with each new one, None before there is any."""

_FORM: Final = {
    "version": str,
    "groupId": str,
    "endedCertificates": list,
    "authorities": list,
    "certificateSeconds": int,
    "connectivity": list,
    "delegation": dict,
}


class KeptTrust:
    """See the module. `path` is where it is kept, `follow` who is told."""

    def __init__(self, path: Path, follow: Follow, log: SystemLog) -> None:
        self._path = path
        self._follow = follow
        self._log = log
        self._current: Mapping[str, Any] | None = None

    @property
    def current(self) -> Mapping[str, Any] | None:
        """What is known; None without a group of the control plane."""
        return self._current

    @property
    def version(self) -> str:
        """Names what is known, for the control plane; empty for what came with a group."""
        return str(self._current.get("version", "")) if self._current is not None else ""

    async def start(self, deployed: Mapping[str, Any] | None) -> None:
        """Read what is kept, else take what came with the deployed group; nobody is told yet."""
        self._current = await asyncio.to_thread(self._load) or deployed

    async def take(self, found: Mapping[str, Any]) -> None:
        """Keep it and tell everybody. Raises Malformed for another form; a disk that refuses is only logged."""
        found = checked(found)
        self._current = found
        try:
            await asyncio.to_thread(self._keep, found)
        except OSError as error:
            self._log.error("What the control plane says of certificates could not be kept.", reason=str(error))
        await self._follow(found)

    def forget(self) -> None:
        """Nothing is known any more: the core was reset. Blocks for one small file."""
        self._current = None
        self._path.unlink(missing_ok=True)

    def _keep(self, found: Mapping[str, Any]) -> None:
        draft = self._path.with_suffix(".new")
        with open(draft, "wb", opener=lambda path, flags: os.open(path, flags, 0o600)) as file:
            file.write(orjson.dumps(dict(found)))
            file.flush()
            os.fsync(file.fileno())
        os.replace(draft, self._path)

    def _load(self) -> Mapping[str, Any] | None:
        try:
            with open_plain(self._path) as file:
                return checked(orjson.loads(file.read(limits.TRUST_BYTES_MAX)))
        except FileNotFoundError:
            return None
        except (OSError, ValueError, Malformed) as error:
            self._log.error("What was known of certificates is lost until the next contact.", reason=str(error))
            return None


def checked(found: object) -> Mapping[str, Any]:
    """`found`, if it has the form of the module's docstring. Raises Malformed: what is wrong where."""
    if not isinstance(found, Mapping):
        raise Malformed(f"trust: found {type(found).__name__}, expected an object")
    for name, kind in _FORM.items():
        value = found.get(name)
        if not isinstance(value, kind) or isinstance(value, bool):
            raise Malformed(f"trust.{name}: found {type(value).__name__}, expected {kind.__name__}")
    for name in ("endedCertificates", "authorities"):
        if not all(isinstance(entry, str) for entry in found[name]):
            raise Malformed(f"trust.{name}: found something else in it, expected strings")
    if not all(
        isinstance(entry, Mapping) and isinstance(entry.get("HostAddress"), str) for entry in found["connectivity"]
    ):
        raise Malformed("trust.connectivity: found something else in it, expected objects with HostAddress")
    if not all(isinstance(found["delegation"].get(name), int) for name in ("seconds", "revokedBefore")):
        raise Malformed("trust.delegation: expected seconds and revokedBefore, whole numbers")
    return found
