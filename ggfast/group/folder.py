"""The folder form of a group: one group.json in the shapes of the Greengrass API, beside code and certificates.

    {"Name": …, "GroupId"?, "Region"?, "Account"?, "Cores": […], "Devices": […], "Functions": […, "Code": "path"],
     "DefaultConfig"?, "Subscriptions": […], "Resources": […], "Loggers": […]}

Each list may also be a DefinitionVersion as the API takes it: `"Devices": {"Devices": […]}`. Pure; paths in it are
looked at by core/deploy/folder.py.
"""

from __future__ import annotations

import re
import uuid
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from ggfast import limits
from ggfast.arns import ThingArn
from ggfast.fields import Fields, Problems, parse_json
from ggfast.group.document import Core, Device, Execution, Group
from ggfast.group.entities import read_member
from ggfast.group.functions import read_execution, read_function
from ggfast.group.loggers import read_logger
from ggfast.group.resources import read_resource
from ggfast.group.subscriptions import read_subscription
from ggfast.group.validate import GroupRules, validate

NOT_VALID: Final = "The group document group.json is not valid."
GROUP_ISOLATION_TEXT: Final = "Your 'IsolationMode' configuration for the group is invalid."

_GROUP_ID = re.compile(r"[a-zA-Z0-9-]{1,64}")
_REGION = re.compile(r"[a-z]{2}(-[a-z]+)+-\d{1,2}", re.ASCII)
_ACCOUNT = re.compile(r"\d{12}", re.ASCII)
_NAMESPACE = uuid.UUID("6fb4a5b8-3b0f-5f0e-9d0c-2a7d3c1e8f40")  # of ids made for groups that bring none


@dataclass(frozen=True, slots=True)
class ReadGroup:
    """A group as written: where its lists stand in the document, where devices say their certificate is."""

    group: Group
    paths: Mapping[str, str]
    certificates: Mapping[str, str]
    warnings: tuple[str, ...]


def parse_folder(data: bytes, rules: GroupRules | None = None) -> Group:
    """The checked group of a folder's group.json. Raises ConfigError with all problems; versions have no id yet."""
    problems = Problems()
    document = parse_json(data, problems, "group.json")
    problems.raise_if_any(NOT_VALID)
    read = read_folder(document, problems)
    validate(read.group, rules or GroupRules(), problems, read.paths)
    problems.raise_if_any(NOT_VALID)
    return read.group


def read_folder(document: object, problems: Problems) -> ReadGroup:
    """Read what can be read of the JSON value, adding a problem for all else; `validate` judges the rest."""
    top = Fields(document, "", problems)
    lists = {kind: _Kind(top, kind) for kind in ("Cores", "Devices", "Functions", "Subscriptions")}
    lists |= {kind: _Kind(top, kind) for kind in ("Resources", "Loggers", "Connectors")}
    if lists["Connectors"].holder.values(lists["Connectors"].key, limits.GROUP_FUNCTIONS_MAX):
        problems.add(lists["Connectors"].path, "connectors", "none: connectors are not supported by this release")
    cores = lists["Cores"].items(limits.GROUP_DEVICES_MAX)
    if len(cores) != 1:
        problems.add(lists["Cores"].path, f"{len(cores)} cores", "exactly one")
    core = read_member(cores[0], Core, 0, deployed=False) if cores else None
    devices = lists["Devices"].items(limits.GROUP_DEVICES_MAX)
    functions = lists["Functions"]
    group = Group(
        core=core,
        devices=tuple(read_member(item, Device, at, deployed=False) for at, item in enumerate(devices)),
        functions=tuple(
            read_function(item, at, deployed=False)
            for at, item in enumerate(functions.items(limits.GROUP_FUNCTIONS_MAX))
        ),
        subscriptions=tuple(
            read_subscription(item, at, deployed=False)
            for at, item in enumerate(lists["Subscriptions"].items(limits.GROUP_SUBSCRIPTIONS_MAX))
        ),
        resources=tuple(
            read_resource(item, deployed=False) for item in lists["Resources"].items(limits.GROUP_RESOURCES_MAX)
        ),
        loggers=tuple(
            read_logger(item, at, deployed=False) for at, item in enumerate(lists["Loggers"].items(_LOGGERS_MAX))
        ),
        **_header(top, core),
        default_execution=_default_execution(top, functions),
    )
    paths = {kind: entry.path for kind, entry in lists.items()} | {"DefaultConfig": functions.default_config(top).path}
    certificates = {
        item.at("Certificate"): item.text("Certificate", default="", expected="a path relative to group.json")
        for item in devices
    }
    warnings = tuple(f"{path}: unknown member, ignored" for path in top.unknown()[: limits.PROBLEMS_MAX])
    return ReadGroup(group, paths, certificates, warnings)


_LOGGERS_MAX: Final = 4  # two targets times two components; each pair once


class _Kind:
    """Where the list of one kind of entity stands: at the top, or inside a DefinitionVersion."""

    def __init__(self, top: Fields, kind: str) -> None:
        nested = isinstance(top.raw(kind), dict)
        self.holder = top.child(kind) if nested else top
        self.key = kind
        self.path = self.holder.at(kind)
        self.is_nested = nested

    def items(self, maximum: int) -> list[Fields]:
        return self.holder.children(self.key, maximum)

    def default_config(self, top: Fields) -> Fields:
        holder = self.holder if self.is_nested and self.holder.has("DefaultConfig") else top
        return holder.child("DefaultConfig")


def _default_execution(top: Fields, functions: _Kind) -> Execution:
    return read_execution(functions.default_config(top).child("Execution"), GROUP_ISOLATION_TEXT)


def _header(top: Fields, core: Core | None) -> dict[str, str]:
    """Name and ids; region and account are the core's unless given, the group's id is made from its core."""
    try:
        thing = ThingArn.parse(core.thing_arn if core else "")
    except ValueError:
        thing = ThingArn("", "", "", "")  # its own problem is noted already
    name = top.text("Name", expected="the group's name")
    default_id = str(uuid.uuid5(_NAMESPACE, f"{thing} {name}"))
    return {
        "name": name,
        "group_id": top.text("GroupId", default=default_id, pattern=_GROUP_ID, expected="letters, digits and -"),
        "region": top.text("Region", default=thing.region, pattern=_REGION, expected="a region name"),
        "account": top.text("Account", default=thing.account, pattern=_ACCOUNT, expected="12 digits"),
    }


def version_id(group_id: str, content_digest: str) -> str:
    """An id for this version of the group that depends on nothing but its content."""
    return str(uuid.uuid5(_NAMESPACE, f"{group_id} {content_digest}"))
