"""The short form of `make fuzz`: the kept inputs and changes of them on the ordinary build."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests.fuzz import corpus, packets, world

REPLAY = Path(__file__).with_name("replay.py")
CHANGED = {"framing": 10_000, "session": 1_500}  # some seconds together


@pytest.mark.parametrize("target", corpus.TARGETS)
def test_p7_bytes_of_any_kind_do_no_harm(target: str, repository: Path) -> None:
    command = [sys.executable, str(REPLAY), target, "--changed", str(CHANGED[target]), "--leaks"]
    done = subprocess.run(command, cwd=repository, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert f"{len(corpus.kept(target)) + CHANGED[target]} inputs played" in done.stdout


@pytest.mark.parametrize("target", corpus.TARGETS)
def test_kept_inputs_are_short_and_different(target: str) -> None:
    kept = corpus.kept(target)
    assert 50 < len(kept) == len(set(kept))
    assert max(map(len, kept)) <= corpus.INPUT_BYTES_MAX[target]


def test_vectors_become_seeds() -> None:
    assert corpus.pattern_bytes("10 0e 0004 'MQTT' {p} 61*3 'xy'*2") == b"\x10\x0e\0\4MQTT\0\1aaaxyxy"
    assert len(corpus.seeds("framing")) > 100 < len(corpus.seeds("session"))


def test_the_world_notices() -> None:
    """A broker that answers with part of a packet, or that fails inside, does not pass."""
    with pytest.raises(AssertionError, match="part of a packet"):
        list(packets.frames(b"\xd0\x00\x40\x02\x00"))
    player = world.Player(world.Script(b"\x00"))
    player.world.counters.add("broker.closed.internal_error")
    with pytest.raises(AssertionError):
        player.finish()
    undisturbed = world.Player(world.Script(b"\x00"))
    undisturbed.bystander.transport.close()
    with pytest.raises(AssertionError, match="bystander"):
        undisturbed.finish()
    for left in (player, undisturbed):
        left.world.broker.close()
        left.world.loop.run()
