"""The core as one object: builds every part, starts them in order, stops them in reverse.

counters, logs                       first, everything reports to them
table (router), spool                where messages go
shadow service                       things' shadows, on disk
broker, identity, device listener    devices
function manager                     functions, through the spawner's channel
HTTP interface                       the same functions' requests over TCP
deployment agent                     brings up what is on disk, then what is deployed
control plane                        deployments, trust, addresses, keys: everything in cloud_side.py
control socket                       the command line
"""

from __future__ import annotations

import asyncio
import os
import signal
import socket
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ggfast import __version__, limits
from ggfast._ext.routes import Router
from ggfast.arns import CLOUD, SHADOW_ARN, SHADOW_SERVICE, FunctionArn, ThingArn
from ggfast.clock import Clock, SystemClock
from ggfast.config import Config
from ggfast.core.cloud_side import CloudSide
from ggfast.core.control import ControlServer, Verb
from ggfast.core.deploy.agent import DeploymentAgent
from ggfast.core.deploy.apply import GroupApplier, Parts
from ggfast.core.deploy.record import Records
from ggfast.core.deploy.reset import Reset
from ggfast.core.deploy.store import Store
from ggfast.core.device_listener import DeviceListener
from ggfast.core.function_verbs import FunctionVerbs
from ggfast.core.functions.calls import MessageLimits
from ggfast.core.functions.ipc_http import HttpInterface
from ggfast.core.functions.manager import FunctionManager, ManagerSettings
from ggfast.core.functions.starts import PacedChannel
from ggfast.core.functions.tokens import load_key
from ggfast.core.handed import Handed
from ggfast.core.identity import DeviceIdentity
from ggfast.core.shadows.service import ShadowService
from ggfast.core.spooler import MemorySpool
from ggfast.counters import Counters
from ggfast.errors import ConfigError, Problem
from ggfast.log import FunctionLog, Logs, bridge_standard_logging
from ggfast.mqtt.broker import Broker
from ggfast.mqtt.limits import BrokerLimits
from ggfast.sandbox.channel import SpawnerChannel


