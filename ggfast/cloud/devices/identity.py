"""Who shows a certificate: its home, its things, its policies; and whether they allow something.

    certificate (DER) -> id -> registry (store) -> Identity, remembered until the registry says it changed

Decisions have to be made on the loop without waiting (the broker's authoriser, `Hooks.authenticate`), and looking up
waits for the store. So an identity is loaded when a connection has finished its TLS handshake, before anything of it
is handled, and kept while anybody needs it; a change in the registry loads it again.
"""

from __future__ import annotations

import asyncio
import hashlib
import logging
from collections import Counter, OrderedDict
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from ggfast.cloud.events import CertificateEnded, PermissionsChanged
from ggfast.cloud.iot.attached import policies_of_certificate
from ggfast.cloud.iot.certificates import get_certificate, homes_of_certificate
from ggfast.cloud.iot.lookups import get_thing, things_of_certificate
from ggfast.cloud.limits import DEVICE_IDENTITIES_MAX, DEVICE_LOOK_UPS_BATCH
from ggfast.cloud.policy import PolicyDocument, decide
from ggfast.cloud.store.interface import Store, Transaction
from ggfast.errors import OperatingError

logger = logging.getLogger("ggfast.cloud.devices")

MQTT_WILDCARDS = "+#"  # a client id with one would turn topicfilter/${iot:ClientId}/in into everybody's; it counts as
#                        not known, so that no permission made from it is given


@dataclass(frozen=True, slots=True)
class Identity:
    """An active certificate. `own` are the policies attached to it, `policies` also those of its things' groups,
    which do not count for Greengrass actions (greengrass-core 10.4)."""

    certificate_id: str
    home: str  # "<account>/<region>"
    things: Mapping[str, Mapping[str, Any]]  # by name: `attributes`, `type`
    policies: tuple[PolicyDocument, ...]
    own: tuple[PolicyDocument, ...]

    @property
    def account(self) -> str:
        """The account's 12 digits."""
        return self.home.partition("/")[0]

    @property
    def region(self) -> str:
        """Where the certificate is registered."""
        return self.home.partition("/")[2]

    @property
    def arn(self) -> str:
        """The certificate's."""
        return self.arn_of("iot", f"cert/{self.certificate_id}")

    def arn_of(self, service: str, resource: str) -> str:
        """An ARN in this identity's region."""
        return f"arn:aws:{service}:{self.region}:{self.account}:{resource}"

    def allows(self, action: str, resource: str, client_id: str = "") -> bool:
        """Whether the policies allow an action on an ARN. `client_id`: of its MQTT connection, "" if there is none."""
        documents = self.own if action.startswith("greengrass:") else self.policies
        return decide(documents, action, resource, self._context(client_id))

    def _context(self, client_id: str) -> dict[str, str]:
        context = {"iot:Connection.Thing.IsAttached": "false"}
        if client_id and not any(wildcard in client_id for wildcard in MQTT_WILDCARDS):
            context["iot:ClientId"] = client_id
        thing = self.things.get(client_id)
        if thing is None:
            return context
        context |= {"iot:Connection.Thing.IsAttached": "true", "iot:Connection.Thing.ThingName": client_id}
        if thing["type"]:
            context["iot:Connection.Thing.ThingTypeName"] = thing["type"]
        for name, value in thing["attributes"].items():
            context[f"iot:Connection.Thing.Attributes[{name}]"] = value
        return context


def certificate_id_of(der: bytes) -> str:
    """How AWS IoT names a certificate."""
    return hashlib.sha256(der).hexdigest()


def load(tx: Transaction, certificate_id: str) -> Identity | None:
    """From the registry; None for a certificate that is unknown or not active."""
    for home in homes_of_certificate(tx, certificate_id):
        certificate = get_certificate(tx, home, certificate_id)
        if certificate is None or certificate["status"] != "ACTIVE":
            continue
        things = {name: get_thing(tx, home, name) for name in things_of_certificate(tx, home, certificate_id)}
        return Identity(
            certificate_id,
            home,
            {name: thing for name, thing in things.items() if thing is not None},
            _parsed(policies_of_certificate(tx, home, certificate_id)),
            _parsed(policies_of_certificate(tx, home, certificate_id, groups=False)),
        )
    return None


@dataclass(slots=True)
class _Look:
    """A certificate that is being looked up: by how many, and how often it changed meanwhile."""

    waiting: int = 0
    changes: int = 0


