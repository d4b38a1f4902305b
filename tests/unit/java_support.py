"""A daemon for one Java worker: real JVM, its socket, its log pipe (a file, so that nothing needs to read along)."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import socket
import struct
import subprocess
import tempfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from ggfast.core.functions.java_flags import java_flags

REPOSITORY = Path(__file__).resolve().parents[2]
HANDLERS = Path(__file__).resolve().parent / "java_handlers"
ANSWER_S = 60.0  # a JVM under load on a small machine
ROUTER = "arn:aws:lambda:::function:GGRouter"
SHADOW = "arn:aws:lambda:::function:GGShadowService"
SECRETS = "arn:aws:lambda:::function:GGSecretManager:1"
MY_ARN = "arn:aws:lambda:eu-west-1:123456789012:function:f:7"
OK, HANDLED, UNHANDLED, REFUSED = range(4)
MEMORY_KB = 131_072

Answers = Callable[["Call"], tuple[int, bytes]]


class Call:
    """One `P` frame as the worker sent it."""

    def __init__(self, body: bytes) -> None:
        self.number, self.kind, length = struct.unpack_from("<IBH", body)
        self.arn = body[7 : 7 + length].decode()
        at = 7 + length
        (context_bytes,) = struct.unpack_from("<H", body, at)
        self.context = body[at + 2 : at + 2 + context_bytes]
        self.payload = body[at + 2 + context_bytes :]

    @property
    def custom(self) -> dict[str, Any]:
        """The `custom` part of the client context."""
        found: dict[str, Any] = json.loads(self.context)["custom"]
        return found


class JavaWorker:
    """A worker process and the daemon's end of its socket."""

    def __init__(
        self, class_path: Sequence[Path | str], handler: str, *, flags: Sequence[str] | None = None,
        encoding: str = "json", java: str = "java", **environment: str,
    ) -> None:  # fmt: skip
        self.calls: list[Call] = []
        self.answers: Answers = lambda _: (OK, b"")
        self._log = tempfile.TemporaryFile()  # noqa: SIM115  (closed by close)
        self.socket, theirs = socket.socketpair()
        self.socket.settimeout(ANSWER_S)
        self._input = b""
        self._next = 0
        self._directory = tempfile.mkdtemp(prefix="ggfast-java-")
        chosen = java_flags(MEMORY_KB, None) if flags is None else list(flags)
        path = os.pathsep.join(map(str, class_path))
        try:
            self.process = subprocess.Popen(
                [java, *chosen, "-cp", path, "io.ggfast.runtime.Main", f"--handler={handler}"],
                stdin=theirs,
                stdout=self._log,
                stderr=self._log,
                cwd=self._directory,
                env=worker_environment(encoding) | environment,
            )
        finally:
            theirs.close()

    def frame(self) -> tuple[str, bytes]:
        """The next frame from the worker; ("", b"") at the end of its stream."""
        while len(self._input) < 4 or len(self._input) < 4 + struct.unpack_from("<I", self._input)[0]:
            try:
                data = self.socket.recv(65536)
            except ConnectionResetError:
                data = b""
            if not data:
                return "", b""
            self._input += data
        (size,) = struct.unpack_from("<I", self._input)
        kind, body, self._input = self._input[4:5].decode(), self._input[5 : 4 + size], self._input[4 + size :]
        return kind, body

    def send(self, kind: str, body: bytes) -> None:
        """One frame to the worker."""
        self.socket.sendall(struct.pack("<IB", 1 + len(body), ord(kind)) + body)

    def send_raw(self, data: bytes) -> None:
        """Any bytes to the worker."""
        self.socket.sendall(data)

    def initialised(self) -> tuple[bool, str]:
        """What the worker says of its start."""
        kind, body = self.frame()
        assert kind == "I", (kind, body, self.log())
        return body[:1] == b"\x01", body[1:].decode()

    def work(self, payload: bytes = b"{}", context: bytes = b"") -> int:
        """Give work; returns the invocation's number."""
        self._next += 1
        self.send("W", struct.pack("<IH", self._next, len(context)) + context + payload)
        return self._next

    def reply(self) -> tuple[str, int, bytes]:
        """The next `R` or `E`, with its invocation; calls before it are noted and answered."""
        while True:
            kind, body = self.frame()
            if kind == "P":
                call = Call(body)
                self.calls.append(call)
                if call.number:
                    self.answer(call, *self.answers(call))
                continue
            assert kind in ("R", "E"), (kind, body, self.log())
            return kind, struct.unpack_from("<I", body)[0], body[4:]

    def answer(self, call: Call, status: int, payload: bytes) -> None:
        """Answer one call."""
        self.send("A", struct.pack("<IB", call.number, status) + payload)

    def invoke(self, payload: bytes = b"{}", context: bytes = b"") -> tuple[str, bytes]:
        """One whole invocation: ("R", result) or ("E", error document)."""
        invocation = self.work(payload, context)
        kind, answered, result = self.reply()
        assert answered == invocation
        return kind, result

    def value(self, payload: bytes = b"{}", context: bytes = b"") -> Any:
        """The result of an invocation that succeeds, from JSON."""
        kind, result = self.invoke(payload, context)
        assert kind == "R", (result, self.log())
        return json.loads(result)

    def error(self, payload: bytes = b"{}", context: bytes = b"") -> dict[str, Any]:
        """The error document of an invocation that fails."""
        kind, result = self.invoke(payload, context)
        assert kind == "E", (result, self.log())
        document: dict[str, Any] = json.loads(result)
        assert set(document) == {"errorMessage", "errorType", "stackTrace"}
        return document

    def stop(self) -> int:
        """Ask the worker to end; its exit status."""
        self.send("X", b"")
        return self.process.wait(ANSWER_S)

    def hang_up(self) -> int:
        """Close the daemon's end; the worker's exit status."""
        self.socket.close()
        return self.process.wait(ANSWER_S)

    def log(self) -> str:
        """All that was written to the log pipe."""
        self._log.seek(0)
        return self._log.read().decode()

    def records(self) -> list[tuple[str, str]]:
        """The log's records: (letter of the level, text). Every line has to be one."""
        lines = self.log().split("\n")
        assert lines.pop() == ""
        assert all(line.startswith("\x1e") for line in lines), lines
        return [(line[1], line[2:].replace("\x1d", "\n")) for line in lines]

    def close(self) -> None:
        """End the process if it still runs, and free everything."""
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()
        self.socket.close()
        self._log.close()
        shutil.rmtree(self._directory)


