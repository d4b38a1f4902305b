"""The modules that published SDKs expect of a Node.js runtime, called directly (sdk-contract 5)."""

from __future__ import annotations

import base64
import json
from pathlib import Path
from typing import Any

import pytest
from nodejs_support import ready
from worker_support import EVENT, HANDLED, OK, REFUSED, REQUEST_RESPONSE, ROUTER, SECRETS, SHADOWS, Posting, Worker

OTHER = "arn:aws:lambda:eu-west-1:123456789012:function:other:1"
IPC = "const IPC = require('aws-greengrass-ipc-sdk-js'); const ipc = new IPC('token');\n"
PUBLIC = base64.b64encode(b'{"custom":{"subject":"a"}}').decode()


def value(folder: Path, expression: str, **variables: str) -> Any:
    """What a function's code sees."""
    source = f"const common = require('aws-greengrass-common-js'); exports.handler = async () => ({expression})"
    with ready(folder, source, **variables) as worker:
        worker.work(1)
        return json.loads(worker.result(1))


def test_environment_variables(tmp_path: Path) -> None:
    seen = value(tmp_path, "common.envVars")
    assert seen["AUTH_TOKEN"] == "token"
    assert (seen["ROUTER_FUNCTION_ARN"], seen["SHADOW_FUNCTION_ARN"]) == (ROUTER, SHADOWS)
    assert seen["SECRETS_MANAGER_FUNCTION_ARN"] == SECRETS
    assert (seen["ENCODING_TYPE"], seen["GGC_MAX_INTERFACE_VERSION"]) == ("json", "1.5")


@pytest.mark.parametrize(
    ("arn", "fields"),
    [
        ("arn:aws:lambda:eu-west-1:123456789012:function:f:7", ["eu-west-1", "123456789012", "f", "7"]),
        ("arn:aws-cn:lambda:cn-north-1:123456789012:function:f_-:a_b", ["cn-north-1", "123456789012", "f_-", "a_b"]),
        ("arn:aws:lambda:eu-west-1:123456789012:function:f:$LATEST", ["eu-west-1", "123456789012", "f", "$LATEST"]),
        (ROUTER, ["", "", "GGRouter", None]),
        (SECRETS, ["", "", "GGSecretManager", "1"]),
    ],
)
def test_arns_are_taken_apart_and_put_together(tmp_path: Path, arn: str, fields: list[str | None]) -> None:
    seen = value(
        tmp_path,
        f"""(() => {{ const f = new common.FunctionArnFields('{arn}'); return {{
        fields: [f.region, f.accountId, f.name, f.qualifier],
        absent: f.qualifier === undefined,
        now: common.buildFunctionArn(f.unqualifiedArn, f.qualifier),
        then: common.buildArnString(f.region, f.accountId, f.name, f.qualifier)}} }})()""",
    )
    assert seen == {"fields": fields, "absent": fields[3] is None, "now": arn, "then": arn}


@pytest.mark.parametrize(
    "bad", ["'f'", "''", "undefined", "5", f"'{OTHER}:more'", "'arn:aws:iot:::thing/x'", f"'{OTHER}\\n'"]
)
def test_what_is_not_an_arn_throws(tmp_path: Path, bad: str) -> None:
    expression = (
        f"(() => {{ try {{ return new common.FunctionArnFields({bad}) }} catch (e) {{ return e.message }} }})()"
    )
    assert "is not the ARN of a Lambda function" in value(tmp_path, expression)


def test_small_things_of_runtime_mains(tmp_path: Path) -> None:
    assert value(tmp_path, "common.encodingType") == {"encodingTypeJSON": "json", "encodingTypeBinary": "binary"}
    assert value(tmp_path, "common.versionParser.parseVersion('1.15')") == [1, 15]
    retry = """(await new Promise((done) => { let n = 0; new common.BackoffRetry({attempts: %d, firstDelay: 1}).run(
        (cb) => { n += 1; cb(n < 3 ? new Error('no') : null, n) }, (error, got) => done([!!error, got])) }))"""
    assert value(tmp_path, retry % 5) == [False, 3]
    assert value(tmp_path, retry % 2) == [True, 2]


