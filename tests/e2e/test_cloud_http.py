"""The API over HTTP as clients meet it: what is refused and how, regions, sessions, stopping, backups, secrets."""

from __future__ import annotations

import http.client
import io
import json
import ssl
import subprocess
import sys
import threading
import time
import urllib.request
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from unittest import mock

import pytest
from botocore.auth import SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials
from botocore.exceptions import ClientError
from cloud_process import CloudProcess, run_cloud

JSON = {"Content-Type": "application/json"}


@pytest.fixture(scope="module")
def cloud(tmp_path_factory: pytest.TempPathFactory) -> Iterator[CloudProcess]:
    with CloudProcess(tmp_path_factory.mktemp("http") / "cloud") as process:
        yield process


def send(
    cloud: CloudProcess,
    method: str,
    path: str,
    body: bytes = b"",
    *,
    headers: dict[str, str] | None = None,
    service: str = "greengrass",
    secret: str = "",
    key: str = "",
    sign: bool = True,
) -> tuple[int, dict[str, str], Any]:
    """Status, headers and decoded body of one request, signed unless told."""
    request = AWSRequest(method=method, url=cloud.endpoint + path, data=body, headers=headers or JSON)
    if sign:
        credentials = Credentials(key or cloud.access_key, secret or cloud.secret_key)
        SigV4Auth(credentials, service, cloud.region).add_auth(request)
    context = ssl.create_default_context(cafile=str(cloud.ca_path))
    connection = http.client.HTTPSConnection("localhost", cloud.api_port, context=context, timeout=30)
    try:
        connection.request(method, path, body, dict(request.headers.items()))
        response = connection.getresponse()
        content = response.read()
        found = {name.lower(): value for name, value in response.getheaders()}
        return response.status, found, json.loads(content) if content[:1] in (b"{", b"[") else content
    finally:
        connection.close()


def test_wrong_signatures(cloud: CloudProcess) -> None:
    status, headers, body = send(cloud, "GET", "/greengrass/groups", secret="wrong")
    assert (status, body["__type"]) == (403, "InvalidSignatureException")
    assert headers["x-amzn-errortype"] == "InvalidSignatureException"
    assert headers["x-amzn-requestid"]
    status, _, body = send(cloud, "GET", "/greengrass/groups", key="AKIA" + "B" * 16)
    assert (status, body["__type"]) == (403, "UnrecognizedClientException")
    status, _, body = send(cloud, "GET", "/greengrass/groups", sign=False)
    assert (status, body["__type"]) == (403, "MissingAuthenticationTokenException")
    with pytest.raises(ClientError) as refused:
        cloud.client("sts", aws_secret_access_key="wrong").get_caller_identity()
    assert refused.value.response["Error"]["Code"] == "SignatureDoesNotMatch"
    with pytest.raises(ClientError) as refused:
        cloud.client("iam", aws_access_key_id="AKIA" + "B" * 16).list_roles()
    assert refused.value.response["Error"]["Code"] == "InvalidClientTokenId"


@pytest.mark.parametrize("skew", [-600, 600])
def test_skewed_clock(cloud: CloudProcess, skew: float) -> None:
    import datetime

    from botocore import auth

    now = datetime.datetime.now(datetime.UTC).replace(tzinfo=None) + datetime.timedelta(seconds=skew)
    with mock.patch.object(auth, "get_current_datetime", return_value=now):
        status, headers, body = send(cloud, "GET", "/greengrass/groups")
    assert (status, body["__type"]) == (403, "InvalidSignatureException")
    assert body["message"].startswith("Signature expired" if skew < 0 else "Signature not yet current")
    assert "date" in headers  # clients set their clock by it


def test_odd_requests_get_their_error(cloud: CloudProcess) -> None:
    groups = "/greengrass/groups"
    for method, path, body, headers, status, code in (
        ("GET", "/greengrass/nothing", b"", JSON, 404, None),
        ("PATCH", groups, b"", JSON, 404, None),
        ("POST", groups, b'{"Name": "a", "Odd": 1}', JSON, 400, None),
        ("POST", groups, b'{"Name": ', JSON, 400, "SerializationException"),
        ("POST", groups, b'{"Name": "a"}', {"Content-Type": "text/plain"}, 415, "UnsupportedMediaTypeException"),
        ("POST", groups, b'{"Name": "' + b"x" * 10_000_000 + b'"}', JSON, 413, "RequestEntityTooLargeException"),
        ("GET", f"{groups}/..%2F..%2Fetc%2Fpasswd", b"", JSON, 404, None),
        ("GET", f"{groups}/%00", b"", JSON, 400, None),
    ):
        found, answer_headers, answer = send(cloud, method, path, body, headers=headers)
        assert found == status, (method, path[:60], answer)
        assert answer_headers["x-amzn-requestid"]
        assert code is None or answer["__type"] == code, answer
    status, _, answer = send(cloud, "GET", "/", service="s3")
    assert (status, answer["__type"]) == (404, "UnknownOperationException")


