"""The HTTPS client against servers that misbehave in every way, on both kinds of loops."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import socket
import ssl
import subprocess
import sys
from collections.abc import Callable, Coroutine, Mapping
from pathlib import Path
from typing import Any

import pytest
from link_support import DAY, LOOPS, Authority, Talk, read_request, run_on, server_side, serving

from ggfast import limits
from ggfast.config import NetworkProxy
from ggfast.errors import ConfigError, GgfastError, LimitReached, LinkDown, Malformed, StorageFailed
from ggfast.net.httpanswer import Answer
from ggfast.net.httpclient import HttpClient, client_context
from ggfast.net.outbound import Proxy

OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"
Run = Callable[[Coroutine[Any, Any, Any]], None]


class World:
    """A CA, a server's certificate and a client's."""

    def __init__(self, folder: Path) -> None:
        self.authority, self.other = Authority(folder, "authority"), Authority(folder, "other")
        self.server = self.authority.issue("server")
        self.core = self.authority.issue("core")
        self.folder = folder

    def serving(self) -> ssl.SSLContext:
        return server_side(self.server, self.authority.cert)

    def client(self, port: int, **options: Any) -> HttpClient:
        return HttpClient("127.0.0.1", port, client_context(self.authority.cert, self.core), **options)


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    run_on("uvloop", asyncio.sleep(0))  # the first one of a process leaves a pipe for signals
    return World(tmp_path_factory.mktemp("link"))


@pytest.fixture(params=list(LOOPS))
def run(request: pytest.FixtureRequest) -> Run:
    return lambda work: run_on(request.param, work)


async def get(client: HttpClient, target: str = "/", **options: Any) -> Answer:
    return await client.request("GET", target, **{"timeout_s": 10.0, "body_max": 100_000} | options)


def saying(*parts: bytes, hold: bool = False) -> Talk:
    """Each request is answered with these bytes, one write each; then the connection ends, unless held."""

    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await read_request(reader)
        for part in parts:
            writer.write(part)
            await writer.drain()
            await asyncio.sleep(0)
        if hold:
            await asyncio.sleep(3600)

    return talk


async def ask(world: World, talk: Talk, context: ssl.SSLContext | None = None, **options: Any) -> Answer:
    """One request to a server that talks like this."""
    async with serving(talk, context or world.serving()) as port:
        client = world.client(port)
        try:
            return await get(client, **options)
        finally:
            client.close()


def failing(run: Run, work: Coroutine[Any, Any, Any], kind: type[GgfastError]) -> str:
    """The text of the error that `work` ends in."""

    async def expect() -> None:
        with pytest.raises(kind) as caught:
            await work
        told.append(str(caught.value))

    told: list[str] = []
    run(expect())
    return told[0]


# --- what is right --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("answer", "status", "body"),
    [
        (OK, 200, b"ok"),
        (
            b"HTTP/1.1 200 K\r\nTransfer-Encoding: chunked\r\n\r\n2;x\r\nok\r\n1\r\n!\r\n0\r\nA: b\r\n\r\n",
            200,
            b"ok!",
        ),
        (b"HTTP/1.1 200 OK\r\n\r\nuntil the end", 200, b"until the end"),
        (b"HTTP/1.0 200 OK\r\n\r\nold", 200, b"old"),
        (b"HTTP/1.1 204 No Content\r\n\r\n", 204, b""),
        (b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Hints\r\nLink: x\r\n\r\n" + OK, 200, b"ok"),
        (b"HTTP/1.1 404 Not Found\r\nContent-Length: 4\r\n\r\nnope", 404, b"nope"),
        (b"HTTP/1.1 302 Found\r\nLocation: https://127.0.0.1:1/\r\nContent-Length: 0\r\n\r\n", 302, b""),
        (OK + b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nmore", 200, b"ok"),
        (b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 2\r\n\r\nok and more", 200, b"ok"),
    ],
)
@pytest.mark.parametrize("pieces", [1, 7])
def test_answers_of_every_kind(world: World, run: Run, answer: bytes, status: int, body: bytes, pieces: int) -> None:
    async def work() -> None:
        step = -(-len(answer) // pieces)
        parts = [answer[at : at + step] for at in range(0, len(answer), step)]
        found = await ask(world, saying(*parts))
        assert (found.status, found.body) == (status, body)
        assert "link" not in found.headers

    run(work())


def test_a_request_says_what_it_is(world: World, run: Run) -> None:
    async def work() -> None:
        seen = []

        async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            seen.append(await read_request(reader))
            writer.write(OK)
            seen.append(await read_request(reader))
            writer.write(OK)
            await reader.read(1)

        async with serving(talk, world.serving()) as port:
            client = world.client(port)
            await client.request(
                "PUT", "/a?b=%2F", body=b"{}", headers=(("Range", "bytes=5-"),), timeout_s=10.0, body_max=10
            )
            await get(client)
            client.close()
            (line, headers, body), (second, bare, _) = seen
            assert (line, body) == ("PUT /a?b=%2F HTTP/1.1", b"{}")
            assert (headers["host"], headers["range"]) == (f"127.0.0.1:{port}", "bytes=5-")
            assert headers["content-length"] == "2"
            assert second == "GET / HTTP/1.1"
            assert "content-length" not in bare

    run(work())


def test_a_sink_takes_the_body_of_a_success_alone(world: World, run: Run) -> None:
    async def work() -> None:
        begun: list[tuple[int, str]] = []

        def begin(status: int, headers: Mapping[str, str]) -> None:
            begun.append((status, headers["content-range"]))

        head = b"HTTP/1.1 206 Partial Content\r\nContent-Range: bytes 5-8/9\r\nContent-Length: 4\r\n\r\n"
        taken: list[bytes] = []
        found = await ask(world, saying(head, b"ab", b"cd"), sink=taken.append, begin=begin)
        assert (found.status, found.body, b"".join(taken)) == (206, b"", b"abcd")
        assert begun == [(206, "bytes 5-8/9")]
        refused = b"HTTP/1.1 403 Forbidden\r\nContent-Length: 2\r\n\r\nno"
        found = await ask(world, saying(refused), sink=taken.append, begin=begin)
        assert (found.body, len(begun)) == (b"no", 1)

    run(work())


def test_what_a_sink_raises_ends_the_request(world: World, run: Run) -> None:
    def full(_: bytes) -> None:
        raise StorageFailed("no space left")

    assert failing(run, ask(world, saying(OK, hold=True), sink=full), StorageFailed) == "no space left"


# --- what is wrong --------------------------------------------------------------------------------------------

HEAD = b"HTTP/1.1 200 OK\r\n"


@pytest.mark.parametrize(
    ("answer", "kind", "text"),
    [
        (b"", LinkDown, "ended the connection without an answer"),
        (b"HTTP/1.1 200", LinkDown, "within the head"),
        (HEAD + b"Content-Length: 10\r\n\r\nabc", LinkDown, "after 3 bytes of body of 10"),
        (HEAD + b"Transfer-Encoding: chunked\r\n\r\n5\r\nabc", LinkDown, "after 3 bytes of body"),
        (b"SSH-2.0-server\r\n", Malformed, "no HTTP answer"),
        (b"HTTP/2.0 200 OK\r\nContent-Length: 0\r\n\r\n", Malformed, "HTTP/2.0"),
        (b"HTTP/1.1 999 What\r\nContent-Length: 0\r\n\r\n", Malformed, "status 999"),
        (b"HTTP/1.1 101 Switch\r\nUpgrade: x\r\nConnection: upgrade\r\n\r\n", Malformed, "change of protocol"),
        (HEAD + b"Content-Length: 1\r\nContent-Length: 2\r\n\r\nab", Malformed, "no HTTP answer"),
        (HEAD + b"Content-Length: -1\r\n\r\n", Malformed, "no HTTP answer"),
        (HEAD + b"Transfer-Encoding: chunked\r\n\r\nzz\r\n", Malformed, "no HTTP answer"),
        (HEAD + b"Transfer-Encoding: gzip\r\n\r\nxx", Malformed, "expected chunked"),
        (HEAD + b"Content-Encoding: gzip\r\nContent-Length: 2\r\n\r\nxx", Malformed, "although nothing packed"),
        (HEAD + b"Content-Length: 100001\r\n\r\n", LimitReached, "is 100001, the limit is 100000"),
        (HEAD + b"\r\n" + b"x" * 100_001, LimitReached, "the limit is 100000"),
        (HEAD + b"A: " + b"x" * 60_000, LimitReached, "the limit is"),
        (HEAD + b"A: b\r\n" * 10_000, LimitReached, "head of the answer"),
        (HEAD + b"Transfer-Encoding: chunked\r\n\r\n1;" + b"x" * 70_000, LimitReached, "without body"),
        (HEAD + b"Transfer-Encoding: chunked\r\n\r\n0\r\nA: " + b"x" * 70_000, LimitReached, "without body"),
        (b"HTTP/1.1 100 Continue\r\n\r\n" * 20, LimitReached, "answers of the 1xx kind"),
    ],
)
def test_answers_that_are_none(world: World, run: Run, answer: bytes, kind: type[GgfastError], text: str) -> None:
    found = failing(run, ask(world, saying(answer)), kind)
    assert text in found
    assert "127.0.0.1" in found


async def refusing_port() -> int:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return int(sock.getsockname()[1])


def test_nobody_listens(world: World, run: Run) -> None:
    async def work() -> None:
        await get(world.client(await refusing_port()))

    assert "Connection refused" in failing(run, work(), LinkDown)


@pytest.mark.parametrize("name", ["name.invalid", "a" * 64 + ".test", "two..dots"])
def test_a_name_that_is_nowhere(world: World, run: Run, name: str) -> None:
    client = HttpClient(name, 1, client_context(world.authority.cert))
    assert failing(run, get(client), LinkDown).startswith(f"cannot find the address of {name}: ")


def test_time_limits(world: World, run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    async def silent(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await asyncio.sleep(3600)

    async def slow(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(HEAD)
        while True:
            writer.write(b"A: b\r\n")
            await asyncio.sleep(0.02)

    assert "waiting for the answer of" in failing(run, ask(world, silent, first_byte_s=0.1), LinkDown)
    assert "the request GET / to" in failing(run, ask(world, slow, timeout_s=0.4), LinkDown)
    monkeypatch.setattr(limits, "LINK_SILENCE_S", 0.1)
    assert "waiting for the next part" in failing(run, ask(world, saying(HEAD, hold=True)), LinkDown)
    monkeypatch.setattr(limits, "TLS_HANDSHAKE_S", 0.1)

    async def no_tls() -> None:
        async with serving(silent, None) as port:
            await get(world.client(port))

    assert "the TLS handshake with" in failing(run, no_tls(), LinkDown)


def test_a_connection_that_nobody_accepts(world: World, run: Run) -> None:
    async def work() -> None:
        with socket.socket() as full:
            full.bind(("127.0.0.1", 0))
            full.listen(0)
            fillers = [socket.socket() for _ in range(4)]
            for filler in fillers:
                filler.setblocking(False)
                filler.connect_ex(full.getsockname())
            try:
                await get(world.client(full.getsockname()[1], connect_timeout_s=0.2))
            finally:
                for filler in fillers:
                    filler.close()

    assert "connecting to 127.0.0.1" in failing(run, work(), LinkDown)


# --- certificates ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("begins", "ends", "word"), [(-2, -1, "has expired"), (1, 2, "is not yet valid")], ids=["expired", "not yet valid"]
)
def test_dates_of_the_server(world: World, run: Run, begins: int, ends: int, word: str) -> None:
    dated = server_side(world.authority.issue(f"dated{begins}", begins * DAY, ends * DAY))
    text = failing(run, ask(world, saying(OK), dated), LinkDown)
    assert "x509: certificate has expired or is not yet valid" in text
    assert f"(certificate {word};" in text


def test_a_server_of_another_authority_or_name(world: World, run: Run) -> None:
    strange = server_side(world.other.issue("strange"))
    text = failing(run, ask(world, saying(OK), strange), LinkDown)
    assert "x509: certificate signed by unknown authority" in text
    elsewhere = server_side(world.authority.issue("elsewhere", host="127.0.0.9"))
    assert "x509: certificate is for another name" in failing(run, ask(world, saying(OK), elsewhere), LinkDown)


def test_row_7_every_authority_of_the_file_is_trusted(world: World, run: Run, tmp_path: Path) -> None:
    both = tmp_path / "both.pem"
    both.write_bytes(world.other.cert.read_bytes() + world.authority.cert.read_bytes())

    async def work() -> None:
        for number, authority in enumerate((world.authority, world.other)):
            async with serving(saying(OK), server_side(authority.issue(f"trusted{number}"))) as port:
                client = HttpClient("127.0.0.1", port, client_context(both))
                assert (await get(client)).body == b"ok"
                client.close()

    run(work())


class Picky:
    """A server with blocking sockets, as most of the world's: its alert arrives before the end of the connection."""

    def __init__(self, context: ssl.SSLContext) -> None:
        self._context = context
        self._socket = socket.create_server(("127.0.0.1", 0))
        self.port = self._socket.getsockname()[1]

    def refuse_one(self) -> None:
        connection, _ = self._socket.accept()
        self._socket.close()
        secured = self._context.wrap_socket(connection, server_side=True, do_handshake_on_connect=False)
        with pytest.raises(ssl.SSLError):
            secured.do_handshake()
        with socket.socket(fileno=secured.detach()) as bare, contextlib.suppress(OSError):
            while bare.recv(65_536):  # ended with bytes unread, a connection is reset, and the alert may be lost
                pass


