"""Thousands of requests generated from the services' models: never a 500, and nothing half made is left."""

from __future__ import annotations

import http.client
import json
import os
import sqlite3
import ssl
from collections import Counter
from collections.abc import Iterator
from typing import Any
from urllib.parse import urlsplit

import pytest
from botocore.auth import SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials

from ggfast.cloud.services import all_services
from tests.e2e.cloud_process import CloudProcess
from tests.e2e.cloud_requests import SERVICES, Generator, Request

REQUESTS = int(os.environ.get("GGFAST_FUZZ_REQUESTS", "5000"))
SEED = int(os.environ.get("GGFAST_FUZZ_SEED", "20261007"))
SCOPES = {"iot-data": "iotdata"}


@pytest.fixture(scope="module")
def cloud(tmp_path_factory: pytest.TempPathFactory) -> Iterator[CloudProcess]:
    with CloudProcess(tmp_path_factory.mktemp("cloud") / "data") as process:
        yield process


class Wire:
    """One connection to the API that sends what it is told, signed."""

    def __init__(self, cloud: CloudProcess) -> None:
        self.cloud = cloud
        place = urlsplit(cloud.endpoint)
        context = ssl.create_default_context(cafile=str(cloud.ca_path))
        self.connection = http.client.HTTPSConnection(place.hostname or "", place.port, context=context, timeout=30)
        self.credentials = Credentials(cloud.access_key, cloud.secret_key)

    def send(self, request: Request) -> tuple[int, bytes]:
        """Status and body of the answer."""
        signed = AWSRequest(
            request.method, self.cloud.endpoint + request.path, dict(request.headers), request.body or None
        )
        SigV4Auth(self.credentials, request.scope, self.cloud.region).add_auth(signed)
        self.connection.request(request.method, request.path, request.body or None, dict(signed.headers))
        answer = self.connection.getresponse()
        return answer.status, answer.read()


def known_operations() -> dict[str, set[str]]:
    services = all_services()
    return {name: set(services[SCOPES.get(name, name)].operations) for name in SERVICES}


def test_p7_generated_requests_never_fail_inside(cloud: CloudProcess) -> None:
    generator = Generator(SEED, known_operations())
    wire = Wire(cloud)
    statuses: Counter[int] = Counter()
    for number in range(REQUESTS):
        request = generator.next()
        status, body = wire.send(request)
        statuses[status] += 1
        assert status < 500, f"request {number} of seed {SEED}: {request} -> {status} {body[:500]!r}"
        if status < 300:
            try:
                generator.seen(json.loads(body))
            except ValueError:
                generator.seen(body.decode(errors="replace")[:200])
        else:
            assert body, f"request {number} of seed {SEED}: {request} -> {status} without a word"
    wire.connection.close()
    assert statuses[200] + statuses[201] > REQUESTS // 10, statuses  # it does reach what is behind the checks
    everything_is_whole(cloud)


def everything_is_whole(cloud: CloudProcess) -> None:
    """Whatever lists name can be had, with every version they speak of; and the file is sound."""
    greengrass, iot, lambdas = cloud.client("greengrass"), cloud.client("iot"), cloud.client("lambda")
    for kind in ("core", "device", "function", "subscription", "logger", "resource", "connector"):
        for definition in every(greengrass, f"list_{kind}_definitions", "Definitions"):
            name = f"{kind.title()}DefinitionId"
            got = getattr(greengrass, f"get_{kind}_definition")(**{name: definition["Id"]})
            for version in every(greengrass, f"list_{kind}_definition_versions", "Versions", **{name: got["Id"]}):
                read = getattr(greengrass, f"get_{kind}_definition_version")
                read(**{name: got["Id"], f"{kind.title()}DefinitionVersionId": version["Version"]})
    for group in every(greengrass, "list_groups", "Groups"):
        for version in every(greengrass, "list_group_versions", "Versions", GroupId=group["Id"]):
            greengrass.get_group_version(GroupId=group["Id"], GroupVersionId=version["Version"])
        for deployment in every(greengrass, "list_deployments", "Deployments", GroupId=group["Id"]):
            greengrass.get_deployment_status(GroupId=group["Id"], DeploymentId=deployment["DeploymentId"])
    for thing in iot.list_things()["things"]:
        iot.describe_thing(thingName=thing["thingName"])
        iot.list_thing_principals(thingName=thing["thingName"])
    for certificate in iot.list_certificates()["certificates"]:
        iot.describe_certificate(certificateId=certificate["certificateId"])
    for function in lambdas.list_functions()["Functions"]:
        lambdas.get_function(FunctionName=function["FunctionName"])
    with sqlite3.connect(f"file:{cloud.folder / 'store.db'}?mode=ro", uri=True) as connection:
        assert connection.execute("PRAGMA integrity_check").fetchone() == ("ok",)
        assert connection.execute("PRAGMA foreign_key_check").fetchall() == []
    connection.close()


def every(client: Any, operation: str, member: str, **given: str) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = []
    for page in client.get_paginator(operation).paginate(**given):
        found += page[member]
    return found


def test_the_generator_is_the_same_for_the_same_seed() -> None:
    first, second = (Generator(7, known_operations()) for _ in range(2))
    for _ in range(200):
        assert first.next() == second.next()
