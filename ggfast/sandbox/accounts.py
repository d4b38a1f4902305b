"""Accounts that are as good as root: no function runs as one unless root's configuration lists it."""

from __future__ import annotations

import glob
import grp
import pwd
from collections.abc import Iterable
from typing import Final

from ggfast import limits
from ggfast.sandbox.groups import GROUPS_DENIED

# polkit's own account writes the rules by which polkit lets others be root, and whoever owns the system bus may answer
# for polkit there.
ACCOUNTS_DENIED: Final = ("polkitd", "messagebus", "dbus")
SUDO_FILES: Final = ("/etc/sudoers", "/etc/sudoers.d/*")


def sudoers(files: Iterable[str] = SUDO_FILES) -> set[str]:
    """Accounts that sudo's files name, in a rule or as members of a User_Alias; their groups are in GROUPS_DENIED."""
    names: set[str] = set()
    for path in (found for pattern in files for found in glob.glob(pattern)):
        try:
            with open(path, encoding="utf-8", errors="replace") as file:
                lines = file.read(limits.SUDO_FILE_BYTES_MAX).replace("\\\n", " ").splitlines()
        except OSError:
            continue
        for line in lines:
            names.update(_named(line))
    return names


def _named(line: str) -> list[str]:
    """The accounts of one line: before the host of a rule, behind the = of an alias."""
    text = line.partition("#")[0].strip()
    if text.startswith("User_Alias"):
        text = text.partition("=")[2]
    elif "=" in text and not text.startswith(("Defaults", "Host_Alias", "Cmnd_Alias", "Runas_Alias", "@", "%", "+")):
        text = " ".join(text.partition("=")[0].split()[:-1])
    else:
        return []
    return [name for name in (part.strip().strip('"') for part in text.split(",")) if name.isprintable() and name]


def powerful_accounts() -> list[int]:
    """Uids, other than 0, of ACCOUNTS_DENIED, of accounts in a group of GROUPS_DENIED, their own or by /etc/group, and
    of those that sudo lets do something: what runs as one of them may become root, or read what root keeps from
    functions. Looks now; blocking, about a millisecond. Who may not read sudo's files sees none of the last kind."""
    powerful = [entry for entry in grp.getgrall() if entry.gr_name in GROUPS_DENIED]
    gids = {entry.gr_gid for entry in powerful}
    names = {*ACCOUNTS_DENIED, *sudoers(), *(name for entry in powerful for name in entry.gr_mem)}
    uids = {entry.pw_uid for entry in pwd.getpwall() if entry.pw_gid in gids or entry.pw_name in names}
    return sorted(uids - {0})