@pytest.mark.parametrize(("late", "word"), [(False, "unknown ca"), (True, "expired")])
def test_a_server_that_refuses_our_certificate(world: World, run: Run, late: bool, word: str) -> None:
    mine = world.authority.issue("late", -2 * DAY, -DAY) if late else world.core

    async def work() -> None:
        server = Picky(server_side(world.server, world.authority.cert if late else world.other.cert))
        refusing = asyncio.create_task(asyncio.to_thread(server.refuse_one))
        try:
            await get(HttpClient("127.0.0.1", server.port, client_context(world.authority.cert, mine)))
        finally:
            await refusing

    text = failing(run, work(), LinkDown)
    assert "refuses our certificate" in text
    assert word in text


def test_files_that_cannot_be_used(world: World, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="trusted certificates in "):
        client_context(tmp_path / "nothing")
    with pytest.raises(ConfigError, match="the certificate with its key in"):
        client_context(world.authority.cert, world.authority.cert)


def test_port_443_is_asked_for_by_its_protocol(world: World) -> None:
    offered: list[list[str]] = []

    class Context(ssl.SSLContext):
        def set_alpn_protocols(self, protocols: Any) -> None:
            offered.append(protocols)

    for port in (8443, 443):
        HttpClient("127.0.0.1", port, Context(ssl.PROTOCOL_TLS_CLIENT))
    assert offered == [["x-amzn-http-ca"]]


