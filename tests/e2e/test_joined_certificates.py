"""Server certificates of a core that belongs to a control plane, with a life of seconds (rows 47-50, 60; P3, P4).

GGFAST_TEST_CERTIFICATE_S is the life; `make certificate-renewals` takes a minute, the test suite a few seconds.
"""

from __future__ import annotations

import contextlib
import json
import os
import socket
import ssl
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.e2e.cloud_process import ACCOUNT, REGION, CloudProcess, run_cloud
from tests.e2e.harness import Device, eventually, thing_arn
from tests.e2e.joined_core import JoinedCore, a_joined_core
from tests.patience import patience

pytestmark = [pytest.mark.root, pytest.mark.slow]

LIFE_S = float(os.environ.get("GGFAST_TEST_CERTIFICATE_S", "8"))
DEVICES = 20
RATE = 10.0  # messages a second of each device
RENEWALS = 3


@pytest.fixture
def cloud(tmp_path: Path) -> Iterator[CloudProcess]:
    folder = tmp_path / "cloud"
    options = ["--account", ACCOUNT, "--region", REGION, "--host", "localhost", "--json"]
    made = json.loads(run_cloud("init", folder, *options).stdout)
    settings = json.loads((folder / "cloud.json").read_text())
    (folder / "cloud.json").write_text(json.dumps(settings | {"serverCertificateSeconds": int(LIFE_S)}))
    with CloudProcess(folder, made=made) as running:
        yield running


@contextlib.contextmanager
def joined(cloud: CloudProcess, devices: int) -> Iterator[JoinedCore]:
    """A core with that many devices, and one that comes late."""
    with a_joined_core(cloud) as core:
        core.reconfigure(lambda config: config["coreThing"].update(mqttMaxConnectionRetryInterval=1))
        for number in range(devices):
            core.group.device(f"d{number}")
            core.group.subscribe(thing_arn(f"d{number}"), f"up/d{number}", thing_arn("d0"))
        core.group.device("late")
        core.start()
        core.group.deploy()
        core.discover(core.group.things["d0"])
        yield core


class Fleet:
    """Devices that publish all the time; d0 hears them."""

    def __init__(self, core: JoinedCore) -> None:
        self._stack = contextlib.ExitStack()
        count = len(core.group.subscriptions)
        self.devices = [self._stack.enter_context(Device(core, f"d{number}")) for number in range(count)]
        self.devices[0].subscribe("up/#", 1)
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._publish)
        self.sent = 0

    def _publish(self) -> None:
        while not self._over.wait(1 / RATE):
            for device in self.devices:
                device.publish(f"up/{device.name}", str(self.sent), qos=0)
                self.sent += 1

    def __enter__(self) -> Fleet:
        self._thread.start()
        return self

    def __exit__(self, *_error: object) -> None:
        self._over.set()
        self._thread.join()
        self._stack.close()

    def check(self) -> None:
        """Nobody was disconnected, and messages go on."""
        assert not any(device.disconnects for device in self.devices)
        while not self.devices[0].received.empty():
            self.devices[0].received.get_nowait()
        self.devices[0].expect()


def served(core: JoinedCore) -> bytes:
    """The certificate that a new handshake is shown, DER form. Raises ssl.SSLError when it cannot be believed."""
    context = ssl.create_default_context(cafile=str(core.group_ca))
    with (
        socket.create_connection(("127.0.0.1", core.port), 10) as sock,
        context.wrap_socket(sock, server_hostname="127.0.0.1") as tls,
    ):
        found = tls.getpeercert(binary_form=True)
    assert found is not None
    return found


def renewals(core: JoinedCore, count: int) -> None:
    """Wait until new handshakes have been shown that many further certificates."""
    last = served(core)
    for _ in range(count):

        def another(before: bytes = last) -> bytes | None:
            found = served(core)
            return found if found != before else None

        last = eventually(another, "another server certificate", LIFE_S + patience(20))


