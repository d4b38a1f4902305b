"""The local shadow service between a table and a disk: order, durability, bounds, and every way a disk fails."""

from __future__ import annotations

import asyncio
import json
import os
import sqlite3
import subprocess
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

import orjson
import pytest

from ggfast.arns import SHADOW_SERVICE
from ggfast.clock import Clock
from ggfast.core.shadows.service import ShadowService
from ggfast.counters import Counters

LAMP = "$aws/things/lamp/shadow"


class Hands(Clock):
    """A clock that is set."""

    def __init__(self) -> None:
        self.now = 1_800_000_000.0

    def wall(self) -> float:
        return self.now

    def monotonic(self) -> float:
        return self.now


class Log:
    def __init__(self) -> None:
        self.lines: list[str] = []

    def error(self, message: str, **fields: Any) -> None:
        self.lines.append(f"{message} {fields}")


class Scene:
    """A service, and what it has told the table."""

    def __init__(self, path: Path) -> None:
        self.path, self.clock, self.counters, self.log = path, Hands(), Counters(), Log()
        self.told: list[tuple[str, Any]] = []
        log: Any = self.log
        self.service = ShadowService(self, path, self.clock, self.counters, log, fsync=False)

    def publish(self, source: str, topic: bytes, payload: bytes, qos: int = 0, retain: bool = False) -> int:
        assert source == SHADOW_SERVICE
        self.told.append((topic.decode(), json.loads(payload)))
        return 1

    def send(self, operation: str, content: Any = b"", thing: str = LAMP) -> bool:
        payload = content if isinstance(content, bytes) else orjson.dumps(content)
        return self.service.offer("a device", f"{thing}/{operation}".encode(), payload, 0, False)

    async def heard(self, count: int) -> list[tuple[str, Any]]:
        """The next messages."""
        async with asyncio.timeout(10):
            while len(self.told) < count:
                await asyncio.sleep(0.001)
        found, self.told = self.told[:count], self.told[count:]
        return found

    async def ask(self, subject: str, payload: bytes = b"") -> Any:
        context = orjson.dumps({"custom": {"subject": subject}})
        return json.loads(await self.service.ask("a function", context, payload))


def run(path: Path, work: Callable[[Scene], Awaitable[None]]) -> Scene:
    async def whole() -> Scene:
        scene = Scene(path)
        async with asyncio.timeout(30):
            await work(scene)
            await scene.service.stop()
        return scene

    return asyncio.run(whole())


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "shadow" / "shadows.db"


def desired(**state: Any) -> dict[str, Any]:
    return {"state": {"desired": state}}


def test_row_87_update_get_and_delete_with_their_answers(path: Path) -> None:
    async def work(scene: Scene) -> None:
        assert scene.send("update", desired(light="on") | {"clientToken": "t"})
        delta, accepted, documents = await scene.heard(3)
        assert [delta[0], accepted[0], documents[0]] == [
            f"{LAMP}/update/{name}" for name in ("delta", "accepted", "documents")
        ]
        assert delta[1]["state"] == {"light": "on"}
        assert (accepted[1]["version"], accepted[1]["clientToken"]) == (1, "t")
        assert documents[1]["previous"]["version"] == 0
        scene.send("update", {"state": {"reported": {"light": "on"}}})
        assert [topic for topic, _ in await scene.heard(2)] == [f"{LAMP}/update/accepted", f"{LAMP}/update/documents"]
        scene.send("get")
        ((topic, got),) = await scene.heard(1)
        assert topic == f"{LAMP}/get/accepted"
        assert got["state"] == {"desired": {"light": "on"}, "reported": {"light": "on"}}
        assert got["metadata"]["desired"] == {"light": {"timestamp": 1_800_000_000}}
        scene.send("delete")
        assert (await scene.heard(1))[0] == (f"{LAMP}/delete/accepted", {"version": 2, "timestamp": 1_800_000_000})

    run(path, work)


def test_row_88_a_wrong_version_is_rejected_with_its_token(path: Path) -> None:
    async def work(scene: Scene) -> None:
        scene.send("update", desired(a=1))
        await scene.heard(3)
        scene.send("update", desired(a=2) | {"version": 7, "clientToken": "mine"})
        ((topic, refused),) = await scene.heard(1)
        assert topic == f"{LAMP}/update/rejected"
        assert (refused["code"], refused["message"], refused["clientToken"]) == (409, "Version conflict", "mine")

    run(path, work)