# --- one connection -------------------------------------------------------------------------------------------


class Counting:
    """Answers `answers` requests on each connection, then ends it; `silent` connections end without an answer."""

    def __init__(self, answers: int, *, then: bytes = b"") -> None:
        self.connections = self.requests = 0
        self.ended = asyncio.Event()
        self._answers, self._then = answers, then

    async def __call__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        self.ended.clear()
        for _ in range(self._answers):
            await read_request(reader)
            self.requests += 1
            writer.write(OK)
            await writer.drain()
        if self._then:
            writer.write(self._then)
            await writer.drain()
            await asyncio.sleep(3600)
        try:
            await read_request(reader)  # and then it is gone, with the request in its hands
            self.requests += 1
        finally:
            writer.transport.abort()
            self.ended.set()


def test_one_connection_serves_and_a_dead_one_is_replaced_once(world: World, run: Run) -> None:
    async def work() -> None:
        server = Counting(2)
        async with serving(server, world.serving()) as port:
            client = world.client(port)
            for _ in range(3):
                assert (await get(client)).body == b"ok"
            assert (server.connections, server.requests) == (2, 4)  # the third was lost once and asked again
            await asyncio.gather(get(client), get(client))  # one after the other
            assert server.connections == 3
            client.close()
        server = Counting(0)
        async with serving(server, world.serving()) as port:
            client = world.client(port)
            with pytest.raises(LinkDown):
                await get(client)
            assert server.connections == 1  # a new connection that dies is not tried again

    run(work())


