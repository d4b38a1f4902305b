"""The command line's view of functions: rows, logs that rotate while they are followed, payloads, trial groups."""

from __future__ import annotations

import argparse
import io
import json
import os
import stat
import threading
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from ggfast.cli import core, functions, invoke, logs, trial, trial_group
from ggfast.cli.terminal import for_output, printable
from ggfast.clock import SystemClock
from ggfast.core.function_verbs import FunctionVerbs
from ggfast.counters import Counters
from ggfast.errors import ConfigError, GgfastError, OperatingError, Rejected
from ggfast.layout import Layout
from ggfast.log import FunctionLog, Level, LogRule

ROW: dict[str, Any] = {
    "arn": "arn:aws:lambda:eu-west-1:123456789012:function:fast:7",
    "name": "fast",
    "state": "running",
    "pinned": True,
    "instances": 1,
    "queued": 3,
    "memory_kb": 1800,
    "memory_peak_kb": 2600,
    "memory_limit_kb": 16384,
    "invocations": 12,
    "errors": 1,
    "p50_ms": 0.512,
    "p99_ms": None,
    "last_error": "Task timed out\nafter 3 seconds",
}


def test_rows_for_a_person() -> None:
    assert functions.render([]) == ["No function is deployed."]
    head, row, error = functions.render([ROW])
    assert row.split() == ["fast:7", "running", "(pinned)", "1", "3", "1800", "2600", "16384", "12", "1", "0.51", "-"]
    assert len(head) == len(row)
    assert error.strip() == "last error: Task timed out after 3 seconds"
    assert len(functions.shortened("x" * 1000)) < 200


def layout_with(tmp_path: Path, *names: str) -> Layout:
    layout = Layout.of(tmp_path)
    for name in names:
        path = layout.logs / f"{name}.log"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"{name}\n")
    return layout


def test_finding_a_log(tmp_path: Path) -> None:
    layout = layout_with(tmp_path, "user/r/1/one", "user/r/1/two", "user/q/1/two", "system/runtime", "system/router")
    one = layout.user_logs / "r" / "1" / "one.log"
    for name in ("one", "one:3", "arn:aws:lambda:r:1:function:one", "arn:aws:lambda:r:1:function:one:3"):
        assert logs.find_log(layout, name) == one, name
    assert logs.find_log(layout, "system") == layout.system_logs / "runtime.log"
    assert logs.find_log(layout, "system/router") == layout.system_logs / "router.log"
    with pytest.raises(OperatingError, match="several accounts or regions"):
        logs.find_log(layout, "two")
    for name in ("three", "../one", "system/../user/r/1/one", "system/", "arn:aws:lambda:r:1:function:no"):
        with pytest.raises(OperatingError, match="no log of") as refused:
            logs.find_log(layout, name)
        assert "system/runtime" in str(refused.value)
    later = logs.find_log(layout, "arn:aws:lambda:r:1:function:no", may_come=True)
    assert later == layout.user_logs / "r" / "1" / "no.log"


def test_the_last_lines_go_over_rotated_parts(tmp_path: Path) -> None:
    path = tmp_path / "f.log"
    for suffix, first in ((".2", 0), (".1", 3), (".10", -3), ("", 6)):
        path.with_name(path.name + suffix).write_text("".join(f"{first + n}\n" for n in range(3)))
    assert [int(line) for line in logs.last_lines(path, 100)[0]] == list(range(-3, 9))
    assert [int(line) for line in logs.last_lines(path, 4)[0]] == [5, 6, 7, 8]
    assert logs.last_lines(path, 0)[0] == []
    assert logs.last_lines(tmp_path / "none.log", 5) == ([], logs.Place())


def test_following_loses_nothing_while_the_log_rotates(tmp_path: Path) -> None:
    path = tmp_path / "f.log"
    log = FunctionLog(path, LogRule(Level.INFO, 40_000), SystemClock(), Counters(), 1_000_000)
    log.write(Level.INFO, "line 0")
    first, place = logs.last_lines(path, 10)
    assert first[0].endswith("line 0\n")
    stop = threading.Event()
    text = io.StringIO()

    def read() -> None:
        followed: Iterator[str] = logs.follow(path, place, pause_s=0.001)
        for part in followed:
            text.write(part)
            if "line 400\n" in text.getvalue():
                return

    reader = threading.Thread(target=read)
    reader.start()
    for number in range(1, 401):
        log.write(Level.INFO, f"line {number}")
        stop.wait(0.002)
    reader.join(20)
    assert not reader.is_alive()
    log.close()
    assert list(tmp_path.glob("f.log.*")), "it did not rotate"
    assert [line.rpartition("-")[2] for line in text.getvalue().splitlines()] == [f"line {n}" for n in range(1, 401)]


