"""Certificates for cores: the server certificate that devices see, and a CA of the core's own (greengrass-core 10.3).

    POST /greengrass/things/<thing>/serverCertificate                         greengrass:CreateCertificate

The body is `csr`, `hosts` and perhaps `delegationCsr`, keys stay where they are. Signed by the newest CA of the group
that is deployed to the core, or being deployed: discovery tells devices to trust it. The action is V1's, the form ours.
"""

from __future__ import annotations

import asyncio
import logging
from dataclasses import dataclass
from typing import Any

from ggfast.cloud.devices.routing import Asked, Routes, bad
from ggfast.cloud.faults import Fault
from ggfast.cloud.greengrass.authorities import certificate_seconds, delegation_of, group_ca_key, group_cas
from ggfast.cloud.greengrass.connectivity import connectivity_of
from ggfast.cloud.greengrass.issued import AUTHORITY, SERVER, Record, remember_issued
from ggfast.cloud.group_authority import GroupAuthority, Issued
from ggfast.cloud.hosts import host_of, usable_hosts
from ggfast.cloud.iot.relying import newest_group_of_core
from ggfast.cloud.limits import (
    CERTIFICATE_HOSTS_MAX,
    CERTIFICATE_REQUEST_CHARACTERS_MAX,
    CERTIFICATES_AT_ONCE,
    CERTIFICATES_BURST,
    CERTIFICATES_PER_S,
    DEVICE_RATES_MAX,
)
from ggfast.cloud.operations import Reply
from ggfast.cloud.rates import Rates
from ggfast.cloud.store.interface import Store, Transaction
from ggfast.cloud.surroundings import Surroundings
from ggfast.limits import CERTIFICATE_BACKDATE_S

logger = logging.getLogger("ggfast.cloud.devices")


@dataclass(frozen=True, slots=True)
class _Wish:
    """What a core asks for; `delegation_csr` "" if it wants no CA."""

    csr: str
    hosts: tuple[str, ...]
    delegation_csr: str


@dataclass(frozen=True, slots=True)
class _Basis:
    """What the store says: by whom, for how long, for which addresses."""

    group: str
    ca: dict[str, Any]
    seconds: int
    delegation: dict[str, int]
    hosts: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class _Made:
    hosts: tuple[str, ...]
    at: int
    server: Issued
    authority: Issued | None


class Issuing:
    """The handler; `add_to` makes its path known. Signing runs on threads, outside the store's transactions."""

    def __init__(self, cloud: Surroundings, store: Store) -> None:
        self._cloud = cloud
        self._store = store
        self._rates = Rates(cloud.clock, CERTIFICATES_PER_S, CERTIFICATES_BURST, DEVICE_RATES_MAX)
        self._turns = asyncio.Semaphore(CERTIFICATES_AT_ONCE)

    def add_to(self, routes: Routes) -> None:
        """See the module."""
        routes.add("POST /greengrass/things/{ThingName}/serverCertificate", self.server_certificate)

    async def server_certificate(self, asked: Asked) -> Reply:
        """A server certificate, and the delegated CA if one is asked for and given at all; recorded before they are
        handed out."""
        thing, home = asked.params["ThingName"], asked.identity.home
        asked.require(
            "greengrass:CreateCertificate", asked.identity.arn_of("greengrass", f"/greengrass/things/{thing}")
        )
        asked.require_thing(thing)
        wish = _wish(asked.body())
        if not self._rates.take(asked.identity.certificate_id):
            raise Fault("TooManyRequestsException", "Rate exceeded", status=429)
        basis = await self._store.read(lambda tx: _basis(tx, self._cloud, home, thing))
        async with self._turns:
            made = await asyncio.to_thread(_sign, self._cloud, thing, wish, basis)

        def record(tx: Transaction) -> None:
            if _basis(tx, self._cloud, home, thing) != basis:  # a certificate by what no longer holds is not given
                text = "The group, its CA or the core's addresses have changed meanwhile. Ask again."
                raise Fault("ConflictException", text, status=409)
            for kind, found in ((SERVER, made.server), (AUTHORITY, made.authority)):
                if found is not None:
                    entry = Record(kind, found.serial, thing, made.hosts, made.at, found.since, found.until)
                    remember_issued(tx, home, basis.group, entry)

        await self._store.write(record)
        _log(thing, basis.group, made)
        return Reply(_answer(basis, made))


