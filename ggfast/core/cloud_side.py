"""The parts of a core that have to do with its control plane, joined: deployments, trust, addresses, keys.

contact          hears of deployments and of trust, tells outcomes          deploy/report.py
trust            ended certificates, CAs, addresses; kept for offline starts  kept_trust.py
connectivity     this machine's addresses, told to the control plane        connectivity.py
credentials      the group role's keys for functions                        credentials.py

In local mode there is no control plane: all of it is there and does nothing.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Any

from ggfast.clock import Clock
from ggfast.config import Config
from ggfast.core.connectivity import Connectivity
from ggfast.core.controlplane import ControlPlane
from ggfast.core.credentials import GroupCredentials
from ggfast.core.deploy.agent import DeploymentAgent, Offer
from ggfast.core.deploy.fetch import run as fetch
from ggfast.core.deploy.report import Contact
from ggfast.core.device_listener import DeviceListener
from ggfast.core.handed import Handed
from ggfast.core.identity import DeviceIdentity
from ggfast.core.kept_trust import KeptTrust
from ggfast.group.document import Group
from ggfast.group.functions import has_ip_detector
from ggfast.log import SystemLog
from ggfast.mqtt.broker import Broker


class CloudSide:
    """See the module. Built before the parts that need it, joined to them by `join`, then `start` and `stop` once."""

    def __init__(
        self, loop: asyncio.AbstractEventLoop, config: Config, handed: Handed, clock: Clock, log: SystemLog
    ) -> None:
        self._config = config
        self._handed = handed
        self._log = log
        self.controlplane = ControlPlane.of(config, handed)
        self.connectivity = Connectivity(loop, self.controlplane, config, clock, log)
        self.credentials = GroupCredentials(self.controlplane, config.layout.state, clock, log, handed.identity)
        self.trust = KeptTrust(config.layout.trust_file, self._trust_changed, log)
        self._contact: Contact | None = None
        self._listener: DeviceListener | None = None
        self._agent: DeploymentAgent | None = None
        self._broker: Broker | None = None
        self._identity: DeviceIdentity | None = None
        self._group = Group()
        self._live: Mapping[str, Any] | None = None
        self._serving = False

    def join(self, agent: DeploymentAgent, listener: DeviceListener, broker: Broker, identity: DeviceIdentity) -> None:
        """Name the parts that are told what the control plane says."""
        self._agent, self._listener, self._broker, self._identity = agent, listener, broker, identity
        self.connectivity.changed = listener.look_again

    async def fetch(self, offer: Offer, staging: str) -> None:
        """Have an offered group staged; the agent's way to the control plane. Raises LinkDown, DeploymentFailed."""
        fetched = await fetch(offer, staging, self._config, self._handed)
        for note in fetched.notes:
            self._log.warn("Deployment.", detail=note)

    @property
    def online(self) -> bool:
        """Whether the control plane was heard of at the last try."""
        return self._contact is not None and self._contact.online

    # --- life -------------------------------------------------------------------------------------------

    async def start(self) -> None:
        """After the group is up, before devices are let in: what is known of certificates counts from the start."""
        await self.connectivity.start()
        await self.trust.start((self._live or {}).get("trust"))
        self._end_certificates(self.trust.current)

    def begin(self) -> None:
        """Once devices are let in: talk to the control plane. Returns at once."""
        self._serving = True
        if self.controlplane is not None:
            assert self._agent is not None and self._listener is not None
            pause_max_s = self._config.core_thing.connection_retry_interval_max_s
            self._contact = Contact(
                self.controlplane,
                self._agent,
                self.trust,
                self._log,
                pause_max_s=pause_max_s,
                reached=self._listener.look_again,
            )
            self._contact.start()

    async def stop(self) -> None:
        """End every exchange."""
        if self._contact is not None:
            await self._contact.stop()
        await self.connectivity.stop()
        await self.credentials.stop()
        if self.controlplane is not None:
            self.controlplane.close()

    async def forget(self) -> None:
        """The core is reset: nothing of its group stays. Raises StorageFailed."""
        assert self._listener is not None
        self.trust.forget()
        self.credentials.forget()
        await self._listener.forget()

    # --- what changes -----------------------------------------------------------------------------------

    async def follow(self, group: Group, live: Mapping[str, Any] | None) -> None:
        """Another group serves; `live` says by which deployment of the control plane it came, None: by a folder."""
        self._group, self._live = group, live
        self.connectivity.configure(has_ip_detector(group))
        self.credentials.set_group(group.group_id if live is not None else "")
        if self._serving:
            assert self._listener is not None
            await self._listener.set_trust(self.listener_trust)

    @property
    def listener_trust(self) -> Mapping[str, Any] | None:
        """What the server certificate depends on; None where the control plane has no say: it has made neither the
        group nor, before any group, its certificate."""
        if self.controlplane is None or (self._live is None and self._group.group_id):
            return None
        return self.trust.current or (self._live or {}).get("trust") or {}

    async def _trust_changed(self, found: Mapping[str, Any] | None) -> None:
        assert self._listener is not None and found is not None
        self._end_certificates(found)
        self.connectivity.told(found["connectivity"])
        await self._listener.set_trust(self.listener_trust)

    def _end_certificates(self, found: Mapping[str, Any] | None) -> None:
        """Refuse devices whose certificates have ended, and disconnect those that are here."""
        assert self._identity is not None and self._broker is not None
        for thing_arn in self._identity.set_ended((found or {}).get("endedCertificates", ())):
            self._broker.disconnect(thing_arn)
