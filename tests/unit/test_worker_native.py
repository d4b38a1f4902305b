"""Functions written in C: real programs, linked with our library, against the core's side of their socket."""

from __future__ import annotations

import base64
import json
import os
import random
import signal
import socket
import struct
from collections.abc import Iterator
from pathlib import Path

import pytest
from native_support import ADDRESS, PLAIN, THREAD, ask, built, request, say, start
from worker_support import (
    ARN,
    EVENT,
    HANDLED,
    OK,
    REFUSED,
    REQUEST_RESPONSE,
    ROUTER,
    SECRETS,
    SHADOWS,
    UNHANDLED,
    Posting,
    Worker,
    frame,
)

from ggfast.clock import SystemClock
from ggfast.core.functions.calls import V1_LIMITS, Calls
from ggfast.counters import Counters
from ggfast.errors import LimitReached

FRAME_BYTES_MAX = 1 << 20


@pytest.fixture(params=["", "async"])
def worker(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Worker]:
    """A checked program whose runtime has begun, blocking or on a thread of its own."""
    with start(built(ADDRESS), tmp_path, request.param) as made:
        assert made.initialised() == ""
        yield made
        if made._status is None:
            assert made.stop() == 0, made.finish()
        assert "Sanitizer" not in str(made.finish())


# --- work -----------------------------------------------------------------------------------------------------


def test_payloads_of_any_bytes_and_sizes(worker: Worker) -> None:
    assert ask(worker, "echo", b"") == b""
    assert ask(worker, "echo", b"\0\x1e\x1f\n\xff") == b"\0\x1e\x1f\n\xff"
    largest = random.Random(1).randbytes(FRAME_BYTES_MAX - 7 - 5)
    worker.work(0xFFFFFFFF, b"echo\x1f" + largest)
    assert worker.result(0xFFFFFFFF) == largest
    for size in (3999, 4000, 4001, 65536, 131072):
        assert ask(worker, "echo", largest[:size]) == largest[:size]


def test_context(worker: Worker) -> None:
    client = b'{"custom":{"subject":"a/b"}}'
    assert ask(worker, "context", context=client) == f"{ARN} ".encode() + client
    assert ask(worker, "context") == f"{ARN} {{}}".encode(), "no client context reads as an empty object"
    longest = b'{"a":"' + b"x" * (65535 - 8) + b'"}'
    assert ask(worker, "context", context=longest).endswith(longest)


def test_errors(worker: Worker) -> None:
    worker.work(5, say("error", 'no "milk" \\ left\n', b""))
    assert worker.error(5) == {"errorMessage": 'no "milk" \\ left\n', "errorType": "Error", "stackTrace": []}
    worker.work(6, say("error", b"\xff\xc3\xa4\xed\xa0\x80\x01"))
    assert worker.error(6)["errorMessage"] == "\ufffd\u00e4\ufffd\ufffd\ufffd\x01"


def test_a_handler_that_says_nothing(worker: Worker) -> None:
    assert ask(worker, "nothing") == b""


def test_wrong_orders(worker: Worker) -> None:
    worker.work(9, say("wrong"))
    posting = worker.posting()
    assert (posting.call, posting.custom["subject"]) == (0, "a")
    codes = "2 2 0 3 2 2 0 0 0 0 3 0 0 3 3 3 2 2 2 2 2 2 2 2 2 2 0 2 2 0 2 2 2 3 2 2 2 2 2 2"
    assert worker.result(9).decode().split() == codes.split()
    assert worker.logged("INFO")[0].split() == [*codes.split(), "0", "3", "3"]


def test_outside_of_a_handler(worker: Worker, tmp_path: Path) -> None:
    assert ask(worker, "outside") == b"3 3 3"
    assert ask(worker, "fork") == b"33", "a forked child must not use its parent's socket"


