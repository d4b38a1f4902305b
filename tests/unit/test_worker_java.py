"""Java functions in the real runtime and a real JVM: what a handler gets, prints, raises, and what becomes of it."""

from __future__ import annotations

import base64
import json
import select
import shutil
import signal
import struct
import subprocess
import sys
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from java_support import (
    HANDLED,
    HANDLERS,
    MY_ARN,
    OK,
    REFUSED,
    REPOSITORY,
    ROUTER,
    SECRETS,
    SHADOW,
    UNHANDLED,
    Call,
    JavaWorker,
    compile_java,
    failing_worker,
    java_worker,
)

FRAME_BYTES_MAX = 1024 * 1024
CALLS_MAX = 64


@dataclass(frozen=True)
class Build:
    """What is compiled once for all tests."""

    jar: Path
    classes: Path  # a package's folder, without any library
    sdk: Path  # a class that says which interface an SDK speaks
    published: Path  # Surroundings, compiled against the published interfaces
    libraries: Path  # the published jars

    def path(self, folder: Path | None = None) -> list[Path | str]:
        """The class path that a worker of the package in `folder` is started with."""
        folder = folder or self.classes
        return [self.jar, folder, f"{folder}/*", f"{folder}/lib/*"]


@pytest.fixture(scope="module")
def build(tmp_path_factory: pytest.TempPathFactory) -> Build:
    """The runtime's jar, the handlers, and the published packages."""
    top = tmp_path_factory.mktemp("java")
    made = Build(top / "runtime.jar", top / "classes", top / "sdk", top / "published", published_packages())
    run_builder("build_java.py", str(made.jar))
    compile_java(sorted(HANDLERS.glob("*.java")), made.classes, [made.jar])
    (core,) = made.libraries.glob("aws-lambda-java-core-*.jar")
    compile_java([HANDLERS / "Surroundings.java"], made.published, [core, made.jar])
    version = Path("com/amazonaws/greengrass/javasdk/common/InterfaceVersion.class")
    (made.sdk / version).parent.mkdir(parents=True)
    shutil.move(made.classes / version, made.sdk / version)
    return made


def run_builder(name: str, argument: str) -> str:
    """Run one of packaging's scripts; its output."""
    command = [sys.executable, str(REPOSITORY / "packaging" / name), argument]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def published_packages() -> Path:
    """The directory with the jars from the registry."""
    return Path(run_builder("fetch_test_packages.py", "maven"))


def fat_jar(target: Path, *parts: Path) -> None:
    """One jar from folders of classes and other jars, as shading tools make it."""
    with zipfile.ZipFile(target, "w") as fat:
        for part in parts:
            if part.is_dir():
                for path in sorted(part.rglob("*.class")):
                    fat.write(path, path.relative_to(part).as_posix())
                continue
            with zipfile.ZipFile(part) as jar:
                for name in (name for name in jar.namelist() if name.endswith(".class")):
                    fat.writestr(name, jar.read(name))


# --- what a handler gets and gives ------------------------------------------------------------------------


def test_context_and_surroundings(build: Build) -> None:
    context = {
        "custom": {"subject": "a/b", "number": 7, "nothing": None, "list": [1, "x"]},
        "env": {"locale": "de"},
        "client": {"installation_id": "i", "app_title": "t", "appVersionName": "n", "app_version_code": "c"},
    }
    with java_worker(build.path(), "handlers.Surroundings") as worker:
        seen = worker.value(context=json.dumps(context).encode())
        assert 0 < seen.pop("left") <= 10_000
        assert seen == {
            "ids": "36 true",
            "log": "/aws/greengrass/Lambda/eu-west-1/123456789012/f 123456789012/g/core",
            "name": "f",
            "version": "7",
            "arn": MY_ARN,
            "memory": 128,
            "identity": "",
            "custom": {"subject": "a/b", "number": "7", "nothing": None, "list": '[1,"x"]'},
            "environment": {"locale": "de"},
            "client": ["i", "t", "n", "c", None],
            "charset": "UTF-8",
            "standard input": -1,
        }
        bare = worker.value()
        assert (bare["custom"], bare["environment"], bare["client"]) == ({}, {}, None)
        assert worker.error(context=b"{")["errorMessage"].startswith("the client context is not JSON")
        assert worker.stop() == 0


