"""`ggfast-core demo`: a whole group at work on this machine, and what passes in it.

It starts a control plane, makes examples/cold-room in it through boto3, runs a core that was provisioned there and
fetches its deployment, and three devices that discover the core before they connect, all as processes of their own over
mutual TLS; and shows messages, rates and latencies until Ctrl-C, SIGTERM or `--seconds`. Everything it started is gone
afterwards, also when it fails half-way; the exit status is 0 only if every expected flow was seen and neither the
control plane, the core nor a device failed.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import shutil
import signal
import sys
import tempfile
import time
from asyncio.subprocess import DEVNULL, PIPE, STDOUT, Process
from collections.abc import Awaitable, Callable, Coroutine, Iterator
from contextlib import AsyncExitStack, contextmanager
from pathlib import Path
from typing import Any, TextIO

from ggfast.cli import checks, control_client
from ggfast.cli.demo_cloud import make_cloud, make_group
from ggfast.cli.demo_group import DEVICES, DemoGroup, example_folder, require_libraries, thing_name
from ggfast.cli.demo_screen import Board, redraw
from ggfast.errors import ConfigError, LinkDown, OperatingError, Problem, Rejected
from ggfast.limits import (
    DEMO_DEVICE_TIMEOUT_S,
    DEMO_REPORT_BYTES_MAX,
    DEMO_START_TIMEOUT_S,
    DEMO_STOP_TIMEOUT_S,
)

_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
_POLL_S = 0.1
_SCREEN_S = 0.5
_LINE_S = 1.0
_TAIL_CHARACTERS = 2_000


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of `ggfast-core demo`."""
    parser.add_argument("--seconds", type=float, metavar="N", help="end after N seconds (default: at Ctrl-C)")
    parser.add_argument("--keep", type=Path, metavar="DIR", help="work in DIR and leave it there, logs included")


def run(args: argparse.Namespace) -> int:
    """Run the demo; the exit status: 0 every expected flow seen and no failure, else 1. Needs root, as the core does.

    Raises GgfastError when it cannot start."""
    checks.require_root("ggfast-core demo")
    if args.seconds is not None and not args.seconds > 0:
        raise ConfigError("The command line is wrong:", [Problem("--seconds", str(args.seconds), "more than 0")])
    require_libraries()
    example = example_folder()
    with _directory(args.keep) as directory:
        status = asyncio.run(Demo(directory, example, args.seconds, sys.stdout).run())
        if args.keep is not None:
            print(f"Kept: {directory}")
        return status


@contextmanager
def _directory(keep: Path | None) -> Iterator[Path]:
    """A directory that other users may enter: the daemon and the functions are others than root."""
    if keep is not None:
        keep.mkdir(mode=0o755, parents=True, exist_ok=True)
        if any(keep.iterdir()):
            raise OperatingError(f"{keep} is not empty.", hint="Give --keep a new or an empty directory.")
        keep.chmod(0o755)
        yield keep.resolve()
        return
    directory = Path(tempfile.mkdtemp(prefix="ggfast-demo-"))
    directory.chmod(0o755)
    try:
        yield directory
    finally:
        # Nothing is left to end in order: a second Ctrl-C would only leave half a directory behind.
        signal.pthread_sigmask(signal.SIG_BLOCK, _SIGNALS)
        try:
            shutil.rmtree(directory)
        finally:
            signal.pthread_sigmask(signal.SIG_UNBLOCK, _SIGNALS)


Prepare = Callable[["Demo", AsyncExitStack], Awaitable[DemoGroup]]
"""Make the group and what has to run for it; the stack takes down what was started."""


