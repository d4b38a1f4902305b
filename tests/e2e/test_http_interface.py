"""Functions of a whole core over HTTP: any client, a bundle of 2017, programs with their own loop, a daemon's death."""

from __future__ import annotations

import base64
import json
import os
import shutil
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.harness import Core, Device, GroupFolder, a_core, eventually, function_arn, thing_arn

PROBE = thing_arn("probe")
OLD_BUNDLE = Path(__file__).resolve().parent / "old_bundle"
EXECUTABLE = "arn:aws:greengrass:::runtime/function/executable"

# Sends the requests of its event with urllib alone and returns what came.
TOOL = """
import base64, os, urllib.error, urllib.request
BASE = "http://localhost:%s/2016-11-01" % os.environ["GG_DAEMON_PORT"]

def ask(method, path, headers=(), body=None, token=None):
    body = "x" * body if isinstance(body, int) else body
    found = urllib.request.Request(BASE + path, body.encode() if body is not None else None, method=method)
    found.add_header("Authorization", token if token is not None else os.environ["AWS_CONTAINER_AUTHORIZATION_TOKEN"])
    for name, value in dict(headers).items():
        found.add_header(name, value)
    try:
        answer = urllib.request.urlopen(found, timeout=10)
    except urllib.error.HTTPError as error:
        answer = error
    return [answer.status, {name.lower(): value for name, value in answer.headers.items()}, answer.read().decode()]

def handler(event, context):
    if event == "environment":
        return dict(os.environ)
    answers = []
    for method, path, headers, *rest in event:
        last = answers[-1][1].get("x-amz-invocationid") if answers else None
        answers.append(ask(method, path, {k: last if v == "$last" else v for k, v in headers.items()}, *rest))
    return answers
"""

ECHO = """
def handler(event, context):
    if event == "raise":
        raise ValueError("no")
    if event == "die":
        import os
        os._exit(3)
    return {"event": event, "custom": context.client_context.custom}
"""

# What users of 2017 wrote; as a function it gets the core's own modules, as a program the bundle's.
OLD_USER = """
import json, os, subprocess, sys

SCRIPT = '''
import json, sys
import greengrasssdk, greengrass_ipc_python_sdk
iot, functions = greengrasssdk.client("iot-data"), greengrasssdk.client("lambda")
iot.publish(topic="old/out", payload=json.dumps({"via": sys.argv[1]}).encode())
result = functions.invoke(FunctionName=sys.argv[2], Payload=b'{"a": 1}')
failed = functions.invoke(FunctionName=sys.argv[2], Payload=b'"raise"')
died = functions.invoke(FunctionName=sys.argv[2], Payload=b'"die"')
event = functions.invoke(FunctionName=sys.argv[2], Payload=b"1", InvocationType="Event")
shadow = iot.get_thing_shadow(thingName="lamp")
try:
    functions.invoke(FunctionName=sys.argv[2] + "77", Payload=b"")
    refused = ""
except greengrass_ipc_python_sdk.ipc_client.IPCException as error:
    refused = str(error)
print(json.dumps([greengrass_ipc_python_sdk.__file__, json.loads(result["Payload"]), result["FunctionError"],
    failed["FunctionError"], died["FunctionError"], event["Payload"].decode(), json.loads(shadow["Payload"])["code"],
    refused]))
'''

def handler(event, context):
    environment = dict(os.environ, PYTHONPATH=os.path.dirname(os.path.abspath(__file__)))
    done = subprocess.run(["/usr/bin/python3", "-c", SCRIPT, "program", event["echo"]], env=environment,
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    import greengrasssdk, greengrass_ipc_python_sdk
    greengrasssdk.client("iot-data").publish(topic="old/out", payload=json.dumps({"via": "function"}))
    return [done.returncode, done.stdout, greengrass_ipc_python_sdk.__file__]
"""

# A program that knows no frame: a shell with a loop, one process for each request.
LOOP = """#!/bin/sh
trap 'echo stopped; exit 0' TERM
echo "started for ${MY_FUNCTION_ARN##*function:}"
while :; do
    /usr/bin/python3 /lambda/ask.py work > /tmp/work & wait $! || { sleep 0.05; continue; }
    case "$(tail -n 1 /tmp/work)" in
        hang) sleep 60 ;;
        die) exit 3 ;;
        fail) /usr/bin/python3 /lambda/ask.py error "$(head -n 1 /tmp/work)" '{"errorMessage": "as asked"}' ;;
        *) /usr/bin/python3 /lambda/ask.py result "$(head -n 1 /tmp/work)" "$$ $(tail -n 1 /tmp/work)" ;;
    esac
done
"""
ASK = """
import os, sys, urllib.request
url = "http://localhost:%s/2016-11-01/functions/%s/work" % (os.environ["GG_DAEMON_PORT"], os.environ["MY_FUNCTION_ARN"])
request = urllib.request.Request(url, sys.argv[3].encode() if len(sys.argv) > 3 else None)
request.add_header("Authorization", os.environ["AWS_CONTAINER_AUTHORIZATION_TOKEN"])
if len(sys.argv) > 2:
    request.add_header("X-Amz-InvocationId", sys.argv[2])
if sys.argv[1] == "error":
    request.add_header("X-Amz-Function-Error", "Handled")
with urllib.request.urlopen(request) as answer:
    print(answer.headers["X-Amz-InvocationId"])
    print(answer.read().decode())
"""


