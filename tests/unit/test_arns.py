"""Resource names: what is one, what is not, and that building undoes parsing."""

from __future__ import annotations

import pytest

from ggfast.arns import (
    IP_DETECTOR_ARN,
    ROUTER_ARN,
    SPOOLER_ARN,
    STREAM_MANAGER_ARN,
    FunctionArn,
    GroupArn,
    ThingArn,
    certificate_id,
)

THING = "arn:aws:iot:eu-west-1:123456789012:thing/my_core"
FUNCTION = "arn:aws:lambda:us-gov-west-1:123456789012:function:hello-world:12"
GROUP = "arn:aws-cn:greengrass:cn-north-1:123456789012:/greengrass/groups/a-b/versions/c-d"


def test_thing() -> None:
    arn = ThingArn.parse(THING)
    assert (arn.partition, arn.region, arn.account, arn.name) == ("aws", "eu-west-1", "123456789012", "my_core")
    assert str(arn) == THING


def test_function() -> None:
    arn = FunctionArn.parse(FUNCTION)
    assert (arn.name, arn.qualifier, arn.is_system) == ("hello-world", "12", False)
    assert str(arn) == FUNCTION
    assert arn.unqualified == FUNCTION.removesuffix(":12")
    assert FunctionArn.parse(FUNCTION.removesuffix(":12")).qualifier == ""
    assert FunctionArn.parse(FUNCTION.removesuffix("12") + "$LATEST").qualifier == "$LATEST"


@pytest.mark.parametrize("text", [ROUTER_ARN, SPOOLER_ARN, IP_DETECTOR_ARN, STREAM_MANAGER_ARN])
def test_system_functions(text: str) -> None:
    arn = FunctionArn.parse(text)
    assert arn.is_system
    assert str(arn) == text


def test_group() -> None:
    arn = GroupArn.parse(GROUP)
    assert (arn.group_id, arn.version_id) == ("a-b", "c-d")
    assert str(arn) == GROUP
    assert GroupArn.parse(GROUP.partition("/versions")[0]).version_id == ""


@pytest.mark.parametrize(
    "text",
    [
        "",
        "my_core",
        THING + "\n",
        THING.replace("/my_core", "/"),
        THING.replace("my_core", "a/b"),
        THING.replace("aws", "gcp"),
        THING.replace("123456789012", "12345678901"),
        THING.replace("my_core", "x" * 129),
        THING.replace("123456789012", "12345678901２"),
    ],
)
def test_not_a_thing(text: str) -> None:
    with pytest.raises(ValueError, match="not a thing ARN"):
        ThingArn.parse(text)


@pytest.mark.parametrize(
    "text",
    [
        "",
        THING,
        FUNCTION + ":x",
        FUNCTION.replace("hello-world", "../x"),
        FUNCTION.replace("hello-world", ""),
        FUNCTION.replace("us-gov-west-1", ""),
        FUNCTION.replace("123456789012", ""),
        FUNCTION + "\n",
        FUNCTION.removesuffix("12"),
        FUNCTION.replace("hello-world", "a/b"),
    ],
)
def test_not_a_function(text: str) -> None:
    with pytest.raises(ValueError, match="not a function ARN"):
        FunctionArn.parse(text)


@pytest.mark.parametrize("text", ["", GROUP + "/x", GROUP.replace("groups", "group"), GROUP.replace("a-b", "a_b")])
def test_not_a_group(text: str) -> None:
    with pytest.raises(ValueError, match="not a Greengrass group ARN"):
        GroupArn.parse(text)


def test_certificate_id() -> None:
    digest = "0123456789abcdef" * 4
    assert certificate_id(f"arn:aws:iot:eu-west-1:123456789012:cert/{digest}") == digest
    for wrong in (digest, f"arn:aws:iot:eu-west-1:123456789012:cert/{digest.upper()}", "arn:aws:iot:x:1:cert/"):
        with pytest.raises(ValueError, match="not a certificate ARN"):
            certificate_id(wrong)
