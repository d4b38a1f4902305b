"""Access keys: made, found, switched off, removed; sessions; how failures are counted."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from cloud_desk import ACCOUNT, Desk

from ggfast.cloud import limits
from ggfast.cloud.access import Access, Identity
from ggfast.cloud.credentials import issue
from ggfast.cloud.keys import ADMINISTRATOR_POLICY, all_keys, delete_key, find_key, make_key, open_secret, set_active
from ggfast.cloud.links import artifact_link, link_is_good
from ggfast.cloud.rates import Rates
from ggfast.cloud.signing import Claim, NotBelieved, Reason
from ggfast.errors import ConfigError

HEADERS = {"host": "h", "x-amz-date": "x"}


class Bench:
    def __init__(self, folder: Path) -> None:
        self.desk = Desk(folder)

        async def make() -> Access:
            return Access(self.desk.cloud, self.desk.store)

        self.access = self.desk.runner.run(make())

    def make(self, name: str = "bob", policy: str = ADMINISTRATOR_POLICY) -> tuple[str, str]:
        sealer = self.desk.cloud.sealer
        return self.desk.change(lambda tx: make_key(tx, sealer, ACCOUNT, name, policy, self.desk.clock.now))

    def identify(self, key_id: str, token: str = "", source: str = "1.1.1.1") -> Identity:
        now = self.desk.clock.now
        date = "20260921"
        claim = Claim(key_id, date, "eu-west-1", "iot", ("host", "x-amz-date"), "", f"{date}T000000Z", now, token)
        return self.desk.runner.run(self.access.identify(claim, HEADERS, source))

    def refused(self, key_id: str, token: str = "", source: str = "1.1.1.1") -> Reason:
        with pytest.raises(NotBelieved) as refused:
            self.identify(key_id, token, source)
        return refused.value.reason


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[Bench]:
    found = Bench(tmp_path)
    yield found
    found.desk.close()


def test_a_key_is_found_with_its_policy(bench: Bench) -> None:
    policy = {"Version": "2012-10-17", "Statement": {"Effect": "Allow", "Action": "iot:Get*", "Resource": "*"}}
    key_id, secret = bench.make(policy=json.dumps(policy))
    assert (len(key_id), key_id[:4], len(secret)) == (20, "AKIA", 40)
    found = bench.identify(key_id)
    assert found.secret == secret.encode()
    assert found.principal.arn == f"arn:aws:iam::{ACCOUNT}:user/bob"
    assert found.principal.allows("iot:GetPolicy", "arn:aws:iot:x:1:policy/p")
    assert not found.principal.allows("iot:DeletePolicy", "arn:aws:iot:x:1:policy/p")
    stored = bench.desk.look(lambda tx: tx.get("access-keys", ACCOUNT, key_id))
    assert secret not in json.dumps(stored)
    key = bench.desk.look(lambda tx: find_key(tx, ACCOUNT, key_id))
    assert key is not None and open_secret(bench.desk.cloud.sealer, key) == secret.encode()


def test_unknown_inactive_and_removed_keys(bench: Bench) -> None:
    key_id, _ = bench.make()
    assert bench.refused("AKIA" + "A" * 16) is Reason.UNKNOWN_KEY
    bench.identify(key_id)
    assert bench.desk.change(lambda tx: set_active(tx, ACCOUNT, key_id, False))
    assert bench.refused(key_id) is Reason.UNKNOWN_KEY
    assert bench.desk.change(lambda tx: set_active(tx, ACCOUNT, key_id, True))
    bench.identify(key_id)
    assert bench.desk.change(lambda tx: delete_key(tx, ACCOUNT, "bob")) == key_id
    assert bench.refused(key_id) is Reason.UNKNOWN_KEY
    assert bench.desk.change(lambda tx: delete_key(tx, ACCOUNT, "bob")) is None
    assert not bench.desk.change(lambda tx: set_active(tx, ACCOUNT, key_id, True))


def test_a_change_by_another_process_is_seen_soon(bench: Bench) -> None:
    key_id, _ = bench.make()
    bench.identify(key_id)
    bench.desk.change(lambda tx: tx.delete("access-keys", ACCOUNT, key_id))  # tells nobody
    bench.desk.clock.now += limits.KEY_CACHED_S
    assert bench.refused(key_id) is Reason.UNKNOWN_KEY


def test_names_and_policies_are_checked(bench: Bench) -> None:
    bench.make()
    for name, policy in (("bob", ADMINISTRATOR_POLICY), ("a/b", ADMINISTRATOR_POLICY), ("", "{}"), ("eve", "{}")):
        with pytest.raises(ConfigError):
            bench.make(name, policy)
    assert [key.name for key in bench.desk.look(lambda tx: list(all_keys(tx, ACCOUNT)))] == ["bob"]


def test_session_of_a_key(bench: Bench) -> None:
    key_id, _ = bench.make()
    keys = issue(bench.desk.cloud, "", "", 900, parent_key_id=key_id)
    found = bench.identify(keys["AccessKeyId"], keys["SessionToken"])
    assert found.secret == keys["SecretAccessKey"].encode()
    assert found.principal.arn == f"arn:aws:iam::{ACCOUNT}:user/bob"
    assert found.rate == bench.identify(key_id).rate == key_id, "more sessions are not more requests"
    assert bench.refused(key_id, keys["SessionToken"]) is Reason.UNKNOWN_KEY
    assert bench.refused(keys["AccessKeyId"], keys["SessionToken"][:-8]) is Reason.UNKNOWN_KEY
    assert bench.refused(keys["AccessKeyId"]) is Reason.UNKNOWN_KEY
    bench.desk.clock.now += 901
    assert bench.refused(keys["AccessKeyId"], keys["SessionToken"]) is Reason.EXPIRED_TOKEN


def test_failures_are_limited_by_address_and_known_keys_go_on(bench: Bench) -> None:
    key_id, _ = bench.make()
    reasons = [bench.refused("AKIA" + "A" * 16) for _ in range(int(limits.FAILED_SIGNATURES_BURST) + 2)]
    assert reasons[0] is Reason.UNKNOWN_KEY
    assert reasons[-1] is Reason.THROTTLED
    assert bench.refused("AKIA" + "A" * 16, source="2.2.2.2") is Reason.UNKNOWN_KEY
    assert bench.access.failed == len(reasons) + 1
    bench.identify(key_id, source="2.2.2.2")
    bench.identify(key_id)  # opened already: its holder shares the address of who guesses


def test_rates_refill_and_forget() -> None:
    class Hands:
        now = 0.0

        def monotonic(self) -> float:
            return self.now

        wall = monotonic

    clock = Hands()
    rates = Rates(clock, 2.0, 3.0, 2)
    assert [rates.take("a") for _ in range(4)] == [True, True, True, False]
    clock.now = 0.5
    assert rates.has("a") and rates.take("a") and not rates.take("a")
    rates.take("b")
    rates.take("c")
    assert rates.has("a")  # forgotten: two names are remembered


def test_links_end_and_fit_one_artifact(bench: Bench) -> None:
    from urllib.parse import unquote

    cloud = bench.desk.cloud
    token = unquote(artifact_link(cloud, "ab", 60).partition("token=")[2])
    assert link_is_good(cloud, "ab", token)
    assert not link_is_good(cloud, "ac", token)
    assert not link_is_good(cloud, "ab", token[:-4])
    bench.desk.clock.now += 61
    assert not link_is_good(cloud, "ab", token)
