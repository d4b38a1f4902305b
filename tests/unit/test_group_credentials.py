"""Keys of the group role: one request for all, sealed on disk, served offline until their end, never after it."""

from __future__ import annotations

import asyncio
import contextlib
import json
import stat
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from botocore.credentials import ContainerProvider, Credentials
from hypothesis import given
from hypothesis import strategies as st

from ggfast import limits
from ggfast.core import credentials as module
from ggfast.core.credentials import FILE, GroupCredentials
from ggfast.core.sealed import Sealer
from ggfast.errors import CorruptRecord, GgfastError, LinkDown, Malformed, NotAuthorized, OperatingError, Rejected
from tests.unit.http_support import run, until
from tests.unit.ipc_support import a_world
from tests.unit.offline_support import FakeControlPlane, ReadableLog, SetClock

NOW = datetime(2027, 1, 15, 12, tzinfo=UTC).timestamp()
HOUR = 3_600.0
PRIVATE_KEY = """-----BEGIN CERTIFICATE-----
bm90IGEga2V5
-----END CERTIFICATE-----
-----BEGIN EC PRIVATE KEY-----
bm90IHJlYWxseSBhIGtleSBidXQgdGhlIHRleHQgb2Ygb25l
-----END EC PRIVATE KEY-----
"""


def keys(name: str, expires: float) -> dict[str, str]:
    expiration = datetime.fromtimestamp(expires, UTC).strftime("%Y-%m-%dT%H:%M:%S.000Z")
    texts = {"accessKeyId": f"ASIA{name}", "secretAccessKey": f"secret/{name}", "sessionToken": f"token+{name}"}
    return {**texts, "expiration": expiration}


