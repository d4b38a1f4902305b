"""The process that fetches deployments: what it says, how it ends, and what the daemon makes of both."""

from __future__ import annotations

import asyncio
import contextlib
import io
import json
import os
import signal
import subprocess
import sys
import zipfile
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import orjson
import pytest
from group_support import CORE, FUNCTION
from offer_support import offer_of, sha256
from tls_support import People

from ggfast import limits
from ggfast.config import Config, load_config
from ggfast.core.deploy import fetch
from ggfast.core.deploy.downloads import DOWNLOAD_FAILED
from ggfast.core.deploy.fetch import Fetched
from ggfast.core.deploy.store import Store, live_deployment, load_active
from ggfast.core.handed import Handed
from ggfast.errors import DeploymentFailed, LinkDown
from tests.patience import patience


def package() -> bytes:
    raw = io.BytesIO()
    with zipfile.ZipFile(raw, "w") as archive:
        archive.writestr(zipfile.ZipInfo("main.py"), "def handler(event, context):\n    pass\n")
        archive.writestr(zipfile.ZipInfo("data"), os.urandom(300_000))
    return raw.getvalue()


PACKAGE = package()


def offer() -> dict[str, Any]:
    return offer_of(PACKAGE)


class Core:
    """A core on disk, with the files that root would hand over."""

    def __init__(self, root: Path, people: People, port: int) -> None:
        (root / "config").mkdir(parents=True)
        thing = {"thingArn": CORE, "iotHost": "localhost", "ggHost": "localhost", "ggHttpPort": port}
        thing |= {"caPath": "ca.pem", "certPath": "core.crt", "keyPath": "core.key"}
        (root / "config" / "config.json").write_text(json.dumps({"coreThing": thing}))
        self.config: Config = load_config(root)
        identity = root / "identity.pem"
        identity.write_bytes(people.device.cert.read_bytes() + people.device.key.read_bytes())
        self.open = [os.open(path, os.O_RDONLY) for path in (identity, people.server.cert)]
        self.handed = Handed.from_arguments([f"identity={self.open[0]}", f"authorities={self.open[1]}"])

    def close(self) -> None:
        for descriptor in self.open:
            os.close(descriptor)

    async def fetch(self) -> Fetched:
        return await fetch.run(offer(), "new", self.config, self.handed)


class Server:
    """Answers requests for the package, or nothing; `seen` are the lines of requests, `called` the connections."""

    def __init__(self) -> None:
        self.silent = False
        self.status = 200
        self.seen: list[str] = []
        self.called = asyncio.Event()

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(ConnectionError, asyncio.IncompleteReadError):
            while True:
                head = (await reader.readuntil(b"\r\n\r\n")).decode()
                self.seen.append(head.split("\r\n")[0])
                self.called.set()
                if self.silent:
                    await reader.read()
                    break
                body = PACKAGE if self.status == 200 else b'{"message": "not for you"}'
                writer.write(f"HTTP/1.1 {self.status} X\r\nContent-Length: {len(body)}\r\n\r\n".encode() + body)
                await writer.drain()
        writer.close()


@asynccontextmanager
async def serving(people: People) -> AsyncIterator[tuple[Server, int]]:
    server = Server()
    listener = await asyncio.start_server(server.serve, "localhost", 0, ssl=people.serving())
    async with listener:
        yield server, listener.sockets[0].getsockname()[1]


@pytest.fixture(scope="module")
def people(tmp_path_factory: pytest.TempPathFactory) -> People:
    """Made once: keys take a while."""
    return People(tmp_path_factory.mktemp("people"))


@pytest.fixture
def core(tmp_path: Path, people: People) -> Iterator[Core]:
    made = Core(tmp_path / "greengrass", people, 1)
    yield made
    made.close()


def test_a_process_fetches_over_tls_with_the_files_handed_over(tmp_path: Path, people: People) -> None:
    async def run() -> None:
        async with serving(people) as (server, port):
            core = Core(tmp_path / "greengrass", people, port)
            assert isinstance(await core.fetch(), Fetched)
            assert server.seen == [f"GET /greengrass/artifacts/{sha256(PACKAGE)} HTTP/1.1"]
            store = Store(core.config.layout, fsync=False)
            store.activate(core.config.layout.staging / "new")
            store.confirm()
            assert load_active(core.config.layout).function(FUNCTION) is not None
            live = live_deployment(core.config.layout)
            assert live is not None and live["id"] == "d"
            server.seen.clear()
            await core.fetch()
            assert server.seen == []  # what is live is not fetched again
            core.close()

    asyncio.run(run())


def test_a_refusal_is_told_with_the_servers_words(tmp_path: Path, people: People) -> None:
    async def run() -> None:
        async with serving(people) as (server, port):
            core = Core(tmp_path / "greengrass", people, port)
            server.status = 403
            with pytest.raises(DeploymentFailed) as error:
                await core.fetch()
            assert (error.value.phase, error.value.rolled_back) == ("download", True)
            assert error.value.detail == f"{DOWNLOAD_FAILED}{FUNCTION}: not for you"
            assert len(server.seen) == limits.FETCH_REFUSALS_MAX
            core.close()

    asyncio.run(run())


def children() -> set[int]:
    return {int(word) for word in Path(f"/proc/self/task/{os.getpid()}/children").read_text().split()}


