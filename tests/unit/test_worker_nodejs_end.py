"""Node.js functions: how their processes end, and what becomes of the frames they get."""

from __future__ import annotations

import json
import os
import signal
import struct
import time
from pathlib import Path

import pytest
from nodejs_support import ready
from worker_support import frame

# --- the end of the process --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("source", "text"),
    [
        ("setTimeout(() => { throw new Error('bang') }, 20)", "an exception nobody caught: Error: bang"),
        ("setTimeout(() => Promise.reject(new Error('bang')), 20)", "a rejection nobody handled: Error: bang"),
        ("setTimeout(() => Promise.reject(undefined), 20)", "a rejection nobody handled: undefined"),
    ],
)
@pytest.mark.parametrize("busy", [False, True])
def test_a_crash_is_logged_and_ends_it(tmp_path: Path, source: str, text: str, busy: bool) -> None:
    function = f"const fall = () => {source};\n exports.handler = (e, c, done) => {{ fall(); if (!e.busy) done() }}"
    with ready(tmp_path, function) as worker:
        worker.work(1, json.dumps({"busy": busy}).encode())
        if not busy:
            assert worker.result(1) == b"null"
        assert worker.exit_status() == 1
        fatal = [line for level, line in worker.finish() if level == "FATAL"]
        assert len(fatal) == 1
        assert text in fatal[0]


def test_a_function_may_catch_what_nobody_caught(tmp_path: Path) -> None:
    source = """process.on('uncaughtException', (e) => console.log('caught', e.message));
    process.on('unhandledRejection', (e) => console.log('noticed', e.message));
    exports.handler = (e, c, done) => {
      setTimeout(() => { throw new Error('one') }, 5);
      Promise.reject(new Error('two'));
      setTimeout(done, 40, null, 'on');
    }"""
    with ready(tmp_path, source) as worker:
        worker.work(1)
        assert worker.result(1) == b'"on"'
        assert worker.stop() == 0
        assert [text for _, text in worker.finish()] == ["noticed two", "caught one"]


def test_stop_waits_for_the_running_handler(tmp_path: Path) -> None:
    source = """setInterval(() => {}, 1000); process.on('exit', (status) => console.log('exit', status));
    exports.handler = (e, c, done) => { setTimeout(done, 60, null, 'done') }"""
    with ready(tmp_path, source) as worker:
        worker.work(1)
        worker.send("X")
        assert worker.result(1) == b'"done"'
        assert worker.exit_status() == 0
        assert worker.finish() == [("INFO", "exit 0")]


@pytest.mark.parametrize(
    "source", ["", "setTimeout(() => {}, 100000);", "process.on('SIGTERM', () => process.exit(0));"]
)
def test_sigterm_ends_it_cleanly(tmp_path: Path, source: str) -> None:
    with ready(tmp_path, f"{source} exports.handler = () => {{}}") as worker:
        os.kill(worker.pid, signal.SIGTERM)
        assert worker.exit_status() == 0


@pytest.mark.parametrize("source", ["", "setInterval(() => {}, 1000);"])
@pytest.mark.parametrize("busy", [False, True])
def test_it_ends_with_its_core(tmp_path: Path, source: str, busy: bool) -> None:
    function = f"{source} exports.handler = (e, c, done) => {{ setTimeout(done, 60000) }}"
    with ready(tmp_path, function) as worker:
        if busy:
            worker.work(1)
        worker.socket.close()
        assert worker.exit_status() == 0


# --- frames ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("garbage", "text"),
    [
        (struct.pack("<I", 0), "a frame has 0 bytes"),
        (struct.pack("<I", (1 << 20) + 1), "a frame has 1048577 bytes"),
        (b"\xff" * 64, "a frame has 4294967295 bytes"),
        (b"GET / HTTP/1.1\r\n\r\n", "bytes, expected 1 to 1048576"),
        (frame("C", b"{}"), "a frame has type 67"),
        (frame("\0"), "a frame has type 0"),
        (frame("W", b"\0\0\0"), "work has 3 bytes"),
        (frame("W", struct.pack("<IH", 1, 9) + b"{}"), "expected at least 15"),
        (frame("A", struct.pack("<I", 1)), "an answer has 4 bytes"),
        (frame("A", struct.pack("<IB", 1, 9)), "status 9"),
        (frame("A", struct.pack("<IB", 77, 0)), "an answer to call 77, which is not open"),
    ],
)
@pytest.mark.parametrize("busy", [False, True])
def test_p7_a_malformed_frame_ends_it(tmp_path: Path, garbage: bytes, text: str, busy: bool) -> None:
    with ready(tmp_path, "exports.handler = (e, c, done) => { setTimeout(done, 60000) }") as worker:
        if busy:
            worker.work(1)
        worker.socket.sendall(garbage)
        assert worker.exit_status() == 1
        assert [level for level, _ in worker.finish()] == ["FATAL"]
        assert text in worker.logged("FATAL")[0]


def test_frames_in_pieces_and_many_at_once(tmp_path: Path) -> None:
    with ready(tmp_path, "exports.handler = async (e) => e", ENCODING_TYPE="binary") as worker:
        stream = b"".join(
            frame("W", struct.pack("<IH", number, 2) + b"{}" + bytes([number]) * number) for number in range(40)
        )
        for at in range(len(stream)):
            worker.socket.sendall(stream[at : at + 1])
            if at % 97 == 0:
                time.sleep(0.001)
        for number in range(40):
            assert worker.result(number) == bytes([number]) * number
        worker.socket.sendall(stream)
        for number in range(40):
            assert worker.result(number) == bytes([number]) * number


def test_the_largest_frames(tmp_path: Path) -> None:
    source = "let n = 0; exports.handler = async (e) => Buffer.concat([e, Buffer.alloc(n++ < 3 ? 2 : 3)])"
    with ready(tmp_path, source, ENCODING_TYPE="binary") as worker:
        payload = os.urandom((1 << 20) - 7)
        for number in range(3):
            worker.work(number, payload)
            assert worker.result(number) == payload + b"\0\0"
        worker.work(9, payload)
        assert "the limit is 1048576" in worker.error(9)["errorMessage"]