def test_a_request_that_another_thread_waits_with(tmp_path: Path) -> None:
    with start(built(THREAD), tmp_path) as worker:
        assert worker.initialised() == ""
        worker.work(1, say("busy"))
        mine, theirs = sorted((worker.posting(), worker.posting()), key=lambda posting: posting.payload)
        worker.answer(mine.call, OK)
        codes = worker.posting()
        assert (codes.custom["subject"], codes.payload) == ("codes", b"3 3 3 3")
        worker.answer(theirs.call, OK)
        assert worker.result(1) == b"0 0 0"
        assert worker.stop() == 0, worker.finish()


def test_before_the_start(tmp_path: Path) -> None:
    with start(built(ADDRESS), tmp_path, "early") as worker:
        assert worker.initialised() == ""
        assert worker.logged("INFO") == ["3 3 3"]


def test_without_a_core(tmp_path: Path) -> None:
    program = built(PLAIN)
    command = [str(program.program)]
    read, write = os.pipe()
    actions = [(os.POSIX_SPAWN_DUP2, write, 2), (os.POSIX_SPAWN_OPEN, 3, os.devnull, os.O_RDONLY, 0)]
    pid = os.posix_spawn(command[0], command, program.environment, file_actions=actions)
    os.close(write)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 7
    with open(read, "rb") as text:
        assert b"\x1eFlibaws-greengrass-core-sdk-c: descriptor 3 is not a socket" in text.read()


# --- requests -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("policy", "word"), [("none", ""), ("0", "BestEffort")])
def test_publish_that_does_not_wait(worker: Worker, policy: str, word: str) -> None:
    worker.work(3, say("publish", policy, 'a/"b"\\ü', b"\0\x1f\xff"))
    posting = worker.posting()
    assert (posting.call, posting.kind, posting.arn, posting.payload) == (0, EVENT, ROUTER, b"\0\x1f\xff")
    assert posting.custom == {"source": ARN, "subject": 'a/"b"\\ü', "queueFullPolicy": word}
    assert worker.result(3) == b"0 0 "


def test_publish_all_or_error(worker: Worker) -> None:
    posting, seen = request(worker, OK, b"", "publish", "1", "t", b"payload")
    assert (posting.kind, posting.arn, posting.payload) == (EVENT, ROUTER, b"payload")
    assert posting.custom == {"source": ARN, "subject": "t", "queueFullPolicy": "AllOrError"}
    assert seen == b"0 0 "
    assert request(worker, REFUSED, b"the topic is bad", "publish", "1", "t", b"")[1] == b"0 3 the topic is bad"
    assert ask(worker, "publish", "2", "t", b"") == b"2 -1 ", "a policy that there is not"


def test_a_full_queue_is_known_by_the_cores_words(worker: Worker) -> None:
    class FullRouter:
        def publish(self, source: str, topic: bytes, payload: bytes, qos: int = 0, retain: bool = False) -> int:
            raise AssertionError

        def publish_all_or_error(self, *_: object) -> int:
            raise LimitReached("queued messages", 10, 10)

    class Caller:
        arn = ARN
        open_calls = 0
        text = b""

        def answer(self, _call: int, result: object) -> None:
            self.text = result.payload  # type: ignore[attr-defined]

    def never(*_: object) -> None:
        raise AssertionError

    caller = Caller()
    calls = Calls(FullRouter(), V1_LIMITS, {}, never, SystemClock(), Counters(), None)  # type: ignore[arg-type]
    worker.work(2, say("publish", "1", "t", b"m"))
    posting = worker.posting()
    calls.publish(caller, posting.call, posting.context, posting.payload)  # type: ignore[arg-type]
    worker.answer(posting.call, REFUSED, caller.text)
    assert worker.result(2) == b"0 4 " + caller.text