@pytest.mark.parametrize("how", ["cancelled", "too slow"])
def test_the_process_is_killed(
    tmp_path: Path,
    people: People,
    monkeypatch: pytest.MonkeyPatch,
    how: str,
) -> None:
    async def run() -> None:
        async with serving(people) as (server, port):
            server.silent = True
            core = Core(tmp_path / "greengrass", people, port)
            before = children()
            if how == "too slow":
                monkeypatch.setattr(limits, "FETCH_PROCESS_S", 0.2)
                with pytest.raises(LinkDown, match="was not fetched within"):
                    await core.fetch()
            else:
                task = asyncio.create_task(core.fetch())
                async with asyncio.timeout(patience(20)):
                    await server.called.wait()
                assert len(children() - before) == 1
                task.cancel()
                with pytest.raises(asyncio.CancelledError):
                    await task
            assert children() - before == set()
            core.close()

    asyncio.run(run())


def test_the_process_ends_with_its_parent(tmp_path: Path, people: People) -> None:
    async def run() -> None:
        async with serving(people) as (server, port):
            server.silent = True
            core = Core(tmp_path / "greengrass", people, port)
            (tmp_path / "offer").write_bytes(orjson.dumps(offer()))
            words = [sys.executable, "-I", "-m", "ggfast.core.deploy.fetch", "--root", str(core.config.layout.root)]
            command = [*words, "--staging", "new", *core.handed.arguments()]
            code = "import subprocess, sys; subprocess.run(sys.argv[2:], stdin=open(sys.argv[1]), close_fds=False)"
            for descriptor in core.open:
                os.set_inheritable(descriptor, True)
            parent = await asyncio.create_subprocess_exec(
                sys.executable, "-c", code, str(tmp_path / "offer"), *command, close_fds=False
            )
            async with asyncio.timeout(patience(20)):
                await server.called.wait()
                [child] = Path(f"/proc/{parent.pid}/task/{parent.pid}/children").read_text().split()
                watched = os.pidfd_open(int(child))
                parent.kill()
                await parent.wait()
                ended = asyncio.Event()
                asyncio.get_running_loop().add_reader(watched, ended.set)
                await ended.wait()
                asyncio.get_running_loop().remove_reader(watched)
            os.close(watched)
            core.close()

    asyncio.run(run())


# --- whatever it says ---


def acting(monkeypatch: pytest.MonkeyPatch, place: Path, body: str) -> None:
    """In place of the interpreter, a script."""
    script = place / "acting"
    script.write_text(f"#!/bin/sh\n{body}\n")
    script.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(script))


def test_what_it_says_is_what_comes_of_it(core: Core, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    acting(monkeypatch, tmp_path, """cat >/dev/null; echo '{"ok": true, "notes": ["a", "b"]}'""")
    assert asyncio.run(core.fetch()) == Fetched(("a", "b"))
    acting(monkeypatch, tmp_path, """echo '{"ok": false, "final": true, "phase": "stage", "error": "no room"}'""")
    with pytest.raises(DeploymentFailed, match=r"^no room$") as error:
        asyncio.run(core.fetch())
    assert error.value.phase == "stage"
    acting(monkeypatch, tmp_path, """echo '{"ok": false, "final": false, "phase": "download", "error": "no route"}'""")
    with pytest.raises(LinkDown, match=r"^no route$"):
        asyncio.run(core.fetch())


@pytest.mark.parametrize(
    "body",
    [
        "echo trouble >&2; exit 3",
        "echo '{\"ok\": true}'; echo trouble >&2",
        "echo '[]'; echo trouble >&2",
        "head -c 20000000 /dev/zero; head -c 20000000 /dev/zero >&2; echo >&2; echo trouble >&2",
        "kill -SEGV $$",
    ],
    ids=["status", "no notes", "no object", "too much", "signal"],
)
def test_a_process_that_talks_nonsense_fails_the_deployment(
    core: Core, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, body: str
) -> None:
    acting(monkeypatch, tmp_path, body)
    with pytest.raises(DeploymentFailed) as error:
        asyncio.run(core.fetch())
    assert error.value.detail.startswith("Error while processing. the process that fetches deployments ended ")
    assert len(error.value.detail) < 1_000


@pytest.mark.parametrize("name", ["TERM", "KILL"])
def test_a_process_that_is_ended_from_outside_is_for_later(
    core: Core, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, name: str
) -> None:
    acting(monkeypatch, tmp_path, f"kill -{name} $$")
    with pytest.raises(LinkDown, match=f"by signal {signal.Signals[f'SIG{name}'].value}"):
        asyncio.run(core.fetch())


def test_a_process_that_cannot_be_started_is_for_later(core: Core, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "executable", "/nowhere")
    with pytest.raises(LinkDown, match="cannot be started"):
        asyncio.run(core.fetch())


def test_nothing_of_the_environment_gets_in(core: Core, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PYTHONPATH", "/nowhere")
    monkeypatch.setenv("LANG", "C.UTF-8")
    acting(monkeypatch, tmp_path, f'env >{tmp_path}/env; cat >{tmp_path}/offer; echo \'{{"ok": true, "notes": []}}\'')
    asyncio.run(core.fetch())
    names = {line.partition("=")[0] for line in (tmp_path / "env").read_text().splitlines()}
    assert {"PATH", "LANG"} <= names <= {"PATH", "LANG", "PWD", "OLDPWD", "SHLVL", "_"}  # the shell's own
    assert orjson.loads((tmp_path / "offer").read_bytes()) == offer()


def test_what_only_the_process_needs_is_not_loaded_with_the_agent() -> None:
    code = "import ggfast.core.deploy.fetch, sys; print(*sys.modules)"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    forbidden = {"zipfile", "tarfile", "py_compile", "cryptography", "urllib.request", "http.client", "email"}
    forbidden |= {f"ggfast.core.deploy.{name}" for name in ("offered", "downloads", "staging")}
    assert forbidden & set(found) == set()
