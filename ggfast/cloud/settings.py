"""cloud.json and the folder it lies in: everything one control plane is, in one place.

DIR/cloud.json      settings                         DIR/store.db     what the cloud knows
DIR/ca.crt ca.key   the certificate authority        DIR/artifacts/   code of functions, archives
DIR/master.key      opens sealed secrets             DIR/logs/        access log
DIR/tls/            the servers' own certificate     DIR/lock         held by the process that serves
"""

from __future__ import annotations

import re
import shlex
from dataclasses import dataclass
from pathlib import Path

import orjson

from ggfast.cloud.limits import (
    API_REQUESTS_BURST,
    API_REQUESTS_PER_S,
    DELEGATED_AUTHORITY_DAYS,
    DELEGATED_AUTHORITY_DAYS_MAX,
    SERVER_CERTIFICATE_MS_MAX,
    SERVER_CERTIFICATE_S_LEAST,
)
from ggfast.errors import ConfigError, Problem
from ggfast.fields import Fields, Problems, parse_json, shown
from ggfast.limits import CONFIG_BYTES_MAX

FILE = "cloud.json"
HOSTS_MAX = 64  # names in one certificate: clients read it at every handshake
WORDS_MAX = 64  # of a command: longer ones belong into a script
_ACCOUNT = re.compile(r"[0-9]{12}")
REGION = re.compile(r"[a-z]{2}(-[a-z]+)+-[0-9]")
_HOST = re.compile(r"[A-Za-z0-9]([A-Za-z0-9.-]{0,251}[A-Za-z0-9])?|[0-9a-fA-F:]{2,39}")


@dataclass(frozen=True, slots=True)
class CloudFolder:
    """Where the parts of a control plane lie."""

    root: Path

    @property
    def settings(self) -> Path:
        return self.root / FILE

    @property
    def ca(self) -> Path:
        return self.root / "ca.crt"

    @property
    def ca_key(self) -> Path:
        return self.root / "ca.key"

    @property
    def master_key(self) -> Path:
        return self.root / "master.key"

    @property
    def store(self) -> Path:
        return self.root / "store.db"

    @property
    def artifacts(self) -> Path:
        return self.root / "artifacts"

    @property
    def tls(self) -> Path:
        return self.root / "tls"

    @property
    def access_log(self) -> Path:
        return self.root / "logs" / "access.log"

    @property
    def events_log(self) -> Path:
        return self.root / "logs" / "events.log"

    @property
    def lock(self) -> Path:
        return self.root / "lock"


@dataclass(frozen=True, slots=True)
class CloudSettings:
    """What cloud.json says. Ports 0 let the system choose; `hosts[0]` is the name in every address we give."""

    account: str
    region: str  # where `create-core` and clients without a region work; every other region works as well
    hosts: tuple[str, ...]  # names and addresses our certificates are valid for
    listen: str = "0.0.0.0"
    api_port: int = 8_080
    mqtt_port: int = 8_883
    https_port: int = 8_443
    requests_per_s: int = int(API_REQUESTS_PER_S)
    requests_burst: int = int(API_REQUESTS_BURST)
    credentials_process: tuple[str, ...] = ()  # program and arguments that print keys for cores; () for none
    server_certificate_s: int = 0  # life of all cores' server certificates, for demonstrations; 0: as each group says
    delegated_authority_days: int = DELEGATED_AUTHORITY_DAYS  # life of CAs delegated to cores; 0: none is

    def text(self) -> bytes:
        """The file's content."""
        document: dict[str, object] = {
            "account": self.account,
            "region": self.region,
            "hosts": list(self.hosts),
            "listen": self.listen,
            "apiPort": self.api_port,
            "mqttPort": self.mqtt_port,
            "httpsPort": self.https_port,
            "limits": {"requestsPerSecond": self.requests_per_s, "requestsBurst": self.requests_burst},
        }
        if self.credentials_process:
            document["credentialsProcess"] = list(self.credentials_process)
        if self.server_certificate_s:
            document["serverCertificateSeconds"] = self.server_certificate_s
        if self.delegated_authority_days != DELEGATED_AUTHORITY_DAYS:
            document["delegatedAuthorityDays"] = self.delegated_authority_days
        return orjson.dumps(document, option=orjson.OPT_INDENT_2 | orjson.OPT_APPEND_NEWLINE)


