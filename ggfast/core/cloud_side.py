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

from ggfast import arns
from ggfast.clock import Clock
from ggfast.config import Config
from ggfast.core.connectivity import Connectivity
from ggfast.core.controlplane import ControlPlane
from ggfast.core.credentials import GroupCredentials
from ggfast.core.deploy.agent import DeploymentAgent, Fetch, Offer
from ggfast.core.deploy.report import Contact
from ggfast.core.device_listener import DeviceListener
from ggfast.core.handed import Handed
from ggfast.core.identity import DeviceIdentity
from ggfast.core.kept_trust import KeptTrust
from ggfast.errors import LinkDown
from ggfast.group.document import Group
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
        self.credentials = GroupCredentials(self.controlplane, config.layout.state, clock, log, handed)
        self.trust = KeptTrust(config.layout.trust_file, self._trust_changed, log)
        self._contact: Contact | None = None
        self._listener: DeviceListener | None = None
