"""config.json, parsed once into frozen values; the rest of the code never sees a dict.

`load_config` accepts every field of every V1 version (greengrass-core 2.3), fills in V1's defaults, and
reports all problems together as ConfigError. Unknown keys are tolerated and listed in `Config.warnings`, because
a file written for one version must load in another. All settings take effect at the next start. Blocking
(reads one small file); changes nothing on disk.
"""

from __future__ import annotations

import os
import re
from dataclasses import dataclass, field, replace
from enum import StrEnum
from pathlib import Path
from typing import Final

from ggfast import limits
from ggfast.arns import ThingArn
from ggfast.crypto_settings import Crypto, read_crypto
from ggfast.errors import ConfigError, Problem
from ggfast.fields import Fields, Problems, parse_json, shown
from ggfast.layout import DEFAULT_PID_DIRECTORY, Layout
from ggfast.settings import (
    absolute_paths,
    account,
    host,
    modules,
    name_patterns,
    number,
    one_of,
    programs,
    read_section,
    switch,
    text,
    user_ids,
    yes_no,
)

MISSING_PATHS_TEXT: Final = "The configuration file is missing the CaPath, CertPath or KeyPath."

VERSIONS: Final = tuple(f"1.{minor}" for minor in range(12))
_PROXY_URL = re.compile(r"https?://[A-Za-z0-9.-]{1,253}(:[0-9]{1,5})?/?")
_FILE_NAME = re.compile(r"[^\0\n]{0,1024}")
_RUNTIME = re.compile(r"python[0-9.]{1,5}|nodejs[0-9x.]{0,5}|java[0-9]{1,2}(\.al2)?")
_CLIENT_ID = re.compile(r"[\x20-\x7e]{1,128}|")


# Bridges and pairs of containers and virtual machines; VPNs are not among them, devices may well come that way.
CONTAINER_INTERFACES: Final = (
    "docker*",
    "br-" + "[0-9a-f]" * 12,
    "veth*",
    "virbr*",
    "vnet*",
    "cni*",
    "flannel*",
    "cali*",
    "podman*",
    "lxc*",
    "lxdbr*",
)


class Profile(StrEnum):
    """Which limits hold (design 8)."""

    V1 = "v1"
    OPEN = "open"


@dataclass(frozen=True, slots=True)
class MessageLimits:
    """Bounds of one message; `topic_slashes` None means any depth."""

    payload_bytes: int
    topic_bytes: int
    topic_slashes: int | None

    @classmethod
    def of(cls, profile: Profile) -> MessageLimits:
        """The limits of a profile (greengrass-core 5.4; design 8)."""
        if profile is Profile.V1:
            return cls(limits.V1_PAYLOAD_BYTES_MAX, limits.V1_TOPIC_BYTES_MAX, limits.V1_TOPIC_SLASHES_MAX)
        return cls(limits.OPEN_PAYLOAD_BYTES_MAX, limits.MQTT_TOPIC_BYTES_MAX, None)


@dataclass(frozen=True, slots=True)
class VersionProfile:
    """Which V1 release this core presents itself as: `1.<minor>`."""

    minor: int = 11

    def __str__(self) -> str:
        return f"1.{self.minor}"

    @property
    def first_release(self) -> bool:
        """1.0: other paths, see layout.py."""
        return self.minor == 0

    @property
    def shadow_sync_timeout_s(self) -> int:
        """Default of `system.shadowSyncTimeout`."""
        return 1 if self.minor <= 6 else 5

    @property
    def late_log_names(self) -> bool:
        """Whether system logs are called GGConnManager.log rather than connection_manager.log."""
        return self.minor >= 7


