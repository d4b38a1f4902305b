"""Secrets Manager: answers as the model says, each refusal, staging labels, the end of secrets."""

from __future__ import annotations

import base64
import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from cloud_desk import ACCOUNT, REGION, Desk
from cloud_shapes_check import conforms

from ggfast.cloud.limits import SECRET_VERSIONS_MAX
from ggfast.cloud.operations import Principal
from ggfast.cloud.secrets import SECRETS
from ggfast.cloud.secrets.store import COLLECTION, VERSIONS, get_value

HOME = f"{ACCOUNT}/{REGION}"
DAY = 86_400


@pytest.fixture
def desk(tmp_path: Path) -> Iterator[Desk]:
    desk = Desk(tmp_path, SECRETS)
    yield desk
    desk.close()


def asked(desk: Desk, operation: str, **members: Any) -> dict[str, Any]:
    answer = desk.call(operation, **members)
    conforms("secretsmanager", operation, answer)
    return answer


def token(number: int) -> str:
    return f"{number:032d}"


def test_values_by_name_and_arn(desk: Desk) -> None:
    made = asked(desk, "CreateSecret", Name="greengrass-a", SecretString="sesame", ClientRequestToken=token(1))
    arn = made["ARN"]
    prefix = f"arn:aws:secretsmanager:{REGION}:{ACCOUNT}:secret:greengrass-a"
    assert arn[:-7] == prefix and made["VersionId"] == token(1)
    for secret_id in ("greengrass-a", arn, prefix):
        got = asked(desk, "GetSecretValue", SecretId=secret_id)
        assert got["SecretString"] == "sesame" and got["VersionStages"] == ["AWSCURRENT"]
    for secret_id in (prefix + "-aaaaaa", "greengrass", arn.replace(REGION, "us-east-1"), "../a", arn + "x"):
        assert desk.refused("GetSecretValue", SecretId=secret_id).code == "ResourceNotFoundException"
    assert desk.refused("GetSecretValue", SecretId="greengrass-a", region="us-east-1").status == 400
    again = {"Name": "greengrass-a", "SecretString": "sesame", "ClientRequestToken": token(1)}
    assert desk.call("CreateSecret", **again) == made
    for changed in ({"SecretString": "other"}, {"ClientRequestToken": token(2)}):
        assert desk.refused("CreateSecret", **(again | changed)).code == "ResourceExistsException"


def test_names_that_end_like_arns(desk: Desk) -> None:
    short = asked(desk, "CreateSecret", Name="a", SecretString="1")["ARN"]
    suffix = short[-7:]
    long = asked(desk, "CreateSecret", Name="a" + suffix, SecretString="2")["ARN"]
    assert desk.call("GetSecretValue", SecretId=short)["SecretString"] == "1"
    assert desk.call("GetSecretValue", SecretId=long)["SecretString"] == "2"


def test_binary(desk: Desk) -> None:
    asked(desk, "CreateSecret", Name="b", SecretBinary=base64.b64encode(b"\0\xff").decode())
    assert asked(desk, "GetSecretValue", SecretId="b")["SecretBinary"] == "AP8="
    found = desk.look(lambda tx: get_value(tx, desk.cloud, HOME, "b"))
    assert found is not None and found.value == b"\0\xff" and found.binary and "xff" not in repr(found)


