"""Acceptance rows 79-85: volumes, devices, extra groups, /sys, /proc and models, seen by functions of a whole core."""

from __future__ import annotations

import gzip
import io
import json
import os
import pty
import tarfile
import tty
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.harness import Core, Device, GroupFolder, a_core, eventually, function_arn, thing_arn

pytestmark = pytest.mark.root

PROBE = thing_arn("probe")
GROUP = 54_321  # of nobody
ACTOR = """
import json, os
import greengrasssdk
iot = greengrasssdk.client("iot-data")

def read(path):
    with open(path) as file:
        return file.read()

def write(path, text):
    with open(path, "w") as file:
        file.write(text)
    return "written"

def terminal(path, text):
    fd = os.open(path, os.O_RDWR | os.O_NOCTTY)
    try:
        return os.write(fd, text.encode())
    finally:
        os.close(fd)

def node(path):
    os.close(os.open(path, os.O_RDONLY | os.O_NOCTTY))
    return "opened"

def stat(path):
    status = os.stat(path)
    return [oct(status.st_mode & 0o7777), status.st_ino, status.st_mtime_ns]

def flood(path):
    with open(path, "wb", buffering=0) as file:
        while file.tell() < 64 << 20:
            file.write(bytes(65536))

ACTIONS = {
    "flood": flood,
    "read": read, "write": write, "terminal": terminal, "node": node, "stat": stat,
    "list": lambda path: sorted(os.listdir(path)), "groups": os.getgroups,
}

def handler(event, context):
    answers = []
    for name, *arguments in event:
        try:
            answers.append(ACTIONS[name](*arguments))
        except OSError as error:
            answers.append(error.strerror)
    iot.publish(topic=os.environ["MY_FUNCTION_ARN"].split(":")[6] + "/answer", payload=json.dumps(answers))
"""


def volume(resource_id: str, source: object, destination: str, **owner: Any) -> dict[str, Any]:
    data = {"SourcePath": str(source), "DestinationPath": destination, "GroupOwnerSetting": owner}
    return {"Id": resource_id, "Name": resource_id, "ResourceDataContainer": {"LocalVolumeResourceData": data}}


def device(resource_id: str, path: str, **owner: Any) -> dict[str, Any]:
    data = {"SourcePath": path, "GroupOwnerSetting": owner}
    return {"Id": resource_id, "Name": resource_id, "ResourceDataContainer": {"LocalDeviceResourceData": data}}


def model(resource_id: str, archive: str, destination: str, owner: dict[str, str] | None = None) -> dict[str, Any]:
    data: dict[str, Any] = {"S3Uri": "s3://greengrass-models/" + archive, "DestinationPath": destination}
    if owner:
        data["OwnerSetting"] = owner
    container = {"S3MachineLearningModelResourceData": data}
    return {"Id": resource_id, "Name": resource_id, "Archive": archive, "ResourceDataContainer": container}


def actor(folder: GroupFolder, name: str, *resources: str, sysfs: bool = False, **execution: Any) -> None:
    """A function attached to `<id>:<permission>` resources, triggered by `<name>/do`."""
    policies = [dict(zip(("ResourceId", "Permission"), entry.split(":"), strict=False)) for entry in resources]
    environment: dict[str, Any] = {"ResourceAccessPolicies": policies, "AccessSysfs": sysfs}
    if execution:
        environment["Execution"] = execution
    arn = folder.function(name, ACTOR, Environment=environment)
    folder.subscribe(PROBE, f"{name}/do", arn)
    folder.subscribe(arn, f"{name}/answer", PROBE)


def make_zip(path: Path, **files: bytes) -> None:
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in files.items():
            archive.writestr(name.replace("__", "/"), content)


def make_tar(path: Path, **files: bytes) -> None:
    # the same bytes at every call: gzip notes the time otherwise
    with gzip.GzipFile(path, "wb", mtime=0) as packed, tarfile.open(fileobj=packed, mode="w") as archive:
        top = tarfile.TarInfo("net")
        top.type, top.mode = tarfile.DIRTYPE, 0o755
        archive.addfile(top)
        for name, content in files.items():
            entry = tarfile.TarInfo(f"net/{name}")
            entry.size = len(content)
            archive.addfile(entry, io.BytesIO(content))


