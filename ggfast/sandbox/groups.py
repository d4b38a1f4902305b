"""Linux groups that no function gets: their gid also opens files in the visible host tree (sandbox.md section 5)."""

from __future__ import annotations

import grp
from typing import Final

# Groups whose members are as good as root, or read what no function should.
GROUPS_DENIED: Final = (
    *("shadow", "disk", "kmem", "docker", "podman", "lxd", "incus", "incus-admin", "libvirt", "sudo", "wheel", "adm"),
    *(
        "systemd-journal",
        "gshadow",
        "ssl-cert",
        "_ssh",
        "staff",
        "lpadmin",
        "admin",
        "microk8s",
        "crontab",
        "polkitd",
    ),  # staff may write to /usr/local
)


def denied_groups() -> list[int]:
    """Ids of the groups of GROUPS_DENIED that exist here."""
    found = []
    for name in GROUPS_DENIED:
        try:
            found.append(grp.getgrnam(name).gr_gid)
        except KeyError:
            continue
    return found