def told(folder: Path, call: str) -> Any:
    """What one call of the client calls back with, when the core is not even asked."""
    source = f"""{IPC} exports.handler = (event, context, done) => {{
      let sync = true;
      ipc.{call}, (error, ...rest) => done(null, [error && `${{error.name}}: ${{error.message}}`, rest, sync]));
      sync = false;
    }}"""
    with ready(folder, source) as worker:
        worker.work(1)
        error, rest, sync = json.loads(worker.result(1))
        assert not sync
        return error or rest


@pytest.mark.parametrize(
    ("call", "text"),
    [
        (f"postWork('{OTHER}', '', '', 'Sometimes'", 'invocation type is "Sometimes", expected "Event"'),
        (f"postWork('{OTHER}', '', 'no base64!', 'Event'", "the client context is not base64"),
        (f"postWork('{OTHER}', {{}}, '', 'Event'", "the payload is of type object"),
        (f"postWork('{OTHER}', 5, '', 'Event'", "the payload is of type number"),
        (f"postWork('{OTHER}', Buffer.alloc(1 << 20), '', 'Event'", "the limit is 1048576"),
        (f"postWork('{OTHER}', '', Buffer.alloc(66000).toString('base64'), 'Event'", "the limit of each is 65535"),
        ("postWork('x'.repeat(66000), '', '', 'Event'", "the limit of each is 65535"),
        (f"getWorkResult('{OTHER}', 'absent'", 'invocation id "absent"'),
        (f"postWorkResult('{OTHER}', '', '7'", "was not taken with getWork"),
        (f"postHandlerErr('{OTHER}', '{{}}', '7'", "was not taken with getWork"),
    ],
)
def test_wrong_calls_are_errors(tmp_path: Path, call: str, text: str) -> None:
    assert text in told(tmp_path, call)
    assert told(tmp_path, call).startswith("IPCException: ")


@pytest.mark.parametrize(
    ("payload", "expected"),
    [
        ("undefined", b""),
        ("null", b""),
        ("'gr\\u00fcn'", "grün".encode()),
        ("Buffer.from([0, 255])", b"\0\xff"),
        ("new Uint16Array([0x4142]).subarray(0, 1)", b"BA"),
        ("new Uint8Array([7]).buffer", b"\x07"),
    ],
)
def test_payloads_arrive_as_they_are(tmp_path: Path, payload: str, expected: bytes) -> None:
    with ready(
        tmp_path, f"{IPC} exports.handler = (e, c, d) => ipc.postWork('{OTHER}', {payload}, '', 'Event', d)"
    ) as w:
        w.work(1)
        posting = w.posting()
        assert posting.payload == expected
        w.answer(posting.call)
        assert w.result(1).startswith(b'"event-')


@pytest.mark.parametrize("kind", ["Event", "RequestResponse"])
def test_what_has_no_result_gives_an_empty_one_at_once(tmp_path: Path, kind: str) -> None:
    source = f"""{IPC} exports.handler = (event, context, done) =>
      ipc.postWork('{ROUTER}', 'x', '{PUBLIC}', '{kind}', (error, id) =>
        ipc.getWorkResult('{ROUTER}', id, (...all) => done(null, [all[0], all[1].length, all[2], all[3]])));"""
    with ready(tmp_path, source) as worker:
        worker.work(1)
        posting = worker.posting()
        assert (posting.call, posting.kind) == (0, EVENT)
        assert json.loads(worker.result(1)) == [None, 0, "", 200]


def test_an_open_call_is_not_an_empty_loop(tmp_path: Path) -> None:
    source = f"""{IPC} exports.handler = (event, context, done) => {{
      ipc.postWork('{OTHER}', '', '', 'RequestResponse', (error, id) =>
        ipc.getWorkResult('{OTHER}', id, (error, body) => console.log('body', body.toString())))
    }}"""
    with ready(tmp_path, source) as worker:
        worker.work(1)
        call = worker.posting().call
        assert worker.silent(0.3)
        worker.answer(call, OK, b"here")
        assert worker.result(1) == b"null"
        assert worker.stop() == 0
        assert worker.finish() == [("INFO", "body here")]


