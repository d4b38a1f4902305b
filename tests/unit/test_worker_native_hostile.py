"""What must not happen to functions in C: garbage from the core, bytes in pieces, memory that is short or grows."""

from __future__ import annotations

import os
import random
import socket
import struct
from pathlib import Path

import pytest
from native_support import ADDRESS, PLAIN, ask, built, request, say, start
from worker_support import OK, frame


@pytest.mark.parametrize(
    ("sent", "reason"),
    [
        (b"\0\0\0\0X", "too short"),
        (b"\1\0\x10\0W", "more than 1 MiB"),
        (frame("C", b"{}"), "a type that is not sent"),
        (frame("W", b"\1\0\0\0\5"), "too short"),
        (frame("W", b"\1\0\0\0\5\0abcd"), "client context is longer"),
        (frame("A", b"\1\0\0\0\4"), "unknown status"),
        (frame("X", b"\1"), "longer than its type"),
    ],
)
def test_garbage_ends_the_program(tmp_path: Path, sent: bytes, reason: str) -> None:
    with start(built(ADDRESS), tmp_path) as worker:
        assert worker.initialised() == ""
        worker.socket.sendall(sent)
        assert worker.exit_status() == 1
        level, text = worker.finish()[-1]
        assert level == "FATAL"
        assert text.startswith("libaws-greengrass-core-sdk-c: the core sent ")
        assert reason in text


def test_random_bytes_end_the_program_cleanly(tmp_path: Path) -> None:
    chance = random.Random(5)
    for _ in range(25):
        with start(built(ADDRESS), tmp_path, chance.choice(["", "async"])) as worker:
            assert worker.initialised() == ""
            worker.socket.sendall(chance.randbytes(chance.randrange(1, 3000)))
            worker.socket.shutdown(socket.SHUT_WR)
            assert worker.exit_status() in (0, 1), worker.finish()


def test_frames_in_pieces(tmp_path: Path) -> None:
    chance = random.Random(6)
    with start(built(ADDRESS), tmp_path) as worker:
        assert worker.initialised() == ""
        for number in range(60):
            payload = chance.randbytes(chance.choice([0, 1, 100, 5000]))
            sent = frame("W", struct.pack("<IH", number, 2) + b"{}" + b"echo\x1f" + payload)
            while sent:
                cut = chance.randrange(1, chance.choice([3, 20, 6000]))
                worker.socket.sendall(sent[:cut])
                sent = sent[cut:]
            assert worker.result(number) == payload
        assert worker.stop() == 0, worker.finish()


def test_answers_to_nobody_are_ignored(tmp_path: Path) -> None:
    with start(built(ADDRESS), tmp_path) as worker:
        assert worker.initialised() == ""
        worker.answer(77, OK, b"x" * 1000)
        assert ask(worker, "echo", "still here") == b"still here"
        assert worker.stop() == 0, worker.finish()


def test_no_allocation_failure_is_fatal(tmp_path: Path) -> None:
    with start(built(PLAIN), tmp_path) as worker:
        assert worker.initialised() == ""
        commands = [
            say("publish", "1", "topic" * 100, b"m"),
            say("publish", "none", "topic", b"m"),
            say("invoke", "arn", "7", "e30=", "1", b"payload"),
            say("update", "thing" * 100, "{}"),
            say("secret", "name" * 100, "id", "stage"),
        ]
        for command in commands:
            worker.work(1, b"starve\x1f" + command)
            while (kind_body := worker.receive())[0] == "P":
                call = struct.unpack_from("<I", kind_body[1])[0]
                if call:
                    worker.answer(call, OK, b"{}")
            assert kind_body == ("R", b"\1\0\0\0" + b"1 0 1 1"), command


def test_no_memory_for_the_input(tmp_path: Path) -> None:
    with start(built(PLAIN), tmp_path) as worker:
        assert worker.initialised() == ""
        assert ask(worker, "starve-next") == b""
        worker.work(2, say("echo", "x" * 1000))
        assert worker.error(2)["errorMessage"] == "The function had no memory left for its input"
        assert ask(worker, "echo", "again") == b"again"


def test_memory_stays_bounded(tmp_path: Path) -> None:
    def resident_kb(pid: int) -> int:
        return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGESIZE") // 1024

    with start(built(PLAIN), tmp_path) as worker:
        assert worker.initialised() == ""

        def rounds(count: int) -> None:
            for _ in range(count):
                ask(worker, "echo", b"x" * 50_000)
                request(worker, OK, b"y" * 50_000, "invoke", "arn", "7", "e30=", "1", b"z" * 50_000)
                worker.work(5, say("error", "e" * 5000))
                worker.error(5)

        rounds(20)
        before = resident_kb(worker.pid)
        rounds(200)
        assert resident_kb(worker.pid) - before < 2000, "some of 30 MB that went through has stayed"
