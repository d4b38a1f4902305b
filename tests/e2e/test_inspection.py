"""Seeing inside functions with the commands users have: functions, logs, invoke, try."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.e2e.harness import Core, a_core, eventually, function_arn, open_directory, run_command

SOURCE = """
import os
ballast = None
def handler(event, context):
    global ballast
    print("called with", event)
    if event.get("fail"):
        raise ValueError("as asked")
    if event.get("die"):
        os._exit(7)
    if event.get("grow"):
        ballast = bytearray(event["grow"] * 1024)
        for at in range(0, len(ballast), 4096):
            ballast[at] = 1
    return {"pid": os.getpid(), "custom": context.client_context.custom}
"""
BYTES = "def handler(event, context):\n    return event[::-1]\n"


@pytest.fixture(scope="module")
def core() -> Iterator[Core]:
    with a_core() as core:
        folder = core.folder()
        folder.function("talker", SOURCE, sdk=False)
        folder.function("pinned", SOURCE, sdk=False, Pinned=True)
        folder.function("bytes", BYTES, sdk=False, EncodingType="binary")
        core.deploy(folder)
        core.start()
        yield core


def row(core: Core, name: str) -> dict[str, object]:
    rows = json.loads(core.command("functions", "--json").stdout)["functions"]
    return next(row for row in rows if row["name"] == name)


def test_invoke_prints_exactly_the_result(core: Core) -> None:
    done = core.command("invoke", "talker", "--payload", '{"a": 1}', "--context", '{"custom": {"b": 2}}')
    assert json.loads(done.stdout)["custom"] == {"b": 2}
    assert done.stderr == ""
    command = [sys.executable, "-m", "ggfast.cli.core", "invoke", "bytes", "--payload", "-", "--root", str(core.root)]
    piped = subprocess.run(command, input=b"\x00\xff\n1", capture_output=True, timeout=60, check=True)
    assert piped.stdout == b"1\n\xff\x00"


def test_invoke_tells_failures_apart(core: Core) -> None:
    failed = core.command("invoke", "talker", "--payload", '{"fail": 1}', check=False)
    assert (failed.returncode, json.loads(failed.stdout)["errorMessage"]) == (1, "as asked")
    assert "Handled" in failed.stderr
    died = json.loads(core.command("invoke", "talker:1", "--payload", '{"die": 1}', "--json", check=False).stdout)
    assert (died["status"], died["function_error"]) == ("UNHANDLED", "Unhandled")
    assert "exit status 7" in died["payload"]
    unknown = core.command("invoke", "nobody", check=False)
    assert (unknown.returncode, unknown.stdout) == (1, "")
    assert "talker:1" in unknown.stderr
    missing = core.command("invoke", "bytes", "--payload", "@/nonexistent", check=False)
    assert (missing.returncode, missing.stdout) == (1, "")
    assert "cannot be read" in missing.stderr
    bad = core.command("invoke", "talker", "--context", "[]", check=False)
    assert "--context" in bad.stderr


def test_events_return_at_once(core: Core) -> None:
    done = core.command("invoke", function_arn("talker"), "--payload", '{"event": "only"}', "--event")
    assert done.stdout == ""
    eventually(lambda: "{'event': 'only'}" in core.function_log("talker"), "the event's line in the log")


def test_functions_shows_what_happened(core: Core) -> None:
    before = row(core, "pinned")
    core.command("invoke", "pinned", "--payload", '{"grow": 6000}')
    core.command("invoke", "pinned", "--payload", '{"fail": 1}', check=False)
    after = row(core, "pinned")
    assert after["invocations"] == int(str(before["invocations"])) + 2
    assert after["errors"] == 1
    assert "as asked" in str(after["last_error"])
    assert after["memory_limit_kb"] == 32768
    assert 6000 < int(str(after["memory_kb"])) <= int(str(after["memory_peak_kb"])) <= 32768
    assert float(str(after["p50_ms"])) <= float(str(after["p99_ms"]))
    text = core.command("functions").stdout
    assert "pinned:1" in text
    assert "(pinned)" in text
    assert "last error:" in text


def test_the_peak_outlives_the_worker(core: Core) -> None:
    core.command("invoke", "pinned", "--payload", '{"grow": 9000}')
    core.command("invoke", "pinned", "--payload", '{"die": 1}', check=False)
    eventually(lambda: row(core, "pinned")["state"] == "running", "another worker")
    assert int(str(row(core, "pinned")["memory_peak_kb"])) > 9000


def test_logs_and_following_them(core: Core) -> None:
    core.command("invoke", "talker", "--payload", '{"mark": "first"}')
    eventually(lambda: "'first'" in core.function_log("talker"), "the line in the log")
    assert "'first'" in core.command("logs", "talker", "-n", "200").stdout
    assert "Starting." in core.command("logs", "system").stdout
    command = [sys.executable, "-m", "ggfast.cli.core", "logs", "-f", "-n", "200", "talker", "--root", str(core.root)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as follower:
        overdue = threading.Timer(60, follower.kill)
        overdue.start()
        try:
            assert follower.stdout is not None
            lines = iter(follower.stdout.readline, "")
            assert next(line for line in lines if "'first'" in line)
            core.command("invoke", "talker", "--payload", '{"mark": "second"}')
            assert next(line for line in lines if "'second'" in line)
        finally:
            overdue.cancel()
            follower.kill()
    missing = core.command("logs", "nobody", check=False)
    assert missing.returncode == 1
    assert "talker" in missing.stderr


@pytest.fixture
def package() -> Iterator[Path]:
    with open_directory() as path:
        yield path


def test_try_a_package(package: Path) -> None:
    folder = package / "adder"
    folder.mkdir()
    (folder / "main.py").write_text(
        "import os, sys\n"
        "def handler(event, context):\n"
        "    print('adding')\n"
        "    hidden = not os.path.exists('/root') and os.getuid() != 0\n"
        "    return {'sum': sum(event['n']), 'arn': context.invoked_function_arn, 'contained': hidden,\n"
        "            'given': os.environ['GIVEN']}\n"
    )
    (package / "event.json").write_text('{"n": [1, 2, 3]}')
    done = run_command("try", folder, "--event", package / "event.json", "--env", "GIVEN=yes", "--json")
    found = json.loads(done.stdout)
    result = json.loads(found["results"][0]["payload"])
    assert (result["sum"], result["contained"], result["given"]) == (6, True, "yes")
    assert result["arn"].endswith(":function:adder:1")
    assert any(line.endswith("-adding") for line in found["log"])
    assert 0 < found["memory_kb"] <= found["memory_peak_kb"] <= found["memory_limit_kb"] == 131_072
    with zipfile.ZipFile(package / "adder.zip", "w") as archive:
        archive.write(folder / "main.py", "main.py")
    done = run_command(
        *("try", package / "adder.zip", "--handler", "main.handler", "--payload", '{"n": 1}', "--env", "GIVEN=", ),
        check=False,
    )  # fmt: skip
    assert done.returncode == 1
    assert "Handled" in done.stdout
    assert "not iterable" in done.stdout
    assert not [name for name in os.listdir("/tmp") if name.startswith("ggfast-try-")]


def test_try_shows_what_a_function_publishes(package: Path) -> None:
    with a_core() as core:  # only for its folder: the group is tried without deploying it
        folder = core.folder()
        source = (
            "import greengrasssdk\nclient = greengrasssdk.client('iot-data')\n"
            "def handler(event, context):\n    client.publish(topic='some/topic', payload='said')\n"
        )
        folder.function("speaker", source, Pinned=True)
        folder.function("other", "def handler(event, context):\n    pass\n")
        done = run_command("try", folder.write(), "--function", "speaker", "--json")
        found = json.loads(done.stdout)
        assert found["published"] == [{"topic": "some/topic", "payload": "said"}]
        refused = run_command("try", folder.path, check=False)
        assert "one of other, speaker" in refused.stderr


def test_try_says_why_a_function_does_not_start(package: Path) -> None:
    (package / "main.py").write_text("import not_there\n")
    done = run_command("try", package, "--handler", "main.handler", check=False)
    assert done.returncode == 1
    assert "not_there" in done.stdout
    missing = run_command("try", package, "--handler", "other.handler", check=False)
    assert "a module other" in missing.stderr
