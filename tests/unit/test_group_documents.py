"""The folder form of a group: every field wrong in turn gives a problem that names it, and nothing else happens."""

from __future__ import annotations

import copy
from typing import Any

import pytest
from group_support import (
    CERTIFICATE,
    CORE,
    DEVICE,
    FULL,
    FUNCTION,
    MINIMAL,
    OTHER,
    SHORT,
    changed,
    full_path,
    parse,
    problems_of,
)

from ggfast import limits
from ggfast.arns import IP_DETECTOR_ARN, SPOOLER_ARN
from ggfast.group.document import (
    Encoding,
    Execution,
    GroupOwnerSetting,
    Isolation,
    LocalDevice,
    LocalVolume,
    LogComponent,
    LogTarget,
    Permission,
    ResourceAccessPolicy,
    RunAs,
)
from ggfast.group.functions import (
    SpoolerSettings,
    SpoolStorage,
    SubscriptionQuality,
    has_ip_detector,
    isolation_of,
    memory_kb_of,
    run_as_of,
    runtime_of,
    spooler_settings,
)
from ggfast.group.loggers import log_rules
from ggfast.group.subscriptions import rules
from ggfast.log import Level, LogRule


def leaves(value: Any, path: str = "") -> list[tuple[str, Any]]:
    found: list[tuple[str, Any]] = []
    pairs = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, member in pairs:
        here = f"{path}[{key}]" if isinstance(key, int) else f"{path}.{key}" if path else key
        found.append((here, member))
        found += leaves(member, here)
    return found


def test_every_field_is_read() -> None:
    group = parse(FULL)
    assert (group.name, group.group_id, group.region, group.account) == (
        "full",
        "11111111-2222-3333-4444-555555555555",
        "eu-west-1",
        "123456789012",
    )
    assert group.core is not None
    assert (group.core.id, group.core.thing_name, group.core.sync_shadow) == ("core", "my_core", True)
    device = group.devices[0]
    assert (device.id, device.thing_arn, device.sync_shadow) == ("d1", DEVICE, False)
    assert device.certificate_id == "0123456789abcdef" * 4
    function = group.functions[0]
    assert (function.id, function.arn, function.handler, function.code) == (
        "f1",
        FUNCTION,
        "app/counter.handler",
        "functions/counter",
    )
    assert (function.name, runtime_of(function)) == ("counter", "python3.8")
    configuration = function.configuration
    assert (configuration.pinned, configuration.memory_kb, configuration.timeout_s) == (True, 65536, 25)
    assert (configuration.encoding, configuration.exec_args, configuration.executable) == (
        Encoding.BINARY,
        "-x",
        "counter",
    )
    assert configuration.variables == {"MODE": "fast", "_X1": ""}
    assert configuration.access_sysfs
    assert configuration.resources == (
        ResourceAccessPolicy("r1", Permission.RW),
        ResourceAccessPolicy("r2", Permission.RO),
    )
    assert configuration.execution == Execution(Isolation.CONTAINER, RunAs(1001, 1002))
    assert group.default_execution == Execution(Isolation.CONTAINER, RunAs(2001, None))
    assert group.resources[0].data == LocalVolume("/srv/data", "/data", GroupOwnerSetting(False, "dialout"))
    assert group.resources[1].data == LocalDevice("/dev/ttyS0", GroupOwnerSetting(True, ""))
    logger = group.loggers[0]
    assert (logger.target, logger.component, logger.level, logger.space_kb) == (
        LogTarget.FILE_SYSTEM,
        LogComponent.FUNCTIONS,
        Level.DEBUG,
        64,
    )


