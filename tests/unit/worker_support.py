"""The core's side of one worker that is a program of its own: a socketpair, log pipes, frames. No core behind it.

Every wait has an end; what a test forgets to close, `close()` ends by its pid.
"""

from __future__ import annotations

import contextlib
import json
import os
import select
import signal
import socket
import struct
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

PATIENCE_S = 30.0  # a cold interpreter on a busy machine
OK, HANDLED, UNHANDLED, REFUSED = range(4)
EVENT, REQUEST_RESPONSE = range(2)
ROUTER = "arn:aws:lambda:::function:GGRouter"
SHADOWS = "arn:aws:lambda:::function:GGShadowService"
SECRETS = "arn:aws:lambda:::function:GGSecretManager:1"
ARN = "arn:aws:lambda:eu-west-1:123456789012:function:f:7"
_LEVELS = {"D": "DEBUG", "I": "INFO", "W": "WARN", "E": "ERROR", "F": "FATAL"}


@dataclass(frozen=True)
class Posting:
    """A `P` frame."""

    call: int
    kind: int
    arn: str
    context: bytes
    payload: bytes

    @property
    def custom(self) -> Any:
        return json.loads(self.context)["custom"]


class _Pipe:
    """A log pipe and what has come out of it."""

    def __init__(self) -> None:
        self.reader, self.writer = os.pipe()
        self.data = b""
        self._thread = threading.Thread(target=self._drain)

    def start(self) -> None:
        os.close(self.writer)
        self._thread.start()

    def _drain(self) -> None:
        while chunk := os.read(self.reader, 65536):
            self.data += chunk

    def join(self) -> None:
        self._thread.join(PATIENCE_S)
        os.close(self.reader)


