"""Create, read, list, delete functions."""

from __future__ import annotations

from typing import Any

from ggfast.cloud.functions.names import LATEST, FunctionName, FunctionRef, function_arn
from ggfast.cloud.functions.packages import Code, keep_code
from ggfast.cloud.functions.service import (
    LAMBDA,
    PATH,
    RESOURCE,
    asked_qualifier,
    check_place,
    invalid,
    not_found,
    refusal,
    the_function,
    the_version,
)
from ggfast.cloud.functions.settings import CREATE, new_body, zip_of
from ggfast.cloud.functions.store import (
    ALIASES,
    FUNCTIONS,
    VERSIONS,
    aliases_of_version,
    configuration,
    put_version,
    under,
)
from ggfast.cloud.functions.tags import set_tags, tags_of
from ggfast.cloud.functions.versions import publish
from ggfast.cloud.limits import CODE_REQUEST_BYTES_MAX
from ggfast.cloud.links import artifact_link
from ggfast.cloud.operations import Call, Reply, entries, paged
from ggfast.cloud.shapes import Choice, Text, need, query
from ggfast.cloud.store.interface import Document
from ggfast.cloud.surroundings import Surroundings

QUALIFIER = query(Text(1, 128, r"\$LATEST|[a-zA-Z0-9_-]+"))
_PAGE_MAX = 10_000  # the service model's bound; pages are shorter (limits.PAGE_MAX)


def _keep_new_code(cloud: Surroundings, params: dict[str, Any]) -> Code:
    return keep_code(cloud, zip_of(params["Code"], "Code."))


@LAMBDA.operation(
    "CreateFunction",
    f"POST {PATH}",
    {"FunctionName": need(FunctionName()), **CREATE},
    status=201,
    writes=True,
    resource=RESOURCE,
    body_bytes_max=CODE_REQUEST_BYTES_MAX,
    before=_keep_new_code,
)
def create_function(call: Call) -> Reply:
    """A function with its first code; with `Publish` also version 1."""
    name: FunctionRef = call.params["FunctionName"]
    check_place(call, name)
    if name.qualifier:
        raise invalid(f"FunctionName: found the qualifier '{name.qualifier}', expected a name without one.")
    body = new_body(call.params, call.prepared, call.cloud.clock.wall())
    if not call.tx.create(FUNCTIONS, call.home, str(name), {"last": 0}):
        raise refusal("ResourceConflictException", f"Function already exist: {name}", 409)
    put_version(call.tx, call.home, str(name), LATEST, body)
    if call.params.get("Tags"):
        set_tags(call.tx, call.home, function_arn(call.home, name), call.params["Tags"])
    if call.params.get("Publish"):
        version, body = publish(call, str(name), body)
        return Reply(configuration(call.home, str(name), version, body, qualifier=version))
    return Reply(configuration(call.home, str(name), LATEST, body))


@LAMBDA.operation(
    "GetFunction",
    f"GET {PATH}/{{FunctionName}}",
    {"FunctionName": FunctionName(), "Qualifier": QUALIFIER},
    resource=RESOURCE,
)
def get_function(call: Call) -> Reply:
    """Configuration, tags, and a link to the code that works without a key for a while."""
    found, qualifier = the_version(call)
    members: dict[str, Any] = {
        "Configuration": configuration(call.home, found.name, found.version, found.body, qualifier=qualifier),
        "Code": {"RepositoryType": "S3", "Location": artifact_link(call.cloud, found.body["digest"])},
    }
    tags = tags_of(call.tx, call.home, function_arn(call.home, found.name))
    if tags:
        members["Tags"] = tags
    return Reply(members)


@LAMBDA.operation(
    "GetFunctionConfiguration",
    f"GET {PATH}/{{FunctionName}}/configuration",
    {"FunctionName": FunctionName(), "Qualifier": QUALIFIER},
    resource=RESOURCE,
)
def get_function_configuration(call: Call) -> Reply:
    """The configuration of `$LATEST`, a version, or an alias's version."""
    found, qualifier = the_version(call)
    return Reply(configuration(call.home, found.name, found.version, found.body, qualifier=qualifier))


@LAMBDA.operation(
    "ListFunctions",
    f"GET {PATH}",
    {**paged("Marker", "MaxItems", _PAGE_MAX), "FunctionVersion": query(Choice("ALL")), "MasterRegion": query(Text())},
)
def list_functions(call: Call) -> Reply:
    """Every function's `$LATEST`; with `FunctionVersion` ALL every version of each."""
    if "FunctionVersion" in call.params:
        page = call.find(VERSIONS, "home", call.home)
        return entries(page, lambda document: _listed(call, document), "Functions", "NextMarker")
    page = call.list(FUNCTIONS, call.home)
    return entries(page, lambda document: _latest(call, document.name), "Functions", "NextMarker")


@LAMBDA.operation(
    "DeleteFunction",
    f"DELETE {PATH}/{{FunctionName}}",
    {"FunctionName": FunctionName(), "Qualifier": QUALIFIER},
    status=204,
    writes=True,
    resource=RESOURCE,
)
def delete_function(call: Call) -> Reply:
    """A function with all its versions and aliases, or one version."""
    name, _ = the_function(call, qualified=True)
    qualifier = asked_qualifier(call)
    if qualifier:
        _delete_version(call, name, qualifier)
        return Reply()
    call.tx.delete(FUNCTIONS, call.home, name)
    call.tx.delete_all(VERSIONS, under(call.home, name))
    call.tx.delete_all(ALIASES, under(call.home, name))
    set_tags(call.tx, call.home, function_arn(call.home, name), {})
    return Reply()


def _delete_version(call: Call, name: str, version: str) -> None:
    if version == LATEST:
        raise invalid("$LATEST version cannot be deleted without deleting the function.")
    if not version.isdigit():
        raise invalid("Deletion of aliases is not currently supported. Use DeleteAlias.")
    aliases = aliases_of_version(call.tx, call.home, name, version)
    if aliases:
        raise refusal(
            "ResourceConflictException",
            f"Unable to delete version because the following aliases reference it: [{', '.join(aliases)}]",
            409,
        )
    if not call.tx.delete(VERSIONS, under(call.home, name), version):
        raise not_found(f"Function not found: {function_arn(call.home, name, version)}")


def _latest(call: Call, name: str) -> dict[str, Any]:
    body = call.tx.get(VERSIONS, under(call.home, name), LATEST)
    assert body is not None, name
    return configuration(call.home, name, LATEST, body)


def _listed(call: Call, document: Document) -> dict[str, Any]:
    name = document.parent.rpartition("/")[2]
    return configuration(call.home, name, document.name, document.body, qualifier=document.name)
