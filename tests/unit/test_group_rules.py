"""Rules of a group in V1's words, and rules that need more than one entry."""

from __future__ import annotations

import copy
from typing import Any

import pytest
from group_support import (
    CORE,
    FULL,
    FUNCTION,
    OTHER,
    changed,
    full_path,
    parse,
    problems_of,
)

from ggfast.arns import SPOOLER_ARN, STREAM_MANAGER_ARN
from ggfast.config import MessageLimits, Profile
from ggfast.errors import ConfigError
from ggfast.group.document import (
    GroupOwnerSetting,
    LocalVolume,
)
from ggfast.group.folder import parse_folder
from ggfast.group.functions import (
    SPOOL_SIZE_TEXT,
    run_as_of,
)
from ggfast.group.runtimes import EXECUTABLE_RUNTIME, handler_fault, language_of


def text_of(document: object, path: str, **more: Any) -> str:
    return next(str(problem) for problem in problems_of(document, **more) if problem.path == full_path(path))


ROOT_TEXT = "are configured to run as root while Greengrass is not configured to run lambdas with root permissions"
V1_TEXTS: list[tuple[str, Any, str, str]] = [
    ("DefaultConfig.Execution.IsolationMode", "x", "", "Your 'IsolationMode' configuration for the group is invalid."),
    (
        "E.Execution.IsolationMode",
        "x",
        "",
        f"Your 'IsolationMode' configuration for function with arn {FUNCTION} is invalid.",
    ),
    (
        "E.Execution.IsolationMode",
        "NoContainer",
        "F.MemorySize",
        f"MemorySize configuration for function with arn {FUNCTION} is not allowed in IsolationMode=NoContainer.",
    ),
    (
        "E.Execution.IsolationMode",
        "NoContainer",
        "E.AccessSysfs",
        f"Access Sysfs configuration for function with arn {FUNCTION} is not allowed in IsolationMode=NoContainer.",
    ),
    (
        "E.Execution.IsolationMode",
        "NoContainer",
        "E.ResourceAccessPolicies[0].ResourceId",
        "refers to resource of type Local.Volume that is not allowed in IsolationMode=NoContainer.",
    ),
    (
        "S.Environment.Execution",
        {},
        "",
        f"Execution configuration for function with arn {SPOOLER_ARN} is not allowed.",
    ),
    ("S.Environment.Variables.GG_CONFIG_MAX_SIZE_BYTES", "262143", "", SPOOL_SIZE_TEXT),
    ("V.SourcePath", "/sys/class/gpio", "", "Accessing /sys is prohibited"),
    ("D.SourcePath", "/etc/x", "", "Device resource path should begin with /dev, but got: /etc/x"),
    (
        "Subscriptions[0].Source",
        "nobody",
        "",
        "Subscription source is invalid. ID is 's1' and Source is 'nobody'",
    ),
    (
        "Subscriptions[0].Target",
        "nobody",
        "",
        "Subscription target is invalid. ID is 's1' and Target is 'nobody'",
    ),
    (
        "E.Execution.RunAs.Gid",
        0,
        "E.Execution.RunAs",
        f"[{FUNCTION}] {ROOT_TEXT}",
    ),
    (
        "DefaultConfig.Execution.RunAs.Uid",
        0,
        "DefaultConfig.Execution.RunAs",
        f"[{OTHER}] {ROOT_TEXT}",
    ),
]


@pytest.mark.parametrize(("path", "value", "named", "text"), V1_TEXTS)
def test_v1s_words(path: str, value: Any, named: str, text: str) -> None:
    assert text_of(changed(FULL, path, value), named or path).endswith(text)


def test_memory_is_required_against_the_group_default() -> None:
    document = changed(FULL, "DefaultConfig.Execution.IsolationMode", "NoContainer")
    document = changed(document, "F.MemorySize", ...)
    text = (
        f"MemorySize configuration for function with arn {FUNCTION} is required in IsolationMode=GreengrassContainer."
    )
    assert text_of(document, "F.MemorySize").endswith(text)


def test_root_is_allowed_by_the_switch() -> None:
    document = changed(FULL, "E.Execution.RunAs.Uid", 0)
    assert run_as_of(parse(document, allow_root=True), parse(FULL).functions[0]).uid == 1001
    assert parse(document, allow_root=True).functions[0].configuration.execution.run_as.uid == 0


def test_other_runtimes_are_named() -> None:
    text = text_of(changed(FULL, "Functions[1].Runtime", "ruby2.5"), "Functions[1].Runtime")
    assert "nodejs<version>" in text
    assert OTHER in text


@pytest.mark.parametrize(
    ("runtime", "good", "bad"),
    [
        ("python3.7", ["m.f", "a/b.f", "a.b.f"], ["m", "m.f()", "../m.f"]),
        ("nodejs12.x", ["index.handler", "src/index.handler", "a-b.c.$f"], ["index", "/etc/x.f", "../x.f", "a/../x.f"]),
        ("nodejs", ["index.handler"], ["index."]),
        ("java8", ["com.acme.Fn::run", "com.acme.Fn", "Fn", "a.B$C::m"], ["com/acme/Fn", "Fn::", "a..b"]),
        ("java8.al2", ["Fn"], ["Fn:run"]),
        (EXECUTABLE_RUNTIME, ["echo", "bin/echo", "a.out"], ["/bin/sh", "../sh", "a b", "a/../b", "."]),
    ],
)
def test_handlers_by_runtime(runtime: str, good: list[str], bad: list[str]) -> None:
    language = language_of(runtime)
    assert language is not None
    assert [handler for handler in good if handler_fault(language, handler)] == []
    assert [handler for handler in bad if not handler_fault(language, handler)] == []


