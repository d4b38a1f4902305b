"""Aliases: names for versions. Group definitions refer to them, a deployment resolves them."""

from __future__ import annotations

import uuid
from typing import Any

from ggfast.cloud.functions.names import FunctionName, function_arn
from ggfast.cloud.functions.service import (
    LAMBDA,
    PATH,
    RESOURCE,
    check_revision,
    not_found,
    refusal,
    the_function,
)
from ggfast.cloud.functions.store import ALIASES, VERSIONS, under, version_label
from ggfast.cloud.operations import Call, Reply, entries, paged
from ggfast.cloud.shapes import Text, need, query
from ggfast.cloud.store.interface import Body

_NAME = Text(1, 128, r"(?![0-9]+$)[a-zA-Z0-9_-]+")
_VERSION = Text(1, 128, r"\$LATEST|[0-9]+")
_ALIAS = f"{PATH}/{{FunctionName}}/aliases/{{Name}}"


@LAMBDA.operation(
    "CreateAlias",
    f"POST {PATH}/{{FunctionName}}/aliases",
    {
        "FunctionName": FunctionName(),
        "Name": need(_NAME),
        "FunctionVersion": need(_VERSION),
        "Description": Text(0, 256),
    },
    status=201,
    writes=True,
    resource=RESOURCE,
)
def create_alias(call: Call) -> Reply:
    """A name for a version, or for `$LATEST`."""
    function, _ = the_function(call)
    name, version = call.params["Name"], call.params["FunctionVersion"]
    _check_version(call, function, version)
    if call.tx.get(ALIASES, under(call.home, function), name) is not None:
        arn = function_arn(call.home, function, name)
        raise refusal("ResourceConflictException", f"Alias already exists: {arn}", 409)
    body = {"version": version, "description": call.params.get("Description", "")}
    return Reply(_form(call, function, name, _put(call, function, name, body)))


@LAMBDA.operation("GetAlias", f"GET {_ALIAS}", {"FunctionName": FunctionName(), "Name": _NAME}, resource=RESOURCE)
def get_alias(call: Call) -> Reply:
    """One alias."""
    function, name, body = _the_alias(call)
    return Reply(_form(call, function, name, body))


@LAMBDA.operation(
    "UpdateAlias",
    f"PUT {_ALIAS}",
    {
        "FunctionName": FunctionName(),
        "Name": _NAME,
        "FunctionVersion": _VERSION,
        "Description": Text(0, 256),
        "RevisionId": Text(),
    },
    writes=True,
    resource=RESOURCE,
)
def update_alias(call: Call) -> Reply:
    """Another version or description."""
    function, name, body = _the_alias(call)
    check_revision(call.params.get("RevisionId"), body["revision"], "GetAlias")
    if "FunctionVersion" in call.params:
        _check_version(call, function, call.params["FunctionVersion"])
        body["version"] = call.params["FunctionVersion"]
    body["description"] = call.params.get("Description", body["description"])
    return Reply(_form(call, function, name, _put(call, function, name, body)))


@LAMBDA.operation(
    "DeleteAlias",
    f"DELETE {_ALIAS}",
    {"FunctionName": FunctionName(), "Name": _NAME},
    status=204,
    writes=True,
    resource=RESOURCE,
)
def delete_alias(call: Call) -> Reply:
    """An alias; one that is not there counts as deleted, as with the service itself."""
    function, _ = the_function(call)
    call.tx.delete(ALIASES, under(call.home, function), call.params["Name"])
    return Reply()


@LAMBDA.operation(
    "ListAliases",
    f"GET {PATH}/{{FunctionName}}/aliases",
    {"FunctionName": FunctionName(), "FunctionVersion": query(_VERSION), **paged("Marker", "MaxItems", 10_000)},
    resource=RESOURCE,
)
def list_aliases(call: Call) -> Reply:
    """A function's aliases, or those of one version."""
    function, _ = the_function(call)
    if "FunctionVersion" in call.params:
        page = call.find(ALIASES, "version", version_label(call.home, function, call.params["FunctionVersion"]))
    else:
        page = call.list(ALIASES, under(call.home, function))
    return entries(page, lambda document: _form(call, function, document.name, document.body), "Aliases", "NextMarker")


def _the_alias(call: Call) -> tuple[str, str, Body]:
    function, _ = the_function(call)
    name = call.params["Name"]
    body = call.tx.get(ALIASES, under(call.home, function), name)
    if body is None:
        raise not_found(f"Cannot find alias arn: {function_arn(call.home, function, name)}")
    return function, name, body


def _check_version(call: Call, function: str, version: str) -> None:
    if call.tx.get(VERSIONS, under(call.home, function), version) is None:
        raise not_found(f"Function not found: {function_arn(call.home, function, version)}")


def _put(call: Call, function: str, name: str, body: Body) -> Body:
    body = body | {"revision": str(uuid.uuid4())}
    labels = {"version": [version_label(call.home, function, body["version"])]}
    call.tx.put(ALIASES, under(call.home, function), name, body, labels)
    return body


def _form(call: Call, function: str, name: str, body: Body) -> dict[str, Any]:
    return {
        "AliasArn": function_arn(call.home, function, name),
        "Name": name,
        "FunctionVersion": body["version"],
        "Description": body["description"],
        "RevisionId": body["revision"],
    }
