"""Which program runs a function, and how a forked worker becomes it."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import orjson
import pytest
from function_support import a_world, arn, run

from ggfast.core.functions import runtimes
from ggfast.core.functions.environment import CoreFacts, Identity, WorkerPlan, worker_plan
from ggfast.core.functions.invocations import InvokeStatus
from ggfast.core.functions.runtimes import find_interpreter
from ggfast.errors import DeploymentFailed
from ggfast.group.document import Encoding, Function, FunctionConfiguration
from ggfast.group.runtimes import EXECUTABLE_RUNTIME, Language

DEBIAN_PYTHON = "/usr/bin/python3"


def function(runtime: str, handler: str = "index.handler", **more: Any) -> Function:
    return Function("f", arn("f"), handler, runtime, configuration=FunctionConfiguration(**more))


def plan(given: Function, interpreter: str, *, contained: bool = True, **more: Any) -> WorkerPlan:
    return worker_plan(
        given, CoreFacts(region="r", account="a"), Identity(1, 1), "/code", interpreter=interpreter,
        contained=contained, **more,
    )  # fmt: skip


@pytest.fixture
def programs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty place where interpreters are looked for."""
    monkeypatch.setattr(runtimes, "SEARCHED", (str(tmp_path),))
    monkeypatch.setattr(runtimes, "_REPLACED", ("/nowhere",))
    monkeypatch.setattr(runtimes, "_BUILT", {})
    return tmp_path


def program(path: Path, mode: int = 0o755) -> str:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("")
    path.chmod(mode)
    return str(path)


def test_the_ids_own_program_comes_first(programs: Path) -> None:
    node = program(programs / "node")
    assert find_interpreter(function("nodejs12.x"), {}) == node
    own = program(programs / "nodejs12.x")
    assert find_interpreter(function("nodejs12.x"), {}) == own
    assert find_interpreter(function("nodejs8.10"), {}) == node
    assert find_interpreter(function("java8"), {"java8": node}) == node
    assert find_interpreter(function("python3.7"), {}) == ""
    assert find_interpreter(function(EXECUTABLE_RUNTIME, "a"), {}) == ""


@pytest.mark.parametrize(
    ("runtime", "words"),
    [("nodejs12.x", "nodejs12.x, node, nodejs"), ("nodejs6.10", "apt install nodejs"), ("java8", "java8, java"),
     ("java11", "default-jre-headless")],
)  # fmt: skip
def test_a_missing_interpreter_says_what_to_install(programs: Path, runtime: str, words: str) -> None:
    with pytest.raises(DeploymentFailed) as refused:
        find_interpreter(function(runtime), {})
    assert words in str(refused.value)
    assert arn("f") in str(refused.value)
    assert "ggfast.runtimes" in str(refused.value)


def test_a_configured_program_must_be_one(programs: Path) -> None:
    plain = program(programs / "data", 0o644)
    for path in (plain, str(programs), str(programs / "absent")):
        with pytest.raises(DeploymentFailed, match="no executable file"):
            find_interpreter(function("python3.7"), {"python3.7": path})


def test_a_program_that_containers_do_not_see(programs: Path) -> None:
    real = program(programs / "hidden" / "node")
    (programs / "node").symlink_to(real)
    assert find_interpreter(function("nodejs"), {}) == str(programs / "node")
    with pytest.raises(DeploymentFailed, match="containers do not see"):
        find_interpreter(function("nodejs"), {}, (str(programs / "hidden"),))


def test_an_old_java_is_refused_in_v1s_words(programs: Path) -> None:
    java = program(programs / "jre" / "bin" / "java")
    (programs / "java").symlink_to(java)
    for version in ('"1.7.0_80"', '"1.8.0_392"', '"17.0.2"'):
        (programs / "jre" / "release").write_text(f'IMPLEMENTOR="x"\nJAVA_VERSION={version}\n')
        if version.startswith('"1.7'):
            with pytest.raises(DeploymentFailed, match="Installed Java version must be greater than or equal to 8"):
                find_interpreter(function("java8"), {})
        else:
            assert find_interpreter(function("java8"), {}) == str(programs / "java")


