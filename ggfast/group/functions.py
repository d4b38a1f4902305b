"""Functions of a group: their fields, the rules of one entry, and what an entry comes to in its group.

Sources: greengrass-core 4.2 (fields, defaults), 4.4 and 5.7 (system entries), 6.2 (runtimes, handlers),
17.1 (isolation, run-as). Rules that need the rest of the group are in validate.py.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from ggfast import arns, limits
from ggfast.fields import Fields, shown
from ggfast.group.document import (
    Encoding,
    Execution,
    Function,
    FunctionConfiguration,
    Group,
    Isolation,
    Permission,
    ResourceAccessPolicy,
    RunAs,
)
from ggfast.group.entities import read_arn, read_id, read_linux_id
from ggfast.group.runtimes import RUNTIMES_EXPECTED, handler_fault, language_of

SYSTEM_ENTRIES: Final = (arns.IP_DETECTOR_ARN, arns.SPOOLER_ARN, arns.STREAM_MANAGER_ARN)
SPOOL_SIZE_TEXT: Final = f"Spool size should be at least {limits.SPOOL_BYTES_MIN} bytes."

_VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,255}")
_ARN_EXPECTED = "arn:aws:lambda:<region>:<account>:function:<name>:<version or alias>"
_DIGEST = re.compile(r"[0-9a-f]{64}|")
_CODE_BYTES_MAX = 1 << 50  # what was deployed once is not judged again


class SpoolStorage(StrEnum):
    """Where messages for the cloud wait."""

    MEMORY = "Memory"
    FILE_SYSTEM = "FileSystem"


class SubscriptionQuality(StrEnum):
    """How the core subscribes at the cloud."""

    AT_MOST_ONCE = "AtMostOnce"
    AT_LEAST_ONCE_PERSISTENT = "AtLeastOncePersistent"


@dataclass(frozen=True, slots=True)
class SpoolerSettings:
    """The GGCloudSpooler entry of a group; defaults without one (greengrass-core 5.7)."""

    storage: SpoolStorage = SpoolStorage.MEMORY
    size_bytes: int = limits.SPOOL_BYTES_DEFAULT
    quality: SubscriptionQuality = SubscriptionQuality.AT_MOST_ONCE


# --- what an entry comes to in its group ------------------------------------------------------------------


def isolation_of(group: Group, function: Function) -> Isolation:
    """The function's own isolation, else the group's, else a container."""
    own = function.configuration.execution.isolation
    return own or group.default_execution.isolation or Isolation.CONTAINER


def run_as_of(group: Group, function: Function) -> RunAs:
    """User and group ids, each the function's own, else the group's; None: the configured default account."""
    own, default = function.configuration.execution.run_as, group.default_execution.run_as
    return RunAs(
        own.uid if own.uid is not None else default.uid,
        own.gid if own.gid is not None else default.gid,
    )


def memory_kb_of(group: Group, function: Function) -> int | None:
    """The memory limit in KB; None without a container."""
    if isolation_of(group, function) is Isolation.NO_CONTAINER:
        return None
    given = function.configuration.memory_kb
    return limits.FUNCTION_MEMORY_KB_DEFAULT if given is None else given


def runtime_of(function: Function) -> str:
    """The runtime that counts: the override, else the registered one."""
    return function.configuration.runtime_override or function.runtime


def spooler_settings(group: Group) -> SpoolerSettings:
    """Settings of the queue for the cloud. The group must have passed its checks."""
    entry = group.function(arns.SPOOLER_ARN)
    variables: Mapping[str, str] = entry.configuration.variables if entry else {}
    default = SpoolerSettings()
    return SpoolerSettings(
        SpoolStorage(variables.get("GG_CONFIG_STORAGE_TYPE", default.storage)),
        int(variables.get("GG_CONFIG_MAX_SIZE_BYTES", default.size_bytes)),
        SubscriptionQuality(variables.get("GG_CONFIG_SUBSCRIPTION_QUALITY", default.quality)),
    )


def has_ip_detector(group: Group) -> bool:
    """Whether the core publishes its own addresses."""
    return group.function(arns.IP_DETECTOR_ARN) is not None


# --- reading ----------------------------------------------------------------------------------------------


def read_function(source: Fields, position: int, *, deployed: bool) -> Function:
    """One entry of `Functions`; findings go to `source.problems`.

    `deployed` reads the file on a core: ids, runtime and code may be missing, and the configuration may stand
    beside the ARN instead of in an object of its own.
    """
    entry_id = read_id(source, default=f"function-{position}" if deployed else None)
    arn = read_arn(source, "FunctionArn", arns.FunctionArn.parse, _ARN_EXPECTED)
    flat = deployed and not source.has("FunctionConfiguration")
    configuration = _read_configuration(source if flat else source.child("FunctionConfiguration"), arn)
    if arn.startswith("arn:aws:lambda:::function:"):
        _check_system_entry(source, arn, configuration)
        return Function(id=entry_id, arn=arn, configuration=configuration)
    _check_qualifier(source, arn)
    handler = source.text("Handler", expected="module.function, or what the runtime calls its handlers")
    runtime = source.text("Runtime", default="python3" if deployed else None, expected=RUNTIMES_EXPECTED)
    code = "" if deployed else source.text("Code", expected="the folder or zip of the function, relative to group.json")
    _check_runtime(source, arn, handler, configuration.runtime_override or runtime)
    package = source.child("DeploymentConfiguration")
    return Function(
        id=entry_id,
        arn=arn,
        handler=handler,
        runtime=runtime,
        code=code,
        code_digest=package.text("CodeSha256", default="", pattern=_DIGEST, expected="64 hex digits"),
        code_bytes=package.integer("CodeSize", 0, _CODE_BYTES_MAX, default=0),
        configuration=configuration,
    )


def read_execution(source: Fields, refusal: str) -> Execution:
    """An `Execution` object; a wrong isolation mode is refused in V1's words, `refusal`."""
    isolation = None
    if source.has("IsolationMode"):
        written = source.raw("IsolationMode")
        if isinstance(written, str) and written in tuple(Isolation):
            isolation = Isolation(written)
        else:
            source.problems.refuse(
                source.at("IsolationMode"), refusal, found=shown(written), expected="GreengrassContainer or NoContainer"
            )
    run_as = source.child("RunAs")
    return Execution(isolation, RunAs(read_linux_id(run_as, "Uid"), read_linux_id(run_as, "Gid")))