def test_sql_in_names_is_a_name(cloud: CloudProcess) -> None:
    name = "'); DROP TABLE documents; --"
    greengrass = cloud.client("greengrass")
    made = greengrass.create_group(Name=name)
    assert greengrass.get_group(GroupId=made["Id"])["Name"] == name
    with pytest.raises(ClientError) as refused:
        greengrass.get_group(GroupId="' OR 1=1 --")
    assert refused.value.response["ResponseMetadata"]["HTTPStatusCode"] in (400, 404)


def test_two_regions_at_once(cloud: CloudProcess) -> None:
    made = {
        region: cloud.client("greengrass", region=region).create_group(Name=region)
        for region in ("us-east-1", "ap-south-1")
    }
    for region, group in made.items():
        assert group["Arn"].startswith(f"arn:aws:greengrass:{region}:{cloud.account}:")
        names = [found["Name"] for found in cloud.client("greengrass", region=region).list_groups()["Groups"]]
        assert names == [region]


def test_a_narrow_key_and_a_session(cloud: CloudProcess, tmp_path: Path) -> None:
    policy = {"Version": "2012-10-17", "Statement": {"Effect": "Allow", "Action": "greengrass:List*", "Resource": "*"}}
    file = tmp_path / "policy.json"
    file.write_text(json.dumps(policy))
    bare = run_cloud("create-key", cloud.folder, "--name", "narrow", check=False)
    assert bare.returncode == 2 and "one of the arguments --policy --administrator is required" in bare.stderr
    key = json.loads(run_cloud("create-key", cloud.folder, "--name", "narrow", "--policy", file, "--json").stdout)
    narrow = {"aws_access_key_id": key["accessKeyId"], "aws_secret_access_key": key["secretAccessKey"]}
    cloud.client("greengrass", **narrow).list_groups()
    with pytest.raises(ClientError) as refused:
        cloud.client("greengrass", **narrow).create_group(Name="no")
    assert refused.value.response["Error"]["Code"] == "AccessDeniedException"
    session = cloud.client("sts").get_session_token(DurationSeconds=900)["Credentials"]
    client = cloud.client(
        "greengrass",
        aws_access_key_id=session["AccessKeyId"],
        aws_secret_access_key=session["SecretAccessKey"],
        aws_session_token=session["SessionToken"],
    )
    client.list_groups()
    everything = cloud.errors() + (cloud.folder / "logs" / "access.log").read_text()
    for secret in (cloud.secret_key, key["secretAccessKey"], session["SessionToken"], session["SecretAccessKey"]):
        assert secret not in everything
    assert session["AccessKeyId"] in everything
    run_cloud("delete-key", cloud.folder, "narrow")
    time.sleep(2.5)  # limits.KEY_CACHED_S: the server learns of it by itself
    with pytest.raises(ClientError) as refused:
        cloud.client("greengrass", **narrow).list_groups()
    assert refused.value.response["Error"]["Code"] == "UnrecognizedClientException"


def test_health_and_metrics(cloud: CloudProcess) -> None:
    cloud.client("greengrass").list_groups()
    status, _, health = send(cloud, "GET", "/healthz", sign=False)
    assert (status, health["status"], health["store"]) == (200, "ok", "ok")
    assert set(health["listeners"].values()) == {"up"}
    status, headers, text = send(cloud, "GET", "/metrics", sign=False)
    assert status == 200
    assert headers["content-type"].startswith("application/openmetrics-text")
    assert b'service="greengrass",operation="ListGroups",status="2xx"' in text
    assert text.endswith(b"# EOF\n")


def test_artifact_links_need_their_token(cloud: CloudProcess) -> None:
    for path in (f"/artifacts/{'a' * 64}", f"/artifacts/{'a' * 64}?token=x", "/artifacts/../cloud.json?token="):
        status, _, body = send(cloud, "GET", path, sign=False)
        assert (status, body["__type"]) == (403, "AccessDeniedException")


def test_code_comes_by_its_link_and_not_when_it_is_damaged(cloud: CloudProcess) -> None:
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w") as archive:
        archive.writestr("f.py", "def h(event, context): pass\n" * 20_000)
    role = f"arn:aws:iam::{cloud.account}:role/r"
    client = cloud.client("lambda")
    client.create_function(
        FunctionName="linked", Runtime="python3.11", Role=role, Handler="f.h", Code={"ZipFile": packed.getvalue()}
    )
    link = client.get_function(FunctionName="linked")["Code"]["Location"]
    path = link.partition("/artifacts/")[2]
    status, headers, body = send(cloud, "GET", f"/artifacts/{path}", sign=False)
    assert (status, body) == (200, packed.getvalue())
    assert headers["content-type"] == "application/octet-stream"
    digest = path.partition("?")[0]
    (cloud.folder / "artifacts" / digest[:2] / digest).write_bytes(packed.getvalue()[:-1])
    assert send(cloud, "GET", f"/artifacts/{path}", sign=False)[0] == 503


