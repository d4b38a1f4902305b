"""From HTTP to members and back, for the three protocols."""

from __future__ import annotations

import json
import time
import xml.etree.ElementTree as ElementTree
from dataclasses import replace
from typing import Any

import pytest

from ggfast.cloud.faults import Fault
from ggfast.cloud.operations import Call, Reply, Service
from ggfast.cloud.protocols import Asked, Request, answer, find_operation, guess_protocol, read_request, refusal
from ggfast.cloud.shapes import Flag, Items, Record, Text, Whole, Wrong, header, need, payload, query, shown

FORM = "application/x-www-form-urlencoded"
REST = Service("greengrass", protocol="rest-json", invalid_code="InvalidInputException")
QUERY = Service("iam", protocol="query", invalid_code="ValidationError", api_version="2010-05-08", open_members=True)
TARGET = Service("secretsmanager", protocol="json", invalid_code="InvalidParameterException", open_members=True)


def handle(call: Call) -> Reply:
    return Reply()


REST.operation(
    "Put",
    "PUT /x/{Name}/$reset",
    {"Flag": Flag(), "Max": query(Whole(), "max"), "Keys": query(Items(Text()), "tagKeys"), "T": header(Text(), "X-T")},
)(handle)
REST.operation("Send", "POST /topics/{topic}", {"payload": payload(100)}, body_bytes_max=100)(handle)
TAG = Record({"Key": need(Text()), "Value": Text()})
QUERY.operation("CreateRole", "POST /", {"RoleName": need(Text()), "Tags": Items(TAG), "Max": Whole()})(handle)
TARGET.operation("CreateSecret", "POST /", {"Name": need(Text())})(handle)


def read(service: Service, request: Request) -> dict[str, Any]:
    asked = find_operation(service, request)
    return read_request(service, asked, request)


def refused(service: Service, request: Request) -> Fault:
    with pytest.raises(Fault) as fault:
        read(service, request)
    return fault.value


def put(query: str = "", body: bytes = b"", **headers: str) -> Request:
    return Request("PUT", "/x/a%2Fb/$reset", query, {"content-type": "application/json"} | headers, body)


def form(body: str, content_type: str = FORM) -> Request:
    return Request("POST", "/", "", {"content-type": content_type}, body.encode())


def test_rest_members_from_everywhere() -> None:
    found = read(REST, put("max=7&tagKeys=a&tagKeys=%C3%A9", b'{"Flag": true}', **{"x-t": "t"}))
    assert found == {"Name": "a/b", "Max": 7, "Keys": ["a", "é"], "Flag": True, "T": "t"}
    assert read(REST, put()) == {"Name": "a/b"}
    assert read(REST, put(body=b"{}", **{"content-type": ""})) == {"Name": "a/b"}


def test_rest_payload_is_the_body() -> None:
    request = Request("POST", "/topics/a%2Fb", "", {}, b"\x00\xff")
    assert read(REST, request) == {"topic": "a/b", "payload": b"\x00\xff"}
    assert refused(REST, Request("POST", "/topics/a", "", {}, b"x" * 101)).status == 413


@pytest.mark.parametrize(
    ("request_", "code", "status"),
    [
        (put(body=b"{"), "SerializationException", 400),
        (put(body=b"\xff"), "SerializationException", 400),
        (put(body=b"[]"), "SerializationException", 400),
        (put(body=b"{}", **{"content-type": FORM}), "UnsupportedMediaTypeException", 415),
        (put("max=x"), "InvalidInputException", 400),
        (put("max=1&max=2"), "InvalidInputException", 400),
        (put("max=%ff"), "InvalidInputException", 400),
        (put("unknown=1"), "InvalidInputException", 400),
        (Request("PUT", "/x/%ff/$reset", "", {}), "InvalidInputException", 400),
        (Request("PUT", "/x/../$reset/..", "", {}), "UnknownOperationException", 404),
        (Request("GET", "/x/a/$reset", "", {}), "UnknownOperationException", 404),
    ],
)
def test_rest_refusals(request_: Request, code: str, status: int) -> None:
    fault = refused(REST, request_)
    assert (fault.code, fault.status) == (code, status)


def test_form_members() -> None:
    body = (
        "Action=CreateRole&Version=2010-05-08&RoleName=a+b%2B&Max=3&Tags.member.2.Key=k2&Tags.member.1.Key=k1&Odd.1=x"
    )
    assert read(QUERY, form(body)) == {"RoleName": "a b+", "Max": 3, "Tags": [{"Key": "k1"}, {"Key": "k2"}]}
    assert read(QUERY, form("Action=CreateRole&RoleName=a&Tags=")) == {"RoleName": "a", "Tags": []}


@pytest.mark.parametrize(
    ("body", "code"),
    [
        ("", "MissingAction"),
        ("Action=Nothing", "InvalidAction"),
        ("Action=CreateRole&Version=1", "InvalidAction"),
        ("Action=CreateRole&Action=CreateRole", "MalformedQueryString"),
        ("Action=CreateRole&RoleName=%ff", "MalformedQueryString"),
        ("Action=CreateRole&Max=x", "ValidationError"),
        ("Action=CreateRole&Tags=x", "ValidationError"),
        ("Action=CreateRole&Tags.member.x=1", "ValidationError"),
        ("Action=CreateRole&RoleName.a=1", "ValidationError"),
        ("Action=CreateRole&RoleName=1&RoleName.a=1", "ValidationError"),
        ("Action=CreateRole&Tags.member.1=x", "ValidationError"),
        ("Action=CreateRole&" + ".a" * 50 + "=1", "ValidationError"),
        ("&".join(f"a{number}=" for number in range(3_000)), "MalformedQueryString"),
    ],
)
def test_form_refusals(body: str, code: str) -> None:
    assert refused(QUERY, form(body)).code == code


