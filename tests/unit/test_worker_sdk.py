"""The published SDKs, unmodified, inside real workers: what they call is what the core does."""

from __future__ import annotations

import json

import pytest
from function_support import SDK_VERSIONS, World, a_world, arn, run

from ggfast.core.functions.invocations import InvokeStatus

CALLER = """
import base64, json, threading
import greengrasssdk
iot = greengrasssdk.client("iot-data")
lam = greengrasssdk.client("lambda")

def text(result):
    payload = result["Payload"]
    data = payload.read() if hasattr(payload, "read") else payload
    return [result["FunctionError"], data.decode()]

def attempt(call, **arguments):
    try:
        return call(**arguments)
    except Exception as error:
        return [type(error).__name__, str(error)]

def handler(event, context):
    callee, unqualified = event["callee"], event["callee"].rsplit(":", 1)[0]
    mark = base64.b64encode(json.dumps({"custom": {"mark": "x"}}).encode())
    answers = {}
    for name, payload in (("str", "text"), ("bytes", b"\\x00\\xff"), ("utf8", u"gr\\u00fcn")):
        assert iot.publish(topic="out/" + name, payload=payload) is None
    iot.publish(topic="out/none")
    answers["sync"] = text(lam.invoke(FunctionName=callee, Payload=json.dumps({"do": "echo"}), ClientContext=mark))
    answers["qualifier"] = text(
        lam.invoke(FunctionName=unqualified, Qualifier="1", Payload=b'{"do": "echo"}', ClientContext=mark))
    answers["event"] = text(lam.invoke(FunctionName=callee, InvocationType="Event", Payload='{"do": "publish"}'))
    answers["handled"] = text(lam.invoke(FunctionName=callee, Payload='{"do": "raise"}'))
    answers["unhandled"] = text(lam.invoke(FunctionName=callee, Payload='{"do": "exit"}'))
    answers["unknown"] = attempt(lam.invoke, FunctionName=unqualified + ":9", Payload="{}")
    answers["unknown_event"] = attempt(lam.invoke, FunctionName=unqualified, InvocationType="Event", Payload="{}")
    answers["not_an_arn"] = attempt(lam.invoke, FunctionName="callee", Payload="{}")
    answers["shadow"] = attempt(iot.get_thing_shadow, thingName="lamp")
    answers["missing_shadow"] = attempt(iot.get_thing_shadow, thingName="none")
    answers["shadow"] = {k: v.decode() for k, v in answers["shadow"].items()}
    answers["secret"] = attempt(greengrasssdk.client("secretsmanager").get_secret_value, SecretId="s")
    answers["interface"] = getattr(greengrasssdk, "INTERFACE_VERSION", "1.0")
    return answers
"""

CALLEE = """
import json, os
import greengrasssdk
iot = greengrasssdk.client("iot-data")

def handler(event, context):
    if event["do"] == "echo":
        return {"event": event, "custom": context.client_context.custom}
    if event["do"] == "publish":
        iot.publish(topic="callee/ran", payload="yes")
    if event["do"] == "raise":
        raise KeyError("asked to")
    if event["do"] == "exit":
        os._exit(3)
"""


async def shadows(source: str, context: bytes, payload: bytes) -> bytes:
    """A shadow service with one thing."""
    if "/lamp/" in json.loads(context)["custom"]["subject"]:
        return b'{"state": {"reported": 1}}'
    return b'{"code": 404, "message": "No shadow exists with name: none"}'


async def call_everything(world: World) -> dict[str, object]:
    caller, callee = world.plan("caller", CALLER), world.plan("callee", CALLEE)
    world.manager.system_targets["arn:aws:lambda:::function:GGShadowService"] = shadows
    assert await world.manager.apply([caller, callee]) == {}
    result = await world.manager.invoke(caller.arn, json.dumps({"callee": callee.arn}).encode())
    assert result.status is InvokeStatus.OK, (result, world.logs)
    answers: dict[str, object] = json.loads(result.payload)
    await world.until(lambda: world.router.payloads(b"callee/ran"), "the event invocation")
    return answers


