"""The system call filter of workers: classic BPF, written by hand, made once and kept as bytes.

It is a deny list below a ceiling (sandbox.md section 7): functions bring native code and every libc differs,
so what is not known to be dangerous passes; what is newer than our table gets ENOSYS, as on an older kernel.

    architecture differs -> kill    ARM private calls -> allow    number > CEILING (x32 too) -> ENOSYS
    then a binary tree over the number: allow, refuse, or look at an argument

Numbers are the kernel's, per architecture, in the order of `ARCHITECTURES`; None where a call does not exist.
"""

from __future__ import annotations

import os
import struct
from collections.abc import Callable, Iterable
from typing import Final

from ggfast.errors import SandboxFailed

Instruction = tuple[int, int, int, int]  # code, jump if true, jump if false, constant
Block = list[Instruction]

ARCHITECTURES: Final = ("x86_64", "aarch64", "armv7l")
AUDIT_ARCH: Final = {"x86_64": 0xC000003E, "aarch64": 0xC00000B7, "armv7l": 0x40000028}
ARM_PRIVATE: Final = (0x0F0000, 0x0F00FF)  # set_tls, cacheflush: above the ceiling, and libc needs them
CEILING: Final = 456  # futex_requeue (Linux 6.7): the newest call this table has judged

LD, AND, JEQ, JGT, JGE, JSET, JA, RET = 0x20, 0x54, 0x15, 0x25, 0x35, 0x45, 0x05, 0x06
KILL: Final = 0x80000000  # the process; kernels before 4.14 kill the thread
ALLOW: Final = 0x7FFF0000
ERRNO: Final = 0x00050000
EPERM, ENOSYS, EAFNOSUPPORT = 1, 38, 97
SUCCESS: Final = ERRNO  # answers 0 and does nothing

CLONE_NAMESPACES: Final = 0x7E020000  # every CLONE_NEW* that clone(2) takes
CREATE_FLAGS: Final = 0o100 | 0o20000000  # O_CREAT, __O_TMPFILE: otherwise the mode argument is garbage
SETID_BITS: Final = 0o6000
# Type into a terminal, steal its selection, or put a line discipline (and the holes of its driver) on a serial line.
TERMINAL_REQUESTS: Final = (0x5412, 0x541C, 0x5423)  # TIOCSTI, TIOCLINUX, TIOCSETD
AF_UNIX, AF_INET, AF_INET6, AF_NETLINK = 1, 2, 10, 16
SOCK_RAW, SOCK_PACKET = 3, 10
PR_SET_PDEATHSIG = 1
SPEC_ALLOW: Final = 1 << 2

REFUSED: Final[dict[str, tuple[int | None, int | None, int | None]]] = {
    # mounts, roots, namespaces
    "mount": (165, 40, 21), "umount2": (166, 39, 52), "pivot_root": (155, 41, 218), "chroot": (161, 51, 61),
    "open_tree": (428, 428, 428), "move_mount": (429, 429, 429), "fsopen": (430, 430, 430),
    "fsconfig": (431, 431, 431), "fsmount": (432, 432, 432), "fspick": (433, 433, 433),
    "mount_setattr": (442, 442, 442), "unshare": (272, 97, 337), "setns": (308, 268, 375),
    # other processes
    "ptrace": (101, 117, 26), "process_vm_readv": (310, 270, 376), "process_vm_writev": (311, 271, 377),
    "pidfd_getfd": (438, 438, 438), "kcmp": (312, 272, 378), "process_madvise": (440, 440, 440),
    "process_mrelease": (448, 448, 448),
    # kernel machinery with a history of holes
    "bpf": (321, 280, 386), "perf_event_open": (298, 241, 364), "userfaultfd": (323, 282, 388),
    "io_uring_setup": (425, 425, 425), "io_uring_enter": (426, 426, 426), "io_uring_register": (427, 427, 427),
    "add_key": (248, 217, 309), "request_key": (249, 218, 310), "keyctl": (250, 219, 311),
    "fanotify_init": (300, 262, 367), "fanotify_mark": (301, 263, 368),
    "name_to_handle_at": (303, 264, 370), "open_by_handle_at": (304, 265, 371),
    "lookup_dcookie": (212, 18, 249),
    # the machine
    "init_module": (175, 105, 128), "delete_module": (176, 106, 129), "finit_module": (313, 273, 379),
    "create_module": (174, None, None), "query_module": (178, None, None), "get_kernel_syms": (177, None, None),
    "kexec_load": (246, 104, 347), "kexec_file_load": (320, 294, 401), "reboot": (169, 142, 88),
    "swapon": (167, 224, 87), "swapoff": (168, 225, 115), "acct": (163, 89, 51), "syslog": (103, 116, 103),
    "quotactl": (179, 60, 131), "quotactl_fd": (443, 443, 443), "vhangup": (153, 58, 111),
    "settimeofday": (164, 170, 79), "adjtimex": (159, 171, 124), "clock_settime": (227, 112, 262),
    "clock_adjtime": (305, 266, 372), "clock_settime64": (None, None, 404), "clock_adjtime64": (None, None, 405),
    "sethostname": (170, 161, 74), "setdomainname": (171, 162, 121), "personality": (135, 92, 136),
    "iopl": (172, None, None), "ioperm": (173, None, None), "modify_ldt": (154, None, None),
    "pciconfig_iobase": (None, None, 271), "pciconfig_read": (None, None, 272), "pciconfig_write": (None, None, 273),
    "_sysctl": (156, None, 149), "nfsservctl": (180, 42, 169), "uselib": (134, None, 86),
    "vserver": (236, None, 313),
    # memory placement
    "mbind": (237, 235, 319), "set_mempolicy": (238, 237, 321), "get_mempolicy": (239, 236, 320),
    "migrate_pages": (256, 238, 400), "move_pages": (279, 239, 344),
    "set_mempolicy_home_node": (450, 450, 450),
}  # fmt: skip

