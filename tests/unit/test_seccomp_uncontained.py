"""The filter of functions without a container, in the BPF interpreter of test_seccomp."""

from __future__ import annotations

import re
import resource
from pathlib import Path

import pytest
from test_seccomp import ENOSYS, EPERM, run

from ggfast.sandbox import seccomp, uncontained
from ggfast.sandbox.seccomp import ALLOW, ARCHITECTURES, AUDIT_ARCH, CEILING, KILL

I386_HEADER = Path("/usr/include/x86_64-linux-gnu/asm/unistd_32.h")
SIDES = [(arch, arch) for arch in ARCHITECTURES] + [("aarch64", "armv7l"), ("x86_64", "i386")]
NUMBERS = {**AUDIT_ARCH, "i386": uncontained.AUDIT_ARCH_I386}


@pytest.mark.parametrize(("machine", "program"), SIDES)
def test_every_number_gets_its_verdict(machine: str, program: str) -> None:
    """Only what is in the table is refused, also to 32-bit programs of a 64-bit machine."""
    code = seccomp.encode(uncontained.program(machine))
    table = uncontained.table(program)
    for value in range(1200):
        verdict = run(code, value, (), NUMBERS[program])
        if value > CEILING:
            assert verdict == ENOSYS, value
        elif value not in table:
            assert verdict == ALLOW, value
    verdicts = [run(code, value, (), NUMBERS[program]) for value in table]
    assert (verdicts.count(EPERM), verdicts.count(ENOSYS)) == (len(uncontained.REFUSED_HERE), 1)
    assert verdicts.count(ALLOW) == 2  # clone and unshare, without flags


@pytest.mark.parametrize(("machine", "program"), SIDES)
def test_user_namespaces_alone_are_refused(machine: str, program: str) -> None:
    code = seccomp.encode(uncontained.program(machine))
    refused = dict.fromkeys(uncontained.table(program))
    for flags, verdict in ((0x10000000, EPERM), (0x10000011, EPERM), (0x20000, ALLOW), (0x3D0F00, ALLOW)):
        found = [run(code, value, (flags,), NUMBERS[program]) for value in refused]
        assert found.count(verdict) == {EPERM: len(uncontained.REFUSED_HERE) + 2, ALLOW: 2}[verdict]


@pytest.mark.parametrize("machine", ARCHITECTURES)
def test_strangers_architectures_are_killed(machine: str) -> None:
    code = seccomp.encode(uncontained.program(machine))
    own = {NUMBERS[program] for side, program in SIDES if side == machine}
    for other in {*NUMBERS.values(), 0, 0xFFFFFFFF}:
        assert (run(code, 1, (), other) == KILL) is (other not in own)


@pytest.mark.parametrize("machine", ARCHITECTURES)
def test_x32_and_negative_numbers_do_not_exist(machine: str) -> None:
    code = seccomp.encode(uncontained.program(machine))
    for value in (0x40000000, 0x40000065, -1, 0x7FFFFFFF):
        assert run(code, value, (), AUDIT_ARCH[machine]) == ENOSYS
    private = ALLOW if machine == "armv7l" else ENOSYS
    assert run(code, 0x0F0005, (), AUDIT_ARCH[machine]) == private


def test_numbers_of_i386_are_those_of_the_header() -> None:
    """Where the compiler's headers know that architecture; every call the table names must be in it."""
    assert set(uncontained.I386_REFUSED) == set(uncontained.REFUSED_HERE)
    text = I386_HEADER.read_text() if I386_HEADER.exists() else ""
    known = {name: int(value) for name, value in re.findall(r"#define __NR_(\w+) (\d+)", text)}
    wanted = {**uncontained.I386_REFUSED, "clone": uncontained.I386_CLONE, "unshare": uncontained.I386_UNSHARE}
    for name, value in wanted.items():
        assert known.get(name, value) == value, name


def test_resource_limits_stay_within_the_cores_own() -> None:
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    found = {kind: (soft, top) for kind, soft, top in uncontained.resource_limits()}
    assert found[resource.RLIMIT_CORE] == (0, 0)
    soft, top = found[resource.RLIMIT_NOFILE]
    assert soft <= 1024
    assert soft <= top
    assert hard == resource.RLIM_INFINITY or top == hard
