"""The filter, run in a small BPF interpreter for every number and every argument it looks at."""

from __future__ import annotations

import re
import struct
from collections.abc import Sequence
from pathlib import Path

import pytest

from ggfast.sandbox import seccomp
from ggfast.sandbox.seccomp import ALLOW, ARCHITECTURES, AUDIT_ARCH, CEILING, ERRNO, KILL, SUCCESS

EPERM, ENOSYS, EAFNOSUPPORT = ERRNO | 1, ERRNO | 38, ERRNO | 97
HEADERS = {"x86_64": "/usr/include/x86_64-linux-gnu/asm/unistd_64.h", "aarch64": "/usr/include/asm-generic/unistd.h"}


def run(program: bytes, number: int, arguments: Sequence[int] = (), arch: int = 0) -> int:
    """Classic BPF as the kernel defines it: the verdict for one call."""
    padded = [*arguments, 0, 0, 0, 0, 0, 0][:6]
    data = struct.pack("<II Q 6Q", number & 0xFFFFFFFF, arch, 0x1000, *(a & (1 << 64) - 1 for a in padded))
    code = [struct.unpack_from("<HBBI", program, at) for at in range(0, len(program), 8)]
    at = accumulator = 0
    while True:
        operation, true, false, constant = code[at]
        at += 1
        if operation == 0x06:
            return constant
        if operation == 0x20:
            accumulator = struct.unpack_from("<I", data, constant)[0]
        elif operation == 0x54:
            accumulator &= constant
        elif operation == 0x05:
            at += constant
        else:
            tests = {
                0x15: accumulator == constant,
                0x25: accumulator > constant,
                0x35: accumulator >= constant,
                0x45: bool(accumulator & constant),
            }
            at += true if tests[operation] else false


