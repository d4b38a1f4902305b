"""The core's control socket: what `ggfast-core status`, `deploy` and `invoke` talk to.

A UNIX stream socket in the state directory; one JSON object a line each way, several requests on one connection
allowed. Only root and the daemon's own user may speak (checked with SO_PEERCRED, whatever the file mode says).
Answers: `{"ok": true, ...}` or `{"ok": false, "error": text}`.
"""

from __future__ import annotations

import asyncio
import os
import socket
import struct
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

import orjson

from ggfast import limits
from ggfast.errors import GgfastError
from ggfast.log import SystemLog

Verb = Callable[[Mapping[str, Any]], Awaitable[dict[str, Any]]]

_UCRED = struct.Struct("3i")  # pid, uid, gid: struct ucred of unix(7)


class ControlServer:
    """Answers control requests; a failing verb answers with its error and harms nothing else."""

    def __init__(self, log: SystemLog, verbs: Mapping[str, Verb]) -> None:
        self._log = log
        self._verbs = dict(verbs)
        self._server: asyncio.AbstractServer | None = None
        self._connections: set[asyncio.Task[None]] = set()

    async def serve(self, sock: socket.socket) -> None:
        """Start answering on a socket that already listens. Returns at once."""
        self._server = await asyncio.start_unix_server(
            self._connected, sock=sock, limit=limits.CONTROL_REQUEST_BYTES_MAX
        )

    async def close(self) -> None:
        """Stop answering and end open connections."""
        if self._server is not None:
            self._server.close()
        for task in tuple(self._connections):
            task.cancel()
        await asyncio.gather(*self._connections, return_exceptions=True)

    async def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        if task is not None:
            self._connections.add(task)
            task.add_done_callback(self._connections.discard)
        try:
            if len(self._connections) > limits.CONTROL_CONNECTIONS_MAX:
                await self._send(writer, _failure("too many control connections: try again"))
            elif not _peer_allowed(writer):
                await self._send(writer, _failure("control requests are for root: run the command with sudo"))
            else:
                await self._converse(reader, writer)
        except (ConnectionError, asyncio.CancelledError):
            pass
        finally:
            writer.close()

    async def _converse(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while True:
            try:
                line = await reader.readline()
            except ValueError:  # longer than the stream's limit
                await self._send(writer, _failure(f"request exceeds {limits.CONTROL_REQUEST_BYTES_MAX} bytes"))
                return
            if not line.endswith(b"\n"):
                return
            await self._send(writer, await self._answer(line))

    async def _answer(self, line: bytes) -> dict[str, Any]:
        try:
            request = orjson.loads(line)
        except orjson.JSONDecodeError as error:
            return _failure(f"request is not JSON: {error}")
        name = request.get("verb") if isinstance(request, dict) else None
        verb = self._verbs.get(name) if isinstance(name, str) else None
        if verb is None:
            return _failure(f"unknown verb {name!r}, expected one of {', '.join(sorted(self._verbs))}")
        try:
            return {"ok": True, **await verb(request)}
        except GgfastError as error:
            return _failure(str(error))
        except Exception as error:  # a verb's defect must not end the core: say it and go on
            self._log.error("Control request failed.", verb=name, error=repr(error))
            return _failure(f"{name} failed inside the core: {error!r}; see runtime.log")

    @staticmethod
    async def _send(writer: asyncio.StreamWriter, answer: dict[str, Any]) -> None:
        writer.write(orjson.dumps(answer) + b"\n")
        await writer.drain()


def _failure(text: str) -> dict[str, Any]:
    return {"ok": False, "error": text}


def _peer_allowed(writer: asyncio.StreamWriter) -> bool:
    sock = writer.get_extra_info("socket")
    _, uid, _ = _UCRED.unpack(sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _UCRED.size))
    return uid in (0, os.geteuid())
