"""What the tests of the hostile-function checklist share: a cage, its surroundings on the host, rows of the table.

An attempt is a function in `attempts/`. `Cage.run` executes it in a real container, `outside` as an ordinary
process of the host: the control that shows that the attempt would work if nothing stopped it.
"""

from __future__ import annotations

import itertools
import json
import os
import shutil
import socket
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any, Final, TypeVar

import pytest

from ggfast.sandbox.launch import LaunchSpec
from tests.sandbox.harness import Sandbox, Worker

ATTEMPTS: Final = Path(__file__).parent / "attempts"
WHO: Final = pytest.mark.parametrize("who", ["user", "root"])
PYTHON: Final = os.path.realpath(sys.executable)
PLACES: Final = "/srv" if os.path.isdir("/srv") else "/opt"  # where functions see the host's directories
Test = TypeVar("Test", bound=Callable[..., object])


@dataclass(frozen=True)
class Row:
    """One line of HOSTILE.md: number of sandbox.md section 13, what is tried, what stops it, what it gets."""

    number: int
    attempt: str
    stopped_by: str
    result: str


def row(number: int, attempt: str, *, by: str, result: str) -> Callable[[Test], Test]:
    """Marks the test of a row; the table is made from these marks."""

    def mark(test: Test) -> Test:
        test.rows = [*getattr(test, "rows", ()), Row(number, attempt, by, result)]  # type: ignore[attr-defined]
        return test

    return mark


@cache
def call_numbers() -> dict[str, int]:
    """Every system call of this machine, from the headers of its C library rather than from our own tables."""
    text = subprocess.run(
        ["cc", "-E", "-dM", "-include", "sys/syscall.h", "-x", "c", "/dev/null"],
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    words = [line.split() for line in text.splitlines() if line.startswith("#define __NR_")]
    return {line[1].removeprefix("__NR_"): int(line[2]) for line in words if len(line) == 3 and line[2].isdigit()}


@cache
def _text(module: str) -> str:
    return (ATTEMPTS / "common.py").read_text() + (ATTEMPTS / f"{module}.py").read_text()


def source(name: str, arguments: dict[str, Any]) -> str:
    """What a worker runs for the attempt "module.function"."""
    module, function = name.split(".")
    head = f"import json\nN = json.loads({json.dumps(call_numbers())!r})\nA = json.loads({json.dumps(arguments)!r})\n"
    return f"{head}{_text(module)}\n\nattempt = {function}\n"


def outside(name: str, *, uid: int, gid: int, **arguments: Any) -> Any:
    """The attempt as an ordinary process of the host with this identity: nothing of ours around it."""
    program = source(name, {**arguments, "outside": True}) + "\nprint(json.dumps(attempt()))\n"
    done = subprocess.run(
        [PYTHON, "-I", "-S", "-"],
        input=program, capture_output=True, text=True, timeout=60, check=False, user=uid, group=gid, extra_groups=[],
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


class _Box(Sandbox):
    """The harness with another daemon."""

    def __init__(self, *, daemon_program: Path | None = None, **options: Any) -> None:
        super().__init__(**options)
        self._daemon_program = daemon_program

    def spec(self, ready_fd: int | None = None, listener: int = -1) -> LaunchSpec:
        made = super().spec(ready_fd, listener)
        if self._daemon_program is None:
            return made
        argv = (sys.executable, "-I", "-S", str(self._daemon_program), *self.daemon_arguments)
        return replace(made, daemon=replace(made.daemon, argv=argv))


class Cage:
    """A supervisor and, on the host, a place with one visible and one hidden file that anybody may read.

    The place lies outside /tmp, /var and /run, which containers never show: only a whiteout hides what is hidden
    there. `shared` in it is a mount of its own, and a shared one, as every mount of a machine with systemd is.
    """

    def __init__(self, box: Sandbox, place: Path) -> None:
        self.box = box
        self.place = place
        self.visible = place / "visible"
        self.hidden = place / "hidden" / "key"
        self.shared = place / "shared"
        self.user = box.users.function_uid
        self.group = box.users.function_gid
        self._serial = itertools.count()

    def identity(self, who: str) -> dict[str, int]:
        """uid and gid of a kind of function."""
        return {"uid": 0, "gid": 0} if who == "root" else {"uid": self.user, "gid": self.group}

    def run(self, name: str, who: str, spec: dict[str, Any] | None = None, **arguments: Any) -> Any:
        """The attempt's answer, from inside."""
        return self.box.run(source(name, arguments), **self.identity(who), **(spec or {}))

    def start(self, name: str, who: str, spec: dict[str, Any] | None = None, **arguments: Any) -> Worker:
        """The attempt as a worker that is looked at from outside."""
        return self.box.spawn(source(name, arguments), **self.identity(who), **(spec or {}))

    def outside(self, name: str, who: str, **arguments: Any) -> Any:
        """The control."""
        return outside(name, **self.identity(who), **arguments)

    def volume(self, *, writable: bool = True, shared: bool = False) -> tuple[Path, dict[str, Any]]:
        """A fresh directory on the host that everybody may write to, and a spec that mounts it at /mnt/volume."""
        path = (self.shared if shared else self.place) / f"volume{next(self._serial)}"
        path.mkdir()
        path.chmod(0o777)
        return path, {"mounts": [{"source": str(path), "destination": "/mnt/volume", "writable": writable}]}


@contextmanager
def cage_with(**options: Any) -> Iterator[Cage]:
    """A cage of one's own; `options` go to the harness."""
    place = Path(tempfile.mkdtemp(prefix="ggfast-hostile-", dir=PLACES))
    place.chmod(0o755)
    shared = place / "shared"
    for name in ("hidden", "empty", "shared"):
        (place / name).mkdir()
    subprocess.run(["mount", "--bind", shared, shared], check=True)
    try:
        subprocess.run(["mount", "--make-shared", shared], check=True)
        (shared / "hidden").mkdir()
        for name in ("visible", "second", "hidden/key", "shared/visible", "shared/hidden/key"):
            (place / name).write_text("sentinel")
        policy = {"hidden": [str(place / "hidden"), str(shared / "hidden")], **options.pop("policy", {})}
        with _Box(policy=policy, **options) as box:
            yield Cage(box, place)
    finally:
        subprocess.run(["umount", "-l", shared], check=True)
        shutil.rmtree(place)


@pytest.fixture(scope="module")
def cage() -> Iterator[Cage]:
    """One supervisor for all tests of a file."""
    with cage_with() as made:
        yield made


@contextmanager
def victim(uid: int) -> Iterator[subprocess.Popen[bytes]]:
    """A process of the host with the function's own uid, so that only the namespace protects it."""
    process = subprocess.Popen(["sleep", "300"], user=uid, stdin=subprocess.DEVNULL)
    try:
        yield process
        assert process.poll() is None, "the victim died"
    finally:
        process.kill()
        process.wait()


@contextmanager
def listener(address: str) -> Iterator[socket.socket]:
    """A unix socket of the host that everybody may connect to; abstract with a leading @."""
    with socket.socket(socket.AF_UNIX) as sock:
        sock.bind("\0" + address[1:] if address[0] == "@" else address)
        sock.listen(16)
        try:
            if address[0] != "@":
                os.chmod(address, 0o666)
            yield sock
        finally:
            if address[0] != "@":
                os.unlink(address)
