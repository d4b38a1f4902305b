"""The short-lived process that makes keys and certificates: the daemon never loads a cryptography library."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Awaitable, Sequence
from dataclasses import dataclass
from typing import Protocol

from ggfast.errors import OperatingError
from ggfast.limits import CERTIFICATE_HELPER_TIMEOUT_S

_OPEN_FILES = "/proc/self/fd/"


@dataclass(frozen=True, slots=True)
class HelperResult:
    """How the helper process ended."""

    exit_status: int
    output: str
    error: str


class Helper(Protocol):
    """Runs the helper: `run_helper`, or what tests put in its place."""

    def __call__(self, arguments: Sequence[str], text: str = "") -> Awaitable[HelperResult]:
        """See `run_helper`."""


async def run_helper(arguments: Sequence[str], text: str = "") -> HelperResult:
    """Run `ggfast.cli.cert` with `arguments` in a process of its own and wait for it, without blocking the loop.

    `text` is its standard input. An argument below /proc/self/fd/ is an open file of ours that it gets as well.
    Isolated mode and an empty environment: nothing in this process's surroundings reaches the key maker. Raises
    OperatingError when it cannot be started or does not end in time; kills it then, and when cancelled."""
    command = (sys.executable, "-I", "-m", "ggfast.cli.cert", *arguments)
    try:
        process = await asyncio.create_subprocess_exec(
            *command,
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
            cwd="/",
            env={},
            pass_fds=[int(part) for part in map(_descriptor, arguments) if part],
        )
    except OSError as error:
        raise OperatingError(f"The certificate helper could not be started: {error}") from error
    try:
        async with asyncio.timeout(CERTIFICATE_HELPER_TIMEOUT_S):
            output, complaint = await process.communicate(text.encode())
    except TimeoutError:
        seconds = int(CERTIFICATE_HELPER_TIMEOUT_S)
        raise OperatingError(f"The certificate helper did not end within {seconds} s") from None
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    status = process.returncode if process.returncode is not None else -1
    return HelperResult(status, output.decode(errors="replace"), complaint.decode(errors="replace")[-2_000:])


async def call_helper(run: Helper, *arguments: str, text: str = "") -> str:
    """What the helper printed. Raises OperatingError with its complaint if it failed."""
    result = await run(arguments, text)
    if result.exit_status != 0:
        detail = result.error.strip() or f"exit status {result.exit_status}"
        raise OperatingError(f"Making certificates failed (cert {arguments[0]}): {detail}")
    return result.output


def _descriptor(argument: str) -> str:
    number = argument.removeprefix(_OPEN_FILES)
    return number if number != argument and number.isdecimal() else ""
