"""Acceptance rows 29, 33-36, 45, 46, 53: who may talk, to whom, about what."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.e2e.harness import Core, Device, GroupFolder, a_core, eventually, run_command, thing_arn

ALPHA, BETA, GAMMA = thing_arn("alpha"), thing_arn("beta"), thing_arn("gamma")
NOT_AUTHORISED = 135  # paho reports CONNACK code 5 in MQTT 5 numbering


def group(core: Core, *, with_gamma: bool = True) -> GroupFolder:
    folder = core.folder()
    for name in ("alpha", "beta", *(["gamma"] if with_gamma else [])):
        folder.device(name)
    for subject in ("one/way", "sensor/+/input", "deep/#", "a/b", "marker", "big"):
        folder.subscribe(ALPHA, subject, BETA)
    folder.subscribe(ALPHA, "deep/twice", BETA)
    folder.subscribe("GGShadowService", "$aws/things/alpha/shadow/update/accepted", ALPHA)
    folder.subscribe(ALPHA, "up/#", "cloud")
    return folder


@pytest.fixture(scope="module")
def core() -> Iterator[Core]:
    with a_core() as core:
        core.deploy(group(core))
        core.start()
        yield core


@pytest.fixture
def alpha(core: Core) -> Iterator[Device]:
    with Device(core, "alpha") as device:
        yield device


@pytest.fixture
def beta(core: Core) -> Iterator[Device]:
    with Device(core, "beta") as device:
        device.subscribe("#", 2)
        yield device


def passes(alpha: Device, beta: Device, topic: str) -> bool:
    """Whether a message on `topic` gets from alpha to beta; a marker that passes bounds the wait."""
    alpha.publish(topic, b"probe")
    alpha.publish("marker", b"end")
    seen = []
    while (message := beta.expect())[0] != "marker":
        seen.append(message)
    return seen == [(topic, b"probe")]


def test_P1_row_29_the_table_is_the_only_permission(alpha: Device, beta: Device) -> None:
    assert passes(alpha, beta, "one/way")
    assert not passes(alpha, beta, "no/entry")
    alpha.subscribe("one/way")
    beta.publish("one/way", b"reverse", qos=1)  # acknowledged, without an error, and reaching nobody
    assert passes(alpha, beta, "one/way")
    assert alpha.received.empty()


@pytest.mark.parametrize(
    ("topic", "expected"),
    [
        ("sensor/id-123/input", True),
        ("sensor/group-a/id-123/input", False),
        ("deep/", True),
        ("deep/id-123", True),
        ("deep/a/b", True),
        ("deep", False),
    ],
)
def test_row_33_wildcards_in_the_table(alpha: Device, beta: Device, topic: str, expected: bool) -> None:
    assert passes(alpha, beta, topic) is expected


def test_row_33_two_matching_entries_deliver_once(alpha: Device, beta: Device) -> None:
    assert passes(alpha, beta, "deep/twice")


def test_row_34_a_trailing_slash_is_another_topic(alpha: Device, beta: Device) -> None:
    assert passes(alpha, beta, "a/b")
    assert not passes(alpha, beta, "a/b/")


def test_row_35_payload_limit(core: Core, alpha: Device, beta: Device) -> None:
    alpha.publish("big", bytes(128 * 1024), qos=1)
    assert beta.expect() == ("big", bytes(128 * 1024))
    alpha.publish("big", bytes(128 * 1024 + 1))
    eventually(lambda: alpha.disconnects, "the core closed the connection")
    with Device(core, "gamma"):
        pass  # others connect as before
    alpha.wait_connected()
    assert beta.disconnects == 0
    assert passes(alpha, beta, "one/way")


@pytest.mark.parametrize("topic", ["deep/" + "x" * 252, "deep/1/2/3/4/5/6/7/8"], ids=["257 bytes", "8 slashes"])
def test_row_35_topic_limits(alpha: Device, beta: Device, topic: str) -> None:
    alpha.publish(topic, b"refused")
    eventually(lambda: alpha.disconnects, "the core closed the connection")
    alpha.wait_connected()
    assert passes(alpha, beta, "one/way")


def test_row_35_the_largest_topic_passes(alpha: Device, beta: Device) -> None:
    assert passes(alpha, beta, "deep/" + "x" * 251)
    assert passes(alpha, beta, "deep/1/2/3/4/5/6/7")


def test_row_36_a_subscriber_that_was_off_misses_the_message(core: Core, alpha: Device) -> None:
    alpha.publish("one/way", b"nobody listens", qos=1)
    with Device(core, "beta") as beta:
        beta.subscribe("#")
        assert passes(alpha, beta, "one/way")


def test_row_45_another_client_id_is_refused_with_code_5(core: Core) -> None:
    intruder = Device(core, "alpha", client_id="beta")
    try:
        assert intruder.connect() == NOT_AUTHORISED
    finally:
        intruder.close()


def mosquitto_pub(core: Core, client_id: str, *credentials: str | Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [
            "mosquitto_pub",
            *("-h", "127.0.0.1", "-p", str(core.port), "--cafile", str(core.group_ca)),
            *("-i", client_id, "-t", "one/way", "-m", "by mosquitto", "-q", "1"),
            *map(str, credentials),
        ],
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )


def credentials(directory: Path) -> list[str | Path]:
    return ["--cert", next(directory.glob("*.crt")), "--key", next(directory.glob("*.key"))]


def test_row_46_unknown_certificates_are_refused(core: Core) -> None:
    stranger = core.directory / "stranger"
    run_command("cert", "device", "--self-signed", "--name", "stranger", "--out", stranger)
    assert mosquitto_pub(core, "alpha", *credentials(stranger)).returncode != 0
    assert mosquitto_pub(core, "alpha").returncode != 0


def test_mosquitto_clients_exchange_messages_through_the_group(core: Core) -> None:
    own = credentials(core.directory / "device-certificates" / "alpha")
    with Device(core, "beta") as beta:
        beta.subscribe("one/way")
        sent = mosquitto_pub(core, "alpha", *own)
        assert sent.returncode == 0, sent.stderr
        assert beta.expect() == ("one/way", b"by mosquitto")
    assert mosquitto_pub(core, "beta", *own).returncode != 0


def test_row_53_a_removed_device_cannot_connect(core: Core, alpha: Device, beta: Device) -> None:
    gamma = Device(core, "gamma")
    assert gamma.connect() == 0
    core.deploy(group(core, with_gamma=False))
    try:
        assert passes(alpha, beta, "one/way")
        assert alpha.disconnects == beta.disconnects == 0
        again = Device(core, "gamma")
        try:
            assert again.is_refused()
        finally:
            again.close()
        assert gamma.disconnects >= 1
    finally:
        gamma.close()
        core.deploy(group(core))