# Their arguments lie behind pointers where no filter can look; libc falls back to clone and openat.
ABSENT: Final = {"clone3": (435, 435, 435), "openat2": (437, 437, 437)}


def ret(value: int) -> Block:
    """End with this verdict."""
    return [(RET, 0, 0, value)]


def argument(index: int) -> Instruction:
    """Load the low half of an argument; every value judged here is an int to the kernel."""
    return (LD, 0, 0, 16 + 8 * index)


def choose(test: int, constant: int, then: Block, otherwise: Block) -> Block:
    """`if accumulator <test> constant` over two blocks that both end in a verdict."""
    if len(otherwise) < 256:
        return [(test, len(otherwise), 0, constant), *otherwise, *then]
    return [(test, 0, 1, constant), (JA, 0, 0, len(otherwise)), *otherwise, *then]


def any_of(constants: Iterable[int], then: Block, otherwise: Block) -> Block:
    """Equality with one of several constants."""
    block = otherwise
    for constant in constants:
        block = choose(JEQ, constant, then, block)
    return block


def _clone() -> Block:
    return [argument(0), *choose(JSET, CLONE_NAMESPACES, ret(ERRNO | EPERM), ret(ALLOW))]


def _socket(families: Iterable[int]) -> Block:
    raw = [argument(1), (AND, 0, 0, 0xF), *any_of((SOCK_RAW, SOCK_PACKET), ret(ERRNO | EPERM), ret(ALLOW))]
    checked = ret(ERRNO | EAFNOSUPPORT)
    for family in (*families, AF_UNIX, AF_INET, AF_INET6):
        checked = choose(JEQ, family, raw, checked)
    return [argument(0), *choose(JEQ, AF_NETLINK, ret(ALLOW), checked)]


def _ioctl() -> Block:
    return [argument(1), *any_of(TERMINAL_REQUESTS, ret(ERRNO | EPERM), ret(ALLOW))]


def _prctl() -> Block:
    # A function that clears its parent-death signal would outlive the spawner; it is told that it did.
    return [argument(0), *choose(JEQ, PR_SET_PDEATHSIG, ret(SUCCESS), ret(ALLOW))]


def _mode(index: int) -> Block:
    return [argument(index), *choose(JSET, SETID_BITS, ret(ERRNO | EPERM), ret(ALLOW))]


def _open(flags: int, mode: int) -> Block:
    return [argument(flags), *choose(JSET, CREATE_FLAGS, _mode(mode), ret(ALLOW))]


def _mknod(mode: int) -> Block:
    # mkfifo(3) is mknod with S_IFIFO, and ordinary programs use it.
    kind = [(AND, 0, 0, 0o170000), *choose(JEQ, 0o010000, ret(ALLOW), ret(ERRNO | EPERM))]
    return [argument(mode), *choose(JSET, SETID_BITS, ret(ERRNO | EPERM), kind)]


