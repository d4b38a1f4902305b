"""Row 7 and design P6: the core's key stays root's on disk; the daemon gets it in memory, nobody else does."""

from __future__ import annotations

import fcntl
import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.harness import Core, a_core, children, eventually, free_port, run_command

FUNCTION = """
def handler(event, context):
    pass
"""


def with_cloud(core: Core) -> Path:
    """Certificates for a core whose cloud cannot be reached; the key's file."""
    certs = core.root / "certs"
    run_command("cert", "device", "--self-signed", "--name", "test_core", "--out", core.directory / "made")
    certs.mkdir(parents=True, exist_ok=True)
    certificate, key = next((core.directory / "made").glob("*.crt")), next((core.directory / "made").glob("*.key"))
    (certs / "core.crt").write_bytes(certificate.read_bytes())
    (certs / "root.ca.pem").write_bytes(certificate.read_bytes())
    (certs / "core.key").write_bytes(key.read_bytes())
    (certs / "core.key").chmod(0o600)

    def change(config: dict[str, Any]) -> None:
        config["ggfast"]["local"] = False
        config["coreThing"] |= {
            "caPath": "root.ca.pem",
            "certPath": "core.crt",
            "keyPath": "core.key",
            "iotHost": "127.0.0.1",
            "ggHost": "127.0.0.1",
            "ggHttpPort": free_port(),
            "iotMqttPort": free_port(),
        }

    core.write_config(change)
    return certs / "core.key"


@pytest.fixture
def core() -> Iterator[Core]:
    with a_core() as core:
        yield core


def handed_to(pid: int) -> dict[str, Path]:
    """The files that a process's command line names."""
    words = Path(f"/proc/{pid}/cmdline").read_bytes().decode().split("\0")
    pairs = (words[place + 1].split("=") for place, word in enumerate(words) if word == "--file")
    return {name: Path(f"/proc/{pid}/fd/{number}") for name, number in pairs}


def handed_descriptors(pid: int) -> list[str]:
    """What a process has open of the files handed over."""
    found = []
    for fd in Path(f"/proc/{pid}/fd").iterdir():
        try:
            found.append(os.readlink(fd))
        except FileNotFoundError:
            pass  # closed meanwhile
    return sorted(name for name in found if name.startswith("/memfd:ggfast-"))


def memory_holds(pid: int, piece: bytes) -> bool:
    """Whether what a process can read of its own memory has this piece."""
    with open(f"/proc/{pid}/maps") as maps, open(f"/proc/{pid}/mem", "rb", buffering=0) as memory:
        for line in maps:
            match = re.match(r"([0-9a-f]+)-([0-9a-f]+) r", line)
            if match is None or line.rstrip().endswith(("[vvar]", "[vsyscall]", "[vvar_vclock]")):
                continue
            begin, end = int(match[1], 16), int(match[2], 16)
            try:
                if piece in os.pread(memory.fileno(), end - begin, begin):
                    return True
            except OSError:
                pass  # a mapping whose file is shorter
    return False


def daemon_other_than(core: Core, gone: int) -> int:
    """The daemon's process number if there is another one than before, else 0."""
    try:
        return core.daemon_pid() if core.daemon_pid() != gone else 0
    except (AssertionError, OSError):
        return 0


def workers_of(core: Core) -> list[int]:
    return [pid for row in core.status()["functions"] for pid in row["pids"]]


def zygote_of(core: Core) -> int:
    return next(
        pid for pid in children(core.pid) if Path(f"/proc/{pid}/cmdline").read_bytes().startswith(b"ggfast-zygote")
    )


def test_P6_the_daemon_alone_gets_the_key_and_gets_it_again(core: Core) -> None:
    key = with_cloud(core)
    folder = core.folder()
    folder.function("idle", FUNCTION, Pinned=True, sdk=False)
    core.deploy(folder)
    core.start()
    supervisor, daemon = core.pid, core.daemon_pid()

    def check(daemon: int) -> None:
        files = handed_to(daemon)
        assert set(files) == {"identity", "authorities"}
        identity = files["identity"].read_bytes()
        assert key.read_bytes().strip() in identity
        assert (key.parent / "core.crt").read_bytes().strip() in identity
        about = files["identity"].stat()
        assert (about.st_uid, about.st_mode & 0o777) == (Path(f"/proc/{daemon}").stat().st_uid, 0o400)
        assert about.st_uid != 0
        with files["identity"].open("rb") as file:
            seals = fcntl.fcntl(file, fcntl.F_GET_SEALS)
        assert seals & fcntl.F_SEAL_WRITE
        assert seals & fcntl.F_SEAL_SEAL

    check(daemon)
    assert key.stat().st_uid == 0
    assert key.stat().st_mode & 0o777 == 0o600

    (worker,) = eventually(lambda: workers_of(core), "the function runs")
    zygote = zygote_of(core)
    assert handed_descriptors(daemon) == handed_descriptors(supervisor) != []
    assert handed_descriptors(worker) == handed_descriptors(zygote) == []
    piece = key.read_bytes().splitlines()[2]
    assert memory_holds(os.getpid(), piece)  # it is found where it is
    assert not memory_holds(supervisor, piece)
    assert not memory_holds(zygote, piece)

    core.kill_daemon()
    check(eventually(lambda: daemon_other_than(core, daemon), "a new daemon"))
    eventually(lambda: core.command("status", check=False).returncode == 0, "the core serves without its cloud")
    assert workers_of(core) == [worker]


def test_what_cannot_be_used_stops_the_start_and_not_a_running_core(core: Core) -> None:
    key = with_cloud(core)
    whole = key.read_bytes()
    key.unlink()
    refused = core.start(check=False)
    assert refused.returncode == 1
    assert f"coreThing.keyPath ({key}): found No such file or directory" in refused.stderr
    assert "cannot be used" in core.crash_log()
    assert not core.pid_file.exists()
    key.write_bytes(whole)
    core.start()
    pid = core.pid
    key.write_bytes(b"")
    restarted = core.command("-i", "restart", check=False)
    assert restarted.returncode == 1
    assert "found an empty file" in restarted.stderr
    assert core.pid == pid
    assert core.status()["daemon_pid"] == core.daemon_pid()


def test_a_core_without_cloud_is_handed_nothing(core: Core) -> None:
    core.start()
    assert handed_to(core.daemon_pid()) == {}
    assert handed_descriptors(core.pid) == []