def test_following_a_log_that_comes_later(tmp_path: Path) -> None:
    path = tmp_path / "later.log"
    writer = threading.Timer(0.05, lambda: path.write_text("here\n"))
    writer.start()
    assert next(logs.follow(path, logs.Place(), pause_s=0.005)) == "here\n"
    writer.join()


def test_payloads(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "event").write_bytes(b"\x00\xff")
    assert invoke.read_payload("") == b""
    assert invoke.read_payload('{"ä": 1}') == '{"ä": 1}'.encode()
    assert invoke.read_payload(f"@{tmp_path / 'event'}") == b"\x00\xff"
    with pytest.raises(OperatingError, match="cannot be read"):
        invoke.read_payload(f"@{tmp_path / 'none'}")
    (tmp_path / "large").write_bytes(bytes(600_000))
    with pytest.raises(ConfigError, match="at most"):
        invoke.read_payload(f"@{tmp_path / 'large'}")


class Manager:
    """What FunctionVerbs.find asks of the manager."""

    def __init__(self, *names: str) -> None:
        self.deployed = tuple(f"arn:aws:lambda:eu-west-1:123456789012:function:{name}" for name in names)


def test_names_of_deployed_functions() -> None:
    verbs = FunctionVerbs(Manager("one:1", "two:1", "two:2"), None)  # type: ignore[arg-type]
    one = "arn:aws:lambda:eu-west-1:123456789012:function:one:1"
    assert [verbs.find(name) for name in ("one", "one:1", one)] == [one] * 3
    assert verbs.find("two:2").endswith("two:2")
    with pytest.raises(Rejected, match="2 versions"):
        verbs.find("two")
    for name in ("three", "", None, 5, "one:2", "x" * 5000):
        with pytest.raises(Rejected, match="one:1, two:1, two:2") as refused:
            verbs.find(name)
        assert len(str(refused.value)) < 1000


def options(folder: Path, **given: Any) -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    trial.add_arguments(parser)
    words = [str(folder)]
    for name, value in given.items():
        words += [f"--{name}"] if value is True else [f"--{name}", str(value)]
    return parser.parse_args(words)


def made(tmp_path: Path, folder: Path, **given: Any) -> dict[str, Any]:
    target = tmp_path / f"made{len(list(tmp_path.iterdir()))}"
    target.mkdir()
    trial = trial_group.make_trial(target, options(folder, **given))
    document: dict[str, Any] = json.loads((trial.folder / "group.json").read_bytes())
    assert document["Functions"][0]["FunctionArn"] == trial.arn
    assert (trial.folder / document["Functions"][0]["Code"]).exists()
    return document


def test_a_package_becomes_a_group(tmp_path: Path) -> None:
    folder = tmp_path / "my fün.tion"
    folder.mkdir()
    (folder / "lambda_function.py").write_text("")
    (folder / "index.js").write_text("")
    (entry,) = made(tmp_path, folder)["Functions"]
    assert (entry["Handler"], entry["Runtime"]) == ("lambda_function.lambda_handler", "python3")
    assert entry["FunctionArn"].endswith(":function:my-f-n:1")
    (entry,) = made(tmp_path, folder, runtime="nodejs12.x", env="A=b=c", memory=5000, timeout=9, binary=True)[
        "Functions"
    ]
    assert (entry["Handler"], entry["Runtime"]) == ("index.handler", "nodejs12.x")
    configuration = entry["FunctionConfiguration"]
    assert configuration["Environment"]["Variables"] == {"A": "b=c"}
    assert (configuration["MemorySize"], configuration["Timeout"], configuration["EncodingType"]) == (5000, 9, "binary")
    archive = tmp_path / "f.zip"
    with zipfile.ZipFile(archive, "w") as file:
        file.writestr("a.py", "")
    (entry,) = made(tmp_path, archive, handler="a.f")["Functions"]
    assert entry["Code"] == "code.zip"


def test_a_function_of_a_group(tmp_path: Path) -> None:
    folder = tmp_path / "group"
    (folder / "functions" / "a").mkdir(parents=True)
    policies = [{"ResourceId": "r1", "Permission": "ro"}]
    entries = [
        {
            "Id": name,
            "FunctionArn": f"arn:aws:lambda:eu-west-1:123456789012:function:{name}:3",
            "Code": "functions/a",
            "Handler": "a.f",
            "Runtime": "python3.8",
            "FunctionConfiguration": {"Pinned": True, "Environment": {"ResourceAccessPolicies": policies}},
        }
        for name in ("one", "two")
    ]
    resources = [{"Id": "r1"}, {"Id": "r2"}]
    (folder / "group.json").write_text(json.dumps({"Functions": entries, "Resources": resources}))
    document = made(tmp_path, folder, function="two")
    assert document["Functions"][0]["FunctionConfiguration"]["Pinned"] is False
    assert document["Resources"] == [{"Id": "r1"}]
    for given in ({}, {"function": "three"}):
        with pytest.raises(ConfigError, match="one of one, two"):
            made(tmp_path, folder, **given)