@pytest.mark.parametrize(
    ("operation", "payload", "code"),
    [
        ("get", b"", 404),
        ("delete", b"", 404),
        ("update", b"{", 400),
        ("update", b'{"state": 1}', 400),
        ("update", b'{"state": {"desired": {"a": "%s"}}}' % (b"x" * 9_000), 413),
        ("update", b'{"state": {"desired": {"a": "\xff"}}}', 415),
    ],
)
def test_row_89_refusals_have_the_service_s_codes(path: Path, operation: str, payload: bytes, code: int) -> None:
    async def work(scene: Scene) -> None:
        scene.send(operation, payload)
        ((topic, refused),) = await scene.heard(1)
        assert (topic, refused["code"]) == (f"{LAMP}/{operation}/rejected", code)

    run(path, work)


def test_row_92_functions_ask_without_the_table_and_others_hear_of_it(path: Path) -> None:
    async def work(scene: Scene) -> None:
        found = await scene.ask(f"{LAMP}/update", orjson.dumps(desired(a=1)))
        assert (found["state"], found["version"]) == ({"desired": {"a": 1}}, 1)
        assert next(topic for topic, _ in await scene.heard(3)) == f"{LAMP}/update/delta"
        assert (await scene.ask(f"{LAMP}/get", b"{}"))["state"]["desired"] == {"a": 1}
        assert (await scene.ask("$aws/things/other/shadow/get"))["code"] == 404
        for odd in ("a/b", "$aws/things/lamp/shadow/get/accepted", ""):
            assert (await scene.ask(odd))["code"] == 400
        assert json.loads(await scene.service.ask("f", b"not JSON", b""))["code"] == 400
        assert json.loads(await scene.service.ask("f", b'{"custom": {"subject": 7}}', b""))["code"] == 400

    run(path, work)


def test_named_shadows_are_shadows_of_their_own(path: Path) -> None:
    async def work(scene: Scene) -> None:
        scene.send("update", desired(a=1), f"{LAMP}/name/night")
        assert (await scene.heard(3))[1][0] == f"{LAMP}/name/night/update/accepted"
        scene.send("get")
        assert (await scene.heard(1))[0][1]["code"] == 404

    run(path, work)


def test_what_is_no_request_is_dropped_and_counted(path: Path) -> None:
    async def work(scene: Scene) -> None:
        for topic in (b"a/b", f"{LAMP}/update/accepted".encode(), b"\xff", b""):
            assert not scene.service.offer("a device", topic, b"{}", 0, False)
        assert scene.counters.get("shadow.dropped.no_request") == 4

    run(path, work)


def test_shadows_and_versions_of_deleted_ones_outlive_the_process(path: Path) -> None:
    async def first(scene: Scene) -> None:
        scene.send("update", desired(a=1))
        scene.send("update", desired(a=2))
        scene.send("update", desired(b=1), "$aws/things/door/shadow")
        scene.send("delete", thing="$aws/things/door/shadow")
        await scene.heard(10)

    async def second(scene: Scene) -> None:
        assert (await scene.ask(f"{LAMP}/get"))["version"] == 2
        assert (await scene.ask("$aws/things/door/shadow/update", orjson.dumps(desired(c=1))))["version"] == 2
        await scene.ask("$aws/things/door/shadow/delete")
        scene.clock.now += 3 * 86_400
        assert (await scene.ask("$aws/things/door/shadow/update", orjson.dumps(desired(c=1))))["version"] == 1

    run(path, first)
    run(path, second)
    assert path.stat().st_mode & 0o777 == 0o600


def test_requests_of_a_burst_are_answered_in_their_order(path: Path) -> None:
    async def work(scene: Scene) -> None:
        for number in range(500):
            scene.send("update", {"state": {"reported": {"n": number}}})
        told = await scene.heard(1_000)
        accepted = [found for topic, found in told if topic.endswith("accepted")]
        assert [found["state"]["reported"]["n"] for found in accepted] == list(range(500))
        assert [found["version"] for found in accepted] == list(range(1, 501))

    run(path, work)