def _read_configuration(source: Fields, arn: str) -> FunctionConfiguration:
    environment = source.child("Environment")
    refusal = f"Your 'IsolationMode' configuration for function with arn {arn} is invalid."
    return FunctionConfiguration(
        pinned=source.boolean("Pinned"),
        memory_kb=source.optional_integer("MemorySize", limits.FUNCTION_MEMORY_KB_MIN, limits.INT32_MAX, unit="KB"),
        timeout_s=source.integer("Timeout", 1, limits.INT32_MAX, default=limits.FUNCTION_TIMEOUT_S_DEFAULT, unit="s"),
        encoding=Encoding(source.choice("EncodingType", tuple(Encoding), default=Encoding.JSON)),
        exec_args=source.text("ExecArgs", default=""),
        executable=source.text("Executable", default=""),
        runtime_override=source.text("FunctionRuntimeOverride", default=""),
        variables=_read_variables(environment),
        access_sysfs=environment.boolean("AccessSysfs"),
        resources=tuple(
            _read_policy(policy)
            for policy in environment.children("ResourceAccessPolicies", limits.FUNCTION_RESOURCES_MAX)
        ),
        execution=read_execution(environment.child("Execution"), refusal),
    )


def _read_variables(environment: Fields) -> dict[str, str]:
    source = environment.child("Variables")
    problems = source.problems
    variables = {}
    for name in source.names():
        value = source.raw(name)
        if _VARIABLE.fullmatch(name) is None:
            problems.add(source.path, f"the name {shown(name)}", "letters, digits and _, not starting with a digit")
        elif not isinstance(value, str) or "\0" in value:
            problems.add(source.at(name), shown(value), "a string")
        else:
            variables[name] = value
    size = sum(len(name) + len(value.encode()) for name, value in variables.items())
    if size > limits.FUNCTION_VARIABLES_BYTES_MAX or len(variables) > limits.FUNCTION_VARIABLES_MAX:
        found = f"{len(variables)} variables of {size} bytes"
        at_most = f"{limits.FUNCTION_VARIABLES_MAX} of {limits.FUNCTION_VARIABLES_BYTES_MAX} bytes"
        problems.add(source.path, found, f"at most {at_most}")
    return variables


