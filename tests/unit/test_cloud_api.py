"""The API's front in one process: bounds, failures in the service's words, links, metrics, stopping. Over TLS."""

from __future__ import annotations

import asyncio
import hashlib
import json
import logging
import re
import socket
import ssl
import time
from collections.abc import Awaitable, Callable, Coroutine, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import urlsplit

import pytest
from botocore.auth import SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials
from cloud_desk import ACCOUNT, REGION, Desk, authority

from ggfast.cloud import api as front
from ggfast.cloud import bodies, listening
from ggfast.cloud.access import Access
from ggfast.cloud.accesslog import AccessLog
from ggfast.cloud.api import Api
from ggfast.cloud.certificate import server_certificate
from ggfast.cloud.dispatch import Dispatcher
from ggfast.cloud.gauges import show_front, show_store
from ggfast.cloud.health import Health
from ggfast.cloud.keys import ADMINISTRATOR_POLICY, make_key
from ggfast.cloud.limits import RETRY_AFTER_S
from ggfast.cloud.links import artifact_link
from ggfast.cloud.listening import ApiListener
from ggfast.cloud.metrics import Metrics
from ggfast.cloud.operations import Reply
from ggfast.cloud.services import all_services
from ggfast.errors import StorageFailed
from tests.patience import patience

T = TypeVar("T")
WAIT_S = patience(10.0)
UUID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")
LIST = {"Version": "2012-10-17", "Statement": {"Effect": "Allow", "Action": "greengrass:List*", "Resource": "*"}}
METRICS = {"Version": "2012-10-17", "Statement": {"Effect": "Allow", "Action": "ggfast:GetMetrics", "Resource": "*"}}


@dataclass(slots=True)
class Answer:
    """One response."""

    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        """The body, decoded."""
        return json.loads(self.body)


class Unruly(Dispatcher):
    """A dispatcher that does something else first, if told."""

    before: Callable[[], Awaitable[None]] | None = None

    async def run(self, *arguments: Any) -> Reply:
        if self.before is not None:
            await self.before()
        return await super().run(*arguments)


@dataclass
class Front:
    """The API on a port of its own, with one administrator's key."""

    folder: Path
    burst: float = 1_000.0
    up: dict[str, bool] = field(default_factory=lambda: {"api": True, "devices": True})

    def __post_init__(self) -> None:
        self.desk = Desk(self.folder)
        self.desk.clock.now = time.time()  # signatures are made by the clock of this machine
        self.dispatcher = Unruly(self.desk.cloud, self.desk.store)
        self.admin = self.key("admin", json.loads(ADMINISTRATOR_POLICY))
        self._trust = ssl.create_default_context(cadata=authority().ca_pem)
        self._socket = socket.create_server(("127.0.0.1", 0))
        self.port = self._socket.getsockname()[1]
        self.run(self._start())

    def run(self, work: Coroutine[Any, Any, T]) -> T:
        """On the loop of the desk."""
        return self.desk.runner.run(asyncio.wait_for(work, WAIT_S * 3))

    def key(self, name: str, policy: Mapping[str, Any]) -> Credentials:
        """A new access key."""
        now = self.desk.clock.now
        text = json.dumps(policy)
        made = self.desk.change(lambda tx: make_key(tx, self.desk.cloud.sealer, ACCOUNT, name, text, now))
        return Credentials(*made)

    async def _start(self) -> None:
        cloud, store, metrics = self.desk.cloud, self.desk.store, Metrics()
        certificate = server_certificate(self.folder / "tls", authority(), ["localhost"], self.desk.clock.now)
        self.log = AccessLog(self.folder / "logs" / "access.log")
        access = Access(cloud, store)
        health = Health(store, self.desk.clock, lambda: certificate.end, lambda: self.up)
        self.api = Api(
            self.dispatcher, all_services(), access, metrics, health, self.log,
            requests_per_s=1.0, requests_burst=self.burst,
        )  # fmt: skip
        self.listener = ApiListener(self.api, self._socket, certificate)
        show_front(metrics, self.api, self.listener, access, self.log)
        show_store(metrics, store)
        await self.listener.start()

    def close(self) -> None:
        """Stop it, if it was not."""
        self.run(self.listener.stop())
        self.log.close()
        self.desk.close()
        self._socket.close()

    def signed(
        self, method: str, path: str, body: bytes = b"", *, service: str = "greengrass", key: Credentials | None = None
    ) -> bytes:
        """A whole request."""
        kind = "application/x-www-form-urlencoded" if service in ("iam", "sts") else "application/json"
        url = f"https://localhost:{self.port}{path}"
        request = AWSRequest(method=method, url=url, data=body, headers={"Content-Type": kind})
        SigV4Auth(key or self.admin, service, REGION).add_auth(request)
        return self.plain(method, path, body, dict(request.headers.items()))

    def plain(self, method: str, path: str, body: bytes = b"", headers: Mapping[str, str] | None = None) -> bytes:
        """A request without a signature, unless it is in the headers."""
        lines = [f"{method} {path} HTTP/1.1", f"Host: localhost:{self.port}", f"Content-Length: {len(body)}"]
        lines += [f"{name}: {value}" for name, value in (headers or {}).items()]
        return "\r\n".join([*lines, "", ""]).encode() + body

    async def connect(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        """A connection."""
        return await asyncio.open_connection("localhost", self.port, ssl=self._trust, family=socket.AF_INET)

    async def asked(self, *parts: bytes | float) -> Answer:
        """The answer to bytes and pauses (seconds) on a connection of its own."""
        reader, writer = await self.connect()
        try:
            for part in parts:
                if isinstance(part, float):
                    await asyncio.sleep(part)
                else:
                    writer.write(part)
            return await read_answer(reader)
        finally:
            writer.transport.abort()

    def ask(self, *parts: bytes | float) -> Answer:
        """Like `asked`, on the loop of the desk."""
        return self.run(self.asked(*parts))

    async def emptied(self) -> None:
        """Wait until the listener has no connection; `run` bounds it."""
        while self.listener.connections:
            await asyncio.sleep(0.01)

    def lines(self) -> list[dict[str, Any]]:
        """The access log's."""
        return [json.loads(line) for line in (self.folder / "logs" / "access.log").read_text().splitlines()]


async def read_answer(reader: asyncio.StreamReader) -> Answer:
    """A head and as many bytes as it says. Raises IncompleteReadError when the connection ends before."""
    head, *lines = (await reader.readuntil(b"\r\n\r\n")).decode().split("\r\n")
    headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines if line)}
    return Answer(int(head.split()[1]), headers, await reader.readexactly(int(headers["content-length"])))


