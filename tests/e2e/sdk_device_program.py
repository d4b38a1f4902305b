"""A device made with the published AWSIoTPythonSDK: discovers its core, connects, publishes with QoS 1, counts.

Started by `sdk_device.SdkDevice` with its settings as JSON; hears one command a line, answers one JSON object a line.
Uses only the standard library and the SDK, as a user's device does.
"""

from __future__ import annotations

import contextlib
import json
import sys
import threading
import time
from collections import Counter
from pathlib import Path
from typing import Any

from AWSIoTPythonSDK.core.greengrass.discovery.providers import DiscoveryInfoProvider
from AWSIoTPythonSDK.MQTTLib import AWSIoTMQTTClient

SETTLE_S = 30.0  # for what has been sent to come back


def say(**words: Any) -> None:
    """One line to whoever has started this."""
    print(json.dumps(words), flush=True)


class Program:
    """The device. What it hears is kept in order, by topic."""

    def __init__(self, settings: dict[str, Any]) -> None:
        self.settings = settings
        self.client = AWSIoTMQTTClient(settings["thing"])
        self.heard: dict[str, list[str]] = {}
        self.sent: Counter[str] = Counter()
        self.acknowledged = 0
        self.offline = 0
        self.publishing = threading.Event()
        self.stopping = threading.Event()

    def connect(self) -> None:
        """Discover, then the first address that lets us in; subscribe."""
        given = self.settings
        provider = DiscoveryInfoProvider(
            given["ca"], given["certificate"], given["key"], given["host"], given["port"], 20
        )
        found = provider.discover(given["thing"])
        cas = Path(given["certificate"]).with_suffix(".group-ca")
        cas.write_text("".join(ca for _, ca in found.getAllCas()))
        self.client.configureCredentials(str(cas), given["key"], given["certificate"])
        self.client.onOffline = self._went_offline
        for address in found.getAllCores()[0].connectivityInfoList:
            self.client.configureEndpoint(address.host, address.port)
            with contextlib.suppress(OSError):
                self.client.connect(60)
                break
        else:
            raise SystemExit("no address of the core lets us in")
        for topic in given["subscriptions"]:
            self.client.subscribe(topic, 1, self._message)
        say(connected=[address.host, address.port])

    def _message(self, _client: Any, _data: Any, message: Any) -> None:
        self.heard.setdefault(message.topic, []).append(message.payload.decode())

    def _went_offline(self) -> None:
        self.offline += 1

    def _acknowledge(self, mid: int) -> None:
        self.acknowledged += 1

    def publish(self, topics: list[str], every_s: float) -> None:
        """Numbers from 0, in turn to each topic, until told to stop."""
        at = time.monotonic()
        number = 0
        while not self.stopping.is_set():
            topic = topics[number % len(topics)]
            self.client.publishAsync(topic, str(self.sent[topic]), 1, self._acknowledge)
            self.sent[topic] += 1
            number += 1
            at += every_s
            time.sleep(max(0.0, at - time.monotonic()))

    def settle(self, heard: int | None) -> None:
        """Wait until every message is acknowledged and that many (None: as many as were sent) have been heard, or it
        is clear that they never will be."""
        wanted = self.sent.total() if heard is None else heard
        until = time.monotonic() + SETTLE_S
        while time.monotonic() < until:
            if self.acknowledged >= self.sent.total() and sum(map(len, self.heard.values())) >= wanted:
                return
            time.sleep(0.02)

    def obey(self) -> None:
        """Commands until there are no more."""
        thread: threading.Thread | None = None
        for line in sys.stdin:
            command = json.loads(line)
            if command["do"] == "publish":
                self.stopping.clear()
                thread = threading.Thread(target=self.publish, args=(command["topics"], command["every_s"]))
                thread.start()
                say(publishing=True)
            elif command["do"] == "stop":
                self.stopping.set()
                if thread is not None:
                    thread.join()
                self.settle(command["heard"])
                say(sent=self.sent, acknowledged=self.acknowledged, heard=self.heard, offline=self.offline)
                self.sent, self.heard, self.acknowledged = Counter(), {}, 0
        self.client.disconnect()


if __name__ == "__main__":
    program = Program(json.loads(sys.argv[1]))
    program.connect()
    program.obey()