def load_settings(folder: CloudFolder) -> CloudSettings:
    """Read and check cloud.json. Raises ConfigError with every problem; unknown settings are problems. Blocking."""
    try:
        with folder.settings.open("rb") as file:
            data = file.read(CONFIG_BYTES_MAX)
    except OSError as error:
        problem = Problem(str(folder.settings), error.strerror or "no readable file", "the settings of a control plane")
        hint = f"Make one with: ggfast-cloud init {folder.root}"
        raise ConfigError(f"{folder.root} is no control plane.", [problem], hint=hint) from error
    return parse_settings(data, str(folder.settings))


def parse_settings(data: bytes, name: str = FILE) -> CloudSettings:
    """Like `load_settings` for text at hand. Not blocking."""
    problems = Problems()
    document = parse_json(data, problems, FILE)
    problems.raise_if_any(f"Failed to parse {name}.")
    top = Fields(document, "", problems)
    limits = top.child("limits")
    settings = CloudSettings(
        account=top.text("account", pattern=_ACCOUNT, expected="12 digits"),
        region=top.text("region", pattern=REGION, expected="a region such as eu-west-1"),
        hosts=top.texts("hosts", HOSTS_MAX, pattern=_HOST, expected="a host name or address"),
        listen=top.text("listen", default="0.0.0.0", pattern=_HOST, expected="an address"),
        api_port=top.integer("apiPort", 0, 65_535, default=8_080),
        mqtt_port=top.integer("mqttPort", 0, 65_535, default=8_883),
        https_port=top.integer("httpsPort", 0, 65_535, default=8_443),
        requests_per_s=limits.integer(
            "requestsPerSecond", 1, 1_000_000, default=int(API_REQUESTS_PER_S), unit="requests of one key"
        ),
        requests_burst=limits.integer(
            "requestsBurst", 1, 1_000_000, default=int(API_REQUESTS_BURST), unit="requests of one key"
        ),
        credentials_process=_command(top, "credentialsProcess"),
        server_certificate_s=_certificate_seconds(top, "serverCertificateSeconds"),
        delegated_authority_days=top.integer(
            "delegatedAuthorityDays", 0, DELEGATED_AUTHORITY_DAYS_MAX, default=DELEGATED_AUTHORITY_DAYS, unit="days"
        ),
    )
    if not settings.hosts and not problems:
        problems.add("hosts", "no entry", "the names and addresses under which clients reach this server")
    for path in top.unknown():
        names = (
            "account, region, hosts, listen, apiPort, mqttPort, httpsPort, limits, credentialsProcess, "
            "serverCertificateSeconds, delegatedAuthorityDays"
        )
        problems.add(path, "an unknown setting", f"one of {names}")
    problems.raise_if_any(f"The settings {name} are not valid.")
    return settings


def _certificate_seconds(top: Fields, key: str) -> int:
    """0, or a life that leaves a core the time to renew."""
    most = SERVER_CERTIFICATE_MS_MAX // 1_000
    found = top.integer(key, 0, most, default=0, unit="seconds")
    if 0 < found < SERVER_CERTIFICATE_S_LEAST:
        expected = f"{SERVER_CERTIFICATE_S_LEAST} to {most} seconds, or 0 for what each group says"
        top.problems.add(key, shown(found), expected)
    return found


def _command(top: Fields, key: str) -> tuple[str, ...]:
    """A command as a list of words, or as text that is split as a shell would; () if absent. There is no shell."""
    written = top.raw(key)
    if written is None:
        return ()
    expected = "a program and its arguments: a list of words, or text as in AWS's credential_process"
    if not isinstance(written, str):
        words = top.texts(key, WORDS_MAX, expected=expected)
    else:
        try:
            words = tuple(shlex.split(top.text(key, expected=expected)))
        except ValueError as error:
            top.problems.add(key, f"text that cannot be split into words ({error})", expected)
            return ()
    if len(words) > WORDS_MAX or not words or not all(words[:1]) or any("\0" in word for word in words):
        top.problems.add(key, shown(written), expected)
    return words
