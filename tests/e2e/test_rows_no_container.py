"""Row 76: a group of functions without containers. It asks nothing of the kernel, so it also has to run where there
is no memory controller: `make hostile-v2` runs this file in a machine that was booted without one."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator

import pytest

from tests.e2e.harness import Core, Device, a_core, thing_arn

PROBE = thing_arn("probe")
LOOK = """
import json, os
import greengrasssdk
client = greengrasssdk.client("iot-data")

def handler(event, context):
    pids = [int(name) for name in os.listdir("/proc") if name.isdigit()]
    seen = {"echo": event, "pids": pids, "own": os.getpid(), "code": os.path.dirname(os.path.abspath(__file__))}
    client.publish(topic="look/out", payload=json.dumps(seen))
"""


@pytest.fixture
def core() -> Iterator[Core]:
    """A core whose group says NoContainer for all its functions."""
    with a_core() as core:
        folder = core.folder()
        folder.device("probe")
        look = folder.function("look", LOOK)
        del folder.functions[0]["FunctionConfiguration"]["MemorySize"]  # not allowed without a container
        folder.default_config = {"Execution": {"IsolationMode": "NoContainer"}}
        folder.subscribe(PROBE, "look/in", look)
        folder.subscribe(look, "look/out", PROBE)
        core.deploy(folder)
        core.start()
        yield core


def test_row_76_a_function_without_a_container_answers_and_sees_the_host(core: Core) -> None:
    with Device(core, "probe") as probe:
        probe.subscribe("look/out")
        probe.publish("look/in", json.dumps({"n": 7}))
        seen = json.loads(probe.expect_on("look/out", 30))
    assert seen["echo"] == {"n": 7}
    assert {os.getpid(), core.pid, seen["own"]} <= set(seen["pids"])
    assert seen["code"].startswith(str(core.root))