def test_a_request_whose_answer_has_begun_is_not_repeated(world: World, run: Run) -> None:
    async def work() -> None:
        requests = 0

        async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            nonlocal requests
            for answer in (OK, b"HTTP/1.1 200"):
                await read_request(reader)
                requests += 1
                writer.write(answer)
                await writer.drain()

        async with serving(talk, world.serving()) as port:
            client = world.client(port)
            await get(client)
            with pytest.raises(LinkDown, match="within the head"):
                await get(client)
            assert requests == 2

    run(work())


def test_bytes_that_nobody_asked_for_end_an_idle_connection(world: World, run: Run) -> None:
    async def work() -> None:
        server = Counting(1, then=b"HTTP/1.1 408 Timeout\r\nContent-Length: 0\r\n\r\n")
        async with serving(server, world.serving()) as port:
            client = world.client(port)
            for _ in range(3):
                found = await get(client)
                assert (found.status, found.body) == (200, b"ok")
                await until(lambda: client._pipe is None or not client._pipe.is_quiet)
            assert server.connections == 3
            client.close()

    run(work())


def test_an_idle_connection_is_not_kept_for_ever(world: World, run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "LINK_IDLE_S", 0.05)

    async def work() -> None:
        server = Counting(1)
        async with serving(server, world.serving()) as port:
            client = world.client(port)
            await get(client)
            await server.ended.wait()
            await get(client)
            assert server.connections == 2
            client.close()

    run(work())


