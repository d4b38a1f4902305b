"""Hostile functions without a container: an ordinary process of the host, which the core's own uid keeps out."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.sandbox.harness import DEADLINE_S
from tests.sandbox.hostile import WHO, Cage, cage, row, victim

__all__ = ["cage"]
pytestmark = pytest.mark.root
UNCONTAINED = {"contained": False}


@pytest.fixture(scope="module")
def daemon(cage: Cage) -> int:
    """The daemon's process."""
    cage.box.tell_daemon("whoami")
    found: list[dict[str, Any]] = []

    def told() -> bool:
        found.extend(event for event in cage.box.events if "whoami" in event)
        return bool(found)

    cage.box.wait_for(told, DEADLINE_S)
    cage.box.events.remove(found[0])
    return int(found[0]["pid"])


@pytest.fixture(scope="module")
def keys(cage: Cage) -> Iterator[list[str]]:
    """A private key as the core keeps it, and one beside it that only its own mode protects."""
    users = cage.box.users
    state = cage.place / "state"
    state.mkdir(mode=0o700)
    paths = [state / "core.key", cage.place / "open.key"]
    for path in paths:
        path.write_text("secret")
        path.chmod(0o600)
        os.chown(path, users.daemon_uid, users.daemon_gid)
    os.chown(state, users.daemon_uid, users.daemon_gid)
    yield [str(path) for path in paths]
    assert [path.read_text() for path in paths] == ["secret"] * 2


@row(
    56,
    "without a container: kill, trace or read the daemon, read its keys",
    by="the daemon's own uid, no capabilities, seccomp",
    result="EPERM, EACCES",
)
@WHO
def test_row_56_without_a_container(cage: Cage, daemon: int, keys: list[str], who: str) -> None:
    """It sees the host's processes and files. uid 0 has no capability left: what is not its own is closed to it too.
    What is root's own is not: a function that runs as uid 0 without a container may end the core and write to root's
    files, which the switch in config.json allows it."""
    arguments = {"daemon": daemon, "supervisor": cage.box.pid, "keys": keys}
    control = cage.outside("nocontainer.core", "root", **arguments)
    assert set(control["keys"].values()) == set(control["changed"].values()) == {"OK"}
    assert {control["daemon"][name] for name in ("kill", "ptrace", "environ")} == {"OK"}
    found = cage.run("nocontainer.core", who, UNCONTAINED, **arguments)
    assert set(found["keys"].values()) == set(found["changed"].values()) == {"EACCES"}, found
    refusals = {"EPERM", "EACCES"}
    assert {name: answer for name, answer in found["daemon"].items() if answer not in refusals} == {}
    assert (found["uid"], found["capabilities"], found["no_new_privs"]) == (cage.identity(who)["uid"], 0, "1")
    if who == "user":
        assert found["supervisor"] == "EPERM"
    assert Path(f"/proc/{daemon}/stat").read_text().rpartition(")")[2].split()[0] in "SR"


def test_row_56_control_it_is_a_process_of_the_host(cage: Cage) -> None:
    """The same calls reach a process of its own uid: nothing but the uid protected the daemon."""
    with victim(cage.user) as target:
        found = cage.run("nocontainer.own", "user", UNCONTAINED, victim=target.pid)
    assert found["kill"] == "OK"