@dataclass
class Rig:
    """One running core whose functions do what a test asks."""

    core: Core
    data: Path
    terminal: str
    master: int

    def ask(self, function: str, *actions: list[Any]) -> list[Any]:
        with Device(self.core, "probe") as probe:
            probe.subscribe(f"{function}/answer")
            probe.publish(f"{function}/do", json.dumps(actions), qos=1)
            answers: list[Any] = json.loads(probe.expect_on(f"{function}/answer", 20))
        return answers


def fill(folder: GroupFolder, data: Path, terminal: str) -> None:
    folder.device("probe")
    folder.resources += [
        volume("shared", data / "shared", "/dest/LRAtest"),
        volume("grouped", data / "grouped", "/dest/grouped", AutoAddGroupOwner=True),
        volume("file", data / "shared" / "hello", "/dest/one-file"),
        volume("cpuinfo", "/proc/cpuinfo", "/host-proc/cpuinfo"),
        volume("shm", "/dev/shm", "/dev/shm"),
        device("terminal", terminal, AutoAddGroupOwner=True),
        model("zipped", "models/net.zip", "/models/zipped"),
        model("tarred", "models/net.tar.gz", "/models/tarred"),
        model("owned", "models/net.tar.gz", "/models/owned", {"GroupOwner": str(GROUP), "GroupPermission": "rw"}),
    ]
    (folder.path / "models").mkdir(parents=True)
    make_zip(folder.path / "models" / "net.zip", net__weights=b"zip weights", labels=b"cat")
    make_tar(folder.path / "models" / "net.tar.gz", weights=b"tar weights")
    actor(folder, "reader", "shared:ro", "file:ro", "zipped:ro", "tarred:ro")
    actor(folder, "writer", "shared:rw", "tarred:rw", "shm:rw")
    actor(folder, "member", "terminal:rw", "cpuinfo:ro", "owned")
    actor(folder, "grouped", "grouped:ro")
    actor(folder, "looker", "terminal:ro", sysfs=True)
    actor(folder, "stranger")


@pytest.fixture(scope="module")
def rig() -> Iterator[Rig]:
    master, slave = pty.openpty()
    tty.setraw(slave)
    path = os.ttyname(slave)
    os.chown(slave, 0, GROUP)
    os.chmod(slave, 0o660)
    try:
        with a_core() as core:
            data = core.directory / "data"
            (data / "shared").mkdir(parents=True)
            (data / "shared").chmod(0o777)
            (data / "shared" / "hello").write_text("hello")
            (data / "grouped").mkdir()
            (data / "grouped" / "file").write_text("for the group")
            os.chown(data / "grouped", 0, GROUP)
            (data / "grouped").chmod(0o750)
            folder = core.folder()
            fill(folder, data, path)
            core.deploy(folder)
            core.start()
            yield Rig(core, data, path, master)
    finally:
        os.close(master)
        os.close(slave)


def test_row_79_what_a_function_writes_to_a_volume_is_on_the_host(rig: Rig) -> None:
    answers = rig.ask("writer", ["read", "/dest/LRAtest/hello"], ["write", "/dest/LRAtest/from-inside", "inside"])
    assert answers == ["hello", "written"]
    assert (rig.data / "shared" / "from-inside").read_text() == "inside"
    (rig.data / "shared" / "from-outside").write_text("outside")
    assert rig.ask("writer", ["read", "/dest/LRAtest/from-outside"]) == ["outside"]


def test_row_79_ro_denies_writing_and_destinations_are_only_in_the_container(rig: Rig) -> None:
    answers = rig.ask(
        "reader",
        ["read", "/dest/LRAtest/hello"],
        ["write", "/dest/LRAtest/no", "x"],
        ["read", "/dest/one-file"],
        ["write", "/dest/one-file", "x"],
    )
    assert answers == ["hello", "Read-only file system", "hello", "Read-only file system"]
    assert not Path("/dest").exists()
    assert rig.ask("stranger", ["list", "/dest"]) == ["No such file or directory"]


def test_row_80_a_granted_device_works_and_others_are_not_there(rig: Rig) -> None:
    assert rig.ask("member", ["terminal", rig.terminal, "to the port"]) == [11]
    assert os.read(rig.master, 100) == b"to the port"
    answers = rig.ask("stranger", ["node", rig.terminal], ["list", "/dev/pts"])
    assert answers == ["No such file or directory"] * 2