def test_form_of_another_type() -> None:
    assert refused(QUERY, form("Action=CreateRole", "application/json")).code == "MissingAction"


def test_json_target() -> None:
    headers = {"x-amz-target": "secretsmanager.CreateSecret", "content-type": "application/x-amz-json-1.1"}
    assert read(TARGET, Request("POST", "/", "", headers, b'{"Name": "n"}')) == {"Name": "n"}
    fault = refused(TARGET, Request("POST", "/", "", headers | {"x-amz-target": "other.CreateSecret"}, b"{}"))
    assert fault.code == "UnknownOperationException"
    assert refused(TARGET, Request("GET", "/", "", headers, b"")).status == 404
    assert guess_protocol(Request("POST", "/", "", headers)) == "json"


def test_replies() -> None:
    found = answer(REST, REST.operations["Put"], Reply({"A": [1, None]}, headers={"X": "y"}), "id")
    assert (found.status, json.loads(found.body), found.headers["x-amzn-RequestId"]) == (200, {"A": [1, None]}, "id")
    assert found.headers["X"] == "y"
    assert answer(REST, REST.operations["Put"], Reply(status=204), "id").body == b""
    assert answer(REST, REST.operations["Put"], Reply(raw=b"\xff", content_type="a/b"), "id").body == b"\xff"
    members = {"Role": {"Name": "<a>\x01\r", "Flag": True, "None": None}, "Tags": [{"Key": "k"}], "Empty": []}
    found = answer(QUERY, QUERY.operations["CreateRole"], Reply(members), "id")
    space = "{https://iam.amazonaws.com/doc/2010-05-08/}"
    root = ElementTree.fromstring(found.body)
    assert root.tag == f"{space}CreateRoleResponse"
    result = root.find(f"{space}CreateRoleResult")
    assert result is not None
    assert result.findtext(f"{space}Role/{space}Name") == "<a>\ufffd\r"
    assert result.findtext(f"{space}Role/{space}Flag") == "true"
    assert result.findtext(f"{space}Tags/{space}member/{space}Key") == "k"
    assert root.findtext(f"{space}ResponseMetadata/{space}RequestId") == "id"


def test_faults() -> None:
    found = refusal("rest-json", Fault("Code", "text", status=404, members={"resourceArn": "r"}), "id")
    assert found.headers["x-amzn-ErrorType"] == "Code"
    assert json.loads(found.body) == {"__type": "Code", "message": "text", "resourceArn": "r"}
    found = refusal("rest-json", Fault("", "text", members={"ErrorDetails": []}), "id")
    assert "x-amzn-ErrorType" not in found.headers
    assert json.loads(found.body) == {"Message": "text", "ErrorDetails": []}
    assert refusal("json", Fault("C", "lone \udcff"), "id").status == 400
    root = ElementTree.fromstring(refusal("query", Fault("C", "a & b \udcff"), "id").body)
    assert (root.findtext("Error/Code"), root.findtext("Error/Type"), root.findtext("RequestId")) == (
        "C",
        "Sender",
        "id",
    )


@pytest.mark.parametrize(
    "value", ["[" * 1_000 + "]" * 1_000, '{"a":' * 1_000 + "1" + "}" * 1_000, "[[" + "[]," * 300_000 + "1]]"]
)
def test_deep_and_wide_values_are_refused_in_few_words(value: str) -> None:
    request = Request("PUT", "/x/n/$reset", "", {}, b'{"Flag":' + value.encode() + b"}")
    begin = time.process_time()
    members = read(REST, request)
    with pytest.raises(Wrong) as caught:
        REST.operations["Put"].takes.read(members, "")
    assert time.process_time() - begin < 1.0
    assert len(str(caught.value)) < 200


def test_found_values_are_shown_from_their_beginning() -> None:
    for value in ([1, "a", None], {"a": [1.5, {"b": True}]}, "a'b\n", b"x", -1, [], {}):
        assert shown(value) == repr(value)
    assert shown("x" * 81) == "'" + "x" * 79 + "…"
    assert shown([[[[1]]]]) == "[[[…]]]"


def test_a_body_has_few_enough_values_to_be_held_in_memory() -> None:
    """What is parsed takes fifty times the memory of its text, and that of a function's code may be long."""
    asked = Asked(replace(REST.operations["Put"], body_bytes_max=10_000_000), {"Name": "n"}, {})
    for value in (b"[],", b"{},", b"1,"):
        for count, fits in ((1_000_001, False), (400_000, True)):
            body = b'{"Flag":[' + value * count + b"1]}"
            request = Request("PUT", "/x/n/$reset", "", {}, body)
            if fits:
                assert len(read_request(REST, asked, request)) == 2
                continue
            with pytest.raises(Fault, match="more than 1000000 values") as caught:
                read_request(REST, asked, request)
            assert caught.value.code == "SerializationException"