def _read_policy(source: Fields) -> ResourceAccessPolicy:
    permission = source.choice("Permission", tuple(Permission)) if source.has("Permission") else None
    return ResourceAccessPolicy(
        read_id(source, key="ResourceId"), Permission(permission) if permission is not None else None
    )


# --- rules of one entry -----------------------------------------------------------------------------------


def _check_qualifier(source: Fields, arn: str) -> None:
    parts = arn.split(":")
    qualifier = parts[7] if len(parts) == 8 else ""
    if qualifier == "$LATEST":
        expected = "a published version or an alias: $LATEST cannot be deployed"
        source.problems.add(source.at("FunctionArn"), shown(arn), expected)
    elif not qualifier and len(parts) == 7:
        source.problems.add(source.at("FunctionArn"), shown(arn), f"a version or alias at the end: {_ARN_EXPECTED}")


def _check_runtime(source: Fields, arn: str, handler: str, runtime: str) -> None:
    overridden = source.child("FunctionConfiguration").has("FunctionRuntimeOverride")
    path = source.at("FunctionConfiguration.FunctionRuntimeOverride" if overridden else "Runtime")
    language = language_of(runtime)
    if runtime and language is None:
        source.problems.add(path, shown(runtime), f"{RUNTIMES_EXPECTED} for {arn}")
    elif handler and language is not None and (expected := handler_fault(language, handler)):
        source.problems.add(source.at("Handler"), shown(handler), expected)


def _check_system_entry(source: Fields, arn: str, configuration: FunctionConfiguration) -> None:
    problems = source.problems
    if arn not in SYSTEM_ENTRIES:
        problems.add(source.at("FunctionArn"), shown(arn), "a user function or one of " + ", ".join(SYSTEM_ENTRIES))
        return
    if not configuration.pinned:
        problems.add(source.at("FunctionConfiguration.Pinned"), "false or nothing", f"true, as {arn} always runs")
    if arn != arns.STREAM_MANAGER_ARN and source.child("FunctionConfiguration").child("Environment").has("Execution"):
        text = f"Execution configuration for function with arn {arn} is not allowed."
        path = source.at("FunctionConfiguration.Environment.Execution")
        problems.refuse(path, text, found="an Execution object", expected="none")
    if arn == arns.SPOOLER_ARN:
        _check_spooler(source, configuration)


def _check_spooler(source: Fields, configuration: FunctionConfiguration) -> None:
    problems = source.problems
    if configuration.executable not in ("", "spooler"):
        problems.add(source.at("FunctionConfiguration.Executable"), shown(configuration.executable), '"spooler"')
    path = source.at("FunctionConfiguration.Environment.Variables")
    size = configuration.variables.get("GG_CONFIG_MAX_SIZE_BYTES", str(limits.SPOOL_BYTES_DEFAULT))
    if not re.fullmatch(r"[0-9]{1,18}", size):
        problems.add(f"{path}.GG_CONFIG_MAX_SIZE_BYTES", shown(size), "a whole number of bytes, written as a string")
    elif int(size) < limits.SPOOL_BYTES_MIN:
        expected = f"at least {limits.SPOOL_BYTES_MIN}"
        problems.refuse(f"{path}.GG_CONFIG_MAX_SIZE_BYTES", SPOOL_SIZE_TEXT, found=size, expected=expected)
    for name, choices in (
        ("GG_CONFIG_STORAGE_TYPE", tuple(SpoolStorage)),
        ("GG_CONFIG_SUBSCRIPTION_QUALITY", tuple(SubscriptionQuality)),
    ):
        written = configuration.variables.get(name)
        if written is not None and written not in choices:
            problems.add(f"{path}.{name}", shown(written), " or ".join(choices))