def test_a_silent_handlers_open_calls_count_beside_a_timer(tmp_path: Path) -> None:
    source = f"""{IPC} setInterval(() => {{}}, 3); let n = 0;
    const again = (then) => ipc.postWork('{OTHER}', '', '', 'RequestResponse', (error, id) =>
      ipc.getWorkResult('{OTHER}', id, then));
    exports.handler = (event) => {{ again(() => again(() => console.log('both'))) }}"""
    with ready(tmp_path, source) as worker:
        worker.work(1)
        for _ in range(2):
            call = worker.posting().call
            assert worker.silent(0.1)
            worker.answer(call)
        assert worker.result(1) == b"null"
        worker.stop()
        assert worker.finish() == [("INFO", "both")]


def test_answers_in_any_order_reach_their_callers(tmp_path: Path) -> None:
    source = f"""{IPC} const one = (n) => new Promise((done, fail) =>
      ipc.postWork('{OTHER}', String(n), '', 'RequestResponse', (error, id) => setTimeout(() =>
        ipc.getWorkResult('{OTHER}', id, (error, body, kind) => error ? fail(error) : done(body + kind)), n % 3)));
    exports.handler = () => Promise.all(Array.from({{length: 50}}, (_, n) => one(n)));"""
    with ready(tmp_path, source) as worker:
        worker.work(1)
        postings = [worker.posting() for _ in range(50)]
        for posting in sorted(postings, key=lambda posting: int(posting.payload) * 7 % 50):
            worker.answer(posting.call, HANDLED, b"r" + posting.payload)
        assert json.loads(worker.result(1)) == [f"r{n}Handled" for n in range(50)]


def test_more_calls_than_the_core_takes_wait_their_turn(tmp_path: Path) -> None:
    source = f"""{IPC} let errors = 0, answers = 0; const total = 1500;
    exports.handler = (event, context, done) => {{
      for (let n = 0; n < total; n++) ipc.postWork('{OTHER}', String(n), '', 'Event', (error) => {{
        if (error) errors += 1; else answers += 1;
        if (errors + answers === total) done(null, [answers, errors, error && error.message]);
      }});
    }}"""
    with ready(tmp_path, source) as worker:
        worker.work(1)
        open_calls: list[Posting] = [worker.posting() for _ in range(64)]
        assert worker.silent(0.2)
        seen = []
        while len(seen) < 64 + 1024:
            posting = open_calls.pop(0)
            seen.append(int(posting.payload))
            worker.answer(posting.call)
            if len(seen) + len(open_calls) < 64 + 1024:
                open_calls.append(worker.posting())
        assert seen == list(range(64 + 1024))
        assert json.loads(worker.result(1))[:2] == [64 + 1024, 1500 - 64 - 1024]


def test_a_core_that_does_not_read_holds_publishers_up(tmp_path: Path) -> None:
    source = f"""{IPC} let taken = 0;
    const next = (done) => ipc.postWork('{ROUTER}', Buffer.alloc(10000), '{PUBLIC}', 'Event', (error) => {{
      if (error) done(error); else if (++taken === 200) done(null, taken); else next(done) }});
    exports.handler = (event, context, done) => next(done);
    process.on('SIGUSR2', () => console.log('taken', taken))"""
    with ready(tmp_path, source) as worker:
        worker.work(1)
        received = 0
        while received < 200:
            assert len(worker.posting().payload) == 10000
            received += 1
        assert worker.result(1) == b"200"


def test_a_publisher_that_never_waits_is_told_at_the_limit(tmp_path: Path) -> None:
    source = f"""{IPC} exports.handler = (event, context, done) => {{
      let sent = 0, refused = 0, last;
      for (let n = 0; n < 200; n++) ipc.postWork('{ROUTER}', Buffer.alloc(100000), '{PUBLIC}', 'Event', (error) => {{
        if (error) {{ refused += 1; last = error.message }} else sent += 1;
        if (sent + refused === 200) done(null, [sent, refused, last]);
      }});
      console.log('all posted');
    }}"""
    with ready(tmp_path, source) as worker:
        worker.work(1)
        assert worker.logged("INFO") == ["all posted"]
        count = 0
        while True:
            kind, body = worker.receive()
            if kind == "R":
                break
            count += 1
        sent, refused, text = json.loads(body[4:])
        assert sent == count
        assert 80 <= sent < 100
        assert sent + refused == 200
        assert "wait for callbacks between messages" in text