def test_too_much_at_once_is_refused_by_name(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ggfast.limits.SHADOW_WAITING_BYTES_MAX", 1_000)

    async def work(scene: Scene) -> None:
        for _ in range(10):
            scene.send("get")
        told = await scene.heard(10)
        assert [found["code"] for _, found in told].count(429) == 7
        assert scene.counters.get("shadow.refused.busy") == 7
        scene.send("get")
        assert (await scene.heard(1))[0][1]["code"] == 404

    run(path, work)


def test_there_may_be_only_so_many_shadows(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ggfast.limits.SHADOWS_MAX", 2)

    async def work(scene: Scene) -> None:
        for name in ("a", "b"):
            assert (await scene.ask(f"$aws/things/{name}/shadow/update", orjson.dumps(desired(x=1))))["version"] == 1
        assert (await scene.ask("$aws/things/c/shadow/update", orjson.dumps(desired(x=1))))["code"] == 429
        await scene.ask("$aws/things/a/shadow/delete")
        scene.clock.now += 3 * 86_400
        assert (await scene.ask("$aws/things/c/shadow/update", orjson.dumps(desired(x=1))))["version"] == 1

    run(path, work)


def test_a_damaged_file_is_put_aside_and_the_service_goes_on(path: Path) -> None:
    path.parent.mkdir()
    path.write_bytes(b"this is no database" * 1_000)

    async def work(scene: Scene) -> None:
        assert (await scene.ask(f"{LAMP}/update", orjson.dumps(desired(a=1))))["version"] == 1

    run(path, work)
    assert b"no database" in path.with_name("shadows.db.damaged").read_bytes()


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    disk = tmp_path / "disk"
    disk.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=512k", "tmpfs", str(disk)], check=True)
    yield disk
    subprocess.run(["umount", "-l", str(disk)], check=True)


def test_a_full_disk_refuses_updates_and_nothing_else(small_disk: Path) -> None:
    ballast = small_disk / "ballast"

    async def work(scene: Scene) -> None:
        assert (await scene.ask(f"{LAMP}/update", orjson.dumps(desired(a=1))))["version"] == 1
        with ballast.open("wb", buffering=0) as file, pytest.raises(OSError):
            while True:
                file.write(os.urandom(512))
        refusals = 0
        for number in range(50):  # what is in the log already may be written over
            big = orjson.dumps(desired(a="x" * 7_000, n=number))
            refusals += (await scene.ask(f"{LAMP}/update", big)).get("code") == 500
        assert refusals > 0
        assert "cannot be kept" in scene.log.lines[0] and len(scene.log.lines) == 1
        assert (await scene.ask(f"{LAMP}/get")).get("version", 0) >= 1
        ballast.unlink()
        before = (await scene.ask(f"{LAMP}/get"))["version"]
        assert (await scene.ask(f"{LAMP}/update", orjson.dumps(desired(a=2))))["version"] == before + 1

    run(small_disk / "shadows.db", work)


def test_a_place_that_cannot_be_written_is_an_answer(tmp_path: Path) -> None:
    (tmp_path / "file").touch()

    async def work(scene: Scene) -> None:
        assert (await scene.ask(f"{LAMP}/update", orjson.dumps(desired(a=1))))["code"] == 500

    scene = run(tmp_path / "file" / "shadows.db", work)
    assert scene.counters.get("shadow.failed") == 1


def test_forgetting_removes_the_file_and_the_service_starts_anew(path: Path) -> None:
    async def work(scene: Scene) -> None:
        await scene.ask(f"{LAMP}/update", orjson.dumps(desired(a=1)))
        await scene.service.forget()
        assert os.listdir(path.parent) == []
        assert (await scene.ask(f"{LAMP}/get"))["code"] == 404

    run(path, work)


def test_what_waits_is_served_before_the_end(path: Path) -> None:
    async def work(scene: Scene) -> None:
        for number in range(100):
            scene.send("update", desired(n=number))
        await scene.service.stop()
        assert len(scene.told) == 300

    run(path, work)
    with sqlite3.connect(path) as connection:
        assert connection.execute("SELECT version FROM shadow").fetchone() == (100,)


KILLED = """
import asyncio, os, sys
sys.path[:0] = sys.argv[2:]
from tests.unit.test_shadow_service import LAMP, Scene, desired
from pathlib import Path

async def work():
    scene = Scene(Path(sys.argv[1]))
    scene.service._fsync = True
    number = 0
    while True:
        number += 1
        scene.send("update", desired(n=number))
        for topic, found in await scene.heard(3):
            if topic.endswith("accepted"):
                os.write(1, b"%d\\n" % found["state"]["desired"]["n"])

asyncio.run(work())
"""


def test_p2_an_accepted_update_survives_kill_nine(path: Path) -> None:
    import sys

    root = str(Path(__file__).resolve().parents[2])
    for kills in range(3):
        process = subprocess.Popen([sys.executable, "-c", KILLED, str(path), root], stdout=subprocess.PIPE, text=True)
        assert process.stdout is not None
        last = 0
        for line in process.stdout:
            last = int(line)
            if last >= 20 + 7 * kills:
                break
        process.kill()
        last = max([last, *(int(line) for line in process.stdout.read().splitlines() if line.isdigit())])
        process.stdout.close()
        process.wait()

        async def look(scene: Scene, told: int = last) -> None:
            found = (await scene.ask(f"{LAMP}/get"))["state"]["desired"]["n"]
            assert found in (told, told + 1)  # one may have been kept and not yet been told

        run(path, look)
