"""Rows of the hostile-function checklist that need a whole core: its logs, its ports, its sockets to functions.

Each attempt runs in a real container as `ggc_user` and as uid 0. Beside it a pinned function counts and beats: it
must not notice. Sources: sandbox 10 and 13, greengrass-core 6.8.
"""

from __future__ import annotations

import os
import socket
import threading
import time
from collections.abc import Iterator

import pytest

from ggfast import limits
from tests.e2e.harness import Core, Device, a_core, eventually, run_command, thing_arn
from tests.e2e.hostile_core import (
    CALLER,
    ECHO,
    HOSTILE,
    SLOW,
    Watch,
    add_hostile,
    attack,
    begin,
    ends,
    outcome,
    private_kb,
    status_of,
    undisturbed,
)
from tests.patience import patience
from tests.sandbox.hostile import WHO, row

pytestmark = pytest.mark.root
PROBE = thing_arn("probe")
WATCH = thing_arn("watch")
MEMORY_GROWTH_KB_MAX = 4_096  # of the daemon over 48 attacks that send or withhold megabytes; measured: under 1 MB
LOG_SPACE_KB = 256
SERVED_S = round(patience(20))  # the time-out of functions that are to be ended by something else, or not at all
ENDLESS_S = 2 * limits.WORKER_FRAME_SWEEP_S  # the longest that a frame which never ends may live


@pytest.fixture(scope="module")
def core() -> Iterator[Core]:
    with a_core() as core:
        core.write_config(lambda config: config["runtime"].update({"allowFunctionsToRunAsRoot": "yes"}))
        folder = core.folder()
        for component, space_kb in (("GreengrassSystem", 4096), ("Lambda", LOG_SPACE_KB)):
            logger = {"Component": component, "Type": "FileSystem", "Level": "INFO", "Space": space_kb}
            folder.loggers.append({"Id": component, **logger})
        folder.device("probe")
        folder.device("watch")
        echo = folder.function("echo", ECHO, Pinned=True, Timeout=SERVED_S)
        caller = folder.function("caller", CALLER, Timeout=round(patience(100)))
        folder.function("slow", SLOW, sdk=False, Timeout=SERVED_S)
        for who in ("user", "root"):
            add_hostile(folder, "hostile", who, HOSTILE, Timeout=SERVED_S, MemorySize=65536)
            add_hostile(folder, "late", who, HOSTILE, Timeout=2)
            add_hostile(folder, "patient", who, HOSTILE, Timeout=300)
            add_hostile(folder, "endless", who, "while True:\n    pass", Timeout=1)
            stranger = core.directory / f"stranger-{who}"
            run_command("cert", "device", "--self-signed", "--name", "probe", "--out", stranger)
            for kind in ("crt", "key"):
                data = next(stranger.glob(f"*.{kind}")).read_bytes()
                (folder.path / "functions" / f"hostile-{who}" / f"probe.{kind}").write_bytes(data)
        folder.subscribe(PROBE, "caller/in", caller)
        folder.subscribe(WATCH, "echo/in", echo)
        folder.subscribe(caller, "caller/#", PROBE)
        for topic in ("echo/count", "echo/beat"):
            folder.subscribe(echo, topic, WATCH)
        core.deploy(folder)
        core.start()
        yield core


@pytest.fixture
def probe(core: Core) -> Iterator[Device]:
    with Device(core, "probe") as device:
        device.subscribe("caller/#")
        yield device


@pytest.fixture
def watch(core: Core) -> Iterator[Watch]:
    with Device(core, "watch") as device:
        device.subscribe("echo/#")
        watch = Watch(device)
        watch.beat()
        yield watch


FRAMES = [
    ("garbage", "it sent a frame of"),
    ("text", "it sent a frame of 542393671 bytes, allowed are 1 to 1048576"),
    ("huge", "it sent a frame of 2147483647 bytes, allowed are 1 to 1048576"),
    ("negative", "it sent a frame of 4294967295 bytes, allowed are 1 to 1048576"),
    ("empty", "it sent a frame of 0 bytes, allowed are 1 to 1048576"),
    ("unknown", "it sent a frame of type 0x41, expected P, R, E or I"),
    ("lying", "it sent a call whose target has 65535 bytes in a frame of 10"),
    ("truncated", "exit status 0"),
    ("closed", "it closed its socket"),
    ("deaf", "it does not read its socket"),
]


@pytest.fixture(scope="module")
def endless_frames(core: Core) -> float:
    """Frames that never end, begun first: nobody waits for their end but the last test. When they were begun."""
    with Device(core, "probe") as device:
        for who in ("user", "root"):
            begin(device, f"patient-{who}", "endless")
        for who in ("user", "root"):
            eventually(lambda who=who: status_of(core, f"patient-{who}")["pids"], "the worker")
    return time.monotonic()


@pytest.fixture(scope="module", autouse=True)
def started_early(endless_frames: float) -> None:
    """So that the minute passes beside the other tests."""


