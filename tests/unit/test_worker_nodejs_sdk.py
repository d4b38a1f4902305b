"""npm's aws-greengrass-core-sdk 1.7.0, unmodified, in a Node.js function (sdk-contract 5)."""

from __future__ import annotations

import base64
import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from nodejs_support import published_sdk, ready, start
from worker_support import (
    ARN,
    EVENT,
    HANDLED,
    OK,
    REFUSED,
    REQUEST_RESPONSE,
    ROUTER,
    SECRETS,
    SHADOWS,
    UNHANDLED,
    Worker,
)

OTHER = "arn:aws:lambda:eu-west-1:123456789012:function:other"

# The event names a call of the SDK and its parameters; what the SDK calls back with is the result.
SOURCE = """
const sdk = require('aws-greengrass-core-sdk');
const clients = {Lambda: new sdk.Lambda(), IotData: new sdk.IotData(), SecretsManager: new sdk.SecretsManager()};
const shown = (value) => Buffer.isBuffer(value) ? {bytes: value.toString('base64')} : value;
exports.handler = (event, context, callback) => {
  const params = Object.assign({}, event.params);
  for (const name of ['payload', 'Payload']) {
    if (params[name] && params[name].bytes !== undefined) params[name] = Buffer.from(params[name].bytes, 'base64');
  }
  let sync = true;
  clients[event.client][event.call](params, (error, data) => {
    if (data && data.Payload) data.Payload = shown(data.Payload);
    callback(null, {error: error && {name: error.name, message: error.message}, data: shown(data), sync});
  });
  sync = false;
};
"""


@pytest.fixture(scope="session")
def node_modules() -> Path:
    return published_sdk()


@pytest.fixture
def package(tmp_path: Path, node_modules: Path) -> Path:
    """A function's package with the SDK in it."""
    shutil.copytree(node_modules, tmp_path / "node_modules")
    return tmp_path


def ask(worker: Worker, client: str, call: str, **params: Any) -> None:
    worker.work(1, json.dumps({"client": client, "call": call, "params": params}).encode())


def outcome(worker: Worker) -> Any:
    told = json.loads(worker.result(1))
    assert not told["sync"]
    return told["error"] if told["error"] else told["data"]


def packed(data: bytes) -> dict[str, str]:
    return {"bytes": base64.b64encode(data).decode()}


def test_every_service_loads(package: Path) -> None:
    source = "const sdk = require('aws-greengrass-core-sdk'); exports.handler = async () => Object.keys(sdk)"
    with ready(package, source) as worker:
        worker.work(1)
        names = {"GreengrassInterfaceVersion", "Lambda", "IotData", "SecretsManager", "StreamManager"}
        assert set(json.loads(worker.result(1))) == names
        assert worker.stop() == 0
        assert worker.finish() == []


@pytest.mark.parametrize(
    ("payload", "expected"),
    [("text grün", "text grün".encode()), (packed(b"\x00\xff\xfe"), b"\x00\xff\xfe"), ("", b"")],
)
@pytest.mark.parametrize("policy", [None, "", "BestEffort"])
def test_publish(package: Path, payload: Any, expected: bytes, policy: str | None) -> None:
    more = {} if policy is None else {"queueFullPolicy": policy}
    with ready(package, SOURCE) as worker:
        ask(worker, "IotData", "publish", topic="a/b", payload=payload, **more)
        posting = worker.posting()
        assert (posting.call, posting.kind, posting.arn, posting.payload) == (0, EVENT, ROUTER, expected)
        assert posting.custom == {"source": ARN, "subject": "a/b", "queueFullPolicy": policy or ""}
        assert outcome(worker).startswith("event-")