def test_what_is_printed_becomes_records(build: Build) -> None:
    with java_worker(build.path(), "handlers.Surroundings::print") as worker:
        assert worker.invoke() == ("R", b"null")
        assert worker.records() == [
            ("I", "one line, grün"),
            ("I", "two"),
            ("I", "lines"),
            ("I", "in pieces"),
            ("E", "complaint"),
            ("E", "x"),
            ("I", "a record\nof two lines"),
            ("I", "bytes, grün"),
            ("W", "careful"),
            ("I", "without a context"),
            ("E", "from the SDK"),
            ("I", "without an end"),
        ]


@pytest.mark.parametrize(
    ("level", "letters"), [("DEBUG", "IIIIEEIIWDIDEI"), ("WARN", "EEWE"), ("ERROR", "EEE"), ("FATAL", "")]
)
def test_records_below_the_functions_level_are_not_written(build: Build, level: str, letters: str) -> None:
    with java_worker(build.path(), "handlers.Surroundings::print", GGFAST_LOG_LEVEL=level) as worker:
        assert worker.invoke() == ("R", b"null")
        assert "".join(letter for letter, _ in worker.records()) == letters


def test_threads_do_not_mix_their_lines_and_long_lines_are_cut(build: Build) -> None:
    with java_worker(build.path(), "handlers.Surroundings::crowd") as worker:
        assert worker.invoke(b"30") == ("R", b"null")
        assert sorted(worker.records()) == sorted(
            ("I", f"thread {thread} line {line}") for thread in range(30) for line in range(30)
        )
    with java_worker(build.path(), "handlers.Surroundings::printLong") as worker:
        assert worker.invoke(b"100000") == ("R", b"null")
        pieces = [text for _, text in worker.records()]
        assert "".join(pieces) == "ü" * 100_000
        assert max(len(piece.encode()) for piece in pieces) <= 61_440


MAP = '{"text":"gr\\u00fcn \\ud83d\\ude00","list":[1,2.5,null,true,{}],"big":12345678901234567890,"long":3000000000}'