def test_words_for_an_executable() -> None:
    program = changed(changed(FULL, "F.FunctionRuntimeOverride", EXECUTABLE_RUNTIME), "Functions[0].Handler", "counter")
    parse(changed(program, "F.ExecArgs", "-x 'two words'"))
    assert "words with all quotes closed" in text_of(changed(program, "F.ExecArgs", "-x 'two words"), "F.ExecArgs")
    parse(changed(FULL, "F.ExecArgs", "'"))  # nobody else's are looked at


def test_ids_that_are_no_runtime() -> None:
    for name in ("", "python", "python4", "java", "nodejs12.y", "dotnetcore2.1", "arn:aws:greengrass:::runtime"):
        assert language_of(name) is None, name


def test_special_volumes() -> None:
    shm = changed(changed(FULL, "V.SourcePath", "/dev/shm"), "V.DestinationPath", "/dev/shm")
    assert parse(shm).resources[0].data == LocalVolume("/dev/shm", "/dev/shm", GroupOwnerSetting(False, "dialout"))
    assert "rw" in text_of(
        changed(shm, "E.ResourceAccessPolicies[0].Permission", "ro"), "E.ResourceAccessPolicies[0].Permission"
    )
    proc = changed(changed(FULL, "V.SourcePath", "/proc/cpuinfo"), "V.DestinationPath", "/host-proc")
    assert "ro" in text_of(proc, "E.ResourceAccessPolicies[0].Permission")
    parse(changed(proc, "E.ResourceAccessPolicies[0].Permission", "ro"))


def test_destinations_may_not_meet() -> None:
    for destination in ("/data", "/data/deeper", "/"):
        document = changed(FULL, "Resources[1]", copy.deepcopy(FULL["Resources"][0]) | {"Id": "r2", "Name": "second"})
        document["Resources"][1]["ResourceDataContainer"]["LocalVolumeResourceData"]["DestinationPath"] = destination
        assert problems_of(document)


MODEL = {
    "DestinationPath": "/models/x",
    "S3Uri": "s3://bucket/key.zip",
    "OwnerSetting": {"GroupOwner": "1000", "GroupPermission": "ro"},
}


def with_model(model: dict[str, Any]) -> dict[str, Any]:
    container = {"S3MachineLearningModelResourceData": model}
    return changed(FULL, "Resources[0].ResourceDataContainer", container)


def test_cloud_resources_are_judged() -> None:
    path = "Resources[0].ResourceDataContainer"
    assert "nothing is fetched from a cloud" in text_of(with_model(MODEL), "Resources[0].Archive")
    texts = [str(problem) for problem in problems_of(with_model(MODEL))]
    assert any(
        'with permission "rw", while resource owner setting GroupPermission only allows "ro".' in t for t in texts
    )
    no_owner = {**MODEL, "OwnerSetting": {"GroupOwner": "x"}}
    assert any("InvalidMLModelOwner" in str(problem) for problem in problems_of(with_model(no_owner)))
    no_permission = changed(with_model(MODEL), "E.ResourceAccessPolicies[0].Permission", ...)
    del no_permission["Resources"][0]["ResourceDataContainer"]["S3MachineLearningModelResourceData"]["OwnerSetting"]
    assert any("missing permission in both" in str(problem) for problem in problems_of(no_permission))
    secret = {"SecretsManagerSecretResourceData": {"ARN": "x", "AdditionalStagingLabelsToDownload": [1]}}
    paths = [problem.path for problem in problems_of(changed(FULL, path, secret))]
    assert f"{path}.SecretsManagerSecretResourceData.ARN" in paths
    assert "keeps no secrets" in text_of(changed(FULL, path, secret), path)
    job = {"SageMakerMachineLearningModelResourceData": {"DestinationPath": "/m", "SageMakerJobArn": "x"}}
    paths = [problem.path for problem in problems_of(changed(FULL, path, job))]
    assert f"{path}.SageMakerMachineLearningModelResourceData.SageMakerJobArn" in paths


def test_two_kinds_in_one_resource() -> None:
    both = {**FULL["Resources"][0]["ResourceDataContainer"], **FULL["Resources"][1]["ResourceDataContainer"]}
    assert "Resources[0].ResourceDataContainer" in [
        problem.path for problem in problems_of(changed(FULL, "Resources[0].ResourceDataContainer", both))
    ]


def test_the_core_of_another_gateway() -> None:
    text = text_of(FULL, "Cores[0].ThingArn", core_thing_arn=CORE + "2")
    assert "config.json" in text
    parse(FULL, core_thing_arn=CORE)


def test_open_profile_takes_deeper_topics() -> None:
    document = changed(FULL, "Subscriptions[0].Subject", "/".join("abcdefghijklm") + "/" + "x" * 300)
    parse(document, messages=MessageLimits.of(Profile.OPEN))
    assert problems_of(document)


def test_stream_manager_entry_is_accepted() -> None:
    entry = {"Id": "st", "FunctionArn": STREAM_MANAGER_ARN, "FunctionConfiguration": {"Pinned": True}}
    entry["FunctionConfiguration"]["Environment"] = {"Execution": {"IsolationMode": "NoContainer"}}  # type: ignore[index]
    parse(changed(FULL, "Functions", [*FULL["Functions"], entry]))


def test_loggers_once_per_pair() -> None:
    twice = [{**FULL["Loggers"][0], "Id": "a"}, {**FULL["Loggers"][0], "Id": "b"}]
    assert "Loggers[1].Component" in [problem.path for problem in problems_of(changed(FULL, "Loggers", twice))]


@pytest.mark.parametrize("data", [b"", b"{", b"[]", b"null", b"5", b'"x"', b"\xff", b"{}"])
def test_documents_that_are_none(data: bytes) -> None:
    with pytest.raises(ConfigError):
        parse_folder(data)
