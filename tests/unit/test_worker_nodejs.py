"""Node.js functions: how they are loaded, called and answered, what they log, and how they end."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from nodejs_support import RUNTIME, ready, start
from worker_support import ARN

# --- loading ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("files", "handler"),
    [
        ({"index.js": "exports.handler = async () => 'it'"}, "index.handler"),
        ({"index.js": "module.exports = class { static go() { return Promise.resolve('it') } }"}, "index.go"),
        ({"dir/deep/file.js": "exports.fn = async () => 'it'"}, "dir/deep/file.fn"),
        ({"my.file.js": "exports.fn = async () => 'it'"}, "my.file.fn"),
        ({"index.js": "exports.a = {b: {c: async () => 'it'}}"}, "index.a.b.c"),
        ({"folder/index.js": "exports.fn = async () => 'it'"}, "folder.fn"),
        ({"index.mjs": "export const handler = async () => 'it'"}, "index.handler"),
        ({"index.mjs": "const it = await Promise.resolve('it'); export const fn = async () => it"}, "index.fn"),
        (
            {
                "package.json": '{"type": "module"}',
                "index.js": "import {it} from './other.js'; export async function handler() { return it }",
                "other.js": "export const it = 'it'",
            },
            "index.handler",
        ),
        ({"package.json": '{"type": "module"}', "index.cjs": "exports.fn = async () => 'it'"}, "index.fn"),
    ],
)
def test_where_a_handler_may_be(tmp_path: Path, files: Mapping[str, str], handler: str) -> None:
    with ready(tmp_path, files, handler) as worker:
        worker.work(1)
        assert worker.result(1) == b'"it"'
        assert worker.stop() == 0


@pytest.mark.parametrize(
    ("source", "handler", "text"),
    [
        ("throw new Error('no\\nluck')", "index.handler", "no\nluck"),
        ("throw 'a text'", "index.handler", "a text"),
        ("throw null", "index.handler", "null"),
        ("require('absent-module')", "index.handler", "Cannot find module 'absent-module'"),
        ("exports.handler = (", "index.handler", "Unexpected end of input"),
        ("exports.handler = 5", "index.handler", 'exports a value of type number, expected a function "handler"'),
        ("", "index.handler", 'index.js exports no such name, expected a function "handler"'),
        ("", "index.a.b", 'expected a function "a.b"'),
        ("", "absent.handler", "there is no file absent.js in the function's package"),
        ("", "index", "must be named <file>.<exported function>"),
        ("", "", "must be named <file>.<exported function>"),
        ("setTimeout(() => { throw new Error('later') }, 1); while (Date.now() < 0);", "index.handler", "no such name"),
    ],
)
def test_a_function_that_cannot_be_loaded(tmp_path: Path, source: str, handler: str, text: str) -> None:
    with start(tmp_path, source, handler) as worker:
        problem = worker.initialised()
        assert problem.startswith(f'Failed to import handler function "{handler}" due to exception: ')
        assert text in problem
        assert worker.exit_status() == 1
        assert worker.finish()[0] == ("FATAL", problem)
        assert any(level == "ERROR" for level, _ in worker.records())


@pytest.mark.parametrize(
    ("source", "text"),
    [
        ("await new Promise(() => {}); export const handler = 1", "waits for something that never comes"),
        ("setImmediate(() => { throw new Error('early') }); await new Promise(r => setTimeout(r, 9999))", "early"),
        ("Promise.reject(new Error('loose')); await new Promise(r => setTimeout(r, 9999))", "loose"),
    ],
)
def test_a_module_that_never_finishes_loading(tmp_path: Path, source: str, text: str) -> None:
    with start(tmp_path, {"index.mjs": source}) as worker:
        assert text in worker.initialised()
        assert worker.exit_status() == 1


def test_an_interpreter_that_is_too_old_is_refused(tmp_path: Path) -> None:
    old = tmp_path / "old.js"
    old.write_text("Object.defineProperty(process, 'versions', {value: {node: '8.10.0'}})")
    with start(tmp_path, "exports.handler = 1", flags=["-r", str(old)]) as worker:
        assert "need node 12 or later, the installed one is 8.10.0" in worker.initialised()
        assert worker.exit_status() == 1
        assert worker.finish()[0][0] == "FATAL"


def test_the_first_file_can_be_parsed_by_old_interpreters() -> None:
    source = (RUNTIME / "main.js").read_text()
    for newer in ("=>", "`", "async", "...", "??", "?."):
        assert newer not in "\n".join(line for line in source.splitlines() if not line.lstrip().startswith("//"))


def test_modules_are_found_where_v1_had_them(tmp_path: Path) -> None:
    files = {
        "index.js": "const b = require('beside'); exports.handler = async () => [b, require('packed'), __dirname]",
        "beside.js": "module.exports = require('./lib/deep')",
        "lib/deep.js": "module.exports = require('top')",
        "top.js": "module.exports = 'top'",
        "node_modules/packed/index.js": "module.exports = 'packed'",
    }
    with ready(tmp_path, files) as worker:
        worker.work(1)
        assert json.loads(worker.result(1)) == ["top", "packed", str(tmp_path)]
    with ready(tmp_path, files, NODE_PATH=f"{RUNTIME}/node_modules:{tmp_path}/node_modules:{tmp_path}") as worker:
        worker.work(1)
        assert json.loads(worker.result(1)) == ["top", "packed", str(tmp_path)]


def test_what_the_code_sees_of_its_surroundings(tmp_path: Path) -> None:
    source = """
    const {execFileSync} = require('child_process');
    exports.handler = async function () {
      const inherited = execFileSync('/bin/sh', ['-c', 'test -e /proc/self/fd/3 && echo yes || echo no']).toString();
      return {env: Object.keys(process.env), self: this === module.exports, cwd: process.cwd(), inherited};
    }"""
    with ready(tmp_path, source, COLOUR="green") as worker:
        worker.work(1)
        seen = json.loads(worker.result(1))
        assert {"COLOUR", "MY_FUNCTION_ARN", "AWS_CONTAINER_AUTHORIZATION_TOKEN", "NODE_PATH"} <= set(seen["env"])
        assert not [name for name in seen["env"] if name.startswith("GGFAST_")]
        assert seen["self"]
        assert seen["cwd"] == str(tmp_path)
        assert seen["inherited"] == "no\n"


# --- what goes in and comes out ----------------------------------------------------------------------------

ENDINGS = {
    "callback": "exports.handler = (event, context, callback) => callback(null, event)",
    "later callback": "exports.handler = (event, context, callback) => { setTimeout(callback, 5, null, event) }",
    "promise": "exports.handler = (event) => new Promise((done) => setImmediate(done, event))",
    "foreign promise": "exports.handler = (event) => ({then(done) { done(event) }})",
    "async": "exports.handler = async (event) => { await null; return event }",
    "done": "exports.handler = (event, context) => context.done(null, event)",
    "later done": "exports.handler = (event, context) => { setTimeout(context.done, 5, null, event) }",
    "succeed": "exports.handler = (event, context) => context.succeed(event)",
}


@pytest.mark.parametrize("source", ENDINGS.values(), ids=ENDINGS.keys())
def test_ways_to_answer(tmp_path: Path, source: str) -> None:
    with ready(tmp_path, source) as worker:
        for number, (sent, expected) in enumerate(
            [(b'{"a": [1, null, "gr\xc3\xbcn"]}', {"a": [1, None, "grün"]}), (b"", {}), (b"7", 7), (b"null", None)]
        ):
            worker.work(number, sent)
            assert json.loads(worker.result(number)) == expected
        assert worker.stop() == 0


FAILINGS = {
    "sync throw": "exports.handler = () => { throw E }",
    "callback": "exports.handler = (e, c, callback) => callback(E)",
    "rejection": "exports.handler = async () => { await null; throw E }",
    "done": "exports.handler = (e, context) => { setImmediate(() => context.done(E)) }",
    "fail": "exports.handler = (e, context) => context.fail(E)",
}


@pytest.mark.parametrize("source", FAILINGS.values(), ids=FAILINGS.keys())
def test_ways_to_fail(tmp_path: Path, source: str) -> None:
    with ready(
        tmp_path, f"const E = Object.assign(new TypeError('no\\nluck'), {{code: 'E_LUCK'}});\n{source}"
    ) as worker:
        for number in (1, 2):
            worker.work(number, b"{}")
            document = worker.error(number)
            assert list(document) == ["errorMessage", "errorType", "stackTrace"]
            assert document["errorMessage"] == "no\nluck"
            assert document["errorType"] == "E_LUCK"
            assert document["stackTrace"][0].startswith("at ")
            assert f"{tmp_path}/index.js:1:" in document["stackTrace"][0]
            assert not any(str(RUNTIME) in line for line in document["stackTrace"])
        assert worker.stop() == 0
        worker.finish()
        text = worker.logged("ERROR")[0]
        assert text.startswith('Failed to run handler function "index.handler" due to exception: TypeError')


@pytest.mark.parametrize(
    ("source", "payload", "expected"),
    [
        ("async () => { throw 'a text' }", b"", {"errorMessage": "a text"}),
        ("async () => { throw {a: 1} }", b"", {"errorMessage": "[object Object]"}),
        ("async () => { throw undefined }", b"", {"errorMessage": "undefined"}),
        ("() => { throw null }", b"", {"errorMessage": "null"}),
        ("(e, c, callback) => callback('a text')", b"", {"errorMessage": "a text"}),
        ("(e, context) => context.fail()", b"", {"errorMessage": "handled"}),
        ("async () => { throw Object.create(null) }", b"", "can not be shown"),
        ("async () => { class E extends RangeError {}; throw new E('x') }", b"", {"errorType": "RangeError"}),
        ("async (e) => e", b"{not json", {"errorType": "SyntaxError"}),
        ("async (e) => e", b'"\xff"', {"errorMessage": "the event is not UTF-8", "errorType": "SyntaxError"}),
        ("async () => { const a = {}; a.a = a; return a }", b"", "circular structure"),
        ("async () => 1n", b"", "BigInt"),
        ("async () => () => 1", b"", "of type function, which JSON cannot express"),
        ("async () => 'x'.repeat(1 << 20)", b"", "the limit is 1048576"),
        ("async function f() { return f() }", b"", {"errorType": "RangeError"}),
    ],
)
def test_what_a_handler_does_wrong_is_handled(tmp_path: Path, source: str, payload: bytes, expected: Any) -> None:
    with ready(tmp_path, f"exports.handler = {source}") as worker:
        for number in (1, 2):  # the worker lives on
            worker.work(number, payload)
            document = worker.error(number)
            if isinstance(expected, str):
                assert expected in document["errorMessage"]
            else:
                assert {key: document[key] for key in expected} == expected


def test_bad_client_context_is_handled(tmp_path: Path) -> None:
    with ready(tmp_path, "exports.handler = async (e, c) => c.clientContext") as worker:
        worker.work(1, b"", b"{bad")
        assert worker.error(1)["errorType"] == "SyntaxError"
        worker.work(2, b"", b"[]")
        assert json.loads(worker.result(2)) == {"Custom": {}, "custom": {}}


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ("async (event) => { if (!Buffer.isBuffer(event)) throw 1; return event }", b"\x00\xff\xc3("),
        ("async (event) => new Uint16Array([0x4142]).subarray(0)", b"BA"),
        ("async (event) => new Uint8Array([1]).buffer", b"\x01"),
        ("(event, context, callback) => callback(null, 'gr\\u00fcn')", "grün".encode()),
        ("async () => undefined", b""),
        ("async () => null", b""),
    ],
)
def test_binary(tmp_path: Path, source: str, expected: bytes) -> None:
    with ready(tmp_path, f"exports.handler = {source}", ENCODING_TYPE="binary") as worker:
        worker.work(1, b"\x00\xff\xc3(")
        assert worker.result(1) == expected


@pytest.mark.parametrize("value", ["5", "({a: 1})", "true", "Symbol()"])
def test_a_binary_result_of_the_wrong_type_is_handled(tmp_path: Path, value: str) -> None:
    with ready(tmp_path, f"exports.handler = async () => {value}", ENCODING_TYPE="binary") as worker:
        worker.work(1)
        assert "expected a Buffer or text" in worker.error(1)["errorMessage"]


def test_context(tmp_path: Path) -> None:
    source = """exports.handler = (event, context, callback) => {
      const left = context.getRemainingTimeInMillis();
      context.callbackWaitsForEmptyEventLoop = false;
      setTimeout(() => {
        const passed = left - context.getRemainingTimeInMillis();
        callback(null, {context, left, passed, identity: 'identity' in context, ended: typeof context.done});
      }, 30);
    }"""
    with ready(tmp_path, source) as worker:
        client = {"custom": {"subject": "a/b", "n": 1}, "client": {"app": "x"}, "env": {"b": "c"}}
        worker.work(1, b"{}", json.dumps(client).encode())
        seen = json.loads(worker.result(1))
        context = seen["context"]
        first = context.pop("awsRequestId")
        assert len(first) == 36
        assert context == {
            "callbackWaitsForEmptyEventLoop": False,
            "functionName": "f",
            "functionVersion": "7",
            "invokedFunctionArn": ARN,
            "memoryLimitInMB": "64",
            "logGroupName": "/aws/greengrass/Lambda/eu-west-1/123456789012/f",
            "logStreamName": "123456789012/g/core",
            "clientContext": {**client, "Custom": client["custom"]},
        }
        assert 9000 < seen["left"] <= 10_000
        assert 25 <= seen["passed"] < 9000
        assert seen["identity"]
        assert seen["ended"] == "function"
        worker.work(2)
        other = json.loads(worker.result(2))["context"]
        assert other["awsRequestId"] != first
        assert other["clientContext"] == {"Custom": {}, "custom": {}}


# --- the end of an invocation ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "source",
    [
        "exports.handler = (event, context, callback) => {}",
        "exports.handler = (event) => 'not a promise'",
        "exports.handler = (event, context, callback) => { setTimeout(() => console.log('later'), 30) }",
        "exports.handler = (event, context) => { setTimeout(() => console.log('later'), 30) }",
        "exports.handler = async () => { console.log('now'); await new Promise(() => {}) }",
        "const fs = require('fs'); exports.handler = () => fs.readFile(__filename, () => console.log('read'))",
    ],
)
def test_without_an_answer_the_empty_loop_ends_it(tmp_path: Path, source: str) -> None:
    with ready(tmp_path, source) as worker:
        for number in range(5):
            worker.work(number)
            assert worker.result(number) == b"null"
        assert worker.stop() == 0
        worker.finish()
        assert len(worker.logged("INFO")) == (5 if "console" in source else 0)


@pytest.mark.parametrize(
    "leftover", ["setInterval(() => {}, 3)", "require('net').createServer().listen(0, '127.0.0.1')"]
)
def test_what_runs_since_loading_does_not_keep_a_silent_handler_from_ending(tmp_path: Path, leftover: str) -> None:
    source = f"{leftover}; exports.handler = function (event, context) {{ console.log(event) }}"
    with ready(tmp_path, source) as worker:
        for number in range(5):
            worker.work(number)
            assert worker.result(number) == b"null"
        assert worker.stop() == 0


def test_what_an_earlier_invocation_left_behind(tmp_path: Path) -> None:
    source = """exports.handler = (event, context, callback) => {
      if (event.leave) {
        setTimeout(() => { callback(null, 'late'); callback(new Error('late')) }, 60);
        setTimeout(() => { console.log('left') }, 60);
        callback(null, 'early');
      } else setTimeout(callback, 150, null, 'mine');
    }"""
    with ready(tmp_path, source) as worker:
        worker.work(1, b'{"leave": true}')
        assert worker.result(1) == b'"early"'
        worker.work(2)
        assert worker.result(2) == b'"mine"'
        assert worker.stop() == 0
        assert worker.finish() == [("INFO", "left")]


@pytest.mark.parametrize(
    "handler",
    [
        "(event, context, callback) => { queue.push(callback) }",
        "(event, context) => { queue.push(context.succeed) }",
        "function () { queue.push(arguments[2]) }",
        "(...all) => { queue.push(all[2]) }",
        "(event, context, callback = null) => { queue.push(callback) }",
        "({a}, context, {b} = {}, c) => { queue.push(context.succeed) }",
        "((event, context, callback) => { queue.push(callback) }).bind(null)",
    ],
)
def test_an_answer_may_come_from_a_timer_made_earlier(tmp_path: Path, handler: str) -> None:
    source = f"""const queue = [];
    setInterval(() => {{ const last = queue.pop(); if (last) last.length === 1 ? last('it') : last(null, 'it') }}, 40);
    exports.handler = {handler}"""
    with ready(tmp_path, source) as worker:
        for number in (1, 2):
            worker.work(number, b'{"a": 1}')
            assert worker.result(number) == b'"it"'


@pytest.mark.parametrize(
    "handler", ["event => { work() }", "(event, context) => { work() }", "function (event) { work() }"]
)
def test_a_silent_handlers_own_timers_count_when_nothing_else_runs(tmp_path: Path, handler: str) -> None:
    source = f"const work = () => setTimeout(() => console.log('worked'), 40); exports.handler = {handler}"
    with ready(tmp_path, source) as worker:
        for number in range(6):
            worker.work(number)
            assert worker.result(number) == b"null"
        worker.stop()
        assert len(worker.finish()) == 6


def test_the_first_answer_counts(tmp_path: Path) -> None:
    source = """exports.handler = (event, context, callback) => {
      callback(null, 1); callback(null, 2); context.fail('x'); throw new Error('after')
    }"""
    with ready(tmp_path, source) as worker:
        worker.work(1)
        assert worker.result(1) == b"1"
        worker.work(2)
        assert worker.result(2) == b"1"
        assert worker.stop() == 0
        worker.finish()
        assert all("After its end" in text and "Error: after" in text for text in worker.logged("ERROR"))
        assert len(worker.logged("ERROR")) == 2


def test_work_waits_while_a_handler_runs(tmp_path: Path) -> None:
    source = "let n = 0; exports.handler = (e, c, done) => { const m = ++n; setTimeout(() => done(null, [m, n]), 20) }"
    with ready(tmp_path, source) as worker:
        for number in range(4):
            worker.work(number)
        assert [json.loads(worker.result(number)) for number in range(4)] == [[1, 1], [2, 2], [3, 3], [4, 4]]
