"""Ten thousand invocations through five functions while each of them in turn is killed, times out, floods its log and
leaks memory: no invocation of the others fails or is lost, the daemon's memory is flat, each fault is told once.

Three functions are pinned and two on-demand. A device asks with QoS 1 and hears each answer; every fourth request to
one of the first four goes on to the fifth as an invocation that waits for its result.
"""

from __future__ import annotations

import functools
import json
import os
import signal
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.harness import Core, Device, a_core, eventually, function_arn, thing_arn

pytestmark = [pytest.mark.root, pytest.mark.slow]
INVOCATIONS = 10_000  # about 40 s; the time-outs alone are 15 s
WINDOW = 100  # requests under way; well below the 1,024 work items that the core lets wait
TIMEOUT_S = 3
MEMORY_GROWTH_KB_MAX = 3_072  # of the daemon from the first fault to the last; measured: under 200 KB
PROBE = thing_arn("probe")
NAMES = ("first", "second", "third", "fourth", "fifth")
PINNED = ("first", "second", "third")
CALLED = "fifth"
FAULTS = ("kill", "timeout", "flood", "leak")
ROUND = INVOCATIONS // (len(NAMES) * len(FAULTS) * len(NAMES))  # requests to each function under each fault
FLOOD_S = 1.0

SOURCE = """
import ctypes, json, os, time
import greengrasssdk
iot, functions = greengrasssdk.client("iot-data"), greengrasssdk.client("lambda")

def handler(event, context):
    fault = event.get("fault")
    if fault == "kill" or fault == "timeout":
        ctypes.CDLL(None).prctl(15, b"stuck", 0, 0, 0)  # PR_SET_NAME: on-demand functions have several workers
        iot.publish(topic=os.environ["NAME"] + "/stuck", payload="x")
        time.sleep(60)
    elif fault == "flood":
        until = time.monotonic() + event["seconds"]
        while time.monotonic() < until:
            print("x" * 500)
    elif fault == "leak":
        held = []
        while True:
            held.append(bytearray(b"x" * 65536))
    result = event["n"]
    if "callee" in event:
        answer = functions.invoke(FunctionName=event["callee"], Payload=json.dumps({"n": result, "quiet": 1}))
        result = json.loads(answer["Payload"].read()) if not answer["FunctionError"] else answer["FunctionError"]
    if "quiet" not in event:
        iot.publish(topic=os.environ["NAME"] + "/out", payload=json.dumps(result))
    return result
"""


@dataclass
class Load:
    """Asks functions through one device, keeps at most WINDOW requests open, and hears what comes back."""

    device: Device
    answers: dict[str, Counter[Any]] = field(default_factory=lambda: {name: Counter() for name in NAMES})
    asked: dict[str, set[int]] = field(default_factory=lambda: {name: set() for name in NAMES})
    faulted: dict[str, set[int]] = field(default_factory=lambda: {name: set() for name in NAMES})
    order: dict[str, list[Any]] = field(default_factory=lambda: {name: [] for name in NAMES})
    called: int = 0
    stuck: threading.Semaphore = field(default_factory=lambda: threading.Semaphore(0))

    def listen(self) -> None:
        """Runs in a thread of its own until the word to stop."""
        while (message := self.device.received.get()) != ("stop", b""):
            name, _, kind = message[0].partition("/")
            if kind == "stuck":
                self.stuck.release()
            else:
                answer = json.loads(message[1])
                self.answers[name][answer] += 1
                self.order[name].append(answer)

    def ask(self, name: str, number: int, **more: Any) -> None:
        """One request; waits while too many are open."""
        self.asked[name].add(number)
        self.called += "callee" in more
        if more.get("fault") in ("kill", "timeout", "leak"):
            self.faulted[name].add(number)
        eventually(lambda: self.open() < WINDOW, "answers", 60)
        self.device.publish(f"{name}/in", json.dumps({"n": number, **more}), qos=1)

    def open(self) -> int:
        """Requests that are owed an answer."""
        return sum(len(self.asked[name]) - len(self.faulted[name]) - len(self.answers[name]) for name in NAMES)

    def missing(self) -> dict[str, list[int]]:
        """Which requests are owed an answer."""
        return {name: sorted(self.asked[name] - self.faulted[name] - set(self.answers[name])) for name in NAMES}

    def run_round(self, faulty: str, fault: str, first: int, act: Callable[[], None]) -> None:
        """ROUND requests to each function, with the fault in the middle of those to one of them."""
        for step in range(ROUND):
            for name in NAMES:
                number = first + step
                if name == faulty and step == ROUND // 2:
                    self.ask(name, number, fault=fault, seconds=FLOOD_S)
                elif name != CALLED and step % 4 == 0 and faulty != CALLED:
                    self.ask(name, number, callee=function_arn(CALLED))
                else:
                    self.ask(name, number)
            if step == ROUND // 2:
                act()
        try:
            eventually(lambda: self.open() == 0, f"the answers of all, with {faulty} under {fault}", 60)
        except AssertionError as error:
            raise AssertionError(f"{error}; open: {self.missing()}") from None