def test_what_entries_come_to() -> None:
    group = parse(FULL)
    counter, plain = group.user_functions
    assert run_as_of(group, counter) == RunAs(1001, 1002)
    assert run_as_of(group, plain) == RunAs(2001, None)
    assert (memory_kb_of(group, counter), memory_kb_of(group, plain)) == (65536, 16384)
    assert isolation_of(group, plain) is Isolation.CONTAINER
    assert rules(group) == [(DEVICE, "a/+/b/#", FUNCTION), ("cloud", "#", "GGShadowService")]
    assert log_rules(group) == (None, LogRule(Level.DEBUG, 65536))
    assert spooler_settings(group) == SpoolerSettings(
        SpoolStorage.FILE_SYSTEM, 262144, SubscriptionQuality.AT_LEAST_ONCE_PERSISTENT
    )
    assert has_ip_detector(group)
    no_container = parse(changed(FULL, "DefaultConfig.Execution.IsolationMode", "NoContainer"))
    assert memory_kb_of(no_container, no_container.functions[1]) is None


def test_defaults() -> None:
    group = parse(MINIMAL)
    assert (group.region, group.account) == ("eu-west-1", "123456789012")
    assert group.group_id == parse(MINIMAL).group_id
    assert (group.devices, group.functions, group.subscriptions, group.resources, group.loggers) == ((),) * 5
    assert log_rules(group) == (LogRule(), LogRule())
    assert spooler_settings(group) == SpoolerSettings()
    assert not has_ip_detector(group)
    function = parse(FULL).functions[1].configuration
    assert (function.pinned, function.timeout_s, function.memory_kb, function.encoding) == (
        False,
        3,
        None,
        Encoding.JSON,
    )


def test_lists_as_definition_versions() -> None:
    document = {**FULL}
    for kind in ("Cores", "Devices", "Functions", "Subscriptions", "Resources", "Loggers"):
        document[kind] = {kind: FULL[kind]}
    document["Functions"]["DefaultConfig"] = document.pop("DefaultConfig")
    assert parse(document) == parse(FULL)
    document["Devices"] = {"Devices": [{"Id": "x"}]}
    assert "Devices.Devices[0].ThingArn" in [problem.path for problem in problems_of(document)]


KINDS: list[Any] = [{"a": 1}, [[]], "text", 3.5, True]
# Members that are taken in more than one kind, or whose new kind is judged under another path.
LISTS = {"Cores", "Devices", "Functions", "Subscriptions", "Resources", "Loggers"}


@pytest.mark.parametrize(("path", "value"), leaves(FULL), ids=lambda item: item if isinstance(item, str) else "")
def test_each_field_of_another_kind_is_named(path: str, value: Any) -> None:
    for wrong in KINDS:
        if type(wrong) is type(value) or (path in LISTS and isinstance(wrong, dict)):
            continue
        paths = [problem.path for problem in problems_of(changed(FULL, path, wrong))]
        assert any(found == path or found.startswith(path) for found in paths), (wrong, paths)


REQUIRED = [
    "Name",
    "Cores",
    "Cores[0].Id",
    "Cores[0].ThingArn",
    "Cores[0].CertificateArn",
    "Devices[0].Id",
    "Devices[0].ThingArn",
    "Devices[0].CertificateArn",
    "Functions[0].Id",
    "Functions[0].FunctionArn",
    "Functions[0].Code",
    "Functions[0].Handler",
    "Functions[0].Runtime",
    "E.ResourceAccessPolicies[0].ResourceId",
    "E.ResourceAccessPolicies[0].Permission",
    "Subscriptions[0].Id",
    "Subscriptions[0].Source",
    "Subscriptions[0].Subject",
    "Subscriptions[0].Target",
    "Resources[0].Id",
    "Resources[0].Name",
    "Resources[0].ResourceDataContainer",
    "V.SourcePath",
    "V.DestinationPath",
    "D.SourcePath",
    "Loggers[0].Id",
    "Loggers[0].Type",
    "Loggers[0].Component",
    "Loggers[0].Level",
]


@pytest.mark.parametrize("path", REQUIRED)
def test_each_required_field(path: str) -> None:
    for missing in (..., None, ""):
        paths = [problem.path for problem in problems_of(changed(FULL, path, missing))]
        assert full_path(path) in paths


