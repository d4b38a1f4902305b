"""The spare and its spawner where something is short or gone at the wrong moment. No root, no fork."""

from __future__ import annotations

import errno
import os
import socket
import threading
from collections.abc import Iterator
from typing import Any

import pytest

from ggfast import limits
from ggfast._ext import kernel
from ggfast.sandbox import daemon, plan, spare, spawner, supervisor
from ggfast.sandbox import zygote as zygotes
from ggfast.sandbox.instance import RECORD, Worker
from ggfast.sandbox.zygote import Forked


class Zygote:
    """Notes what it is asked; `far` is the spare's end of its socket."""

    def __init__(self) -> None:
        self.killed: list[int] = []
        self.far: socket.socket | None = None
        self.descriptor = -1
        self.starts = 0
        self.has_news = False

    def spare(self, serial: int, plan: bytes, descriptor: int) -> None:
        self.far = socket.socket(fileno=socket.dup(descriptor))

    def kill(self, pid: int, number: int) -> None:
        self.killed.append(pid)

    def start(self) -> None:
        self.starts += 1
        raise OSError(errno.ENOMEM, "no memory")

    def died(self) -> None:
        pass

    def news(self) -> list[Any]:
        return []


class Group:
    instance = "spare"
    join_first = ("/nowhere/cgroup.procs",)

    def remove(self) -> bool:
        return True


class Tree:
    def create(self, instance: str) -> Group:
        return Group()


@pytest.fixture
def zygote() -> Iterator[Zygote]:
    made = Zygote()
    yield made
    if made.far is not None:
        made.far.close()


@pytest.fixture
def one(zygote: Zygote, monkeypatch: pytest.MonkeyPatch) -> spare.Spare:
    """A spare that waits with pid 77."""
    monkeypatch.setattr(plan, "ahead", lambda *_: plan.Builder().finish())
    made = spare.Spare(zygote, Tree())  # type: ignore[arg-type]
    made.house = object()  # type: ignore[assignment]
    made.make(5, 0.0)
    assert made.forked(5, 77, 0.0)
    return made


def test_a_spare_that_died_before_its_request_is_told_as_none(one: spare.Spare, zygote: Zygote) -> None:
    assert zygote.far is not None
    zygote.far.close()
    assert one.send(b"plan", []) == 0
    assert one.group_for(one.house) is None  # type: ignore[arg-type]
    assert one.drop() is None  # its group is the caller's now


def test_the_number_of_a_reaped_spare_is_not_signalled(one: spare.Spare, zygote: Zygote) -> None:
    assert one.ended(77, 10.0) is not None
    assert zygote.killed == []
    assert one.due_at == 10.0 + limits.SPARE_RETRY_S


def test_no_descriptors_left_is_a_reason_to_wait(one: spare.Spare, monkeypatch: pytest.MonkeyPatch) -> None:
    one.drop()
    monkeypatch.setattr(spare.socket, "socketpair", _no_descriptors)
    one.make(6, 3.0)
    assert one.due_at == 3.0 + limits.SPARE_RETRY_S


def _no_descriptors(*_: object) -> None:
    raise OSError(errno.EMFILE, "too many open files")


# --- the spawner -----------------------------------------------------------------------------------------


class Box:
    """A spawner between a zygote that cannot be forked again and a list of what was sent."""

    def __init__(self, zygote: Zygote) -> None:
        self.sent: list[dict[str, Any]] = []
        self.now = 0.0
        self.zygote = zygote
        policy: Any = type("Policy", (), {"spawns_per_second": 20})
        self.spawner = spawner.Spawner(
            policy,
            zygote,  # type: ignore[arg-type]
            "",
            Tree(),  # type: ignore[arg-type]
            object(),  # type: ignore[arg-type]
            host_mounts=None,
            refusal=None,
            send=self._send,
            watch=_nothing,
            unwatch=_nothing,
            clock=lambda: self.now,
        )

    def _send(self, message: dict[str, Any], _: list[int]) -> None:
        self.sent.append(message)

    def worker(self, instance: str, serial: int, pid: int) -> Worker:
        spec: Any = type("Spec", (), {"contained": True})
        made = Worker(instance, spec, serial, pid, Group(), (), -1, -1, -1, -1, None, serial)  # type: ignore[arg-type]
        self.spawner.workers[instance] = made
        return made