def test_what_programs_are_given() -> None:
    node = plan(function("nodejs12.x", variables={"NODE_PATH": "/own", "A": "1"}), "/usr/bin/node")
    assert node.is_launch
    assert not node.adoptable
    assert node.config["argv"][0] == "/usr/bin/node"
    assert node.config["argv"][-2:] == ["/runtime/nodejs/main.js", "--handler=index.handler"]
    environment = node.config["environment"]
    assert environment["NODE_PATH"] == "/runtime/nodejs/node_modules:/lambda/node_modules:/lambda:/own"
    assert environment["GGFAST_TIMEOUT_S"] == "3"
    assert (environment["A"], environment["MY_FUNCTION_ARN"]) == ("1", arn("f"))
    java = plan(function("java8", "a.B::c"), "/usr/bin/java")
    assert java.config["stdio"]
    assert "/runtime/java/ggfast-runtime.jar:/lambda:/lambda/*:/lambda/lib/*" in java.config["argv"]
    program = plan(function(EXECUTABLE_RUNTIME, "bin/echo", exec_args="-x 'a b'"), "", contained=False)
    assert program.config["argv"] == ["/code/bin/echo", "-x", "a b"]
    assert program.config["environment"]["LD_LIBRARY_PATH"] == f"{runtimes.RUNTIME_FILES}/native"
    assert program.config["environment"]["ENCODING_TYPE"] == Encoding.BINARY
    assert (program.spec["contained"], program.adoptable) == (False, True)
    python = plan(function("python3.7", "m.f"), "")
    assert not python.is_launch


def test_the_token_is_only_in_the_frame() -> None:
    made = plan(function("nodejs12.x"), "/usr/bin/node")
    assert "secret" not in repr(made)
    assert orjson.loads(made.config_frame("secret"))["environment"]["AWS_CONTAINER_AUTHORIZATION_TOKEN"] == "secret"


def test_other_interpreters_make_other_plans() -> None:
    one, other = plan(function("nodejs12.x"), "/usr/bin/node"), plan(function("nodejs12.x"), "/opt/node")
    assert one.digest != other.digest


def test_a_build_without_a_runtimes_part(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(runtimes, "_BUILT", {Language.JAVA: ("java/none.jar", "a Java compiler")})
    with pytest.raises(DeploymentFailed, match="built without a Java compiler"):
        find_interpreter(function("java8"), {})


SOURCE = """
import os, sys
def handler(event, context):
    return {"event": event, "python": os.readlink("/proc/self/exe"), "pid": os.getpid(), "name": context.function_name,
            "own": sorted(name for name in os.environ if name.startswith("GGFAST_")), "given": os.environ["GIVEN"],
            "modules": sys.modules["greengrass_ipc_python_sdk.ipc_client"].__file__}
"""


def test_a_python_of_its_own() -> None:
    async def test() -> None:
        async with a_world() as world:
            plan = world.plan("own", SOURCE, interpreter=DEBIAN_PYTHON, variables={"GIVEN": "yes"})
            await world.manager.apply([plan])
            result = await world.manager.invoke(arn("own"), b'{"a": 1}')
            assert result.status is InvokeStatus.OK, result
            found = json.loads(result.payload)
            assert found["event"] == {"a": 1}
            assert found["python"] == os.path.realpath(DEBIAN_PYTHON)
            assert (found["own"], found["given"], found["name"]) == ([], "yes", "own")
            assert found["modules"].startswith(str(runtimes.RUNTIME_FILES))
            again = json.loads((await world.manager.invoke(arn("own"), b"")).payload)
            assert again["pid"] == found["pid"]

    run(test())


def test_a_program_that_can_not_be_executed() -> None:
    async def test() -> None:
        async with a_world() as world:
            plan = world.plan("bad", "no program", runtime=EXECUTABLE_RUNTIME, handler="main", file="main")
            await world.manager.apply([plan])
            result = await world.manager.invoke(arn("bad"), b"")
            assert result.status is InvokeStatus.UNHANDLED
            assert b"can not be started" in result.payload
            assert b"Exec format error" in result.payload

    run(test())


def test_a_program_that_ends_at_once() -> None:
    async def test() -> None:
        async with a_world() as world:
            plan = world.plan("short", "#!/bin/sh\necho gone >&2\nexit 3\n", runtime=EXECUTABLE_RUNTIME,
                              handler="main", file="main")  # fmt: skip
            await world.manager.apply([plan])
            result = await world.manager.invoke(arn("short"), b"")
            assert result.status is InvokeStatus.UNHANDLED
            assert b"exit status 3" in result.payload
            assert "gone" in world.function_log("short").text()

    run(test())