@pytest.mark.parametrize("version", SDK_VERSIONS)
def test_p9_every_published_sdk_works_unchanged(version: str) -> None:
    async def body() -> None:
        async with a_world(sdk_version=version) as world:
            answers = await call_everything(world)
            me = arn("caller")
            assert [m for m in world.router.published if m[1].startswith(b"out/")] == [
                (me, b"out/str", b"text"),
                (me, b"out/bytes", b"\x00\xff"),
                (me, b"out/utf8", "grün".encode()),
                (me, b"out/none", b""),
            ]
            echo = {"event": {"do": "echo"}, "custom": {"mark": "x"}}
            assert answers["sync"] == ["", json.dumps(echo)]
            assert answers["qualifier"] == ["", json.dumps(echo)]
            assert answers["event"] == ["", ""]
            kind, document = answers["handled"]  # type: ignore[misc]
            assert kind == "Handled"
            error = json.loads(document)
            assert error["errorMessage"] == "'asked to'"
            assert error["errorType"] == "KeyError"
            assert error["stackTrace"][0][2] == "handler"
            assert answers["unhandled"] == [
                "Unhandled",
                '{"errorMessage":"The function\'s worker ended: exit status 3"}',
            ]
            kind, text = answers["unknown"]  # type: ignore[misc]
            assert kind == "InvocationException"
            assert "callee:9 is not deployed on this core. Deployed: " + arn("callee") in text
            kind, text = answers["unknown_event"]  # type: ignore[misc]
            assert kind == "InvocationException"
            assert "is not deployed" in text
            assert answers["not_an_arn"][0] == "ValueError"  # type: ignore[index]
            assert answers["shadow"] == {"payload": '{"state": {"reported": 1}}'}
            assert answers["missing_shadow"] == [
                "ShadowError",
                'Request for shadow state returned error code 404 with message "No shadow exists with name: none"',
            ]
            assert answers["secret"] == [
                "SecretsManagerError",
                "Request for secret value returned error code 404 with message No secrets are deployed to this core",
            ]
            assert float(str(answers["interface"])) <= 1.5

    run(body())


def test_without_a_shadow_service_the_sdk_says_so() -> None:
    async def body() -> None:
        async with a_world(sdk_version="1.6.1") as world:
            plan = world.plan(
                "f",
                "import greengrasssdk\ndef handler(e, c):\n"
                "    greengrasssdk.client('iot-data').get_thing_shadow(thingName='t')",
            )
            await world.manager.apply([plan])
            result = await world.manager.invoke(plan.arn, b"{}")
            assert result.status is InvokeStatus.HANDLED
            document = json.loads(result.payload)
            assert document["errorType"] == "ShadowError"
            assert "error code 501" in document["errorMessage"]

    run(body())


FULL = """
import greengrasssdk
iot = greengrasssdk.client("iot-data")

def handler(event, context):
    try:
        iot.publish(topic="a", payload="x", queueFullPolicy=event["policy"])
    except Exception as error:
        return type(error).__name__ + ": " + str(error)
    return "sent"
"""


@pytest.mark.parametrize("version", ["1.5.0", "1.6.0", "1.6.1"])
def test_queue_full_policies(version: str) -> None:
    async def body() -> None:
        async with a_world(sdk_version=version) as world:
            plan = world.plan("f", FULL)
            await world.manager.apply([plan])

            async def ask(policy: str) -> str:
                result = await world.manager.invoke(plan.arn, json.dumps({"policy": policy}).encode())
                text: str = json.loads(result.payload)
                return text

            assert await ask("AllOrException") == "sent"
            world.router.full = True
            assert "InvocationException: Failed to invoke function due to The message is not published" in await ask(
                "AllOrException"
            )
            assert await ask("BestEffort") == "sent"
            assert (await ask("Nonsense")).startswith("ValueError")
            assert len(world.router.published) == 2

    run(body())


THREADS = """
import threading
import greengrasssdk
iot = greengrasssdk.client("iot-data")
lam = greengrasssdk.client("lambda")

def work(number, callee, answers):
    for turn in range(20):
        policy = "AllOrException" if turn % 2 else "BestEffort"
        iot.publish(topic="threads", payload="%d/%d" % (number, turn), queueFullPolicy=policy)
        result = lam.invoke(FunctionName=callee, Payload='{"n": %d, "t": %d}' % (number, turn))
        answers.append((number, turn, result["Payload"].read().decode()))

def handler(event, context):
    answers = []
    threads = [threading.Thread(target=work, args=(n, event["callee"], answers)) for n in range(6)]
    for thread in threads:
        thread.start()
    work(9, event["callee"], answers)
    for thread in threads:
        thread.join()
    return answers
"""


def test_threads_call_and_publish_while_the_handler_runs() -> None:
    async def body() -> None:
        async with a_world(sdk_version="1.6.1") as world:
            caller = world.plan("caller", THREADS, timeout_s=40)
            echo = world.plan("echo", "def handler(event, context):\n    return event", pinned=True)
            await world.manager.apply([caller, echo])
            result = await world.manager.invoke(caller.arn, json.dumps({"callee": echo.arn}).encode())
            answers = json.loads(result.payload)
            assert len(answers) == 140
            for number, turn, text in answers:
                assert json.loads(text) == {"n": number, "t": turn}
            published = world.router.payloads(b"threads")
            for number in (0, 1, 2, 3, 4, 5, 9):
                mine = [p for p in published if p.startswith(b"%d/" % number)]
                assert mine == [b"%d/%d" % (number, turn) for turn in range(20)]

    run(body())


