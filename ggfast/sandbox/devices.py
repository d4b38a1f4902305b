"""Which devices a worker may touch: allow rules, as v1 lines and as a BPF program for v2 (sandbox.md section 6).

A rule allows reading or reading and writing one device. Making nodes (mknod) is allowed for the five that every
container gets, because its set-up makes them from inside the group; a function cannot make them again (no capability,
filter), and gains nothing if it could. The program tests the full access mask: opening a device for reading and writing
that is allowed for reading only fails.
"""

from __future__ import annotations

import os
import struct
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from ggfast._ext import kernel
from ggfast.errors import SandboxFailed

BLOCK, CHARACTER = 1, 2  # BPF_DEVCG_DEV_*
MAKE, READ, WRITE = 1, 2, 4  # BPF_DEVCG_ACC_*

# eBPF opcodes: load word, move, and, shift right, jumps, exit.
LDXW, MOV_K, MOV_X, AND_K, RSH_K, JNE_K, EXIT = 0x61, 0xB7, 0xBF, 0x57, 0x77, 0x55, 0x95


@dataclass(frozen=True, slots=True)
class DeviceRule:
    """Allow `access` ("r", "rw" or "rwm") to one device, or with `minor` None to all of a driver: what is plugged in
    again gets another number."""

    block: bool
    major: int
    minor: int | None
    access: str

    @property
    def v1_line(self) -> str:
        """As devices.allow wants it."""
        minor = "*" if self.minor is None else str(self.minor)
        return f"{'b' if self.block else 'c'} {self.major}:{minor} {self.access}"


ALWAYS: Final = tuple(
    DeviceRule(False, 1, minor, "rwm")
    for minor in (3, 5, 7, 8, 9)  # null, zero, full, random, urandom
)


def _instruction(code: int, target: int, source: int, offset: int, constant: int) -> bytes:
    return struct.pack("<BBhi", code, source << 4 | target, offset, constant)


def device_program(rules: Sequence[DeviceRule]) -> bytes:
    """eBPF: r2 type, r3 access, r4 major, r5 minor; return 1 at the first rule that allows all of the access."""
    load = _instruction
    code = [
        load(LDXW, 2, 1, 0, 0),
        load(MOV_X, 3, 2, 0, 0),
        load(AND_K, 2, 0, 0, 0xFFFF),
        load(RSH_K, 3, 0, 0, 16),
        load(LDXW, 4, 1, 4, 0),
        load(LDXW, 5, 1, 8, 0),
    ]
    for rule in rules:
        allowed = READ | (WRITE if "w" in rule.access else 0) | (MAKE if "m" in rule.access else 0)
        one = [] if rule.minor is None else [load(JNE_K, 5, 0, 2, rule.minor)]
        code += [
            load(JNE_K, 2, 0, 6 + len(one), BLOCK if rule.block else CHARACTER),
            load(MOV_X, 6, 3, 0, 0),
            load(AND_K, 6, 0, 0, ~allowed),
            load(JNE_K, 6, 0, 3 + len(one), 0),
            load(JNE_K, 4, 0, 2 + len(one), rule.major),
            *one,
            load(MOV_K, 0, 0, 0, 1),
            load(EXIT, 0, 0, 0, 0),
        ]
    code += [load(MOV_K, 0, 0, 0, 0), load(EXIT, 0, 0, 0, 0)]
    return b"".join(code)


def attach_devices(directory: str, rules: Sequence[DeviceRule]) -> None:
    """Attach the device program of `rules` to a v2 group; raises SandboxFailed."""
    fd = program = -1
    try:
        program = kernel.load_device_program(device_program(rules))
        fd = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        kernel.attach_device_program(program, fd)
    except OSError as error:
        raise SandboxFailed("device program", error.errno or 0, f"{directory}: {error.strerror}") from None
    finally:
        for number in (fd, program):
            if number >= 0:
                os.close(number)
