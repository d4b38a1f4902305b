"""From boto3 to a running core and back: deployments that change a little, that fail, that are taken back.

Only real processes: a control plane, a core it has provisioned, devices that discover before they connect.
"""

from __future__ import annotations

import io
import itertools
import os
import re
import secrets
import signal
import subprocess
import time
import zipfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import pytest

from ggfast.core.deploy.machine import State
from ggfast.core.deploy.record import Records
from tests.e2e.cloud_process import CloudProcess
from tests.e2e.cloud_tools import fetched
from tests.e2e.harness import Device, alive, children, eventually, thing_arn
from tests.e2e.joined_core import JoinedCore, a_joined_core
from tests.e2e.sdk_device import SdkDevice, Traffic
from tests.patience import patience

pytestmark = [pytest.mark.root, pytest.mark.slow]

NAMES = tuple(f"sensor-{number}" for number in range(5))
RATE = 200.0  # messages a second of each device
BEFORE_S, AFTER_S = 1.0, 1.0  # traffic around a deployment

# Answers each number on the topic it came by, with a word of its own behind it.
ANSWER = """
import json
import greengrasssdk
iot = greengrasssdk.client("iot-data")

def handler(event, context):
    topic = context.client_context.custom["subject"]
    iot.publish(topic=topic + "/back", payload="%d {word}" % event)
"""
MISSING = "/dev/ggfast-no-such-device"


def answering(word: str) -> str:
    return ANSWER.replace("{word}", word)


@pytest.fixture(scope="module")
def cloud(tmp_path_factory: pytest.TempPathFactory) -> Iterator[CloudProcess]:
    with CloudProcess(tmp_path_factory.mktemp("joined") / "cloud") as running:
        yield running


@pytest.fixture(scope="module")
def sdks() -> Path:
    return fetched("device-sdks")


@pytest.fixture(scope="module")
def core(cloud: CloudProcess) -> Iterator[JoinedCore]:
    """Five devices, two functions that answer them, and one device that tells another."""
    with a_joined_core(cloud) as core:
        group = core.group
        steady = group.function("steady", answering("steady"), Pinned=True)
        turning = group.function("turning", answering("one"), Pinned=True)
        for name in NAMES:
            group.device(name)
            for function, arn in (("steady", steady), ("turning", turning)):
                group.subscribe(thing_arn(name), f"{function}/{name}", arn)
                group.subscribe(arn, f"{function}/{name}/back", thing_arn(name))
        group.subscribe(thing_arn(NAMES[0]), "note", thing_arn(NAMES[1]))
        core.start()
        yield core


# --- the way of a fleet: deploy, discover, change, fail ---------------------------------------------------------


class Fleet:
    """The five devices, publishing; what they have found out when they stop."""

    def __init__(self, core: JoinedCore, sdks: Path) -> None:
        self._core = core
        self._stack = ExitStack()
        topics = ("steady/+/back", "turning/+/back", "note", "notice")
        self.devices = {
            name: self._stack.enter_context(SdkDevice(core.group.things[name], sdks, *topics)) for name in NAMES
        }

    def __enter__(self) -> Fleet:
        return self

    def __exit__(self, *error: Any) -> None:
        self._stack.__exit__(*error)

    def begin(self, per_s: float = RATE) -> None:
        """All of them publish, half of it to each function."""
        for name, device in self.devices.items():
            device.publish(f"steady/{name}", f"turning/{name}", per_s=per_s)

    def end(self) -> dict[str, Traffic]:
        """They stop; what each sent and heard."""
        for device in self.devices.values():
            device.stop()
        return {name: device.traffic() for name, device in self.devices.items()}


def check_whole(traffic: dict[str, Traffic], words: tuple[str, ...]) -> int:
    """Every message was acknowledged, and answered once and in order by both functions, over one connection; what
    answered for the changing one is `words` one after the other. How many messages there were."""
    for name, seen in traffic.items():
        assert seen.offline == 0, f"{name} was disconnected"
        assert seen.acknowledged == sum(seen.sent.values())
        for function, wanted in (("steady", ("steady",)), ("turning", words)):
            heard = [text.split() for text in seen.heard.get(f"{function}/{name}/back", [])]
            sent = seen.sent[f"{function}/{name}"]
            assert [int(number) for number, _ in heard] == list(range(sent)), lost(heard, sent, name, function)
            said = [word for _, word in heard]
            assert tuple(dict.fromkeys(said)) == wanted and said == sorted(said, key=wanted.index)
    return sum(seen.acknowledged for seen in traffic.values())