@dataclass(frozen=True, slots=True)
class NetworkProxy:
    """coreThing.networkProxy: the way out for cloud traffic and functions."""

    url: str
    username: str = ""
    password: str = field(default="", repr=False)
    no_proxy_addresses: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class CoreThing:
    """Who the core is and how it talks to the cloud and to its devices."""

    thing_arn: ThingArn
    network_proxy: NetworkProxy | None = None
    ca_path: str = text(
        "caPath", "", "1.0", "AWS IoT root CA file below certs/", pattern=_FILE_NAME, rule="a file name"
    )
    cert_path: str = text(
        "certPath", "", "1.0", "core certificate below certs/", pattern=_FILE_NAME, rule="a file name"
    )
    key_path: str = text("keyPath", "", "1.0", "core private key below certs/", pattern=_FILE_NAME, rule="a file name")
    iot_host: str = host("iotHost", "", "1.0", "MQTT endpoint of the cloud")
    gg_host: str = host("ggHost", "", "1.0", "HTTPS endpoint of the control plane")
    keep_alive_s: int = number("keepAlive", 600, 30, 1_200, "s", "1.0", "MQTT keep-alive towards the cloud")
    connection_retry_interval_max_s: int = number(
        "mqttMaxConnectionRetryInterval",
        60,
        1,
        86_400,
        "s",
        "1.6",
        "longest pause between two attempts to connect; also taken at top level",
    )
    core_client_id: str = text(
        "coreClientId",
        "",
        "1.8",
        "MQTT client id towards the cloud; empty: the thing name",
        pattern=_CLIENT_ID,
        rule="1 to 128 printable characters",
    )
    iot_mqtt_port: int = number(
        "iotMqttPort", 8_883, 1, 65_535, "", "1.7", "MQTT to iotHost; 443 goes through firewalls by ALPN"
    )
    iot_http_port: int = number("iotHttpPort", 8_443, 1, 65_535, "", "1.8", "HTTPS to iotHost")
    gg_http_port: int = number("ggHttpPort", 8_443, 1, 65_535, "", "1.8", "HTTPS to ggHost")
    gg_mqtt_port: int = number("ggMqttPort", 8_883, 1_024, 65_535, "", "1.10", "local MQTT listener for devices")
    mqtt_operation_timeout_s: int = number(
        "mqttOperationTimeout", 5, 5, 3_600, "s", "1.10.2", "publish, subscribe, unsubscribe towards the cloud"
    )
    system_component_auth_timeout_ms: int = number(
        "systemComponentAuthTimeout", 5_000, 500, 5_000, "ms", "1.10.3", "system parts must authenticate within it"
    )
    gg_daemon_port: int = number("ggDaemonPort", 8_000, 1_024, 65_535, "", "1.11", "local HTTP interface of functions")


@dataclass(frozen=True, slots=True)
class Runtime:
    """How functions are run."""

    use_systemd: bool | None = yes_no("cgroup.useSystemd", None, "1.0", "whether systemd owns the cgroup tree")
    allow_functions_to_run_as_root: bool = yes_no(
        "allowFunctionsToRunAsRoot", False, "1.7", "whether RunAs uid or gid 0 may be deployed"
    )
    post_start_health_check_timeout_ms: int = number(
        "postStartHealthCheckTimeout", 30_000, 1_000, 3_600_000, "ms", "1.9", "wait for the container test"
    )
    work_items_max: int = number(
        "maxWorkItemCount", limits.WORK_ITEMS_MAX, 1, 65_536, "", "1.10", "work items held at once; more are refused"
    )
    concurrent_max: int = number(
        "maxConcurrentLimit", limits.ON_DEMAND_WORKERS_MAX, 1, 1_024, "", "1.10", "on-demand workers alive at once"
    )
    lru_size: int = number("lruSize", 25, 1, 1_024, "", "1.10", "lower bound of maxConcurrentLimit")
    mount_all_block_devices: bool = yes_no("mountAllBlockDevices", False, "1.11", "yes when /usr is not under /")


@dataclass(frozen=True, slots=True)
class System:
    """Settings of system parts."""

    shadow_sync_timeout_s: int = number("shadowSyncTimeout", 5, 1, 3_600, "s", "1.1", "default 1 in profiles up to 1.6")
    use_overlay_with_tmpfs: bool = switch(
        "useOverlayWithTmpfs", False, "1.9.3", "against 'too many levels of symbolic links'"
    )