@row(25, "flood its log", by="rate limit, rotation", result="bounded file; lines dropped and counted")
@WHO
def test_row_25_log_flood(core: Core, probe: Device, watch: Watch, who: str) -> None:
    """Printing at full speed until the time-out ends it. The neighbour is answered as ever."""
    before = dropped(core)
    with undisturbed(core, watch):
        ticket = begin(probe, f"late-{who}", "flood")
        waits = []
        until = time.monotonic() + 1.5  # of the two seconds that it has
        while time.monotonic() < until:
            started = time.monotonic()
            watch.count()
            waits.append(time.monotonic() - started)
        assert outcome(probe, ticket)["error"] == "Unhandled"
    assert sorted(waits)[len(waits) // 2] < patience(0.2)
    files = list((core.root / "ggc" / "var" / "log" / "user").rglob(f"late-{who}*"))
    assert len(files) > 1  # it was rotated
    assert sum(file.stat().st_size for file in files) <= LOG_SPACE_KB * 1024
    assert dropped(core) - before > 1000


def dropped(core: Core) -> int:
    """Lines of functions that were thrown away; notes in the log say so too, as long as they are not rotated away."""
    return int(core.status()["counters"].get("functions.log.dropped_lines", 0))


@row(31, "local TCP services; the broker as a device or a function", by="client certificates", result="refused by TLS")
@WHO
def test_row_31_services_of_the_host(core: Core, probe: Device, watch: Watch, who: str) -> None:
    """The network is the host's, as on V1: what asks for nothing is reached. The broker wants a certificate of the
    group; one that merely bears a device's name is none."""
    keys = [str(core.root), str(core.directory / "device-certificates"), str(core.root / "certs")]
    with undisturbed(core, watch), socket.create_server(("127.0.0.1", 0)) as other:
        greeter = threading.Thread(target=lambda: _greet(other))
        greeter.start()
        event = {"mqtt": core.port, "other": other.getsockname()[1], "keys": keys}
        answer = attack(probe, f"hostile-{who}", "services", **event)
        greeter.join()
    found = answer["payload"]
    assert answer["error"] == "", answer
    assert found.pop("a service without any check") == "hello"
    assert found.pop("keys in sight") == []
    assert len(found) == 6 and set(found.values()) <= {"closed", "refused"}, found


def _greet(server: socket.socket) -> None:
    server.settimeout(patience(30))
    with server.accept()[0] as sock:
        sock.sendall(b"hello")


def test_row_31_control_the_broker_lets_the_device_in(core: Core) -> None:
    """With the key that is kept from functions the same name is accepted."""
    with Device(core, "probe") as device:
        assert device.subscribe("caller/#") == 0


@row(49, "publish as another function", by="identity is the socket", result="its own source, no entry: dropped")
@WHO
def test_row_49_claimed_source(core: Core, probe: Device, watch: Watch, who: str) -> None:
    """P1: the subscription table lets the neighbour publish there, whatever a frame claims."""
    with undisturbed(core, watch):
        assert attack(probe, f"hostile-{who}", "forge_source") == {"error": "", "payload": "done"}


@row(49, "answer another function's invocation", by="numbers count per socket", result="dropped and counted")
@WHO
def test_row_49_forged_results(core: Core, probe: Device, watch: Watch, who: str) -> None:
    """It finds its own invocation's number in the runtime's frames and answers all numbers around it."""
    before = core.status()["counters"].get("functions.dropped.late_result", 0)
    with undisturbed(core, watch):
        forger = begin(probe, f"hostile-{who}", "forge_results", seconds=patience(2.0))
        genuine = [attack(probe, "slow", "", sleep=0.2) for _ in range(5)]
        answer = outcome(probe, forger)
    assert genuine == [{"error": "", "payload": {"genuine": True}}] * 5
    assert answer["error"] == "" and answer["payload"] > 0, answer
    assert core.status()["counters"]["functions.dropped.late_result"] > before + 1000


@row(49, "guess another function's token", by="random token of each worker", result="401")
@WHO
def test_row_49_guessed_tokens(core: Core, probe: Device, watch: Watch, who: str) -> None:
    """None, empty, its own with one digit changed at each place, its own as something else, and random ones."""
    with undisturbed(core, watch):
        answer = attack(probe, f"hostile-{who}", "guess_tokens")
    assert answer["error"] == "", answer
    assert set(answer["payload"]) == {"401"} and answer["payload"]["401"] > 150


@row(49, "take, answer or fail another function's work by HTTP", by="the token names the worker", result="403, 404")
@WHO
def test_row_49_work_of_others(core: Core, probe: Device, watch: Watch, who: str) -> None:
    """With its own, true token: what it opens is the function's own work and results of its own calls."""
    with undisturbed(core, watch):
        answer = attack(probe, f"hostile-{who}", "others_work")
    assert answer["error"] == "", answer
    assert answer["payload"] == {
        "take its work": 403,
        "answer its work": 403,
        "fail its work": 403,
        "fetch a result of others": 404,
    }


@row(
    50, "garbage, huge, negative, truncated frames; not reading", by="caps in the reader", result="ended with a reason"
)
@pytest.mark.parametrize(("do", "reason"), FRAMES)
@WHO
def test_row_50_frames(core: Core, probe: Device, watch: Watch, who: str, do: str, reason: str) -> None:
    """The caller learns why, the log says it once, and the next invocation is served by a new worker."""
    name = f"hostile-{who}"
    before = len(ends(core, name))
    with undisturbed(core, watch):
        answer = attack(probe, name, do)
        assert answer["error"] == "Unhandled"
        assert reason in answer["payload"]["errorMessage"], answer
        eventually(lambda: len(ends(core, name)) > before, "the report in the log")
        reports = ends(core, name)[before:]
        assert len(reports) == 1 and reason in reports[0]["reason"], reports
        assert attack(probe, name, "forge_source")["error"] == ""


@row(50, "the same again and again", by="bounded buffers", result="the daemon's memory is flat")
def test_row_50_memory_of_the_daemon(core: Core, probe: Device, watch: Watch) -> None:
    """Half of them withhold the rest of a frame, half have answers of megabytes wait for them.

    What is free in the allocator comes and goes by megabytes, whenever the daemon gives it back; so the most after
    each of the last rounds is compared with the most after each of the first ones that follow a warm-up.
    """
    readings = []
    with undisturbed(core, watch):
        for _ in range(14):
            for who in ("user", "root"):
                assert attack(probe, f"hostile-{who}", "huge")["error"] == "Unhandled"
                assert attack(probe, f"hostile-{who}", "deaf")["error"] == "Unhandled"
            readings.append(private_kb(core))
    print(f"clean and dirty: {readings} KB")  # who sees this fail wants to know which, and since when
    grown_kb = max(map(sum, readings[-6:])) - max(map(sum, readings[2:8]))
    print(f"the daemon grew by {grown_kb} KB")
    assert grown_kb < MEMORY_GROWTH_KB_MAX


@row(51, "send descriptors to the daemon beside its frames", by="no ancillary buffer", result="dropped by the kernel")
@WHO
def test_row_51_descriptors(core: Core, probe: Device, watch: Watch, who: str) -> None:
    """Three hundred of them; the daemon's number of descriptors stays what it is."""
    with undisturbed(core, watch):
        before = len(os.listdir(f"/proc/{core.daemon_pid()}/fd"))
        assert attack(probe, f"hostile-{who}", "descriptors", times=3) == {"error": "", "payload": "sent"}
        assert len(os.listdir(f"/proc/{core.daemon_pid()}/fd")) < before + 50


@row(53, "loop at import time", by="daemon's timer, SIGKILL", result="killed, reported")
def test_row_53_endless_import(core: Core, probe: Device, watch: Watch) -> None:
    """Both kinds at once: an import may take ten seconds whatever the time-out says."""
    with undisturbed(core, watch):
        for ticket in [begin(probe, f"endless-{who}", "") for who in ("user", "root")]:
            answer = outcome(probe, ticket)
            assert answer["error"] == "Unhandled"
            assert "its initialisation took more than 10 seconds" in answer["payload"]["errorMessage"]
    for who in ("user", "root"):
        assert status_of(core, f"endless-{who}")["instances"] == 0
        eventually(lambda who=who: len(ends(core, f"endless-{who}")) == 1, "the report in the log")


@row(53, "time-out: ignoring signals, busy, in C, in children", by="daemon's timer, SIGKILL", result="killed, reported")
@pytest.mark.parametrize("do", ["busy", "sleeping", "in_c", "children"])
@WHO
def test_row_53_timeout(core: Core, probe: Device, watch: Watch, who: str, do: str) -> None:
    """Whatever it does with its signals, all of it is gone shortly after its two seconds."""
    name = f"late-{who}"
    before = len(ends(core, name))
    with undisturbed(core, watch):
        started = time.monotonic()
        answer = attack(probe, name, do)
        assert 1.9 < time.monotonic() - started < patience(10)
        assert answer == {"error": "Unhandled", "payload": {"errorMessage": "Task timed out after 2 seconds"}}
        eventually(lambda: len(ends(core, name)) > before, "the report in the log")
    assert [report["reason"] for report in ends(core, name)[before:]] == ["Task timed out after 2 seconds"]
    assert [report["state"] for report in ends(core, name)[before:]] == ["signal: killed"]


@row(50, "a frame that never ends", by="daemon's sweep", result="ended with a reason")
def test_row_50_endless_frame(core: Core, watch: Watch, endless_frames: float) -> None:
    """Begun before all other tests; a byte every 50 ms kept each of them alive until now, at most for two sweeps."""
    with undisturbed(core, watch):
        left_s = max(ENDLESS_S + patience(10) - (time.monotonic() - endless_frames), patience(1.0))
        for who in ("user", "root"):
            eventually(lambda who=who: ends(core, f"patient-{who}"), "the end of the frame", left_s)
            reasons = [report["reason"] for report in ends(core, f"patient-{who}")]
            assert reasons == ["it sent a frame that does not end"]