@contextmanager
def running(folder: Path, burst: float = 1_000.0) -> Iterator[Front]:
    """One that is closed whatever happens."""
    made = Front(folder, burst)
    try:
        yield made
    finally:
        made.close()


@pytest.fixture
def api(tmp_path: Path) -> Iterator[Front]:
    with running(tmp_path) as made:
        yield made


@pytest.fixture
def short_stop(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the listener read for a short time only what nobody wants any more."""
    monkeypatch.setattr(listening, "STOP_S", 0.3)


GROUPS = ("GET", "/greengrass/groups")
CALLER = b"Action=GetCallerIdentity&Version=2011-06-15"


# --- how often, how slowly, how many -------------------------------------------------------------------


def test_a_key_past_its_rate_hears_so_in_the_services_words(tmp_path: Path) -> None:
    with running(tmp_path, burst=2) as api:
        other = api.key("other", LIST)
        for _ in range(2):
            assert api.ask(api.signed(*GROUPS)).status == 200
        for service, path, code in (
            ("greengrass", "/greengrass/groups", "ThrottlingException"),
            ("lambda", "/2015-03-31/functions", "TooManyRequestsException"),
        ):
            refused = api.ask(api.signed("GET", path, service=service))
            assert (refused.status, refused.json["__type"], refused.headers["x-amzn-errortype"]) == (429, code, code)
        refused = api.ask(api.signed("POST", "/", CALLER, service="sts"))
        assert refused.status == 429 and b"<Code>Throttling</Code>" in refused.body
        assert api.ask(api.signed(*GROUPS, key=other)).status == 200
        api.desk.clock.now += 1.5
        assert api.ask(api.signed(*GROUPS)).status == 200


def test_who_sends_no_head_is_let_go(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(listening, "IDLE_CONNECTION_S", 0.3)
    with running(tmp_path) as api:

        async def ended(sent: bytes) -> float:
            reader, writer = await api.connect()
            began = time.monotonic()
            writer.write(sent)
            assert await reader.read() == b""
            writer.transport.abort()
            return time.monotonic() - began

        for sent in (b"", b"GET /greengrass/groups HTTP/1.1\r\nHost: loc"):
            assert 0.2 < api.run(ended(sent)) < WAIT_S
        api.run(api.emptied())


def test_who_sends_a_body_too_slowly_hears_so_and_is_let_go(
    short_stop: None, api: Front, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bodies, "BODY_S", 0.2)
    request = api.signed("POST", "/greengrass/groups", b'{"Name": "slow"}')

    async def slow() -> tuple[Answer, bytes]:
        reader, writer = await api.connect()
        writer.write(request[:-5])
        found = await read_answer(reader), await reader.read()
        writer.transport.abort()
        return found

    answer, rest = api.run(slow())
    assert (answer.status, answer.json["__type"], rest) == (408, "RequestTimeoutException", b"")
    assert api.ask(request[:-5], 0.05, request[-5:]).status == 201


def test_connections_past_the_bound_are_closed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(listening, "CONNECTIONS_MAX", 2)
    with running(tmp_path) as api:

        async def scenario() -> None:
            held = [await api.connect() for _ in range(2)]
            with pytest.raises((OSError, asyncio.IncompleteReadError)):
                await api.asked(api.plain("GET", "/healthz"))
            assert api.listener.refused == 1
            for reader, writer in held:
                writer.write(api.plain("GET", "/healthz"))
                assert (await read_answer(reader)).status == 200
                writer.transport.abort()
            await api.emptied()
            assert (await api.asked(api.plain("GET", "/healthz"))).status == 200

        api.run(scenario())


# --- what fails here -----------------------------------------------------------------------------------


def test_a_store_that_fails_is_said_in_the_services_words(api: Front, caplog: pytest.LogCaptureFixture) -> None:
    async def fail() -> None:
        raise StorageFailed("the disk /somewhere is full.")

    api.dispatcher.before = fail
    answer = api.ask(api.signed(*GROUPS))
    assert (answer.status, answer.json["__type"]) == (503, "ServiceUnavailableException")
    query = api.ask(api.signed("POST", "/", CALLER, service="sts"))
    assert query.status == 503 and b"<Code>ServiceUnavailable</Code><Message>" in query.body
    for found in (answer, query):
        assert found.headers["retry-after"] == f"{RETRY_AFTER_S}"
        assert b"somewhere" not in found.body
        assert f"id={found.headers['x-amzn-requestid']}: the disk /somewhere is full." in caplog.text
    api.dispatcher.before = None
    assert api.ask(api.signed(*GROUPS)).status == 200


def test_what_nobody_expected_is_an_answer_with_its_id_and_the_log_has_the_rest(
    api: Front, caplog: pytest.LogCaptureFixture
) -> None:
    async def fail() -> None:
        raise KeyError("innermost")

    api.dispatcher.before = fail
    answer = api.ask(api.signed(*GROUPS))
    query = api.ask(api.signed("POST", "/", CALLER, service="sts"))
    assert (answer.status, answer.json["__type"]) == (500, "InternalFailureException")
    assert query.status == 500 and b"<Code>InternalFailure</Code>" in query.body
    for found in (answer, query):
        request_id = found.headers["x-amzn-requestid"]
        assert request_id in found.body.decode() and f"id={request_id} " in caplog.text
        assert b"innermost" not in found.body and b"Traceback" not in found.body
    assert caplog.text.count("KeyError: 'innermost'") == 2
    assert all(record.levelno == logging.ERROR for record in caplog.records)


def test_every_answer_has_an_id_of_its_own_that_the_log_knows(api: Front) -> None:
    found = [
        api.ask(request)
        for request in (
            api.signed(*GROUPS),
            api.signed("GET", "/nowhere"),
            api.plain(*GROUPS),
            api.plain("GET", "/metrics"),
            api.plain("GET", "/artifacts/x"),
            api.signed("POST", "/", CALLER, service="sts"),
            api.signed("POST", "/", b"Action=None", service="iam"),
        )
    ]
    ids = [answer.headers["x-amzn-requestid"] for answer in found]
    assert len(set(ids)) == len(ids) and all(UUID.fullmatch(request_id) for request_id in ids)
    logged = {line["requestId"]: line["status"] for line in api.lines()}
    assert logged == {answer.headers["x-amzn-requestid"]: answer.status for answer in found}
    line = api.lines()[0]
    assert (line["service"], line["operation"], line["keyId"]) == ("greengrass", "ListGroups", api.admin.access_key)
    assert api.admin.secret_key not in json.dumps(api.lines())


# --- pages ---------------------------------------------------------------------------------------------


def test_health_says_what_is_wrong_to_everybody(api: Front) -> None:
    well = api.ask(api.plain("GET", "/healthz"))
    assert (well.status, well.headers["cache-control"]) == (200, "no-store")
    assert well.json.keys() == {"status", "store", "listeners", "certificateExpires"}
    assert well.json["listeners"] == {"api": "up", "devices": "up"} and well.json["store"] == "ok"
    api.up["devices"] = False
    ill = api.ask(api.plain("GET", "/healthz"))
    assert (ill.status, ill.json["status"], ill.json["listeners"]["devices"]) == (503, "failing", "down")
    api.up["devices"] = True
    api.desk.clock.now += 1_000 * 86_400
    assert api.ask(api.plain("GET", "/healthz")).status == 503  # the certificate has ended


def test_a_store_that_cannot_be_written_is_ill_health(api: Front, monkeypatch: pytest.MonkeyPatch) -> None:
    async def fail(_work: object) -> None:
        raise StorageFailed("the disk /somewhere is full.")

    with monkeypatch.context() as patched:
        patched.setattr(type(api.desk.store), "write", lambda _store, work: fail(work))
        ill = api.ask(api.plain("GET", "/healthz"))
    assert (ill.status, ill.json["store"]) == (503, "cannot be written")


def test_metrics_are_for_this_machine_and_for_keys_that_may(api: Front, monkeypatch: pytest.MonkeyPatch) -> None:
    api.ask(api.signed(*GROUPS))
    api.ask(api.plain(*GROUPS))
    shown = api.ask(api.plain("GET", "/metrics"))
    text = shown.body.decode()
    assert shown.status == 200 and text.endswith("# EOF\n")
    for line in (
        'ggfast_cloud_requests_total{service="greengrass",operation="ListGroups",status="2xx"} 1',
        'ggfast_cloud_requests_total{service="unknown",operation="unknown",status="4xx"} 1',
        'ggfast_cloud_request_seconds_count{service="greengrass"} 1',
        "ggfast_cloud_requests_under_way 1",
        "ggfast_cloud_connections_refused_total 0",
        "ggfast_cloud_store_queue 0",
    ):
        assert line in text.splitlines(), text
    monkeypatch.setattr(front, "is_loopback", lambda _source: False)
    assert api.ask(api.plain("GET", "/metrics")).status == 403
    narrow, watcher = api.key("narrow", LIST), api.key("watcher", METRICS)
    assert api.ask(api.signed("GET", "/metrics", key=narrow)).json["__type"] == "AccessDeniedException"
    for key in (watcher, api.admin):
        assert api.ask(api.signed("GET", "/metrics", key=key)).body.endswith(b"# EOF\n")


def test_a_link_gives_its_artifact_until_it_ends(api: Front) -> None:
    cloud, content = api.desk.cloud, b"code " * 40_000
    digest, other = cloud.artifacts.keep(content), cloud.artifacts.keep(b"other")
    url = urlsplit(artifact_link(cloud, digest, 60))
    found = api.ask(api.plain("GET", f"{url.path}?{url.query}"))
    assert (found.status, hashlib.sha256(found.body).hexdigest()) == (200, digest)
    assert found.headers["content-type"] == "application/octet-stream"
    assert UUID.fullmatch(found.headers["x-amzn-requestid"])
    token = url.query.removeprefix("token=")
    altered = token[:-6] + ("A" if token[-6] != "A" else "B") + token[-5:]
    for path in (
        f"/artifacts/{other}?{url.query}",
        f"{url.path}?token={altered}",
        f"{url.path}?{url.query}%ff",
        url.path,
        f"/artifacts/..%2fstore.db?{url.query}",
    ):
        refused = api.ask(api.plain("GET", path))
        assert (refused.status, refused.json["__type"]) == (403, "AccessDeniedException")
    api.desk.clock.now += 61
    assert api.ask(api.plain("GET", f"{url.path}?{url.query}")).status == 403
    assert api.lines()[0]["bytesOut"] == len(content)
    assert token not in json.dumps(api.lines())


# --- the end -------------------------------------------------------------------------------------------


def test_a_stop_finishes_what_is_under_way(api: Front) -> None:
    async def scenario() -> None:
        arrived, go = asyncio.Event(), asyncio.Event()

        async def wait() -> None:
            arrived.set()
            await go.wait()

        api.dispatcher.before = wait
        idle_reader, idle_writer = await api.connect()
        waiting = asyncio.create_task(api.asked(api.signed("POST", "/greengrass/groups", b'{"Name": "last"}')))
        await arrived.wait()
        stopping = asyncio.create_task(api.listener.stop())
        await asyncio.sleep(0.05)
        assert not api.listener.up and not stopping.done()
        with pytest.raises(OSError):
            await api.connect()
        go.set()
        assert (await waiting).status == 201
        await stopping
        assert await idle_reader.read() == b""
        idle_writer.transport.abort()
        assert api.listener.connections == 0

    api.run(scenario())


def test_another_certificate_is_shown_from_the_next_handshake_on(api: Front) -> None:
    async def scenario() -> None:
        reader, writer = await api.connect()
        before = writer.get_extra_info("ssl_object").getpeercert(binary_form=True)
        at = api.desk.clock.now + 800 * 86_400
        api.listener.use(server_certificate(api.folder / "tls", authority(), ["localhost"], at))
        _, other = await api.connect()
        assert other.get_extra_info("ssl_object").getpeercert(binary_form=True) != before
        writer.write(api.plain("GET", "/healthz"))
        assert (await read_answer(reader)).status == 200
        for each in (writer, other):
            each.transport.abort()

    api.run(scenario())
