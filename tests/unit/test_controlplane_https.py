"""The control plane's client on the wire: a real HTTPS server, both connections, both kinds of loops."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
from link_support import LOOPS, Authority, read_request, run_on, server_side, serving

from ggfast.config import parse_config
from ggfast.core.controlplane import ControlPlane, News
from ggfast.core.handed import Handed
from ggfast.errors import ConfigError, GgfastError, LinkDown, Malformed, Rejected

ARN = "arn:aws:iot:eu-west-1:123456789012:thing/my_core"
QUOTED = "arn%3Aaws%3Aiot%3Aeu-west-1%3A123456789012%3Athing%2Fmy_core"
CONTENT = bytes(range(256)) * 400
Use = Callable[[ControlPlane], Awaitable[Any]]


def configuration(port: int, root: Path, **own: Any) -> bytes:
    things = {"thingArn": ARN, "iotHost": "127.0.0.1", "ggHost": "127.0.0.1", "ggHttpPort": port}
    paths = {"caPath": "ca.pem", "certPath": "core.crt", "keyPath": "core.key"}
    return json.dumps({"coreThing": things | paths, "ggfast": own}).encode()


class Cloud:
    """Answers each request with the next of `answers`: status, headers, body. Keeps what was asked."""

    def __init__(self, folder: Path) -> None:
        authority = Authority(folder, "authority")
        self._context = server_side(authority.issue("server"), authority.cert)
        self._folder = folder
        self.handed = Handed(identity=authority.issue("core"), authorities=authority.cert)
        self.asked: list[tuple[str, dict[str, str], bytes]] = []
        self.connections = 0
        self.answers: list[tuple[int, dict[str, str], bytes]] = []

    def answer(self, status: int, body: Any = None, **headers: str) -> None:
        data = body if isinstance(body, bytes) else b"" if body is None else json.dumps(body).encode()
        self.answers.append((status, {key.replace("_", "-"): value for key, value in headers.items()}, data))

    def use(self, work: Use, loop: str = "uvloop") -> Any:
        """Run something with the control plane; the last request is in `asked`."""
        results = []

        async def run() -> None:
            async with serving(self._talk, self._context) as port:
                config = parse_config(configuration(port, self._folder), self._folder)
                plane = ControlPlane.of(config, self.handed)
                assert plane is not None
                try:
                    results.append(await work(plane))
                finally:
                    plane.close()

        self.asked.clear()
        self.connections = 0
        run_on(loop, run())
        return results[0]

    async def _talk(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        while True:
            self.asked.append(await read_request(reader))
            status, headers, body = self.answers.pop(0)
            lines = [f"HTTP/1.1 {status} Told", f"Content-Length: {len(body)}", *map(": ".join, headers.items())]
            writer.write("\r\n".join([*lines, "", ""]).encode() + body)
            await writer.drain()


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Cloud:
    run_on("uvloop", asyncio.sleep(0))  # the first one of a process leaves a pipe for signals
    return Cloud(tmp_path_factory.mktemp("cloud"))


@pytest.fixture
def cloud(made: Cloud) -> Cloud:
    made.answers.clear()
    return made


OFFER = {"id": "d1", "type": "NewDeployment", "groupId": "g1", "versionId": "v1", "document": {}, "artifacts": []}
TRUST = {"version": "abc", "groupId": "g1", "endedCertificates": []}


@pytest.mark.parametrize("loop", list(LOOPS))
def test_news(cloud: Cloud, loop: str) -> None:
    cloud.answer(200, {"deployment": OFFER, "trust": TRUST})
    assert cloud.use(lambda plane: plane.news("", "", 20), loop) == News(OFFER, TRUST, "")
    assert cloud.asked[0][0] == "GET /greengrass/things/my_core/news?deployment=&trust=&wait=20 HTTP/1.1"
    cloud.answer(204)
    assert cloud.use(lambda plane: plane.news("d/1", "a b", 0), loop) == News()
    assert "deployment=d%2F1&trust=a%20b&wait=0" in cloud.asked[0][0]
    cloud.answer(200, {"denied": "not authorized"})
    assert cloud.use(lambda plane: plane.news("d1", "abc", 0), loop) == News(None, None, "not authorized")


def test_reports_and_addresses(cloud: Cloud) -> None:
    async def work(plane: ControlPlane) -> None:
        await plane.report("g1", "d1", "Failure", "because")
        await plane.report("g1", "d1", "Success", "")
        await plane.put_connectivity([{"Id": "a", "HostAddress": "10.0.0.1", "PortNumber": 8883, "Metadata": ""}])

    cloud.answer(200, {})
    cloud.answer(200)
    cloud.answer(200, {"Version": "7"})
    cloud.use(work)
    assert cloud.connections == 1
    (line, headers, body), (_, _, success), (connectivity, _, entries) = cloud.asked
    assert line == f"PUT /greengrass/groups/g1/deployments/d1/cores/{QUOTED}/status HTTP/1.1"
    assert headers["content-type"] == "application/json"
    assert json.loads(body) == {"DeploymentStatus": "Failure", "ErrorMessage": "because"}
    assert json.loads(success) == {"DeploymentStatus": "Success"}
    assert connectivity == "PUT /greengrass/things/my_core/connectivityInfo HTTP/1.1"
    assert json.loads(entries)["ConnectivityInfo"][0]["HostAddress"] == "10.0.0.1"


def test_the_poll_does_not_hold_up_the_rest(cloud: Cloud) -> None:
    cloud.answer(204)
    cloud.answer(200, {})

    async def work(plane: ControlPlane) -> None:
        await plane.news("", "", 0)
        await plane.report("g1", "d1", "Success")

    cloud.use(work)
    assert cloud.connections == 2


KEYS = {"accessKeyId": "A", "secretAccessKey": "hidden", "sessionToken": "T", "expiration": "2030-01-01T00:00:00Z"}


def test_credentials(cloud: Cloud) -> None:
    cloud.answer(200, {"credentials": KEYS})
    assert cloud.use(lambda plane: plane.credentials("g1")) == KEYS
    assert cloud.asked[0][0] == "GET /greengrass/groups/g1/credentials?thing=my_core HTTP/1.1"
    cloud.answer(404, {"message": "The group g1 has no role."})
    assert cloud.use(lambda plane: plane.credentials("g1")) is None
    for body in (
        {},
        {"credentials": KEYS | {"expiration": ""}},
        {"credentials": KEYS | {"secretAccessKey": ["hidden"]}},
    ):
        cloud.answer(200, body)
        with pytest.raises(Malformed) as caught:
            cloud.use(lambda plane: plane.credentials("g1"))
        assert "credentials" in str(caught.value)
        assert "hidden" not in str(caught.value)


CERTIFICATE = {"certificate": "PEM", "authority": "PEM", "seconds": 604_800}


def test_server_certificates(cloud: Cloud) -> None:
    delegated = CERTIFICATE | {"delegation": {"certificate": "PEM", "authority": "PEM"}}
    cloud.answer(200, delegated)
    assert cloud.use(lambda plane: plane.server_certificate("CSR", ["10.0.0.1"], "CSR2")) == delegated
    line, _, body = cloud.asked[0]
    assert line == "POST /greengrass/things/my_core/serverCertificate HTTP/1.1"
    assert json.loads(body) == {"csr": "CSR", "hosts": ["10.0.0.1"], "delegationCsr": "CSR2"}
    cloud.answer(200, CERTIFICATE)
    assert cloud.use(lambda plane: plane.server_certificate("CSR", [], None)) == CERTIFICATE
    assert "delegationCsr" not in json.loads(cloud.asked[0][2])
    for wrong in ({"seconds": True}, {"seconds": 0}, {"authority": 1}, {"delegation": {"certificate": "PEM"}}):
        cloud.answer(200, CERTIFICATE | wrong)
        with pytest.raises(Malformed, match=r"answer\."):
            cloud.use(lambda plane: plane.server_certificate("CSR", []))


@pytest.mark.parametrize(
    ("status", "headers", "body", "offset", "expected"),
    [
        (200, {}, CONTENT, 0, CONTENT),
        (206, {"Content_Range": f"bytes 7-{len(CONTENT) - 1}/{len(CONTENT)}"}, CONTENT[7:], 7, CONTENT[7:]),
        (200, {}, CONTENT, 70_000, CONTENT[70_000:]),
        (200, {}, CONTENT, len(CONTENT), b""),
        (416, {"Content_Range": f"bytes */{len(CONTENT)}"}, b"", len(CONTENT), b""),
    ],
    ids=["whole", "range", "server without ranges", "at the end without ranges", "at the end"],
)
def test_artifacts(
    cloud: Cloud, status: int, headers: dict[str, str], body: bytes, offset: int, expected: bytes
) -> None:
    found: list[bytes] = []
    cloud.answer(status, body, **headers)
    cloud.use(lambda plane: plane.artifact("ab" * 32, offset, found.append))
    assert b"".join(found) == expected
    line, asked, _ = cloud.asked[0]
    assert line == f"GET /greengrass/artifacts/{'ab' * 32} HTTP/1.1"
    assert asked.get("range") == (f"bytes={offset}-" if offset else None)


@pytest.mark.parametrize(
    ("status", "headers", "kind"),
    [
        (206, {"Content_Range": "bytes 0-9/10"}, Malformed),
        (206, {}, Malformed),
        (416, {"Content_Range": "bytes */3"}, Rejected),
        (404, {}, Rejected),
        (503, {}, LinkDown),
    ],
)
def test_wrong_parts_of_an_artifact_are_not_taken(
    cloud: Cloud, status: int, headers: dict[str, str], kind: type[GgfastError]
) -> None:
    found: list[bytes] = []
    cloud.answer(status, b"0123456789", **headers)
    with pytest.raises(kind):
        cloud.use(lambda plane: plane.artifact("ab" * 32, 5, found.append))
    assert found == []


def test_a_core_without_cloud_has_none(cloud: Cloud, tmp_path: Path) -> None:
    assert ControlPlane.of(parse_config(configuration(1, tmp_path, local=True), tmp_path), Handed()) is None
    with pytest.raises(ConfigError, match="needs its certificate"):
        ControlPlane.of(parse_config(configuration(1, tmp_path), tmp_path), Handed())
