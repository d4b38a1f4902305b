"""Which accounts and groups no function runs as, whatever a group document says; read from the machine's own files."""

from __future__ import annotations

import grp
import pwd
from typing import Final

# Groups whose members are as good as root, or read what no function should (sandbox.md section 5).
GROUPS_DENIED: Final = (
    *("shadow", "disk", "kmem", "docker", "podman", "lxd", "incus", "incus-admin", "libvirt", "sudo", "wheel", "adm"),
    *("systemd-journal", "gshadow", "ssl-cert", "_ssh"),
)


def denied_groups() -> list[int]:
    """Ids of the groups of GROUPS_DENIED that exist here."""
    return sorted({entry.gr_gid for entry in grp.getgrall() if entry.gr_name in GROUPS_DENIED})


def powerful_accounts() -> list[int]:
    """Uids, other than 0, of accounts that belong to such a group: what runs as one of them may become root, or read
    what root keeps from functions. Looks at /etc/passwd and /etc/group now; blocking, about a millisecond."""
    powerful = [entry for entry in grp.getgrall() if entry.gr_name in GROUPS_DENIED]
    gids = {entry.gr_gid for entry in powerful}
    names = {name for entry in powerful for name in entry.gr_mem}
    uids = {entry.pw_uid for entry in pwd.getpwall() if entry.pw_gid in gids or entry.pw_name in names}
    return sorted(uids - {0})