def add_program(folder: GroupFolder, name: str, script: str, **config: Any) -> str:
    directory = folder.path / "functions" / name
    directory.mkdir(parents=True)
    (directory / "main.sh").write_text(script)
    (directory / "main.sh").chmod(0o755)
    (directory / "ask.py").write_text(ASK)
    folder.functions.append(
        {
            "Id": name,
            "FunctionArn": function_arn(name),
            "Code": f"functions/{name}",
            "Handler": "main.sh",
            "Runtime": EXECUTABLE,
            "FunctionConfiguration": {"MemorySize": 65536, "Timeout": 5, "EncodingType": "binary", **config},
        }
    )
    return function_arn(name)


@pytest.fixture(scope="module")
def core() -> Iterator[Core]:
    with a_core() as core:
        folder = core.folder()
        folder.device("probe")
        tool = folder.function("tool", TOOL, sdk=False, Pinned=True, Timeout=60, MemorySize=65536)
        folder.function("echo", ECHO, sdk=False)
        old = folder.function("old", OLD_USER, sdk=False, Timeout=30, MemorySize=131072)
        shutil.copytree(OLD_BUNDLE, folder.path / "functions" / "old", dirs_exist_ok=True)
        shutil.make_archive(str(folder.path / "functions" / "old-bundle"), "zip", folder.path / "functions" / "old")
        folder.functions[-1]["Code"] = "functions/old-bundle.zip"
        loop = add_program(folder, "loop", LOOP, Pinned=True, Timeout=3)
        add_program(folder, "shot", LOOP)
        free = folder.function("old-free", OLD_USER, sdk=False, Timeout=30)
        shutil.copytree(OLD_BUNDLE, folder.path / "functions" / "old-free", dirs_exist_ok=True)
        configuration = folder.functions[-1]["FunctionConfiguration"]
        del configuration["MemorySize"]
        configuration["Environment"] = {"Execution": {"IsolationMode": "NoContainer"}}
        for source, subject in ((tool, "tool/out"), (old, "old/out"), (free, "old/out")):
            folder.subscribe(source, subject, PROBE)
        folder.subscribe(PROBE, "loop/in", loop)
        core.deploy(folder)
        core.start()
        yield core


def invoke(core: Core, name: str, payload: str) -> Any:
    done = core.command("invoke", name, "--payload", payload, check=False)
    assert done.returncode == 0, done.stderr + done.stdout + core.function_log(name)
    return json.loads(done.stdout)


def invoke_raw(core: Core, name: str, payload: str) -> dict[str, Any]:
    document: dict[str, Any] = json.loads(
        core.command("invoke", name, "--payload", payload, "--json", check=False).stdout
    )
    return document


def ask(core: Core, *requests: Any) -> list[Any]:
    answers: list[Any] = invoke(core, "tool", json.dumps(requests))
    return answers


def row(core: Core, name: str) -> dict[str, Any]:
    rows = {row["arn"]: row for row in core.status()["functions"]}
    found: dict[str, Any] = rows[function_arn(name)]
    return found


def test_p9_every_request_of_the_contract_from_a_container(core: Core) -> None:
    echo, own = function_arn("echo"), function_arn("tool")
    form = {"Content-Type": "application/x-www-form-urlencoded"}
    context = "eyJjdXN0b20iOiB7ImEiOiAxfX0="  # {"custom": {"a": 1}}
    answers = ask(
        core,
        ("POST", f"/functions/{echo}", {"X-Amz-Client-Context": context, **form}, "[1]"),
        ("GET", f"/functions/{echo}", {"X-Amz-InvocationId": "$last"}),
        ("POST", f"/functions/{echo}", {"X-Amz-Invocation-Type": "Event"}, "2"),
        ("GET", f"/functions/{echo}", {"X-Amz-InvocationId": "$last"}),
        ("POST", f"/functions/{echo}", {}, '"raise"'),
        ("GET", f"/functions/{echo}", {"X-Amz-InvocationId": "$last"}),
        ("POST", "/cloudwatch/logs/", form, '{"logEvents": [{"timestamp": 1, "message": "[WARN]-x.py:1,over HTTP"}]}'),
        ("GET", "/credentialprovider/", {}),
        ("GET", f"/functions/{own}/work", {}),
        ("GET", f"/functions/{echo}/work", {}),
        ("GET", f"/functions/{echo}", {}, None, "0" * 64),
        ("POST", f"/functions/{function_arn('nobody')}", {}, "1"),
        ("POST", f"/functions/{echo}", {}, 200_000),
    )
    statuses = [answer[0] for answer in answers]
    assert statuses == [200, 200, 200, 200, 200, 200, 200, 404, 409, 403, 401, 404, 413]
    assert json.loads(answers[1][2]) == {"event": [1], "custom": {"a": 1}}
    assert [answers[at][1]["x-amz-function-error"] for at in (1, 3, 5)] == ["", "", "Handled"]
    assert (answers[3][2], json.loads(answers[5][2])["errorMessage"]) == ("", "no")
    assert all(json.loads(answer[2])["message"] for answer in answers[7:])
    eventually(
        lambda: "[WARN]" in core.function_log("tool") and "over HTTP" in core.function_log("tool"), "the log line"
    )


