"""Policy documents: what is understood, what is refused, what they decide, and what hostile ones cost."""

from __future__ import annotations

import json
import time
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ggfast.cloud.policy import PolicyDocument, decide
from tests.model import policies as model

TOPIC = "arn:aws:iot:eu-west-1:123456789012:topic/"


def document(*statements: dict[str, Any], version: str = "2012-10-17") -> PolicyDocument:
    return PolicyDocument.parse(json.dumps({"Version": version, "Statement": list(statements)}))


def allow(action: Any = "*", resource: Any = "*", **more: Any) -> dict[str, Any]:
    return {"Effect": "Allow", "Action": action, "Resource": resource, **more}


def deny(action: Any = "*", resource: Any = "*", **more: Any) -> dict[str, Any]:
    return allow(action, resource, **more) | {"Effect": "Deny"}


@pytest.mark.parametrize(
    ("pattern", "resource", "fits"),
    [
        ("*", "", True),
        ("a", "a", True),
        ("a", "A", False),
        ("a*", "a", True),
        ("a?", "a", False),
        ("a?c", "abc", True),
        ("*a*b*", "xxaxxbxx", True),
        ("ab*ab", "ab", False),
        ("ab*ab", "abab", True),
        ("*?b?*", "abc", True),
        ("*?b?*", "ab", False),
        ("a*b?d*e", "axxbbddbcdxe", True),
        (TOPIC + "+/#", TOPIC + "a/b", False),
        (TOPIC + "+/#", TOPIC + "+/#", True),
        (TOPIC + "ü*", TOPIC + "üß", True),
    ],
)
def test_resources_match_with_wildcards(pattern: str, resource: str, fits: bool) -> None:
    assert decide([document(allow("iot:Publish", pattern))], "iot:Publish", resource) is fits


@pytest.mark.parametrize(
    ("pattern", "resource", "fits"),
    [
        ("arn:aws:iot:*:*:topic/a", TOPIC + "a", True),
        ("arn:aws:iot:*:*:topic/a", TOPIC + "secret:topic/a", False),
        ("arn:aws:iot:eu-west-1:*:topic/${iot:ClientId}", TOPIC + "secret:topic/x:y", False),
        ("arn:aws:iot:eu-west-1:*:topic/${iot:ClientId}", TOPIC + "x:y", True),
        ("arn:aws:iot:eu-west-?:123456789012:topic/*:b", TOPIC + "a:a:b", True),
        ("arn:aws:iot:*", TOPIC + "a:b", True),
        ("arn:aws:iot*", TOPIC + "a", True),
        ("arn:aws:iot:*:topic/a", TOPIC + "a", False),
        ("arn:aws:i?t:eu-west-1?123456789012:topic/a", TOPIC + "a", False),
        ("*:topic/a", TOPIC + "b:topic/a", True),
    ],
)
def test_wildcards_of_arns_end_at_colons(pattern: str, resource: str, fits: bool) -> None:
    """Where that leaves a doubt, an Allow does not count and a Deny does."""
    context = {"iot:ClientId": "x:y"}
    assert decide([document(allow("iot:A", pattern))], "iot:A", resource, context) is fits
    denied = [document(allow(), deny("iot:A", pattern))]
    assert decide(denied, "iot:A", resource, context) is False
    assert decide(denied, "iot:A", TOPIC + "other", context) is (pattern not in ("arn:aws:iot:*", "arn:aws:iot*"))
    for operator in ("ArnLike", "ArnEquals"):
        held = [document(allow(Condition={operator: {"aws:SourceArn": pattern}}))]
        assert decide(held, "iot:A", "r", context | {"aws:SourceArn": resource}) is fits


def test_actions_match_whatever_their_case() -> None:
    held = [document(allow(["iot:Pub*", "GREENGRASS:discover"]))]
    assert decide(held, "IOT:publish", "x") and decide(held, "greengrass:Discover", "x")
    assert not decide(held, "iot:Subscribe", "x") and not decide(held, "s3:Publish", "x")


def test_a_deny_wins_wherever_it_stands() -> None:
    held = [document(allow()), document(allow(), deny("iot:Publish", TOPIC + "secret"))]
    assert decide(held, "iot:Publish", TOPIC + "open")
    assert not decide(held, "iot:Publish", TOPIC + "secret")
    assert not decide([], "iot:Publish", "x")


