"""Linux groups that own resources, by name or by number (greengrass-core 7.2, 8). Reads the machine's group list."""

from __future__ import annotations

import grp

from ggfast import limits


def group_id(name: str) -> int | None:
    """The id of a group; None if there is none of this name and it is no number."""
    try:
        return grp.getgrnam(name).gr_gid
    except (KeyError, ValueError):  # ValueError: text that no group can be called
        pass
    if name.isascii() and name.isdigit() and len(name) <= 10 and int(name) <= limits.UID_MAX:
        return int(name)
    return None


def group_name(gid: int) -> str:
    """The name of a group, its number if it has none."""
    try:
        return grp.getgrgid(gid).gr_name
    except KeyError:
        return str(gid)