def test_p1_a_message_over_http_has_its_workers_name(core: Core) -> None:
    custom = {"custom": {"source": function_arn("old"), "subject": "tool/out"}}
    context = base64.b64encode(json.dumps(custom).encode()).decode()
    with Device(core, "probe") as probe:
        probe.subscribe("tool/out")
        router = "arn:aws:lambda:::function:GGRouter"
        headers = {"X-Amz-Client-Context": context, "X-Amz-Invocation-Type": "Event"}
        assert [answer[0] for answer in ask(core, ("POST", f"/functions/{router}", headers, "hello"))] == [200]
        assert probe.expect() == ("tool/out", b"hello")  # the table lets the tool send there, and not `old`


@pytest.mark.parametrize("name", ["old", "old-free"])
def test_p9_a_bundle_of_2017_works_as_function_and_as_program(core: Core, name: str) -> None:
    with Device(core, "probe") as probe:
        probe.subscribe("old/out")
        status, output, ours = invoke(core, name, json.dumps({"echo": function_arn("echo")}))
        assert status == 0, output
        theirs, result, error, failed, died, event, shadow, refused = json.loads(output.splitlines()[-1])
        package = "/lambda/" if name == "old" else str(core.root)
        assert theirs.startswith(package) and not ours.startswith(package)
        assert (result["event"], error, failed, died, event, shadow) == ({"a": 1}, "", "Handled", "Unhandled", "", 404)
        assert refused.startswith("404 ") and "not deployed" in refused
        assert {json.loads(probe.expect()[1])["via"] for _ in range(2)} == {"program", "function"}
    assert "invoking arn:aws:lambda" in core.function_log(name)


def test_a_shell_with_its_own_loop_is_a_function(core: Core) -> None:
    for name in ("loop", "shot"):
        first, second = (invoke_raw(core, name, text) for text in ("one", "two"))
        assert (first["status"], second["status"]) == ("OK", "OK")
        (pid, one), (again, two) = first["payload"].split(), second["payload"].split()
        assert (one, two, pid) == ("one", "two", again)
        failed = invoke_raw(core, name, "fail")
        assert (failed["status"], json.loads(failed["payload"])["errorMessage"]) == ("HANDLED", "as asked")
        late = invoke_raw(core, name, "hang")
        assert late["status"] == "UNHANDLED" and "timed out" in late["payload"]
        assert invoke_raw(core, name, "three")["payload"].endswith(" three")
        died = invoke_raw(core, name, "die")
        assert died["status"] == "UNHANDLED" and "exit status 3" in died["payload"]
        assert invoke_raw(core, name, "four")["payload"].endswith(" four")
    assert "started for loop:1" in core.function_log("loop")


def test_p4_such_a_program_and_its_token_outlive_the_daemon(core: Core) -> None:
    before = invoke_raw(core, "loop", "before")["payload"].split()
    token = invoke(core, "tool", '"environment"')["AWS_CONTAINER_AUTHORIZATION_TOKEN"]
    pid = row(core, "loop")["pids"][0]
    old = core.kill_daemon()
    eventually(lambda: core.command("status", check=False).returncode == 0 and core.daemon_pid() != old, "the next one")
    eventually(lambda: row(core, "loop")["pids"] == [pid], "the program is adopted")
    after = invoke_raw(core, "loop", "after")["payload"].split()
    assert (after[0], after[1]) == (before[0], "after")
    assert invoke(core, "tool", '"environment"')["AWS_CONTAINER_AUTHORIZATION_TOKEN"] == token
    assert ask(core, ("GET", "/credentialprovider/", {}))[0][0] == 404


def test_p6_the_interface_is_the_daemons_and_the_key_nobody_elses(core: Core) -> None:
    key = core.root / "ggc" / "var" / "state" / "token.key"
    status = key.stat()
    assert (status.st_mode & 0o7777, status.st_size) == (0o600, 32)
    assert status.st_uid == os.stat(f"/proc/{core.daemon_pid()}").st_uid != 0
    port = json.loads((core.root / "config" / "config.json").read_text())["coreThing"]["ggDaemonPort"]
    with pytest.raises(urllib.error.HTTPError) as refused:
        urllib.request.urlopen(f"http://127.0.0.1:{port}/2016-11-01/credentialprovider/", timeout=10)
    assert refused.value.code == 401
    refused.value.close()


def test_such_a_program_is_told_to_stop(core: Core) -> None:
    core.stop()
    assert "stopped" in core.function_log("loop")
    assert "Traceback" not in core.log() + core.crash_log()
    core.start()
