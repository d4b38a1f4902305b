"""As whom functions may run: the machine's accounts, root's configuration, the group, and that all agree."""

from __future__ import annotations

import grp
import json
import pwd
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from group_support import FULL, changed, full_path, parse

from ggfast.cli import launching
from ggfast.cli.checks import Accounts
from ggfast.config import Config, parse_config
from ggfast.errors import ConfigError, SandboxFailed
from ggfast.group import validate
from ggfast.sandbox import accounts
from ggfast.sandbox.policy import Policy

DAEMON, FUNCTIONS, ADMIN, LISTENER, PERSON, BUS = 901, 902, 1000, 103, 1001, 104
PEOPLE = {"ggfast": (DAEMON, 901), "ggc_user": (FUNCTIONS, 902), "pi": (ADMIN, 1000), "syslog": (LISTENER, 4),
          "ann": (PERSON, 1001), "messagebus": (BUS, 110), "root": (0, 0)}  # fmt: skip


@pytest.fixture(autouse=True)
def machine(monkeypatch: pytest.MonkeyPatch) -> None:
    """pi may become root by /etc/group, syslog has a denied group, messagebus owns the bus, ann no more."""
    people = [SimpleNamespace(pw_name=n, pw_uid=u, pw_gid=g) for n, (u, g) in PEOPLE.items()]
    groups = [SimpleNamespace(gr_name=n, gr_gid=g, gr_mem=m) for n, g, m in (("sudo", 27, ["pi"]), ("adm", 4, []))]
    groups.append(SimpleNamespace(gr_name="users", gr_gid=100, gr_mem=["ann", "pi"]))
    monkeypatch.setattr(pwd, "getpwall", lambda: people)
    monkeypatch.setattr(pwd, "getpwnam", lambda name: next(p for p in people if p.pw_name == name))
    monkeypatch.setattr(grp, "getgrall", lambda: groups)
    monkeypatch.setattr(grp, "getgrnam", lambda name: next(_or_fail(g for g in groups if g.gr_name == name)))


def _or_fail(found: Any) -> Any:
    found = list(found)
    if not found:
        raise KeyError
    return iter(found)


def config(**ggfast: Any) -> Config:
    thing = {"thingArn": "arn:aws:iot:us-east-1:123456789012:thing/core"}
    document = {"coreThing": thing, "ggfast": {"local": True, **ggfast}}
    return parse_config(json.dumps(document).encode(), Path("/greengrass"))


def policy_of(made: Config) -> Policy:
    return Policy.from_json(launching.policy(made, Accounts(DAEMON, 901, FUNCTIONS, 902)))


def refusal(made: Config, uid: int) -> str:
    """What the spawner says, or nothing."""
    code = str(made.layout.functions / "f")
    try:
        policy_of(made).validate({"contained": False, "code_dir": code, "uid": uid, "gid": 1000})
    except SandboxFailed as error:
        return str(error)
    return ""


def problem(made: Config, key: str, value: int) -> str:
    """What a deployment is told, or nothing."""
    rules = validate.GroupRules.of(made)
    only = {name: getattr(rules, name) for name in ("run_as_uids", "denied_uids", "denied_gids")}
    try:
        parse(changed(FULL, f"E.Execution.RunAs.{key}", value), **only)
    except ConfigError as error:
        return next((str(one) for one in error.problems if one.path == full_path(f"E.Execution.RunAs.{key}")), "")
    return ""


def test_accounts_as_good_as_root() -> None:
    assert accounts.powerful_accounts() == [LISTENER, BUS, ADMIN]


@pytest.mark.parametrize(
    ("listed", "uid", "allowed"),
    [
        (None, FUNCTIONS, True), (None, PERSON, True), (None, 4242, True),
        (None, ADMIN, False), (None, LISTENER, False), (None, BUS, False), (None, DAEMON, False),
        ([], FUNCTIONS, True), ([], PERSON, False), ([], 4242, False), ([], ADMIN, False),
        ([ADMIN], ADMIN, True), ([ADMIN], FUNCTIONS, True), ([ADMIN], PERSON, False),
        ([DAEMON], DAEMON, False),
    ],
)  # fmt: skip
def test_row_77_the_deployment_and_the_spawner_agree(listed: list[int] | None, uid: int, allowed: bool) -> None:
    """P9: any uid, as V1; P5: none that is root by another name unless root lists it, and never the daemon's."""
    made = config(**({} if listed is None else {"runAsUids": listed}))
    assert (refusal(made, uid) == "") is allowed
    told = problem(made, "Uid", uid)
    assert (told == "") is allowed
    assert allowed or "ggfast.runAsUids" in told


def test_root_is_not_a_matter_of_the_list() -> None:
    assert "allowFunctionsToRunAsRoot" in refusal(config(), 0)
    assert "allowFunctionsToRunAsRoot" in refusal(config(runAsUids=[PERSON]), 0)


def test_an_administrators_account_named_as_functionUser_is_roots_own_choice() -> None:
    made = config(functionUser="pi")
    assert ADMIN not in validate.GroupRules.of(made).denied_uids
    assert ADMIN not in Policy.from_json(launching.policy(made, Accounts(DAEMON, 901, ADMIN, 902))).denied_uids


def test_groups_of_the_system_are_refused_at_deployment() -> None:
    assert "never given to functions" in problem(config(), "Gid", 27)
    assert problem(config(), "Gid", 100) == ""