def test_versions_and_staging_labels(desk: Desk) -> None:
    asked(desk, "CreateSecret", Name="s", SecretString="1", ClientRequestToken=token(1))
    put = asked(desk, "PutSecretValue", SecretId="s", SecretString="2", ClientRequestToken=token(2))
    assert put["VersionStages"] == ["AWSCURRENT"]
    assert desk.call("PutSecretValue", SecretId="s", SecretString="2", ClientRequestToken=token(2)) == put
    fault = desk.refused("PutSecretValue", SecretId="s", SecretString="x", ClientRequestToken=token(2))
    assert fault.code == "ResourceExistsException"
    assert desk.call("GetSecretValue", SecretId="s", VersionStage="AWSPREVIOUS")["SecretString"] == "1"
    assert desk.call("GetSecretValue", SecretId="s", VersionId=token(1))["SecretString"] == "1"
    asked(desk, "PutSecretValue", SecretId="s", SecretString="3", ClientRequestToken=token(3), VersionStages=["next"])
    assert desk.call("GetSecretValue", SecretId="s")["SecretString"] == "2"
    assert asked(desk, "DescribeSecret", SecretId="s")["VersionIdsToStages"] == {
        token(1): ["AWSPREVIOUS"],
        token(2): ["AWSCURRENT"],
        token(3): ["next"],
    }
    move: dict[str, Any] = {"SecretId": "s", "VersionStage": "AWSCURRENT"}
    for wrong in (
        {},
        {"MoveToVersionId": token(3)},
        {"RemoveFromVersionId": token(3)},
        {"RemoveFromVersionId": token(2)},
    ):
        assert desk.refused("UpdateSecretVersionStage", **move, **wrong).code == "InvalidParameterException"
    missing = {"RemoveFromVersionId": token(2), "MoveToVersionId": token(9)}
    assert desk.refused("UpdateSecretVersionStage", **move, **missing).code == "ResourceNotFoundException"
    asked(desk, "UpdateSecretVersionStage", **move, RemoveFromVersionId=token(2), MoveToVersionId=token(3))
    assert desk.call("GetSecretValue", SecretId="s", VersionStage="AWSPREVIOUS")["SecretString"] == "2"
    asked(desk, "UpdateSecretVersionStage", SecretId="s", VersionStage="next", RemoveFromVersionId=token(3))
    assert len(asked(desk, "ListSecretVersionIds", SecretId="s")["Versions"]) == 2
    assert len(desk.all("ListSecretVersionIds", "Versions", SecretId="s", IncludeDeprecated=True, MaxResults=1)) == 3
    for wanted in ({"VersionStage": "no"}, {"VersionId": token(9)}):
        assert desk.refused("GetSecretValue", SecretId="s", **wanted).code == "ResourceNotFoundException"
    fault = desk.refused("GetSecretValue", SecretId="s", VersionId=token(1), VersionStage="AWSCURRENT")
    assert fault.code == "InvalidParameterException"


def test_update_and_old_versions(desk: Desk) -> None:
    asked(desk, "CreateSecret", Name="u", Description="d", Tags=[{"Key": "k", "Value": "v"}])
    assert desk.refused("GetSecretValue", SecretId="u").code == "ResourceNotFoundException"
    assert "VersionId" not in asked(desk, "UpdateSecret", SecretId="u", Description="e")
    first = asked(desk, "PutSecretValue", SecretId="u", SecretString="x", VersionStages=["mine"])
    assert set(first["VersionStages"]) == {"mine", "AWSCURRENT"}
    for number in range(SECRET_VERSIONS_MAX + 5):
        desk.call("UpdateSecret", SecretId="u", SecretString=str(number))
    secret = asked(desk, "DescribeSecret", SecretId="u")
    assert secret["Description"] == "e" and first["VersionId"] in secret["VersionIdsToStages"]
    assert desk.look(lambda tx: tx.count(VERSIONS, secret["ARN"])) == SECRET_VERSIONS_MAX
    labels = [f"l{n}" for n in range(20)]
    assert desk.refused("PutSecretValue", SecretId="u", SecretString="y", VersionStages=labels).code == (
        "LimitExceededException"
    )


def test_secrets_end(desk: Desk) -> None:
    first = asked(desk, "CreateSecret", Name="e", SecretString="1")["ARN"]
    assert asked(desk, "DeleteSecret", SecretId="e", RecoveryWindowInDays=7)["DeletionDate"] == desk.clock.now + 7 * DAY
    for operation, members in (
        ("GetSecretValue", {"SecretId": "e"}),
        ("PutSecretValue", {"SecretId": "e", "SecretString": "x"}),
        ("DeleteSecret", {"SecretId": "e"}),
        ("CreateSecret", {"Name": "e"}),
    ):
        assert desk.refused(operation, **members).code == "InvalidRequestException", operation
    assert asked(desk, "DescribeSecret", SecretId="e")["DeletedDate"] == desk.clock.now
    assert asked(desk, "ListSecrets")["SecretList"] == []
    assert len(asked(desk, "ListSecrets", IncludePlannedDeletion=True)["SecretList"]) == 1
    assert desk.look(lambda tx: get_value(tx, desk.cloud, HOME, "e")) is None
    asked(desk, "RestoreSecret", SecretId="e")
    assert desk.refused("RestoreSecret", SecretId="e").code == "InvalidRequestException"
    assert desk.call("GetSecretValue", SecretId="e")["SecretString"] == "1"
    asked(desk, "DeleteSecret", SecretId="e")
    desk.clock.now += 30 * DAY
    assert desk.refused("RestoreSecret", SecretId="e").code == "ResourceNotFoundException"
    assert asked(desk, "ListSecrets", IncludePlannedDeletion=True)["SecretList"] == []
    second = asked(desk, "CreateSecret", Name="e", SecretString="2")["ARN"]
    assert second != first and desk.look(lambda tx: tx.count(VERSIONS, first)) == 0
    both = {"SecretId": "e", "ForceDeleteWithoutRecovery": True, "RecoveryWindowInDays": 7}
    assert desk.refused("DeleteSecret", **both).code == "InvalidParameterException"
    assert desk.refused("DeleteSecret", SecretId="e", RecoveryWindowInDays=6).code == "InvalidParameterException"
    asked(desk, "DeleteSecret", SecretId="e", ForceDeleteWithoutRecovery=True)
    assert desk.look(lambda tx: (tx.count(VERSIONS, second), tx.count(COLLECTION, HOME))) == (0, 0)