LATER = """
import threading, time
import greengrasssdk
iot = greengrasssdk.client("iot-data")

def background():
    for turn in range(5):
        time.sleep(0.02)
        iot.publish(topic="beside", payload=str(turn), queueFullPolicy="AllOrException")

threading.Thread(target=background, daemon=True).start()

def handler(event, context):
    return 1
"""


def test_a_thread_publishes_while_the_main_thread_waits_for_work() -> None:
    async def body() -> None:
        async with a_world(sdk_version="1.6.1") as world:
            plan = world.plan("pinned", LATER, pinned=True)
            await world.manager.apply([plan])
            await world.until(lambda: len(world.router.payloads(b"beside")) == 5, "five publishes")
            assert (await world.manager.invoke(plan.arn, b"")).payload == b"1"

    run(body())


STALE = """
import greengrass_common, greengrass_ipc_python_sdk
from greengrass_common.common_log_appender import local_cloudwatch_handler
from greengrass_ipc_python_sdk.utils.exponential_backoff import retry
from greengrass_ipc_python_sdk.ipc_client import IPCClient, WorkItem
import greengrasssdk, logging
logging.getLogger().addHandler(local_cloudwatch_handler)

def handler(event, context):
    greengrasssdk.client("iot-data").publish(topic="a", payload="x")
    return [greengrass_common.__file__, IPCClient.__module__]
"""


def test_stale_copies_in_a_package_are_shadowed() -> None:
    async def body() -> None:
        async with a_world(sdk_version="1.6.1") as world:
            plan = world.plan("old", STALE)
            for name in ("greengrass_common", "greengrass_ipc_python_sdk"):
                folder = world.directory / "old-1" / name
                folder.mkdir()
                (folder / "__init__.py").write_text("raise RuntimeError('the stale copy was imported')")
            await world.manager.apply([plan])
            result = await world.manager.invoke(plan.arn, b"{}")
            assert result.status is InvokeStatus.OK, result
            assert "/core/workers/python/" in json.loads(result.payload)[0]
            assert world.router.payloads(b"a") == [b"x"]

    run(body())


PUBLISHER = """
import greengrasssdk
def handler(event, context):
    greengrasssdk.client("iot-data").publish(topic="real", payload="x", queueFullPolicy="AllOrException")
"""


@pytest.mark.parametrize("version", ["1.5.0", "1.6.1"])
def test_no_variable_of_a_function_puts_the_sdk_into_its_mock_mode(version: str) -> None:
    """Without MY_FUNCTION_ARN the SDK answers everything itself and nothing arrives (sdk-contract 3)."""

    async def body() -> None:
        async with a_world(sdk_version=version) as world:
            plan = world.plan(
                "real", PUBLISHER, variables={"MY_FUNCTION_ARN": "", "AWS_CONTAINER_AUTHORIZATION_TOKEN": ""}
            )
            await world.manager.apply([plan])
            assert (await world.manager.invoke(plan.arn, b"{}")).status is InvokeStatus.OK
            assert world.router.payloads(b"real") == [b"x"]

    run(body())


FACADE = """
from greengrass_ipc_python_sdk.ipc_facade import (
    GreengrassRuntimeException, GreengrassServiceClient, GreengrassServiceMessage)

def handler(event, context):
    client = GreengrassServiceClient()
    good = client.call(event["callee"], GreengrassServiceMessage("", '{"do": "echo"}'))
    bad = client.call(event["callee"], GreengrassServiceMessage("", '{"do": "raise"}'))
    try:
        client.call(event["callee"] + "9", GreengrassServiceMessage("", "{}"))
    except GreengrassRuntimeException as error:
        return [good.response.payload.decode(), bad.error_response.payload.decode(), str(error)]
"""


def test_the_machine_learning_facade() -> None:
    async def body() -> None:
        async with a_world(sdk_version="1.6.1") as world:
            caller, callee = world.plan("caller", FACADE), world.plan("callee", CALLEE)
            await world.manager.apply([caller, callee])
            result = await world.manager.invoke(caller.arn, json.dumps({"callee": callee.arn}).encode())
            good, bad, text = json.loads(result.payload)
            assert json.loads(good)["event"] == {"do": "echo"}
            assert json.loads(bad)["errorType"] == "KeyError"
            assert "is not deployed" in text

    run(body())


def test_a_newer_sdk_than_the_core_is_refused() -> None:
    async def body() -> None:
        async with a_world() as world:
            plan = world.plan("new", "import greengrasssdk\ndef handler(e, c):\n    return 1")
            (world.directory / "new-1" / "greengrasssdk.py").write_text("INTERFACE_VERSION = '1.6'")
            await world.manager.apply([plan])
            result = await world.manager.invoke(plan.arn, b"{}")
            assert result.status is InvokeStatus.UNHANDLED
            assert b"interface version 1.6, this core speaks 1.5" in result.payload

    run(body())
