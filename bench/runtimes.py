"""Functions by runtime: how long a cold start takes and what an idle worker costs, beside runc and a bare exec.

Each sample is taken in turns: one invocation of a function without a worker, one `runc run` of a program in the same
language on a read-only view of the same root, one plain execution of that program. The peers' time ends at their
first byte of output; they are asked for nothing.
"""

from __future__ import annotations

import compileall
import json
import os
import py_compile
import shutil
import statistics
import subprocess
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bench.function_device import DEVICE, Device, copy_sdk, running_core, tree_memory, worker_memory
from ggfast.core.functions.runtimes import RUNTIME_FILES, find_interpreter
from ggfast.errors import DeploymentFailed
from ggfast.group.document import Function
from ggfast.group.runtimes import EXECUTABLE_RUNTIME

PINNED = 20  # idle Python functions whose memory is measured together
SETTLE_S = 1.0  # pinned functions have been imported and are idle
MEMORY_KB = 131_072
PAUSE_S = 0.1  # between two starts: each is a single one, and the spare is ready again

CALLER = """
import json, time
import greengrasssdk
functions = greengrasssdk.client("lambda")
iot = greengrasssdk.client("iot-data")

def handler(event, context):
    time.sleep(event["pause_s"])
    started = time.perf_counter()
    result = functions.invoke(FunctionName=event["arn"], Payload="{}")
    taken = (time.perf_counter() - started) * 1e3
    assert result["FunctionError"] == "", result["Payload"]
    iot.publish(topic="out/" + context.client_context.custom["subject"], payload=json.dumps(taken))
"""
PYTHON = "def handler(event, context):\n    return event\n"
PYTHON_SDK = "import greengrasssdk\nclient = greengrasssdk.client('iot-data')\n" + PYTHON
NODE = "exports.handler = async (event) => event;\n"
JAVA = """
import java.util.Map;
public class Reply {
    public Map<String, Object> handle(Map<String, Object> event) { return event; }
    public static void main(String[] words) { System.out.println("x"); }
}
"""
C = """
#include <stdio.h>
#include "greengrasssdk.h"
static void handler(const gg_lambda_context *context) {
    (void)context;
    gg_lambda_handler_write_response("{}", 2);
}
int main(int argc, char **argv) {
    (void)argv;
    if (argc > 1) { puts("x"); return 0; }
    return gg_global_init(0) || gg_runtime_start(handler, 0);
}
"""


@dataclass(frozen=True)
class Kind:
    """One row: how its function is made and started, and what its peers run."""

    name: str
    runtime: str
    handler: str
    make: Callable[[Path], None]
    peer: Callable[[Path, str], list[str]]


def _python(source: str) -> Callable[[Path], None]:
    def make(code: Path) -> None:
        (code / "main.py").write_text(source)
        if "sdk" in source:
            copy_sdk(code)
        (code / "peer.py").write_text("print('x', flush=True)\n")
        compileall.compile_dir(code, quiet=1, invalidation_mode=py_compile.PycInvalidationMode.UNCHECKED_HASH)

    return make


def _node(code: Path) -> None:
    (code / "index.js").write_text(NODE)
    (code / "peer.js").write_text("console.log('x');\n")


def _java(code: Path) -> None:
    (code / "Reply.java").write_text(JAVA)
    subprocess.run(["javac", "-d", str(code), str(code / "Reply.java")], check=True, timeout=120)


def _executable(code: Path) -> None:
    (code / "reply.c").write_text(C)
    native = RUNTIME_FILES / "native"
    flags = [f"-I{native}", f"-L{native}", "-laws-greengrass-core-sdk-c", f"-Wl,-rpath,{native}"]
    command = ["cc", "-O2", "-o", str(code / "reply"), str(code / "reply.c"), *flags]
    subprocess.run(command, check=True, timeout=120)


KINDS = (
    Kind("python", "python3", "main.handler", _python(PYTHON), lambda code, _: ["/usr/bin/python3", f"{code}/peer.py"]),
    Kind("python + SDK", "python3", "main.handler", _python(PYTHON_SDK), lambda *_: []),
    Kind("node", "nodejs", "index.handler", _node, lambda code, node: [node, f"{code}/peer.js"]),
    Kind("java", "java8", "Reply::handle", _java, lambda code, java: [java, "-cp", str(code), "Reply"]),
    Kind("executable", EXECUTABLE_RUNTIME, "reply", _executable, lambda code, _: [f"{code}/reply", "peer"]),
)


