"""config.json: every field of every V1 version, its default, and what happens when it is wrong."""

from __future__ import annotations

import copy
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from ggfast import limits
from ggfast.cli.cloud_core import NewCore, device_files
from ggfast.cloud.server import Ports
from ggfast.config import MISSING_PATHS_TEXT, Config, MessageLimits, Profile, load_config, parse_config
from ggfast.errors import ConfigError

ROOT = Path("/greengrass")
FULL: dict[str, Any] = {
    "coreThing": {
        "caPath": "root.ca.pem",
        "certPath": "0123456789.cert.pem",
        "keyPath": "0123456789.private.key",
        "thingArn": "arn:aws:iot:eu-west-1:123456789012:thing/my_core",
        "iotHost": "abc-ats.iot.eu-west-1.amazonaws.com",
        "ggHost": "greengrass-ats.iot.eu-west-1.amazonaws.com",
        "keepAlive": 300,
        "mqttMaxConnectionRetryInterval": 90,
        "coreClientId": "other",
        "iotMqttPort": 443,
        "iotHttpPort": 443,
        "ggHttpPort": 443,
        "ggMqttPort": 9000,
        "mqttOperationTimeout": 7,
        "systemComponentAuthTimeout": 600,
        "ggDaemonPort": 8001,
        "networkProxy": {
            "noProxyAddresses": "10.0.0.1, localhost",
            "proxy": {"url": "http://proxy:3128", "username": "u", "password": "hush"},
        },
    },
    "runtime": {
        "cgroup": {"useSystemd": "yes"},
        "allowFunctionsToRunAsRoot": "yes",
        "postStartHealthCheckTimeout": 40000,
        "maxWorkItemCount": 2048,
        "maxConcurrentLimit": 50,
        "lruSize": 30,
        "mountAllBlockDevices": "yes",
    },
    "system": {"shadowSyncTimeout": 2, "useOverlayWithTmpfs": True},
    "managedRespawn": True,
    "writeDirectory": "/data/ggc",
    "pidFileDirectory": "/run/gg",
    "crypto": {
        "caPath": "file:///greengrass/certs/root.ca.pem",
        "PKCS11": {
            "OpenSSLEngine": "/usr/lib/engines/pkcs11.so",
            "P11Provider": "/usr/lib/softhsm.so",
            "slotLabel": "greengrass",
            "slotUserPin": "1234",
        },
        "principals": {
            "IoTCertificate": {
                "privateKeyPath": "pkcs11:object=iotkey;type=private",
                "certificatePath": "file:///greengrass/certs/core.crt",
            },
            "MQTTServerCertificate": {"privateKeyPath": "file:///greengrass/certs/server.key"},
            "SecretsManager": {"privateKeyPath": "file:///greengrass/certs/secrets.key"},
        },
    },
    "ggfast": {
        "versionProfile": "1.9",
        "profile": "open",
        "local": True,
        "mqttHost": "127.0.0.1",
        "daemonUser": "nobody",
        "functionUser": "worker",
        "functionGroup": "workers",
        "preloadModules": ["json", "email.mime"],
        "hiddenPaths": ["/srv/keys"],
        "fsync": False,
        "functionLogLinesPerSecond": 10,
    },
}
MINIMAL: dict[str, Any] = {"coreThing": {"thingArn": FULL["coreThing"]["thingArn"]}, "ggfast": {"local": True}}


def parse(document: object, **more: Any) -> Config:
    return parse_config(json.dumps(document).encode(), ROOT, **more)


def changed(document: dict[str, Any], path: str, value: object) -> dict[str, Any]:
    """`document` with the member at the dotted `path` replaced, or removed for `...`."""
    result = copy.deepcopy(document)
    *parents, last = path.split(".")
    place = result
    for parent in parents:
        place = place[parent]
    if value is ...:
        del place[last]
    else:
        place[last] = value
    return result


def leaves(document: dict[str, Any], prefix: str = "") -> list[tuple[str, object]]:
    found: list[tuple[str, object]] = []
    for key, value in document.items():
        path = f"{prefix}{key}"
        found.append((path, value))
        if isinstance(value, dict):
            found += leaves(value, path + ".")
    return found


