"""The C library as a file: its build, its versioned symbols, who can link with it; and its byte readers alone."""

from __future__ import annotations

import base64
import binascii
import json
import os
import random
import struct
import subprocess
from pathlib import Path

import pytest
from native_support import ADDRESS, LIBRARY, NATIVE, PLAIN, REPOSITORY, build, built, compile_c, parts
from worker_support import Worker, environment

VERSIONS = {
    "aws_greengrass_core_sdk_c_1.0": [
        "gg_global_init",
        "gg_log",
        "gg_request_init",
        "gg_request_reuse",
        "gg_request_close",
        "gg_request_read",
        "gg_runtime_start",
        "gg_lambda_handler_read",
        "gg_lambda_handler_write_response",
        "gg_lambda_handler_write_error",
        "gg_invoke",
        "gg_publish",
        "gg_get_thing_shadow",
        "gg_update_thing_shadow",
        "gg_delete_thing_shadow",
    ],
    "aws_greengrass_core_sdk_c_1.1": ["gg_get_secret_value"],
    "aws_greengrass_core_sdk_c_1.2": [
        "gg_publish_options_init",
        "gg_publish_options_free",
        "gg_publish_options_set_queue_full_policy",
        "gg_publish_with_options",
    ],
}
LOOK_UP = """
#include <dlfcn.h>
#include <stdio.h>
#include "greengrasssdk.h"
int main(int count, char **words)
{
    gg_log((gg_log_level)0, "");
    for (int i = 1; i + 1 < count; i += 2)
        printf("%d\\n", dlvsym(RTLD_DEFAULT, words[i + 1], words[i]) != NULL);
    return 0;
}
"""
LAYOUT = """
#include <cstddef>
#include <string>
#include "greengrasssdk.h"
static_assert(sizeof(gg_error) == 4 && sizeof(gg_log_level) == 4 && sizeof(gg_request_result) == 4, "32 bits");
static_assert(sizeof(gg_lambda_context) == 2 * sizeof(void *), "two pointers");
static_assert(offsetof(gg_invoke_options, type) == 3 * sizeof(void *), "three pointers first");
static_assert(offsetof(gg_invoke_options, payload) == 4 * sizeof(void *) || sizeof(void *) == 4, "aligned");
static_assert(GGE_TERMINATE == 5 && GG_REQUEST_AGAIN == 4 && GG_LOG_FATAL == 5 && GG_RT_OPT_ASYNC == 1, "values");
static void handler(const gg_lambda_context *context)
{
    std::string text = std::string("C++ ") + context->client_context;
    gg_lambda_handler_write_response(text.data(), text.size());
}
int main() { return gg_global_init(0) || gg_runtime_start(handler, 0); }
"""


def linked(where: Path) -> list[str]:
    return ["-I", str(NATIVE), "-L", str(where), "-laws-greengrass-core-sdk-c", "-pthread"]


def test_every_symbol_has_its_version(tmp_path: Path) -> None:
    made = built(PLAIN)
    (tmp_path / "look.c").write_text("#define _GNU_SOURCE\n" + LOOK_UP)
    program = compile_c(tmp_path / "look", str(tmp_path / "look.c"), *linked(made.library.parent), "-ldl")
    pairs = [(version, name) for version, names in VERSIONS.items() for name in names]
    wrong = [
        ("aws_greengrass_core_sdk_c_1.0", "gg_get_secret_value"),
        ("aws_greengrass_core_sdk_c_1.1", "gg_publish"),
        ("aws_greengrass_core_sdk_c_1.0", "channel_open"),
    ]
    words = [word for pair in [*pairs, *wrong] for word in pair]
    done = subprocess.run([str(program), *words], env=made.environment, capture_output=True, check=True, timeout=30)
    assert done.stdout.split() == [b"1"] * len(pairs) + [b"0"] * len(wrong)


def test_nothing_else_is_exported() -> None:
    listed = subprocess.run(["nm", "-D", "--defined-only", str(built(PLAIN).library)], capture_output=True, check=True)
    names = {line.split()[2].split("@")[0] for line in listed.stdout.decode().splitlines() if " T " in line}
    assert names == {name for names in VERSIONS.values() for name in names}


