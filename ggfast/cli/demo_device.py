"""One device of the demo as a process of its own: an ordinary MQTT client over mutual TLS, that discovers its core.

    thermometer   publishes coldroom/temperature, alternately with QoS 0 and 1
    door          publishes coldroom/door (open, closed), subscribes to coldroom/alarm
    display       subscribes to coldroom/#, more than the table lets through

It runs until its standard input ends, so it never outlives who started it, and reports on its standard output,
one JSON object a line: `{"ready": true}` once, then increments
`{"connected", "sent": {topic: count}, "received": [{"topic", "count", "last", "latencies_us"}]}`, or `{"error"}`.
A message's `sentAt` is CLOCK_MONOTONIC in nanoseconds, one clock for all processes of this machine.
"""

from __future__ import annotations

import argparse
import http.client
import json
import math
import select
import signal
import ssl
import sys
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from ggfast.limits import DEMO_DEVICE_TIMEOUT_S, DEMO_LAST_VALUE_CHARACTERS, DEMO_LATENCIES_MAX, DEMO_REPORT_S

if TYPE_CHECKING:
    from paho.mqtt.client import Client, MQTTMessage

READINGS_PER_S = 20.0
WAVE_S = 3.0  # the room warms and cools once in this time, so that every short demo sees an alarm
DOOR_EVENTS_PER_S = 2.0


@dataclass
class Received:
    """What came on one topic since the last report."""

    count: int = 0
    last: str = ""
    latencies_us: list[int] = field(default_factory=list)


class Tally:
    """What a device sent and received since the last report. Filled by the network thread, taken by another."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._sent: dict[str, int] = {}
        self._received: dict[str, Received] = {}

    def sent(self, topic: str) -> None:
        """Count one message handed to the client."""
        with self._lock:
            self._sent[topic] = self._sent.get(topic, 0) + 1

    def received(self, topic: str, payload: bytes, now_ns: int) -> None:
        """Count one message; one with a time stamp gives a latency too."""
        with self._lock:
            entry = self._received.setdefault(topic, Received())
            entry.count += 1
            entry.last = payload.decode("utf-8", "replace")[:DEMO_LAST_VALUE_CHARACTERS]
            sent_ns = stamp_of(payload)
            if sent_ns is not None and len(entry.latencies_us) < DEMO_LATENCIES_MAX:
                entry.latencies_us.append(max(0, now_ns - sent_ns) // 1_000)

    def take(self) -> dict[str, Any]:
        """The increments since the last call, as a report's members."""
        with self._lock:
            sent, received = self._sent, self._received
            self._sent, self._received = {}, {}
        entries = [{"topic": topic, **vars(entry)} for topic, entry in received.items()]
        return {"sent": sent, "received": entries}


def stamp_of(payload: bytes) -> int | None:
    """`sentAt` of a message, None if it has none."""
    try:
        stamp = json.loads(payload)["sentAt"]
    except (ValueError, TypeError, KeyError):
        return None
    return stamp if type(stamp) is int else None


def celsius(elapsed_s: float) -> float:
    """The room's temperature: a wave between 2 and 9 degrees around the example's limit of 6."""
    return round(5.5 - 3.5 * math.cos(2 * math.pi * elapsed_s / WAVE_S), 2)