def test_every_shape_of_handler(build: Build) -> None:
    """(method, payload, result), JSON functions then binary ones; `!` before what a caller sees as an error."""
    cases: list[tuple[str, str, str]] = [
        ("nothing", "", '"nothing"'),
        ("atClass", '"x"', '"static x"'),
        ("contextOnly", '{"ignored":1}', '"f"'),
        ("any", "[1]", "[1]"),
        ("any", "", "{}"),
        ("map", '{"a":[1]}', '{"a":[1],"function":"f"}'),
        ("map", "", '{"function":"f"}'),
        ("map", "[1]", "!the payload holds an array where the handler takes java.util.Map"),
        ("longs", '{"a":1,"b":3000000000,"c":"5"}', "3000000006"),
        ("longs", '{"a":"x"}', "!the payload holds a string where the handler takes java.lang.Long"),
        ("integers", "[1,2,3.9]", "6"),
        ("integers", "[3000000000]", "!the payload's number 3000000000 is out of the range of java.lang.Integer"),
        ("texts", '[["a",1],[]]', '[["a","1"],[]]'),
        ("text", '"grün"', '"GRÜN"'),
        ("text", "17", '"17"'),
        ("text", "null", '"none"'),
        ("text", "", '"none"'),
        ("text", "{}", "!the payload holds an object where the handler takes java.lang.String"),
        ("number", "41", "42"),
        ("number", "null", "1"),
        ("number", "", "1"),
        ("number", "1e999999", "!the payload holds a number where the handler takes int"),
        ("small", "-128", "-128"),
        ("small", "128", "!the payload's number 128 is out of the range of byte"),
        ("real", "1", "1.0"),
        ("exact", "0.1000000000000000000000000001", "0.1000000000000000000000000001"),
        ("big", "123456789012345678901234567890", "123456789012345678901234567890"),
        ("big", '"1e400000000"', "!the payload holds a string where the handler takes java.math.BigInteger"),
        ("big", '"1e2147483647"', "!the payload holds a string where the handler takes java.math.BigInteger"),
        ("truth", "true", "false"),
        ("truth", '"no"', "!the payload holds a string where the handler takes boolean"),
        ("bytes", "abc", "cba"),
        ("length", "not json", "8"),
        ("silent", '"x"', "null"),
        ("odd", "", '{"7":["c",1.5,"NaN",null,[1,2],"NEW","\\u0001\\ud800\\"\\\\/\\n"]}'),
        ("endless", "", "!the result is nested deeper than 128 levels"),
        ("inOutContext", "abc", "cbaf"),
        ("pick", "{}", '"with context"'),
        ("strange", "{}", "!public java.lang.String handlers.Signatures.strange"),
        ("unclear", '"a"', "!class handlers.Signatures has 2 methods unclear that could be meant"),
        ("hidden", '"a"', "!class handlers.Signatures has no public method hidden"),
        ("reading", "{}", "!a parameter of type class handlers.Signatures$Reading needs a JSON mapper"),
    ]
    binary: list[tuple[str, str, str]] = [
        ("inOutContext", "\x00\xffab", "ba\xff\x00f"),
        ("inOut", "\x00\xff", "\xff\x00"),
        ("outContext", "x", "f"),
        ("inContext", "x", ""),
        ("in", "x", ""),
        ("out", "x", "\x00\x01\xff"),
        ("bytes", "\x00\xff", "\xff\x00"),
        ("text", '"x"', "!public java.lang.String handlers.Signatures.text"),
        ("length", "x", "!public int handlers.Signatures.length"),
    ]
    inner: list[tuple[str, str, str]] = [
        ("$Typed", "[1,2,4000000000]", '"f4000000003"'),
        ("$OfLong", "5", '{"text":"5","type":"Long"}'),
        ("$OfReading", "{}", "!a parameter of type class handlers.Signatures$Reading needs a JSON mapper"),
        ("$Streams", "abc", "cba"),
        ("$Hidden", '"x"', '"from a hidden class: x"'),
        ("$Base", "{}", "!java.lang.InstantiationException"),
    ]
    with java_worker(build.path(), "io.ggfast.runtime.Probe::run") as worker:
        for name, payload, expected in [(f"::{name}", *rest) for name, *rest in cases] + inner:
            check(worker, name, payload.encode(), expected.encode(), binary=False)
        for name, payload, expected in binary:
            check(worker, f"::{name}", payload.encode("latin-1"), expected.encode("latin-1"), binary=True)


def check(worker: JavaWorker, name: str, payload: bytes, expected: bytes, *, binary: bool) -> None:
    """One handler's result, or the beginning of its error after `!`."""
    kind, result = probe(worker, name, payload, binary=binary)
    if expected.startswith(b"!"):
        assert kind == "E", (name, result)
        assert result.startswith(expected[1:]), (name, result)
    elif expected.startswith(b"{") and not binary:
        assert json.loads(result) == json.loads(expected), name
    else:
        assert (kind, result) == ("R", expected), name


def probe(worker: JavaWorker, name: str, payload: bytes, *, binary: bool = False) -> tuple[str, bytes]:
    """Run the handler `handlers.Signatures<name>` inside the worker: (R, result) or (E, message)."""
    request = {"handler": f"handlers.Signatures{name}", "payload": payload.decode("latin-1"), "binary": binary}
    kind, result = worker.invoke(json.dumps(request).encode())
    answer = json.loads(result)
    return (kind, answer.encode("latin-1")) if kind == "R" else (kind, answer["errorMessage"].encode())