def test_lists(desk: Desk) -> None:
    for number, name in enumerate(("prod/a", "prod/b", "test/a")):
        asked(desk, "CreateSecret", Name=name, Description=f"Door {number}", Tags=[{"Key": name[:4], "Value": "1"}])
    asked(desk, "CreateSecret", Name="far", region="us-east-1")

    def names(**members: Any) -> list[str]:
        return [entry["Name"] for entry in asked(desk, "ListSecrets", **members)["SecretList"]]

    def by(key: str, *values: str) -> list[str]:
        return sorted(names(Filters=[{"Key": key, "Values": list(values)}]))

    assert names() == ["test/a", "prod/b", "prod/a"] and names(SortOrder="asc")[0] == "prod/a"
    assert names(SortBy="name", SortOrder="asc") == ["prod/a", "prod/b", "test/a"]
    assert by("name", "prod") == ["prod/a", "prod/b"] and by("name", "!prod") == ["test/a"]
    assert by("description", "door 2") == ["test/a"] and by("tag-key", "test") == ["test/a"]
    assert by("tag-value", "2") == [] and by("all", "TEST") == ["test/a"] and by("owning-service", "x") == []
    assert len(by("primary-region", REGION)) == 3 and by("name", "prod", "test/a")[-1] == "test/a"
    assert len(desk.all("ListSecrets", "SecretList", MaxResults=1)) == 3
    found = desk.all("ListSecrets", "SecretList", MaxResults=1, Filters=[{"Key": "name", "Values": ["prod"]}])
    assert len(found) == 2
    assert desk.refused("ListSecrets", NextToken="x").code == "InvalidParameterException"
    assert desk.refused("ListSecrets", Filters=[{"Key": "x", "Values": ["a"]}]).status == 400


@pytest.mark.parametrize(
    "members",
    [
        {"SecretString": "s3same" * 11_000},
        {"SecretString": {"password": "s3same"}},
        {"SecretString": "s3same", "SecretBinary": "AAAA"},
        {"SecretBinary": "s3same!"},
        {"SecretString": "ü" * 40_000 + "s3same"},
        {"SecretString": ""},
        {"SecretBinary": ""},
        {"SecretString": "s3same", "ClientRequestToken": "short"},
        {"SecretString": "s3same", "Name": "a b"},
        {"SecretString": "s3same", "Name": "x" * 513},
    ],
)
def test_refusals_never_show_a_value(desk: Desk, members: dict[str, Any], caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    fault = desk.refused("CreateSecret", **({"Name": "n"} | members))
    assert fault.code == "InvalidParameterException" and "s3same" not in fault.message + caplog.text
    assert desk.look(lambda tx: tx.count(COLLECTION, HOME)) == 0


def test_values_lie_sealed(desk: Desk, tmp_path: Path) -> None:
    asked(desk, "CreateSecret", Name="n", SecretString="open-s3same")
    assert all(b"s3same" not in path.read_bytes() for path in tmp_path.rglob("*") if path.is_file())


def test_permission_is_of_the_whole_arn(desk: Desk) -> None:
    arn = asked(desk, "CreateSecret", Name="n", SecretString="1")["ARN"]
    desk.call("CreateSecret", Name="m", SecretString="1")
    who = Principal("arn:u", "AKIA", lambda _action, resource: resource == arn)
    for secret_id in ("n", arn, arn[:-7]):
        assert desk.call("GetSecretValue", SecretId=secret_id, who=who)["SecretString"] == "1"
    for secret_id in ("m", "none"):
        assert desk.refused("GetSecretValue", SecretId=secret_id, who=who).code == "AccessDeniedException"
    assert desk.refused("CreateSecret", Name="o", who=who).code == "AccessDeniedException"
