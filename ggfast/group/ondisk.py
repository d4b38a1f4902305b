"""The deployed group on a core's disk, in V1's place and shape (greengrass-core 2.4), so that tools find it.

`read_deployed` also takes a file that V1 wrote; `{}` means nothing is deployed. `write_deployed` keeps everything a
`Group` holds: reading back gives an equal value. Pure.
"""

from __future__ import annotations

from typing import Any, Final

import orjson

from ggfast import limits
from ggfast.arns import GroupArn
from ggfast.fields import Fields, Problems, parse_json, shown
from ggfast.group.document import (
    Core,
    Device,
    Execution,
    Function,
    Group,
    GroupOwnerSetting,
    LocalDevice,
    LocalVolume,
    ModelOwner,
    Resource,
    S3Model,
    Secret,
)
from ggfast.group.entities import read_member
from ggfast.group.folder import GROUP_ISOLATION_TEXT
from ggfast.group.functions import read_execution, read_function
from ggfast.group.loggers import read_logger
from ggfast.group.resources import read_resource
from ggfast.group.subscriptions import read_subscription

_LOGGERS_MAX: Final = 4  # two targets times two components; each pair once

Json = dict[str, Any]


def read_deployed(data: bytes) -> Group:
    """The group in a core's group.json. Raises ConfigError with all problems."""
    problems = Problems()
    document = parse_json(data, problems, "group.json")
    problems.raise_if_any("failed to load group: group.json cannot be read.")
    top = Fields(document, "", problems)
    group = Group() if document == {} else _read(top)
    problems.raise_if_any("failed to load group: group.json is not valid.")
    return group


def _read(top: Fields) -> Group:
    definitions = top.child("GroupDefinitions")
    lambdas = definitions.child("Lambdas")
    cores = top.children("Cores", limits.GROUP_DEVICES_MAX)
    if not cores:
        return Group()  # a fresh installation's file
    if len(cores) > 1:
        top.problems.add("Cores", f"{len(cores)} cores", "exactly one")
    arn = _arn(top)
    functions = lambdas.children("Content", limits.GROUP_FUNCTIONS_MAX)
    subscriptions = definitions.child("Subscriptions").children("Content", limits.GROUP_SUBSCRIPTIONS_MAX)
    resources = definitions.child("Resources").children("Content", limits.GROUP_RESOURCES_MAX)
    loggers = definitions.child("Logging").children("Content", _LOGGERS_MAX)
    devices = top.children("Devices", limits.GROUP_DEVICES_MAX)
    return Group(
        name=top.text("Name", default=""),
        group_id=arn.group_id,
        version_id=arn.version_id,
        region=top.text("Region", default=arn.region),
        account=arn.account,
        core=read_member(cores[0], Core, 0, deployed=True),
        devices=tuple(read_member(item, Device, at, deployed=True) for at, item in enumerate(devices)),
        functions=tuple(read_function(item, at, deployed=True) for at, item in enumerate(functions)),
        subscriptions=tuple(read_subscription(item, at, deployed=True) for at, item in enumerate(subscriptions)),
        resources=tuple(read_resource(item, deployed=True) for item in resources),
        loggers=tuple(read_logger(item, at, deployed=True) for at, item in enumerate(loggers)),
        default_execution=read_execution(lambdas.child("DefaultConfig").child("Execution"), GROUP_ISOLATION_TEXT),
    )


def _arn(top: Fields) -> GroupArn:
    expected = "arn:aws:greengrass:<region>:<account>:/greengrass/groups/<id>/versions/<id>"
    written = top.text("Arn", expected=expected)
    try:
        return GroupArn.parse(written)
    except ValueError:
        if written:
            top.problems.add("Arn", shown(written), expected)
        return GroupArn("aws", "", "", "", "")


# --- writing ----------------------------------------------------------------------------------------------


def write_deployed(group: Group) -> bytes:
    """The text of group.json; `{}` for the empty group. Paths of packages in a folder are not kept."""
    document = {} if group.core is None else _document(group, group.core)
    return orjson.dumps(document, option=orjson.OPT_INDENT_2 | orjson.OPT_APPEND_NEWLINE)


