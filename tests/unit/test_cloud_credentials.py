"""Keys from a configured command: what is taken, what is refused, how often it is run."""

from __future__ import annotations

import asyncio
import sys
import time
from pathlib import Path

import pytest
from cloud_desk import Hands

from ggfast.cloud.handed_through import HandedThrough, NoCredentials
from ggfast.cloud.surroundings import timestamp

_KEYS = '"Version": 1, "AccessKeyId": "ASIAX", "SecretAccessKey": "s3same"'


def command(code: str) -> list[str]:
    return [sys.executable, "-S", "-c", code]


def printing(text: str, folder: Path | None = None) -> list[str]:
    count = f"open({str(folder / 'runs')!r}, 'a').write('x'); " if folder else ""
    return command(f"{count}print({text!r})")


def test_keys_are_kept_until_shortly_before_their_end(tmp_path: Path) -> None:
    clock = Hands()
    end = timestamp(clock.now + 3_600)
    text = "{" + _KEYS + f', "SessionToken": "t", "Expiration": "{end}"}}'

    async def run() -> None:
        source = HandedThrough(printing(text, tmp_path), clock)
        found = await asyncio.gather(*(source.credentials() for _ in range(5)))
        assert found[0] == {
            "AccessKeyId": "ASIAX",
            "SecretAccessKey": "s3same",
            "SessionToken": "t",
            "Expiration": end,
        }
        assert (tmp_path / "runs").read_text() == "x"
        clock.now += 2_800
        await source.credentials()
        assert (tmp_path / "runs").read_text() == "xx"

    asyncio.run(run())


@pytest.mark.parametrize(
    "text",
    [
        "s3same",
        "[]",
        "{}",
        '{"Version": 2, "AccessKeyId": "a", "SecretAccessKey": "s3same"}',
        '{"Version": 1, "AccessKeyId": "s3same"}',
        '{"Version": 1, "AccessKeyId": 1, "SecretAccessKey": "s3same"}',
        "{" + _KEYS + ', "Expiration": "soon"}',
        "{" + _KEYS + ', "Expiration": "2020-01-01T00:00:00Z"}',
        "{" + _KEYS + ', "Expiration": "2100-01-01T00:00:00"}',
        "{" + _KEYS + ', "s3same": 1}',
        "{" + _KEYS + "}" + " " * 20_000,
    ],
)
def test_output_that_is_refused(text: str) -> None:
    async def run() -> str:
        with pytest.raises(NoCredentials) as refused:
            await HandedThrough(printing(text), Hands()).credentials()
        return str(refused.value)

    message = asyncio.run(run())
    assert "credentialsProcess" in message and "s3same" not in message


def test_commands_that_fail(tmp_path: Path) -> None:
    async def fails(words: list[str], seconds: float = 20.0) -> str:
        source = HandedThrough(words, Hands(), seconds=seconds)
        with pytest.raises(NoCredentials) as refused:
            await source.credentials()
        with pytest.raises(NoCredentials, match=str(refused.value)[:20]):
            await source.credentials()
        return str(refused.value)

    async def run() -> None:
        assert "cannot be run" in await fails([str(tmp_path / "none")])
        counting = command(f"import sys; open({str(tmp_path / 'runs')!r}, 'a').write('x'); sys.exit(3)")
        assert "status 3" in await fails(counting)
        assert (tmp_path / "runs").read_text() == "x"
        began = time.monotonic()
        assert "longer than 0.3 s" in await fails(command("import time; time.sleep(60)"), 0.3)
        assert time.monotonic() - began < 20

    asyncio.run(run())