def test_nothing_outside_of_a_group_is_copied(tmp_path: Path) -> None:
    folder, private = tmp_path / "group", tmp_path / "private"
    folder.mkdir()
    private.mkdir()
    (private / "key").write_text("of root")
    (folder / "link").symlink_to(private)
    (folder / "linked.zip").symlink_to(private / "key")
    arn = "arn:aws:lambda:eu-west-1:123456789012:function:one:1"
    for code in (str(private), "../private", "../private/key", "link", "linked.zip", ".", "", "none", "a\0b"):
        document = {"Functions": [{"FunctionArn": arn, "Code": code, "Handler": "a.f", "Runtime": "python3"}]}
        (folder / "group.json").write_text(json.dumps(document))
        with pytest.raises(ConfigError, match="Code: found"):
            made(tmp_path, folder)
    assert [path for path in tmp_path.glob("made*/**/*") if path.is_file()] == []


def test_a_directory_that_becomes_a_link_while_it_is_copied(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder, private = tmp_path / "function", tmp_path / "private"
    (folder / "sub").mkdir(parents=True)
    private.mkdir()
    for path, text in ((private / "key", "of root"), (folder / "sub" / "key", ""), (folder / "main.py", "")):
        path.write_text(text)
    scandir = os.scandir

    def exchange(path: Any) -> Any:
        found = scandir(path)
        if str(path) == str(folder / "sub"):
            os.rename(folder / "sub", tmp_path / "moved")
            os.symlink(private, folder / "sub")
        return found

    with monkeypatch.context() as patched, pytest.raises(OperatingError, match="symbolic link"):
        patched.setattr("os.scandir", exchange)
        made(tmp_path, folder)
    assert not [path for path in tmp_path.glob("made*/**/key") if path.read_text()]


def test_the_copy_of_a_package_is_not_for_others(tmp_path: Path) -> None:
    folder = tmp_path / "function"
    folder.mkdir()
    (folder / "main.py").write_text("")
    made(tmp_path, folder)
    (copy,) = tmp_path.glob("made*/group")
    assert stat.S_IMODE(copy.stat().st_mode) == 0o700


def test_packages_that_cannot_be_tried(tmp_path: Path) -> None:
    with pytest.raises(OperatingError, match="does not exist"):
        made(tmp_path, tmp_path / "none")
    empty = tmp_path / "empty"
    empty.mkdir()
    with pytest.raises(ConfigError, match="--handler"):
        made(tmp_path, empty)
    os.mkfifo(empty / "pipe")
    with pytest.raises(GgfastError, match="cannot be copied"):
        made(tmp_path, empty, handler="a.f")
    broken = tmp_path / "broken"
    broken.mkdir()
    (broken / "group.json").write_text("[")
    with pytest.raises(ConfigError, match=r"group\.json cannot be read"):
        made(tmp_path, broken)
    (broken / "group.json").write_text("[]")
    with pytest.raises(ConfigError, match=r"group\.json cannot be read"):
        made(tmp_path, broken)


def test_nothing_a_function_says_reaches_the_terminal_raw() -> None:
    assert printable("gr\u00fc\u00dfe \x1b[2J\x07\n\u202e") == "gr\u00fc\u00dfe \\x1b[2J\\x07\\n\\u202e"


def test_nothing_a_function_says_reaches_a_terminal_as_it_is(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    assert functions.shortened("\x1b]0;owned\x07 \x9b2J\nline") == "\\x1b]0;owned\\x07 \\x9b2J line"
    hostile = "a\tb\x1b[31m\u202e\n"
    assert for_output(hostile) == hostile  # a file gets what was said
    monkeypatch.setattr("sys.stdout.isatty", lambda: True, raising=False)
    assert for_output(hostile) == "a\tb\\x1b[31m\\u202e\n"


def test_errors_are_harmless_on_a_terminal(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(_: argparse.Namespace) -> int:
        raise Rejected("first \x1b[2J\n  second")

    monkeypatch.setattr(functions, "run", fail)
    assert core.main(["functions"]) == 1
    assert capsys.readouterr().err == "ggfast-core: first \\x1b[2J\n  second\n"


def test_no_link_and_no_pipe_is_read_as_a_log(tmp_path: Path) -> None:
    layout = layout_with(tmp_path, "user/r/1/real")
    directory = layout.user_logs / "r" / "1"
    (tmp_path / "secret").write_text("secret\n")
    (directory / "linked.log").symlink_to(tmp_path / "secret")
    os.mkfifo(directory / "pipe.log")
    for name in ("linked", "pipe"):
        assert logs.last_lines(logs.find_log(layout, name), 10) == ([], logs.Place())