def test_row_80_a_device_granted_ro_cannot_be_written(rig: Rig) -> None:
    assert rig.ask("looker", ["node", rig.terminal], ["terminal", rig.terminal, "x"]) == [
        "opened",
        "Operation not permitted",
    ]


def test_row_81_the_owning_group_is_added_with_the_setting_alone(rig: Rig) -> None:
    text, groups = rig.ask("grouped", ["read", "/dest/grouped/file"], ["groups"])
    assert text == "for the group"
    assert GROUP in groups
    assert GROUP not in rig.ask("stranger", ["groups"])[0]
    folder = rig.core.folder()
    fill(folder, rig.data, rig.terminal)
    folder.resources[1] = volume("grouped", rig.data / "grouped", "/dest/grouped")
    refused = rig.core.deploy(folder, check=False)
    assert refused.returncode
    wanted = "group config is invalid: ggc_user or [ggc_group] don't have ro permission on the file: "
    assert wanted + str(rig.data / "grouped") in refused.stderr
    assert rig.ask("grouped", ["read", "/dest/grouped/file"]) == ["for the group"]  # the group before serves on


@pytest.mark.parametrize(
    ("entry", "permission", "text"),
    [
        (volume("x", "/sys/class", "/x"), "ro", "Accessing /sys is prohibited"),
        (volume("x", "/var/lib", "/x"), "ro", "Accessing /var is prohibited"),
        (volume("x", "/dev/shm", "/dev/shm"), "ro", "/dev/shm can only be given rw"),
        (volume("x", "/root", "/x"), "ro", "Accessing /root is prohibited"),
        (volume("x", "/proc/cpuinfo", "/x"), "rw", "paths under /proc can only be given ro"),
        (volume("x", "/proc/1", "/x"), "ro", "Accessing /proc/1 is prohibited"),
        (volume("x", "/proc/meminfo", "/proc/x"), "ro", "a path outside /proc"),
        (volume("x", "/etc", "/x"), "rw", "lies below /etc"),
        (device("x", "/etc/hostname"), "ro", "Device resource path should begin with /dev"),
        (
            device("x", "/dev/kmsg"),
            "ro",
            "a node of the kernel's memory and log, which functions never get, in resource x",
        ),
        (device("x", "/dev/nothing"), "ro", "/dev/nothing: No such file or directory, in resource x of function"),
        (volume("x", "/etc/hostname", "/bin/x"), "ro", "leads through the link /bin"),
        (volume("x", "/etc/hostname", "/var/run/x"), "ro", "expected /run/x"),
        (volume("x", "/etc/hostname", "/usr"), "ro", "/usr is a directory on this machine"),
        (volume("x", "/bin", "/x"), "ro", "/bin is a symbolic link"),
        (volume("x", "/lib/os-release", "/x"), "ro", "expected the real path /usr/lib/os-release"),
        (volume("x", "/usr", "/x", GroupOwner="shadow"), "ro", "group shadow is never given to functions"),
    ],
    ids=str,
)
def test_rows_82_and_84_refused_at_the_deployment(rig: Rig, entry: dict[str, Any], permission: str, text: str) -> None:
    folder = rig.core.folder()
    folder.resources.append(entry)
    actor(folder, "wrong", f"x:{permission}")
    folder.device("probe")
    refused = rig.core.deploy(folder, check=False)
    assert refused.returncode
    assert text in refused.stderr


def test_row_82_shared_memory_is_the_hosts(rig: Rig) -> None:
    name = f"ggfast-{os.getpid()}"
    try:
        assert rig.ask("writer", ["write", f"/dev/shm/{name}", "x"]) == ["written"]
        assert Path("/dev/shm", name).read_text() == "x"
    finally:
        Path("/dev/shm", name).unlink(missing_ok=True)


def test_row_83_sysfs_only_with_the_setting(rig: Rig) -> None:
    with_it = rig.ask("looker", ["list", "/sys"], ["write", "/sys/kernel/x", "x"])
    assert "class" in with_it[0]
    assert with_it[1] in ("Read-only file system", "Permission denied")
    assert rig.ask("stranger", ["list", "/sys"]) == [[]]


