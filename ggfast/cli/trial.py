"""`ggfast-core try FOLDER --event FILE`: run a function once, off the device, in the container it will have there.

A core of its own in a temporary root runs the function with the same isolation, limits and SDK as a deployed one;
shown are its result, what it published, its log, memory and time. Everything is gone afterwards. Needs root, as the
core does. Exit status 0: the function returned; 1: it failed.
"""

from __future__ import annotations

import argparse
import base64
import json
import os
import shutil
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from ggfast import limits
from ggfast.cli import checks, control_client, logs
from ggfast.cli.invoke import invoke, read_payload
from ggfast.cli.terminal import printable
from ggfast.cli.trial_group import CORE_ARN, TrialGroup, make_trial
from ggfast.errors import OperatingError
from ggfast.layout import Layout

_DAEMON_PORT = 8_000  # what SDK copies inside old packages have built in
_GRACE_S = 15.0  # for a cold start on a slow machine, above the function's own Timeout


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of try."""
    parser.add_argument("folder", type=Path, metavar="FOLDER", help="a function's folder or zip, or a group's folder")
    parser.add_argument("--event", default="", metavar="FILE", help="file with the event, - for standard input")
    parser.add_argument("--payload", default="", metavar="TEXT", help="the event itself instead of a file")
    parser.add_argument("--function", default="", metavar="NAME", help="which function of a group's folder")
    parser.add_argument("--handler", default="", help="handler (default: the usual ones, or the group's)")
    parser.add_argument("--runtime", default="", help="python3, nodejs, java, ... (default: by the handler's file)")
    parser.add_argument("--memory", type=int, metavar="KB", help=f"limit (default {limits.TRY_MEMORY_KB} KB)")
    parser.add_argument("--timeout", type=int, metavar="S", help="Timeout of the handler (default 3 s)")
    parser.add_argument("--env", action="append", default=[], metavar="NAME=VALUE", help="may be given several times")
    parser.add_argument("--binary", action="store_true", help="the handler gets bytes, not JSON")
    parser.add_argument("--repeat", type=int, default=1, metavar="N", help="invoke N times, one after the other")
    parser.add_argument("--json", action="store_true", help="print everything as one JSON object")


def run(arguments: argparse.Namespace) -> int:
    """Try the function and show what came of it. Raises GgfastError if it could not be started."""
    checks.require_root("ggfast-core try")
    payload = read_payload(_payload_option(arguments))
    with _directory() as directory:
        trial = make_trial(directory, arguments)
        with _core(directory, trial) as layout:
            found = _measure(layout, trial, payload, max(arguments.repeat, 1))
        found["log"] = _log_lines(layout, trial.arn)  # complete once the core has stopped
    print(json.dumps(found) if arguments.json else "\n".join(render(found)))
    return 0 if found["results"][-1]["status"] == "OK" else 1


def render(found: dict[str, Any]) -> list[str]:
    """What was found out as lines for a person."""
    lines = []
    for result in found["results"]:
        word = "result" if result["status"] == "OK" else result["function_error"] or "refused"
        lines.append(f"{word:10} {printable(result['payload'])}")
        lines.append(f"{'time':10} {result['milliseconds']:.1f} ms")
    if found["handler_p50_ms"] is not None:
        lines.append(f"{'handler':10} {found['handler_p50_ms']:.1f} ms in the middle of {found['invocations']}")
    limit = f" of {found['memory_limit_kb']} KB" if found["memory_limit_kb"] else ", no limit"
    lines.append(f"{'memory':10} {found['memory_kb']} KB now, at most {found['memory_peak_kb']} KB{limit}")
    lines.append(f"{'published':10} {len(found['published'])} messages")
    lines += [f"    {printable(message['topic'])}  {printable(message['payload'])}" for message in found["published"]]
    lines.append(f"{'log':10} {len(found['log'])} lines")
    return lines + [f"    {printable(line, keep=chr(9))}" for line in found["log"]]


def _payload_option(arguments: argparse.Namespace) -> str:
    if arguments.event:
        return "-" if arguments.event == "-" else f"@{arguments.event}"
    return str(arguments.payload)


@contextmanager
def _directory() -> Iterator[Path]:
    """A directory that the daemon's and the functions' accounts may enter."""
    directory = Path(tempfile.mkdtemp(prefix="ggfast-try-"))
    directory.chmod(0o755)
    try:
        yield directory
    finally:
        shutil.rmtree(directory, ignore_errors=True)


@contextmanager
def _core(directory: Path, trial: TrialGroup) -> Iterator[Layout]:
    """A core that runs the trial's group, stopped afterwards whatever happens."""
    root = directory / "greengrass"
    (root / "config").mkdir(parents=True)
    (directory / "run").mkdir()
    config = {
        "coreThing": {"thingArn": CORE_ARN, "ggMqttPort": _free_port(), "ggDaemonPort": _daemon_port()},
        "runtime": {"cgroup": {"useSystemd": "no"}},
        "pidFileDirectory": str(directory / "run"),
        "ggfast": {"local": True, "mqttHost": "127.0.0.1", "fsync": False},
    }
    (root / "config" / "config.json").write_text(json.dumps(config), encoding="utf-8")
    layout = Layout.of(root, pid_directory=directory / "run")
    _command("deploy", trial.folder, "--root", root)
    try:
        _command("-i", "start", "--root", root)
    except OperatingError as error:
        said = logs.last_lines(layout.crash_log, limits.LOG_LINES_SHOWN)[0]
        raise OperatingError(f"{error}\n{''.join(said)}") from None
    try:
        yield layout
    finally:
        _command("stop", "--root", root)