def _document(group: Group, core: Core) -> Json:
    lambdas: Json = {"Content": [_function(function) for function in group.functions]}
    if group.default_execution != Execution():
        lambdas["DefaultConfig"] = {"Execution": _execution(group.default_execution)}
    subscriptions = [
        {"Id": entry.id, "Source": entry.source, "Subject": entry.subject, "Target": entry.target}
        for entry in group.subscriptions
    ]
    loggers: list[Json] = [
        {"Id": logger.id, "Type": logger.target, "Component": logger.component, "Level": logger.level.name}
        | ({"Space": logger.space_kb} if logger.space_kb else {})
        for logger in group.loggers
    ]
    return {
        "Arn": group.arn,
        "Name": group.name,
        "Region": group.region,
        "Cores": [_member(core)],
        "Devices": [_member(device) for device in group.devices],
        "GroupDefinitions": {
            "Lambdas": lambdas,
            "Subscriptions": {"Content": subscriptions},
            "Resources": {"Content": [_resource(resource) for resource in group.resources]},
            "Logging": {"Content": loggers},
        },
    }


def _member(member: Core | Device) -> Json:
    return {
        "Id": member.id,
        "thingArn": member.thing_arn,
        "certificateArn": member.certificate_arn,
        "syncShadow": member.sync_shadow,
    }


def _function(function: Function) -> Json:
    configuration = function.configuration
    environment: Json = {"Variables": dict(configuration.variables), "AccessSysfs": configuration.access_sysfs}
    if configuration.resources:
        environment["ResourceAccessPolicies"] = [
            {"ResourceId": policy.resource_id} | ({"Permission": policy.permission} if policy.permission else {})
            for policy in configuration.resources
        ]
    if configuration.execution != Execution():
        environment["Execution"] = _execution(configuration.execution)
    settings: Json = {
        "Pinned": configuration.pinned,
        "Timeout": configuration.timeout_s,
        "EncodingType": configuration.encoding,
        "ExecArgs": configuration.exec_args,
        "Executable": configuration.executable,
        "FunctionRuntimeOverride": configuration.runtime_override,
        "Environment": environment,
    }
    if configuration.memory_kb is not None:
        settings["MemorySize"] = configuration.memory_kb
    document: Json = {"Id": function.id, "FunctionArn": function.arn, "FunctionConfiguration": settings}
    if not function.is_system:
        document["Handler"] = function.handler
        document["Runtime"] = function.runtime
        document["DeploymentConfiguration"] = {
            "CodeSize": function.code_bytes,
            "CodeSha256": function.code_digest,
        }
    return document


def _execution(execution: Execution) -> Json:
    document: Json = {}
    if execution.isolation is not None:
        document["IsolationMode"] = execution.isolation
    ids = {"Uid": execution.run_as.uid, "Gid": execution.run_as.gid}
    given = {key: value for key, value in ids.items() if value is not None}
    if given:
        document["RunAs"] = given
    return document


def _resource(resource: Resource) -> Json:
    data = resource.data
    content: Json
    if isinstance(data, LocalDevice):
        content = {"SourcePath": data.source_path, "GroupOwnerSetting": _owner(data.owner)}
    elif isinstance(data, LocalVolume):
        content = {
            "SourcePath": data.source_path,
            "DestinationPath": data.destination_path,
            "GroupOwnerSetting": _owner(data.owner),
        }
    elif isinstance(data, Secret):
        content = {"ARN": data.arn, "AdditionalStagingLabelsToDownload": list(data.labels)}
    else:
        content = {"DestinationPath": data.destination_path}
        content |= {"S3Uri": data.s3_uri} if isinstance(data, S3Model) else {"SageMakerJobArn": data.job_arn}
        if data.digest:
            content["ArchiveSha256"] = data.digest
        if data.owner is not None:
            content["OwnerSetting"] = _model_owner(data.owner)
    return {"Id": resource.id, "Name": resource.name, "Type": data.type, "Data": content}


def _owner(owner: GroupOwnerSetting) -> Json:
    return {"AutoAddGroupOwner": owner.auto_add, "GroupOwner": owner.group_owner}


def _model_owner(owner: ModelOwner) -> Json:
    return {"GroupOwner": owner.group_owner, "GroupPermission": owner.permission}