@dataclass(frozen=True, slots=True)
class GgfastSettings:
    """Our own settings, under the key `ggfast`; V1 ignores them."""

    profile: str = one_of("profile", Profile.V1, tuple(Profile), "ggfast", "which message limits hold")
    local: bool = switch("local", False, "ggfast", "no cloud at all: hosts and certificate paths may be missing")
    mqtt_host: str = host("mqttHost", "0.0.0.0", "ggfast", "address of the local MQTT listener")
    daemon_user: str = account("daemonUser", "ggfast", "ggfast", "account of the process that talks to the network")
    function_user: str = account("functionUser", "ggc_user", "ggfast", "default account of functions")
    function_group: str = account("functionGroup", "ggc_group", "ggfast", "default group of functions")
    preload_modules: tuple[str, ...] = modules(
        "preloadModules", 64, "ggfast", "imported once before functions are forked: faster starts, shared memory"
    )
    hidden_paths: tuple[str, ...] = absolute_paths(
        "hiddenPaths", 64, "ggfast", "host paths no function may see, beside the core's own"
    )
    runtimes: tuple[tuple[str, str], ...] = programs(
        "runtimes", _RUNTIME, "ggfast", "interpreters by runtime id; without an entry those on the PATH are used"
    )
    run_as_uids: tuple[int, ...] | None = user_ids(
        "runAsUids", 64, "ggfast", "the uids, beside functionUser's, for RunAs; without a list every ordinary account's"
    )
    strict: bool = switch(
        "strict", False, "ggfast", "as V1: deployments restart all functions; they and new certificates cut all devices"
    )
    detect_skip_interfaces: tuple[str, ...] = name_patterns(
        "detectSkipInterfaces",
        CONTAINER_INTERFACES,
        limits.SKIPPED_INTERFACES_MAX,
        "ggfast",
        "interfaces whose addresses are neither published nor named in the server certificate",
    )
    detect_loopback: bool = switch(
        "detectLoopback", False, "ggfast", "whether the IP detector publishes 127.0.0.1 and ::1 too, as V1's did"
    )
    fsync: bool = switch("fsync", True, "ggfast", "false trades durability at power loss for less flash wear")
    log_lines_per_s: int = number(
        "functionLogLinesPerSecond", limits.FUNCTION_LOG_LINES_PER_S, 1, 100_000, "1/s", "ggfast", "more are dropped"
    )


@dataclass(frozen=True, slots=True)
class Config:
    """Everything config.json says, with defaults filled in."""

    layout: Layout
    version_profile: VersionProfile
    core_thing: CoreThing
    runtime: Runtime
    system: System
    ggfast: GgfastSettings
    crypto: Crypto | None = None
    managed_respawn: bool = False
    warnings: tuple[str, ...] = ()

    @property
    def profile(self) -> Profile:
        """Which limits hold."""
        return Profile(self.ggfast.profile)

    @property
    def message_limits(self) -> MessageLimits:
        """Bounds of one message."""
        return MessageLimits.of(self.profile)

    @property
    def ca_file(self) -> Path | None:
        """Root CA of the cloud; None only in local mode."""
        return self.crypto.ca_file if self.crypto else self._in_certs(self.core_thing.ca_path)

    @property
    def certificate_file(self) -> Path | None:
        """The core's certificate; None only in local mode."""
        return self.crypto.certificate_file if self.crypto else self._in_certs(self.core_thing.cert_path)

    @property
    def key_file(self) -> Path | None:
        """The core's private key; None in local mode and when it lives in a hardware module."""
        return self.crypto.key_file if self.crypto else self._in_certs(self.core_thing.key_path)

    def _in_certs(self, name: str) -> Path | None:
        return self.layout.certs / name if name else None


def load_config(root: Path) -> Config:
    """Read and check the config.json below `root`. Raises ConfigError with every problem; blocking."""
    root = Path(os.path.realpath(root))  # containers are made from paths without links
    first_release, data = _read_file(root)
    return parse_config(data, root, first_release=first_release)


def parse_config(data: bytes, root: Path, *, first_release: bool = False) -> Config:
    """Like `load_config` for text at hand; `first_release` says it comes from V1.0's place. Not blocking."""
    layout = Layout.of(root, first_release=first_release)
    problems = Problems()
    document = parse_json(data, problems, "config.json")
    problems.raise_if_any(f"Failed to parse {layout.config_file}.")
    config = _read_document(Fields(document, "", problems), layout, first_release)
    problems.raise_if_any(f"The configuration file {layout.config_file} is not valid.")
    assert config is not None
    return config


def _read_file(root: Path) -> tuple[bool, bytes]:
    places = [Layout.of(root).config_file, Layout.of(root, first_release=True).config_file]
    first_release = not places[0].exists() and places[1].exists()
    path = places[first_release]
    try:
        with path.open("rb") as file:
            data = file.read(limits.CONFIG_BYTES_MAX + 1)
    except OSError as error:
        problem = Problem(str(path), error.strerror or "no readable file", "the configuration of the core")
        raise ConfigError(f"Failed to read {path}.", [problem]) from error
    if len(data) > limits.CONFIG_BYTES_MAX:
        problem = Problem(str(path), "a larger file", f"at most {limits.CONFIG_BYTES_MAX} bytes")
        raise ConfigError(f"Failed to parse {path}.", [problem])
    return first_release, data