@pytest.mark.parametrize(
    ("kind", "status", "seen"),
    [
        (REQUEST_RESPONSE, OK, b"0 0 "),
        (REQUEST_RESPONSE, HANDLED, b"0 1 "),
        (REQUEST_RESPONSE, UNHANDLED, b"0 2 "),
        (REQUEST_RESPONSE, REFUSED, b"0 3 "),
        (EVENT, OK, b"0 0 "),
        (EVENT, REFUSED, b"0 3 "),
    ],
)
def test_invoke(worker: Worker, kind: int, status: int, seen: bytes) -> None:
    client = b'{"custom": {"a": "b"}}'
    answer = random.Random(2).randbytes(100_000) + b"a queue is full"
    fields = ("invoke", "arn:aws:lambda:r:1:function:g", "7", base64.b64encode(client), str(kind), b"\0\x1fpayload")
    posting, result = request(worker, status, answer, *fields)
    assert posting == Posting(posting.call, kind, "arn:aws:lambda:r:1:function:g:7", client, b"\0\x1fpayload")
    assert result == seen + answer


@pytest.mark.parametrize(
    ("arn", "qualifier", "context", "kind"),
    [
        ("-", "-", "-", "1"),
        ("", "-", "-", "1"),
        ("arn:aws:lambda:r:1:function:g:1", "2", "-", "1"),
        ("arn", "-", "-", "2"),
        ("arn", "-", "e30", "1"),
        ("arn", "-", "e3 0", "1"),
        ("arn", "-", "WzFd", "1"),  # [1]
        ("arn", "-", "e31=", "1"),  # bits that are not there
        ("a" * 65536, "-", "-", "1"),
        ("arn", "-", base64.b64encode(b'{"a":"' + b"x" * 65528 + b'"}').decode(), "1"),
    ],
)
def test_invoke_refuses(worker: Worker, arn: str, qualifier: str, context: str, kind: str) -> None:
    assert ask(worker, "invoke", arn, qualifier, context, kind, b"") == b"2 -1 "


def test_invoke_with_a_version_said_twice_and_the_largest_context(worker: Worker) -> None:
    client = b'{"a":"' + b"x" * 65527 + b'"}'
    arn = "arn:aws:lambda:r:1:function:g:1"
    posting, _ = request(worker, OK, b"", "invoke", arn, "1", base64.b64encode(client), "1", b"")
    assert (posting.arn, posting.context, posting.payload) == (arn, client, b"")


def test_the_largest_frames(worker: Worker) -> None:
    payload = random.Random(3).randbytes(FRAME_BYTES_MAX - 7 - len(say("invoke", "arn", "-", "-", "1", b"")))
    answer = random.Random(4).randbytes(FRAME_BYTES_MAX - 6 - len(b"0 0 "))
    posting, result = request(worker, OK, answer, "invoke", "arn", "-", "-", "1", payload)
    assert posting.payload == payload
    assert result == b"0 0 " + answer


def test_too_much_for_a_frame(worker: Worker) -> None:
    size = FRAME_BYTES_MAX - 7 - len(say("publish", "1", "t", b""))
    assert ask(worker, "publish", "1", "t", b"x" * size) == b"2 -1 ", "with its context it is more than a frame holds"


@pytest.mark.parametrize("operation", ["get", "update", "delete"])
def test_shadows(worker: Worker, operation: str) -> None:
    more = ['{"state":{}}'] if operation == "update" else []
    thing = 'a "thing"'
    accepted = b'{"state":{"desired":{"code":1,"message":"x"}},"version":3}'
    posting, result = request(worker, OK, accepted, operation, thing, *more)
    assert (posting.kind, posting.arn) == (REQUEST_RESPONSE, SHADOWS)
    assert posting.custom == {"subject": f"$aws/things/{thing}/shadow/{operation}"}
    assert posting.payload == "".join(more).encode()
    assert result == b"0 0 " + accepted
    failure = b' {"c\\u006fde": 404, "timestamp": 1, "message": "No shadow exists"} '
    assert request(worker, OK, failure, operation, thing, *more)[1] == b"0 1 " + failure
    assert request(worker, REFUSED, b"no", operation, thing, *more)[1] == b"0 3 no"
    assert ask(worker, operation, "", *more) == b"2 -1 "
    assert ask(worker, operation, b"\xc3", *more) == b"2 -1 ", "a name that is not UTF-8"


