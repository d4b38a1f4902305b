"""What must hold before the core may start; each refusal uses the text V1's users know (greengrass-core 3.2)."""

from __future__ import annotations

import grp
import os
import pwd
from dataclasses import dataclass
from pathlib import Path

from ggfast.config import Config
from ggfast.errors import ConfigError, OperatingError, Problem

LINK_PROTECTION = ("protected_hardlinks", "protected_symlinks")


@dataclass(frozen=True, slots=True)
class Accounts:
    """Numbers of the accounts a core needs."""

    daemon_uid: int
    daemon_gid: int
    function_uid: int
    function_gid: int


def require_root(command: str) -> None:
    """Raise OperatingError unless this process is root."""
    if os.geteuid() != 0:
        raise OperatingError(f"{command} must run as root.", hint="Run it with sudo.")


def require_link_protection(sysctl: Path = Path("/proc/sys/fs")) -> None:
    """Raise OperatingError if hard or symbolic links are not protected by the kernel."""
    off = [name for name in LINK_PROTECTION if _read(sysctl / name) != "1"]
    if off:
        settings = " ".join(f"fs.{name}=1" for name in off)
        raise OperatingError(
            "AWS Greengrass detected insecure OS configuration: No hardlink/softlink protection enabled.",
            hint=f"Set it with `sysctl -w {settings}`, or start with -i to go on without.",
        )


def accounts(config: Config) -> Accounts:
    """The accounts named in config.json; raises ConfigError in V1's words, naming what is missing."""
    daemon = _user(config.ggfast.daemon_user)
    function = _user(config.ggfast.function_user)
    return Accounts(daemon.pw_uid, daemon.pw_gid, function.pw_uid, _group(config.ggfast.function_group))


def _user(name: str) -> pwd.struct_passwd:
    try:
        return pwd.getpwnam(name)
    except KeyError:
        raise ConfigError(
            f"could not find UID based on user name, userName: {name}: user: unknown user {name}",
            [Problem("/etc/passwd", "no such user", name)],
            hint=f"Create it with `useradd --system --no-create-home --shell /usr/sbin/nologin {name}`.",
        ) from None


def _group(name: str) -> int:
    try:
        return grp.getgrnam(name).gr_gid
    except KeyError:
        raise ConfigError(
            f"could not find GID based on group name, groupName: {name}: group: unknown group {name}",
            [Problem("/etc/group", "no such group", name)],
            hint=f"Create it with `groupadd --system {name}`.",
        ) from None


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="ascii").strip()
    except OSError:
        return ""