def test_a_program_linked_with_a_stub_runs_with_ours(tmp_path: Path) -> None:
    """As V1's users build: a stub of the same name and versions, found by the program's RUNPATH unless ours is."""
    stub = tmp_path / "stub"
    stub.mkdir()
    names = [name for names in VERSIONS.values() for name in names]
    (stub / "stub.c").write_text("".join(f"int {name}(void) {{ return 4; }}\n" for name in names))
    shared = ["-shared", "-fPIC", f"-Wl,-soname,{LIBRARY}", f"-Wl,--version-script={NATIVE / 'exports.map'}"]
    compile_c(stub / LIBRARY, str(stub / "stub.c"), *shared)
    source = Path(__file__).with_name("native") / "program.c"
    runpath = ["-Wl,--enable-new-dtags", f"-Wl,-rpath,{stub}"]
    program = compile_c(tmp_path / "program", str(source), *linked(stub), *runpath)
    assert subprocess.run([str(program)], env={}, check=False, timeout=30).returncode == 7, "the stub refuses"
    values = environment(LD_LIBRARY_PATH=str(built(PLAIN).library.parent))
    with Worker([str(program)], values, tmp_path) as worker:
        assert worker.initialised() == ""
        worker.work(1, b"echo\x1fours")
        assert worker.result(1) == b"ours"
        assert worker.stop() == 0


@pytest.mark.parametrize("standard", ["-std=c++11", "-std=c++17"])
def test_a_cpp_program(tmp_path: Path, standard: str) -> None:
    made = built(PLAIN)
    (tmp_path / "main.cpp").write_text(LAYOUT)
    source = [standard, "-pedantic", str(tmp_path / "main.cpp")]
    program = compile_c(tmp_path / "main", *source, *linked(made.library.parent), compiler="c++")
    with Worker([str(program)], environment(**made.environment), tmp_path) as worker:
        assert worker.initialised() == ""
        worker.work(1, b"", b'{"custom":{}}')
        assert worker.result(1) == b'C++ {"custom":{}}'
        assert worker.stop() == 0


def test_the_header_is_c89(tmp_path: Path) -> None:
    (tmp_path / "main.c").write_text('#include "greengrasssdk.h"\nint main(void) { return 0; }\n')
    compile_c(tmp_path / "main", "-std=c89", "-pedantic", "-I", str(NATIVE), str(tmp_path / "main.c"))


def test_the_example_works_as_its_page_says(tmp_path: Path) -> None:
    example = REPOSITORY / "examples" / "functions" / "echo-executable"
    made = built(PLAIN)
    page = (example / "README.md").read_text(encoding="utf-8")
    command = next(line.strip() for line in page.splitlines() if line.strip().startswith("cc "))
    for name, value in {"$NATIVE": str(NATIVE), "$LIBRARY": str(made.library.parent)}.items():
        command = command.replace(name, value)
    (tmp_path / "echo.c").write_bytes((example / "echo.c").read_bytes())
    subprocess.run(command.split(), cwd=tmp_path, check=True, timeout=60)
    with Worker([str(tmp_path / "echo")], environment(**made.environment), tmp_path) as worker:
        assert worker.initialised() == ""
        worker.work(1, b"some bytes\0more", b'{"custom":{"subject":"a/b"}}')
        posting = worker.posting()
        assert (posting.custom["subject"], posting.payload) == ("echo/answer", b"some bytes\0more")
        assert worker.result(1) == b"some bytes\0more"
        assert worker.stop() == 0
        assert ("INFO", '15 bytes, client context {"custom":{"subject":"a/b"}}') in worker.finish()


# --- the build ------------------------------------------------------------------------------------------------


def test_building_again_changes_nothing(tmp_path: Path) -> None:
    output = tmp_path / "below" / LIBRARY
    assert "compiling" in build(output).stdout
    before = output.stat().st_mtime_ns
    again = build(output)
    assert (again.returncode, again.stdout, output.stat().st_mtime_ns) == (0, "", before)
    assert "compiling" in build(output, CFLAGS="-DOTHER").stdout
    assert list(output.parent.iterdir()) == [output]
    assert os.access(output, os.R_OK)


