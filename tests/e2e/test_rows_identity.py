"""Acceptance rows 76 and 77: functions without a container, and functions that run as somebody else."""

from __future__ import annotations

import json
import os
import pwd
from collections.abc import Iterator
from typing import Any

import pytest

from tests.e2e.harness import Core, a_core, eventually, function_arn

WHO = """
import json, os
print("WHO " + json.dumps({
    "ids": os.getresuid() + os.getresgid(), "groups": os.getgroups(), "pid": os.getpid(), "cwd": os.getcwd(),
    "pids": sum(name.isdigit() for name in os.listdir("/proc")),
}), flush=True)

def handler(event, context):
    pass
"""
ROOT_TEXT = "are configured to run as root while Greengrass is not configured to run lambdas with root permissions"


@pytest.fixture(scope="module")
def core() -> Iterator[Core]:
    with a_core() as made:
        made.start()
        yield made


@pytest.fixture(scope="module")
def rooted() -> Iterator[Core]:
    """A core whose owner allows root functions and lists one uid."""

    def change(config: dict[str, Any]) -> None:
        config["runtime"]["allowFunctionsToRunAsRoot"] = "yes"
        config["ggfast"]["runAsUids"] = [4242]

    with a_core() as made:
        made.write_config(change)
        made.start()
        yield made


def deploy(core: Core, name: str, execution: dict[str, Any], *, check: bool = True) -> str:
    """Deploy one pinned function with these settings; what the command says on stderr."""
    folder = core.folder()
    folder.function(name, WHO, Pinned=True)
    configuration = folder.functions[0]["FunctionConfiguration"]
    configuration.setdefault("Environment", {})["Execution"] = execution
    if execution.get("IsolationMode") == "NoContainer":
        configuration.pop("MemorySize", None)
    done = core.deploy(folder, check=check)
    assert check or done.returncode != 0
    return done.stderr


def who(core: Core, name: str) -> dict[str, Any]:
    line = eventually(lambda: core.function_log(name).rpartition("WHO ")[2], "the function's own words")
    found: dict[str, Any] = json.loads(line.splitlines()[0])
    return found


def test_row_76_no_container(core: Core) -> None:
    """An ordinary process: the host's PIDs, its folder as the working directory."""
    deploy(core, "free", {"IsolationMode": "NoContainer"})
    found = who(core, "free")
    assert found["cwd"] == str(core.root / "ggc" / "deployment" / "lambda" / function_arn("free"))
    assert found["pids"] > 10
    assert os.readlink(f"/proc/{found['pid']}/ns/pid") == os.readlink("/proc/self/ns/pid")
    user = pwd.getpwnam("ggc_user")
    assert found["ids"][:3] == [user.pw_uid] * 3
    deploy(core, "held", {})
    eventually(lambda: not os.path.exists(f"/proc/{found['pid']}"), "the removed function's process ends")
    assert who(core, "held")["pid"] == 1


@pytest.mark.parametrize("isolation", ["GreengrassContainer", "NoContainer"])
def test_row_77_run_as(core: Core, isolation: str) -> None:
    """Any uid and gid, as V1: no account of that number need exist."""
    name = f"as-{isolation.lower()}"
    deploy(core, name, {"IsolationMode": isolation, "RunAs": {"Uid": 4242, "Gid": 4343}})
    assert who(core, name)["ids"] == [4242] * 3 + [4343] * 3


@pytest.mark.parametrize("run_as", [{"Uid": 0}, {"Gid": 0}, {"Uid": 0, "Gid": 0}], ids=str)
@pytest.mark.parametrize("isolation", ["GreengrassContainer", "NoContainer"])
def test_row_77_root_needs_the_switch(core: Core, isolation: str, run_as: dict[str, int]) -> None:
    text = deploy(core, "boss", {"IsolationMode": isolation, "RunAs": run_as}, check=False)
    assert f"[{function_arn('boss')}] {ROOT_TEXT}" in text


@pytest.mark.parametrize("isolation", ["GreengrassContainer", "NoContainer"])
def test_row_77_root_with_the_switch(rooted: Core, isolation: str) -> None:
    name = f"root-{isolation.lower()}"
    deploy(rooted, name, {"IsolationMode": isolation, "RunAs": {"Uid": 0, "Gid": 0}})
    assert who(rooted, name)["ids"] == [0] * 6


def test_P5_the_cores_own_account_is_nobodys(core: Core) -> None:
    daemon = pwd.getpwnam("ggfast").pw_uid
    text = deploy(core, "mole", {"IsolationMode": "NoContainer", "RunAs": {"Uid": daemon}}, check=False)
    assert "ggfast.runAsUids" in text


def test_P5_a_list_allows_what_it_names_and_no_more(rooted: Core) -> None:
    deploy(rooted, "listed", {"RunAs": {"Uid": 4242}})
    assert who(rooted, "listed")["ids"][:3] == [4242] * 3
    assert "ggfast.runAsUids" in deploy(rooted, "other", {"RunAs": {"Uid": 4243}}, check=False)
