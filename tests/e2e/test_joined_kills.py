"""Deployments with a kill -9 in their middle: of daemon, supervisor or control plane (row 28, design P4).

Whatever is killed is started again, as init systems do it. Then, without a hand: the core has the group of before or
the new one, never a mixture; the control plane learns what happened, and what it says is so; functions answer.

GGFAST_TEST_KILLS says how many; `make kill-deployments` makes 200 of them.
"""

from __future__ import annotations

import contextlib
import os
import queue
import random
import signal
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.cloud_process import CloudProcess
from tests.e2e.harness import Device, alive, eventually, thing_arn
from tests.e2e.joined_core import JoinedCore, a_joined_core
from tests.patience import patience

pytestmark = [pytest.mark.root, pytest.mark.slow]

KILLS = int(os.environ.get("GGFAST_TEST_KILLS", "9"))
SEED = int(os.environ.get("GGFAST_TEST_SEED", "1"))
LONGEST_S = 0.5  # an undisturbed deployment takes about as long
ENDED_S = patience(90.0)

ANSWER = """
import greengrasssdk
iot = greengrasssdk.client("iot-data")

def handler(event, context):
    iot.publish(topic="back", payload="{word}")
"""


@pytest.fixture
def cloud(tmp_path: Path) -> Iterator[CloudProcess]:
    with CloudProcess(tmp_path / "cloud") as running:
        yield running


@pytest.fixture
def core(cloud: CloudProcess) -> Iterator[JoinedCore]:
    """A device, a function that changes with each deployment and one that never does."""
    with a_joined_core(cloud) as core:
        group = core.group
        probe = group.device("probe")
        turning = group.function("turning", ANSWER.replace("{word}", "1"), Pinned=True)
        steady = group.function("steady", ANSWER.replace("{word}", "steady"), Pinned=True)
        for arn, subject in ((turning, "ask/turning"), (steady, "ask/steady")):
            group.subscribe(thing_arn("probe"), subject, arn)
            group.subscribe(arn, "back", thing_arn("probe"))
        group.new_code("turning", ANSWER.replace("{word}", "2"))
        core.start()
        group.deploy()
        core.discover(probe)
        yield core


@dataclass
class Kills:
    """One run: which group is where, what was seen."""

    core: JoinedCore
    random: random.Random
    live: str
    word: str = "2"
    seen: Counter[str] = field(default_factory=Counter)

    @property
    def victims(self) -> dict[str, Callable[[], None]]:
        return {"daemon": self._daemon, "supervisor": self._supervisor, "control plane": self._cloud}

    def one(self) -> None:
        """A deployment, and a kill in it."""
        group = self.core.group
        word = "1" if self.word == "2" else "2"
        group.point("turning", word)
        deployment = group.begin()
        victim = self.random.choice(sorted(self.victims))
        pause = self.random.uniform(0.0, LONGEST_S)
        time.sleep(pause)
        if group.status(deployment)["DeploymentStatus"] == "InProgress":
            self.seen["in the middle"] += 1
        self.victims[victim]()
        found = group.ended(deployment, ENDED_S)
        status = found["DeploymentStatus"]
        about = f"{victim} killed after {pause:.3f} s: {found}"
        self.seen[f"{victim}: {status}"] += 1
        live = self.core.live()["id"]
        assert live == (deployment if status == "Success" else self.live), about
        if status == "Success":
            self.live, self.word = deployment, word
        else:
            assert found["ErrorMessage"], about
        assert self.answers() == {"steady", self.word}, about
        assert group.status(deployment)["DeploymentStatus"] == status

    def answers(self) -> set[str]:
        """What both functions say; they may still be starting."""
        with contextlib.closing(self._probe()) as probe:
            probe.subscribe("back", 1)
            for name in ("turning", "steady"):
                probe.publish(f"ask/{name}", "0", qos=1)
            return {probe.expect()[1].decode() for _ in range(2)}

    def _probe(self) -> Device:
        """A device that can connect: a daemon that has died often is started again after some seconds."""
        until = time.monotonic() + patience(30)
        while True:
            probe = Device(self.core, "probe")
            try:
                code = probe.connect()
            except (OSError, queue.Empty):
                code = -1
            if code == 0:
                return probe
            probe.close()
            assert time.monotonic() < until, f"the device cannot connect: {code}"
            time.sleep(0.2)

    def _daemon(self) -> None:
        dead = self.core.kill_daemon()
        eventually(lambda: not alive(dead), "the daemon is dead")

    def _supervisor(self) -> None:
        supervisor, daemon = self.core.pid, self.core.daemon_pid()
        os.kill(supervisor, signal.SIGKILL)
        eventually(lambda: not alive(supervisor) and not alive(daemon), "the core is dead")
        self.core.start()

    def _cloud(self) -> None:
        self.core.cloud.kill()
        time.sleep(self.random.uniform(0.0, 0.3))
        self.core.cloud.start()


def test_p4_row_28_a_kill_in_a_deployment_needs_no_hand(core: JoinedCore, capsys: Any) -> None:
    kills = Kills(core, random.Random(SEED), core.live()["id"])
    begun = time.monotonic()
    for number in range(KILLS):
        kills.one()
        if KILLS > 50 and number % 10 == 9:
            with capsys.disabled():
                seconds = time.monotonic() - begun
                print(
                    f"seed {SEED}: {number + 1} kills in {seconds:.0f} s: {dict(sorted(kills.seen.items()))}",
                    flush=True,
                )
    assert kills.seen.total() - kills.seen["in the middle"] == KILLS
    assert kills.seen["in the middle"] >= KILLS // 3, kills.seen
    # A single kill is no reason for a deployment to fail: it is tried again.
    assert not [name for name in kills.seen if name.endswith("Failure")], kills.seen