@pytest.fixture(scope="module")
def echo(build: Build) -> Any:
    """A worker that gives back what it was given, through JSON."""
    with java_worker(build.path(), "handlers.Signatures::any") as worker:
        yield worker


@pytest.mark.parametrize(
    "document",
    [
        MAP, "null", "true", "false", "0", "-0", "-1.5e-3", '""', '"\\u0000\\b\\f\\n\\r\\t\\"\\\\\\/"', " [ ] ",
        '{"a":{"a":{}}}', '{"a":1,"a":2}', "[" * 128 + "]" * 128, '"\\ud800"', "9223372036854775807", "1E+2",
        "9223372036854775808",
    ],
)  # fmt: skip
def test_json_survives(echo: JavaWorker, document: str) -> None:
    kind, result = echo.invoke(document.encode())
    assert kind == "R"
    assert json.loads(result) == json.loads(document)


@pytest.mark.parametrize(
    "document",
    [
        b"{", b"[1,]", b"{'a':1}", b'{"a" 1}', b'{"a":1,}', b"{a:1}", b"tru", b"nulll", b"01", b"1.", b".5", b"+1",
        b"1e", b"-", b"NaN", b"Infinity", b'"a', b'"\x01"', b'"\\x"', b'"\\u12g4"', b'"\\u12', b"1 2", b"[1 2]",
        b"\xff", b"[\xc3]",
        b'"\xed\xa0\x80"', b"\xef\xbb\xbf1", b"\x00", b" ", b"[" * 130 + b"]" * 130, b"1" * 1001, b"]", b'{"a"}',
    ],
)  # fmt: skip
def test_what_is_not_json_never_reaches_the_handler(echo: JavaWorker, document: bytes) -> None:
    error = echo.error(document)
    assert error["errorType"] == "io.ggfast.runtime.InvalidPayloadException"
    assert error["errorMessage"].startswith("the payload is not JSON: ")
    assert error["stackTrace"] == []


# --- packages ---------------------------------------------------------------------------------------------


def test_classes_with_libraries_beside_them_and_the_packages_own_json_mapper(build: Build, tmp_path: Path) -> None:
    shutil.copytree(build.classes, tmp_path / "code")
    (tmp_path / "code" / "lib").mkdir()
    for jar in build.libraries.glob("jackson-*.jar"):
        shutil.copy(jar, tmp_path / "code" / "lib")
    payload = b'{"sensor":"gr\xc3\xbcn","value":1.5,"samples":[1,2],"unheard":"of"}'
    path = build.path(tmp_path / "code")
    with java_worker(path, "handlers.Signatures::reading") as worker:
        assert worker.value(payload) == {"sensor": "grün", "value": 3.0, "samples": [1, 2]}
        assert worker.value(b"")["sensor"] is None
        error = worker.error(b'{"value":"x"}')
        assert error["errorType"] == "com.fasterxml.jackson.databind.exc.InvalidFormatException"
        assert worker.error(b"[")["errorType"].startswith("com.fasterxml.jackson.")
    with java_worker(path, "handlers.Signatures::readings") as worker:
        assert worker.value(b"[" + payload + b"]") == [{"sensor": "grün!", "value": 1.5, "samples": [1, 2]}]
    with java_worker(path, "handlers.Signatures$OfReading") as worker:
        assert worker.value(payload) == {"type": "Reading", "text": "grün=1.5[1, 2]"}


def test_an_object_without_a_json_mapper_is_a_clear_error(build: Build) -> None:
    with java_worker(build.path(), "handlers.Signatures::reading") as worker:
        for _ in range(2):
            error = worker.error()
            assert error["errorMessage"] == (
                "a parameter of type class handlers.Signatures$Reading needs a JSON mapper and the package holds none: "
                "add Jackson's jackson-databind with what it needs to lib/, or use Map, List, String, numbers and "
                "booleans"
            )


