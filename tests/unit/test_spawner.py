"""What the spawner believes: each field of a request, hostile. No root, no fork."""

from __future__ import annotations

import errno
from typing import Any

import pytest

from ggfast.errors import SandboxFailed
from ggfast.sandbox.policy import Policy, check_instance, spec_hash

POLICY = Policy.from_json(
    {
        "uids": [999, [2000, 2010]],
        "gids": [995, [1, 3000]],
        "denied_gids": [6, 42],
        "code_prefixes": ["/greengrass/ggc/deployment/lambda"],
        "hidden": ["/greengrass", "/opt/state"],
        "denied_sources": ["/mnt/private"],
        "memory_kb_max": 100_000,
    }
)
CODE = "/greengrass/ggc/deployment/lambda/f1"


def request(**fields: Any) -> dict[str, Any]:
    return {"code_dir": CODE, "uid": 999, "gid": 995, "memory_kb": 16384, **fields}


def refused(document: object, policy: Policy = POLICY) -> str:
    with pytest.raises(SandboxFailed) as caught:
        policy.validate(document)
    assert (caught.value.step, caught.value.errno) == ("policy", errno.EPERM)
    return str(caught.value)


def volume(source: str, destination: str = "/data", writable: bool = False) -> dict[str, Any]:
    return {"mounts": [{"source": source, "destination": destination, "writable": writable}]}


def test_an_honest_request_and_its_defaults() -> None:
    spec = POLICY.validate(request(groups=[20], **volume("/srv/data", writable=True)))
    assert (spec.contained, spec.tmpfs_kb, spec.pids_max, spec.sysfs) == (True, 8192, 128, False)
    assert spec.mounts[0].writable
    assert POLICY.validate(request(memory_kb=100_000)).tmpfs_kb == 16_384


@pytest.mark.parametrize("document", [None, [], "x", 7, {}, {"code_dir": CODE}])
def test_not_a_request(document: object) -> None:
    refused(document)


WRONG: list[dict[str, Any]] = [
    {"environment": {"A": "b"}},
    {"code_dir": "/greengrass/ggc/deployment/lambda"},
    {"code_dir": "/greengrass/ggc/deployment/lambda/../../../x"},
    {"code_dir": "/greengrass/ggc/deployment/lambdax/f"},
    {"code_dir": "/etc"},
    {"code_dir": ["/etc"]},
    {"code_dir": CODE + "\0"},
    {"uid": 998},
    {"uid": -1},
    {"uid": "999"},
    {"uid": 999.0},
    {"uid": True},
    {"uid": 1 << 32},
    {"uid": 0xFFFFFFFF},
    {"gid": 4000},
    {"gid": 42},
    {"groups": [995, 6]},
    {"groups": list(range(100, 140))},
    {"groups": "995"},
    {"groups": [[995]]},
    {"memory_kb": 100_001},
    {"memory_kb": 100},
    {"memory_kb": None},
    {"memory_kb": float("inf")},
    {"pids_max": 0},
    {"pids_max": 1 << 40},
    {"tmpfs_kb": 1_000_000},
    {"tmpfs_kb": 0},
    {"sysfs": "yes"},
    {"sysfs": 1},
    {"hostname": "a b"},
    {"hostname": "x" * 65},
    {"hostname": "../x"},
    {"runtime": "python"},
    {"exec": ["/lambda/x"]},
    {"contained": 0},
    {"contained": "no"},
    {"memory_kb": 0},
    {"mounts": {}},
    {"mounts": [{}]},
    {"mounts": [{"source": "/srv", "destination": "/d", "writable": False, "flags": 4}]},
    {"mounts": [{"source": "/srv", "destination": "/d", "writable": "yes"}]},
    {"mounts": [volume("/srv")["mounts"][0]] * 33},
    {"devices": [{"path": "/dev/ttyS0", "access": "rwm"}]},
    {"devices": [{"path": "/dev/ttyS0", "access": "w"}]},
    {"devices": [{"path": "/dev/../etc/x", "access": "r"}]},
    {"devices": [{"path": "/etc/passwd", "access": "r"}]},
    {"devices": [{"path": "/dev", "access": "r"}]},
    {"devices": [{"path": "/dev/shm/x", "access": "r"}]},
    {"devices": [{"path": "/dev/ttyS0"}]},
]


@pytest.mark.parametrize("fields", WRONG, ids=lambda fields: str(fields)[:50])
def test_each_field_hostile(fields: dict[str, Any]) -> None:
    text = refused(request(**fields))
    assert len(text) < 1000


UNCONTAINED: list[dict[str, Any]] = [
    {"sysfs": True},
    {"sysfs": "yes"},
    {"hostname": "x"},
    {"tmpfs_kb": 4096},
    volume("/srv"),
    {"devices": [{"path": "/dev/ttyS0", "access": "r"}]},
    {"mounts": None},
    {"memory_kb": 100},
    {"memory_kb": -1},
    {"memory_kb": 100_001},
    {"uid": 998},
    {"gid": 42},
    {"code_dir": "/etc"},
]