WRONG: list[tuple[str, list[Any]]] = [
    ("GroupId", ["", "a_b", "x" * 65]),
    ("Region", ["", "nowhere"]),
    ("Account", ["12", "12345678901x"]),
    ("Cores", [[], FULL["Cores"] * 2]),
    ("Cores[0].Id", ["a b", "x" * 129, "ä"]),
    ("Cores[0].ThingArn", ["my_core", DEVICE + "/x", "arn:aws:iot:eu-west-1:123456789012:thing/" + "x" * 125]),
    ("Cores[0].CertificateArn", [CERTIFICATE.upper(), CERTIFICATE[:-1]]),
    ("Devices[0].ThingArn", [CORE, "arn:aws:iot:eu-west-1:1:thing/x"]),
    ("Devices[0].CertificateArn", ["0123456789abcdef" * 4]),
    ("Functions[0].Id", ["f 1"]),
    ("Functions[0].FunctionArn", [FUNCTION[:-2], FUNCTION[:-1] + "$LATEST", "counter", SPOOLER_ARN + "x"]),
    ("Functions[0].FunctionArn", ["arn:aws:lambda:::function:GGRouter", "arn:aws:lambda:::function:GGTES"]),
    ("Functions[0].Handler", ["handler", "a..b", "/abs.handler", "../x.handler", "a.b c", "a.1x", "x" * 2000 + ".h"]),
    ("Functions[1].Runtime", ["nodejs12.y", "java", "arn:aws:greengrass:::runtime/function", "python4"]),
    ("F.FunctionRuntimeOverride", ["nodejs8.", "ruby"]),
    ("F.MemorySize", [0, -1, 2047, 2**31, 10**30, 16384.5]),
    ("F.Timeout", [0, -1, 2**31]),
    ("F.EncodingType", ["", "JSON", "text"]),
    ("E.Variables", [{"1A": "x"}, {"": "x"}, {"a b": ""}, {"A": "x" * 40_000}, {f"V{i}": "" for i in range(257)}]),
    ("E.Variables.MODE", [1, None, True, "a\0b", ["x"]]),
    ("E.ResourceAccessPolicies", [[{"ResourceId": f"r{i}"} for i in range(21)]]),
    ("E.ResourceAccessPolicies[0].ResourceId", ["nothing", "a b"]),
    ("E.ResourceAccessPolicies[0].Permission", ["RW", "w", "rwx"]),
    ("E.Execution.IsolationMode", ["", "container"]),
    ("E.Execution.RunAs.Uid", [-1, 2**32 - 1, 1.5]),
    ("E.Execution.RunAs.Gid", [-1, 2**32]),
    ("DefaultConfig.Execution.IsolationMode", ["none"]),
    ("DefaultConfig.Execution.RunAs.Uid", [-1]),
    ("Functions[2].FunctionConfiguration.Pinned", [False, None]),
    ("S.Pinned", [False]),
    ("S.Executable", ["spool"]),
    ("S.Environment.Variables.GG_CONFIG_MAX_SIZE_BYTES", ["262143", "", "-1", "2.5e6", "0x40000", "９９９９９９９"]),
    ("S.Environment.Variables.GG_CONFIG_STORAGE_TYPE", ["memory", ""]),
    ("S.Environment.Variables.GG_CONFIG_SUBSCRIPTION_QUALITY", ["QoS1"]),
    ("S.Environment.Execution", [{}, {"IsolationMode": "NoContainer"}]),
    ("Functions[2].FunctionConfiguration.Environment.Execution", [{"RunAs": {"Uid": 5}}]),
    ("Subscriptions[0].Id", ["s 1"]),
    ("Subscriptions[0].Source", ["Cloud", CORE, FUNCTION[:-2], FUNCTION[:-1] + "8", "GGShadow", IP_DETECTOR_ARN]),
    ("Subscriptions[0].Target", ["x", CORE, OTHER.removesuffix(":prod"), SPOOLER_ARN]),
    (
        "Subscriptions[0].Subject",
        ["a/#/b", "a#", "a/b+", "+a", "##", "#/", "x" * 257, "a" + "/a" * 8, "é" * 129, "a\0b"],
    ),
    ("Resources[0].Id", ["r 2"]),
    ("Resources[0].Name", ["a b"]),
    ("Resources[0].ResourceDataContainer", [{}, {"Nothing": {}}]),
    (
        "V.SourcePath",
        ["data", "/sys", "/sys/class", "/dev", "/dev/ttyS0", "/var", "/var/run/x", "/", "/a/../b", "/a//b"],
    ),
    ("V.SourcePath", ["/./a", "/dev/shm/../sda", "/sys/", "//sys", "/hidden/x", "/hidden", "/a\0"]),
    ("V.DestinationPath", ["data", "/", "/proc", "/proc/x", "/sys/a", "/dev/x", "/dev/shm/x", "/lambda", "/lambda/x"]),
    ("V.DestinationPath", ["/a/../proc", "/a/./b", "/lambda/", "/dev/ttyS0"]),
    ("D.SourcePath", ["/dev", "/dev/", "/dev/shm", "/dev/shm/x", "/etc/passwd", "/sys/x", "ttyS0", "/dev/../etc/x"]),
    ("Loggers[0].Type", ["File"]),
    ("Loggers[0].Component", ["System"]),
    ("Loggers[0].Level", ["debug", "TRACE"]),
    ("Loggers[0].Space", [0, -1, 2_000_000]),
    ("Connectors", [[{"Id": "c"}]]),
]


