"""What a core asks its control plane, letter by letter, and what it makes of answers of every kind."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ggfast.arns import ThingArn
from ggfast.core.controlplane import ControlPlane, News
from ggfast.errors import GgfastError, LinkDown, Malformed, Rejected
from ggfast.net.httpanswer import Answer

CORE = ThingArn.parse("arn:aws:iot:eu-west-1:123456789012:thing/a:core")


class Client:
    """Takes the place of HttpClient: remembers what is asked, answers what it is given."""

    def __init__(self, *answers: Answer) -> None:
        self.answers = list(answers)
        self.asked: list[tuple[str, str, Any, dict[str, str]]] = []
        self.closed = False

    async def request(
        self,
        method: str,
        target: str,
        *,
        body: bytes = b"",
        headers: Any = (),
        sink: Callable[[bytes], None] | None = None,
        begin: Callable[[int, Any], None] | None = None,
        **_bounds: float,
    ) -> Answer:
        self.asked.append((method, target, orjson.loads(body) if body else None, dict(headers)))
        answer = self.answers.pop(0)
        if sink is not None and answer.status in (200, 206):
            if begin is not None:
                begin(answer.status, answer.headers)
            for at in range(0, len(answer.body), 3):
                sink(answer.body[at : at + 3])
        return answer

    def close(self) -> None:
        self.closed = True


def said(status: int, content: Any = None, **headers: str) -> Answer:
    body = content if isinstance(content, bytes) else b"" if content is None else orjson.dumps(content)
    return Answer(status, {name.replace("_", "-"): value for name, value in headers.items()}, body)


def ask(work: Callable[[ControlPlane], Coroutine[Any, Any, Any]], *answers: Answer) -> tuple[Any, list[Any]]:
    """What `work` gives, and what was asked for it."""
    client = Client(*answers)
    both: Any = (client, client)
    return asyncio.run(work(ControlPlane(CORE, *both))), client.asked


OFFER = {"id": "d1", "type": "NewDeployment", "groupId": "g", "versionId": "v"}


def test_news_are_asked_for_by_what_is_known() -> None:
    found, asked = ask(
        lambda cloud: cloud.news("d/0", "7", 50), said(200, {"deployment": OFFER, "trust": {"version": "8"}})
    )
    assert found == News(OFFER, {"version": "8"}, "")
    assert asked == [("GET", "/greengrass/things/a%3Acore/news?deployment=d%2F0&trust=7&wait=50", None, {})]


def test_no_news_are_no_error() -> None:
    assert ask(lambda cloud: cloud.news("", "", 0), said(204))[0] == News()
    assert ask(lambda cloud: cloud.news("", "", 0), said(200, {"denied": "no"}))[0] == News(denied="no")


@pytest.mark.parametrize(
    ("body", "words"),
    [
        (b"<html>", "not JSON"),
        ([1], "expected an object"),
        ({"deployment": "x"}, "news.deployment"),
        ({"deployment": OFFER | {"id": 7}}, "news.deployment.id"),
        ({"trust": {"version": None}}, "news.trust.version"),
        ({"denied": 3}, "news.denied"),
    ],
)
def test_news_of_another_form_are_refused_with_their_place(body: Any, words: str) -> None:
    with pytest.raises(Malformed, match=words):
        ask(lambda cloud: cloud.news("", "", 0), said(200, body))


def test_a_report_names_group_deployment_and_core() -> None:
    _, asked = ask(lambda cloud: cloud.report("g/1", "d1", "Failure", "why"), said(200, {}))
    core = "arn%3Aaws%3Aiot%3Aeu-west-1%3A123456789012%3Athing%2Fa%3Acore"
    target = f"/greengrass/groups/g%2F1/deployments/d1/cores/{core}/status"
    body = {"DeploymentStatus": "Failure", "ErrorMessage": "why"}
    assert asked == [("PUT", target, body, {"Content-Type": "application/json"})]
    _, asked = ask(lambda cloud: cloud.report("g", "d1", "Success"), said(200, {}))
    assert asked[0][2] == {"DeploymentStatus": "Success"}


@pytest.mark.parametrize("status", [408, 425, 429, 500, 503])
def test_what_passes_is_a_link_that_is_down(status: int) -> None:
    with pytest.raises(LinkDown, match=f"status {status}.*busy"):
        ask(lambda cloud: cloud.report("g", "d", "Success"), said(status, {"message": "busy"}))


@pytest.mark.parametrize("status", [301, 400, 401, 403, 404])
def test_what_does_not_pass_is_a_refusal_with_the_server_s_words(status: int) -> None:
    with pytest.raises(Rejected, match="not yours") as caught:
        ask(lambda cloud: cloud.report("g", "d", "Success"), said(status, {"message": "not\nyours"}))
    assert caught.value.reason_code == status
    assert "\n" not in str(caught.value)


def test_keys_of_a_role_or_none() -> None:
    keys = {"accessKeyId": "a", "secretAccessKey": "b", "sessionToken": "c", "expiration": "2026-01-01T00:00:00Z"}
    found, asked = ask(lambda cloud: cloud.credentials("g"), said(200, {"credentials": keys | {"more": 1}}))
    assert found == keys
    assert asked[0][1] == "/greengrass/groups/g/credentials?thing=a%3Acore"
    assert ask(lambda cloud: cloud.credentials("g"), said(404, {"message": "no role"}))[0] is None
    with pytest.raises(Malformed, match=r"credentials.secretAccessKey.*int") as caught:
        ask(lambda cloud: cloud.credentials("g"), said(200, {"credentials": keys | {"secretAccessKey": 4711}}))
    assert "4711" not in str(caught.value)


def test_addresses_and_certificates() -> None:
    _, asked = ask(lambda cloud: cloud.put_connectivity([{"HostAddress": "10.0.0.1"}]), said(200, {"Version": "1"}))
    assert asked[0][:3] == (
        "PUT",
        "/greengrass/things/a%3Acore/connectivityInfo",
        {"ConnectivityInfo": [{"HostAddress": "10.0.0.1"}]},
    )
    answer = {"certificate": "P", "authority": "Q", "seconds": 60, "delegation": {"certificate": "R", "authority": "Q"}}
    found, asked = ask(lambda cloud: cloud.server_certificate("csr", ["h"], "more"), said(200, answer))
    assert found == answer
    assert asked[0][2] == {"csr": "csr", "hosts": ["h"], "delegationCsr": "more"}
    for change in ({"seconds": 0}, {"seconds": True}, {"certificate": ""}, {"delegation": {"certificate": "R"}}):
        with pytest.raises(Malformed):
            ask(lambda cloud: cloud.server_certificate("csr", []), said(200, answer | change))


CONTENT = b"0123456789"


@pytest.mark.parametrize("offset", range(len(CONTENT) + 1))
@pytest.mark.parametrize("ranges", [True, False])
def test_an_artifact_goes_on_where_it_was_cut(offset: int, ranges: bool) -> None:
    taken = bytearray()
    if not ranges or offset == 0:
        answer = said(200, CONTENT)
    elif offset == len(CONTENT):
        answer = said(416, content_range=f"bytes */{offset}")
    else:
        answer = said(206, CONTENT[offset:], content_range=f"bytes {offset}-9/10")
    _, asked = ask(lambda cloud: cloud.artifact("ab", offset, taken.extend), answer)
    assert bytes(taken) == CONTENT[offset:]
    assert asked[0][3] == ({"Range": f"bytes={offset}-"} if offset else {})


def test_another_range_than_asked_for_is_refused() -> None:
    taken = bytearray()
    with pytest.raises(Malformed, match="Content-Range"):
        ask(lambda cloud: cloud.artifact("ab", 5, taken.extend), said(206, b"345", content_range="bytes 3-5/10"))
    assert taken == b""


def test_closing_ends_both_connections() -> None:
    first, second = Client(), Client()
    both: Any = (first, second)
    ControlPlane(CORE, *both).close()
    assert first.closed and second.closed


@given(st.integers(100, 599), st.binary(max_size=60))
def test_whatever_is_answered_ends_in_a_result_or_an_error_of_ours(status: int, body: bytes) -> None:
    for work in (
        lambda cloud: cloud.news("", "", 0),
        lambda cloud: cloud.credentials("g"),
        lambda cloud: cloud.server_certificate("", []),
        lambda cloud: cloud.report("g", "d", "Success"),
    ):
        try:
            ask(work, Answer(status, {}, body))
        except GgfastError as error:
            assert len(str(error)) < 2_000
