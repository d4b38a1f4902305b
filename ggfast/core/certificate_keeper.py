"""The one keeper of the local server's certificate, whichever of its sources is the right one.

trust is None                  local mode, or a group that came from a folder: the core's own CA (`own_ca.py`)
a group of the control plane   the control plane, or the CA it delegated (`cloud_certificates.py`)
no group                       no certificate: nobody is let in, which is no error (greengrass-core, row 8)
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from ggfast import limits
from ggfast.clock import Clock
from ggfast.core.certificate_helper import Helper, run_helper
from ggfast.core.certificate_hosts import nameable
from ggfast.core.certificates import SERVER_CERTIFICATE
from ggfast.core.cloud_certificates import CloudCertificates, Issuer
from ggfast.core.own_ca import ServerCertificate, ensure_server_certificate
from ggfast.core.trust import Trust
from ggfast.errors import GgfastError
from ggfast.log import SystemLog


@dataclass(frozen=True, slots=True)
class Served:
    """What the listener serves."""

    certificate: Path
    key: Path
    certificate_id: str
    hosts: tuple[str, ...]
    not_after: int


class CertificateKeeper:
    """Says what is to be served and keeps it fresh. One `look` at a time."""

    def __init__(
        self,
        state: Path,
        clock: Clock,
        log: SystemLog,
        *,
        cloud: Issuer | None = None,
        server_key: Path | None = None,
        run: Helper = run_helper,
    ) -> None:
        self._state = state
        self._clock = clock
        self._log = log
        self._run = run
        self._made: ServerCertificate | None = None
        self._issued = CloudCertificates(state / "server", cloud, server_key, run, clock, log)

    async def on_disk(self, trust: Trust | None) -> Served | None:
        """What can be served without making anything. Does not block the loop."""
        if trust is None or not trust.group_id:
            return None
        await self._issued.load()
        return self._from_cloud()

    async def look(self, trust: Trust | None, hosts: Sequence[str]) -> Served | None:
        """What is to be served now, made or renewed if that is due. None: nobody can be let in.

        Does not block the loop; may take as long as the control plane takes to answer. Failures are logged."""
        if trust is None:
            return await self._own(nameable(hosts))
        self._made = None
        if not trust.group_id:
            return None
        await self._issued.look(trust, hosts)
        return self._from_cloud()

    def hurry(self) -> None:
        """What was in the way may be gone: try at the next look what failed."""
        self._issued.hurry()

    def pause_s(self, trust: Trust | None) -> float:
        """How long until the next look is worth it; 0 or less: at once."""
        if trust is not None:
            return self._issued.pause_s() if trust.group_id else limits.CERTIFICATE_CHECK_S
        left = self._made.renew_at - self._clock.wall() if self._made is not None else 0.0
        return min(left, limits.CERTIFICATE_CHECK_S) if left > 0 else limits.CERTIFICATE_CHECK_S

    async def forget(self) -> None:
        """Delete what came with deployments; the core's own CA stays. Raises OSError. Does not block the loop."""
        self._made = None
        await self._issued.forget()

    def _from_cloud(self) -> Served | None:
        found = self._issued.served
        if found is None:
            return None
        certificate = self._state / "server" / SERVER_CERTIFICATE
        return Served(certificate, self._issued.key, found.certificate_id, found.hosts, found.not_after)

    async def _own(self, hosts: tuple[str, ...]) -> Served | None:
        made = self._made
        if made is None or self._clock.wall() >= made.renew_at or not set(hosts) <= set(made.hosts):
            try:
                made = await ensure_server_certificate(self._state, hosts, run=self._run, clock=self._clock)
            except GgfastError as error:
                what = "Devices cannot connect" if made is None else "The one in use stays"
                self._log.error(f"No new server certificate. {what}.", reason=str(error))
            else:
                for warning in made.warnings:
                    self._log.warn("Server certificate.", detail=warning)
        self._made = made
        if made is None:
            return None
        return Served(made.certificate, made.key, made.certificate_id, made.hosts, made.not_after)