def test_not_action_and_not_resource() -> None:
    held = [document({"Effect": "Allow", "NotAction": "iam:*", "NotResource": [TOPIC + "a", TOPIC + "b*"]})]
    assert decide(held, "iot:Publish", TOPIC + "c")
    assert not decide(held, "iot:Publish", TOPIC + "bc") and not decide(held, "iam:GetRole", TOPIC + "c")


def test_values_of_variables_are_no_wildcards() -> None:
    held = [document(allow("iot:Publish", TOPIC + "${iot:ClientId}/*"))]
    assert decide(held, "iot:Publish", TOPIC + "*/x", {"iot:ClientId": "*"})
    assert not decide(held, "iot:Publish", TOPIC + "other/x", {"iot:ClientId": "*"})
    assert not decide(held, "iot:Publish", TOPIC + "ab/x", {"iot:ClientId": "a?"})
    assert decide(held, "iot:Publish", TOPIC + "${iot:ClientId}/x", {"iot:ClientId": "${iot:ClientId}"})


def test_variables_of_things_and_their_attributes() -> None:
    held = [document(allow("iot:*", TOPIC + "${iot:Connection.Thing.Attributes[Site]}/${aws:SourceIp, 'none'}"))]
    context = {"iot:Connection.Thing.Attributes[Site]": "x"}
    assert decide(held, "iot:Publish", TOPIC + "x/none", context)
    assert not decide(held, "iot:Publish", TOPIC + "x/none", {"iot:Connection.Thing.Attributes[site]": "x"})
    assert decide([document(allow("iot:*", "${IOT:clientid}"))], "iot:Publish", "x", {"iot:ClientId": "x"}), (
        "keys are found whatever their case"
    )


def test_escaped_characters_and_the_old_version_stand_for_themselves() -> None:
    held = [document(allow("iot:*", "a${*}${?}${$}"))]
    assert decide(held, "iot:X", "a*?$") and not decide(held, "iot:X", "abbb")
    assert decide([document(allow("iot:*", "${a}"), version="2008-10-17")], "iot:X", "${a}")


def test_a_variable_without_a_value_allows_nothing_and_denies_what_it_might() -> None:
    name = TOPIC + "${iot:Connection.Thing.ThingName}"
    assert not decide([document(allow("iot:*", name))], "iot:Publish", TOPIC)
    assert decide([document(allow("iot:*", [name, TOPIC + "shared"]))], "iot:Publish", TOPIC + "shared")
    held = [document(allow(), deny("iot:*", name + "/x"))]
    assert not decide(held, "iot:Publish", TOPIC + "a/x")
    assert decide(held, "iot:Publish", TOPIC + "a/y")
    held = [document(allow(), {"Effect": "Deny", "Action": "*", "NotResource": name})]
    assert not decide(held, "iot:Publish", TOPIC + "a")


@pytest.mark.parametrize(
    ("operator", "expected", "value", "truth"),
    [
        ("StringEquals", ["b", "a"], "a", True),
        ("StringEquals", "a*", "ab", False),
        ("StringEqualsIgnoreCase", "A", "a", True),
        ("StringLike", "a*", "ab", True),
        ("StringNotEquals", ["a", "b"], "b", False),
        ("StringNotEquals", ["a", "b"], "c", True),
        ("StringNotLike", "a*", "b", True),
        ("ForAnyValue:StringLike", ["x", "a?"], "ab", True),
        ("ForAllValues:StringEquals", ["x", "a"], "a", True),
        ("ArnLike", "arn:*:a", "arn:x:a", True),
        ("ArnNotEquals", "arn:*:a", "arn:x:a", False),
        ("Bool", "true", "True", True),
        ("Bool", True, "false", False),
        ("NumericLessThan", "10", "9", True),
        ("NumericGreaterThanEquals", 10, "9.5", False),
        ("NumericNotEquals", 10, "9.5", True),
        ("DateLessThan", "2030-01-01T00:00:00Z", "2026-01-01T00:00:00Z", True),
        ("DateGreaterThan", "2030-01-01T00:00:00Z", "1893456001", True),
        ("IpAddress", ["10.0.0.0/8", "::1"], "10.1.2.3", True),
        ("NotIpAddress", "10.0.0.0/8", "10.1.2.3", False),
        ("Null", "false", "x", True),
        ("Null", True, "x", False),
        ("StringEqualsIfExists", "a", "b", False),
        ("StringEquals", "${iot:ClientId}", "me", True),
    ],
)
def test_conditions(operator: str, expected: Any, value: str, truth: bool) -> None:
    condition = {operator: {"aws:Key": expected}}
    context = {"aws:key": value, "iot:ClientId": "me"}
    assert decide([document(allow(Condition=condition))], "iot:X", "r", context) is truth
    assert decide([document(allow(), deny(Condition=condition))], "iot:X", "r", context) is not truth