@pytest.fixture(scope="module")
def core() -> Iterator[Core]:
    with a_core() as core:
        folder = core.folder()
        for component in ("GreengrassSystem", "Lambda"):  # so much space that no report is rotated away
            logger = {"Component": component, "Type": "FileSystem", "Level": "INFO", "Space": 16_384}
            folder.loggers.append({"Id": component, **logger})
        folder.device("probe")
        for name in NAMES:
            arn = folder.function(
                name,
                SOURCE,
                Pinned=name in PINNED,
                Timeout=TIMEOUT_S,
                MemorySize=16384,
                Environment={"Variables": {"NAME": name}},
            )
            folder.subscribe(PROBE, f"{name}/in", arn)
            folder.subscribe(arn, f"{name}/out", PROBE)
            folder.subscribe(arn, f"{name}/stuck", PROBE)
        core.deploy(folder)
        core.start()
        yield core


@pytest.fixture
def load(core: Core) -> Iterator[Load]:
    with Device(core, "probe") as device:
        for topic in ("+/out", "+/stuck"):
            device.subscribe(topic, 1)
        load = Load(device)
        thread = threading.Thread(target=load.listen)
        thread.start()
        try:
            yield load
        finally:
            device.received.put(("stop", b""))
            thread.join()


def rows(core: Core) -> dict[str, dict[str, Any]]:
    return {row["name"]: row for row in core.status()["functions"]}


def private_kb(pid: int) -> int:
    """Memory that only this process holds."""
    text = Path(f"/proc/{pid}/smaps_rollup").read_text()
    return sum(
        int(line.split()[1]) for line in text.splitlines() if line.startswith(("Private_Dirty", "Private_Clean"))
    )


def reports(core: Core, message: str, name: str) -> list[dict[str, Any]]:
    """Lines of the runtime log about one function."""
    found = [json.loads(line.partition("\t")[2]) for line in core.log().splitlines() if f"-{message}" in line]
    return [report for report in found if report.get("functionArn") == function_arn(name)]


def act_on_stuck(core: Core, load: Load, faulty: str, fault: str) -> None:
    """Once the handler says that it is stuck: kill its worker from outside, or leave it to the daemon's timer."""
    if fault not in ("kill", "timeout"):
        return
    assert load.stuck.acquire(timeout=60), f"{faulty} did not get as far as its fault"
    if fault == "kill":
        pids = rows(core)[faulty]["pids"]
        (stuck,) = [pid for pid in pids if Path(f"/proc/{pid}/comm").read_text() == "stuck\n"]
        os.kill(stuck, signal.SIGKILL)


def test_p5_faults_of_one_function_are_nobody_elses(core: Core, load: Load) -> None:
    daemon = core.daemon_pid()
    number = 0
    for name in NAMES:
        load.ask(name, number)
    eventually(lambda: load.open() == 0, "the first answers")
    before_kb, started = 0, time.monotonic()
    for fault in FAULTS:
        for faulty in NAMES:
            number += ROUND
            act = functools.partial(act_on_stuck, core, load, faulty, fault)
            load.run_round(faulty, fault, number, act)
            before_kb = before_kb or private_kb(daemon)
    grown_kb = private_kb(daemon) - before_kb
    assert (core.daemon_pid(), load.device.disconnects) == (daemon, 0)
    assert grown_kb < MEMORY_GROWTH_KB_MAX
    check_answers(load)
    check_figures(core, load)
    check_reports(core)
    print(f"{sum(map(len, load.asked.values())) + load.called} in {time.monotonic() - started:.1f} s, {grown_kb} KB")


def check_answers(load: Load) -> None:
    """Each request answered exactly once, but for those that met a fault; those of a pinned function in order."""
    for name in NAMES:
        owed = load.asked[name] - load.faulted[name]
        assert len(load.faulted[name]) == 3
        assert load.answers[name] == Counter(owed), (name, owed ^ set(load.answers[name]))
        if name in PINNED:
            assert load.order[name] == sorted(owed), name


def check_figures(core: Core, load: Load) -> None:
    """What `status` tells: the faults and nothing else."""
    for name, found in rows(core).items():
        invocations = len(load.asked[name]) + (load.called if name == CALLED else 0)
        assert (found["invocations"], found["errors"], found["dropped"]) == (invocations, 3, 0), found
        assert found["restarts"] == (3 if name in PINNED else 0), found
    counters = core.status()["counters"]
    assert (counters["functions.killed.timeout"], counters["functions.killed.memory"]) == (len(NAMES), len(NAMES))
    assert counters["functions.log.dropped_lines"] > 1000
    assert [key for key in counters if key.startswith("functions.") and ("refused" in key or ".not_" in key)] == []


def check_reports(core: Core) -> None:
    """Each fault once in the log, with its cause."""
    for name in NAMES:
        found = reports(core, "Worker is ungracefully killed.", name)
        assert [report["state"] for report in found] == ["signal: killed"] * 3, found
        killed, late, memory = [report["reason"] for report in found]
        assert killed == "signal: killed"
        assert late == f"Task timed out after {TIMEOUT_S} seconds"
        assert memory.startswith("The function's worker consumed all allocated memory: limit 16384 KB, peak ")
        assert len(reports(core, "Worker consumed all allocated memory!", name)) == 1
        notes = core.function_log(name).count("lines dropped: the function prints faster")
        assert 1 <= notes <= FLOOD_S + 2, (name, notes)  # one for each second of it, and what is left at its end