def _wish(body: dict[str, Any]) -> _Wish:
    """Raises Fault."""
    hosts = body.get("hosts", [])
    if not isinstance(hosts, list) or len(hosts) > CERTIFICATE_HOSTS_MAX:
        found = f"{len(hosts)} of them" if isinstance(hosts, list) else type(hosts).__name__
        raise bad(f"hosts: found {found}, expected a list of up to {CERTIFICATE_HOSTS_MAX} addresses and names.")
    return _Wish(_csr(body, "csr"), tuple(_host(host) for host in hosts), _csr(body, "delegationCsr", needed=False))


def _csr(body: dict[str, Any], member: str, *, needed: bool = True) -> str:
    found = body.get(member)
    if found is None and not needed:
        return ""
    if not isinstance(found, str) or not 1 <= len(found) <= CERTIFICATE_REQUEST_CHARACTERS_MAX:
        shown = f"{len(found)} characters" if isinstance(found, str) else type(found).__name__
        most = CERTIFICATE_REQUEST_CHARACTERS_MAX
        raise bad(f"{member}: found {shown}, expected a signing request in PEM form, at most {most} characters.")
    return found


def _host(found: object) -> str:
    try:
        return host_of(found if isinstance(found, str) else "")
    except ValueError as error:
        raise bad(f"hosts: {error}.") from error


def _basis(tx: Transaction, cloud: Surroundings, home: str, thing: str) -> _Basis:
    """Raises Fault: no group is deployed to the core, the group has no CA."""
    group = newest_group_of_core(tx, home, thing)
    if not group:
        raise _nothing(f"No group is deployed to the core {thing}.")
    cas = group_cas(tx, home, group)
    if not cas or cas[0]["not_after"] <= cloud.clock.wall():
        raise _nothing(f"The group {group} has no certificate authority that is valid.")
    return _Basis(
        group,
        cas[0],
        certificate_seconds(tx, cloud, home, group),
        delegation_of(tx, cloud, home, group),
        tuple(usable_hosts(entry["HostAddress"] for entry in connectivity_of(tx, home, thing))),
    )


def _sign(cloud: Surroundings, thing: str, wish: _Wish, basis: _Basis) -> _Made:
    """Blocks. Raises Fault for what the core sent, CorruptRecord for a key that does not open."""
    hosts = tuple(dict.fromkeys(basis.hosts + wish.hosts))[:CERTIFICATE_HOSTS_MAX]
    if not hosts:
        raise bad("hosts: none, and the core has told no addresses. A server certificate names at least one.")
    authority = GroupAuthority(basis.ca["pem"], group_ca_key(cloud, basis.ca))
    now = int(cloud.clock.wall())
    end = int(basis.ca["not_after"])
    since = now - CERTIFICATE_BACKDATE_S
    try:
        server = authority.server_certificate(wish.csr, thing, hosts, since, min(now + basis.seconds, end))
    except ValueError as error:
        raise bad(f"csr: {error}.") from error
    delegated = None
    if wish.delegation_csr and basis.delegation["seconds"]:
        since = max(since, basis.delegation["revokedBefore"])  # from before it, it would count as revoked
        until = min(now + basis.delegation["seconds"], end)
        try:
            delegated = authority.delegated(wish.delegation_csr, f"ggfast core CA {thing}", hosts, since, until)
        except ValueError as error:
            raise bad(f"delegationCsr: {error}.") from error
    return _Made(hosts, now, server, delegated)


def _answer(basis: _Basis, made: _Made) -> dict[str, Any]:
    """`seconds` is what is left of the certificate's life, for cores whose clock is wrong."""
    authority = basis.ca["pem"]
    answer: dict[str, Any] = {
        "certificate": made.server.pem,
        "authority": authority,
        "seconds": int(made.server.until) - made.at,
        "hosts": list(made.hosts),
    }
    if made.authority is not None:
        answer["delegation"] = {"certificate": made.authority.pem, "authority": authority}
    return answer


def _log(thing: str, group: str, made: _Made) -> None:
    for kind, found in ((SERVER, made.server), (AUTHORITY, made.authority)):
        if found is not None:
            text = "issued kind=%s thing=%s group=%s serial=%s until=%d hosts=%s"
            logger.info(text, kind, thing, group, found.serial, found.until, ",".join(made.hosts))


def _nothing(text: str) -> Fault:
    return Fault("ResourceNotFoundException", text, status=404)