def lost(heard: list[list[str]], sent: int, name: str, function: str) -> str:
    numbers = [int(number) for number, _ in heard]
    missing = sorted(set(range(sent)) - set(numbers))
    twice = sorted({number for number in numbers if numbers.count(number) > 1})
    order = [(a, b) for a, b in itertools.pairwise(numbers) if b <= a][:10]
    return f"{function}/{name}: of {sent} missing {missing[:20]}, twice {twice[:20]}, out of order {order}"


def test_p4_the_life_of_a_fleet(core: JoinedCore, sdks: Path) -> None:
    group = core.group
    first = group.deploy()
    assert core.live()["id"] == first
    with Fleet(core, sdks) as fleet:
        fleet.begin(20.0)
        pids = eventually(lambda: running_pids(core), "both functions run")

        # The second deployment changes one function and one subscription, in the middle of everything.
        group.new_code("turning", answering("two"))
        group.subscriptions[-1]["Subject"] = "notice"
        check_whole(fleet.end(), ("one",))
        fleet.begin()
        time.sleep(BEFORE_S)
        second = group.deploy()
        time.sleep(AFTER_S)
        assert check_whole(fleet.end(), ("one", "two")) > 5 * RATE * (BEFORE_S + AFTER_S) * 0.5
        after = running_pids(core)
        assert after["steady"] == pids["steady"]
        assert after["turning"] != pids["turning"]
        check_notes(fleet)

        # The third one is broken, in three ways in turn: the second goes on, and nobody notices.
        fleet.begin(20.0)
        for fault, words in ((import_error, "no_such_module"), (missing_device, MISSING), (wrong_digest, "SHA-256")):
            message = fault(core)
            assert words in message, message
            assert core.live()["id"] == second
            assert running_pids(core) == after
        assert check_whole(fleet.end(), ("two",)) > 0


def running_pids(core: JoinedCore) -> dict[str, Any]:
    found = {name: row["pids"] for name, row in core.functions().items()}
    return found if len(found) == 2 and all(found.values()) else {}


def check_notes(fleet: Fleet) -> None:
    """The changed subscription holds as it is now, and no longer as it was."""
    teller, hearer = fleet.devices[NAMES[0]], fleet.devices[NAMES[1]]
    teller.publish("note", "notice", per_s=100.0)
    time.sleep(0.5)
    teller.stop(heard=0)
    sent = teller.traffic().sent
    hearer.stop(heard=sent["notice"])
    heard = hearer.traffic().heard
    assert heard == {"notice": [str(number) for number in range(sent["notice"])]}


def import_error(core: JoinedCore) -> str:
    """New code that cannot be imported."""
    group = core.group
    group.new_code("turning", "import no_such_module\n" + answering("three"))
    try:
        message = group.refused()
    finally:
        group.point("turning", "2")
    assert "failed to initialize" in message and "worker with arn:aws:lambda:" in message
    return message


def missing_device(core: JoinedCore) -> str:
    """A device node that is not on this machine."""
    group = core.group
    attach(core, "turning", "probe", {"LocalDeviceResourceData": {"SourcePath": MISSING}})
    try:
        message = group.refused()
    finally:
        detach(core, "turning")
    assert "group config is invalid" in message
    return message


def wrong_digest(core: JoinedCore) -> str:
    """The archive in the control plane's folder is not what was uploaded any more."""
    group = core.group
    group.new_code("turning", answering("four"))
    version = group.version()
    stored = newest_artifact(core)
    good = stored.read_bytes()
    stored.write_bytes(good[:-1] + bytes([good[-1] ^ 1]))
    try:
        message = group.refused(version)
    finally:
        stored.write_bytes(good)
        group.point("turning", "2")
    assert "unable to execute download step in deployment. error while downloading" in message
    return message


def newest_artifact(core: JoinedCore) -> Path:
    found = [path for path in (core.cloud.folder / "artifacts").rglob("*") if path.is_file()]
    return max(found, key=lambda path: path.stat().st_mtime_ns)


def attach(core: JoinedCore, function: str, resource: str, data: dict[str, Any], permission: str = "rw") -> None:
    """Give a function a local resource."""
    core.group.resources.append({"Id": resource, "Name": resource, "ResourceDataContainer": data})
    policies = [{"ResourceId": resource, "Permission": permission}]
    core.group.functions[function]["FunctionConfiguration"]["Environment"] = {"ResourceAccessPolicies": policies}


def detach(core: JoinedCore, function: str) -> None:
    """Take it away again."""
    core.group.resources.clear()
    del core.group.functions[function]["FunctionConfiguration"]["Environment"]


# --- one deployment at a time --------------------------------------------------------------------------------