class Identities:
    """What is known of certificates. Everything runs on the loop.

    `changed()` is called after identities are different, `ended(certificate_id)` when a certificate is no longer good.
    """

    def __init__(self, store: Store, changed: Callable[[], None], ended: Callable[[str], None]) -> None:
        self._store = store
        self._changed = changed
        self._ended = ended
        self._known: OrderedDict[str, Identity] = OrderedDict()
        self._kept: Counter[str] = Counter()  # by how many clients each is needed
        self._looks: dict[str, _Look] = {}  # certificates that are being looked up
        self._tasks: set[asyncio.Task[None]] = set()
        self._reloading = asyncio.Lock()  # an older look at the store must not replace a newer one
        store.listen(self._hear)

    def get(self, certificate_id: str) -> Identity | None:
        """What is remembered. Never blocks."""
        return self._known.get(certificate_id)

    async def find(self, certificate_id: str) -> Identity | None:
        """Remembered or looked up; None for a certificate that is unknown or not active. Raises StorageFailed."""
        known = self._known.get(certificate_id)
        if known is not None:
            self._known.move_to_end(certificate_id)
            return known
        look = self._looks.setdefault(certificate_id, _Look())
        look.waiting += 1
        try:
            fresh = False
            while not fresh:
                changes = look.changes
                found = await self._store.read(lambda tx: load(tx, certificate_id))
                fresh = changes == look.changes
        finally:
            look.waiting -= 1
            if not look.waiting:
                del self._looks[certificate_id]
        if found is not None:
            self._known[certificate_id] = found
            self._make_room()
        return found

    async def reload(self, certificate_ids: Iterable[str]) -> None:
        """Look certificates up again, or for the first time, as after a change in the registry."""
        await self._reload(list(certificate_ids))

    def keep(self, certificate_id: str) -> None:
        """Do not forget a certificate until `let_go`, which follows once for each call."""
        self._kept[certificate_id] += 1

    def let_go(self, certificate_id: str) -> None:
        """One of those who needed it does no longer."""
        self._kept[certificate_id] -= 1
        if self._kept[certificate_id] <= 0:
            del self._kept[certificate_id]

    async def close(self) -> None:
        """Give up what is being looked up."""
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def _hear(self, event: object) -> None:
        if isinstance(event, CertificateEnded):
            self._note([event.certificate_id])
            self._known.pop(event.certificate_id, None)
            self._changed()  # before: the wills of its clients must not go out by remembered permissions
            self._ended(event.certificate_id)
        elif isinstance(event, PermissionsChanged):
            self._note([event.certificate_id] if event.certificate_id else list(self._looks))
            names = [event.certificate_id] if event.certificate_id else list(self._known)
            for name in names:
                if name not in self._kept:
                    self._known.pop(name, None)
            kept = [name for name in names if name in self._kept]
            if kept:
                self._begin(self._reload(kept))

    def _note(self, names: list[str]) -> None:
        """What is being read of these may be from before a change."""
        for name in names:
            if name in self._looks:
                self._looks[name].changes += 1

    async def _reload(self, names: list[str]) -> None:
        """What clients are connected with stays known meanwhile, as it was."""
        async with self._reloading:
            for start in range(0, len(names), DEVICE_LOOK_UPS_BATCH):
                await self._reload_some(names[start : start + DEVICE_LOOK_UPS_BATCH])

    async def _reload_some(self, names: list[str]) -> None:
        found: list[Identity | None] = [None] * len(names)
        try:
            found = await self._store.read(lambda tx: [load(tx, name) for name in names])
        except OperatingError as error:
            logger.error("changed permissions could not be read; they count as none: %s", error)
        ended = []
        for name, identity in zip(names, found, strict=True):
            before = self._known.pop(name, None)
            if identity is not None:
                self._known[name] = identity
            if identity is None or (before is not None and before.home != identity.home):
                ended.append(name)  # in another region its clients are others
        self._changed()
        for name in ended:
            self._ended(name)

    def _make_room(self) -> None:
        spare = len(self._known) - len(self._kept) - DEVICE_IDENTITIES_MAX
        if spare > 0:
            for name in [name for name in self._known if name not in self._kept][:spare]:
                del self._known[name]

    def _begin(self, work: Any) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)


def _parsed(texts: Iterable[str]) -> tuple[PolicyDocument, ...]:
    documents = []
    for text in texts:
        try:
            documents.append(PolicyDocument.parse(text))
        except ValueError as error:  # it was checked when it was stored, perhaps by another version
            logger.error("a stored policy cannot be read and allows nothing: %s", error)
    return tuple(documents)