def test_every_field_is_read() -> None:
    config = parse(FULL)
    thing = config.core_thing
    assert (thing.keep_alive_s, thing.connection_retry_interval_max_s, thing.core_client_id) == (300, 90, "other")
    assert (thing.iot_mqtt_port, thing.iot_http_port, thing.gg_http_port) == (443, 443, 443)
    assert (thing.gg_mqtt_port, thing.gg_daemon_port, thing.mqtt_operation_timeout_s) == (9000, 8001, 7)
    assert thing.system_component_auth_timeout_ms == 600
    assert thing.network_proxy is not None
    assert thing.network_proxy.no_proxy_addresses == ("10.0.0.1", "localhost")
    assert (thing.network_proxy.url, thing.network_proxy.password) == ("http://proxy:3128", "hush")
    assert (thing.thing_arn.name, thing.thing_arn.region) == ("my_core", "eu-west-1")
    runtime = config.runtime
    assert runtime.use_systemd is True
    assert runtime.allow_functions_to_run_as_root is True
    assert (runtime.post_start_health_check_timeout_ms, runtime.work_items_max) == (40000, 2048)
    assert (runtime.concurrent_max, runtime.lru_size, runtime.mount_all_block_devices) == (50, 30, True)
    assert (config.system.shadow_sync_timeout_s, config.system.use_overlay_with_tmpfs) == (2, True)
    assert config.managed_respawn is True
    assert config.layout.group_file == Path("/data/ggc/deployment/group/group.json")
    assert config.layout.pid_file == Path("/run/gg/greengrassd.pid")
    assert config.crypto is not None
    assert config.crypto.key.pkcs11_uri == "pkcs11:object=iotkey;type=private"
    assert config.crypto.pkcs11 is not None
    assert config.crypto.pkcs11.slot_user_pin == "1234"
    assert config.key_file is None
    assert config.certificate_file == Path("/greengrass/certs/core.crt")
    own = config.ggfast
    assert (config.profile, own.local, own.mqtt_host, own.fsync) == (Profile.OPEN, True, "127.0.0.1", False)
    assert (own.daemon_user, own.function_user, own.function_group) == ("nobody", "worker", "workers")
    assert (own.preload_modules, own.hidden_paths) == (("json", "email.mime"), ("/srv/keys",))
    assert (str(config.version_profile), own.log_lines_per_s, config.warnings) == ("1.9", 10, ())


def test_secrets_are_not_shown() -> None:
    config = parse(FULL)
    assert "hush" not in repr(config)
    assert "1234'" not in repr(config)
    wrong = changed(FULL, "crypto.PKCS11.slotUserPin", "p" * 5000)
    with pytest.raises(ConfigError) as error:
        parse(wrong)
    assert "ppp" not in str(error.value)


def test_defaults() -> None:
    config = parse(MINIMAL)
    thing = config.core_thing
    assert (thing.keep_alive_s, thing.connection_retry_interval_max_s, thing.core_client_id) == (600, 60, "")
    assert (thing.iot_mqtt_port, thing.iot_http_port, thing.gg_http_port, thing.gg_mqtt_port) == (
        8883,
        8443,
        8443,
        8883,
    )
    assert (thing.mqtt_operation_timeout_s, thing.system_component_auth_timeout_ms) == (5, 5000)
    assert (thing.gg_daemon_port, thing.network_proxy) == (8000, None)
    runtime = config.runtime
    assert (runtime.use_systemd, runtime.allow_functions_to_run_as_root) == (None, False)
    assert (runtime.work_items_max, runtime.concurrent_max, runtime.lru_size) == (1024, 25, 25)
    assert (runtime.post_start_health_check_timeout_ms, runtime.mount_all_block_devices) == (30000, False)
    assert (config.system.shadow_sync_timeout_s, config.managed_respawn, config.crypto) == (5, False, None)
    assert (config.ggfast.mqtt_host, config.profile) == ("0.0.0.0", Profile.V1)
    assert (config.ca_file, config.certificate_file, config.key_file) == (None, None, None)
    assert config.layout.pid_file == Path("/var/run/greengrassd.pid")
    assert config.message_limits == MessageLimits(131_072, 256, 7)


