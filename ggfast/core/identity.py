"""Who a connecting device is: certificate registered in the group, client id equal to the thing name.

Trust is by registration, not by certificate authority (greengrass-core 10.2): a device's certificate id is the
SHA-256 of its DER form, and the deployed group says which thing it belongs to. TLS has already proven that the
device holds the key; here only the name is settled. Everything else is refused with CONNACK 5, and so is a certificate
that the control plane has ended, without a deployment.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable

from ggfast.arns import ThingArn
from ggfast.counters import Counters
from ggfast.group.document import Device
from ggfast.log import SystemLog
from ggfast.mqtt.hooks import NOT_AUTHORIZED, Accepted, Client, ConnectInfo, Refused


class DeviceIdentity:
    """The broker's hooks for a core: authenticates devices of the deployed group.

    `changed(thing_arn, connected)` is called after a device came or went.
    """

    def __init__(
        self,
        log: SystemLog,
        counters: Counters,
        changed: Callable[[str, bool], None] | None = None,
    ) -> None:
        self._log = log
        self._counters = counters
        self._changed = changed
        self._things: dict[str, dict[str, str]] = {}
        self._ended: frozenset[str] = frozenset()
        self._accepted: dict[str, str] = {}  # thing ARN -> certificate of its last accepted connection

    def set_devices(self, devices: Iterable[Device]) -> None:
        """Replace the registered devices in one assignment; connected ones are not looked at here."""
        things: dict[str, dict[str, str]] = {}
        for device in devices:
            names = things.setdefault(device.certificate_id, {})
            names[ThingArn.parse(device.thing_arn).name] = device.thing_arn
        self._things = things
        here = {thing_arn for names in things.values() for thing_arn in names.values()}
        self._accepted = {arn: certificate for arn, certificate in self._accepted.items() if arn in here}

    def set_ended(self, certificate_ids: Iterable[str]) -> tuple[str, ...]:
        """Refuse these certificates from now on, and no others that were named before.

        Returns the ARNs of things that came in with one of them, each once: the caller disconnects them. What is kept
        for them stays: a certificate may become active again (greengrass-core 10.2).
        """
        self._ended = frozenset(certificate_ids)
        concerned = tuple(arn for arn, certificate in self._accepted.items() if certificate in self._ended)
        for arn in concerned:
            del self._accepted[arn]
        return concerned

    def authenticate(self, info: ConnectInfo) -> Accepted | Refused:
        """Map a certificate and a client id to a thing of the group, or refuse with code 5."""
        if info.certificate is None:
            return self._refuse(info, "no client certificate")
        certificate_id = hashlib.sha256(info.certificate).hexdigest()
        names = self._things.get(certificate_id)
        if names is None:
            return self._refuse(info, "certificate is not registered in the group", certificate_id)
        if certificate_id in self._ended:
            self._counters.add("identity.refused.ended")
            return self._refuse(info, "certificate was ended in the control plane", certificate_id)
        thing_arn = names.get(info.client_id)
        if thing_arn is None:
            expected = " or ".join(sorted(names))
            return self._refuse(info, f"client id is not the thing name, expected {expected}", certificate_id)
        self._accepted[thing_arn] = certificate_id
        return Accepted(source=thing_arn)

    def connected(self, client: Client) -> None:
        """Log a device's arrival."""
        self._log.info("Device connected.", thingArn=client.source)
        if self._changed is not None:
            self._changed(client.source, True)

    def disconnected(self, client: Client, reason: str) -> None:
        """Log a device's departure with the broker's reason."""
        self._log.info("Device disconnected.", thingArn=client.source, reason=reason)
        if self._changed is not None:
            self._changed(client.source, False)

    def _refuse(self, info: ConnectInfo, why: str, certificate_id: str = "") -> Refused:
        self._counters.add("identity.refused")
        self._log.warn(
            "Connection refused.",
            clientId=info.client_id,
            reason=why,
            peer=info.peer,
            certificateId=certificate_id,
        )
        return Refused(NOT_AUTHORIZED)