class Demo:
    """One run: prepares, starts core and devices, shows, and takes everything down again."""

    def __init__(
        self,
        directory: Path,
        example: Path,
        seconds: float | None,
        out: TextIO,
        core: Callable[..., list[str]] | None = None,
        prepare: Prepare | None = None,
    ) -> None:
        self.directory = directory
        self.example = example
        self._seconds = seconds
        self._out = out
        self._board = Board()
        self._ended = asyncio.Event()
        self._showing = False
        self._core_command = core or core_command
        self._prepare = prepare or in_a_cloud

    async def run(self) -> int:
        """The whole demo, ending early and in order at SIGINT, SIGTERM or SIGHUP."""
        loop = asyncio.get_running_loop()
        for number in _SIGNALS:
            loop.add_signal_handler(number, self._ended.set)
        try:
            shown = await self._until_ended(self._start_and_show())
        finally:
            for number in _SIGNALS:
                loop.remove_signal_handler(number)
        if not shown:
            self.say("Ended before the core served.")
            return 1
        self.say("\n".join(self._board.summary()))
        return 0 if self._board.complete else 1

    async def _until_ended(self, work: Coroutine[Any, Any, bool]) -> bool:
        """The result of `work`; a signal before it shows anything cancels it, and it cleans up: False then."""
        task = asyncio.create_task(work)
        ended = asyncio.create_task(self._ended.wait())
        try:
            await asyncio.wait((task, ended), return_when=asyncio.FIRST_COMPLETED)
            if not task.done() and not self._showing:
                task.cancel()
            return await task
        except asyncio.CancelledError:
            return False
        finally:
            ended.cancel()

    async def _start_and_show(self) -> bool:
        async with AsyncExitStack() as stack:
            group = await self._prepare(self, stack)
            self.say("Starting the core, with -i: whether the kernel protects links is not what a demo is about ...")
            core = await self._start_core(group, stack)
            await self._wait_for_core(core, group)
            self.say("Three devices discover the core and connect over mutual TLS ...")
            devices = [await self._start_device(name, group, stack) for name in DEVICES]
            self._showing = True
            await self._show(core, devices, group)
        return True

    # --- the core ---

    async def _start_core(self, group: DemoGroup, stack: AsyncExitStack) -> Process:
        """The core in the foreground, in a session of its own: Ctrl-C is for us, and we stop it in order."""
        with (self.directory / "core.log").open("wb") as log:
            process = await asyncio.create_subprocess_exec(
                *self._core_command("-i", "run", "--root", str(group.root)),
                stdin=DEVNULL,
                stdout=log,
                stderr=STDOUT,
                start_new_session=True,
            )
        stack.push_async_callback(self._stop_core, process)
        return process

    async def _stop_core(self, process: Process) -> None:
        if not await _end(process, signal.SIGTERM):
            self._board.problem(f"the core did not stop within {DEMO_STOP_TIMEOUT_S:.0f} s and was killed")

    async def _wait_for_core(self, core: Process, group: DemoGroup) -> None:
        """Until the group is deployed and its pinned function is up: what comes earlier would measure the start."""
        until = time.monotonic() + DEMO_START_TIMEOUT_S
        while time.monotonic() < until:
            if why := await asyncio.to_thread(group.failure):
                raise OperatingError(f"The deployment failed:\n{why[-_TAIL_CHARACTERS:]}")
            if core.returncode is not None:
                raise OperatingError(f"The core ended with status {core.returncode}:\n{self._core_words()}")
            if await self._ask_status(group) and self._monitor_is_up():
                return
            await asyncio.sleep(_POLL_S)
        states = ", ".join(f"{row.name} {row.state}" for row in self._board.functions) or "no answer"
        raise OperatingError(
            f"The core was not ready in {DEMO_START_TIMEOUT_S:.0f} s ({states}):\n{self._core_words()}"
        )

    def _monitor_is_up(self) -> bool:
        return any("monitor" in row.name and row.state == "running" for row in self._board.functions)

    async def _ask_status(self, group: DemoGroup) -> bool:
        """Bring the board up to date; False while the core does not answer."""
        try:
            path = group.layout.control_socket
            answer = await asyncio.to_thread(control_client.request, path, {"verb": "status"}, timeout_s=5.0)
        except (LinkDown, Rejected, OSError, ValueError):
            return False
        self._board.status(answer)
        return True

    def _core_words(self) -> str:
        text = (self.directory / "core.log").read_text(errors="replace").strip()
        return text[-_TAIL_CHARACTERS:] or "(it said nothing)"

    # --- the devices ---

    async def _start_device(self, name: str, group: DemoGroup, stack: AsyncExitStack) -> Process:
        certificate = group.certificate(name)
        options = {
            "--thing": thing_name(name),
            "--discovery-port": str(group.discovery_port),
            "--cloud-ca": str(group.cloud_ca),
            "--certificate": str(certificate),
            "--key": str(certificate.with_suffix(".key")),
        }
        words = [word for option in options.items() for word in option]
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-I", "-m", "ggfast.cli.demo_device", name, *words),
            stdin=PIPE,
            stdout=PIPE,
            start_new_session=True,
            limit=DEMO_REPORT_BYTES_MAX,
        )
        stack.push_async_callback(_end_device, process)
        try:
            async with asyncio.timeout(2 * DEMO_DEVICE_TIMEOUT_S):
                first = await _read_report(process)
        except TimeoutError:
            first = {"error": "said nothing in time"}
        if first is None or "ready" not in first:
            why = first.get("error", first) if first is not None else "ended without a word"
            raise OperatingError(f"The {name} could not connect: {why}")
        return process

    async def _listen(self, name: str, process: Process) -> None:
        """Take reports until the device ends; one that ends by itself is a problem."""
        while (report := await _read_report(process)) is not None:
            self._board.report(name, report)
        if not self._ended.is_set():
            self._board.problem(f"the {name} ended by itself")
            self._ended.set()

    # --- what is shown ---

    async def _show(self, core: Process, devices: list[Process], group: DemoGroup) -> None:
        """Live until the end, then stop the devices and take their last reports while the core still runs."""
        listeners = [
            asyncio.create_task(self._listen(name, process)) for name, process in zip(DEVICES, devices, strict=True)
        ]
        try:
            async with asyncio.timeout(self._seconds):
                await self._show_live(core, group)
        except TimeoutError:
            self._ended.set()
        finally:
            for process in devices:
                await _end_device(process)
            await asyncio.gather(*listeners)
        await self._ask_status(group)

    async def _show_live(self, core: Process, group: DemoGroup) -> None:
        started = time.monotonic()
        on_terminal = self._out.isatty()
        drawn = 0
        while not self._ended.is_set():
            try:
                async with asyncio.timeout(_SCREEN_S if on_terminal else _LINE_S):
                    await self._ended.wait()
            except TimeoutError:
                pass
            if core.returncode is not None and not self._ended.is_set():
                self._board.problem(f"the core ended by itself with status {core.returncode}: {self._core_words()}")
                self._ended.set()
            await self._ask_status(group)
            now = time.monotonic()
            self._board.tick(now)
            if on_terminal:
                size = shutil.get_terminal_size()
                lines = self._board.screen(now - started, size.columns - 1)[: size.lines - 1]
                self._out.write(redraw(lines, drawn))
                self._out.flush()
                drawn = len(lines)
            else:
                self.say(self._board.line(now - started))

    def say(self, text: str) -> None:
        """One line for who watches."""
        print(text, file=self._out, flush=True)


