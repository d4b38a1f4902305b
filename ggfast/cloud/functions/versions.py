"""Versions: numbered copies of `$LATEST` that never change."""

from __future__ import annotations

from ggfast.cloud.functions.names import LATEST, FunctionName
from ggfast.cloud.functions.service import LAMBDA, PATH, RESOURCE, check_revision, invalid, the_function
from ggfast.cloud.functions.settings import changed, same_function
from ggfast.cloud.functions.store import FUNCTIONS, VERSIONS, configuration, put_version, under
from ggfast.cloud.operations import Call, Reply, entries, paged
from ggfast.cloud.shapes import Text
from ggfast.cloud.store.interface import Body


def publish(call: Call, name: str, latest: Body, description: str | None = None) -> tuple[str, Body]:
    """The number and body of `$LATEST` as a version: the newest one if nothing has changed since."""
    function = call.tx.get(FUNCTIONS, call.home, name)
    assert function is not None, name
    last = str(function["last"])
    known = call.tx.get(VERSIONS, under(call.home, name), last)
    if known is not None and same_function(known, latest):
        return last, known
    version = str(function["last"] + 1)
    settings = {} if description is None else {"Description": description}
    body = changed(latest, settings, call.cloud.clock.wall())
    call.tx.put(FUNCTIONS, call.home, name, function | {"last": function["last"] + 1})
    put_version(call.tx, call.home, name, version, body)
    return version, body


@LAMBDA.operation(
    "PublishVersion",
    f"POST {PATH}/{{FunctionName}}/versions",
    {"FunctionName": FunctionName(), "CodeSha256": Text(), "Description": Text(0, 256), "RevisionId": Text()},
    status=201,
    writes=True,
    resource=RESOURCE,
)
def publish_version(call: Call) -> Reply:
    """A version of what `$LATEST` is now."""
    name, _ = the_function(call)
    latest = call.tx.get(VERSIONS, under(call.home, name), LATEST)
    assert latest is not None, name
    check_revision(call.params.get("RevisionId"), latest["configuration"]["RevisionId"], "GetFunction/GetAlias")
    given, current = call.params.get("CodeSha256", ""), latest["configuration"]["CodeSha256"]
    if given and given != current:
        raise invalid(
            f"CodeSHA256 ({given[:80]}) is different from current CodeSHA256 in $LATEST ({current}). "
            "Please try again with the CodeSHA256 in $LATEST."
        )
    version, body = publish(call, name, latest, call.params.get("Description"))
    return Reply(configuration(call.home, name, version, body, qualifier=version))


@LAMBDA.operation(
    "ListVersionsByFunction",
    f"GET {PATH}/{{FunctionName}}/versions",
    {"FunctionName": FunctionName(), **paged("Marker", "MaxItems", 10_000)},
    resource=RESOURCE,
)
def list_versions_by_function(call: Call) -> Reply:
    """`$LATEST` and the versions, oldest first."""
    name, _ = the_function(call, qualified=True)
    page = call.list(VERSIONS, under(call.home, name))
    return entries(
        page,
        lambda document: configuration(call.home, name, document.name, document.body, qualifier=document.name),
        "Versions",
        "NextMarker",
    )
