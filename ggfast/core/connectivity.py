"""Where devices reach this core: its addresses for the server certificate, and for discovery if the group says so.

With the IP detector in the group (`GGIPDetector:1`) the addresses are published as `AUTOIP_<ip>_<n>` with the port of
the local MQTT listener, in place of whatever is listed; without it the list is left to people. Loopback addresses are
not published unless `ggfast.detectLoopback` says so: V1 did, and devices tried them in vain. They are counted all the
same, so that the first address of the network is number 1 as it was there. Sources: greengrass-core 10.3, 11.4.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Final, Protocol

import orjson

from ggfast import limits
from ggfast.clock import Clock
from ggfast.config import Config
from ggfast.errors import GgfastError, Rejected
from ggfast.log import SystemLog
from ggfast.net.addresses import Address, AddressWatch, chosen, host_names, read_addresses
from ggfast.plainfile import open_plain
from ggfast.storage.privatefiles import write_private

RECORD: Final = "connectivity.json"  # in the state directory: what was published last, and for whom

Entry = dict[str, Any]


class Publisher(Protocol):
    """The part of the control plane that is asked."""

    async def put_connectivity(self, entries: Sequence[Mapping[str, Any]]) -> None: ...


class Connectivity:
    """Watches this machine's addresses and publishes them. `changed` is called on the loop when `hosts` has changed.

    `controlplane` None: a core without a cloud, which has addresses and publishes none.
    """

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        controlplane: Publisher | None,
        config: Config,
        clock: Clock,
        log: SystemLog,
        changed: Callable[[], None] | None = None,
        read: Callable[[], tuple[Address, ...]] = read_addresses,
    ) -> None:
        self.changed = changed
        self._loop = loop
        self._controlplane = controlplane
        self._settings = config.ggfast
        self._port = config.core_thing.gg_mqtt_port
        self._whom = f"{config.core_thing.thing_arn} at {config.core_thing.gg_host}"
        self._path = config.layout.state / RECORD
        self._clock = clock
        self._log = log
        self._read = read
        self._watch = AddressWatch(loop, self._looked, read)
        self._hosts: tuple[str, ...] = ()
        self._entries: list[Entry] = []
        self._published: list[Entry] | None = None
        self._published_at = 0.0
        self._detect = False
        self._compared = False
        self._due = asyncio.Event()
        self._task: asyncio.Task[None] | None = None
        self._said = ""
        self._recall()

    def hosts(self) -> tuple[str, ...]:
        """What the server certificate should name: local names, the host name, and every address that is not of a
        skipped interface. Blocks for a moment before `start`, not after."""
        if not self._hosts:
            self._take(self._read())
        return self._hosts

    def configure(self, detect: bool) -> None:
        """Publish from now on, or no longer. What was published stays listed until somebody replaces the list; it is
        published anew when the detector comes back."""
        if detect != self._detect:
            self._detect = detect
            self._log.info("IP detector.", on=detect)
        if not detect and self._published is not None:
            self._published = None
            try:
                self._path.unlink(missing_ok=True)
            except OSError as error:
                self._log.warn("What was published could not be forgotten.", reason=str(error))
        self._due.set()

    def told(self, entries: Iterable[Mapping[str, Any]]) -> None:
        """Take note of what the control plane lists. The first time after the start it is compared: what was replaced
        while this core was away is published anew, as V1's detector did at each start. Later lists are somebody's
        wish and stay until an address changes."""
        if not self._compared and self._published is not None:
            listed = sorted((str(entry.get("HostAddress")), int(entry.get("PortNumber", 0))) for entry in entries)
            if listed != sorted((entry["HostAddress"], entry["PortNumber"]) for entry in self._published):
                self._published = None
                self._due.set()
        self._compared = True

    def status(self) -> dict[str, Any]:
        """For people: addresses, and when they were published (0: never)."""
        return {
            "detecting": self._detect,
            "addresses": [entry["HostAddress"] for entry in self._entries],
            "publishedAt": self._published_at,
        }

    async def start(self) -> None:
        """Look at the addresses once, then watch them and publish in the background until `stop`."""
        await self._watch.start()
        if self._watch.refused:
            text = "The kernel tells no changes of addresses; they are looked at from time to time."
            self._log.warn(text, reason=self._watch.refused, seconds=limits.ADDRESS_LOOK_S)
        if self._controlplane is not None:
            self._task = self._loop.create_task(self._publish_for_ever(self._controlplane))

    async def stop(self) -> None:
        """End watching and publishing."""
        await self._watch.stop()
        task, self._task = self._task, None
        if task is not None:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)

    # --- addresses ------------------------------------------------------------------------------------------

    def _looked(self, addresses: tuple[Address, ...]) -> None:
        before, entries = self._hosts, self._entries
        self._take(addresses)
        if self._entries != entries:
            self._due.set()
        if before and self._hosts != before:
            self._log.info("Addresses changed.", hosts=list(self._hosts))
            if self.changed is not None:
                try:
                    self.changed()
                except Exception as error:  # the watch must go on whatever a renewal comes to
                    self._log.error("A change of addresses was not taken up.", reason=repr(error))

    def _take(self, addresses: tuple[Address, ...]) -> None:
        skipped = self._settings.detect_skip_interfaces
        self._hosts = host_names(chosen(addresses, skipped, loopback=True))
        usable = chosen(addresses, skipped, loopback=self._settings.detect_loopback)
        first = 0 if self._settings.detect_loopback else 1
        self._entries = [
            _entry(address.text, self._port, f"AUTOIP_{address.text}_{number}")
            for number, address in enumerate(usable[: limits.DETECTED_ADDRESSES_MAX], first)
        ]

    # --- publishing -----------------------------------------------------------------------------------------

    async def _publish_for_ever(self, controlplane: Publisher) -> None:
        pause = limits.CONNECTIVITY_RETRY_S
        while True:
            await self._due.wait()
            self._due.clear()
            entries = self._entries
            if not self._is_due(entries):
                continue
            try:
                await controlplane.put_connectivity(entries)
            except Rejected as error:
                self._failed(error, "The core's certificate needs greengrass:UpdateConnectivityInfo on its thing.")
                await self._wait(limits.CONNECTIVITY_REFUSED_S)
            except GgfastError as error:
                self._failed(error)
                changed = await self._wait(pause * random.uniform(0.5, 1.0))  # cores come back together
                pause = limits.CONNECTIVITY_RETRY_S if changed else min(pause * 2, limits.CONNECTIVITY_RETRY_S_MAX)
            except Exception as error:  # without this task nobody finds the core any more
                self._failed(error)
                await self._wait(limits.CONNECTIVITY_REFUSED_S)
            else:
                pause = limits.CONNECTIVITY_RETRY_S
                await self._remember(entries)

    def _is_due(self, entries: list[Entry]) -> bool:
        if not self._detect or entries == self._published:
            return False
        if not entries:
            # An empty list would make devices lose the core; what is listed may still be right.
            text = "No address that devices could use: nothing is published."
            self._say(text, hint="ggfast.detectSkipInterfaces and ggfast.detectLoopback say what is left out.")
            return False
        return True

    async def _wait(self, seconds: float) -> bool:
        """Until it is time to try again; True if something has changed before."""
        try:
            async with asyncio.timeout(seconds):  # wait_for may lose a cancellation
                await self._due.wait()
        except TimeoutError:
            self._due.set()
            return False
        return True

    def _failed(self, error: Exception, hint: str = "") -> None:
        refused = isinstance(error, Rejected) and error.reason_code == 403
        reason = f"{error} {hint}" if refused else str(error) or repr(error)
        self._say("The addresses could not be published; this is tried again.", reason=reason)

    def _say(self, text: str, **fields: str) -> None:
        """Once for the same thing: it is tried again and again."""
        if self._said != (said := f"{text} {fields}"):
            self._said = said
            self._log.warn(text, **fields)

    # --- what was published last ------------------------------------------------------------------------------

    async def _remember(self, entries: list[Entry]) -> None:
        self._said, self._compared = "", True
        self._published, self._published_at = entries, self._clock.wall()
        self._log.info("Addresses published.", addresses=[entry["HostAddress"] for entry in entries], port=self._port)
        record = {"whom": self._whom, "at": self._published_at, "entries": entries}
        try:
            await asyncio.to_thread(write_private, self._path, orjson.dumps(record))
        except OSError as error:
            self._log.warn("What was published is not remembered: a restart publishes it again.", reason=str(error))

    def _recall(self) -> None:
        try:
            with open_plain(self._path, follow_links=False) as file:
                record = orjson.loads(file.read(limits.CONNECTIVITY_RECORD_BYTES_MAX))
            if record["whom"] == self._whom:
                self._published = [
                    _entry(found["HostAddress"], found["PortNumber"], found["Id"]) for found in record["entries"]
                ]
                self._published_at = float(record["at"])
        except (OSError, ValueError, KeyError, TypeError):
            self._published = None  # none yet, or damaged: what is published once too often harms nobody


def _entry(host: str, port: int, identifier: str) -> Entry:
    """As the API takes it. Raises TypeError, ValueError for what was never an entry."""
    return {"Id": str(identifier), "HostAddress": str(host), "PortNumber": int(port), "Metadata": ""}