async def in_a_cloud(demo: Demo, stack: AsyncExitStack) -> DemoGroup:
    """A control plane of the demo's own, and the cold room in it. Raises OperatingError."""
    demo.say("Starting a control plane ...")
    cloud = await asyncio.to_thread(make_cloud, demo.directory)
    with (demo.directory / "cloud.log").open("wb") as log:
        process = await asyncio.create_subprocess_exec(
            *cloud.serve, stdin=DEVNULL, stdout=PIPE, stderr=log, start_new_session=True
        )
    stack.push_async_callback(_end, process, signal.SIGTERM)
    assert process.stdout is not None
    if not await asyncio.wait_for(process.stdout.readline(), DEMO_START_TIMEOUT_S):
        words = (demo.directory / "cloud.log").read_text(errors="replace")[-_TAIL_CHARACTERS:]
        raise OperatingError(f"The control plane ended before it served:\n{words}")
    demo.say("Making a core, devices, functions and a group in it, and deploying the group, all through boto3 ...")
    return await asyncio.to_thread(make_group, cloud, demo.directory, demo.example)


def core_command(*arguments: str) -> list[str]:
    """`ggfast-core` of this installation as a command line."""
    return [sys.executable, "-I", "-m", "ggfast.cli.core", *arguments]


async def _read_report(process: Process) -> dict[str, Any] | None:
    """The next report of a device, None when it has ended. Lines that are no report are errors of ours."""
    assert process.stdout is not None
    line = await process.stdout.readline()
    if not line.endswith(b"\n"):
        return None
    report = json.loads(line)
    assert isinstance(report, dict), line
    return report


async def _end_device(process: Process) -> None:
    """Close the device's input, which is its sign to end, and see it off."""
    if process.stdin is not None:
        process.stdin.close()
    await _end(process, None)


async def _end(process: Process, sign: signal.Signals | None) -> bool:
    """Send `sign` and wait for the process to end; False if it had to be killed. Goes on when cancelled meanwhile:
    nothing we started may stay."""
    if process.returncode is not None:
        return True
    if sign is not None:
        process.send_signal(sign)
    waiting = asyncio.create_task(process.wait())
    done, _ = await asyncio.wait((waiting,), timeout=DEMO_STOP_TIMEOUT_S)
    if done:
        return True
    process.kill()
    await waiting
    return False