def test_publish_all_or_error(package: Path) -> None:
    with ready(package, SOURCE) as worker:
        for status in (OK, REFUSED):
            ask(worker, "IotData", "publish", topic="a", payload="x", queueFullPolicy="AllOrError")
            posting = worker.posting()
            assert posting.call
            assert (posting.kind, posting.custom["queueFullPolicy"]) == (EVENT, "AllOrError")
            assert worker.silent(0.1)  # the event loop is empty, but the call is open
            worker.answer(posting.call, status, b"the queue is full" if status else b"")
            told = outcome(worker)
            if status == OK:
                assert told.startswith("event-")
            else:
                assert told == {"name": "IPCException", "message": "the queue is full"}


@pytest.mark.parametrize("operation", ["get", "update", "delete"])
@pytest.mark.parametrize(
    "document", [b'{"state":{"desired":{"x":1}},"version":3}', b'{"code":404,"message":"no shadow"}']
)
def test_shadows(package: Path, operation: str, document: bytes) -> None:
    with ready(package, SOURCE) as worker:
        more = {"payload": '{"state":{}}'} if operation == "update" else {}
        ask(worker, "IotData", f"{operation}ThingShadow", thingName="lamp", **more)
        posting = worker.posting()
        assert (posting.kind, posting.arn) == (REQUEST_RESPONSE, SHADOWS)
        assert posting.custom == {"subject": f"$aws/things/lamp/shadow/{operation}"}
        assert posting.payload == more.get("payload", "").encode()
        worker.answer(posting.call, OK, document)
        assert outcome(worker) == {"FunctionError": "", "StatusCode": 200, "Payload": packed(document)}


@pytest.mark.parametrize(
    ("status", "error"), [(OK, ""), (HANDLED, "Handled"), (UNHANDLED, "Unhandled")], ids=["ok", "handled", "unhandled"]
)
@pytest.mark.parametrize(
    "target", [{"FunctionName": f"{OTHER}:3"}, {"FunctionName": OTHER, "Qualifier": "3"}], ids=["version", "qualifier"]
)
def test_invoke(package: Path, target: dict[str, str], status: int, error: str) -> None:
    context = {"custom": {"a": "ü"}, "client": {}, "env": {}}
    with ready(package, SOURCE) as worker:
        encoded = base64.b64encode(json.dumps(context).encode()).decode()
        ask(worker, "Lambda", "invoke", **target, ClientContext=encoded, Payload=packed(b"\x00\xff"))
        posting = worker.posting()
        assert (posting.kind, posting.arn, posting.payload) == (REQUEST_RESPONSE, f"{OTHER}:3", b"\x00\xff")
        assert json.loads(posting.context) == context
        worker.answer(posting.call, status, b"\xff\x00 result")
        expected = {"FunctionError": error, "StatusCode": 200, "Payload": packed(b"\xff\x00 result")}
        assert outcome(worker) == expected


def test_invoke_without_payload_and_with_none_in_return(package: Path) -> None:
    with ready(package, SOURCE) as worker:
        ask(worker, "Lambda", "invoke", FunctionName=f"{OTHER}:$LATEST")
        posting = worker.posting()
        assert (posting.arn, posting.context, posting.payload) == (f"{OTHER}:$LATEST", b"", b"")
        worker.answer(posting.call)
        assert outcome(worker)["Payload"] == packed(b"")


def test_invoke_event(package: Path) -> None:
    with ready(package, SOURCE) as worker:
        for status in (OK, REFUSED):
            ask(worker, "Lambda", "invoke", FunctionName=f"{OTHER}:3", InvocationType="Event", Payload="{}")
            posting = worker.posting()
            assert posting.call
            assert posting.kind == EVENT
            worker.answer(posting.call, status, b"no such function" if status else b"")
            told = outcome(worker)
            assert told["message"] == "no such function" if status else told.startswith("event-")


def test_a_refused_invoke_is_an_error(package: Path) -> None:
    with ready(package, SOURCE) as worker:
        ask(worker, "Lambda", "invoke", FunctionName=f"{OTHER}:3")
        worker.answer(worker.posting().call, REFUSED, b"not in this group")
        assert outcome(worker) == {"name": "IPCException", "message": "not in this group"}
        worker.stop()
        worker.finish()
        assert worker.logged("ERROR") == ["Failed to get work result due to IPCException: not in this group"]


