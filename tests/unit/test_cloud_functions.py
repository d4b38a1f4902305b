"""Lambda's operations: answers as the model says, each refusal, hostile zips and names."""

from __future__ import annotations

import base64
import hashlib
import io
import struct
import warnings
import zipfile
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest
from cloud_desk import ACCOUNT, REGION, Desk
from cloud_shapes_check import conforms

from ggfast.cloud.functions import LAMBDA
from ggfast.cloud.functions.store import resolve
from ggfast.cloud.operations import Principal
from ggfast.cloud.policy import PolicyDocument, decide
from ggfast.cloud.protocols import Request, find_operation, read_request

HOME = f"{ACCOUNT}/{REGION}"
ROLE = f"arn:aws:iam::{ACCOUNT}:role/lambda"
ARN = f"arn:aws:lambda:{REGION}:{ACCOUNT}:function:hello"


def zipped(**files: str) -> bytes:
    target = io.BytesIO()
    with zipfile.ZipFile(target, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, text in (files or {"main": "def handler(e, c): pass"}).items():
            archive.writestr(f"{name}.py", text)
    return target.getvalue()


CODE = zipped()


@pytest.fixture
def desk(tmp_path: Path) -> Iterator[Desk]:
    desk = Desk(tmp_path, LAMBDA)
    yield desk
    desk.close()


def asked(desk: Desk, operation: str, **members: Any) -> dict[str, Any]:
    answer = desk.call(operation, **members)
    conforms("lambda", operation, answer)
    return answer


def create(desk: Desk, name: str = "hello", **members: Any) -> dict[str, Any]:
    given = {"Runtime": "python3.8", "Role": ROLE, "Handler": "main.handler", "Code": {"ZipFile": CODE}}
    return asked(desk, "CreateFunction", FunctionName=name, **(given | members))


def test_create_and_read(desk: Desk) -> None:
    made = create(desk, Description="d", Timeout=5, Environment={"Variables": {"KEY": "v"}}, Tags={"a": "b"})
    assert made["FunctionArn"] == ARN and made["Version"] == "$LATEST" and made["State"] == "Active"
    assert made["CodeSha256"] == base64.b64encode(hashlib.sha256(CODE).digest()).decode()
    assert made["CodeSize"] == len(CODE) and made["LastUpdateStatus"] == "Successful"
    got = asked(desk, "GetFunction", FunctionName="hello")
    assert got["Configuration"] == made and got["Tags"] == {"a": "b"}
    digest = hashlib.sha256(CODE).hexdigest()
    assert f"/artifacts/{digest}?" in got["Code"]["Location"] and desk.cloud.artifacts.read(digest) == CODE
    for name in ("hello", f"{ACCOUNT}:function:hello", ARN, ARN + ":$LATEST", "function:hello"):
        assert desk.call("GetFunctionConfiguration", FunctionName=name)["CodeSize"] == len(CODE)
    fault = desk.refused(
        "CreateFunction", FunctionName=ARN, Runtime="a1", Role=ROLE, Handler="h", Code={"ZipFile": CODE}
    )
    assert (fault.code, fault.status, fault.members) == ("ResourceConflictException", 409, {"Type": "User"})


@pytest.mark.parametrize(
    "runtime",
    ["python2.7", "python3.7", "nodejs6.10", "nodejs12.x", "java8", "arn:aws:greengrass:::runtime/function/executable"],
)
def test_runtimes_that_users_have(desk: Desk, runtime: str) -> None:
    given = {"FunctionName": "r", "Role": ROLE, "Handler": "h", "Code": {"ZipFile": CODE}}
    assert desk.call("CreateFunction", Runtime=runtime, VpcConfig={"SubnetIds": []}, **given)["Runtime"] == runtime


def test_versions_and_aliases_lead_to_code(desk: Desk) -> None:
    assert create(desk, Publish=True)["FunctionArn"] == ARN + ":1"
    assert asked(desk, "PublishVersion", FunctionName="hello")["Version"] == "1"
    other = zipped(main="other")
    updated = asked(desk, "UpdateFunctionCode", FunctionName="hello", ZipFile=other, Publish=True)
    assert updated["Version"] == "2"
    assert [v["Version"] for v in asked(desk, "ListVersionsByFunction", FunctionName="hello")["Versions"]] == [
        "$LATEST",
        "1",
        "2",
    ]
    alias = asked(desk, "CreateAlias", FunctionName="hello", Name="prod", FunctionVersion="1")
    assert alias["AliasArn"] == ARN + ":prod"
    assert asked(desk, "GetAlias", FunctionName="hello", Name="prod") == alias
    assert desk.refused("CreateAlias", FunctionName="hello", Name="prod", FunctionVersion="1").status == 409
    assert desk.refused("CreateAlias", FunctionName="hello", Name="x", FunctionVersion="9").status == 404
    found = desk.look(lambda tx: resolve(tx, HOME, ARN + ":prod"))
    assert found is not None and found["arn"] == ARN + ":1" and not found["latest"] and found["alias"] == "prod"
    assert found["digest"] == hashlib.sha256(CODE).hexdigest() and found["configuration"]["FunctionArn"] == ARN + ":1"
    moved = asked(desk, "UpdateAlias", FunctionName="hello", Name="prod", FunctionVersion="2", Description="n")
    assert moved["Description"] == "n" and moved["RevisionId"] != alias["RevisionId"]
    found = desk.look(lambda tx: resolve(tx, HOME, ARN + ":prod"))
    assert found is not None and found["digest"] == hashlib.sha256(other).hexdigest()
    latest = desk.look(lambda tx: resolve(tx, HOME, ARN))
    assert latest is not None and latest["latest"]
    for wrong in (ARN + ":9", ARN + ":no", "hello", ARN.replace(REGION, "us-east-1"), ARN.replace(ACCOUNT, "1" * 12)):
        assert desk.look(lambda tx, arn=wrong: resolve(tx, HOME, arn)) is None, wrong
    assert len(asked(desk, "ListAliases", FunctionName="hello")["Aliases"]) == 1
    assert asked(desk, "ListAliases", FunctionName="hello", FunctionVersion="1")["Aliases"] == []
    fault = desk.refused("DeleteFunction", FunctionName="hello", Qualifier="2")
    assert fault.code == "ResourceConflictException" and "[prod]" in fault.message
    assert desk.reply("DeleteFunction", FunctionName="hello:1").members == {}
    assert desk.refused("GetFunction", FunctionName="hello", Qualifier="1").status == 404
    assert desk.refused("DeleteFunction", FunctionName="hello", Qualifier="$LATEST").status == 400
    assert desk.refused("DeleteFunction", FunctionName="hello", Qualifier="prod").status == 400
    desk.call("DeleteAlias", FunctionName="hello", Name="prod")
    assert desk.refused("GetAlias", FunctionName="hello", Name="prod").status == 404
    desk.call("DeleteFunction", FunctionName="hello")
    assert desk.refused("GetFunction", FunctionName="hello").message == f"Function not found: {ARN}"
    assert create(desk, Publish=True)["Version"] == "1"


def test_configuration_revisions_and_dry_run(desk: Desk) -> None:
    made = create(desk)
    now = asked(desk, "UpdateFunctionConfiguration", FunctionName="hello", Timeout=9, RevisionId=made["RevisionId"])
    assert now["Timeout"] == 9 and now["Handler"] == "main.handler"
    stale = made["RevisionId"]
    for operation in ("UpdateFunctionConfiguration", "PublishVersion"):
        fault = desk.refused(operation, FunctionName="hello", RevisionId=stale)
        assert (fault.code, fault.status) == ("PreconditionFailedException", 412)
    other = zipped(main="dry")
    answer = asked(desk, "UpdateFunctionCode", FunctionName="hello", ZipFile=other, DryRun=True)
    assert answer["CodeSize"] == len(other)
    assert desk.call("GetFunctionConfiguration", FunctionName="hello")["CodeSha256"] == made["CodeSha256"]
    assert desk.cloud.artifacts.size(hashlib.sha256(other).hexdigest()) == -1
    assert desk.refused("PublishVersion", FunctionName="hello", CodeSha256="x").status == 400


def test_tags(desk: Desk) -> None:
    create(desk)
    desk.call("TagResource", Resource=ARN, Tags={"a": "1", "b": "2"})
    desk.call("UntagResource", Resource=ARN, TagKeys=["a"])
    assert asked(desk, "ListTags", Resource=ARN) == {"Tags": {"b": "2"}}
    assert desk.refused("TagResource", Resource=ARN, Tags={str(n): "" for n in range(50)}).status == 400
    assert desk.refused("TagResource", Resource=ARN, Tags={"aws:x": ""}).status == 400
    assert desk.refused("ListTags", Resource=ARN + "x").status == 404
    assert desk.refused("ListTags", Resource="hello").status == 400


def test_lists_are_paged_and_regions_apart(desk: Desk) -> None:
    for number in range(5):
        create(desk, f"f{number}", Publish=number < 2)
    create(desk, "f0", region="us-east-1")
    page = asked(desk, "ListFunctions", MaxItems=3)
    listed = page["Functions"] + asked(desk, "ListFunctions", Marker=page["NextMarker"])["Functions"]
    assert [entry["FunctionName"] for entry in listed] == [f"f{number}" for number in range(5)]
    assert len(asked(desk, "ListFunctions", FunctionVersion="ALL")["Functions"]) == 7
    assert len(desk.call("ListFunctions", region="us-east-1")["Functions"]) == 1
    assert desk.refused("ListFunctions", Marker="x").status == 400
    fault = desk.refused("GetFunction", FunctionName=ARN, region="us-east-1")
    assert fault.status == 404 and "not reachable in this region" in fault.message


@pytest.mark.parametrize(
    "changed",
    [
        {"FunctionName": "a/b"},
        {"FunctionName": ".."},
        {"FunctionName": "a" * 65},
        {"FunctionName": "fü"},
        {"FunctionName": "a:1"},
        {"FunctionName": "'; DROP TABLE documents; --"},
        {"Role": "admin"},
        {"Runtime": "../python"},
        {"Runtime": None},
        {"Handler": "a b"},
        {"Timeout": 0},
        {"Timeout": 10**30},
        {"MemorySize": "128"},
        {"Environment": {"Variables": {"A": "1"}}},
        {"Environment": {"Variables": {"AB": "x" * 4_095}}},
        {"Environment": {"Variables": {"AWS_REGION": "x"}}},
        {"Environment": []},
        {"Code": {}},
        {"Code": {"S3Bucket": "b", "S3Key": "k"}},
        {"Code": {"ZipFile": "no base64!"}},
        {"Code": {"ZipFile": ""}},
        {"PackageType": "Image"},
        {"Architectures": ["mips"]},
        {"Tags": {"": "x"}},
    ],
)
def test_refused_members(desk: Desk, changed: dict[str, Any]) -> None:
    given = {"FunctionName": "a", "Runtime": "python3.8", "Role": ROLE, "Handler": "h", "Code": {"ZipFile": CODE}}
    fault = desk.refused("CreateFunction", **(given | changed))
    assert (fault.code, fault.status) == ("InvalidParameterValueException", 400) and fault.members["Type"] == "User"
    assert desk.call("ListFunctions")["Functions"] == []


@cache
def hostile_zips() -> dict[str, bytes]:
    def of(*entries: tuple[str, bytes], flags: int = 0, method: int = 0) -> bytes:
        """An archive of stored files under any names, which the standard library would not write."""
        body, directory = bytearray(), bytearray()
        for name, data in entries:
            raw = name.encode()
            common = struct.pack("<HHHHHLLLHH", 20, flags, method, 0, 33, 0, len(data), len(data), len(raw), 0)
            directory += b"PK\1\2" + struct.pack("<H", 20) + common + struct.pack("<HHHLL", 0, 0, 0, 0, len(body)) + raw
            body += b"PK\3\4" + common + raw + data
        counts = (len(entries), len(entries))
        return (
            bytes(body + directory) + b"PK\5\6" + struct.pack("<HHHHLLH", 0, 0, *counts, len(directory), len(body), 0)
        )

    good = of(("a", b"x"))
    bomb = bytearray(of(("a", b"x"), ("b", b"y")))
    for at in [i for i in range(len(bomb)) if bomb[i : i + 4] == b"PK\1\2"]:
        bomb[at + 24 : at + 28] = struct.pack("<L", 200 * 2**20)
    moved = bytearray(good)
    moved[moved.find(b"PK\1\2") + 42] = 7
    return {
        "empty text": b"not a zip",
        "no files": of(),
        "cut": good[:-5],
        "absolute": of(("/etc/passwd", b"")),
        "up": of(("a/../../b", b"")),
        "up with backslashes": of(("a\\..\\b", b"")),
        "drive": of(("C:\\a", b"")),
        "line feed": of(("a\nb", b"")),
        "twice": of(("a", b""), ("a", b"")),
        "folder and file": of(("a", b""), ("a/", b"")),
        "encrypted": of(("a", b""), flags=1),
        "other method": of(("a", b""), method=99),
        "bomb": bytes(bomb),
        "too many": of(*((str(number), b"") for number in range(30_001))),
        "before": b"#!/bin/sh\n" + good,
        "behind": good + b"x",
        "lost file": bytes(moved),
        "several parts": good[:-18] + b"\1\0" + good[-16:],
        "long list": good[:-10] + struct.pack("<L", 2**31) + good[-6:],
        "zip64": good[:-22] + b"PK\6\7" + b"\0" * 16 + good[-22:],
    }


@pytest.mark.parametrize("kind", sorted(hostile_zips()))
def test_hostile_zips(desk: Desk, kind: str) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        content = hostile_zips()[kind]
    given = {"FunctionName": "a", "Runtime": "python3.8", "Role": ROLE, "Handler": "h"}
    fault = desk.refused("CreateFunction", Code={"ZipFile": content}, **given)
    assert fault.code == "InvalidParameterValueException", fault
    assert desk.cloud.artifacts.size(hashlib.sha256(content).hexdigest()) == -1


def test_permission_is_of_the_function_however_it_is_written(desk: Desk) -> None:
    create(desk)
    create(desk, "other")
    document = PolicyDocument.parse(
        '{"Version":"2012-10-17","Statement":{"Effect":"Allow","Action":"lambda:Get*","Resource":"' + ARN + '"}}'
    )
    who = Principal("arn:x", "AKIA", lambda action, resource: decide([document], action, resource))
    for name in ("hello", ARN, f"{ACCOUNT}:function:hello"):
        assert desk.call("GetFunctionConfiguration", FunctionName=name, who=who)["FunctionName"] == "hello"
    for name in ("other", ARN.replace("hello", "other")):
        assert desk.refused("GetFunction", FunctionName=name, who=who).code == "AccessDeniedException"


def test_requests_with_encoded_arns(desk: Desk) -> None:
    create(desk)
    path = f"/2015-03-31/functions/{quote(ARN, safe='')}/aliases"
    for raw_path, body in ((path, b'{"Name":"prod","FunctionVersion":"$LATEST"}'), (path, b"")):
        request = Request("POST" if body else "GET", raw_path, "", {"content-type": "application/json"}, body)
        found = find_operation(LAMBDA, request)
        members = read_request(LAMBDA, found, request)
        answer = desk.call(found.operation.name, **members)
        conforms("lambda", found.operation.name, answer)
    assert answer["Aliases"][0]["AliasArn"] == ARN + ":prod"
    request = Request("DELETE", f"/2017-03-31/tags/{quote(ARN, safe='')}", "tagKeys=a&tagKeys=b", {})
    assert read_request(LAMBDA, find_operation(LAMBDA, request), request)["TagKeys"] == ["a", "b"]