def test_secrets(worker: Worker) -> None:
    found = b'{"ARN":"a","Name":"n","VersionId":"v","SecretString":"{\\"Status\\":1,\\"Message\\":1}"}'
    posting, result = request(worker, OK, found, "secret", 'na"me', "-", "AWSCURRENT")
    assert (posting.kind, posting.arn, posting.context) == (REQUEST_RESPONSE, SECRETS, b"")
    assert json.loads(posting.payload) == {"SecretId": 'na"me', "VersionStage": "AWSCURRENT"}
    assert result == b"0 0 " + found
    failure = b'{"Status":404,"Message":"no such secret"}'
    posting, result = request(worker, OK, failure, "secret", "n", "v-1", "-")
    assert json.loads(posting.payload) == {"SecretId": "n", "VersionId": "v-1"}
    assert result == b"0 1 " + failure
    assert request(worker, UNHANDLED, b"", "secret", "n", "-", "-")[1] == b"0 2 "
    assert ask(worker, "secret", "-", "-", "-") == b"2 -1 "


# --- many threads ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("sanitizer", [THREAD, ADDRESS], ids=["thread", "address"])
@pytest.mark.parametrize("threads", [4, 80])
def test_many_threads(tmp_path: Path, sanitizer: str, threads: int) -> None:
    rounds = 2000 // threads
    chance = random.Random(threads)
    with start(built(sanitizer), tmp_path, "async") as worker:
        assert worker.initialised() == ""
        worker.work(1, say("threads", str(threads), str(rounds)))
        waiting = [worker.posting() for _ in range(min(threads, 64))]
        assert all(posting.call for posting in waiting)
        assert worker.silent(0.2), "the core refuses more than 64 open calls: further threads wait"
        published = 0
        while published < threads * rounds:
            if waiting and (chance.random() < 0.3 or worker.silent(0.0)):
                posting = waiting.pop(chance.randrange(len(waiting)))
                worker.answer(posting.call, OK, b"=" + posting.payload)
                continue
            posting = worker.posting()
            if posting.call:
                waiting.append(posting)
            else:
                published += 1
            assert len(waiting) <= 64
        assert worker.result(1) == b"0"
        assert worker.stop() == 0
        records = [text for level, text in worker.finish() if level == "INFO"]
        assert len(records) == threads * rounds + 1


# --- the end, the log, another daemon ----------------------------------------------------------------------------


def test_asked_to_end(worker: Worker) -> None:
    worker.send("X")
    assert worker.exit_status() == 0
    assert worker.finish() == [("INFO", "the end")], "what the program registered with atexit has run"


def test_sigterm_while_idle(worker: Worker) -> None:
    os.kill(worker.pid, signal.SIGTERM)
    assert worker.exit_status() == 0
    assert worker.finish() == [("INFO", "the end")]


def test_sigterm_inside_a_handler(worker: Worker) -> None:
    assert ask(worker, "terminate") == b"still here"
    assert worker.exit_status() == 0


def test_the_end_waits_for_the_handler(worker: Worker) -> None:
    worker.work(2, say("get", "thing"))
    posting = worker.posting()
    worker.send("X")
    os.kill(worker.pid, signal.SIGTERM)
    worker.answer(posting.call, OK, b"{}")
    assert worker.result(2) == b"0 0 {}"
    assert worker.exit_status() == 0


@pytest.mark.parametrize("how", ["signal", "frame"])
def test_the_end_while_another_thread_waits_for_an_answer(tmp_path: Path, how: str) -> None:
    with start(built(THREAD), tmp_path, "asking") as worker:
        frames = [worker.receive(), worker.receive()]
        assert sorted(kind for kind, _ in frames) == ["I", "P"]
        assert ask(worker, "echo", "whoever reads") == b"whoever reads"
        if how == "signal":
            os.kill(worker.pid, signal.SIGTERM)
        else:
            worker.send("X")
        assert worker.exit_status() == 0, worker.finish()


def test_nobody_left(worker: Worker) -> None:
    worker.socket.shutdown(socket.SHUT_RDWR)
    assert worker.exit_status() == 0


