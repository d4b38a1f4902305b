"""The accounts a core needs, made where they are missing: functions, their group, and the daemon."""

from __future__ import annotations

import errno
import grp
import pwd
import shutil
import subprocess
from dataclasses import dataclass

from ggfast.errors import SandboxFailed


@dataclass(frozen=True, slots=True)
class Users:
    """Numeric ids of the accounts."""

    function_uid: int
    function_gid: int
    daemon_uid: int
    daemon_gid: int


def ensure_users(
    function_user: str = "ggc_user", function_group: str = "ggc_group", daemon_user: str = "ggfast"
) -> Users:
    """Find the accounts, or make them with useradd and groupadd. Raises SandboxFailed("users") when neither
    works; blocks for some tens of milliseconds when it has to make one."""
    if not _group(function_group):
        _run(["groupadd", "--system", function_group])
    if not _user(function_user):
        _run(["useradd", "--system", "--no-create-home", "--shell", "/usr/sbin/nologin"], function_user, function_group)
    if not _group(daemon_user):
        _run(["groupadd", "--system", daemon_user])
    if not _user(daemon_user):
        _run(["useradd", "--system", "--no-create-home", "--shell", "/usr/sbin/nologin"], daemon_user, daemon_user)
    functions, daemon = pwd.getpwnam(function_user), pwd.getpwnam(daemon_user)
    return Users(functions.pw_uid, grp.getgrnam(function_group).gr_gid, daemon.pw_uid, daemon.pw_gid)


def _group(name: str) -> bool:
    return any(entry.gr_name == name for entry in grp.getgrall())


def _user(name: str) -> bool:
    return any(entry.pw_name == name for entry in pwd.getpwall())


def _run(command: list[str], user: str = "", group: str = "") -> None:
    if shutil.which(command[0]) is None:
        text = f"account {user or command[-1]}: found none, and no {command[0]} to make it"
        raise SandboxFailed("users", errno.ENOENT, text, hint="Create the account by hand.")
    full = [*command, "--gid", group, user] if user else command
    done = subprocess.run(full, capture_output=True, text=True, check=False, timeout=30)
    if done.returncode:
        raise SandboxFailed(
            "users",
            errno.EIO,
            f"{' '.join(full)}: status {done.returncode}: {done.stderr.strip()}",
            hint="Run as root.",
        )