def answers(core: JoinedCore, function: str = "turning") -> str:
    """Which word a function answers with."""
    name = NAMES[0]
    with Device(core, name) as device:
        device.subscribe(f"{function}/{name}/back", 1)
        device.publish(f"{function}/{name}", "7", qos=1)
        number, word = device.expect()[1].decode().split()
    assert number == "7"
    return word


@pytest.fixture
def served(core: JoinedCore) -> JoinedCore:
    """The core with a group that works, whatever was deployed before."""
    core.group.deploy()
    core.discover(core.group.things[NAMES[0]])
    return core


def test_row_20_and_21_a_deployment_waits_for_a_core_that_is_off(served: JoinedCore) -> None:
    group = served.group
    served.stop()
    group.new_code("turning", answering("later"))
    version = group.version()
    deployment = group.begin(version)
    assert group.status(deployment)["DeploymentStatus"] == "InProgress"
    served.start()
    found = group.ended(deployment)
    assert (found["DeploymentStatus"], found["DeploymentType"]) == ("Success", "NewDeployment")
    assert (served.live()["id"], served.live()["versionId"]) == (deployment, version)
    assert version in (served.deployment_directory / "group" / "group.json").read_text()
    assert answers(served) == "later"


def test_row_20_in_strict_mode_a_deployment_restarts_everything(served: JoinedCore) -> None:
    served.reconfigure(lambda config: config["ggfast"].update(strict=True))
    try:
        served.stop()
        served.start()
        before = eventually(lambda: running_pids(served), "both functions run")
        with Device(served, NAMES[0]) as device:
            served.group.deploy()
            eventually(lambda: device.disconnects, "the device noticed")
            device.wait_connected()
        after = eventually(lambda: running_pids(served), "both functions run")
        assert after["steady"] != before["steady"] and after["turning"] != before["turning"]
    finally:
        served.reconfigure(lambda config: config["ggfast"].pop("strict"))
        served.stop()
        served.start()


def test_row_22_what_a_group_lacks_on_the_machine_is_reported_and_the_group_before_works(served: JoinedCore) -> None:
    before = answers(served)
    attach(served, "turning", "probe", {"LocalDeviceResourceData": {"SourcePath": MISSING}})
    try:
        message = served.group.refused()
    finally:
        detach(served, "turning")
    assert "group config is invalid" in message and MISSING in message
    assert answers(served) == before


def test_row_23_a_redeployment_brings_an_earlier_version_back(served: JoinedCore) -> None:
    group = served.group
    earlier, before = served.live()["id"], served.document()
    group.subscribe(thing_arn(NAMES[1]), "whisper", thing_arn(NAMES[2]))
    group.deploy()
    group.subscriptions.pop()
    assert served.document() != before
    again = group.deploy(DeploymentType="Redeployment", DeploymentId=earlier)
    assert served.live()["id"] == again and again != earlier
    assert served.live()["type"] == "Redeployment"
    assert served.document() == before


def test_a_version_the_control_plane_refuses_does_not_reach_the_core(served: JoinedCore) -> None:
    live = served.live()
    served.group.subscribe("arn:aws:lambda:eu-west-1:123456789012:function:nobody:1", "x", "cloud")
    try:
        found = served.group.ended(served.group.begin())
    finally:
        served.group.subscriptions.pop()
    assert found["DeploymentStatus"] == "Failure"
    assert found["ErrorMessage"].startswith("We cannot deploy because the group definition is invalid or corrupted")
    assert served.live() == live


# --- a disk that is full -------------------------------------------------------------------------------------

DISK_BYTES = 48 * 1024 * 1024
BIG_BYTES = 8 * 1024 * 1024
STOP_ATTEMPTS = 10


@pytest.fixture(scope="module")
def small(cloud: CloudProcess) -> Iterator[JoinedCore]:
    """A core whose deployments have a small disk of their own."""
    with a_joined_core(cloud, "small") as core:
        place = core.deployment_directory
        place.mkdir(parents=True, mode=0o755)
        place.parent.chmod(0o755)
        subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={DISK_BYTES},mode=755", "tmpfs", str(place)], check=True)
        try:
            probe = core.group.device("small-probe")
            arn = core.group.function("small-echo", answering("small"), Pinned=True)
            core.group.subscribe(thing_arn("small-probe"), "ask", arn)
            core.group.subscribe(arn, "ask/back", thing_arn("small-probe"))
            core.start()
            core.group.deploy()
            core.discover(probe)
            yield core
        finally:
            if core.pid_file.exists():
                core.stop(check=False)
            subprocess.run(["umount", "-l", str(place)], check=True)