def test_an_exception_in_a_callback_disturbs_no_other(tmp_path: Path) -> None:
    source = f"""{IPC} process.on('uncaughtException', (error) => console.log(error.message));
    exports.handler = (event, context, done) => {{
      let left = 3;
      for (const n of [0, 1, 2]) ipc.postWork('{OTHER}', '', '', 'Event', () => {{
        if (!--left) done(null, 'all');
        if (n === 0) throw new Error('mine');
      }});
    }}"""
    with ready(tmp_path, source) as worker:
        worker.work(1)
        worker.socket.sendall(b"".join(_answer(worker.posting().call) for _ in range(3)))
        assert worker.result(1) == b'"all"'
        assert worker.stop() == 0
        assert worker.finish() == [("INFO", "mine")]


def _answer(call: int) -> bytes:
    return b"\x06\0\0\0A" + call.to_bytes(4, "little") + b"\0"


def test_results_nobody_asks_for_are_not_kept_for_ever(tmp_path: Path) -> None:
    source = f"""{IPC} const ids = []; exports.handler = (event, context, done) => {{
      if (event.first !== undefined) ipc.getWorkResult('{OTHER}', ids[event.first], (error, body) =>
        done(null, error ? error.message : body.toString()));
      else ipc.postWork('{OTHER}', '', '', 'RequestResponse', (error, id) => {{ ids.push(id); done() }});
    }}"""
    with ready(tmp_path, source) as worker:
        for number in range(70):
            worker.work(number)
            posting = worker.posting()
            assert worker.result(number) == b"null"
            worker.answer(posting.call, OK, str(number).encode())
        worker.work(100, b'{"first": 0}')
        assert b"is not known" in worker.result(100)
        worker.work(101, b'{"first": 69}')
        assert worker.result(101) == b'"69"'


def own_loop(folder: Path) -> Worker:
    source = f"""{IPC} exports.handler = () => {{ throw new Error('not me') }};
    const arn = process.env.MY_FUNCTION_ARN;
    const loop = () => ipc.getWork(arn, (error, payload, id, context) => {{
      const text = payload.toString();
      const told = Buffer.from(context, 'base64').toString();
      const answered = (error) => {{ if (error) throw error; loop() }};
      if (text === 'fail') ipc.postHandlerErr(arn, JSON.stringify({{errorMessage: 'failed'}}), id, answered);
      else setTimeout(() => ipc.postWorkResult(arn, text + told, id, answered), 30);
    }});
    loop();"""
    return ready(folder, source)


def test_code_with_a_loop_of_its_own(tmp_path: Path) -> None:
    with own_loop(tmp_path) as worker:
        worker.work(1, b"a", b"{}")
        assert worker.result(1) == b"a{}"
        worker.work(2, b"fail")
        assert worker.error(2) == {"errorMessage": "failed"}
        worker.work(3, b"b", b"")
        worker.send("X")  # waits for what the loop has taken
        assert worker.result(3) == b"b"
        assert worker.exit_status() == 0


def test_refusals_in_both_kinds_of_calls(tmp_path: Path) -> None:
    source = f"""{IPC} exports.handler = (event, context, done) =>
      ipc.postWork('{OTHER}', '', '', event.kind, (error, id) => error ? done(error) :
        ipc.getWorkResult('{OTHER}', id, (error) => done(error)));"""
    with ready(tmp_path, source) as worker:
        for number, (kind, expected) in enumerate([("Event", EVENT), ("RequestResponse", REQUEST_RESPONSE)]):
            worker.work(number, json.dumps({"kind": kind}).encode())
            posting = worker.posting()
            assert posting.kind == expected
            worker.answer(posting.call, REFUSED, "größer".encode())
            assert worker.error(number)["errorMessage"] == "größer"
            assert worker.silent(0.02)