@pytest.mark.parametrize(
    ("wanted", "seen"), [("DEBUG", "DIWEF"), ("INFO", "IWEF"), ("WARN", "WEF"), ("FATAL", "F"), ("odd", "IWEF")]
)
def test_log_levels(tmp_path: Path, wanted: str, seen: str) -> None:
    with start(built(ADDRESS), tmp_path, GGFAST_LOG_LEVEL=wanted) as worker:
        assert worker.initialised() == ""
        for level in "12345":
            assert ask(worker, "log", level, f"{level} 100% one\ntwo\n") == b"0"
        assert ask(worker, "log", "6", "x") == b"2"
        assert ask(worker, "log", "5", "x" * 5000 + "end") == b"0"
        assert ask(worker, "log", "5", "y" * 100_000) == b"0"
        assert ask(worker, "print", "from stdout") == b""
        assert ask(worker, "getenv", "GGFAST_LOG_LEVEL") == b""
        assert ask(worker, "getenv", "MY_FUNCTION_ARN") == ARN.encode()
        worker.stop()
        records = worker.finish()
    names = dict(zip("DIWEF", ["DEBUG", "INFO", "WARN", "ERROR", "FATAL"], strict=True))
    by_level = {"D": 1, "I": 2, "W": 3, "E": 4, "F": 5}
    for letter in seen:
        assert (names[letter], f"{by_level[letter]} 100% one\ntwo") in records
    assert ("INFO", "from stdout") in records
    assert ("FATAL", "x" * 5000 + "end") in records
    assert ("FATAL", "y" * 65536) in records
    assert len(records) == len(seen) + 3 + (wanted not in ("WARN", "FATAL"))


def replace(worker: Worker, before: bytes = b"") -> None:
    """Another daemon takes the worker over, as the spawner has it done."""
    near, far = socket.socketpair()
    near.settimeout(30)
    if before:
        worker.socket.sendall(before)
    socket.send_fds(worker.socket, [b"\xff"], [far.fileno()])
    far.close()
    worker.socket.shutdown(socket.SHUT_RDWR)
    worker.socket.close()
    worker.socket = near


@pytest.mark.parametrize("before", [b"", frame("W", b"\1\0\0\0\0\0lost")[:9], frame("W", b"\1\0\0\0\0\0lost")])
def test_a_new_daemon_for_an_idle_worker(worker: Worker, before: bytes) -> None:
    for _ in range(3):
        if len(before) < 15:
            replace(worker, before)
            assert worker.initialised() == ""
        assert ask(worker, "echo", "here") == b"here"


def test_a_new_daemon_during_a_call(worker: Worker) -> None:
    worker.work(4, say("get", "thing"))
    assert worker.posting().arn == SHADOWS
    replace(worker)
    assert worker.initialised() == "", "the result was for the other daemon"
    _, result = request(worker, OK, b"{}", "get", "thing")
    assert result == b"0 0 {}"
    assert ask(worker, "context") == f"{ARN} {{}}".encode()


def test_an_answer_before_the_new_daemon_counts(worker: Worker) -> None:
    worker.work(4, say("get", "a"))
    first = worker.posting()
    replace(worker, frame("A", struct.pack("<IB", first.call, OK) + b"{}"))
    assert worker.initialised() == ""
    assert request(worker, OK, b"{}", "get", "b")[1] == b"0 0 {}"


def test_threads_and_new_daemons(tmp_path: Path) -> None:
    with start(built(THREAD), tmp_path) as worker:
        assert worker.initialised() == ""
        worker.work(1, say("threads", "8", "200"))
        for _ in range(5):
            for _ in range(50):
                posting = worker.posting()
                if posting.call:
                    worker.answer(posting.call, OK, b"=" + posting.payload)
            replace(worker)
        while (kind_body := worker.receive())[0] == "P":
            call = struct.unpack_from("<I", kind_body[1])[0]
            if call:
                worker.answer(call, OK, b"")
        assert kind_body == ("I", b"\1")
        assert ask(worker, "echo", "after") == b"after"
        assert worker.stop() == 0, worker.finish()
