"""A core as the control plane sees it: fetches its deployments by long poll and reports that they went well."""

from __future__ import annotations

import http.client
import json
import ssl
import tempfile
import threading
from pathlib import Path
from typing import Any, Self
from urllib.parse import quote

from tests.e2e.cloud_process import CloudProcess
from tests.patience import patience

POLL_S = 2  # how long one poll waits, so that the end of a test does


class ActingCore:
    """Answers deployments until it is left. `deployments` are those it has reported, oldest first."""

    def __init__(self, cloud: CloudProcess, thing: str, thing_arn: str, certificate_pem: str, key_pem: str) -> None:
        self._cloud = cloud
        self._thing = thing
        self._arn = thing_arn
        self._context = client_context(cloud.ca_path, certificate_pem, key_pem)
        self._ending = threading.Event()
        self._reported = threading.Condition()
        self._thread = threading.Thread(target=self._run, name=f"core-{thing}")
        self.deployments: list[dict[str, Any]] = []
        self.error: BaseException | None = None

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ending.set()
        self._thread.join(patience(30))
        assert not self._thread.is_alive()
        if self.error is not None:
            raise AssertionError(f"the core failed: {self.error!r}") from self.error

    def wait_for_reports(self, count: int) -> None:
        """Return when that many deployments have been reported."""
        with self._reported:
            assert self._reported.wait_for(lambda: len(self.deployments) >= count or self.error, patience(30))
        assert self.error is None, self.error

    def _run(self) -> None:
        try:
            last = ""
            while not self._ending.is_set():
                status, body = self._ask(
                    "GET", f"/greengrass/things/{quote(self._thing)}/deployment?after={last}&wait={POLL_S}"
                )
                if status == 204:
                    continue
                assert status == 200, (status, body)
                found = json.loads(body)
                last = found["id"]
                self._report(found)
                with self._reported:
                    self.deployments.append(found)
                    self._reported.notify_all()
        except BaseException as error:
            with self._reported:
                self.error = error
                self._reported.notify_all()

    def _report(self, found: dict[str, Any]) -> None:
        path = (
            f"/greengrass/groups/{found['groupId']}/deployments/{found['id']}/cores/{quote(self._arn, safe='')}/status"
        )
        status, body = self._ask("PUT", path, json.dumps({"DeploymentStatus": "Success"}))
        assert status == 200, (status, body)

    def _ask(self, method: str, path: str, body: str | None = None) -> tuple[int, bytes]:
        connection = http.client.HTTPSConnection(
            self._cloud.iot_host, self._cloud.https_port, context=self._context, timeout=patience(30)
        )
        try:
            connection.request(method, path, body, {"Content-Type": "application/json"} if body else {})
            answer = connection.getresponse()
            return answer.status, answer.read()
        finally:
            connection.close()


def client_context(ca: Path, certificate_pem: str, key_pem: str) -> ssl.SSLContext:
    """TLS with a client certificate, towards the cloud."""
    context = ssl.create_default_context(cafile=str(ca))
    with tempfile.NamedTemporaryFile("w") as file:
        file.write(certificate_pem + "\n" + key_pem)
        file.flush()
        context.load_cert_chain(file.name)
    return context