def test_row_84_a_file_of_proc_as_a_volume(rig: Rig) -> None:
    text, refusal = rig.ask("member", ["read", "/host-proc/cpuinfo"], ["write", "/host-proc/cpuinfo", "x"])
    assert "processor" in text
    assert refusal in ("Read-only file system", "Permission denied")


def test_row_85_models_are_unpacked_at_their_destination_read_only(rig: Rig) -> None:
    answers = rig.ask(
        "reader",
        ["read", "/models/zipped/net/weights"],
        ["read", "/models/zipped/labels"],
        ["read", "/models/tarred/net/weights"],
        ["write", "/models/tarred/net/weights", "x"],
        ["list", "/models"],
    )
    assert answers == ["zip weights", "cat", "tar weights", "Read-only file system", ["tarred", "zipped"]]
    assert rig.ask("stranger", ["list", "/models"]) == ["No such file or directory"]
    assert rig.ask("member", ["read", "/models/owned/net/weights"]) == ["tar weights"]


def test_row_85_a_writable_model_is_the_functions_own(rig: Rig) -> None:
    answers = rig.ask(
        "writer",
        ["write", "/models/tarred/net/weights", "changed"],
        ["write", "/models/tarred/net/more", "added"],
        ["write", "/models/tarred/top", "added"],
        ["read", "/models/tarred/net/weights"],
    )
    assert answers == ["written"] * 3 + ["changed"]
    assert rig.ask("reader", ["read", "/models/tarred/net/weights"], ["list", "/models/tarred/net"]) == [
        "tar weights",
        ["weights"],
    ]
    assert not list(rig.core.root.rglob("more"))
    assert rig.ask("writer", ["flood", "/models/tarred/net/huge"]) == ["No space left on device"]


def test_row_85_an_unchanged_model_is_not_unpacked_again(rig: Rig) -> None:
    look = [["stat", "/models/tarred/net/weights"], ["stat", "/models/zipped/labels"]]
    before = rig.ask("reader", *look)
    assert before[0][0] == "0o644"
    folder = rig.core.folder()
    fill(folder, rig.data, rig.terminal)
    make_zip(folder.path / "models" / "net.zip", net__weights=b"zip weights", labels=b"dog")
    models = rig.core.root / "ggc" / "deployment" / "models"
    names = set(os.listdir(models))
    rig.core.deploy(folder)
    after = rig.ask("reader", *look)
    assert after[0] == before[0]
    assert after[1][1:] != before[1][1:]
    assert rig.ask("reader", ["read", "/models/zipped/labels"]) == ["dog"]
    assert len(set(os.listdir(models)) & names) == len(names) - 1, "the model that nobody uses is gone"
    assert len(os.listdir(models)) == len(names)


def test_row_85_without_an_archive_the_refusal_says_what_to_add(rig: Rig) -> None:
    folder = rig.core.folder()
    folder.resources.append(model("x", "", "/x"))
    actor(folder, "wrong", "x:ro")
    folder.device("probe")
    refused = rig.core.deploy(folder, check=False)
    assert refused.returncode
    assert "Resources[0].Archive: found nothing, expected the model's .zip or .tar.gz in the folder" in refused.stderr


def test_models_are_there_again_after_a_restart(rig: Rig) -> None:
    rig.core.command("-i", "restart")
    eventually(lambda: rig.core.status()["functions"], "the group is back")
    assert rig.ask("reader", ["read", "/models/tarred/net/weights"]) == ["tar weights"]


def test_rows_81_and_82_hold_for_a_core_that_does_not_run() -> None:
    with a_core() as core:
        folder = core.folder()
        folder.function("plain", ACTOR)
        core.deploy(folder)
        group = core.root / "ggc" / "deployment" / "group" / "group.json"
        before = group.read_text()
        data = core.directory / "data"
        data.mkdir(0o700)
        for entry, text in (
            (volume("x", data, "/x"), "don't have ro permission on the file: "),
            (device("x", "/dev/kmsg"), "a node of the kernel's memory and log"),
        ):
            folder = core.folder()
            folder.resources.append(entry)
            actor(folder, "wrong", "x:ro")
            folder.device("probe")
            refused = core.deploy(folder, check=False)
            assert refused.returncode
            assert text in refused.stderr
            assert group.read_text() == before
        assert os.listdir(core.root / "ggc" / "deployment" / "lambda") == [function_arn("plain")]
