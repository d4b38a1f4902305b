"""Devices made with the published AWSIoTPythonSDK, each a process of its own."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

from tests.e2e.cloud_device import Device as CloudDevice
from tests.patience import patience

PROGRAM = Path(__file__).with_name("sdk_device_program.py")
END_S = patience(20.0)


@dataclass(frozen=True)
class Traffic:
    """What a device has sent (numbers from 0, by topic) and heard, and how often it lost its connection."""

    sent: dict[str, int]
    acknowledged: int
    heard: dict[str, list[str]]
    offline: int


class SdkDevice:
    """A device that discovers and connects when it is entered."""

    def __init__(self, device: CloudDevice, sdks: Path, *subscriptions: str) -> None:
        self.device = device
        cloud = device.cloud
        settings = {
            "thing": device.thing,
            "host": cloud.iot_host,
            "port": cloud.https_port,
            "ca": str(cloud.ca_path),
            "certificate": str(device.certificate),
            "key": str(device.key),
            "subscriptions": subscriptions,
        }
        self._process = subprocess.Popen(
            [sys.executable, str(PROGRAM), json.dumps(settings)],
            env={"PYTHONPATH": str(sdks), "PATH": "/usr/bin:/bin"},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def _answer(self) -> dict[str, Any]:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()  # ends with the process at the latest
        assert line, f"the device {self.device.thing} has ended"
        found: dict[str, Any] = json.loads(line)
        return found

    def _tell(self, **words: Any) -> None:
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps(words) + "\n")
        self._process.stdin.flush()

    def publish(self, *topics: str, per_s: float) -> None:
        """Begin to publish numbers with QoS 1, in turn to each topic."""
        self._tell(do="publish", topics=topics, every_s=1 / per_s)
        assert self._answer()["publishing"]

    def stop(self, heard: int | None = None) -> None:
        """Publish no more; `traffic` then waits for that many messages, or for as many as were sent."""
        self._tell(do="stop", heard=heard)

    def traffic(self) -> Traffic:
        """What came of it, once everything is acknowledged and answered or the device has waited long enough."""
        return Traffic(**self._answer())

    def __enter__(self) -> Self:
        try:
            self.address = self._answer()["connected"]
        except BaseException:
            self._close()
            raise
        return self

    def __exit__(self, *_error: object) -> None:
        self._close()

    def _close(self) -> None:
        try:
            self._process.communicate(timeout=END_S)  # the end of its commands is the end of it
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.communicate()