def worker_environment(encoding: str = "json") -> dict[str, str]:
    """What the core gives a program that it starts for a function."""
    return {
        "PATH": os.environ["PATH"],
        "MY_FUNCTION_ARN": MY_ARN,
        "ENCODING_TYPE": encoding,
        "ROUTER_FUNCTION_ARN": ROUTER,
        "SHADOW_FUNCTION_ARN": SHADOW,
        "SECRETS_MANAGER_FUNCTION_ARN": SECRETS,
        "GGC_MAX_INTERFACE_VERSION": "1.5",
        "GG_DAEMON_PORT": "8000",
        "AWS_CONTAINER_AUTHORIZATION_TOKEN": "token",
        "GGFAST_TIMEOUT_S": "10",
        "GGFAST_MEMORY_KB": str(MEMORY_KB),
        "GGFAST_LOG_LEVEL": "INFO",
        "GGFAST_LOG_GROUP": "/aws/greengrass/Lambda/eu-west-1/123456789012/f",
        "GGFAST_LOG_STREAM": "123456789012/g/core",
        "GGFAST_CODE_DIR": "/lambda",
    }


@contextlib.contextmanager
def java_worker(class_path: Sequence[Path | str], handler: str, **more: Any) -> Iterator[JavaWorker]:
    """A worker that has said it is initialised; ended when the block is left."""
    worker = JavaWorker(class_path, handler, **more)
    try:
        ok, text = worker.initialised()
        assert ok, text
        yield worker
    finally:
        worker.close()


@contextlib.contextmanager
def failing_worker(class_path: Sequence[Path | str], handler: str, **more: Any) -> Iterator[tuple[JavaWorker, str]]:
    """A worker that cannot start its function, and the text that says why; it has ended with status 1."""
    worker = JavaWorker(class_path, handler, **more)
    try:
        ok, text = worker.initialised()
        assert not ok
        assert worker.process.wait(ANSWER_S) == 1
        yield worker, text
    finally:
        worker.close()


def compile_java(sources: Sequence[Path], target: Path, class_path: Sequence[Path]) -> None:
    """Compile sources as a user's build does (Java 8); raises AssertionError with the compiler's words."""
    command = ["javac", "-J-Xmx256m", "--release", "8", "-nowarn", "-Xlint:-options", "-d", str(target)]
    command += ["-cp", os.pathsep.join(map(str, class_path)), *map(str, sources)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