@pytest.mark.parametrize("bundled", [True, False], ids=["interfaces bundled", "interfaces not bundled"])
def test_one_jar_compiled_against_the_published_interfaces(build: Build, tmp_path: Path, bundled: bool) -> None:
    (core,) = build.libraries.glob("aws-lambda-java-core-*.jar")
    fat_jar(tmp_path / "function-1.0-all.jar", build.published, *([core] if bundled else []))
    with java_worker(build.path(tmp_path), "handlers.Surroundings") as worker:
        assert worker.value(context=b'{"custom":{"subject":"x"}}')["custom"] == {"subject": "x"}
    with java_worker(build.path(tmp_path), "handlers.Surroundings::print") as worker:
        assert worker.invoke() == ("R", b"null")
        assert [record for record in worker.records() if record[0] == "W"] == [("W", "careful")]


@pytest.mark.parametrize(("speaks", "fits"), [("1.5", True), ("1.1", True), ("1.6", False), ("2.0", False)])
def test_an_sdk_newer_than_the_core_is_refused(build: Build, speaks: str, fits: bool) -> None:
    path = [*build.path(), build.sdk]
    if fits:
        with java_worker(path, "handlers.Signatures::any", SDK_INTERFACE_VERSION=speaks) as worker:
            assert worker.value(b"1") == 1
        return
    with failing_worker(path, "handlers.Signatures::any", SDK_INTERFACE_VERSION=speaks) as (_, text):
        assert f"speaks interface version {speaks}, this core speaks 1.5" in text


# --- errors -----------------------------------------------------------------------------------------------


def test_what_a_handler_raises_is_told_to_the_caller(build: Build) -> None:
    with java_worker(build.path(), "handlers.Failing") as worker:
        error = worker.error(b'{"how":"own"}')
        assert error["errorMessage"] == "it broke"
        assert error["errorType"] == "handlers.Failing$Own"
        assert [frame.partition("(")[0] for frame in error["stackTrace"]] == [
            *["handlers.Failing.deep"] * 4,
            "handlers.Failing.handleRequest",
        ]
        assert error["stackTrace"][-1].startswith("handlers.Failing.handleRequest(Failing.java:")
        letter, text = worker.records()[-1]
        assert letter == "E"
        first, second, *trace = text.split("\n")
        assert first.endswith('Failed to run handler function "handlers.Failing" due to exception: it broke')
        assert second == "handlers.Failing$Own: it broke"
        assert any(line.startswith("Caused by: java.lang.RuntimeException: the cause") for line in trace)
        assert worker.error(b'{"how":"silent"}')["errorMessage"] == "java.lang.NullPointerException"
        assert worker.error(b'{"how":"unshowable"}')["errorType"] == "handlers.Failing$Unshowable"
        assert len(worker.error(b'{"how":"long"}')["errorMessage"]) == 8192
        assert worker.value(b'{"how":"thread"}') == "survived"
        assert any("in a thread" in text for letter, text in worker.records() if letter == "E")
        assert worker.value() == "well"
        worker.work(b'{"how":"exit"}')
        assert worker.frame() == ("", b"")
        assert worker.process.wait() == 7


def test_a_worker_survives_its_handlers_exhaustion(build: Build) -> None:
    with java_worker(build.path(), "handlers.Failing", flags=["-Xmx16m", "-Xss256k", "-XX:+UseSerialGC"]) as worker:
        for _ in range(3):
            assert worker.error(b'{"how":"memory"}')["errorType"] == "java.lang.OutOfMemoryError"
            error = worker.error(b'{"how":"stack"}')
            assert error["errorType"] == "java.lang.StackOverflowError"
            assert len(error["stackTrace"]) == 50
            assert worker.value() == "well"