def test_a_build_that_fails_says_why(tmp_path: Path) -> None:
    missing = build(tmp_path / LIBRARY, CC="no-such-compiler")
    assert missing.returncode == 1
    assert "needs a C compiler, and no-such-compiler cannot be run" in missing.stderr
    broken = build(tmp_path / LIBRARY, CFLAGS="-Dmalloc=no_such_function")
    assert broken.returncode == 1
    assert "no_such_function" in broken.stderr
    assert not list(tmp_path.iterdir())


# --- the byte readers -----------------------------------------------------------------------------------------


def run_parts(*arguments: str, data: bytes = b"") -> str:
    done = subprocess.run([str(parts()), *arguments], input=data, capture_output=True, check=False, timeout=120)
    assert done.returncode == 0, done.stdout.decode() + done.stderr.decode()
    return done.stdout.decode()


def test_any_chunking_gives_the_same_frames() -> None:
    assert run_parts("chunks", "1500") == ""


def test_no_bytes_harm_the_readers() -> None:
    assert 1000 < int(run_parts("random", "20000")) < 19000, "some streams are refused, some are not"


def verdict(text: bytes) -> str:
    """What Python's reader says: object or other, and whether both keys are there."""

    def no_constant(word: str) -> None:
        raise ValueError(word)

    try:
        document = json.loads(text.decode("utf-8"), parse_constant=no_constant)
    except (ValueError, RecursionError):
        return "other 0"
    if not isinstance(document, dict):
        return "other 0"
    return f"object {int('code' in document and 'message' in document)}"


def test_json_agrees_with_python() -> None:
    chance = random.Random(7)
    seeds = [
        b'{"code": 404, "message": "x"}',
        b'{"c\\u006f\\u0064e":-0.5e+10,"message":null,"code-that-is-longer":[true,false,{}]}',
        b'{"state":{"code":1,"message":2},"a":[[],[1,2],"\\ud83d\\ude00\\n\\"\\\\"],"\xc3\xbc":"\xf0\x9f\x98\x80"}',
        b' \t\r\n{ "message" : "" , "code" : 0 } ',
        b"{}",
        b"[]",
        b'"text"',
        b'{"code\\u0000":1,"message":1}',
        b'{"codecodecodecodecode":1,"code":2,"messagemessagemessage":3,"message":4}',
    ]
    texts = list(seeds)
    for _ in range(4000):
        text = bytearray(chance.choice(seeds))
        for _ in range(chance.randrange(1, 4)):
            at = chance.randrange(len(text) + 1)
            end = at + chance.randrange(3)
            text[at:end] = chance.choice([b"", *(bytes([c]) for c in b'{}[]",:\\u0e-+.1 \xc3\x01')])
        texts.append(bytes(text))
    data = b"".join(struct.pack("<I", len(text)) + text for text in texts)
    seen = run_parts("json", data=data).splitlines()
    assert len(seen) == len(texts)
    differing = [(t, s, verdict(t)) for t, s in zip(texts, seen, strict=True) if s != verdict(t)]
    assert not differing
    assert 100 < sum(line == "object 1" for line in seen) < 3000


def test_json_of_any_depth_is_survived() -> None:
    for count, seen in ((100, "object 0"), (100_000, "other 0")):
        text = b'{"a":' * count + b"1" + b"}" * count
        assert run_parts("json", data=struct.pack("<I", len(text)) + text).strip() == seen


def test_base64_agrees_with_python() -> None:
    chance = random.Random(8)
    words = ["", "=", "====", "A===", "AA==", "AB==", "AAA=", "AAB=", "AA=A", "A=AA"]
    for _ in range(2000):
        word = bytearray(base64.b64encode(chance.randbytes(chance.randrange(12))))
        if word and chance.random() < 0.5:
            word[chance.randrange(len(word))] = chance.choice(b"=AZ+/-_ \t0")
        words.append(word.decode())
    words = [word for word in words if not word.isspace()]
    seen = run_parts("base64", data="".join(f"{word}\n" for word in words).encode()).split("\n")[:-1]
    for word, made in zip(words, seen, strict=True):
        try:
            decoded = base64.b64decode(word, validate=True)
            expected = decoded.hex() if base64.b64encode(decoded).decode() == word else "invalid"
        except binascii.Error:
            expected = "invalid"
        assert made == expected, word


def test_the_sanitizers_are_used_where_there_are_some() -> None:
    made = built(ADDRESS)
    if made.sanitizer:
        assert b"__asan_init" in made.library.read_bytes()
