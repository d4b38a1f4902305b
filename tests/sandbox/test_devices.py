"""A directory of devices in a real container: what is plugged in again is there again."""

from __future__ import annotations

import errno
import os
import shutil
import stat
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.sandbox.harness import Sandbox, Worker

pytestmark = pytest.mark.root

DRIVER = 240  # of those for local use; its nodes need not work, only be refused by their driver's absence and not by us
ABSENT, REFUSED = errno.ENXIO, errno.EPERM

PLUGGED = """
import os

def serve():
    while word := os.read(3, 1):
        os.write(3, b"%%d " %% opening(*WORDS[word]))

WORDS = {b"r": ("/002", os.O_RDONLY), b"w": ("/002", os.O_RDWR), b"c": ("/made", os.O_WRONLY | os.O_CREAT)}

def opening(name, flags):
    try:
        os.close(os.open(%r + name, flags))
        return 0
    except OSError as error:
        return error.errno
"""


@pytest.fixture(scope="module")
def box() -> Iterator[Sandbox]:
    """A running supervisor."""
    with Sandbox() as sandbox:
        yield sandbox


@pytest.fixture
def bus() -> Iterator[Path]:
    """A directory like /dev/bus/usb."""
    path = Path(f"/dev/ggfast-bus-{os.getpid()}")
    path.mkdir()
    try:
        yield path
    finally:
        shutil.rmtree(path)


def plug(path: Path, major: int, minor: int) -> None:
    os.mknod(path, stat.S_IFCHR | 0o600, os.makedev(major, minor))
    path.chmod(0o666)


def ask(worker: Worker, word: bytes) -> int:
    worker.ipc.sendall(word)
    data = b""
    while not data.endswith(b" "):
        part = worker.ipc.recv(16)
        assert part, worker.output(worker.stderr)
        data += part
    return int(data)


@pytest.mark.parametrize(("access", "writing"), [("rw", ABSENT), ("r", REFUSED)])
def test_it_may_be_plugged_in_again_as_another_number(box: Sandbox, bus: Path, access: str, writing: int) -> None:
    plug(bus / "001", DRIVER, 1)
    worker = box.spawn(PLUGGED % str(bus), uid=0, devices=[{"path": str(bus), "access": access}])
    worker.ipc.settimeout(10)
    assert ask(worker, b"r") == errno.ENOENT
    (bus / "001").unlink()
    plug(bus / "002", DRIVER, 2)
    assert (ask(worker, b"r"), ask(worker, b"w")) == (ABSENT, writing)
    box.end(worker)


def test_another_driver_is_not_opened_and_nothing_is_made(box: Sandbox, bus: Path) -> None:
    plug(bus / "001", DRIVER, 1)
    worker = box.spawn(PLUGGED % str(bus), uid=0, devices=[{"path": str(bus), "access": "rw"}])
    worker.ipc.settimeout(10)
    plug(bus / "002", 1, 1)  # the machine's memory
    assert (ask(worker, b"r"), ask(worker, b"w")) == (REFUSED, REFUSED)
    assert ask(worker, b"c") == errno.EROFS
    box.end(worker)


@pytest.mark.parametrize("what", ["memory", "file"])
def test_a_directory_with_something_else_in_it_is_refused(box: Sandbox, bus: Path, what: str) -> None:
    plug(bus / "001", DRIVER, 1)
    if what == "memory":
        plug(bus / "002", 1, 1)
    else:
        (bus / "002").touch()
    spec = box.request_spec(box.write_code(""), devices=[{"path": str(bus), "access": "r"}])
    answer = box.request(verb="spawn", instance="m", spec=spec)
    assert (answer["step"], answer["errno"]) == ("policy", errno.EPERM)
    assert ("kernel's memory" if what == "memory" else "no device node") in answer["error"]
