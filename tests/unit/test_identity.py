"""Devices' identity: whom the control plane has ended is refused, and known as far as it is connected."""

from __future__ import annotations

import hashlib
from typing import Any

from ggfast.core.identity import DeviceIdentity
from ggfast.counters import Counters
from ggfast.group.document import Device
from ggfast.mqtt.hooks import NOT_AUTHORIZED, Accepted, ConnectInfo, Refused
from tests.unit.offline_support import ReadableLog

BASE = "arn:aws:iot:eu-west-1:123456789012:thing/"


def certificate_id(name: str) -> str:
    return hashlib.sha256(name.encode()).hexdigest()


def device(thing: str, certificate: str) -> Device:
    arn = "arn:aws:iot:eu-west-1:123456789012:cert/" + certificate_id(certificate)
    return Device(f"{thing}-{certificate}", BASE + thing, arn)


def info(thing: str, certificate: str) -> ConnectInfo:
    return ConnectInfo(thing, None, None, 4, True, "192.0.2.1:5", certificate.encode())


def identity_of(*devices: Device) -> tuple[DeviceIdentity, ReadableLog, Counters]:
    log: Any = ReadableLog()
    counters = Counters()
    found = DeviceIdentity(log, counters)
    found.set_devices(devices)
    return found, log, counters


def test_ended_certificates_are_refused_and_their_connections_known() -> None:
    identity, log, counters = identity_of(device("a", "one"), device("b", "two"), device("c", "three"))
    for thing, certificate in (("a", "one"), ("b", "two")):
        assert identity.authenticate(info(thing, certificate)) == Accepted(BASE + thing)
    ended = [certificate_id("one"), certificate_id("three"), certificate_id("unknown")]
    assert identity.set_ended(ended) == (BASE + "a",)  # c has never come in
    assert identity.set_ended(ended) == ()
    for thing, certificate in (("a", "one"), ("c", "three")):
        assert identity.authenticate(info(thing, certificate)) == Refused(NOT_AUTHORIZED)
    assert identity.authenticate(info("b", "two")) == Accepted(BASE + "b")
    assert (log.said("ended in the control plane"), counters.get("identity.refused.ended")) == (2, 2)
    assert identity.set_ended([]) == ()
    assert identity.authenticate(info("a", "one")) == Accepted(BASE + "a")


def test_a_thing_with_two_certificates_is_known_by_the_one_it_came_with() -> None:
    identity, _, _ = identity_of(device("a", "old"), device("a", "new"))
    identity.authenticate(info("a", "old"))
    identity.authenticate(info("a", "new"))
    assert identity.set_ended([certificate_id("old")]) == ()
    assert identity.set_ended([certificate_id("old"), certificate_id("new")]) == (BASE + "a",)


def test_things_that_left_the_group_are_nobodys_concern() -> None:
    identity, _, _ = identity_of(device("a", "one"), device("b", "two"))
    identity.authenticate(info("a", "one"))
    identity.set_devices([device("b", "two")])
    assert identity.set_ended([certificate_id("one")]) == ()
    identity.set_devices([device("a", "one")])
    assert identity.authenticate(info("a", "one")) == Refused(NOT_AUTHORIZED)  # a deployment makes nothing valid again