def _read_document(top: Fields, layout: Layout, first_release: bool) -> Config | None:
    own = read_section(GgfastSettings, top.child("ggfast"))
    version = _version_profile(top.child("ggfast"), first_release)
    crypto = read_crypto(top.child("crypto")) if top.has("crypto") else None
    core_thing = _core_thing(top, local=own.local, needs_paths=crypto is None)
    runtime = read_section(Runtime, top.child("runtime"))
    if runtime.concurrent_max < runtime.lru_size:
        expected = f"at least lruSize, which is {runtime.lru_size}"
        top.problems.add("runtime.maxConcurrentLimit", str(runtime.concurrent_max), expected)
    system = read_section(System, top.child("system"))
    if not top.child("system").has("shadowSyncTimeout"):
        system = replace(system, shadow_sync_timeout_s=version.shadow_sync_timeout_s)
    written = Layout.of(
        layout.root,
        first_release=first_release,
        write_directory=_directory(top, "writeDirectory"),
        pid_directory=_directory(top, "pidFileDirectory") or DEFAULT_PID_DIRECTORY,
    )
    managed_respawn = top.boolean("managedRespawn")
    if core_thing is None:
        return None
    warnings = tuple(f"{path}: unknown setting, ignored" for path in top.unknown()[: limits.PROBLEMS_MAX])
    return Config(written, version, core_thing, runtime, system, own, crypto, managed_respawn, warnings)


def _version_profile(source: Fields, first_release: bool) -> VersionProfile:
    default = VERSIONS[0] if first_release else VERSIONS[-1]
    name = source.choice("versionProfile", VERSIONS, default=default)
    profile = VersionProfile(VERSIONS.index(name))
    if profile.first_release != first_release and source.raw("versionProfile") == name:
        place = "configuration/config.json" if profile.first_release else "config/config.json"
        source.problems.add(source.at("versionProfile"), shown(name), f"this file at {place} for that profile")
    return profile


def _core_thing(top: Fields, *, local: bool, needs_paths: bool) -> CoreThing | None:
    source = top.child("coreThing")
    arn = _thing_arn(source)
    proxy = _network_proxy(source.child("networkProxy")) if source.has("networkProxy") else None
    read = read_section(CoreThing, source, thing_arn=arn or ThingArn("aws", "", "", ""), network_proxy=proxy)
    retry = "mqttMaxConnectionRetryInterval"
    if top.has(retry) and not source.has(retry):  # later guide pages list it there, the sample of 1.6 in coreThing
        read = replace(read, connection_retry_interval_max_s=top.integer(retry, 1, 86_400, default=60, unit="s"))
    if not local:
        _need_cloud(source, needs_paths)
    return read if arn else None


def _thing_arn(source: Fields) -> ThingArn | None:
    expected = "arn:<partition>:iot:<region>:<account>:thing/<core name>"
    written = source.text("thingArn", expected=expected)
    try:
        return ThingArn.parse(written)
    except ValueError:
        if written:
            source.problems.add(source.at("thingArn"), shown(written), expected)
        return None


def _need_cloud(source: Fields, needs_paths: bool) -> None:
    local = "or ggfast.local: true for a core without cloud"
    missing = [key for key in ("caPath", "certPath", "keyPath") if source.raw(key) in (None, "")]
    if needs_paths and missing:
        path = source.at(missing[0])
        source.problems.refuse(
            path,
            f"{MISSING_PATHS_TEXT} Give {', '.join(missing)}, {local}.",
            found="nothing",
            expected=f"a file below certs/, {local}",
        )
    for key in ("iotHost", "ggHost"):
        if not source.has(key):
            source.problems.add(source.at(key), "nothing", f"a host name, {local}")


def _network_proxy(source: Fields) -> NetworkProxy:
    proxy = source.child("proxy")
    addresses = source.text("noProxyAddresses", default="", expected="a comma-separated list")
    return NetworkProxy(
        url=proxy.text("url", pattern=_PROXY_URL, expected="http://host:port or https://host:port, no user in it"),
        username=proxy.text("username", default=""),
        password=proxy.text("password", default="", secret=True),
        no_proxy_addresses=tuple(part.strip() for part in addresses.split(",") if part.strip()),
    )


def _directory(top: Fields, key: str) -> Path | None:
    expected = "an absolute path"
    written = top.text(key, default="", expected=expected)
    if written and not written.startswith("/"):
        top.problems.add(key, shown(written), expected)
    return Path(os.path.normpath(written)) if written else None
