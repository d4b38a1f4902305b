"""Signatures: what botocore signs is believed, and nothing else."""

from __future__ import annotations

import calendar
import time
from urllib.parse import urlsplit

import pytest
from botocore.auth import SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials
from hypothesis import given
from hypothesis import strategies as st

from ggfast.cloud.limits import CLOCK_SKEW_S
from ggfast.cloud.signing import Claim, NotBelieved, Reason, check_claim, read_claim, verify

KEY, SECRET = "AKIAABCDEFGHIJKLMNOP", "s3cr3t/+abc"


def signed(
    method: str, url: str, body: bytes = b"", headers: dict[str, str] | None = None, token: str | None = None
) -> tuple[str, str, str, dict[str, str], bytes]:
    request = AWSRequest(method=method, url=url, data=body, headers=headers or {})
    SigV4Auth(Credentials(KEY, SECRET, token), "greengrass", "eu-west-1").add_auth(request)
    parts = urlsplit(url)
    found = {name.lower(): value for name, value in request.headers.items()} | {"host": parts.netloc}
    return method, parts.path, parts.query, found, body


def believe(method: str, path: str, query: str, headers: dict[str, str], body: bytes, secret: str = SECRET) -> Claim:
    claim = read_claim(headers)
    check_claim(claim, headers, time.time())
    verify(claim, secret.encode(), method, path, query, headers, body)
    return claim


@pytest.mark.parametrize(
    "path",
    [
        "/greengrass/groups",
        "/things/a/jobs/$next",
        "/greengrass/groups/a%2Fb/deployments/$reset",
        "/tags/arn%3Aaws%3Agreengrass%3Aeu-west-1%3A1%3A%2Fgreengrass%2Fgroups%2Fx",
        "/topics/a%2Fb%20c",
        "/a?empty=&b=2",
        "/a?tagKeys=z&tagKeys=a&tagKeys=%C3%A9",
        "/a?x=%24reset&A=1&a=%2F",
        "/a/%E2%82%AC~._-/",
        "/a//b/../c",
        "/",
    ],
)
def test_what_botocore_signs_is_believed(path: str) -> None:
    request = signed("POST", f"https://cloud:8080{path}", b'{"Name": "\xc3\xa9"}', {"X-Amzn-Client-Token": "a   b"})
    assert believe(*request).region == "eu-west-1"


@given(st.text(max_size=30), st.lists(st.tuples(st.text(max_size=8), st.text(max_size=8)), max_size=4), st.binary())
def test_any_path_query_and_body(name: str, pairs: list[tuple[str, str]], body: bytes) -> None:
    from urllib.parse import quote

    name = name.encode("utf-8", "replace").decode()
    query = "&".join(
        f"{quote(key.encode('utf-8', 'replace'), safe='')}={quote(value.encode('utf-8', 'replace'), safe='')}"
        for key, value in pairs
    )
    request = signed("PUT", f"https://h/x/{quote(name, safe='')}" + (f"?{query}" if query else ""), body)
    believe(*request)


@pytest.mark.parametrize("part", ["method", "path", "query", "header", "body", "secret"])
def test_any_change_is_seen(part: str) -> None:
    method, path, query, headers, body = signed("POST", "https://h/a/b?c=d", b"{}", {"X-Amz-Target": "t"})
    secret = SECRET
    if part == "method":
        method = "PUT"
    elif part == "path":
        path = "/a/c"
    elif part == "query":
        query = "c=e"
    elif part == "header":
        headers["x-amz-target"] = "u"
    elif part == "body":
        body = b"{ }"
    else:
        secret += "x"
    with pytest.raises(NotBelieved) as refused:
        believe(method, path, query, headers, body, secret)
    assert refused.value.reason is Reason.MISMATCH
    assert refused.value.fault("query").code == "SignatureDoesNotMatch"
    assert refused.value.fault("rest-json").code == "InvalidSignatureException"
    assert refused.value.fault("json").status == 403


@pytest.mark.parametrize(("skew", "text"), [(CLOCK_SKEW_S + 2, "Signature expired"), (-CLOCK_SKEW_S - 2, "not yet")])
def test_skewed_clock(skew: float, text: str) -> None:
    headers = signed("GET", "https://h/")[3]
    claim = read_claim(headers)
    check_claim(claim, headers, claim.seconds + CLOCK_SKEW_S)
    with pytest.raises(NotBelieved, match=text):
        check_claim(claim, headers, claim.seconds + skew)


def test_time_is_read_as_utc() -> None:
    claim = read_claim(signed("GET", "https://h/")[3])
    assert claim.seconds == calendar.timegm(time.strptime(claim.at, "%Y%m%dT%H%M%SZ"))


def test_no_signature_and_broken_ones() -> None:
    with pytest.raises(NotBelieved) as refused:
        read_claim({"host": "h"})
    assert refused.value.fault("rest-json").code == "MissingAuthenticationTokenException"
    good = signed("GET", "https://h/")[3]
    authorization = good["authorization"]
    for bad in (
        "Bearer x",
        "AWS4-HMAC-SHA256",
        authorization.replace("/eu-west-1", ""),
        authorization.replace("Signature=", "Signature=g"),
        authorization.replace("SignedHeaders=host", "SignedHeaders=;host"),
        authorization.replace("AKIA", "../.."),
    ):
        with pytest.raises(NotBelieved) as refused:
            read_claim(good | {"authorization": bad})
        assert refused.value.reason is Reason.INCOMPLETE, bad
    with pytest.raises(NotBelieved):
        read_claim(good | {"x-amz-date": "yesterday"})
    with pytest.raises(NotBelieved):
        read_claim(good | {"x-amz-date": "20261399T990000Z"})


def test_host_and_token_must_be_signed() -> None:
    headers = signed("GET", "https://h/")[3]
    claim = read_claim(headers)
    with pytest.raises(NotBelieved, match="x-amz-security-token"):
        check_claim(claim, headers | {"x-amz-security-token": "t"}, claim.seconds)
    unhosted = {name: value for name, value in headers.items() if name != "host"}
    with pytest.raises(NotBelieved, match="host"):
        check_claim(claim, unhosted, claim.seconds)


def test_region_and_date_of_the_scope() -> None:
    headers = signed("GET", "https://h/")[3]
    for old, new in (("eu-west-1", "nowhere"), (read_claim(headers).date + "/", "20000101/")):
        bad = headers | {"authorization": headers["authorization"].replace(old, new)}
        claim = read_claim(bad)
        with pytest.raises(NotBelieved, match="scope"):
            check_claim(claim, bad, claim.seconds)