def test_a_cancelled_request_leaves_nothing_to_the_next(world: World, run: Run) -> None:
    async def work() -> None:
        asked = asyncio.Event()
        answers = [b"", OK]

        async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await read_request(reader)
            answer = answers.pop(0)
            asked.set()
            writer.write(answer)
            await reader.read(1)
            writer.write(b"HTTP/1.1 500 Late\r\nContent-Length: 0\r\n\r\n")

        async with serving(talk, world.serving()) as port:
            client = world.client(port)
            first = asyncio.create_task(get(client))
            await asked.wait()
            first.cancel()
            with pytest.raises(asyncio.CancelledError):
                await first
            assert (await get(client)).status == 200
            client.close()

    run(work())


async def until(condition: Callable[[], object]) -> None:
    """Bounded by the time limit of `run`."""
    while not condition():
        await asyncio.sleep(0.005)


# --- proxies --------------------------------------------------------------------------------------------------


def proxy_to(seen: list[tuple[str, str]], answer: bytes = b"HTTP/1.1 200 Go\r\n\r\n") -> Talk:
    """A proxy that knows the way, or answers CONNECT otherwise."""

    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        line, headers, _ = await read_request(reader)
        seen.append((line, headers.get("proxy-authorization", "")))
        writer.write(answer)
        if not answer.endswith(b" Go\r\n\r\n"):
            return
        host, _, port = line.split(" ")[1].rpartition(":")
        onward_reader, onward = await asyncio.open_connection(host, int(port))

        async def copy(source: asyncio.StreamReader, target: asyncio.StreamWriter) -> None:
            while data := await source.read(65_536):
                target.write(data)
                await target.drain()

        try:
            await asyncio.wait(
                [asyncio.ensure_future(copy(reader, onward)), asyncio.ensure_future(copy(onward_reader, writer))],
                return_when=asyncio.FIRST_COMPLETED,
            )
        finally:
            onward.transport.abort()

    return talk