@pytest.mark.parametrize(
    ("handler", "said"),
    [
        ("handlers.Missing::x", "java.lang.ClassNotFoundException: handlers.Missing"),
        ("handlers.Failing::nothing", "class handlers.Failing has no public method nothing"),
        ("handlers.Failing$AtLoad", 'java.lang.NumberFormatException: For input string: "no number"'),
        ("handlers.Failing$AtConstruction", "java.lang.IllegalStateException: will not be made"),
        ("handlers.Failing$NeedsArgument", "has no constructor without parameters"),
        ("::x", "the handler must be named <package>.<Class>::<method>"),
        ("handlers.Signatures::strange", "takes parameters that the core can not give"),
    ],
)
def test_a_handler_that_cannot_be_loaded(build: Build, handler: str, said: str) -> None:
    with failing_worker(build.path(), handler) as (worker, text):
        assert text.startswith(f'Failed to import handler function "{handler}" due to exception: ')
        assert said in text
        letter, record = worker.records()[0]
        assert (letter, record.partition(",")[2]) == ("F", text)


# --- calls to the core ------------------------------------------------------------------------------------


def say(worker: JavaWorker, **request: str) -> Any:
    """Let the SDK stand-in do something; what it saw."""
    return worker.value(json.dumps(request).encode())


def test_the_sdks_calls(build: Build) -> None:
    with java_worker(build.path(), "handlers.Sdk") as worker:
        for what, policy, answered in (
            ("publish", "", False),
            ("publish", "AllOrError", True),
            ("old publish", "", False),
        ):
            assert say(worker, do=what, policy=policy, text="grün") == [200, "", ""]
            call = worker.calls[-1]
            assert (call.arn, call.kind, bool(call.number), call.payload) == (ROUTER, 0, answered, "grün".encode())
            assert call.custom["subject"] == "a/b"
            assert call.custom.get("queueFullPolicy", "") == policy
        worker.answers = lambda _: (REFUSED, b"the queue is full")
        assert say(worker, do="publish", policy="AllOrError", text="x") == ["the queue is full|null"]
        assert say(worker, do="invoke", arn=MY_ARN, type="Event", text="x") == ["the queue is full|null"]
        worker.answers = lambda _: (OK, b'{"state":{}}')
        assert say(worker, do="shadow") == [200, '{"state":{}}', ""]
        assert (worker.calls[-1].arn, worker.calls[-1].kind) == (SHADOW, 1)
        assert worker.calls[-1].custom == {"subject": "$aws/things/t/shadow/get"}
        assert say(worker, do="secret") == [200, '{"state":{}}', ""]
        assert (worker.calls[-1].arn, worker.calls[-1].context) == (SECRETS, b"")
        assert worker.calls[-1].payload == b'{"SecretId":"s"}'
        for status, name in ((OK, ""), (HANDLED, "Handled"), (UNHANDLED, "Unhandled")):
            worker.answers = lambda _, status=status: (status, b"{}")  # type: ignore[misc]
            assert say(worker, do="invoke", arn=MY_ARN, type="RequestResponse", text="") == [200, "{}", name]
        assert worker.calls[-1].custom == {"a": "ü"}
        worker.answers = lambda _: (OK, b"")
        assert say(worker, do="invoke", arn=MY_ARN, type="Event", text="x") == [200, "", ""]
        assert worker.calls[-1].kind == 0
        assert worker.calls[-1].number


