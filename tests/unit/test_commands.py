"""Commands that meet each other, or something else than a core: what they say and leave alone."""

from __future__ import annotations

import argparse
import os
import signal
import socket
import threading
from pathlib import Path
from types import SimpleNamespace

import pytest

from ggfast.cli import checks, control_client, deploy, install, launching, process, stop
from ggfast.errors import GgfastError, LinkDown, OperatingError, SandboxFailed
from ggfast.layout import Layout
from ggfast.sandbox import launch


@pytest.fixture
def layout(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Layout:
    found = Layout.of(tmp_path, pid_directory=tmp_path)
    found.control_socket.parent.mkdir(parents=True)
    config = SimpleNamespace(layout=found)
    accounts = checks.Accounts(1, 1, 1, 1)
    for module in (deploy, stop):
        monkeypatch.setattr(module, "load_config", lambda _: config)
    monkeypatch.setattr(checks, "require_root", lambda _: None)
    monkeypatch.setattr(checks, "accounts", lambda _: accounts)
    monkeypatch.setattr(install, "make_layout", lambda *_: None)
    return found


def test_nothing_is_deployed_under_a_core_that_is_starting(layout: Layout) -> None:
    """It has no PID file yet; its store is the daemon's."""
    held = launch.lock(str(layout.control_socket.parent))
    try:
        with pytest.raises(SandboxFailed, match="running already"):
            deploy.run(argparse.Namespace(root=layout.root, folder=layout.root))
    finally:
        os.close(held)


def test_a_failed_deployment_lets_go_of_the_root(layout: Layout, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise OperatingError("no")

    monkeypatch.setattr(deploy, "run_as", refuse)
    with pytest.raises(OperatingError, match="no"):
        deploy.run(argparse.Namespace(root=layout.root, folder=layout.root))
    os.close(launch.lock(str(layout.control_socket.parent)))


def test_stop_does_not_call_a_starting_core_not_running(layout: Layout) -> None:
    arguments = argparse.Namespace(root=layout.root, command="stop")
    held = launch.lock(str(layout.control_socket.parent))
    try:
        with pytest.raises(OperatingError, match="being started or stopped"):
            stop.run(arguments)
    finally:
        os.close(held)
    assert stop.run(arguments) == 1


@pytest.mark.parametrize("text", ["0", "99999999999999999999", "2147483647"])
def test_a_pid_file_with_an_impossible_number_names_nobody(layout: Layout, text: str) -> None:
    layout.pid_file.write_text(text)
    assert process.find(layout) is None


@pytest.mark.parametrize("answer", [b"", b'{"ok": tr'])
def test_a_core_that_dies_before_its_answer(tmp_path: Path, answer: bytes) -> None:
    path = tmp_path / "control.sock"
    server = launching.listen_unix(path)

    def serve() -> None:
        sock, _ = server.accept()
        with sock:
            sock.recv(1000)
            sock.sendall(answer)

    thread = threading.Thread(target=serve)
    thread.start()
    with pytest.raises(LinkDown, match="without an answer"):
        control_client.request(path, {"verb": "status"})
    thread.join()
    server.close()


def test_a_core_that_takes_too_long_is_not_called_stopped(tmp_path: Path) -> None:
    path = tmp_path / "control.sock"
    server = launching.listen_unix(path)
    with pytest.raises(LinkDown, match="may still be at it"):
        control_client.request(path, {"verb": "activate"}, timeout_s=0.05)
    server.close()


def test_a_name_that_is_nowhere_is_a_clear_error(monkeypatch: pytest.MonkeyPatch) -> None:
    def nowhere(*_: object, **__: object) -> None:
        raise socket.gaierror(-2, "Name or service not known")

    monkeypatch.setattr(socket, "getaddrinfo", nowhere)
    with pytest.raises(GgfastError, match="cannot listen on nowhere"):
        launching.listen_tcp("nowhere", 8883)


def test_an_interrupted_start_does_not_come_up_later(monkeypatch: pytest.MonkeyPatch) -> None:
    def sleep(*_: object, **__: object) -> None:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        signal.pause()

    def interrupt(_: int) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(launch, "_background_child", sleep)
    monkeypatch.setattr(launch, "_await_ready", interrupt)
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    spec: object = SimpleNamespace()
    with pytest.raises(KeyboardInterrupt):
        launch.launch(spec, background=True)  # type: ignore[arg-type]
    with pytest.raises(ChildProcessError):
        os.waitpid(-1, os.WNOHANG)