def measure(samples: int) -> dict[str, Any]:
    """Every kind that this machine has an interpreter for; a missing one is named. Needs root."""
    directory = Path(tempfile.mkdtemp(prefix="ggfast-bench-"))
    directory.chmod(0o755)
    try:
        kinds, missing = _available()
        rows, table, peers = _functions(directory, kinds, samples)
        with running_core(directory, rows, table) as core, Runc(directory) as runc:
            device = Device(core.port)
            try:
                time.sleep(SETTLE_S)
                found = {kind.name: _starts(device, kind, peers[kind.name], runc, samples) for kind in kinds}
                for kind in kinds:
                    found[kind.name]["memory"] = worker_memory(core.pid, f"idle{_slug(kind)}")
            finally:
                device.close()
        return {"runtimes": found, "missing": missing, "runc": runc.why_not, "pinned": _pinned()}
    finally:
        shutil.rmtree(directory, ignore_errors=True)


def _available() -> tuple[list[tuple[Kind, str]] | Any, dict[str, str]]:
    kinds, missing = [], {}
    for kind in KINDS:
        try:
            find_interpreter(Function(kind.name, "arn", kind.handler, kind.runtime), {})
        except DeploymentFailed as error:
            missing[kind.name] = str(error)
            continue
        if kind.runtime == "java8" and shutil.which("javac") is None:
            missing[kind.name] = "no javac to compile the function"
        elif kind.runtime == EXECUTABLE_RUNTIME and shutil.which("cc") is None:
            missing[kind.name] = "no C compiler"
        else:
            kinds.append(kind)
    return kinds, missing


def _slug(kind: Kind) -> str:
    return "".join(c for c in kind.name if c.isalnum())


def _functions(
    directory: Path, kinds: list[Kind], samples: int
) -> tuple[list[dict[str, Any]], list[list[str]], dict[str, list[str]]]:
    """For each kind one package, one pinned function and one on-demand function a sample."""
    rows: list[dict[str, Any]] = []
    peers = {}
    for kind in kinds:
        code = directory / "code" / _slug(kind)
        code.mkdir(parents=True)
        kind.make(code)
        interpreter = find_interpreter(Function(kind.name, "arn", kind.handler, kind.runtime), {})
        peers[kind.name] = kind.peer(code, interpreter)
        for name in (f"idle{_slug(kind)}", *(f"{_slug(kind)}{number}" for number in range(samples))):
            rows.append(_row(name, code, name.startswith("idle")))
            rows[-1] |= {"runtime": kind.runtime, "handler": kind.handler, "interpreter": interpreter}
            rows[-1]["memory_kb"] = MEMORY_KB
    caller = directory / "code" / "caller"
    caller.mkdir()
    _python(CALLER)(caller)
    rows.append(_row("caller", caller, True))
    arn = rows[-1]["arn"]
    return rows, [[DEVICE, "caller/in", arn], [arn, "out/caller/in", DEVICE]], peers


def _row(name: str, code: Path, pinned: bool) -> dict[str, Any]:
    arn = f"arn:aws:lambda:eu-west-1:123456789012:function:{name}:1"
    return {"name": name, "arn": arn, "code": str(code), "pinned": pinned}


def _starts(device: Device, kind: Kind, peer: list[str], runc: Runc, samples: int) -> dict[str, Any]:
    ours, theirs, bare = [], [], []
    for number in range(samples):
        arn = f"arn:aws:lambda:eu-west-1:123456789012:function:{_slug(kind)}{number}:1"
        device.publish("caller/in", json.dumps({"arn": arn, "pause_s": PAUSE_S}).encode())
        body = device.expect()
        ours.append(float(json.loads(body[2 + int.from_bytes(body[:2], "big") :])))
        if peer:
            if not runc.why_not:
                theirs.append(_first_byte(runc.command(peer, f"{_slug(kind)}{number}")))
            bare.append(_first_byte(peer))
    return {"ggfast_ms": _figures(ours), "runc_ms": _figures(theirs), "exec_ms": _figures(bare)}


def _figures(samples: list[float]) -> dict[str, Any] | None:
    if not samples:
        return None
    return {"p50": statistics.median(samples), "min": min(samples), "max": max(samples), "samples": samples}


def _first_byte(command: list[str]) -> float:
    """Milliseconds from starting a command to its first byte of output."""
    started = time.perf_counter()
    with subprocess.Popen(command, stdout=subprocess.PIPE, stdin=subprocess.DEVNULL) as process:
        assert process.stdout is not None
        if not process.stdout.read(1):
            raise RuntimeError(f"{command} said nothing")
        taken = (time.perf_counter() - started) * 1e3
        process.stdout.read()
        return taken


