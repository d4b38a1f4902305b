"""What holds a function without a container (NoContainer): its filter and its limits.

Such a function is meant to be a program of the host: it sees the host's files, devices and processes with the rights
of its ids, and nothing here may break what ordinary programs do. So the filter refuses only what container engines
have refused by default for years without programs missing it:

    looking into other processes   those of other functions of the same uid, once they have become another program
    user namespaces                in which an account gets every capability, and the kernel's holes with them
    kernel machinery               bpf, io_uring, userfaultfd, perf, keys: a history of holes, and of use by few

Everything that asks for a capability fails already, because there is none. Sockets of every family, terminals,
set-id bits and parent-death signals stay: they are an ordinary program's own affair. Programs of the machine's 32-bit
sibling run too, under a table of their own, which a container's filter does not allow.
"""

from __future__ import annotations

import resource
from typing import Final

from ggfast import limits
from ggfast.sandbox.seccomp import (
    ABSENT,
    ALLOW,
    ARCHITECTURES,
    AUDIT_ARCH,
    CEILING,
    ENOSYS,
    EPERM,
    ERRNO,
    EXAMINED,
    JEQ,
    JGT,
    JSET,
    KILL,
    LD,
    REFUSED,
    Block,
    argument,
    ceiling,
    choose,
    encode,
    ret,
    this_architecture,
    tree,
)

LOCKED_BYTES: Final = 8 << 20  # what Linux allows a process from 5.16 on
CLONE_NEWUSER: Final = 0x10000000
AUDIT_ARCH_I386: Final = 0x40000003
REFUSED_HERE: Final = (
    *("ptrace", "process_vm_readv", "process_vm_writev", "pidfd_getfd", "kcmp", "setns"),
    *("bpf", "perf_event_open", "userfaultfd", "io_uring_setup", "io_uring_enter", "io_uring_register"),
    *("add_key", "request_key", "keyctl"),
)
# i386, for programs of it on x86-64: same order of verdicts, numbers of that architecture.
I386_REFUSED: Final = {
    "ptrace": 26, "process_vm_readv": 347, "process_vm_writev": 348, "pidfd_getfd": 438, "kcmp": 349, "setns": 346,
    "bpf": 357, "perf_event_open": 336, "userfaultfd": 374, "io_uring_setup": 425, "io_uring_enter": 426,
    "io_uring_register": 427, "add_key": 286, "request_key": 287, "keyctl": 288,
}  # fmt: skip
I386_CLONE, I386_UNSHARE, CLONE3 = 120, 310, 435
SIBLINGS: Final = {"aarch64": "armv7l", "x86_64": "i386"}  # runs 32-bit programs of


def table(architecture: str) -> dict[int, Block]:
    """What happens to each number that is not simply allowed; `i386` is known here too."""
    no_user_namespace = [argument(0), *choose(JSET, CLONE_NEWUSER, ret(ERRNO | EPERM), ret(ALLOW))]
    if architecture == "i386":
        refused = list(I386_REFUSED.values())
        clone, unshare, clone3 = I386_CLONE, I386_UNSHARE, CLONE3
    else:
        column = ARCHITECTURES.index(architecture)
        refused = [number for name in REFUSED_HERE if (number := REFUSED[name][column]) is not None]
        clone, unshare = EXAMINED["clone"][0][column] or 0, REFUSED["unshare"][column] or 0
        clone3 = ABSENT["clone3"][column]
    found = dict.fromkeys(refused, ret(ERRNO | EPERM))
    # Its flags lie behind a pointer; libc falls back to clone.
    return {**found, clone: no_user_namespace, unshare: no_user_namespace, clone3: ret(ERRNO | ENOSYS)}


def program(architecture: str) -> Block:
    """The whole filter."""
    checks = ret(KILL)
    for name in (SIBLINGS.get(architecture), architecture):
        if name is not None:
            judged = [(LD, 0, 0, 0), *choose(JGT, CEILING, ceiling(name), tree(table(name)))]
            number = AUDIT_ARCH_I386 if name == "i386" else AUDIT_ARCH[name]
            checks = choose(JEQ, number, judged, checks)
    return [(LD, 0, 0, 4), *checks]


def filter_bytes() -> bytes:
    """The encoded filter of this machine; raises SandboxFailed on an unknown architecture."""
    return encode(program(this_architecture()))


def resource_limits() -> tuple[tuple[int, int, int], ...]:
    """(resource, soft, hard): no core files; as many open files and as much locked memory as a program expects, though
    the core has more."""
    _, files = resource.getrlimit(resource.RLIMIT_NOFILE)
    soft = limits.WORKER_OPEN_FILES_MAX if files == resource.RLIM_INFINITY else min(files, limits.WORKER_OPEN_FILES_MAX)
    hard = files if files != resource.RLIM_INFINITY else 0xFFFF_FFFF_FFFF_FFFF
    _, locked = resource.getrlimit(resource.RLIMIT_MEMLOCK)
    kept = LOCKED_BYTES if locked == resource.RLIM_INFINITY else min(locked, LOCKED_BYTES)
    return (
        (resource.RLIMIT_CORE, 0, 0),
        (resource.RLIMIT_NOFILE, soft, hard),
        (resource.RLIMIT_MEMLOCK, kept, kept),
    )
