"""The demo's devices as processes, against Eclipse Mosquitto with mutual TLS, which they discover first."""

from __future__ import annotations

import http.server
import json
import select
import signal
import socket
import ssl
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from ggfast.cli import cert
from ggfast.cli.demo_device import Tally, celsius, stamp_of

DEVICES = ("thermometer", "display", "door")


class Discovery:
    """A control plane that knows one thing: where `answer` says that the core is."""

    def __init__(self, folder: Path) -> None:
        cert.make_ca(folder, name="cloud", days=1)
        cert.make_server(folder, folder, hosts=["localhost"], days=7)
        self.ca = folder / "ca.crt"
        self.answer: dict[str, Any] = {}
        self.asked: list[str] = []
        outer = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                outer.asked.append(self.path)
                body = json.dumps(outer.answer).encode()
                self.send_response(200)
                self.send_header("content-length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_: object) -> None:
                """Nothing."""

        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(folder / "server.crt", folder / "server.key")
        self._server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.socket = context.wrap_socket(self._server.socket, server_side=True)
        self.port = self._server.server_port
        self._thread = threading.Thread(target=self._server.serve_forever)
        self._thread.start()

    def says(self, host: str, port: int, ca: Path) -> None:
        """Give this core to whoever asks."""
        place = {"Id": "a", "HostAddress": host, "PortNumber": port, "Metadata": ""}
        core = {"thingArn": "arn", "Connectivity": [place]}
        self.answer = {"GGGroups": [{"GGGroupId": "g", "Cores": [core], "CAs": [ca.read_text()]}]}

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join(10)


class Broker:
    """A mosquitto that knows the devices' certificates and nobody else's."""

    def __init__(self, folder: Path, port: int) -> None:
        self.folder = folder
        self.port = port
        self.discovery = Discovery(folder / "cloud")
        cert.make_ca(folder, name="demo test", days=1)
        cert.make_server(folder, folder, hosts=["127.0.0.1"], days=7)
        for name in DEVICES:
            cert.make_device(folder, name=name, ca=None)
        trusted = b"".join((folder / f"{name}.crt").read_bytes() for name in DEVICES)
        (folder / "trusted.pem").write_bytes(trusted)
        lines = (
            f"listener {port} 127.0.0.1",
            f"cafile {folder}/trusted.pem",
            f"certfile {folder}/server.crt",
            f"keyfile {folder}/server.key",
            "require_certificate true",
            "use_identity_as_username true",
            "allow_anonymous true",
            "user root",
        )
        (folder / "mosquitto.conf").write_text("\n".join(lines) + "\n")
        log = (folder / "mosquitto.log").open("wb")
        with log:
            self.process = subprocess.Popen(["mosquitto", "-c", str(folder / "mosquitto.conf")], stdout=log, stderr=log)
        until = time.monotonic() + 10
        while time.monotonic() < until:
            try:
                socket.create_connection(("127.0.0.1", port), timeout=1).close()
                return
            except OSError:
                time.sleep(0.05)
        raise AssertionError((folder / "mosquitto.log").read_text())

    def stop(self) -> None:
        self.process.terminate()
        self.process.wait(10)

    def close(self) -> None:
        self.stop()
        self.discovery.close()


@pytest.fixture
def broker(tmp_path: Path, free_port: Callable[[], int]) -> Iterator[Broker]:
    running = Broker(tmp_path, free_port())
    yield running
    running.close()


class Device:
    """A device process and its reports."""

    def __init__(self, role: str, broker: Broker, *, host: str = "127.0.0.1", ca: Path | None = None) -> None:
        folder = broker.folder
        discovery = broker.discovery
        discovery.says(host, broker.port, ca or folder / "ca.crt")
        options = ["--thing", role, "--discovery-port", str(discovery.port), "--cloud-ca", str(discovery.ca)]
        options += ["--certificate", str(folder / f"{role}.crt"), "--key", str(folder / f"{role}.key")]
        self.process = subprocess.Popen(
            [sys.executable, "-m", "ggfast.cli.demo_device", role, *options],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )

    def report(self, timeout_s: float = 15.0) -> dict[str, Any] | None:
        assert self.process.stdout is not None
        assert select.select([self.process.stdout], [], [], timeout_s)[0], "no report in time"
        line = self.process.stdout.readline()
        report: dict[str, Any] | None = json.loads(line) if line else None
        return report

    def until(self, seen: Callable[[dict[str, Any]], bool], timeout_s: float = 15.0) -> dict[str, Any]:
        end = time.monotonic() + timeout_s
        while time.monotonic() < end:
            report = self.report()
            assert report is not None, "the device ended"
            if seen(report):
                return report
        raise AssertionError("not seen in time")

    def end(self) -> int:
        """Close its input; it must end by itself."""
        assert self.process.stdin is not None and self.process.stdout is not None
        self.process.stdin.close()
        self.process.stdout.read()
        self.process.stdout.close()
        return self.process.wait(15)

    def __enter__(self) -> Device:
        return self

    def __exit__(self, *_error: object) -> None:
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait()
        for stream in (self.process.stdin, self.process.stdout):
            if stream is not None and not stream.closed:
                stream.close()


def has_topic(topic: str) -> Callable[[dict[str, Any]], bool]:
    return lambda report: any(entry["topic"] == topic for entry in report.get("received", ()))


def test_devices_talk_and_report_with_latencies(broker: Broker) -> None:
    with Device("display", broker) as display, Device("thermometer", broker) as thermometer:
        assert display.report() == {"ready": True}
        assert "/greengrass/discover/thing/display" in broker.discovery.asked
        assert thermometer.report() == {"ready": True}
        report = display.until(has_topic("coldroom/temperature"))
        (entry,) = report["received"]
        assert entry["count"] == len(entry["latencies_us"]) > 0
        assert all(0 <= latency < 5_000_000 for latency in entry["latencies_us"])
        assert 2.0 <= json.loads(entry["last"])["celsius"] <= 9.0
        sent = thermometer.until(lambda report: bool(report.get("sent")))
        assert set(sent["sent"]) == {"coldroom/temperature"} and sent["connected"]
        assert thermometer.end() == 0
        assert display.end() == 0


def test_door_publishes_events_and_hears_alarms(broker: Broker) -> None:
    with Device("display", broker) as display, Device("door", broker) as door:
        assert door.report() == {"ready": True}
        display.until(has_topic("coldroom/door"))
        command = [
            "mosquitto_pub",
            "-h",
            "127.0.0.1",
            "-p",
            str(broker.port),
            "--cafile",
            str(broker.folder / "ca.crt"),
        ]
        command += ["--cert", str(broker.folder / "thermometer.crt"), "--key", str(broker.folder / "thermometer.key")]
        payload = json.dumps({"state": "on", "number": 1, "sentAt": time.monotonic_ns()})
        subprocess.run([*command, "-t", "coldroom/alarm", "-m", payload], check=True, timeout=20)
        (entry,) = door.until(has_topic("coldroom/alarm"))["received"]
        assert json.loads(entry["last"])["number"] == 1


def test_device_outlives_ctrl_c_but_not_its_starter(broker: Broker) -> None:
    with Device("display", broker) as display:
        assert display.report() == {"ready": True}
        display.process.send_signal(signal.SIGINT)
        display.until(lambda report: report.get("connected") is True)
        assert display.end() == 0


def test_wrong_host_name_is_refused_by_the_device(broker: Broker) -> None:
    with Device("display", broker, host="localhost") as display:  # the certificate names 127.0.0.1 alone
        report = display.report()
        assert report is not None and "certificate verify failed" in report["error"]
        assert display.end() == 1


def test_foreign_group_ca_is_refused_by_the_device(broker: Broker, tmp_path: Path) -> None:
    cert.make_ca(tmp_path / "stranger", name="demo test", days=1)
    with Device("display", broker, ca=tmp_path / "stranger" / "ca.crt") as display:
        report = display.report()
        assert report is not None and "certificate verify failed" in report["error"]


def test_unregistered_certificate_is_refused_by_the_broker(broker: Broker) -> None:
    cert.make_device(broker.folder, name="display", ca=None, force=True)
    with Device("display", broker) as display:
        report = display.report()
        assert report is not None and "closed the connection before accepting" in report["error"]


def test_nobody_there_is_an_error_report(broker: Broker) -> None:
    broker.stop()
    with Device("display", broker) as display:
        report = display.report()
        assert report is not None and "refused" in report["error"].lower()
        assert display.end() == 1


def test_certificates_of_the_fixture_are_checked_for_real(broker: Broker) -> None:
    context = ssl.create_default_context(cafile=str(broker.folder / "ca.crt"))
    with (
        socket.create_connection(("127.0.0.1", broker.port), timeout=5) as raw,
        pytest.raises(OSError),
        context.wrap_socket(raw, server_hostname="127.0.0.1") as tls,
    ):
        tls.recv(1)  # without a client certificate the alert comes with the first read


def test_tally_gives_increments_once() -> None:
    tally = Tally()
    tally.sent("a")
    tally.received("b", b'{"sentAt": 1000}', 5_000)
    tally.received("b", b"no json", 6_000)
    entry = {"topic": "b", "count": 2, "last": "no json", "latencies_us": [4]}
    assert tally.take() == {"sent": {"a": 1}, "received": [entry]}
    assert tally.take() == {"sent": {}, "received": []}


@pytest.mark.parametrize("payload", [b"", b"\xff", b"[]", b"{}", b'{"sentAt": "x"}', b'{"sentAt": true}', b"1"])
def test_payloads_without_a_stamp(payload: bytes) -> None:
    assert stamp_of(payload) is None


def test_temperature_crosses_the_limit_in_every_wave() -> None:
    values = [celsius(step / 20) for step in range(60)]
    assert min(values) < 3 and max(values) > 8
