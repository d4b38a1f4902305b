"""Events about deployments: told at least once for each change of a state, whoever dies when (greengrass-core 12.6).

    a deployment's new state -> event in the store, same transaction
                             -> MQTT message to whoever subscribed, line in the events' log -> removed from the store

An event has the form in which EventBridge gives it. One that was being delivered when the process ended is delivered
again with the same `id`. The topic begins with $aws/: devices cannot publish there, and who wants to hear needs
iot:Subscribe and iot:Receive on it.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from uuid import uuid4

import orjson

from ggfast.cloud.events import DeploymentEventsWaiting, Publish
from ggfast.cloud.limits import (
    DEPLOYMENT_EVENTS_BATCH,
    DEPLOYMENT_EVENTS_LOG_BYTES,
    DEPLOYMENT_EVENTS_MAX,
    DEPLOYMENT_EVENTS_RETRY_S,
)
from ggfast.cloud.store.interface import Document, Store, Transaction
from ggfast.errors import OperatingError, StorageFailed
from ggfast.log import RotatingFile

logger = logging.getLogger("ggfast.cloud.deploy")

EVENTS = "deployment-event"  # parent: "", name: the event's id; body: home, group, event
TOPIC = "$aws/events/greengrass/deployments/"  # and the group's id


def note(tx: Transaction, home: str, group: str, deployment: str, kind: str, changes: Sequence[Sequence[str]]) -> None:
    """Have it told that a deployment has come to these states; `changes` are of status and time, as in its history."""
    account, _, region = home.partition("/")
    for status, time in changes:
        identifier = str(uuid4())
        event = {
            "version": "0",
            "id": identifier,
            "detail-type": "Greengrass Deployment Status Change",
            "source": "aws.greengrass",
            "account": account,
            "time": f"{time[:19]}Z",  # EventBridge has whole seconds
            "region": region,
            "resources": [],
            "detail": {
                "group-id": group,
                "deployment-id": deployment,
                "deployment-type": kind,
                "status": status,
            },
        }
        tx.put(EVENTS, "", identifier, {"home": home, "group": group, "event": event})
    if changes:
        _keep_within(tx)
        tx.tell(DeploymentEventsWaiting())


def _keep_within(tx: Transaction) -> None:
    """Nobody serves, or the log cannot be written: what is oldest goes."""
    spare = tx.count(EVENTS, "") - DEPLOYMENT_EVENTS_MAX
    if spare > 0:
        logger.error("events about deployments are lost: more than %d wait", DEPLOYMENT_EVENTS_MAX)
        for document in tx.list(EVENTS, "", limit=spare).documents:
            tx.delete(EVENTS, "", document.name)


class Outbox:
    """Delivers what waits and what comes. `start` once the broker runs; `stop` before the store closes."""

    def __init__(self, store: Store, log: Path) -> None:
        """`log`: the file that gets a JSON line for each event; older parts lie beside it."""
        self._store = store
        self._log = RotatingFile(log, DEPLOYMENT_EVENTS_LOG_BYTES)
        self._waiting = asyncio.Event()
        self._task: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Begin; never waits for a delivery."""
        self._store.listen(self._hear)
        self._task = asyncio.create_task(self._run(), name="events about deployments")

    async def stop(self) -> None:
        """What is not delivered is at the next start. Safe to call twice."""
        if self._task is not None:
            self._task.cancel()
            with suppress(asyncio.CancelledError):
                await self._task
            self._task = None
        self._log.close()

    def _hear(self, event: object) -> None:
        if isinstance(event, DeploymentEventsWaiting):
            self._waiting.set()

    async def _run(self) -> None:
        while True:
            self._waiting.clear()
            try:
                while await self.deliver():
                    pass
            except OperatingError as error:
                logger.error("events about deployments wait: %s", error)
                await asyncio.sleep(DEPLOYMENT_EVENTS_RETRY_S)
            except Exception:
                logger.exception("events about deployments could not be delivered")
                await asyncio.sleep(DEPLOYMENT_EVENTS_RETRY_S)
            else:
                await self._waiting.wait()

    async def deliver(self) -> bool:
        """Deliver the oldest that wait, DEPLOYMENT_EVENTS_BATCH at most; False if there was none. Raises StorageFailed,
        and then they wait still."""
        found = await self._store.read(lambda tx: tx.list(EVENTS, "", limit=DEPLOYMENT_EVENTS_BATCH).documents)
        if not found:
            return False
        # A transaction that only tells: subscribers have their messages before anything is removed.
        await self._store.write(lambda tx: _publish(tx, found))
        await asyncio.to_thread(self._write, found)
        await self._store.write(lambda tx: _remove(tx, found))
        return True

    def _write(self, found: Sequence[Document]) -> None:
        lines = b"".join(orjson.dumps(document.body["event"], option=orjson.OPT_APPEND_NEWLINE) for document in found)
        if not self._log.append(lines) or not self._log.sync():
            hint = "Check free space and permissions of its directory; the events stay in the store until then."
            raise StorageFailed(f"{self._log.path} cannot be written.", hint=hint)


def _publish(tx: Transaction, found: Sequence[Document]) -> None:
    for document in found:
        payload = orjson.dumps(document.body["event"])
        tx.tell(Publish(TOPIC + document.body["group"], payload, 1, home=document.body["home"]))


def _remove(tx: Transaction, found: Sequence[Document]) -> None:
    for document in found:
        tx.delete(EVENTS, "", document.name)