def _measure(layout: Layout, trial: TrialGroup, payload: bytes, times: int) -> dict[str, Any]:
    wait_s = _timeout_of(trial) + _GRACE_S
    results = []
    for _ in range(times):
        answer = invoke(layout.control_socket, trial.arn, payload, timeout_s=wait_s)
        results.append({**answer, "payload": answer["payload"].decode("utf-8", "backslashreplace")})
    row = control_client.request(layout.control_socket, {"verb": "functions"})["functions"][0]
    spooled = control_client.request(layout.control_socket, {"verb": "spool"})["messages"]
    return {
        "results": results,
        "invocations": row["invocations"],
        "handler_p50_ms": row["p50_ms"],
        "memory_kb": row["memory_kb"],
        "memory_peak_kb": row["memory_peak_kb"],
        "memory_limit_kb": row["memory_limit_kb"],
        "published": [{"topic": message["topic"], "payload": _shown(message["payload"])} for message in spooled],
    }


def _timeout_of(trial: TrialGroup) -> float:
    document = json.loads((trial.folder / "group.json").read_bytes())
    configuration = document["Functions"][0]["FunctionConfiguration"]
    return float(configuration.get("Timeout", limits.FUNCTION_TIMEOUT_S_DEFAULT))


def _shown(payload: str) -> str:
    return base64.b64decode(payload).decode("utf-8", "backslashreplace")


def _log_lines(layout: Layout, arn: str) -> list[str]:
    try:
        path = logs.find_log(layout, arn)
    except OperatingError:
        return []  # it said nothing
    return [line.rstrip("\n") for line in logs.last_lines(path, limits.LOG_LINES_SHOWN)[0]]


def _free_port() -> int:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return int(sock.getsockname()[1])


def _daemon_port() -> int:
    """V1's port for functions while it is free; another core on this machine may have it."""
    with socket.socket() as sock:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            sock.bind(("127.0.0.1", _DAEMON_PORT))
        except OSError:
            return _free_port()
        return _DAEMON_PORT


def _command(*words: str | Path) -> None:
    """Run a subcommand in a process of its own; raises OperatingError with what it said if it fails."""
    done = subprocess.run(
        [sys.executable, "-m", "ggfast.cli.core", *map(str, words)],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=limits.TRY_START_S + limits.DAEMON_STOP_S,
        env=dict(os.environ),
        check=False,
    )
    if done.returncode != 0:
        text = done.stderr.strip().removeprefix("ggfast-core: ") or done.stdout.strip()
        raise OperatingError(text or f"`ggfast-core {words[0]}` ended with status {done.returncode}.")