@pytest.mark.parametrize(
    ("operator", "expected", "context"),
    [
        ("StringEquals", "a", {}),
        ("StringNotEquals", "a", {}),
        ("ForAllValues:StringEquals", "a", {}),
        ("Bool", "true", {}),
        ("Bool", "true", {"k": "maybe"}),
        ("NumericEquals", "1", {"k": "one"}),
        ("NumericEquals", "nan", {"k": "1"}),
        ("DateEquals", "yesterday", {"k": "1"}),
        ("IpAddress", "10.0.0.0/99", {"k": "10.0.0.1"}),
        ("StringResembles", "a", {"k": "a"}),
        ("NotStringEquals", "a", {"k": "b"}),
        ("NumericNotLessThan", "1", {"k": "2"}),
        ("StringEquals", "${iot:ClientId}", {"k": "a"}),
    ],
)
def test_what_is_not_known_is_refused(operator: str, expected: str, context: dict[str, str]) -> None:
    condition = {operator: {"k": expected}}
    assert not decide([document(allow(Condition=condition))], "iot:X", "r", context)
    assert not decide([document(allow(), deny(Condition=condition))], "iot:X", "r", context)


def test_keys_that_may_be_missing() -> None:
    for operator, expected in (("StringEqualsIfExists", "a"), ("Null", "true"), ("BoolIfExists", "true")):
        assert decide([document(allow(Condition={operator: {"k": expected}}))], "iot:X", "r")


def test_all_conditions_must_hold() -> None:
    held = [document(allow(Condition={"StringEquals": {"a": "1", "b": "2"}, "Bool": {"c": "true"}}))]
    assert decide(held, "iot:X", "r", {"a": "1", "b": "2", "c": "true"})
    assert not decide(held, "iot:X", "r", {"a": "1", "b": "3", "c": "true"})


def test_a_trust_policy_needs_no_resource() -> None:
    text = '{"Statement": {"Effect": "Allow", "Principal": {"Service": "greengrass.amazonaws.com"}, "Action": "sts:*"}}'
    assert decide([PolicyDocument.parse(text)], "sts:AssumeRole", "arn:aws:iam::1:role/a")


@pytest.mark.parametrize(
    "text",
    [
        "",
        "nothing",
        "[]",
        "1",
        "null",
        "{}",
        "{" * 5_000,
        '{"a":' * 500 + "1" + "}" * 500,
        " " * 30_000,
        "\ud800",
        '{"Statement": []}',
        '{"Statement": "x"}',
        '{"Statement": [1]}',
        '{"Version": "2013-01-01", "Statement": [{"Effect":"Allow","Action":"*","Resource":"*"}]}',
        '{"Version": ["2012-10-17"], "Statement": [{"Effect":"Allow","Action":"*","Resource":"*"}]}',
        '{"More": 1, "Statement": [{"Effect":"Allow","Action":"*","Resource":"*"}]}',
        '{"Statement": [{"Effect":"allow","Action":"*","Resource":"*"}]}',
        '{"Statement": [{"Effect":["Allow"],"Action":"*","Resource":"*"}]}',
        '{"Statement": [{"Action":"*","Resource":"*"}]}',
        '{"Statement": [{"Effect":"Allow","Resource":"*"}]}',
        '{"Statement": [{"Effect":"Allow","Action":"*"}]}',
        '{"Statement": [{"Effect":"Allow","Action":"*","NotAction":"iot:*","Resource":"*"}]}',
        '{"Statement": [{"Effect":"Allow","Action":[],"Resource":"*"}]}',
        '{"Statement": [{"Effect":"Allow","Action":[1],"Resource":"*"}]}',
        '{"Statement": [{"Effect":"Allow","Action":"Publish","Resource":"*"}]}',
        '{"Statement": [{"Effect":"Allow","Action":"*","Resource":""}]}',
        '{"Statement": [{"Effect":"Allow","Action":"*","Resource":{"a":1}}]}',
        '{"Statement": [{"Effect":"Allow","Action":"*","Resource":"*","Extra":1}]}',
        '{"Statement": [{"Effect":"Allow","Action":"*","Resource":"*","Sid":1}]}',
        '{"Statement": [{"Effect":"Allow","Action":"*","Resource":"*","Condition":[]}]}',
        '{"Statement": [{"Effect":"Allow","Action":"*","Resource":"*","Condition":{"Bool":1}}]}',
        '{"Statement": [{"Effect":"Allow","Action":"*","Resource":"*","Condition":{"Bool":{"a":{}}}}]}',
        '{"Version": "2012-10-17", "Statement": [{"Effect":"Allow","Action":"*","Resource":"${a"}]}',
        '{"Version": "2012-10-17", "Statement": [{"Effect":"Allow","Action":"*","Resource":"${}"}]}',
        '{"Version": "2012-10-17", "Statement": [{"Effect":"Allow","Action":"*","Resource":"${a,b}"}]}',
        json.dumps({"Statement": [{"Effect": "Allow", "Action": "*", "Resource": "a" * 2_049}]}),
        json.dumps({"Statement": [{"Effect": "Allow", "Action": "*", "Resource": ["a"] * 501}]}),
        json.dumps({"Statement": [{"Effect": "Allow", "Action": "*", "Resource": "a"}] * 201}),
    ],
)
def test_documents_that_are_none(text: str) -> None:
    with pytest.raises(ValueError) as caught:
        PolicyDocument.parse(text)
    assert str(caught.value) and len(str(caught.value)) < 600