OTHER_KINDS: list[Any] = [{"a": 1}, [1], "text", 12.5, True, -1]


def of_another_kind(value: object) -> list[object]:
    """Values no field of this kind accepts."""
    kind = type(value)
    return [other for other in OTHER_KINDS if type(other) is not kind and not (kind is int and isinstance(other, bool))]


@pytest.mark.parametrize(("path", "value"), leaves(FULL), ids=lambda item: item if isinstance(item, str) else "")
def test_each_field_of_another_kind_is_named(path: str, value: object) -> None:
    wrong_values = of_another_kind(value)
    assert wrong_values
    for wrong in wrong_values:
        with pytest.raises(ConfigError) as error:
            parse(changed(FULL, path, wrong))
        paths = [problem.path for problem in error.value.problems]
        assert any(found == path or found.startswith(path) for found in paths), (wrong, paths)
        assert "/greengrass/config/config.json" in str(error.value)


OUT_OF_RANGE: list[tuple[str, list[object]]] = [
    (
        "coreThing.thingArn",
        ["", "my_core", "arn:aws:iot:eu-west-1:1:thing/x", "arn:aws:lambda:eu-west-1:123456789012:x"],
    ),
    ("coreThing.iotHost", ["", "a b", "http://x", "-x", "x" * 300]),
    ("coreThing.ggHost", ["", "a b", "x/y"]),
    ("coreThing.caPath", ["a\nb", "x" * 2000, "a\0b"]),
    ("coreThing.keepAlive", [29, 1201, 10**30]),
    ("coreThing.mqttMaxConnectionRetryInterval", [0, 90_000]),
    ("coreThing.coreClientId", ["x" * 129, "a\tb", "é"]),
    ("coreThing.iotMqttPort", [0, -1, 65_536]),
    ("coreThing.iotHttpPort", [0, 65_536]),
    ("coreThing.ggHttpPort", [0, 65_536]),
    ("coreThing.ggMqttPort", [1_023, 65_536]),
    ("coreThing.mqttOperationTimeout", [4]),
    ("coreThing.systemComponentAuthTimeout", [499, 5_001]),
    ("coreThing.ggDaemonPort", [80, 70_000]),
    ("coreThing.networkProxy.proxy.url", ["", "proxy:3128", "socks5://x", "http://user:pw@x:1"]),
    ("runtime.cgroup.useSystemd", ["", "true", "YES"]),
    ("runtime.allowFunctionsToRunAsRoot", ["true"]),
    ("runtime.mountAllBlockDevices", ["1"]),
    ("runtime.maxWorkItemCount", [0]),
    ("runtime.maxConcurrentLimit", [0, 29]),
    ("runtime.lruSize", [0]),
    ("system.shadowSyncTimeout", [0]),
    ("writeDirectory", ["data", "./x"]),
    ("pidFileDirectory", ["run"]),
    ("crypto.caPath", ["", "/etc/ca.pem", "file://ca.pem"]),
    ("crypto.principals.IoTCertificate.privateKeyPath", ["", "/a/b", "https://x/y", "pkcs11:"]),
    ("crypto.principals.SecretsManager.privateKeyPath", ["tpm:x"]),
    ("ggfast.versionProfile", ["1.12", "2", "1.0"]),
    ("ggfast.profile", ["v2"]),
    ("ggfast.mqttHost", ["not a host"]),
    ("ggfast.daemonUser", ["Ro ot", "", "-x"]),
    ("ggfast.preloadModules", [["a b"], [1], ["x"] * 65]),
    ("ggfast.hiddenPaths", [["relative"]]),
    ("ggfast.functionLogLinesPerSecond", [0]),
]


