"""Keys of a real AWS role for cores: a configured command prints them (the `credential_process` of AWS's tools).

The command is run without a shell, with a time limit, its output bounded and read strictly, and its keys are kept
until shortly before they end. One run serves everybody who asks meanwhile. Nothing of its output is ever logged.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
from collections.abc import Sequence
from datetime import datetime
from typing import Any

import orjson

from ggfast.clock import Clock
from ggfast.cloud.limits import (
    CORE_CREDENTIALS_S,
    CREDENTIALS_AHEAD_S,
    CREDENTIALS_PROCESS_BYTES_MAX,
    CREDENTIALS_PROCESS_S,
    CREDENTIALS_RETRY_S,
)
from ggfast.cloud.surroundings import timestamp
from ggfast.errors import PeerError

_MEMBERS = frozenset({"Version", "AccessKeyId", "SecretAccessKey", "SessionToken", "Expiration", "AccountId"})
_TEXT_MAX = 8_192  # characters of one key or token


class NoCredentials(PeerError):
    """The command gave no keys; the text says why, without anything it printed."""


class HandedThrough:
    """See the module. `command` is the program and its arguments, as `settings` reads them. Not thread-safe."""

    def __init__(self, command: Sequence[str], clock: Clock, *, seconds: float = CREDENTIALS_PROCESS_S) -> None:
        self._words = tuple(command)
        self._clock = clock
        self._seconds = seconds
        self._turn = asyncio.Lock()
        self._keys: dict[str, str] = {}
        self._until = 0.0
        self._failure = ""
        self._failed_until = 0.0

    async def credentials(self) -> dict[str, str]:
        """`AccessKeyId`, `SecretAccessKey`, `SessionToken` ("" for lasting keys), `Expiration`.

        Waits for the command when there are no keys, or none that last. Raises NoCredentials.
        """
        async with self._turn:
            now = self._clock.wall()
            if self._keys and now < self._until:
                return dict(self._keys)
            if now < self._failed_until:
                raise NoCredentials(self._failure)
            try:
                keys, expires = _parsed(await self._run(), now)
            except NoCredentials as error:
                self._failure, self._failed_until = str(error), self._clock.wall() + CREDENTIALS_RETRY_S
                raise
            self._keys, self._until = keys, max(now, expires - CREDENTIALS_AHEAD_S)
            return dict(keys)

    async def _run(self) -> bytes:
        try:
            process = await asyncio.create_subprocess_exec(
                *self._words,
                stdin=asyncio.subprocess.DEVNULL,
                stdout=asyncio.subprocess.PIPE,
                stderr=asyncio.subprocess.DEVNULL,
                start_new_session=True,
            )
        except (OSError, ValueError) as error:
            raise NoCredentials(f"The command of credentialsProcess cannot be run: {error}.") from error
        assert process.stdout is not None
        try:
            async with asyncio.timeout(self._seconds):
                output = await _read(process.stdout)
                status = await process.wait()
        except TimeoutError as error:
            raise NoCredentials(f"The command of credentialsProcess took longer than {self._seconds:g} s.") from error
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)  # its own session: whatever it started ends with it
            await process.wait()
        if status:
            raise NoCredentials(f"The command of credentialsProcess ended with status {status}, expected 0.")
        return output


async def _read(stream: asyncio.StreamReader) -> bytes:
    output = b""
    while part := await stream.read(CREDENTIALS_PROCESS_BYTES_MAX):
        output += part
        if len(output) > CREDENTIALS_PROCESS_BYTES_MAX:
            raise NoCredentials(
                f"The command of credentialsProcess printed more than {CREDENTIALS_PROCESS_BYTES_MAX} bytes."
            )
    return output


def _parsed(output: bytes, now: float) -> tuple[dict[str, str], float]:
    """The keys and when they end. Raises NoCredentials."""
    try:
        document: Any = orjson.loads(output)
    except ValueError:
        raise _wrong("something that is not JSON") from None  # the parser's words may hold a part of a key
    if not isinstance(document, dict) or document.get("Version") != 1:
        raise _wrong("no object with Version 1")
    if unknown := set(document) - _MEMBERS:
        raise _wrong(f"{len(unknown)} unknown members")
    keys = {name: document.get(name, "") for name in ("AccessKeyId", "SecretAccessKey", "SessionToken")}
    for name, value in keys.items():
        if not isinstance(value, str) or len(value) > _TEXT_MAX or (not value and name != "SessionToken"):
            raise _wrong(f"no {name}")
    expires = now + CORE_CREDENTIALS_S
    if document.get("Expiration") is not None:
        expires = _instant(document["Expiration"])
        if expires <= now:
            raise _wrong("keys that have ended")
    return keys | {"Expiration": timestamp(expires)}, expires


def _instant(text: object) -> float:
    try:
        found = datetime.fromisoformat(str(text))
    except ValueError:
        raise _wrong("an Expiration that is no ISO 8601 time") from None
    if found.tzinfo is None:
        raise _wrong("an Expiration without a time zone")
    return found.timestamp()


def _wrong(found: str) -> NoCredentials:
    return NoCredentials(
        f"The command of credentialsProcess printed {found}, expected one JSON object with Version 1, AccessKeyId, "
        "SecretAccessKey, and for short-lived keys SessionToken and Expiration."
    )