@contextmanager
def filled(core: JoinedCore, left_bytes: int = 0) -> Iterator[None]:
    """The disk with no more than `left_bytes` of room."""
    ballast = core.deployment_directory / "ballast"
    with ballast.open("wb") as file:
        room = os.statvfs(core.deployment_directory)
        taken = room.f_bavail * room.f_frsize - left_bytes
        assert taken > 0
        os.posix_fallocate(file.fileno(), 0, taken)
    try:
        yield
    finally:
        ballast.unlink()


def check_full(core: JoinedCore, message: str, live: str, place: str) -> None:
    """The report names the path and what is missing; the group before is live and works, nothing stays behind."""
    found = re.search(r"(/[^ ]+): no space left on device: (\d+) bytes are missing", message)
    assert found is not None and int(found[2]) > 0, message
    assert found[1].startswith(f"{core.deployment_directory}/{place}"), message
    assert core.live()["id"] == live
    assert list((core.deployment_directory / "staging").iterdir()) == []
    with Device(core, "small-probe") as device:
        device.subscribe("ask/back", 1)
        device.publish("ask", "3", qos=1)
        assert device.expect() == ("ask/back", b"3 small")


def bigger(core: JoinedCore, content: bytes) -> str:
    """A version of the group with a function that has so much in its package."""
    archive = io.BytesIO()
    with zipfile.ZipFile(archive, "w", zipfile.ZIP_DEFLATED) as members:
        members.writestr("main.py", "def handler(event, context):\n    pass\n")
        members.writestr("weights", content)
    core.group.function("small-" + secrets.token_hex(4), archive.getvalue())
    version = core.group.version()
    core.group.functions.popitem()
    return version


def test_a_full_disk_during_download_fails_the_deployment_alone(small: JoinedCore) -> None:
    live = small.live()["id"]
    version = bigger(small, os.urandom(BIG_BYTES))
    with filled(small, BIG_BYTES // 2):
        message = small.group.refused(version)
    assert "unable to execute download step in deployment. error while downloading" in message
    check_full(small, message, live, "downloads")


def test_a_full_disk_during_staging_fails_the_deployment_alone(small: JoinedCore) -> None:
    live = small.live()["id"]
    thin = b"".join(os.urandom(1) + bytes(63) for _ in range(BIG_BYTES // 64))  # small as long as it is packed
    version = bigger(small, thin)
    with filled(small, BIG_BYTES // 2):
        message = small.group.refused(version)
    check_full(small, message, live, "staging")


def test_a_full_disk_during_apply_fails_the_deployment_alone(small: JoinedCore) -> None:
    live, deployment, daemon = stopped_before_applying(small)
    try:
        eventually(lambda: not any(alive(pid) for pid in fetchers(daemon)), "everything is staged")
        with filled(small):
            os.kill(daemon, signal.SIGCONT)
            found = small.group.ended(deployment)
    finally:
        os.kill(daemon, signal.SIGCONT)
    assert found["DeploymentStatus"] == "Failure", found
    check_full(small, found["ErrorMessage"], live, "")


def stopped_before_applying(core: JoinedCore) -> tuple[str, str, int]:
    """Begin a deployment and stop the daemon while its package is being unpacked; what was live, the deployment, the
    daemon. Where unpacking was over too soon, once more: that deployment is simply a good one."""
    staging, record = core.deployment_directory / "staging", Records(core.deployment_directory / "agent.state")
    daemon = core.daemon_pid()
    for _ in range(STOP_ATTEMPTS):
        live = core.live()["id"]
        deployment = core.group.begin(bigger(core, os.urandom(BIG_BYTES)))
        until = time.monotonic() + patience(20.0)
        while not any(staging.iterdir()) and core.live()["id"] == live:  # closer than `eventually` looks
            assert time.monotonic() < until, "nothing is being staged"
            time.sleep(0.001)
        os.kill(daemon, signal.SIGSTOP)
        if record.load().state is State.FETCHING and core.live()["id"] == live:
            return live, deployment, daemon
        os.kill(daemon, signal.SIGCONT)
        assert core.group.ended(deployment)["DeploymentStatus"] == "Success"
    raise AssertionError(f"the daemon was too fast {STOP_ATTEMPTS} times")


def test_a_disk_that_is_no_longer_full_takes_deployments_again(small: JoinedCore) -> None:
    deployment = small.group.deploy(bigger(small, os.urandom(BIG_BYTES // 2)))
    assert small.live()["id"] == deployment


def fetchers(daemon: int) -> list[int]:
    """The daemon's processes that fetch deployments."""
    found = []
    for pid in children(daemon):
        try:
            command = Path(f"/proc/{pid}/cmdline").read_bytes()
        except OSError:
            continue
        if b"ggfast.core.deploy.fetch" in command:
            found.append(pid)
    return found