def test_calls_that_cannot_be_made(build: Build) -> None:
    with java_worker(build.path(), "handlers.Sdk") as worker:
        assert say(worker, do="raw context", text='{"custom":{}}') == 200
        assert worker.calls[-1].context == b'{"custom":{}}'
        made = len(worker.calls)
        assert say(worker, do="invoke", arn=MY_ARN, type="Later", text="x") == [
            'invocation type is "Later", expected "Event" or "RequestResponse"|null'
        ]
        for text in ("17", "x", "-1"):
            error = worker.error(json.dumps({"do": "unknown", "text": text}).encode())
            assert error["errorType"] == "com.amazonaws.greengrass.ipcsdk.IPCException"
            assert "is not known" in error["errorMessage"]
        error = worker.error(json.dumps({"do": "raw context", "text": "?"}).encode())
        assert error["errorMessage"].startswith("client context is not base64: ")
        long = base64.b64encode(b"{" + b" " * 65_535).decode()
        error = worker.error(json.dumps({"do": "raw context", "text": long}).encode())
        assert error["errorMessage"] == "client context is 65536 bytes, the limit is 65535"
        (seen,) = say(worker, do="invoke", arn=MY_ARN, type="Event", text="x" * 1000, times="1049")
        assert seen.startswith("payload is 1049000 bytes, the limit is 1047552|java.io.IOException")
        assert len(worker.calls) == made
        for arn, seen in (
            (f"{MY_ARN}", ["7", "f", MY_ARN[:-2], MY_ARN]),
            (ROUTER, [None, "GGRouter", ROUTER, ROUTER]),
            ("arn:aws-cn:lambda:::function:g:$LATEST", ["$LATEST", "g", "arn:aws-cn:lambda:::function:g", None]),
        ):
            assert say(worker, do="arn", text=arn) == [
                found or arn if index == 3 else found for index, found in enumerate(seen)
            ]
        for arn in ("f", "arn:aws:s3:::bucket", f"{MY_ARN}:8", f"{MY_ARN}\n"):
            error = worker.error(json.dumps({"do": "arn", "text": arn}).encode())
            assert error["errorType"] == "com.amazonaws.greengrass.common.InvalidArnException"


def test_answers_find_their_threads_and_open_calls_are_bounded(build: Build) -> None:
    """100 threads call at once; the core holds its answers back until no further call may be open, then answers the
    newest first."""
    threads, calls = 100, 3
    with java_worker(build.path(), "handlers.Sdk::crowd") as worker:
        invocation = worker.work(json.dumps({"threads": threads, "calls": calls}).encode())
        held: list[Call] = []
        callers = threads  # threads that have not had all their answers
        while callers:
            while len(held) < min(CALLS_MAX, callers):
                kind, body = worker.frame()
                assert kind == "P"
                held.append(Call(body))
            if callers == threads:
                assert not select.select([worker.socket], [], [], 0.05)[0], "more calls than the core allows"
            assert len({call.number for call in held}) == len(held)
            call = held.pop()
            worker.answer(call, OK, call.payload)
            callers -= call.payload.endswith(b"/%d" % (calls - 1))
        assert worker.reply() == ("R", invocation, b"{}")


def test_results_that_nobody_takes_are_bounded(build: Build) -> None:
    with java_worker(build.path(), "handlers.Sdk::careless") as worker:
        assert worker.value(b"400") == "256 results of earlier calls have not been fetched"
        assert 256 <= len(worker.calls) <= 256 + CALLS_MAX


def test_an_interrupted_thread_gets_its_answer_and_stays_interrupted(build: Build) -> None:
    with java_worker(build.path(), "handlers.Living::interrupted") as worker:
        worker.answers = lambda _: (OK, b"here ")
        assert worker.value() == "here true"


# --- frames -----------------------------------------------------------------------------------------------


def test_large_payloads_in_small_pieces(build: Build) -> None:
    with java_worker(build.path(), "handlers.Signatures::bytes", encoding="binary") as worker:
        payload = bytes(range(256)) * 4000
        assert worker.invoke(payload) == ("R", payload[::-1])
        frame = struct.pack("<IBIH", 12, ord("W"), 77, 2) + b"{}abc"
        for at in range(len(frame)):
            worker.send_raw(frame[at : at + 1])
        worker.send_raw(frame * 20)
        for _ in range(21):
            assert worker.reply() == ("R", 77, b"cba")
    with java_worker(build.path(), "handlers.Signatures::any") as worker:
        error = worker.error(b"[" + b",".join([b"1e5"] * 130_000) + b"]")  # each comes back as 100000.0
        assert error["errorMessage"] == "result is 1170001 bytes, the limit is 1048571"
        assert worker.value(b"1") == 1