class Core:
    """A core's disk and key, the control plane, and a clock."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.identity: Path | None = folder / "identity.pem"
        self.identity.write_text(PRIVATE_KEY)
        self.clock = SetClock(NOW)
        self.cloud = FakeControlPlane()
        self.cloud.failure, self.cloud.keys = None, keys("ONE", NOW + HOUR)
        self.log = ReadableLog()

    @property
    def file(self) -> Path:
        return self.folder / FILE

    @contextlib.asynccontextmanager
    async def running(self, group: str = "g1") -> AsyncIterator[GroupCredentials]:
        log: Any = self.log
        source = GroupCredentials(self.cloud, self.folder, self.clock, log, self.identity)
        source.set_group(group)
        try:
            yield source
        finally:
            await source.stop()

    async def kept(self) -> None:
        """Wait until the keys are on disk."""
        await until(self.file.exists, "the sealed keys")

    async def restarted(self, group: str = "g1") -> dict[str, Any] | None:
        """What a restarted core serves without a network; None: nothing."""
        self.cloud.failure = LinkDown("offline")
        async with self.running(group) as source:
            with contextlib.suppress(LinkDown):
                return await source.credentials()
        return None


@pytest.fixture
def core(tmp_path: Path) -> Core:
    return Core(tmp_path)


def test_keys_come_as_sdks_want_them_and_nobody_else_sees_them(core: Core) -> None:
    async def body() -> None:
        async with core.running() as source:
            assert await source.credentials() == {
                "AccessKeyId": "ASIAONE",
                "SecretAccessKey": "secret/ONE",
                "Token": "token+ONE",
                "Expiration": "2027-01-15T13:00:00Z",
            }
            assert core.cloud.groups == ["g1"]
            await core.kept()
            assert "secret" not in repr(source._keys)
        sealed = core.file.read_bytes()
        assert not any(part in sealed for part in (b"ASIA", b"secret", b"token", b"g1"))
        assert stat.S_IMODE(core.file.stat().st_mode) == 0o600
        assert not any(part in line for line in core.log.lines for part in ("ASIA", "secret", "token+"))

    run(body())


def test_fifty_who_ask_are_one_request_whoever_gives_up(core: Core) -> None:
    async def body() -> None:
        core.cloud.gate.clear()
        async with core.running() as source:
            asking = [asyncio.create_task(source.credentials()) for _ in range(50)]
            await until(lambda: core.cloud.attempts, "the request")
            asking.pop(0).cancel()  # the first one does not wait any longer
            core.cloud.gate.set()
            answers = await asyncio.gather(*asking)
            assert {answer["AccessKeyId"] for answer in answers if answer} == {"ASIAONE"}
            assert core.cloud.attempts == 1

    run(body())


def test_keys_in_use_are_renewed_before_they_end(core: Core, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "CREDENTIALS_RETRY_S", 0.02)

    async def body() -> None:
        async with core.running() as source:
            await source.credentials()
            core.clock.pass_(HOUR - limits.CREDENTIALS_MARGIN_S - 1)
            core.cloud.keys = keys("TWO", core.clock.wall_s + HOUR)
            assert (await source.credentials() or {})["AccessKeyId"] == "ASIAONE"
            assert core.cloud.attempts == 1
            core.clock.pass_(2)
            assert (await source.credentials() or {})["AccessKeyId"] == "ASIAONE"  # nobody waits for the new ones
            await until(lambda: core.log.said("Got keys") == 2, "the new keys")
            assert (await source.credentials() or {})["AccessKeyId"] == "ASIATWO"

            source._look_in(0)  # by itself too, without anybody asking at that moment
            core.clock.pass_(1)
            await until(lambda: core.cloud.attempts == 3, "a renewal by itself")

    run(body())


def test_offline_they_are_served_until_their_end_and_not_after_it(core: Core, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "CREDENTIALS_RETRY_S_MAX", 5.0)

    async def body() -> None:
        async with core.running() as source:
            await source.credentials()
            core.cloud.failure = LinkDown("offline")
            core.clock.pass_(HOUR - 1)
            for _ in range(3):
                assert await source.credentials() is not None
                await asyncio.sleep(0.01)
            assert core.cloud.attempts == 2  # so soon after a failure nobody is asked again
            assert core.log.said("are good until they end") == 1
            core.clock.pass_(1)
            with pytest.raises(LinkDown, match="offline"):
                await source.credentials()
            core.cloud.failure, core.cloud.keys = None, keys("TWO", core.clock.wall_s + HOUR)
            core.clock.pass_(60)
            assert (await source.credentials() or {})["AccessKeyId"] == "ASIATWO"

    run(body())


def test_a_restart_without_a_network_serves_what_was_kept(core: Core) -> None:
    async def body() -> None:
        async with core.running() as source:
            expected = await source.credentials()
            await core.kept()
        core.clock.pass_(HOUR / 2)
        assert await core.restarted() == expected
        core.clock.pass_(HOUR / 2)
        assert await core.restarted() is None
        assert not core.file.exists()

    run(body())


def test_a_clock_that_was_set_back_gives_no_more_life(core: Core) -> None:
    async def body() -> None:
        async with core.running() as source:
            await source.credentials()
            await core.kept()
            core.cloud.failure = LinkDown("offline")
            core.clock.wall_s = 0.0  # as on a board without a battery
            assert await source.credentials() is not None
            core.clock.monotonic_s += HOUR
            with pytest.raises(LinkDown):
                await source.credentials()
        core.clock.wall_s = NOW - limits.CREDENTIALS_CLOCK_BACK_S - 1
        kept = core.file.read_bytes()
        assert await core.restarted() is None
        core.file.write_bytes(kept)
        core.clock.wall_s = NOW - 1  # a small correction
        async with core.running() as source:
            assert await source.credentials() is not None
            core.clock.monotonic_s += HOUR + 1
            with pytest.raises(LinkDown):
                await source.credentials()

    run(body())


def test_a_clock_that_is_wrong_is_said_and_bounds_what_it_believes(core: Core) -> None:
    async def body() -> None:
        core.clock.wall_s = NOW + 2 * HOUR
        async with core.running() as source:
            with pytest.raises(OperatingError, match="Set the clock"):
                await source.credentials()
            core.clock.wall_s = NOW - 10 * 86_400
            core.clock.monotonic_s += 60
            assert await source.credentials() is not None
            core.cloud.failure = LinkDown("offline")
            core.clock.monotonic_s += limits.CREDENTIALS_LIFE_S_MAX
            with pytest.raises(LinkDown):
                await source.credentials()

    run(body())


def test_without_a_role_there_are_none_and_kept_ones_go(core: Core) -> None:
    async def body() -> None:
        async with core.running() as source:
            await source.credentials()
            await core.kept()
            core.cloud.keys = None
            core.clock.pass_(HOUR)
            assert await source.credentials() is None
            await until(lambda: not core.file.exists(), "the removal")
            assert [await source.credentials() for _ in range(5)] == [None] * 5
            assert core.cloud.attempts == 2
            core.clock.pass_(limits.CREDENTIALS_NONE_S)
            core.cloud.keys = keys("TWO", core.clock.wall_s + HOUR)
            assert await source.credentials() is not None

    run(body())


def test_a_core_without_group_or_cloud_has_none(core: Core) -> None:
    async def body() -> None:
        async with core.running("") as source:
            assert await source.credentials() is None
        log: Any = core.log
        source = GroupCredentials(None, core.folder, core.clock, log)
        source.set_group("g1")
        assert await source.credentials() is None
        assert core.cloud.attempts == 0

    run(body())


@pytest.mark.parametrize(
    ("failure", "kind", "text"),
    [
        (Rejected("AccessDenied", reason_code=403), NotAuthorized, "greengrass:AssumeRoleForGroup"),
        (Rejected("busy", reason_code=503), Rejected, "busy"),
        (LinkDown("no route"), LinkDown, "no route"),
        (KeyError("secret/ONE"), OperatingError, "KeyError"),
    ],
)
def test_failures_say_what_is_wrong(core: Core, failure: Exception, kind: type[GgfastError], text: str) -> None:
    async def body() -> None:
        core.cloud.failure = failure
        async with core.running() as source:
            for _ in range(3):
                with pytest.raises(kind, match=text):
                    await source.credentials()
            assert core.cloud.attempts == 1
            core.clock.pass_(limits.CREDENTIALS_RETRY_S)
            with pytest.raises(kind):
                await source.credentials()
            assert (core.cloud.attempts, core.log.said(text)) == (2, 1)
            assert not core.log.said("secret/ONE")

    run(body())


@pytest.mark.parametrize(
    "change",
    [
        {"accessKeyId": ""},
        {"secretAccessKey": 5},
        {"expiration": "soon"},
        {"expiration": None},
        {"sessionToken": "x" * limits.CREDENTIALS_BYTES_MAX},
    ],
)
def test_other_answers_are_refused_without_being_shown(core: Core, change: dict[str, Any]) -> None:
    async def body() -> None:
        core.cloud.keys = {**keys("ONE", NOW + HOUR), **change}
        async with core.running() as source:
            with pytest.raises(Malformed) as refused:
                await source.credentials()
            assert "secret" not in str(refused.value).replace("secretAccessKey", "")

    run(body())


# --- what is forgotten, and when ----------------------------------------------------------------------------


def test_another_group_and_a_reset_forget_everything(core: Core) -> None:
    async def body() -> None:
        async with core.running() as source:
            await source.credentials()
            await core.kept()
            source.set_group("g1")
            assert core.file.exists()
            source.set_group("g2")
            assert not core.file.exists()
            core.cloud.keys = keys("TWO", NOW + HOUR)
            assert (await source.credentials() or {})["AccessKeyId"] == "ASIATWO"
            assert core.cloud.groups == ["g1", "g2"]
            await core.kept()
            source.forget()
            assert not core.file.exists()
            assert await source.credentials() is not None
            assert core.cloud.attempts == 3
            await core.kept()
        assert await core.restarted("g3") is None
        assert not core.file.exists()

    run(body())


def test_an_answer_for_the_group_before_is_nobodys(core: Core) -> None:
    async def body() -> None:
        core.cloud.gate.clear()
        async with core.running() as source:
            before = asyncio.create_task(source.credentials())
            await until(lambda: core.cloud.attempts == 1, "the request of the first group")
            source.set_group("g2")
            after = asyncio.create_task(source.credentials())
            await until(lambda: core.cloud.attempts == 2, "the request of the second group")
            core.cloud.gate.set()
            with pytest.raises(LinkDown, match="changed"):
                await before
            assert await after is not None
            await core.kept()
        core.clock.pass_(1)
        assert await core.restarted("g2") is not None

    run(body())


def test_what_is_being_written_is_forgotten_too(core: Core, monkeypatch: pytest.MonkeyPatch) -> None:
    written: list[Path] = []
    real = module.write_private

    def write(path: Path, content: bytes) -> None:
        loop.call_soon_threadsafe(source_of[0].forget)
        asyncio.run_coroutine_threadsafe(asyncio.sleep(0), loop).result()
        real(path, content)
        written.append(path)

    monkeypatch.setattr(module, "write_private", write)
    source_of: list[GroupCredentials] = []
    loop: Any = None

    async def body() -> None:
        nonlocal loop
        loop = asyncio.get_running_loop()
        async with core.running() as source:
            source_of.append(source)
            with contextlib.suppress(LinkDown):  # forgotten before this one has got them
                await source.credentials()
            await until(lambda: written and not source._running, "the end of the writing")
            assert not core.file.exists()

    run(body())


# --- sealed -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "damage",
    [
        lambda _: b"",
        lambda data: data[:40],
        lambda data: data[:-1],
        lambda data: data[: len(data) // 2] + b"\0" * (len(data) - len(data) // 2),
        lambda data: data[:60] + bytes([data[60] ^ 1]) + data[61:],
        lambda data: data + b"more",
        lambda _: b"x" * (limits.CREDENTIALS_BYTES_MAX * 2),
    ],
)
def test_a_torn_or_changed_file_is_as_good_as_none(core: Core, damage: Any) -> None:
    async def body() -> None:
        async with core.running() as source:
            await source.credentials()
            await core.kept()
        core.file.write_bytes(damage(core.file.read_bytes()))
        assert await core.restarted() is None
        assert not core.file.exists()
        assert core.log.said("cannot be used") == 1

    run(body())


def test_another_key_opens_nothing_and_without_one_nothing_is_kept(core: Core) -> None:
    async def body() -> None:
        async with core.running() as source:
            await source.credentials()
            await core.kept()
        assert core.identity is not None
        core.identity.write_text(PRIVATE_KEY.replace("bm90IHJlYWxseSBh", "YW5vdGhlciBvbmUg"))
        assert await core.restarted() is None
        core.cloud.failure = None
        core.identity.write_text(PRIVATE_KEY.partition("-----BEGIN EC")[0])
        for identity in (core.identity, None, core.folder / "nothing.pem"):
            core.identity = identity
            async with core.running() as source:
                assert await source.credentials() is not None
                await until(lambda: not source._running, "the end")
            assert not core.file.exists()

    run(body())


def test_a_full_disk_costs_no_keys(core: Core, monkeypatch: pytest.MonkeyPatch) -> None:
    def write(path: Path, content: bytes) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(module, "write_private", write)

    async def body() -> None:
        async with core.running() as source:
            assert await source.credentials() is not None
            await until(lambda: core.log.said("not kept over a restart"), "the warning")

    run(body())


@given(st.binary(max_size=200), st.binary(min_size=1, max_size=40), st.integers(0, 400), st.integers(1, 255))
def test_what_is_sealed_comes_back_or_is_refused(content: bytes, secret: bytes, place: int, change: int) -> None:
    sealer = Sealer(secret, "one purpose")
    sealed = sealer.seal(content)
    assert sealer.open(sealed) == content
    assert sealer.seal(content) != sealed
    damaged = bytearray(sealed)
    damaged[place % len(sealed)] ^= change
    for other, data in (
        (sealer, bytes(damaged)),
        (Sealer(secret, "another"), sealed),
        (Sealer(secret + b"x", ""), sealed),
    ):
        with pytest.raises(CorruptRecord):
            other.open(data)


# --- as functions get them ----------------------------------------------------------------------------------


def test_row_100_an_aws_sdk_in_a_function_finds_the_keys(core: Core) -> None:
    core.clock = SetClock(datetime.now(UTC).timestamp())
    core.cloud.keys = keys("ONE", core.clock.wall_s + HOUR)

    async def body() -> None:
        async with a_world() as http, core.running() as source:
            http.interface.credentials = source
            url = f"http://localhost:{http.port}/2016-11-01/credentialprovider/"
            token = (await http.loop_worker()).token
            environment = {"AWS_CONTAINER_CREDENTIALS_FULL_URI": url, "AWS_CONTAINER_AUTHORIZATION_TOKEN": token}

            def load() -> Credentials | None:
                return ContainerProvider(environ=environment).load()

            found = await asyncio.to_thread(load)
            assert found is not None
            frozen = await asyncio.to_thread(found.get_frozen_credentials)
            assert (frozen.access_key, frozen.secret_key, frozen.token) == ("ASIAONE", "secret/ONE", "token+ONE")
            assert found.method == "container-role"

            core.cloud.keys = None
            source.set_group("g2")
            answer = await http.ask("GET", "/credentialprovider/", token)
            assert (answer.status, "no role" in json.loads(answer.body)["message"]) == (404, True)
            source.set_group("g3")
            core.cloud.failure = Rejected("AccessDenied", reason_code=403)
            answer = await http.ask("GET", "/credentialprovider/", token)
            assert (answer.status, "AssumeRoleForGroup" in json.loads(answer.body)["message"]) == (503, True)

    run(body())