class Runc:
    """Runs programs with runc on a read-only bind of the root, in a mount namespace that ends with the benchmark.

    `why_not` says why it cannot, where it cannot. The container has what ours has: own mounts, processes, IPC and
    host name, the host's network, a memory and a process limit.
    """

    def __init__(self, directory: Path) -> None:
        self.why_not = "" if shutil.which("runc") else "runc is not installed"
        self._bundle = directory / "runc"
        self._keeper: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Runc:
        if self.why_not:
            return self
        root = self._bundle / "rootfs"
        root.mkdir(parents=True)
        script = f"mount --bind / {root} && echo ready && exec sleep infinity"
        self._keeper = subprocess.Popen(
            ["unshare", "--mount", "sh", "-c", script], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
        )
        assert self._keeper.stdout is not None
        if self._keeper.stdout.readline() != b"ready\n":
            self.why_not = "the root cannot be bound for it"
            return self
        self._configure(root)
        try:
            _first_byte(self.command(["/bin/echo", "x"], "trial"))
        except RuntimeError:
            self.why_not = "it cannot start a container on this machine"
        return self

    def __exit__(self, *_: object) -> None:
        if self._keeper is not None:
            self._keeper.kill()
            self._keeper.wait()
            if self._keeper.stdout is not None:
                self._keeper.stdout.close()

    def command(self, words: list[str], name: str) -> list[str]:
        """The command that runs these words as container `name`."""
        bundle = self._bundle / name
        bundle.mkdir()
        config = json.loads((self._bundle / "config.json").read_bytes())
        config["process"]["args"] = words
        (bundle / "config.json").write_text(json.dumps(config))
        assert self._keeper is not None
        inside = ["nsenter", "--mount", f"--target={self._keeper.pid}"]
        return [*inside, "runc", "run", "--bundle", str(bundle), f"ggfast-bench-{os.getpid()}-{name}"]

    def _configure(self, root: Path) -> None:
        subprocess.run(["runc", "spec", "--bundle", str(self._bundle)], check=True, timeout=30)
        path = self._bundle / "config.json"
        config = json.loads(path.read_bytes())
        config["root"] = {"path": str(root), "readonly": True}
        config["process"]["terminal"] = False
        config["mounts"] = [mount for mount in config["mounts"] if mount["type"] not in ("cgroup", "sysfs")]
        namespaces = [{"type": name} for name in ("pid", "ipc", "uts", "mount")]
        config["linux"]["namespaces"] = namespaces
        config["linux"]["resources"] |= {"memory": {"limit": MEMORY_KB * 1024}, "pids": {"limit": 64}}
        path.write_text(json.dumps(config))


def _pinned() -> dict[str, Any]:
    """What PINNED idle Python functions add to a core, without and with the SDK imported: kilobytes of all its
    processes, each page shared out among those that have it, and those that the functions have alone."""
    without, _ = _core_memory(0, "")
    found = {}
    for name, source in (("plain", PYTHON), ("sdk", PYTHON_SDK)):
        total, unique = _core_memory(PINNED, source)
        found[name] = {"added_kb": total - without, "unique_kb": unique}
    return {"functions": PINNED, **found}


def _core_memory(count: int, source: str) -> tuple[int, int]:
    directory = Path(tempfile.mkdtemp(prefix="ggfast-bench-"))
    directory.chmod(0o755)
    try:
        rows = []
        for number in range(count):
            code = directory / "code" / f"f{number}"
            code.mkdir(parents=True)
            _python(source)(code)
            rows.append(_row(f"pinned{number}", code, True))
        with running_core(directory, rows, []) as core:
            time.sleep(SETTLE_S)
            own = sum(worker_memory(core.pid, f"pinned{number}")["unique_kb"] for number in range(count))
            return tree_memory(core.pid), own
    finally:
        shutil.rmtree(directory, ignore_errors=True)


def report(result: dict[str, Any]) -> list[str]:
    """The figures as lines for a person."""
    lines = [f"{'cold start, p50 ms':<24} {'ggfast':>8} {'runc':>8} {'exec':>8} {'idle, unshared KB':>18}"]
    for name, found in result["runtimes"].items():
        cells = [found[key]["p50"] if found[key] else None for key in ("ggfast_ms", "runc_ms", "exec_ms")]
        shown = " ".join(f"{cell:8.1f}" if cell is not None else f"{'-':>8}" for cell in cells)
        lines.append(f"{name:<24} {shown} {found['memory']['unique_kb']:>18}")
    lines += [f"{name}: not measured: {reason}" for name, reason in result["missing"].items()]
    if result["runc"]:
        lines.append(f"runc: not measured: {result['runc']}")
    pinned = result["pinned"]
    for name, words in (("plain", "that import nothing"), ("sdk", "with the SDK")):
        added, own = pinned[name]["added_kb"] / 1024, pinned[name]["unique_kb"] / 1024
        what = f"{pinned['functions']} idle pinned Python functions {words}"
        lines.append(f"{what}: {added:.1f} MB more for the whole core, {own:.1f} MB of it theirs alone")
    return lines
