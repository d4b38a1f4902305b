"""A server certificate without any cloud: the core's own CA and what it signs (P3).

    <state>/server/ca.crt ca.key          the group CA; a renewed one keeps its key, so devices need no new copy
    <state>/server/server.crt server.key  what the listener serves; a renewed one keeps its key as well
    <state>/server/server.json            written last: what the certificate says, and which files it is about

The record is written after the files it describes and names them by their SHA-256, so a power cut between
any two writes leaves either the old state or a record that disagrees with its files, and disagreement means
"make it again".
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from ggfast.clock import Clock, SystemClock
from ggfast.core.certificate_helper import Helper, call_helper, run_helper
from ggfast.core.certificate_hosts import normal_hosts
from ggfast.core.certificates import (
    CA_CERTIFICATE,
    CA_KEY,
    CA_PREVIOUS,
    SERVER_CERTIFICATE,
    SERVER_KEY,
    SERVER_RECORD,
    Record,
    certificate_id,
    pair_error,
    read_record,
)
from ggfast.errors import OperatingError, StorageFailed
from ggfast.limits import CERTIFICATE_RETRY_S, CLOCK_FLOOR_S, SERVER_CERTIFICATE_DAYS_DEFAULT


@dataclass(frozen=True, slots=True)
class ServerCertificate:
    """What the listener serves, and when to ask again."""

    certificate: Path
    key: Path
    ca: Path
    certificate_id: str
    ca_id: str
    hosts: tuple[str, ...]
    not_after: int
    renew_at: float  #: wall clock; ask again then, and whenever the wall clock was set or an address changed
    renewed: bool  #: the certificate is new since the last call: load it into the listener
    ca_replaced: bool  #: the group has another CA key than before: devices must discover again
    warnings: tuple[str, ...] = ()


def server_due(folder: Path, hosts: Sequence[str], now: float) -> str:
    """Why the server certificate must be made (again), empty when it serves as it is. Reads four files.

    A clock before 2026 is a machine without a battery that has not met a time server yet: what is on disk was
    made at a better time than now, so its dates are not judged.
    """
    problem = pair_error(folder / SERVER_CERTIFICATE, folder / SERVER_KEY)
    if problem:
        return problem
    record = read_record(folder / SERVER_RECORD)
    try:
        if record is None or record.certificate_id != certificate_id(folder / SERVER_CERTIFICATE):
            return f"{SERVER_RECORD} does not describe {SERVER_CERTIFICATE}"
        if record.ca_id != certificate_id(folder / CA_CERTIFICATE):
            return "the group CA is another one than at the last issue"
    except (OSError, ValueError) as error:
        return str(error)
    unnamed = [host for host in hosts if host not in record.hosts]
    if unnamed:
        return f"it does not name {', '.join(unnamed)}"
    if now < CLOCK_FLOOR_S:
        return ""
    if now < record.not_before:
        return "it is not valid yet: the clock was ahead when it was made"
    if now >= record.renew_at:
        return "two thirds of its life are over"
    return ""


def _ca_due(record: Record, now: float) -> bool:
    """Whether the CA needs new dates: it is old, or it was made by a clock that was ahead."""
    return now >= record.ca_renew_at or CLOCK_FLOOR_S <= now < record.ca_not_before


async def ensure_server_certificate(
    state_dir: Path,
    hosts: Sequence[str],
    *,
    days: int = SERVER_CERTIFICATE_DAYS_DEFAULT,
    run: Helper | None = None,
    clock: Clock | None = None,
) -> ServerCertificate:
    """Have a group CA and a server certificate naming every host, made or renewed if that is due.

    Needs no network. Does not block the loop. When a renewal fails and an
    older certificate is there, that one is returned with a warning and an early `renew_at`: serving with an old
    certificate beats not serving. Raises OperatingError (StorageFailed for the disk) when there is nothing to
    serve with, ConfigError for hosts that no certificate can name (greengrass-core 10.3).
    """
    names = normal_hosts(hosts)
    folder = state_dir / "server"
    work = _Renewal(folder, names, days, run or run_helper, clock or SystemClock())
    try:
        folder.mkdir(mode=0o755, parents=True, exist_ok=True)
        return await work.run()
    except OSError as error:
        raise StorageFailed(f"The certificates under {folder} cannot be kept: {error}") from error


class _Renewal:
    """One pass over CA and server certificate."""

    def __init__(self, folder: Path, hosts: tuple[str, ...], days: int, run: Helper, clock: Clock) -> None:
        self._folder = folder
        self._hosts = hosts
        self._days = days
        self._helper = run
        self._clock = clock
        self._warnings: list[str] = []
        self._ca_replaced = False
        self._renewed = False

    async def run(self) -> ServerCertificate:
        try:
            await self._ensure_ca()
            await self._ensure_server()
            if await self._renew_ca():
                await self._ensure_server()
        except OperatingError as error:
            if await asyncio.to_thread(pair_error, self._folder / SERVER_CERTIFICATE, self._folder / SERVER_KEY):
                raise
            self._warnings.append(str(error))
        return await asyncio.to_thread(self._result)

    async def _ensure_ca(self) -> None:
        certificate = self._folder / CA_CERTIFICATE
        problem = await asyncio.to_thread(pair_error, certificate, self._folder / CA_KEY)
        if not problem:
            return
        if certificate.exists():
            # Devices still trust it; discovery lists it after the new one for as long as it is here.
            os.replace(certificate, self._folder / CA_PREVIOUS)
            self._ca_replaced = True
            self._warnings.append(f"a new group CA was made: {problem}; devices must discover again")
        await call_helper(self._helper, "ca", "--out", str(self._folder), "--force")

    async def _ensure_server(self) -> None:
        if not await asyncio.to_thread(server_due, self._folder, self._hosts, self._clock.wall()):
            return
        folder = str(self._folder)
        named = [part for host in self._hosts for part in ("--host", host)]
        options = ("--keep-key", "--force", "--days", str(self._days))
        await call_helper(self._helper, "server", "--ca", folder, "--out", folder, *named, *options)
        self._renewed = True

    async def _renew_ca(self) -> bool:
        record = read_record(self._folder / SERVER_RECORD)
        if record is None or not _ca_due(record, self._clock.wall()):
            return False
        try:
            await call_helper(self._helper, "ca", "--out", str(self._folder), "--renew")
        except OperatingError as error:
            # A CA somebody else issued cannot be renewed here; it goes on until it ends.
            self._warnings.append(str(error))
            return False
        return True

    def _result(self) -> ServerCertificate:
        folder = self._folder
        record = read_record(folder / SERVER_RECORD)
        try:
            served = certificate_id(folder / SERVER_CERTIFICATE)
            ca = certificate_id(folder / CA_CERTIFICATE)
        except (OSError, ValueError) as error:
            raise OperatingError(f"The server certificate cannot be read back: {error}") from error
        retry_at = self._clock.wall() + CERTIFICATE_RETRY_S
        described = record is not None and record.certificate_id == served
        result = ServerCertificate(
            certificate=folder / SERVER_CERTIFICATE,
            key=folder / SERVER_KEY,
            ca=folder / CA_CERTIFICATE,
            certificate_id=served,
            ca_id=ca,
            hosts=record.hosts if record is not None and described else (),
            not_after=record.not_after if record is not None and described else 0,
            renew_at=float(record.renew_at) if record is not None and described else retry_at,
            renewed=self._renewed,
            ca_replaced=self._ca_replaced,
            warnings=tuple(self._warnings),
        )
        if server_due(folder, self._hosts, self._clock.wall()):
            return replace(result, renew_at=retry_at)
        return result