@pytest.mark.parametrize(("path", "values"), OUT_OF_RANGE, ids=[path for path, _ in OUT_OF_RANGE])
def test_each_field_out_of_range_is_named(path: str, values: list[object]) -> None:
    for wrong in values:
        with pytest.raises(ConfigError) as error:
            parse(changed(FULL, path, wrong))
        problems = error.value.problems
        assert [problem for problem in problems if problem.path.startswith(path)], (wrong, problems)
        assert all(problem.expected for problem in problems)


def test_all_problems_at_once() -> None:
    wrong = changed(changed(changed(FULL, "coreThing.keepAlive", 1), "runtime.lruSize", "x"), "ggfast.profile", 3)
    with pytest.raises(ConfigError) as error:
        parse(wrong)
    assert {problem.path for problem in error.value.problems} >= {
        "coreThing.keepAlive",
        "runtime.lruSize",
        "ggfast.profile",
    }


def test_paths_missing_in_v1s_words() -> None:
    for key in ("caPath", "certPath", "keyPath"):
        for how in (..., ""):
            document = changed(changed(changed(FULL, f"coreThing.{key}", how), "crypto", ...), "ggfast.local", False)
            with pytest.raises(ConfigError, match=MISSING_PATHS_TEXT.replace(".", r"\.")) as error:
                parse(document)
            assert [problem.path for problem in error.value.problems] == [f"coreThing.{key}"]
            assert "ggfast.local: true" in str(error.value)


@pytest.mark.parametrize("key", ["iotHost", "ggHost"])
def test_hosts_may_only_be_missing_without_cloud(key: str) -> None:
    document = changed(FULL, f"coreThing.{key}", ...)
    assert parse(document).ggfast.local
    with pytest.raises(ConfigError) as error:
        parse(changed(document, "ggfast.local", False))
    assert [problem.path for problem in error.value.problems] == [f"coreThing.{key}"]
    assert "ggfast.local: true" in str(error.value)


def test_crypto_stands_in_for_the_paths() -> None:
    document = changed(changed(FULL, "ggfast.local", False), "coreThing.caPath", ...)
    assert parse(document).ca_file == Path("/greengrass/certs/root.ca.pem")


def test_unknown_key_scheme_in_v1s_words() -> None:
    with pytest.raises(ConfigError, match="ErrUnknownURIScheme"):
        parse(changed(FULL, "crypto.principals.IoTCertificate.privateKeyPath", "tpm://key"))


def test_hardware_key_needs_its_module() -> None:
    with pytest.raises(ConfigError) as error:
        parse(changed(FULL, "crypto.PKCS11", ...))
    assert [problem.path for problem in error.value.problems] == ["crypto.PKCS11"]


def test_retry_interval_at_top_level() -> None:
    document = changed(FULL, "coreThing.mqttMaxConnectionRetryInterval", ...)
    assert parse(document | {"mqttMaxConnectionRetryInterval": 33}).core_thing.connection_retry_interval_max_s == 33
    with pytest.raises(ConfigError):
        parse(document | {"mqttMaxConnectionRetryInterval": "33"})


def test_unknown_keys_are_listed() -> None:
    document = copy.deepcopy(FULL)
    document["later"] = {"a": 1}
    document["runtime"]["cgroup"]["more"] = 1
    document["coreThing"]["networkProxy"]["proxy"]["x"] = None
    named = {line.partition(":")[0] for line in parse(document).warnings}
    assert named == {"later", "coreThing.networkProxy.proxy.x", "runtime.cgroup.more"}


@pytest.mark.parametrize("data", [b"", b"{", b'{"a": NaN}', b"\xff\xfe{}", b"[" * 5000, b'"\\ud800"', b"{} {}"])
def test_broken_json_in_v1s_words(data: bytes, tmp_path: Path) -> None:
    (tmp_path / "config").mkdir()
    (tmp_path / "config" / "config.json").write_bytes(data)
    with pytest.raises(ConfigError) as error:
        load_config(tmp_path)
    assert f"Failed to parse {tmp_path}/config/config.json" in str(error.value)


@pytest.mark.parametrize("document", [None, [], 1, "x", True])
def test_json_that_is_no_object(document: object) -> None:
    with pytest.raises(ConfigError, match="an object"):
        parse(document)


