"""What must hold before the core may start; each refusal uses the text V1's users know (greengrass-core 3.2)."""

from __future__ import annotations

import grp
import os
import pwd
from pathlib import Path

from ggfast.errors import ConfigError, OperatingError, Problem

LINK_PROTECTION = ("protected_hardlinks", "protected_symlinks")
WORKER_USER = "ggc_user"
WORKER_GROUP = "ggc_group"
DAEMON_USER = "ggfast"


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


def daemon_ids() -> tuple[int, int]:
    """uid and gid of the daemon's user; raises ConfigError if it is missing."""
    entry = _user(DAEMON_USER)
    return entry.pw_uid, entry.pw_gid


def worker_ids() -> tuple[int, int]:
    """uid and gid that functions get by default; raises ConfigError naming what is missing."""
    entry = _user(WORKER_USER)
    try:
        return entry.pw_uid, grp.getgrnam(WORKER_GROUP).gr_gid
    except KeyError:
        raise ConfigError(
            f"could not find GID based on group name, groupName: {WORKER_GROUP}: group: unknown group {WORKER_GROUP}",
            [Problem("/etc/group", "no such group", WORKER_GROUP)],
            hint=f"Create it with `groupadd --system {WORKER_GROUP}`.",
        ) from None


def _user(name: str) -> pwd.struct_passwd:
    try:
        return pwd.getpwnam(name)
    except KeyError:
        raise ConfigError(
            f"could not find UID based on user name, userName: {name}: user: unknown user {name}",
            [Problem("/etc/passwd", "no such user", name)],
            hint=f"Create it with `useradd --system --no-create-home --shell /usr/sbin/nologin {name}`.",
        ) from None


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="ascii").strip()
    except OSError:
        return ""