class Device:
    """The client, its role, and its reports."""

    def __init__(self, role: str, thing: str, context: ssl.SSLContext) -> None:
        import paho.mqtt.client as paho
        from paho.mqtt.enums import CallbackAPIVersion

        self._role = role
        self._tally = Tally()
        self._ready = threading.Event()
        self._refused = ""
        self._client: Client = paho.Client(CallbackAPIVersion.VERSION2, client_id=thing)
        self._client.tls_set_context(context)
        self._client.on_connect = self._on_connect
        self._client.on_subscribe = lambda *_: self._ready.set()
        self._client.on_disconnect = self._on_disconnect
        self._client.on_message = self._on_message
        self._client.reconnect_delay_set(min_delay=1, max_delay=2)

    def run(self, host: str, port: int) -> None:
        """Connect, then publish and report until standard input ends. Raises OSError or RuntimeError if the core
        is not there or refuses."""
        self._client.connect(host, port, keepalive=30)
        self._client.loop_start()
        try:
            if not self._ready.wait(DEMO_DEVICE_TIMEOUT_S) or self._refused:
                raise RuntimeError(self._refused or "no CONNACK or SUBACK in time")
            say({"ready": True})
            self._play()
        finally:
            self._client.disconnect()
            self._client.loop_stop()
        self._report()

    def _on_connect(self, client: Client, _data: object, _flags: object, reason: Any, _properties: object) -> None:
        if reason.is_failure:
            self._refused = f"the core refused the connection: {reason}"
            self._ready.set()
        elif topic := {"display": "coldroom/#", "door": "coldroom/alarm"}.get(self._role):
            client.subscribe(topic, qos=1)
        else:
            self._ready.set()

    def _on_disconnect(self, _client: Client, _data: object, _flags: object, reason: Any, _properties: object) -> None:
        """Before the device is ready this is a refusal (TLS 1.3 tells of an unknown certificate only now); later
        the client connects again by itself."""
        if not self._ready.is_set():
            self._refused = f"the core closed the connection before accepting it: {reason}"
            self._ready.set()

    def _on_message(self, _client: Client, _data: object, message: MQTTMessage) -> None:
        self._tally.received(message.topic, bytes(message.payload), time.monotonic_ns())

    def _play(self) -> None:
        """Publish at the role's rate and report, by deadlines, so that neither drifts."""
        rate = {"thermometer": READINGS_PER_S, "door": DOOR_EVENTS_PER_S}.get(self._role, 0.0)
        start = time.monotonic()
        next_send = start if rate else math.inf
        next_report = start + DEMO_REPORT_S
        number = 0
        while True:
            now = time.monotonic()
            if now >= next_send:
                self._publish(number, now - start)
                number += 1
                next_send = max(next_send + 1 / rate, now)
            if now >= next_report:
                self._report()
                next_report = max(next_report + DEMO_REPORT_S, now)
            wait = max(0.0, min(next_send, next_report) - time.monotonic())
            if select.select([sys.stdin], [], [], wait)[0]:
                return

    def _publish(self, number: int, elapsed_s: float) -> None:
        topic = "coldroom/temperature" if self._role == "thermometer" else "coldroom/door"
        message: dict[str, object] = (
            {"celsius": celsius(elapsed_s)}
            if self._role == "thermometer"
            else {"state": "closed" if number % 2 else "open"}
        )
        message["sentAt"] = time.monotonic_ns()
        qos = number % 2 if self._role == "thermometer" else 1
        self._client.publish(topic, json.dumps(message), qos)
        self._tally.sent(topic)

    def _report(self) -> None:
        say({"connected": self._client.is_connected(), **self._tally.take()})


@dataclass(frozen=True, slots=True)
class Core:
    """Where discovery says that the device's core is, and whom it shall trust there (PEM)."""

    host: str
    port: int
    authorities: tuple[str, ...]


def discover(thing: str, port: int, context: ssl.SSLContext) -> Core:
    """Ask the control plane until it knows where the core is (greengrass-core 11). Raises OSError, RuntimeError."""
    until = time.monotonic() + DEMO_DEVICE_TIMEOUT_S
    while True:
        connection = http.client.HTTPSConnection("localhost", port, context=context, timeout=DEMO_DEVICE_TIMEOUT_S)
        try:
            connection.request("GET", f"/greengrass/discover/thing/{thing}")
            answer = connection.getresponse()
            body = answer.read()
        finally:
            connection.close()
        if answer.status == 200:
            group = json.loads(body)["GGGroups"][0]
            if places := group["Cores"][0]["Connectivity"]:
                return Core(places[0]["HostAddress"], int(places[0]["PortNumber"]), tuple(group["CAs"]))
        if time.monotonic() > until:
            raise RuntimeError(f"discovery gives no core: {answer.status} {body[:200]!r}")
        time.sleep(0.2)


def say(report: dict[str, object]) -> None:
    """One report line."""
    print(json.dumps(report), flush=True)


def main(argv: Sequence[str] | None = None) -> int:
    """Be one device. Exit status 1, with a last `{"error"}` report, if the core is not there or refuses."""
    parser = argparse.ArgumentParser(description="One device of the demo.")
    parser.add_argument("role", choices=("thermometer", "display", "door"))
    for option in ("--thing", "--cloud-ca", "--certificate", "--key"):
        parser.add_argument(option, required=True)
    parser.add_argument("--discovery-port", type=int, required=True, help="of the control plane, on this machine")
    args = parser.parse_args(argv)
    # Ctrl-C reaches the whole terminal; whoever started us ends us by closing our input.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        # Host names are checked both times: nothing is switched off.
        cloud = ssl.create_default_context(cafile=args.cloud_ca)
        cloud.load_cert_chain(args.certificate, args.key)
        core = discover(args.thing, args.discovery_port, cloud)
        context = ssl.create_default_context(cadata="\n".join(core.authorities))
        context.load_cert_chain(args.certificate, args.key)
        Device(args.role, args.thing, context).run(core.host, core.port)
    except BrokenPipeError:
        return 1  # nobody listens to our reports any more
    except (OSError, RuntimeError) as error:
        say({"error": f"{type(error).__name__}: {error}"})
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