@pytest.fixture(params=ARCHITECTURES)
def arch(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def judge(arch: str, number: int, *arguments: int, families: tuple[int, ...] = ()) -> int:
    program = seccomp.encode(seccomp.program(arch, families))
    return run(program, number, arguments, AUDIT_ARCH[arch])


def number(arch: str, name: str) -> int | None:
    """A number from the tables."""
    column = ARCHITECTURES.index(arch)
    for table in (seccomp.REFUSED, seccomp.ABSENT, {name: row for name, (row, _) in seccomp.EXAMINED.items()}):
        if name in table:
            return table[name][column]
    raise KeyError(name)


def test_every_number_gets_its_verdict(arch: str) -> None:
    column = ARCHITECTURES.index(arch)
    program = seccomp.encode(seccomp.program(arch))
    refused = {row[column] for row in seccomp.REFUSED.values()}
    absent = {row[column] for row in seccomp.ABSENT.values()}
    examined = {row[column] for row, _ in seccomp.EXAMINED.values()} | {seccomp.SOCKET[column]}
    for value in range(1200):
        verdict = run(program, value, (), AUDIT_ARCH[arch])
        if value > CEILING or value in absent:
            assert verdict == ENOSYS, value
        elif value in refused:
            assert verdict == EPERM, value
        elif value not in examined:
            assert verdict == ALLOW, value


def test_no_number_stands_in_two_rows(arch: str) -> None:
    column = ARCHITECTURES.index(arch)
    rows = [*seccomp.REFUSED.values(), *seccomp.ABSENT.values(), *(row for row, _ in seccomp.EXAMINED.values())]
    numbers = [row[column] for row in [*rows, seccomp.SOCKET] if row[column] is not None]
    assert len(numbers) == len(set(numbers))


def test_other_architectures_are_killed(arch: str) -> None:
    program = seccomp.encode(seccomp.program(arch))
    for other in (*AUDIT_ARCH.values(), 0x40000003, 0, 0xFFFFFFFF):
        assert (run(program, 1, (), other) == KILL) == (other != AUDIT_ARCH[arch])


def test_x32_and_negative_numbers_do_not_exist(arch: str) -> None:
    for value in (0x40000000, 0x40000000 + 39, 0x40000208, -1, -(1 << 31), 0x7FFFFFFF):
        assert judge(arch, value) == ENOSYS


def test_private_calls_exist_on_arm_alone(arch: str) -> None:
    expected = ALLOW if arch == "armv7l" else ENOSYS
    assert [judge(arch, value) for value in (0x0F0000, 0x0F0002, 0x0F0005, 0x0F00FF)] == [expected] * 4
    assert judge(arch, 0x0EFFFF) == judge(arch, 0x0F0100) == ENOSYS


@pytest.mark.parametrize("flag", [0x20000, 0x2000000, 0x4000000, 0x8000000, 0x10000000, 0x20000000, 0x40000000])
def test_clone_makes_no_namespace(arch: str, flag: int) -> None:
    clone = number(arch, "clone")
    assert clone is not None
    assert judge(arch, clone, 0x11 | flag) == EPERM
    assert judge(arch, clone, 0x3D0F00) == ALLOW  # a thread
    assert judge(arch, clone, 0x11) == ALLOW  # a process


def test_socket_families(arch: str) -> None:
    call = seccomp.SOCKET[ARCHITECTURES.index(arch)]
    for family in (1, 2, 10):
        for kind in (1, 2, 5):
            assert judge(arch, call, family, kind | 0o2000000) == ALLOW  # with SOCK_CLOEXEC
        assert judge(arch, call, family, 3 | 0o4000) == EPERM
        assert judge(arch, call, family, 10) == EPERM
    assert judge(arch, call, 16, 3) == ALLOW  # netlink is raw by nature
    assert {judge(arch, call, family, 1) for family in (0, 3, 17, 29, 31, 38, 40, 44)} == {EAFNOSUPPORT}
    assert judge(arch, call, 29, 1, families=(29,)) == ALLOW
    assert judge(arch, call, 29, 3, families=(29,)) == EPERM


def test_terminal_injection(arch: str) -> None:
    ioctl = number(arch, "ioctl")
    assert ioctl is not None
    assert judge(arch, ioctl, 0, 0x5412) == judge(arch, ioctl, 0, 0x541C) == EPERM
    assert judge(arch, ioctl, 0, 0x5412 | 1 << 32) == EPERM  # the kernel looks at the low half
    assert judge(arch, ioctl, 0, 0x5401) == ALLOW


def test_the_parent_death_signal_stays(arch: str) -> None:
    prctl = number(arch, "prctl")
    assert prctl is not None
    assert judge(arch, prctl, 1, 0) == SUCCESS
    assert judge(arch, prctl, 15) == ALLOW


MODES = [("chmod", 1), ("fchmod", 1), ("fchmodat", 2), ("fchmodat2", 2), ("creat", 1), ("mkdir", 1), ("mkdirat", 2)]


@pytest.mark.parametrize(("name", "position"), MODES)
def test_setid_bits_are_refused(arch: str, name: str, position: int) -> None:
    call = number(arch, name)
    if call is None:
        assert arch == "aarch64"  # the generic table has the `at` forms only
        return
    for mode in (0o4755, 0o2755, 0o6000):
        assert judge(arch, call, *[0] * position, mode) == EPERM
    assert judge(arch, call, *[0] * position, 0o1777) == ALLOW


@pytest.mark.parametrize(("name", "flags"), [("open", 1), ("openat", 2)])
def test_open_looks_at_the_mode_only_when_it_creates(arch: str, name: str, flags: int) -> None:
    call = number(arch, name)
    if call is None:
        assert arch == "aarch64"
        return
    assert judge(arch, call, *[0] * flags, 0o101, 0o4755) == EPERM
    assert judge(arch, call, *[0] * flags, 0o20200002, 0o2755) == EPERM  # O_TMPFILE
    assert judge(arch, call, *[0] * flags, 0o101, 0o644) == ALLOW
    assert judge(arch, call, *[0] * flags, 0o2, 0o7777) == ALLOW  # the mode is garbage then


@pytest.mark.parametrize(("name", "position"), [("mknod", 1), ("mknodat", 2)])
def test_only_pipes_are_made(arch: str, name: str, position: int) -> None:
    call = number(arch, name)
    if call is None:
        assert arch == "aarch64"
        return
    assert judge(arch, call, *[0] * position, 0o010644) == ALLOW
    for mode in (0o020666, 0o060666, 0o100644, 0o140644, 0o644, 0o014755):
        assert judge(arch, call, *[0] * position, mode) == EPERM


@pytest.mark.parametrize("arch", [arch for arch in HEADERS if Path(HEADERS[arch]).exists()])
def test_numbers_agree_with_the_kernel_headers(arch: str) -> None:
    text = Path(HEADERS[arch]).read_text()
    known = {name: int(value) for name, value in re.findall(r"#define __NR_(\w+)\s+(\d+)", text)}
    column = ARCHITECTURES.index(arch)
    rows = {**seccomp.REFUSED, **seccomp.ABSENT, **{name: row for name, (row, _) in seccomp.EXAMINED.items()}}
    for name, row in {**rows, "socket": seccomp.SOCKET}.items():
        if row[column] is not None and name in known:
            assert row[column] == known[name], name
    missing = {name for name, row in rows.items() if row[column] is None and known.get(name, CEILING + 1) <= CEILING}
    assert missing <= {"clock_settime64", "clock_adjtime64"}  # the generic header serves 32-bit machines too


def test_install_flags_follow_the_kernel() -> None:
    assert [seccomp.install_flags(text) for text in ("4.16.0", "6.1.0-rpi", "odd")] == [0, 0, 0]
    assert [seccomp.install_flags(text) for text in ("4.17.1", "5.10.63-v7+", "5.15.0")] == [seccomp.SPEC_ALLOW] * 3


def test_filter_is_made_once() -> None:
    assert seccomp.filter_bytes() is seccomp.filter_bytes()
    assert len(seccomp.filter_bytes()) // 8 < 4096  # BPF_MAXINSNS
