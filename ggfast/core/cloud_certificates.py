"""A server certificate from the control plane, and from the CA it delegated while it cannot be reached (P3).

The key is made on the core and stays there; the control plane gets a signing request. Renewal is due when two thirds
of the life are over, counted from the issue, and at once when the group's CA or the hosts have changed. While nothing
new is to be had the old certificate is served, also past its end: connected devices go on, and new ones are told in
the handshake what is wrong (greengrass-core 10.3).

A gateway's clock may be wrong. Ages are counted by this machine's own clock from the issue, and beside it by one that
never jumps; a clock that was set makes the core ask for a new certificate, never drop the one it has.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

from ggfast import limits
from ggfast.clock import Clock
from ggfast.core.certificate_helper import Helper, call_helper
from ggfast.core.certificate_hosts import nameable
from ggfast.core.issued import (
    DELEGATED_KEY,
    ISSUED_KEY,
    Issued,
    Kept,
    end_delegation,
    forget_certificates,
    read_kept,
)
from ggfast.core.trust import Trust
from ggfast.errors import GgfastError, LinkDown, Malformed, OperatingError, PeerError
from ggfast.log import SystemLog


class Issuer(Protocol):
    """The part of the control plane that signs: `core.controlplane.ControlPlane`."""

    async def server_certificate(self, csr: str, hosts: Sequence[str], delegation_csr: str | None) -> Mapping[str, Any]:
        """What the control plane answers (see `cert_issued.py`). Raises LinkDown, Rejected with the HTTP status."""


class CloudCertificates:
    """Keeps the server certificate of a group of the control plane fresh. One `look` at a time."""

    def __init__(
        self,
        folder: Path,
        cloud: Issuer | None,
        server_key: Path | None,
        run: Helper,
        clock: Clock,
        log: SystemLog,
    ) -> None:
        """`server_key`: the owner's key (configuration `crypto`); None: one made here."""
        self._folder = folder
        self._cloud = cloud
        self._fixed = server_key is not None
        self.key = server_key or folder / ISSUED_KEY
        self._run = run
        self._clock = clock
        self._log = log
        self._kept: Kept | None = None
        self._due_at: dict[str, float] = {}  # by certificate id, monotonic
        self._trust = Trust()
        self._wanted: tuple[str, ...] = ()
        self._ended_delegation = False
        self._failures = 0
        self._retry_at = 0.0  # monotonic
        self._said_at: dict[str, float] = {}  # monotonic

    @property
    def served(self) -> Issued | None:
        """The certificate to be served, as far as is known."""
        return self._kept.served if self._kept is not None else None

    async def load(self) -> None:
        """Look what is on disk; nothing else. Does not block."""
        if self._kept is None:
            await self._read("")

    async def look(self, trust: Trust, hosts: Sequence[str]) -> None:
        """Have a new certificate issued if that is due. Does not block the loop; ends when the control plane has
        answered or its time is over. Raises nothing that is to be expected: failures are logged and tried again."""
        wanted = nameable((*trust.hosts, *hosts)) or ("localhost",)
        if (trust, wanted) != (self._trust, self._wanted):
            self._trust, self._wanted = trust, wanted
            self.hurry()
        await self.load()
        await self._obey()
        why = self._why()
        if why and self._clock.monotonic() >= self._retry_at:
            await self._renew(why)
        self._complain()

    def hurry(self) -> None:
        """Whatever was in the way may be gone: try again at the next look."""
        self._retry_at, self._failures = 0.0, 0

    def pause_s(self) -> float:
        """How long until the next look is worth it; 0 or less: at once."""
        now, wall = self._clock.monotonic(), self._clock.wall()
        if self._why():
            return self._retry_at - now
        kept = self._kept or Kept()
        ends = [found.renew_at - wall for found in (kept.served, kept.ca) if found is not None]
        rests = [*ends, *(at - now for at in self._due_at.values())]
        return min([limits.CERTIFICATE_CHECK_S, *(rest for rest in rests if rest > 0)])

    async def forget(self) -> None:
        """Delete certificates, delegated CA and keys. Raises OSError."""
        self._kept = None
        await asyncio.to_thread(forget_certificates, self._folder)

    # --- is anything due? -------------------------------------------------------------------------------

    def _why(self) -> str:
        """Why a new certificate is wanted from the control plane; empty if it is not."""
        kept, trust = self._kept or Kept(), self._trust
        served = kept.served
        if served is None:
            return "there is none"
        if trust.authorities and served.authority_id != trust.authorities[0]:
            return "the group has another CA"
        unnamed = [host for host in self._wanted if host not in served.hosts and host not in served.asked]
        if unnamed:
            return f"it does not name {', '.join(unnamed)}"
        if self._aged(served):
            return "two thirds of its life are over"
        if served.delegated:
            return "the delegated CA signed it"
        if trust.delegation_s and self._wants_ca(served, kept.ca):
            return "a delegated CA is wanted"
        return ""

    def _aged(self, found: Issued) -> bool:
        wall = self._clock.wall()
        if self._clock.monotonic() >= self._due_at.get(found.certificate_id, 0.0):
            return True
        return wall >= limits.CLOCK_FLOOR_S and (wall >= found.renew_at or _set_back(found, wall))

    def _wants_ca(self, served: Issued, ca: Issued | None) -> bool:
        if ca is None:
            return self._ended_delegation or not served.asked_delegation
        return self._aged(ca) and served.issued_at < ca.renew_at  # asked since then: it was not given

    def _delegated_helps(self) -> bool:
        """Whether a certificate by the delegated CA would be better than the one that is served."""
        kept, trust = self._kept or Kept(), self._trust
        served, ca = kept.served, kept.ca
        if ca is None or (trust.authorities and ca.authority_id not in trust.authorities):
            return False
        if served is None or (trust.authorities and served.authority_id not in trust.authorities):
            return True
        if any(host in ca.hosts and host not in served.hosts for host in self._wanted):
            return True
        return self._aged(served) and ca.not_after > served.not_after + 1

    # --- doing it -----------------------------------------------------------------------------------------

    async def _read(self, new: str) -> None:
        """Take what is on disk. `new`: the id of a certificate that was made just now."""
        kept = await asyncio.to_thread(read_kept, self._folder, self.key)
        before, self._due_at, now = self._due_at, {}, self._clock.monotonic()
        for found in (kept.served, kept.ca):
            if found is not None:
                at = before.get(found.certificate_id, now + self._rest(found, bool(new)))
                self._due_at[found.certificate_id] = at
        self._kept = kept

    def _rest(self, found: Issued, new: bool) -> float:
        """Seconds until it is due. After a start with an unset clock nobody knows: then it is due."""
        wall = self._clock.wall()
        if not new and (wall < limits.CLOCK_FLOOR_S or _set_back(found, wall)):
            return 0.0
        return found.renew_at - wall

    async def _obey(self) -> None:
        """Give up the delegated CA if the control plane says so."""
        kept, trust = self._kept or Kept(), self._trust
        if trust.delegation_s is None or kept.ca is None:
            return
        if trust.delegation_s > 0 and trust.revoked_before <= kept.ca.not_before:  # both by the control plane's clock
            return
        self._log.warn("The delegated CA was revoked.", certificateId=kept.ca.certificate_id)
        self._kept, self._ended_delegation = Kept(kept.served, None), True
        try:
            await asyncio.to_thread(end_delegation, self._folder)
        except OSError as error:  # it is not used any more; the next start tries again
            self._log.error("The delegated CA could not be deleted.", reason=str(error))

    async def _renew(self, why: str) -> None:
        try:
            await self._ask()
        except GgfastError as error:
            self._hourly("No new server certificate from the control plane.", why=why, reason=str(error))
            if not _refused(error) and self._delegated_helps():
                await self._sign()
        if self._why():
            self._failures += 1
            self._retry_at = self._clock.monotonic() + self._retry_pause()
        else:
            self.hurry()

    async def _ask(self) -> None:
        if self._cloud is None:
            raise LinkDown("This core has no control plane.", hint="Set ggHost, and ggfast.local to false.")
        trust, hosts = self._trust, self._wanted
        named = [part for host in hosts for part in ("--host", host)]
        fixed = ["--fixed"] if self._fixed else []
        ca = ["--ca-key", str(self._folder / DELEGATED_KEY)] if trust.delegation_s else []
        printed = await call_helper(self._run, "csr", "--key", str(self.key), *fixed, *ca, *named)
        requests = _object(printed)
        answer = await self._cloud.server_certificate(requests["csr"], hosts, requests.get("delegationCsr"))
        asked = {"hosts": hosts, "askedDelegation": bool(ca)}
        text = json.dumps({"answer": dict(answer), **asked})
        new = await call_helper(self._run, "accept", "--out", str(self._folder), "--key", str(self.key), text=text)
        self._ended_delegation = False
        await self._read(new.strip())

    async def _sign(self) -> None:
        kept, trust = self._kept or Kept(), self._trust
        assert kept.ca is not None
        last = kept.served.seconds if kept.served is not None else kept.ca.seconds
        hosts = [host for host in self._wanted if host in kept.ca.hosts] or [kept.ca.hosts[0]]
        named = [part for host in hosts for part in ("--host", host)]
        options = ("--out", str(self._folder), "--key", str(self.key), "--seconds", str(trust.certificate_s or last))
        try:
            new = await call_helper(self._run, "sign", *options, *named)
        except OperatingError as error:
            self._hourly("No server certificate by the delegated CA.", reason=str(error))
            return
        await self._read(new.strip())

    def _retry_pause(self) -> float:
        """Seconds until the next attempt: more with every failure, but several still fit into what is left."""
        served = self.served
        left = served.ends_at - self._clock.wall() if served is not None else 0.0
        most = left / 4 if left > 0 else limits.CERTIFICATE_RETRY_NOTHING_S
        grown = limits.CERTIFICATE_RETRY_FIRST_S * 2.0 ** min(self._failures - 1, 20)
        return max(min(grown, most, limits.CERTIFICATE_RETRY_S), limits.CERTIFICATE_RETRY_MIN_S)

    # --- telling ------------------------------------------------------------------------------------------

    def _complain(self) -> None:
        served, wall = self.served, self._clock.wall()
        if served is None or wall < limits.CLOCK_FLOOR_S or wall < served.ends_at:
            return
        self._hourly(
            "The server certificate has expired: new connections of devices fail, existing ones go on.",
            certificateId=served.certificate_id,
            notAfter=served.not_after,
            todo="Connect this core to its control plane; to renew without it, allow delegation there.",
        )

    def _hourly(self, message: str, **fields: object) -> None:
        """Log an error that lasts, once an hour."""
        now = self._clock.monotonic()
        if now >= self._said_at.get(message, now):
            self._said_at[message] = now + limits.CERTIFICATE_REMINDER_S
            self._log.error(message, **fields)


def _set_back(found: Issued, wall: float) -> bool:
    """Whether the clock was set back since the issue: then its age is not known."""
    return wall < found.issued_at - min(limits.CERTIFICATE_CLOCK_SLACK_S, found.seconds / 6)


def _refused(error: GgfastError) -> bool:
    """Whether the control plane said no: a core that was put out must not go on by itself."""
    if not isinstance(error, PeerError) or isinstance(error, Malformed):
        return False
    return error.reason_code < 500 and error.reason_code not in (408, 429)


def _object(text: str) -> dict[str, Any]:
    found = json.loads(text)
    assert isinstance(found, dict)
    return found