@pytest.mark.parametrize(
    ("frame", "said"),
    [
        (struct.pack("<IB", 0, 0), "a frame of 0 bytes"),
        (struct.pack("<IB", FRAME_BYTES_MAX + 1, ord("W")), "a frame of 1048577 bytes"),
        (struct.pack("<IB", 0xFFFFFFFF, ord("W")), "a frame of"),
        (struct.pack("<IBI", 5, ord("W"), 1), "a frame that ends too early"),
        (struct.pack("<IBIHB", 8, ord("W"), 1, 2, 0), "a frame that ends too early"),
        (struct.pack("<IB", 1, ord("A")), "a frame that ends too early"),
    ],
)
def test_a_stream_that_is_not_frames_ends_the_worker(build: Build, frame: bytes, said: str) -> None:
    with java_worker(build.path(), "handlers.Signatures::any") as worker:
        worker.send_raw(frame)
        assert worker.process.wait() == 1
        assert any(letter == "F" and said in text for letter, text in worker.records())


def test_what_the_machine_itself_says_does_not_reach_the_socket(build: Build) -> None:
    with java_worker(build.path(), "handlers.Signatures::any", JAVA_TOOL_OPTIONS="-Xshare:auto -verbose:gc") as worker:
        worker.process.send_signal(signal.SIGQUIT)  # the machine prints all its threads
        for number in range(20):
            assert worker.value(str(number).encode()) == number
        assert worker.stop() == 0
        assert "Full thread dump" in worker.log()


def test_a_payload_larger_than_the_heap_is_an_error_of_that_invocation(build: Build) -> None:
    with java_worker(build.path(), "handlers.Failing", flags=["-Xmx16m", "-XX:+UseSerialGC"]) as worker:
        large = b'{"how":"' + b"x" * 1_000_000 + b'"}'
        assert worker.value(b'{"how":"hog"}') == "full"
        for _ in range(3):
            error = worker.error(large)
            assert error["errorType"] == "java.lang.OutOfMemoryError"
            assert worker.value() == "well"
        assert worker.value(b'{"how":"free"}') == "free"
        assert worker.value(large) == "well"


# --- beginning and end ------------------------------------------------------------------------------------


def test_the_end_waits_for_the_handler_and_runs_the_hooks(build: Build) -> None:
    with java_worker(build.path(), "handlers.Living") as worker:
        assert worker.records() == [("I", "loaded")]
        invocation = worker.work(b"300")
        worker.send("X", b"")
        assert worker.reply() == ("R", invocation, b"1")
        kind, body = worker.frame()
        assert (kind, Call(body).payload) == ("P", b"bye")
        assert worker.frame() == ("", b"")
        assert worker.process.wait() == 0
        assert worker.records() == [("I", "loaded"), ("I", "hook")]


def test_sigterm_runs_the_hooks(build: Build) -> None:
    with java_worker(build.path(), "handlers.Living") as worker:
        worker.process.terminate()
        kind, body = worker.frame()
        assert (kind, Call(body).payload) == ("P", b"bye")
        assert worker.process.wait() == 128 + signal.SIGTERM
        assert worker.records() == [("I", "loaded"), ("I", "hook")]


def test_a_worker_ends_when_nobody_is_left(build: Build) -> None:
    with java_worker(build.path(), "handlers.Living") as worker:
        assert worker.hang_up() == 0
        assert worker.records()[:2] == [("I", "loaded"), ("I", "hook")]
    with java_worker(build.path(), "handlers.Living") as worker:
        worker.work(b"200")
        assert worker.hang_up() == 0