@pytest.mark.parametrize("unit", ["*a", "*a?", "?*", "*?a?", "*aaaaaaab", "*" + "a?" * 20])
def test_hostile_patterns_cost_little(unit: str) -> None:
    pattern = (unit * 2_048)[:2_000] + "*b"
    held = [document(*[allow("iot:*", [pattern, pattern + "c", pattern + "d"])] * 3)]
    begin = time.process_time()
    assert decide(held, "iot:Publish", "a" * 2_048) is False
    assert time.process_time() - begin < 1.0


TEXTS = st.text("ab*", max_size=4)
PATTERNS = st.lists(st.sampled_from(["a", "b", "*", "?", "${x}", "${y}"]), max_size=5).map("".join)
STATEMENTS = st.fixed_dictionaries(
    {"Effect": st.sampled_from(["Allow", "Deny"])},
    optional={
        "Condition": st.dictionaries(
            st.sampled_from(["StringEquals", "StringNotEquals", "StringLike", "StringNotLike"]),
            st.dictionaries(st.sampled_from(["x", "z"]), st.lists(PATTERNS, min_size=1, max_size=2), min_size=1),
            max_size=1,
        )
    },
)
LISTED = st.lists(PATTERNS.filter(bool), min_size=1, max_size=2)


@st.composite
def documents(draw: st.DrawFn) -> str:
    statements = []
    for _ in range(draw(st.integers(1, 2))):
        statement = draw(STATEMENTS)
        statement[draw(st.sampled_from(["Action", "NotAction"]))] = draw(st.sampled_from(["*", "iot:A?", "IOT:b*"]))
        statement[draw(st.sampled_from(["Resource", "NotResource"]))] = draw(LISTED)
        statements.append(statement)
    return json.dumps({"Version": "2012-10-17", "Statement": statements})


@settings(max_examples=150, deadline=None)
@given(PATTERNS, st.text("ab*", max_size=7), TEXTS, TEXTS)
def test_patterns_match_as_their_twin_does(pattern: str, text: str, x: str, y: str) -> None:
    if pattern:
        values = {"x": x, "y": y}
        found = decide([document(allow("iot:A", pattern))], "iot:A", text, values)
        assert found is model.glob(pattern, text, values)


@settings(max_examples=150, deadline=None)
@given(
    st.lists(documents(), max_size=2),
    st.sampled_from(["iot:ab", "IOT:B"]),
    st.text("ab", max_size=4),
    st.dictionaries(st.sampled_from(["x", "y", "z"]), TEXTS),
)
def test_decisions_are_never_wider_than_their_twins(
    texts: list[str], action: str, resource: str, context: dict[str, str]
) -> None:
    """With every value known they are the same; with unknown ones never more is allowed than for all of the values."""
    found = decide([PolicyDocument.parse(text) for text in texts], action, resource, context)
    expected = model.decide(texts, action, resource, context, ["", "a", "b", "ab", "q"])
    if {"x", "y", "z"} <= set(context):
        assert found is expected
    else:
        assert expected or not found