@pytest.mark.parametrize("fields", UNCONTAINED, ids=lambda fields: str(fields)[:50])
def test_without_a_container_there_is_nothing_of_one(fields: dict[str, Any]) -> None:
    plain = {"contained": False, "code_dir": CODE, "uid": 999, "gid": 995}
    spec = POLICY.validate(plain)
    assert (spec.contained, spec.memory_kb, spec.mounts, spec.devices) == (False, 0, (), ())
    assert POLICY.validate({**plain, "memory_kb": 16384, "sysfs": False, "mounts": []}).memory_kb == 16384
    refused({**plain, **fields})


def test_accounts_that_are_as_good_as_root_are_told_what_to_change() -> None:
    policy = Policy.from_json(
        {
            "uids": [[1, 4000]],
            "denied_uids": [1000],
            "gids": [995],
            "code_prefixes": ["/greengrass/ggc/deployment/lambda"],
        }
    )
    assert "ggfast.runAsUids" in refused(request(uid=1000), policy)
    assert policy.validate(request(uid=1001)).uid == 1001


def test_root_needs_the_policy() -> None:
    open_policy = Policy.from_json(
        {"uids": [0], "gids": [0], "allow_root": True, "code_prefixes": ["/greengrass/ggc/deployment/lambda"]}
    )
    for fields in ({"uid": 0}, {"gid": 0}, {"groups": [0]}):
        assert "allowFunctionsToRunAsRoot" in refused(request(**fields))
    assert open_policy.validate(request(uid=0, gid=0)).uid == 0
    assert "/etc/shadow" in open_policy.hidden_for(0)
    assert "/etc/shadow" not in open_policy.hidden_for(999)


@pytest.mark.parametrize(
    "source",
    [
        "/", "/sys", "/sys/kernel", "/dev", "/dev/sda", "/var", "/var/run/x", "/root", "/root/.ssh", "/boot", "/run/x",
        "/proc", "/proc/1/root", "/proc/self/environ", "/proc/thread-self", "/proc/kcore", "/proc/sysrq-trigger",
        "/greengrass", "/greengrass/certs", "/opt", "/opt/state/x", "/mnt/private", "/mnt/private/x",
        "/a/../root", "srv",
    ],
)  # fmt: skip
def test_sources_that_are_not_for_functions(source: str) -> None:
    refused(request(**volume(source)))


@pytest.mark.parametrize("source", ["/etc", "/etc/cron.d", "/usr/bin", "/lib", "/bin", "/proc/meminfo"])
def test_system_trees_are_read_only(source: str) -> None:
    assert "read-only" in refused(request(**volume(source, writable=True)))
    assert POLICY.validate(request(**volume(source))).mounts[0].source == source


@pytest.mark.parametrize(
    "destination", ["/", "/proc", "/proc/x", "/dev/x", "/sys", "/lambda", "/lambda/x", "/runtime", "/a/../lambda"]
)
def test_destinations_of_the_container_itself(destination: str) -> None:
    refused(request(**volume("/srv", destination)))


def test_shared_memory_is_whole_and_writable() -> None:
    assert POLICY.validate(request(**volume("/dev/shm", "/dev/shm", True))).mounts
    for wrong in (
        volume("/dev/shm", "/dev/shm"),
        volume("/dev/shm", "/x", True),
        volume("/dev/shm/x", "/dev/shm", True),
    ):
        refused(request(**wrong))


def test_a_volume_may_not_contain_what_is_hidden_from_root() -> None:
    policy = Policy(
        uids=((0, 0),), gids=((0, 0),), allow_root=True, code_prefixes=("/greengrass/ggc/deployment/lambda",)
    )
    assert "/etc/shadow" in refused(request(uid=0, gid=0, **volume("/etc")), policy)


@pytest.mark.parametrize("name", ["", "a" * 65, "../x", "a/b", "a b", "ä", "a\n", None, 7, ["a"]])
def test_instance_names(name: object) -> None:
    with pytest.raises(SandboxFailed):
        check_instance(name)
    assert check_instance("Az09_-") == "Az09_-"


def test_policy_of_root_is_checked_too() -> None:
    for wrong in (
        {"uids": [-1]},
        {"uids": ["0"]},
        {"uids": [[1, 2, 3]]},
        {"denied_uids": ["x"]},
        {"hidden": ["x"]},
        {"surprise": 1},
    ):
        with pytest.raises(SandboxFailed, match="policy"):
            Policy.from_json(wrong)


def test_equal_requests_have_equal_hashes() -> None:
    assert spec_hash({"a": 1, "b": [2]}) == spec_hash({"b": [2], "a": 1})
    assert spec_hash({"a": 1}) != spec_hash({"a": 2})
    assert POLICY.validate(request()).hash == spec_hash(request())
