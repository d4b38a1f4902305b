"""A control plane for tests as its users have it: made by `ggfast-cloud init`, run by `ggfast-cloud serve`.

with CloudProcess(tmp_path / "cloud") as cloud:
    cloud.client("greengrass").list_groups()
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any, Self

import boto3
from botocore.config import Config

from tests.patience import patience

REGION = "eu-west-1"
ACCOUNT = "123456789012"
READY_S = patience(60.0)
STOP_S = patience(30.0)


def run_cloud(*arguments: str | Path, check: bool = True) -> subprocess.CompletedProcess[str]:
    """Run `ggfast-cloud` with these arguments and return what it printed."""
    done = subprocess.run(
        [sys.executable, "-m", "ggfast.cli.cloud", *map(str, arguments)],
        capture_output=True,
        text=True,
        timeout=READY_S,
        check=False,
    )
    if check and done.returncode != 0:
        raise AssertionError(f"ggfast-cloud {arguments}: status {done.returncode}\n{done.stdout}\n{done.stderr}")
    return done


class CloudProcess:
    """One running cloud in `folder`, which must not be there yet unless `made` is given (what `init --json` printed).
    It listens on 127.0.0.1 under the name localhost, or at another `address` of the loopback network under that; on
    ports that are free, or on `https_port`."""

    def __init__(
        self,
        folder: Path,
        *,
        region: str = REGION,
        account: str = ACCOUNT,
        made: dict[str, str] | None = None,
        address: str = "127.0.0.1",
        https_port: int = 0,
    ) -> None:
        self.folder = folder
        self.region = region
        self.address = address
        if made is None:
            name = "localhost" if address == "127.0.0.1" else address
            options = ["--account", account, "--region", region, "--host", name, "--json"]
            made = json.loads(run_cloud("init", folder, *options).stdout)
        self.account = made["accountId"]
        self.access_key = made["accessKeyId"]
        self.secret_key = made["secretAccessKey"]
        self.ca_path = Path(made["caPath"])
        self._process: subprocess.Popen[str] | None = None
        self._errors = folder.with_name(f"{folder.name}.stderr")
        self.ready: dict[str, Any] = {"httpsPort": https_port}
        self.start()

    def start(self) -> None:
        """Serve; the same ports again after a restart."""
        ports = [f"--{name}-port={self.ready.get(f'{name}Port', 0)}" for name in ("api", "mqtt", "https")]
        program = [sys.executable, "-m", "ggfast.cli.cloud", "serve", str(self.folder), f"--host={self.address}"]
        with self._errors.open("ab") as errors:
            self._process = subprocess.Popen(
                [*program, *ports, "--json"], stdout=subprocess.PIPE, stderr=errors, text=True
            )
        assert self._process.stdout is not None
        line = self._process.stdout.readline()  # ends with the process at the latest
        if not line:
            status = self._process.wait(STOP_S)
            raise AssertionError(f"the cloud ended with status {status}:\n{self.errors()}")
        self.ready = json.loads(line)

    @property
    def pid(self) -> int:
        assert self._process is not None
        return self._process.pid

    @property
    def endpoint(self) -> str:
        """The API's URL."""
        return str(self.ready["endpoint"])

    @property
    def iot_host(self) -> str:
        """The name of the MQTT and HTTPS listeners for devices."""
        return str(self.ready["iotEndpoint"])

    @property
    def api_port(self) -> int:
        return int(self.ready["apiPort"])

    @property
    def mqtt_port(self) -> int:
        return int(self.ready["mqttPort"])

    @property
    def https_port(self) -> int:
        return int(self.ready["httpsPort"])

    def client(self, service: str, *, region: str = "", retries: int = 2, **credentials: str) -> Any:
        """A boto3 client; `retries` are attempts after the first. `credentials` instead of the administrator's."""
        keys = {"aws_access_key_id": self.access_key, "aws_secret_access_key": self.secret_key}
        return boto3.session.Session().client(
            service,
            region_name=region or self.region,
            endpoint_url=self.endpoint,
            verify=str(self.ca_path),
            config=Config(retries={"total_max_attempts": retries + 1, "mode": "standard"}),
            **(keys | credentials),
        )

    def aws_environment(self) -> dict[str, str]:
        """The environment in which AWS tools find this cloud and nothing else."""
        kept = {name: value for name, value in os.environ.items() if not name.startswith("AWS_")}
        return kept | {
            "AWS_ENDPOINT_URL": self.endpoint,
            "AWS_CA_BUNDLE": str(self.ca_path),
            "REQUESTS_CA_BUNDLE": str(self.ca_path),
            "AWS_ACCESS_KEY_ID": self.access_key,
            "AWS_SECRET_ACCESS_KEY": self.secret_key,
            "AWS_DEFAULT_REGION": self.region,
            "AWS_REGION": self.region,
            "AWS_EC2_METADATA_DISABLED": "true",
            "AWS_PAGER": "",
        }

    def errors(self) -> str:
        """What the process has logged."""
        return self._errors.read_text()

    def access_log(self) -> list[dict[str, Any]]:
        """The access log's lines."""
        return [json.loads(line) for line in (self.folder / "logs" / "access.log").read_text().splitlines()]

    def stop(self) -> int:
        """End it gracefully; its exit status."""
        assert self._process is not None
        self._process.terminate()
        return self._ended()

    def kill(self) -> None:
        """End it at once."""
        assert self._process is not None
        self._process.kill()
        self._ended()

    def restart(self) -> None:
        """Serve again, whatever became of the process."""
        assert self._process is not None
        if self._process.poll() is None:
            self._process.terminate()
        self._ended()
        self.start()

    def close(self) -> None:
        """End it if it runs."""
        assert self._process is not None
        if self._process.poll() is None:
            self._process.terminate()
        self._ended()

    def _ended(self) -> int:
        assert self._process is not None
        try:
            return self._process.wait(STOP_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            return self._process.wait()
        finally:
            if self._process.stdout is not None:
                self._process.stdout.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