class Worker:
    """A started worker. `stdio`: the socket is fd 0 and 1 instead of fd 3."""

    def __init__(
        self, argv: Sequence[str], environment: Mapping[str, str], cwd: Path, *, stdio: bool = False, drain: bool = True
    ) -> None:
        self.socket, far = socket.socketpair()
        self.socket.settimeout(PATIENCE_S)
        self._pipes = [_Pipe(), _Pipe()]
        ends = [(far.fileno(), 0), (far.fileno(), 1)] if stdio else [(self._pipes[0].writer, 1), (far.fileno(), 3)]
        actions = [(os.POSIX_SPAWN_DUP2, fd, to) for fd, to in [*ends, (self._pipes[1].writer, 2)]]
        command = ["/usr/bin/env", "-C", str(cwd), *argv]
        self.pid = os.posix_spawn(command[0], command, dict(environment), file_actions=actions)
        self._pidfd = os.pidfd_open(self.pid)
        self._status: int | None = None
        self._draining = False
        far.close()
        if drain:
            self.drain()

    def drain(self) -> None:
        """Begin to read the log pipes."""
        self._draining = True
        for pipe in self._pipes:
            pipe.start()

    # --- towards the worker ---------------------------------------------------------------------------------

    def send(self, kind: str, body: bytes = b"") -> None:
        self.socket.sendall(frame(kind, body))

    def work(self, invocation: int, payload: bytes = b"", context: bytes = b"") -> None:
        self.send("W", struct.pack("<IH", invocation, len(context)) + context + payload)

    def answer(self, call: int, status: int = OK, payload: bytes = b"") -> None:
        self.send("A", struct.pack("<IB", call, status) + payload)

    def stop(self) -> int:
        """Ask it to end; its exit status."""
        self.send("X")
        return self.exit_status()

    # --- from the worker ------------------------------------------------------------------------------------

    def receive(self) -> tuple[str, bytes]:
        """The next frame; EOFError when there is none to come."""
        length, kind = struct.unpack("<IB", self._exactly(5))
        assert 1 <= length <= 1 << 20
        return chr(kind), self._exactly(length - 1)

    def silent(self, seconds: float) -> bool:
        """Whether it says nothing for this long."""
        return not select.select([self.socket], [], [], seconds)[0]

    def initialised(self) -> str:
        """Wait for `I`: "" when the function can start, else why not."""
        kind, body = self.receive()
        assert kind == "I", (kind, body)
        assert (body[0] == 1) == (body[1:] == b"")
        return body[1:].decode()

    def result(self, invocation: int) -> bytes:
        kind, body = self.receive()
        assert kind == "R", (kind, body)
        assert struct.unpack_from("<I", body)[0] == invocation
        return body[4:]

    def error(self, invocation: int) -> Any:
        kind, body = self.receive()
        assert kind == "E", (kind, body)
        assert struct.unpack_from("<I", body)[0] == invocation
        return json.loads(body[4:])

    def posting(self) -> Posting:
        kind, body = self.receive()
        assert kind == "P", (kind, body)
        call, posted, length = struct.unpack_from("<IBH", body)
        arn, rest = body[7 : 7 + length], body[7 + length :]
        size = struct.unpack_from("<H", rest)[0]
        return Posting(call, posted, arn.decode(), rest[2 : 2 + size], rest[2 + size :])

    def _exactly(self, size: int) -> bytes:
        data = b""
        while len(data) < size:
            chunk = self.socket.recv(min(size - len(data), 65536))
            if not chunk:
                raise EOFError(f"the worker ended: {self.records()}")
            data += chunk
        return data

    # --- its end --------------------------------------------------------------------------------------------

    def exit_status(self) -> int:
        """Wait for its end: exit status, or minus the signal that ended it."""
        if self._status is None:
            ready = select.select([self._pidfd], [], [], PATIENCE_S)[0]
            assert ready, "the worker does not end"
            self._status = os.waitstatus_to_exitcode(os.waitpid(self.pid, 0)[1])
        return self._status

    def records(self) -> list[tuple[str, str]]:
        """What has been logged so far: (level, text), standard output before standard error."""
        found = []
        for pipe, plain in zip(self._pipes, ("INFO", "ERROR"), strict=True):
            for line in pipe.data.decode("utf-8", "replace").split("\n"):
                if line.startswith("\x1e"):
                    found.append((_LEVELS[line[1]], line[2:].replace("\x1d", "\n")))
                elif line:
                    found.append((plain, line))
        return found

    def logged(self, level: str) -> list[str]:
        """Texts of one level; wait for the worker's end, or for something it sent after logging, before."""
        deadline = time.monotonic() + PATIENCE_S
        while True:
            texts = [text for at, text in self.records() if at == level]
            if texts or self._status is not None or time.monotonic() > deadline:
                return texts
            time.sleep(0.005)

    def close(self) -> None:
        """End it if it has not ended, and give everything back."""
        self.socket.close()
        if self._status is None:
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.pid, signal.SIGKILL)
            self.exit_status()
        if not self._draining:
            self.drain()
        for pipe in self._pipes:
            pipe.join()
        os.close(self._pidfd)

    def finish(self) -> list[tuple[str, str]]:
        """Wait for its end and for the last of its log."""
        self.exit_status()
        for pipe in self._pipes:
            pipe._thread.join(PATIENCE_S)
        return self.records()

    def __enter__(self) -> Worker:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def frame(kind: str, body: bytes = b"") -> bytes:
    return struct.pack("<I", 1 + len(body)) + kind.encode() + body


def environment(**more: str) -> dict[str, str]:
    """What every program that runs a function finds (sdk-contract 3), with more or other values."""
    values = {
        "PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
        "HOME": "/",
        "MY_FUNCTION_ARN": ARN,
        "AWS_CONTAINER_AUTHORIZATION_TOKEN": "token",
        "ROUTER_FUNCTION_ARN": ROUTER,
        "SHADOW_FUNCTION_ARN": SHADOWS,
        "SECRETS_MANAGER_FUNCTION_ARN": SECRETS,
        "GG_DAEMON_PORT": "8000",
        "ENCODING_TYPE": "json",
        "GGC_MAX_INTERFACE_VERSION": "1.5",
        "AWS_IOT_THING_NAME": "core",
        "AWS_REGION": "eu-west-1",
        "GGFAST_TIMEOUT_S": "10",
        "GGFAST_MEMORY_KB": "65536",
        "GGFAST_LOG_LEVEL": "INFO",
        "GGFAST_LOG_GROUP": "/aws/greengrass/Lambda/eu-west-1/123456789012/f",
        "GGFAST_LOG_STREAM": "123456789012/g/core",
    }
    values.update(more)
    return values