@pytest.mark.parametrize("secure", [False, True], ids=["http", "https"])
def test_row_7_a_proxy_is_a_way_to_the_server(world: World, run: Run, secure: bool) -> None:
    async def work() -> None:
        seen: list[tuple[str, str]] = []
        own = server_side(world.server) if secure else None
        async with serving(saying(OK), world.serving()) as port, serving(proxy_to(seen), own) as proxy_port:
            url = f"{'https' if secure else 'http'}://127.0.0.1:{proxy_port}"
            proxy = Proxy.of(NetworkProxy(url, "me", "pass:word"), client_context(world.authority.cert))
            client = world.client(port, proxy=proxy)
            assert (await get(client)).body == b"ok"
            client.close()
            told = base64.b64encode(b"me:pass:word").decode()
            assert seen == [(f"CONNECT 127.0.0.1:{port} HTTP/1.1", f"Basic {told}")]
            near = world.client(port, proxy=Proxy.of(NetworkProxy(url, "", "", ("127.0.0.0/8",)), proxy_context(world)))
            assert (await get(near)).body == b"ok"
            near.close()
            assert len(seen) == 1

    run(work())


def proxy_context(world: World) -> ssl.SSLContext:
    return client_context(world.authority.cert)


@pytest.mark.parametrize(
    ("answer", "kind", "text"),
    [
        (b"HTTP/1.1 407 Authenticate\r\nContent-Length: 3\r\n\r\nno!", LinkDown, "networkProxy.proxy.username"),
        (b"HTTP/1.1 502 Bad Gateway\r\nContent-Length: 0\r\n\r\n", LinkDown, "with status 502, expected 200"),
        (b"", LinkDown, "without an answer"),
        (b"HTTP/1.1 200 Fine\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n", Malformed, "behind its answer"),
        (b"220 mail.example ESMTP\r\n", Malformed, "no HTTP answer"),
    ],
)
def test_a_proxy_that_refuses(world: World, run: Run, answer: bytes, kind: type[GgfastError], text: str) -> None:
    async def work() -> None:
        async with serving(proxy_to([], answer), None) as port:
            proxy = Proxy.of(NetworkProxy(f"http://127.0.0.1:{port}"), proxy_context(world))
            await get(world.client(1, proxy=proxy))

    assert text in failing(run, work(), kind)


def test_a_proxy_of_an_unknown_authority_is_told_as_v1_did(world: World, run: Run) -> None:
    async def work() -> None:
        async with serving(proxy_to([]), server_side(world.other.issue("proxy"))) as port:
            proxy = Proxy.of(NetworkProxy(f"https://127.0.0.1:{port}"), proxy_context(world))
            await get(world.client(1, proxy=proxy))

    text = failing(run, work(), LinkDown)
    assert text.startswith("proxyconnect tcp: ")
    assert "x509: certificate signed by unknown authority" in text


@pytest.mark.parametrize(
    ("entry", "host", "used"),
    [
        ("example.com", "example.com", False),
        ("example.com", "a.EXAMPLE.com", False),
        (".example.com", "a.example.com", False),
        ("*.example.com", "a.example.com", False),
        ("example.com", "badexample.com", True),
        ("example.com:8443", "example.com", False),
        ("example.com:443", "example.com", True),
        ("10.0.0.0/8", "10.1.2.3", False),
        ("10.0.0.1", "10.0.0.2", True),
        ("::1", "::1", False),
        ("*", "anything", False),
        ("", "anything", True),
    ],
)
def test_addresses_without_proxy(entry: str, host: str, used: bool) -> None:
    proxy = Proxy.of(NetworkProxy("http://proxy.test", "", "", (entry,)), ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT))
    assert (proxy.port, proxy.context) == (80, None)
    assert proxy.is_for(host, 8443) is used


def test_the_password_of_a_proxy_is_not_shown() -> None:
    proxy = Proxy.of(NetworkProxy("https://p", "me", "secret"), ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT))
    assert proxy.port == 443
    assert proxy.authorization not in repr(proxy)


def test_nothing_heavy_is_imported() -> None:
    code = "import sys, ggfast.net.httpclient; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True)
    assert not {"http.client", "urllib.request", "email", "cryptography"} & set(done.stdout.split())