def test_one_server_for_a_folder_and_a_backup_of_it(cloud: CloudProcess, tmp_path: Path) -> None:
    done = run_cloud("serve", cloud.folder, "--api-port=0", "--mqtt-port=0", "--https-port=0", check=False)
    assert done.returncode == 1
    assert "served by another process" in done.stderr
    name = cloud.client("greengrass").create_group(Name="kept")["Id"]
    run_cloud("backup", cloud.folder, tmp_path / "all.tar")
    assert (tmp_path / "all.tar").stat().st_mode & 0o777 == 0o600
    run_cloud("restore", tmp_path / "all.tar", tmp_path / "again")
    assert run_cloud("restore", tmp_path / "all.tar", tmp_path / "again", check=False).returncode == 1
    made = {
        "accountId": cloud.account,
        "accessKeyId": cloud.access_key,
        "secretAccessKey": cloud.secret_key,
        "caPath": str(tmp_path / "again" / "ca.crt"),
    }
    with CloudProcess(tmp_path / "again", made=made) as again:
        assert again.client("greengrass").get_group(GroupId=name)["Name"] == "kept"
    damaged = bytearray((tmp_path / "all.tar").read_bytes())
    at = damaged.index(b"BEGIN CERTIFICATE") + 100
    damaged[at] ^= 1
    (tmp_path / "bad.tar").write_bytes(damaged)
    done = run_cloud("restore", tmp_path / "bad.tar", tmp_path / "bad", check=False)
    assert done.returncode == 1
    assert not (tmp_path / "bad").exists()


def test_create_core(cloud: CloudProcess, tmp_path: Path) -> None:
    ports = [f"--mqtt-port={cloud.mqtt_port}", f"--https-port={cloud.https_port}"]
    out = tmp_path / "gateway"
    made = json.loads(run_cloud("create-core", "gateway", "--dir", cloud.folder, "--out", out, *ports, "--json").stdout)
    thing = json.loads((out / "config" / "config.json").read_text())["coreThing"]
    assert thing["thingArn"] == made["thingArn"]
    assert (out / "certs" / thing["keyPath"]).stat().st_mode & 0o777 == 0o600
    group = cloud.client("greengrass").get_group(GroupId=made["groupId"])
    assert group["Name"] == "gateway"
    context = ssl.create_default_context(cafile=str(out / "certs" / thing["caPath"]))
    context.load_cert_chain(out / "certs" / thing["certPath"], out / "certs" / thing["keyPath"])
    url = f"https://{thing['ggHost']}:{thing['ggHttpPort']}/greengrass/discover/thing/gateway"
    with urllib.request.urlopen(url, context=context, timeout=30) as answered:  # its certificate and policy let it in
        found = json.load(answered)
    assert [entry["GGGroupId"] for entry in found["GGGroups"]] == [made["groupId"]]
    done = run_cloud("create-core", "gateway", "--dir", cloud.folder, "--out", tmp_path / "b", check=False)
    assert done.returncode == 1
    assert not (tmp_path / "b").exists()
    done = run_cloud("create-core", "c", "--dir", cloud.folder, "--out", tmp_path / "b", "--mqtt-port=0", check=False)
    assert done.returncode == 1 and "--mqtt-port" in done.stderr
    assert not (tmp_path / "b").exists()
    key = (out / "certs" / thing["keyPath"]).read_text().splitlines()[1]
    assert key not in (cloud.folder / "store.db").read_bytes().decode("latin-1")


def test_init_refuses_a_folder_with_something_in_it(tmp_path: Path) -> None:
    (tmp_path / "a").write_text("")
    done = run_cloud("init", tmp_path, check=False)
    assert done.returncode == 1
    assert "not empty" in done.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["a"]
    done = run_cloud("init", tmp_path / "b", "--account", "12", "--region", "x", check=False)
    assert "account" in done.stderr and "region" in done.stderr
    assert not (tmp_path / "b").exists()


def test_a_stop_finishes_what_is_under_way(tmp_path: Path) -> None:
    with CloudProcess(tmp_path / "cloud") as cloud:
        client = cloud.client("iot", retries=0)
        client.list_things()
        done: list[str] = []

        def work() -> None:
            try:
                while True:
                    done.append(client.create_thing(thingName=f"t{len(done)}")["thingName"])
            except Exception as error:
                done.append(type(error).__name__)

        thread = threading.Thread(target=work)
        thread.start()
        while len(done) < 20:
            time.sleep(0.01)
        assert cloud.stop() == 0
        thread.join(30)
        cloud.start()
        kept = cloud.client("iot").get_paginator("list_things").paginate().build_full_result()["things"]
        assert {thing["thingName"] for thing in kept} == set(done[:-1])
        assert "Traceback" not in cloud.errors()


def test_the_command_line_needs_no_server_library(repository: Path) -> None:
    code = "import sys, ggfast.cli.cloud, ggfast.cli.cloud_init; sys.exit('aiohttp' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], cwd=repository, check=False).returncode == 0