class Core:
    """Everything the daemon consists of. `run` is its whole life."""

    def __init__(
        self,
        config: Config,
        loop: asyncio.AbstractEventLoop,
        channel: socket.socket,
        listeners: Mapping[str, socket.socket],
        function_ids: tuple[int, int],
        clock: Clock | None = None,
        handed: Handed | None = None,
    ) -> None:
        self._config = config
        self._loop = loop
        self._clock = clock or SystemClock()
        self._listeners = listeners
        self._started_at = self._clock.monotonic()
        self._stopping = asyncio.Event()
        self._devices_connected: set[str] = set()
        layout = config.layout

        self.counters = Counters()
        self.logs = Logs(
            layout.logs,
            self._clock,
            self.counters,
            late_names=config.version_profile.late_log_names,
            lines_per_s=config.ggfast.log_lines_per_s,
        )
        self.log = self.logs.system("runtime")

        messages = config.message_limits
        self.table = Router(
            False,
            topic_bytes_max=messages.topic_bytes,
            topic_slashes_max=-1 if messages.topic_slashes is None else messages.topic_slashes,
        )
        self.spool = MemorySpool(self.counters)
        self.table.add_sink(CLOUD, self.spool.offer, self.spool.has_room)
        self.shadows = ShadowService(
            self.table,
            layout.shadow_file,
            self._clock,
            self.counters,
            self.logs.system("shadow_service"),
            fsync=config.ggfast.fsync,
        )
        self.table.add_sink(SHADOW_SERVICE, self.shadows.offer)

        handed = handed or Handed()
        self.cloud = CloudSide(loop, config, handed, self._clock, self.log)
        connections = self.logs.system("connection_manager")
        self.identity = DeviceIdentity(connections, self.counters, self._device_changed)
        self.broker = Broker(loop, self.table, self.identity, _broker_limits(config), self._clock, self.counters)
        self.listener = DeviceListener(
            loop,
            self.broker,
            self._listener("mqtt"),
            layout.state,
            self._clock,
            connections,
            cloud=self.cloud.controlplane,
            server_key=handed.server_key,
            hosts=self.cloud.connectivity.hosts,
            strict=config.ggfast.strict,
        )

        self.channel = SpawnerChannel(loop, channel, self._spawner_event)
        self.functions = FunctionManager(
            loop,
            PacedChannel(self.channel, self._clock),
            self.table,
            self.counters,
            self.log,
            self._clock,
            self._function_log,
            ManagerSettings(
                work_items_max=config.runtime.work_items_max,
                concurrent_max=config.runtime.concurrent_max,
                message_limits=_message_limits(config),
                token_key=load_key(layout.token_key, self.log),
            ),
            {SHADOW_ARN: self.shadows.ask},
        )
        self.http = HttpInterface(
            loop,
            self.functions,
            self._function_log,
            _message_limits(config),
            self.counters,
            self.log,
            self.cloud.credentials,
        )

        self.applier = GroupApplier(
            config,
            Parts(self.table, self.broker, self.identity, self.listener, self.functions, self.spool, self.logs),
            function_ids,
        )
        self.agent = DeploymentAgent(
            Store(layout, fsync=config.ggfast.fsync),
            Records(layout.agent_state, fsync=config.ggfast.fsync),
            self.applier,
            self.log,
            self.cloud.fetch,
            Reset(layout, self.logs, [self.cloud.forget, self._forget_messages, self.shadows.forget]),
            staging=layout.staging,
            strict=config.ggfast.strict,
            followed=self.cloud.follow,
        )
        self.cloud.join(self.agent, self.listener, self.broker, self.identity)
        self.control = ControlServer(
            self.log, {"status": self._status, "activate": self._activate, **self._function_verbs()}
        )

    async def run(self) -> None:
        """Start, serve until the supervisor or a signal says stop, stop."""
        for number in (signal.SIGTERM, signal.SIGINT):
            self._loop.add_signal_handler(number, self._stopping.set)
        await self.start()
        await self._stopping.wait()
        await self.stop()

    async def start(self) -> None:
        """Bring everything up; returns when devices may connect and pinned functions are on their way."""
        bridge = bridge_standard_logging(self.log)
        bridge.setLevel("WARNING")
        self.log.info("Starting.", version=__version__, profile=str(self._config.version_profile), pid=os.getpid())
        for warning in self._config.warnings:
            self.log.warn("Configuration.", detail=warning)
        await self.agent.start()
        self.http.serve(self._listener("functions"))  # now every running worker's token is known
        if "functions6" in self._listeners:
            self.http.serve(self._listener("functions6"))
        await self.cloud.start()
        await self.listener.start(self._device_certificates(), self.cloud.listener_trust)
        await self.control.serve(self._listener("control"))
        self.cloud.begin()
        await self.channel.ready()
        self.log.info("Ready.", mqttPort=self._config.core_thing.gg_mqtt_port)

    async def stop(self) -> None:
        """End everything in reverse order of start. Bounded: every part has its own time limit."""
        self.log.info("Stopping.")
        await self.control.close()
        await self.cloud.stop()
        await self.agent.stop()
        await self.listener.stop()
        await self.functions.stop()
        await self.shadows.stop()
        self.http.close()
        self.broker.close()
        self.log.info("Stopped.")
        self.logs.close()

    # --- what the parts ask for -------------------------------------------------------------------------

    def _listener(self, name: str) -> socket.socket:
        try:
            return self._listeners[name]
        except KeyError:
            raise ConfigError(
                "The supervisor handed over no such listener.",
                [Problem(f"--listener {name}", "nothing", "the number of a listening socket")],
            ) from None

    def _spawner_event(self, event: Mapping[str, Any]) -> None:
        if event.get("event") == "exited":
            self.functions.exited(event)
        elif event.get("event") == "stop":
            self._stopping.set()

    def _function_log(self, arn: str) -> FunctionLog:
        parts = FunctionArn.parse(arn)
        return self.logs.function(parts.region, parts.account, parts.name)

    def _device_changed(self, thing_arn: str, connected: bool) -> None:
        if connected:
            self._devices_connected.add(thing_arn)
        else:
            self._devices_connected.discard(thing_arn)

    async def _forget_messages(self) -> None:
        """Nothing that was said in a group outlives its reset."""
        self.spool.clear()
        self.broker.retained.clear()

    def _device_certificates(self) -> list[Path]:
        layout = self._config.layout
        return [layout.certificate(device.certificate_id) for device in self.applier.current.devices]

    # --- control verbs ------------------------------------------------------------------------------------

    def _function_verbs(self) -> dict[str, Verb]:
        verbs = FunctionVerbs(self.functions, self.spool)
        return {"functions": verbs.functions, "invoke": verbs.invoke, "spool": verbs.spool}

    async def _activate(self, request: Mapping[str, Any]) -> dict[str, Any]:
        name = request.get("staging")
        if not isinstance(name, str) or not name or "/" in name or name.startswith("."):
            raise ConfigError("activate needs the name of a staged group.", [Problem("staging", repr(name), "a name")])
        group = await self.agent.activate(self._config.layout.staging / name)
        return {"group": group.arn, "name": group.name}

    async def _status(self, request: Mapping[str, Any]) -> dict[str, Any]:
        group = self.applier.current
        return {
            "version": __version__,
            "uptime_s": round(self._clock.monotonic() - self._started_at, 3),
            "daemon_pid": os.getpid(),
            "deployment": self._deployment(),
            "group": {"name": group.name, "arn": group.arn, "subscriptions": len(group.subscriptions)},
            "devices": [
                {
                    "arn": device.thing_arn,
                    "name": ThingArn.parse(device.thing_arn).name,
                    "connected": device.thing_arn in self._devices_connected,
                }
                for device in group.devices
            ],
            "functions": [row.as_dict() for row in await self.functions.status()],
            "broker": self._broker_figures(),
            "spool": {"messages": len(self.spool), "bytes": self.spool.bytes_held, "bytes_max": self.spool.bytes_max},
            "counters": self.counters.snapshot(),
        }

    def _deployment(self) -> dict[str, Any]:
        """What the deployment agent is at; `cloud` says whether the control plane can be reached."""
        record = self.agent.record
        current, report = record.current, record.report
        return {
            "cloud": "none" if self.cloud.controlplane is None else "online" if self.cloud.online else "offline",
            "state": str(record.state),
            "id": current.id if current is not None else record.last,
            "to_report": report.status if report is not None else "",
        }

    def _broker_figures(self) -> dict[str, int]:
        clients = self.broker.clients()
        return {
            "connections": self.broker.connection_count,
            "sessions": len(clients),
            "received": self.counters.get("broker.messages.received"),
            "delivered": self.counters.get("broker.messages.sent"),
        }


def _message_limits(config: Config) -> MessageLimits:
    found = config.message_limits
    return MessageLimits(found.payload_bytes, found.topic_bytes, found.topic_slashes)


def _broker_limits(config: Config) -> BrokerLimits:
    payload_bytes = config.message_limits.payload_bytes
    return BrokerLimits(packet_bytes_max=payload_bytes + limits.MQTT_HEADER_BYTES_MAX, payload_bytes_max=payload_bytes)
