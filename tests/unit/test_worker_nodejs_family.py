"""Threads and child processes of a Node.js function: they reach the core over HTTP (sdk-contract 2)."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from nodejs_support import ready
from worker_support import ROUTER

OTHER = "arn:aws:lambda:eu-west-1:123456789012:function:other:1"
CHILD = f"""
const IPC = require('aws-greengrass-ipc-sdk-js');
const {{envVars}} = require('aws-greengrass-common-js');
const ipc = new IPC(envVars.AUTH_TOKEN);
const told = [];
const send = process.send ? (m) => process.send(m, () => process.disconnect()) :
  (m) => require('worker_threads').parentPort.postMessage(m);
const context = Buffer.from('{{"custom":{{}}}}').toString('base64');
ipc.postWork('{OTHER}', Buffer.from([0, 255]), context, 'RequestResponse', (error, id) =>
  ipc.getWorkResult('{OTHER}', id, (error, body, kind, status) => {{
    told.push([error && error.message, [...body], kind, status]);
    ipc.postWork('{ROUTER}', 'x', '', 'Event', (error) => {{
      told.push([error.name, error.message]);
      ipc.getWork('{OTHER}', (error) => {{ told.push(error.message); send(told) }});
    }});
  }}));
console.log('a line');
"""
PARENTS = {
    "child": "require('child_process').fork(__dirname + '/child.js')",
    "thread": "new (require('worker_threads').Worker)(__dirname + '/child.js')",
}


class _Core(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    seen: list[tuple[Any, ...]]

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        self._note(body)
        if ROUTER in self.path:
            self._answer(503, b"the queue is full")
        else:
            self._answer(200, b"", {"X-Amz-InvocationId": "i-1"})

    def do_GET(self) -> None:
        self._note(self.headers["X-Amz-InvocationId"])
        self._answer(200, b"\xff\x00", {"X-Amz-Function-Error": "Handled"})

    def _note(self, more: Any) -> None:
        names = ("Authorization", "X-Amz-Invocation-Type", "X-Amz-Client-Context")
        self.seen.append((self.command, self.path, *(self.headers[name] for name in names), more))

    def _answer(self, status: int, body: bytes, headers: dict[str, str] | None = None) -> None:
        self.send_response(status)
        for name, value in {**(headers or {}), "Content-Length": str(len(body))}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: Any) -> None:
        """Nothing on the test's own output."""


@pytest.fixture
def core() -> Iterator[tuple[int, list[tuple[Any, ...]]]]:
    seen: list[tuple[Any, ...]] = []
    server = ThreadingHTTPServer(("127.0.0.1", 0), type("Core", (_Core,), {"seen": seen}))
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    yield server.server_port, seen
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.mark.parametrize("parent", PARENTS)
def test_they_reach_the_core(tmp_path: Path, core: tuple[int, list[tuple[Any, ...]]], parent: str) -> None:
    port, seen = core
    index = f"""exports.handler = (event, context, done) => {{
      {PARENTS[parent]}.on('message', (m) => done(null, m));
    }}"""
    with ready(tmp_path, {"index.js": index, "child.js": CHILD}, GG_DAEMON_PORT=str(port)) as worker:
        worker.work(1)
        told = json.loads(worker.result(1))
        assert told[0] == [None, [255, 0], "Handled", 200]
        assert told[1] == ["IPCException", "the queue is full"]
        assert "only the process that the core started gets work" in told[2]
        assert worker.stop() == 0
        assert worker.finish() == [("INFO", "a line")]
    context = "eyJjdXN0b20iOnt9fQ=="
    assert seen == [
        ("POST", f"/2016-11-01/functions/{OTHER}", "token", "RequestResponse", context, b"\x00\xff"),
        ("GET", f"/2016-11-01/functions/{OTHER}", "token", None, None, "i-1"),
        ("POST", f"/2016-11-01/functions/{ROUTER}", "token", "Event", "", b"x"),
    ]


def test_without_a_core_it_is_an_error(tmp_path: Path, free_port: Any) -> None:
    child = """const ipc = new (require('aws-greengrass-ipc-sdk-js'))('token');
    ipc.postWork('a', '', '', 'Event', (error) => process.send(error.message, () => process.disconnect()))"""
    index = f"exports.handler = (e, c, done) => {{ {PARENTS['child']}.on('message', (m) => done(null, m)) }}"
    port = str(free_port())
    with ready(tmp_path, {"index.js": index, "child.js": child}, GG_DAEMON_PORT=port) as worker:
        worker.work(1)
        assert f"the core cannot be reached on 127.0.0.1:{port}" in json.loads(worker.result(1))