def test_no_file_and_too_large_a_file(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="Failed to read"):
        load_config(tmp_path)
    (tmp_path / "config").mkdir()
    (tmp_path / "config" / "config.json").write_bytes(b" " * (limits.CONFIG_BYTES_MAX + 1))
    with pytest.raises(ConfigError, match="Failed to parse"):
        load_config(tmp_path)


def test_first_release_by_its_place(tmp_path: Path) -> None:
    (tmp_path / "configuration").mkdir()
    (tmp_path / "configuration" / "config.json").write_text(json.dumps(MINIMAL))
    config = load_config(tmp_path)
    assert config.version_profile.first_release
    assert config.system.shadow_sync_timeout_s == 1
    assert config.layout.certs == tmp_path / "configuration" / "certs"
    assert config.layout.logs == tmp_path / "var" / "log"
    assert config.layout.launcher.parent.parent.parent == tmp_path
    with pytest.raises(ConfigError) as error:
        parse(changed(MINIMAL, "ggfast", {"local": True, "versionProfile": "1.5"}), first_release=True)
    assert [problem.path for problem in error.value.problems] == ["ggfast.versionProfile"]
    (tmp_path / "config").mkdir()
    (tmp_path / "config" / "config.json").write_text(json.dumps(MINIMAL))
    assert str(load_config(tmp_path).version_profile) == "1.11"


@pytest.mark.parametrize(("version", "timeout_s", "late"), [("1.6", 1, False), ("1.7", 5, True), ("1.11", 5, True)])
def test_version_profile_decides_defaults(version: str, timeout_s: int, late: bool) -> None:
    config = parse(changed(MINIMAL, "ggfast.versionProfile", version))
    assert (config.system.shadow_sync_timeout_s, config.version_profile.late_log_names) == (timeout_s, late)


def test_open_profile_lifts_limits() -> None:
    opened = parse(changed(MINIMAL, "ggfast.profile", "open")).message_limits
    assert opened == MessageLimits(262_144, 65_535, None)


def test_layout_names_v1s_places() -> None:
    layout = parse(MINIMAL).layout
    arn = "arn:aws:lambda:eu-west-1:123456789012:function:f:1"
    assert layout.core_link == ROOT / "ggc/core"
    assert layout.function(arn) == ROOT / "ggc/deployment/lambda" / arn
    assert layout.group_file == ROOT / "ggc/deployment/group/group.json"
    assert layout.crash_log == ROOT / "ggc/var/log/crash.log"
    assert layout.system_logs == ROOT / "ggc/var/log/system"
    assert layout.server_certificate == ROOT / "ggc/var/state/server/server.crt"
    assert layout.daemon == layout.package / "bin" / "daemon"
    for directory in layout.written_directories:
        assert directory.is_relative_to(layout.written)


def test_page_of_settings_agrees_with_the_code(repository: Path) -> None:
    command = [sys.executable, str(repository / "packaging" / "config_table.py"), "--check"]
    done = subprocess.run(command, cwd=repository, env={"PYTHONPATH": str(repository)}, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    page = (repository / "packaging" / "config.example.md").read_text()
    missing = [path for path, value in leaves(FULL) if not isinstance(value, dict) and f"`{path}`" not in page]
    assert missing == []


def test_the_cloud_may_listen_anywhere() -> None:
    """A core's file made by `ggfast-cloud create-core`, for listeners at ports V1 did not know."""
    core = NewCore("gateway", FULL["coreThing"]["thingArn"], "g", "0123456789abcdef", "cert", "key", "public")
    files = device_files(core, "gw.example", Ports(api=1, mqtt=18_883, https=65_535), "ca")
    config = parse_config(files["config/config.json"][0], ROOT)
    thing = config.core_thing
    assert (thing.iot_mqtt_port, thing.iot_http_port, thing.gg_http_port) == (18_883, 65_535, 65_535)
    assert (thing.iot_host, thing.gg_host) == ("gw.example", "gw.example")
    assert config.warnings == ()
    for path in (config.ca_file, config.certificate_file, config.key_file):
        assert path is not None and path.relative_to(ROOT).as_posix() in files