EXAMINED: Final[dict[str, tuple[tuple[int | None, int | None, int | None], Callable[[], Block]]]] = {
    "clone": ((56, 220, 120), _clone),
    "ioctl": ((16, 29, 54), _ioctl),
    "prctl": ((157, 167, 172), _prctl),
    "open": ((2, None, 5), lambda: _open(1, 2)),
    "openat": ((257, 56, 322), lambda: _open(2, 3)),
    "creat": ((85, None, 8), lambda: _mode(1)),
    "chmod": ((90, None, 15), lambda: _mode(1)),
    "fchmod": ((91, 52, 94), lambda: _mode(1)),
    "fchmodat": ((268, 53, 333), lambda: _mode(2)),
    "fchmodat2": ((452, 452, 452), lambda: _mode(2)),
    "mkdir": ((83, None, 39), lambda: _mode(1)),
    "mkdirat": ((258, 34, 323), lambda: _mode(2)),
    "mknod": ((133, None, 14), lambda: _mknod(1)),
    "mknodat": ((259, 33, 324), lambda: _mknod(2)),
}
SOCKET: Final = (41, 198, 281)


def verdicts(architecture: str, families: Iterable[int] = ()) -> dict[int, Block]:
    """What happens to each number that is not simply allowed."""
    column = ARCHITECTURES.index(architecture)
    table: dict[int, Block] = {SOCKET[column]: _socket(families)}
    for numbers in REFUSED.values():
        if (number := numbers[column]) is not None:
            table[number] = ret(ERRNO | EPERM)
    for numbers in ABSENT.values():
        table[numbers[column]] = ret(ERRNO | ENOSYS)
    for examined, block in EXAMINED.values():
        if (number := examined[column]) is not None:
            table[number] = block()
    return table


def _search(segments: list[tuple[int, Block]]) -> Block:
    """Binary search: `segments` are (first number, what happens from there on), ascending."""
    if len(segments) == 1:
        return segments[0][1]
    middle = len(segments) // 2
    return choose(JGE, segments[middle][0], _search(segments[middle:]), _search(segments[:middle]))


def tree(table: dict[int, Block]) -> Block:
    """The verdict of `table` for the number in the accumulator; what is not in it is allowed."""
    segments: list[tuple[int, Block]] = [(0, ret(ALLOW))]
    for number in sorted(table):
        if segments[-1][0] == number:
            segments.pop()
        if not segments or segments[-1][1] != table[number]:
            segments.append((number, table[number]))
        segments.append((number + 1, ret(ALLOW)))
    return _search(segments)


def ceiling(architecture: str) -> Block:
    """What happens to numbers above CEILING: unknown, as on an older kernel."""
    above = ret(ERRNO | ENOSYS)
    if architecture != "armv7l":
        return above
    first, last = ARM_PRIVATE
    return choose(JGE, first, choose(JGT, last, above, ret(ALLOW)), above)


def program(architecture: str, families: Iterable[int] = ()) -> Block:
    """The whole filter; `families` are socket families allowed besides unix, inet, inet6 and netlink."""
    table = verdicts(architecture, tuple(families))
    # Unsigned comparison: the x32 bit and negative numbers are above the ceiling as well.
    judged: Block = [(LD, 0, 0, 0), *choose(JGT, CEILING, ceiling(architecture), tree(table))]
    return [(LD, 0, 0, 4), *choose(JEQ, AUDIT_ARCH[architecture], judged, ret(KILL))]


def encode(block: Block) -> bytes:
    """struct sock_filter, host byte order (all three architectures are little endian)."""
    return b"".join(struct.pack("<HBBI", *instruction) for instruction in block)


def this_architecture() -> str:
    """The key of ARCHITECTURES for this process; a 32-bit interpreter on a 64-bit ARM kernel is armv7l.

    Raises SandboxFailed where no table exists.
    """
    machine, bits = os.uname().machine, struct.calcsize("P") * 8
    if machine in ("armv6l", "armv7l", "armv8l", "aarch64") and bits == 32:
        return "armv7l"
    if machine in ("x86_64", "aarch64") and bits == 64:
        return machine
    raise SandboxFailed(
        "seccomp",
        ENOSYS,
        f"no system call table: found {machine} with {bits} bits, expected one of {', '.join(ARCHITECTURES)}",
        hint="Functions cannot be held on this processor: use x86-64, ARMv7 or ARMv8.",
    )


def install_flags(release: str) -> int:
    """Flags of seccomp(2) for a kernel release: from 4.17 to 5.15 a filter switches a costly mitigation on."""
    try:
        major, minor = (int(part) for part in release.split("-")[0].split(".")[:2])
    except ValueError:
        return 0
    return SPEC_ALLOW if (4, 17) <= (major, minor) <= (5, 15) else 0


_made: dict[tuple[str, tuple[int, ...]], bytes] = {}


def filter_bytes(families: tuple[int, ...] = ()) -> bytes:
    """The encoded filter of this machine, made once per set of extra socket families."""
    key = (this_architecture(), families)
    if key not in _made:
        _made[key] = encode(program(*key))
    return _made[key]