def test_secrets(package: Path) -> None:
    secret = {"ARN": "a", "Name": "n", "VersionId": "v", "SecretString": "s", "VersionStages": [], "CreatedDate": 1}
    with ready(package, SOURCE) as worker:
        ask(worker, "SecretsManager", "getSecretValue", SecretId="n", VersionStage="AWSCURRENT")
        posting = worker.posting()
        assert (posting.kind, posting.arn, posting.context) == (REQUEST_RESPONSE, SECRETS, b"")
        assert json.loads(posting.payload) == {"SecretId": "n", "VersionStage": "AWSCURRENT"}
        worker.answer(posting.call, OK, json.dumps(secret).encode())
        assert json.loads(base64.b64decode(outcome(worker)["bytes"])) == secret

        ask(worker, "SecretsManager", "getSecretValue", SecretId="n", DeStringifyResultFlag=True)
        worker.answer(worker.posting().call, OK, json.dumps(secret).encode())
        assert outcome(worker) == secret

        failure = b'{"Status":404,"Message":"not here"}'
        ask(worker, "SecretsManager", "getSecretValue", SecretId="absent")
        worker.answer(worker.posting().call, OK, failure)
        assert json.loads(outcome(worker)["message"])["data"] == list(failure)


def test_an_ecmascript_function_imports_it(package: Path) -> None:
    source = f"""import sdk from 'aws-greengrass-core-sdk';
    const params = {{FunctionName: '{OTHER}:1'}};
    const early = await new Promise((done) => new sdk.Lambda().invoke(params, (error, data) => done(data)));
    export const handler = async () => early.Payload.toString();"""
    with start(package, {"index.mjs": source}) as worker:
        worker.answer(worker.posting().call, OK, b"while loading")
        assert worker.initialised() == ""
        worker.work(1)
        assert worker.result(1) == b'"while loading"'


def test_it_may_lie_beside_the_code(tmp_path: Path, node_modules: Path) -> None:
    shutil.copytree(node_modules / "aws-greengrass-core-sdk", tmp_path / "aws-greengrass-core-sdk")
    with ready(tmp_path, SOURCE) as worker:
        ask(worker, "IotData", "publish", topic="a/b", payload="x")
        assert worker.posting().custom["subject"] == "a/b"


def test_a_bundled_copy_of_our_modules_does_not_win(package: Path) -> None:
    for name in ("aws-greengrass-common-js", "aws-greengrass-ipc-sdk-js"):
        stale = package / "node_modules" / name / "index.js"
        stale.parent.mkdir()
        stale.write_text("throw new Error('stale')")
    with ready(package, SOURCE) as worker:
        ask(worker, "IotData", "publish", topic="a/b", payload="x")
        assert worker.posting().custom["subject"] == "a/b"


@pytest.mark.parametrize(
    ("offered", "fits"), [("1.5", True), ("1.6", True), ("1.4", False), ("2.5", False), ("x", False)]
)
def test_an_sdk_newer_than_the_core_is_refused(package: Path, offered: str, fits: bool) -> None:
    with start(package, SOURCE, GGC_MAX_INTERFACE_VERSION=offered) as worker:
        problem = worker.initialised()
        if fits:
            assert problem == ""
        else:
            assert 'Failed to import handler function "index.handler"' in problem
            expected = "speaks interface version 1.5, this core speaks" if offered != "x" else "<major>.<minor>"
            assert expected in problem
            assert worker.exit_status() == 1


def test_an_sdk_without_a_version_is_the_first(tmp_path: Path) -> None:
    files = {
        "index.js": "require('aws-greengrass-core-sdk'); exports.handler = async () => 1",
        "node_modules/aws-greengrass-core-sdk/index.js": "",
    }
    with ready(tmp_path, files, GGC_MAX_INTERFACE_VERSION="1.0") as worker:
        assert worker.stop() == 0
