"""Names and privileges of the supervisor and the daemon at their start; never on the way of a worker.

python-prctl does what it can where it is installed (it is optional: see NOTICE); the extension module covers
the same calls and whatever is newer than python-prctl's tables. The only door to that package.
"""

from __future__ import annotations

import os
import signal
from types import ModuleType
from typing import Final

from ggfast._ext import kernel

PR_SET_PDEATHSIG, PR_SET_NAME, PR_SET_SECUREBITS, PR_SET_NO_NEW_PRIVS = 1, 15, 28, 38
# What the spawner was found to need, one by one (sandbox.md section 2). CHOWN: copies of directories above
# hidden trees keep their owner. SYS_CHROOT: setns into the host's mount namespace for the daemon.
# NET_ADMIN: kernels before 5.8 want it to attach a device program; kept only where such programs are used.
CHOWN, DAC_OVERRIDE, KILL, SETGID, SETUID, SETPCAP = 0, 1, 5, 6, 7, 8
# SYS_RESOURCE: with it a worker's oom_score_adj of 500 is also its minimum; without it the function could go back to
# the supervisor's own. Wanted, not needed: nothing else fails where it is missing.
NET_ADMIN, SYS_CHROOT, SYS_ADMIN, SYS_RESOURCE, MKNOD = 12, 18, 21, 24, 27
SPAWNER: Final = (CHOWN, DAC_OVERRIDE, KILL, SETGID, SETUID, SETPCAP, SYS_CHROOT, SYS_ADMIN, MKNOD)
UNCONTAINED: Final = (KILL, SETGID, SETUID, SETPCAP)  # of these, what functions without a container take as well
SECBIT_NOROOT_LOCKED: Final = 0x3  # NOROOT and its lock: uid 0 means nothing special after an exec


def python_prctl() -> ModuleType | None:
    """The optional package."""
    try:
        import prctl
    except ImportError:
        return None
    return prctl if isinstance(prctl, ModuleType) else None


def cut_bounding_set(*, device_programs: bool) -> None:
    """Leave the spawner only the capabilities it uses; raises OSError."""
    keep = [*SPAWNER, SYS_RESOURCE, *([NET_ADMIN] if device_programs else [])]
    kernel.drop_bounding(sum(1 << number for number in keep))


def set_process_name(name: str) -> None:
    """The 15 characters that `ps -o comm` and the kernel's messages show."""
    package = python_prctl()
    if package is not None:
        package.set_name(name[:15])
        return
    with open("/proc/self/comm", "w", encoding="utf-8") as file:
        file.write(name[:15])


def prefer_survival(score: int) -> str | None:
    """Lower this process's oom score; the reason where that is refused (no CAP_SYS_RESOURCE)."""
    try:
        with open("/proc/self/oom_score_adj", "w", encoding="ascii") as file:
            file.write(str(score))
    except OSError as error:
        return f"oom_score_adj {score}: {os.strerror(error.errno or 0)}"
    return None


def become_daemon_user(uid: int, gid: int, groups: list[int]) -> None:
    """Irrevocably this user: empty bounding set, ids, no capabilities, locked securebit NOROOT, no_new_privs, and
    death with the parent. Raises OSError; the order is the kernel's (sandbox.md section 3, rows 15 to 17)."""
    package = python_prctl()
    if uid != 0:
        if package is not None:
            package.securebits.noroot = package.securebits.noroot_locked = True
        else:
            kernel.prctl(PR_SET_SECUREBITS, SECBIT_NOROOT_LOCKED)
    kernel.drop_bounding(0)
    os.setgroups(groups)
    os.setresgid(gid, gid, gid)
    os.setresuid(uid, uid, uid)
    if package is not None:
        package.cap_effective.limit()
        package.cap_permitted.limit()
        package.set_no_new_privs(1)
    kernel.drop_capabilities()  # what a package built for older kernels does not know by name
    kernel.prctl(PR_SET_NO_NEW_PRIVS, 1)
    kernel.prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
