"""The fetching process: downloads and stages what the control plane offers, beside the daemon and not in it.

    python -I -m ggfast.core.deploy.fetch --root R --staging NAME --file identity=N --file authorities=M  < offer

Unpacking, hashing and compiling block, need libraries that the resident daemon never loads, and meet what strangers
have packed. The process prints one line of JSON:

    {"ok": true, "notes": [...]}      staged
    {"ok": false, "final": …, "phase": "download" or "stage", "error": text}      `final` false: try again later

It ends with its parent, by the kernel's hand, and leaves nothing but downloads and, if it is killed, a staging
directory that the next one replaces. This module is both sides; the process's own part is imported by `main` alone.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import signal
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import orjson

from ggfast import limits
from ggfast.config import Config, load_config
from ggfast.core.handed import Handed
from ggfast.errors import DeploymentFailed, GgfastError, LinkDown

_PR_SET_PDEATHSIG: Final = 1
_ENDED_FROM_OUTSIDE: Final = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGKILL)
_KEPT: Final = ("PATH", "LANG")  # interpreters are looked for on the PATH, as the daemon does

Offer = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Fetched:
    """Everything of an offer is staged. `notes` are remarks for the log."""

    notes: tuple[str, ...]


# --- the daemon's side ----------------------------------------------------------------------------------------


async def run(offer: Offer, staging_name: str, config: Config, handed: Handed) -> Fetched:
    """Have the control plane's `offer` downloaded and staged under `staging_name` in `layout.staging`.

    Raises LinkDown when it is worth trying again later, DeploymentFailed with the text for the report when it is not.
    Does not block; the process is killed when this is cancelled or limits.FETCH_PROCESS_S are over.
    """
    command = [sys.executable, "-I", "-m", __name__, "--root", str(config.layout.root), "--staging", staging_name]
    try:
        process = await asyncio.create_subprocess_exec(
            *command,
            *handed.arguments(),
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
            cwd="/",
            env={name: os.environ[name] for name in _KEPT if name in os.environ},
            pass_fds=handed.descriptors(),
        )
    except OSError as error:
        raise LinkDown(f"the process that fetches deployments cannot be started: {error}") from error
    try:
        async with asyncio.timeout(limits.FETCH_PROCESS_S):
            output, complaint = await _converse(process, await asyncio.to_thread(orjson.dumps, dict(offer)))
            status = await process.wait()
    except TimeoutError:
        text = f"the deployment was not fetched within {limits.FETCH_PROCESS_S:g} s; what has arrived is kept"
        raise LinkDown(text) from None
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    return _result(status, output, complaint)


async def _converse(process: asyncio.subprocess.Process, offer: bytes) -> tuple[bytes, bytes]:
    """Give the offer, take everything that is said, of which a bounded part is kept."""
    assert process.stdin is not None and process.stdout is not None and process.stderr is not None
    _, output, complaint = await asyncio.gather(
        _feed(process.stdin, offer), _kept(process.stdout), _kept(process.stderr)
    )
    return output, complaint


async def _feed(stream: asyncio.StreamWriter, data: bytes) -> None:
    try:
        stream.write(data)
        await stream.drain()
        stream.close()
    except (BrokenPipeError, ConnectionResetError):
        pass  # its exit status says why it has gone


async def _kept(stream: asyncio.StreamReader) -> bytes:
    kept = bytearray()
    while data := await stream.read(limits.FETCH_OUTPUT_BYTES_MAX):
        kept += data[: limits.FETCH_OUTPUT_BYTES_MAX + 1 - len(kept)]
    return bytes(kept)


def _result(status: int, output: bytes, complaint: bytes) -> Fetched:
    """What the process says. Raises LinkDown, DeploymentFailed."""
    try:
        found = orjson.loads(output)
        if found["ok"] is True:
            return Fetched(tuple(str(note) for note in found["notes"]))
        final, phase, text = found["final"] is not False, str(found["phase"]), str(found["error"])
    except (ValueError, KeyError, TypeError):
        last = complaint.decode(errors="replace").strip().rpartition("\n")[2][-500:]
        final, phase = -status not in _ENDED_FROM_OUTSIDE, "stage"
        how = f"by signal {-status}" if status < 0 else f"with status {status}"
        text = f"Error while processing. the process that fetches deployments ended {how}: {last or 'without a word'}"
    if final:
        raise DeploymentFailed(phase, text, rolled_back=True)
    raise LinkDown(text)


# --- the process's side ---------------------------------------------------------------------------------------


def main(argv: Sequence[str] | None = None) -> int:
    """Do it; the exit status is 0 whenever the line of JSON says what came of it."""
    from ggfast._ext import kernel  # the process's own, like what `_fetch` imports

    kernel.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    parser = argparse.ArgumentParser(prog="ggfast.core.deploy.fetch", description="Fetch one deployment.")
    parser.add_argument("--root", type=Path, required=True)
    parser.add_argument("--staging", required=True)
    parser.add_argument("--file", action="append", default=[])
    arguments = parser.parse_args(argv)
    data = sys.stdin.buffer.read(limits.OFFER_BYTES_MAX + 1)
    try:
        notes = asyncio.run(_fetch(arguments, data))
        answer: dict[str, Any] = {"ok": True, "notes": notes}
    except DeploymentFailed as error:
        answer = _failure(error.phase, error.detail, final=True)
    except LinkDown as error:
        answer = _failure("download", str(error), final=False)
    except (GgfastError, OSError) as error:
        answer = _failure("stage", f"Error while processing. the deployment cannot be fetched: {error}", final=True)
    sys.stdout.buffer.write(orjson.dumps(answer) + b"\n")
    sys.stdout.buffer.flush()
    return 0


async def _fetch(arguments: argparse.Namespace, data: bytes) -> list[str]:
    from ggfast.core.controlplane import ControlPlane
    from ggfast.core.deploy.offered import stage_offer

    config = await asyncio.to_thread(load_config, arguments.root)
    control_plane = ControlPlane.of(config, Handed.from_arguments(arguments.file))
    if control_plane is None:
        raise DeploymentFailed("download", "ggfast.local is set: this core has no control plane", rolled_back=True)
    try:
        staged = await stage_offer(data, arguments.staging, config, control_plane)
    finally:
        control_plane.close()
    return [note[: limits.TEXT_CHARACTERS_MAX // 4] for note in staged.notes[: limits.FETCH_NOTES_MAX]]


def _failure(phase: str, text: str, *, final: bool) -> dict[str, Any]:
    return {"ok": False, "final": final, "phase": phase, "error": text[: limits.FETCH_ERROR_CHARACTERS_MAX]}


if __name__ == "__main__":
    sys.exit(main())
