"""Accounts that are as good as root: no function runs as one unless root's configuration lists it."""

from __future__ import annotations

import grp
import pwd
from typing import Final

from ggfast.sandbox.groups import GROUPS_DENIED

# polkit's own account writes the rules by which polkit lets others be root, and whoever owns the system bus may answer
# for polkit there.
ACCOUNTS_DENIED: Final = ("polkitd", "messagebus", "dbus")


def powerful_accounts() -> list[int]:
    """Uids, other than 0, of ACCOUNTS_DENIED and of accounts in a group of GROUPS_DENIED, their own or by /etc/group:
    what runs as one of them may become root, or read what root keeps from functions. Looks now; blocking, about a
    millisecond."""
    powerful = [entry for entry in grp.getgrall() if entry.gr_name in GROUPS_DENIED]
    gids = {entry.gr_gid for entry in powerful}
    names = {*ACCOUNTS_DENIED, *(name for entry in powerful for name in entry.gr_mem)}
    uids = {entry.pw_uid for entry in pwd.getpwall() if entry.pw_gid in gids or entry.pw_name in names}
    return sorted(uids - {0})