@pytest.mark.parametrize(("path", "values"), WRONG, ids=[path for path, _ in WRONG])
def test_each_wrong_value_is_named(path: str, values: list[Any]) -> None:
    for wrong in values:
        problems = problems_of(changed(FULL, path, wrong), denied_paths=("/hidden",))
        named = full_path(path)
        related = [problem.path for problem in problems]
        assert any(found.startswith(named) or named.startswith(found) for found in related), (wrong, related)


TWICE: list[tuple[str, Any]] = [
    ("Functions[1].Id", "f1"),
    ("Functions[1].FunctionArn", FUNCTION),
    ("Subscriptions[1].Id", "s1"),
    ("Resources[1].Id", "r1"),
    ("Resources[1].Name", "data"),
    ("E.ResourceAccessPolicies[1].ResourceId", "r1"),
    ("Devices[1].Id", "d1"),
    ("Devices[1].ThingArn", DEVICE),
]


@pytest.mark.parametrize(("path", "value"), TWICE)
def test_the_second_of_two_is_named(path: str, value: str) -> None:
    second = {"Id": "d2", "ThingArn": CORE + "2", "CertificateArn": CERTIFICATE}
    document = changed(FULL, "Devices", [FULL["Devices"][0], second])
    parse(document)
    assert full_path(path) in [problem.path for problem in problems_of(changed(document, path, value))]


def test_all_problems_at_once() -> None:
    document = changed(changed(changed(FULL, "F.Timeout", 0), "Loggers[0].Level", "x"), "Devices[0].Id", 5)
    paths = {problem.path for problem in problems_of(document)}
    assert paths == {f"{SHORT['F']}.Timeout", "Loggers[0].Level", "Devices[0].Id"}


def limit_of(kind: str, count: int) -> dict[str, Any]:
    document = copy.deepcopy(FULL)
    document[kind] = [
        {**copy.deepcopy(FULL[kind][1 if kind == "Functions" else 0]), "Id": f"n{n}"} for n in range(count)
    ]
    return document


@pytest.mark.parametrize(
    ("kind", "maximum"),
    [
        ("Devices", limits.GROUP_DEVICES_MAX),
        ("Functions", limits.GROUP_FUNCTIONS_MAX),
        ("Resources", limits.GROUP_RESOURCES_MAX),
        ("Subscriptions", limits.GROUP_SUBSCRIPTIONS_MAX),
    ],
)
def test_numbers_of_entities(kind: str, maximum: int) -> None:
    document = limit_of(kind, maximum + 1)
    assert kind in [problem.path for problem in problems_of(document)]