def test_P3_P4_renewals_online_and_offline_disconnect_nobody(cloud: CloudProcess) -> None:
    with joined(cloud, DEVICES) as core, Fleet(core) as fleet:
        renewals(core, RENEWALS)
        fleet.check()
        chain = (core.root / "ggc" / "var" / "state" / "server" / "server.crt").read_text()
        assert chain.count("BEGIN CERTIFICATE") == 1  # the group CA's own signature
        cloud.kill()
        renewals(core, RENEWALS)
        fleet.check()
        chain = (core.root / "ggc" / "var" / "state" / "server" / "server.crt").read_text()
        assert chain.count("BEGIN CERTIFICATE") == 2  # by the delegated CA
        with Device(core, "late") as late:  # somebody who comes only now
            late.publish("x", b"1", qos=1)
        cloud.start()


def test_row_49_without_control_plane_and_delegation_only_new_devices_fail(cloud: CloudProcess) -> None:
    with joined(cloud, 3) as core, Fleet(core) as fleet:
        run_cloud("delegation", core.group.group_id, "--dir", cloud.folder, "--forbid")
        cloud.restart()  # the command is another process: a core hears of it at its next poll
        state = core.root / "ggc" / "var" / "state" / "server"
        eventually(lambda: not list(state.glob("delegat*")), "the delegated CA is gone", patience(30))
        served(core)
        cloud.kill()

        def refused() -> bool:
            try:
                served(core)
            except ssl.SSLCertVerificationError as error:
                return "expired" in str(error)
            return False

        eventually(refused, "the certificate has ended", LIFE_S + patience(20))
        time.sleep(1.0)
        fleet.check()
        assert is_refused(core, "late")
        fleet.check()
        cloud.start()
        eventually(lambda: not refused_by(core), "a new one has come", LIFE_S + patience(60))
        fleet.check()
        with Device(core, "late"):
            pass


def refused_by(core: JoinedCore) -> bool:
    try:
        served(core)
    except (ssl.SSLError, OSError):
        return True
    return False


def test_row_50_and_53_trust_changes_without_a_deployment(cloud: CloudProcess) -> None:
    """A new group CA reaches devices and core, a revoked device is cut off at once, a removed one at its deployment."""
    with joined(cloud, 4) as core:
        check_rotation(core)
        check_revocation(core, cloud)


def check_rotation(core: JoinedCore) -> None:
    with Device(core, "d1") as staying:
        core.group.api.create_group_certificate_authority(GroupId=core.group.group_id)
        before = core.group_ca.read_text()
        core.discover(core.group.things["d2"])
        both = core.group_ca.read_text()
        assert before in both and both.count("BEGIN CERTIFICATE") == 2
        newest = both.removesuffix(before)
        core.group_ca.write_text(newest)
        eventually(lambda: not refused_by(core), "the core's certificate is of the new CA", patience(30))
        assert staying.disconnects == 0
        core.group_ca.write_text(both)


def check_revocation(core: JoinedCore, cloud: CloudProcess) -> None:
    iot = cloud.client("iot")
    with Device(core, "d1") as revoked, Device(core, "d2") as removed, Device(core, "d3") as staying:
        identifier = core.group.things["d1"].certificate_id
        iot.update_certificate(certificateId=identifier, newStatus="INACTIVE")
        eventually(lambda: revoked.disconnects, "the revoked device is disconnected", patience(5))
        assert is_refused(core, "d1")
        iot.update_certificate(certificateId=identifier, newStatus="ACTIVE")
        eventually(lambda: not is_refused(core, "d1"), "it may come again", patience(10))
        core.group.devices.pop("d2")
        core.group.subscriptions = [entry for entry in core.group.subscriptions if "d2" not in entry["Subject"]]
        core.group.deploy()
        eventually(lambda: removed.disconnects, "the removed device is disconnected", patience(5))
        assert is_refused(core, "d2")
        assert staying.disconnects == 0


def is_refused(core: JoinedCore, name: str) -> bool:
    with contextlib.closing(Device(core, name)) as device:
        return device.is_refused()