def test_a_zygote_that_does_not_read_before_it_is_read_is_no_deadlock() -> None:
    """Hundreds of deaths at once fill its side of the socket while the supervisor has as much to ask."""
    near, far = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    asked, deaths = 2_000, 2_000

    def be_zygote() -> None:
        for pid in range(deaths):
            far.send(zygotes.RECORD.pack(kernel.ENDED, pid, 9))
        for _ in range(asked):
            far.recv(64)

    one = zygotes.Zygote(None, 1, near.detach())
    thread = threading.Thread(target=be_zygote, daemon=True)
    thread.start()
    try:
        for pid in range(asked):
            one.kill(pid, 9)
        assert one.has_news
        assert [news.pid for news in one.news()] == list(range(deaths))
        assert not one.has_news
        thread.join(10)
        assert not thread.is_alive()
    finally:
        one.died()
        far.close()


@pytest.mark.parametrize(
    ("status", "oom", "records", "words"),
    [
        (9, True, b"", "memory limit 16 KB"),
        (9, False, b"", "killed by signal 9 before"),
        (126 << 8, False, b"", "ended with status 126 before"),
        (126 << 8, False, RECORD.pack(kernel.FORK, errno.EAGAIN), "fork: "),
        (126 << 8, False, RECORD.pack(kernel.NUMBER, 7) + RECORD.pack(1, errno.EACCES), "two: Permission denied"),
        (126 << 8, False, RECORD.pack(1, errno.EACCES) + b"half", "two: Permission denied"),
    ],
)
def test_a_failed_set_up_has_its_own_cause(status: int, oom: bool, records: bytes, words: str) -> None:
    """Not every early death is one for memory."""
    spec: Any = type("Spec", (), {"memory_kb": 16})
    made = Worker("i", spec, 1, 5, Group(), ("one", "two"), -1, -1, -1, -1, None, 1)  # type: ignore[arg-type]
    made.records = records
    assert words in str(made.set_up_failure(status, oom))
    assert made.number == (7 if len(records) == 16 else 5)


def test_a_zygote_that_cannot_be_forked_again_is_tried_later(zygote: Zygote) -> None:
    box = Box(zygote)
    box.spawner.zygote_died()
    assert zygote.starts == 1
    box.now = limits.SPARE_RETRY_S - 1
    box.spawner.make_spare()
    assert zygote.starts == 1
    box.now = limits.SPARE_RETRY_S + 1
    box.spawner.make_spare()
    assert zygote.starts == 2


def test_what_a_dead_daemon_had_asked_for_is_ended_and_not_answered_to_the_next(zygote: Zygote) -> None:
    box = Box(zygote)
    forked, asked = box.worker("forked", 3, 31), box.worker("asked", 4, 0)
    running = box.worker("running", 2, 21)
    running.started = True
    box.spawner.disown()
    assert zygote.killed == [31]
    zygote.news = lambda: [Forked(4, 41)]  # type: ignore[method-assign,list-item]
    asked.records = RECORD.pack(kernel.DONE, 0)
    box.spawner.ready(zygote.descriptor)
    assert zygote.killed == [31, 41]
    assert [message["id"] for message in box.sent] == [None]  # no number that a new daemon may have given
    assert (forked.request, asked.request, running.request) == (None, None, 2)


def _nothing(_: int) -> None:
    pass


# --- the daemon ------------------------------------------------------------------------------------------


def test_a_daemon_that_cannot_be_forked_leaves_no_descriptor(monkeypatch: pytest.MonkeyPatch) -> None:
    def no_memory() -> int:
        raise OSError(errno.ENOMEM, "no memory")

    spec = daemon.DaemonSpec(("/bin/true",), 1, 1, (), {})
    one = daemon.Daemon(spec, {}, -1, lambda: 0.0)
    before = _open_descriptors()
    monkeypatch.setattr(daemon.os, "fork", no_memory)
    with pytest.raises(OSError):
        one.start()
    assert _open_descriptors() == before
    assert (one.starts, one.pid) == (1, 0)


def _open_descriptors() -> int:
    return len(os.listdir("/proc/self/fd"))


@pytest.mark.parametrize("found", [None, "x", [[[]]], 1.5])
def test_an_id_that_is_no_number_is_not_repeated(found: object) -> None:
    assert supervisor._number({"id": found}) == -1
