"""Other code and other settings for `$LATEST`."""

from __future__ import annotations

from typing import Any

from ggfast.cloud.functions.names import LATEST, FunctionName
from ggfast.cloud.functions.packages import Code, keep_code
from ggfast.cloud.functions.service import LAMBDA, PATH, RESOURCE, check_revision, the_function
from ggfast.cloud.functions.settings import ARCHITECTURES, CODE, SETTINGS, changed, environment, zip_of
from ggfast.cloud.functions.store import VERSIONS, configuration, put_version, under
from ggfast.cloud.functions.versions import publish
from ggfast.cloud.limits import CODE_REQUEST_BYTES_MAX
from ggfast.cloud.operations import Call, Reply
from ggfast.cloud.shapes import Flag, Text
from ggfast.cloud.store.interface import Body
from ggfast.cloud.surroundings import Surroundings


def _keep_code(cloud: Surroundings, params: dict[str, Any]) -> Code:
    return keep_code(cloud, zip_of(params, ""), keep=not params.get("DryRun"))


@LAMBDA.operation(
    "UpdateFunctionCode",
    f"PUT {PATH}/{{FunctionName}}/code",
    {
        "FunctionName": FunctionName(),
        **CODE,
        "Architectures": ARCHITECTURES,
        "Publish": Flag(),
        "DryRun": Flag(),
        "RevisionId": Text(),
    },
    writes=True,
    resource=RESOURCE,
    body_bytes_max=CODE_REQUEST_BYTES_MAX,
    before=_keep_code,
)
def update_function_code(call: Call) -> Reply:
    """Other code; with `Publish` also a new version; with `DryRun` only what the answer would be."""
    name, body = _latest(call)
    check_revision(call.params.get("RevisionId"), body["configuration"]["RevisionId"], "GetFunction/GetAlias")
    settings = {key: call.params[key] for key in ("Architectures",) if key in call.params}
    body = changed(body, settings, call.cloud.clock.wall(), call.prepared)
    if call.params.get("DryRun"):
        return Reply(configuration(call.home, name, LATEST, body))
    put_version(call.tx, call.home, name, LATEST, body)
    if call.params.get("Publish"):
        version, body = publish(call, name, body)
        return Reply(configuration(call.home, name, version, body, qualifier=version))
    return Reply(configuration(call.home, name, LATEST, body))


@LAMBDA.operation(
    "UpdateFunctionConfiguration",
    f"PUT {PATH}/{{FunctionName}}/configuration",
    {"FunctionName": FunctionName(), **SETTINGS, "RevisionId": Text()},
    writes=True,
    resource=RESOURCE,
)
def update_function_configuration(call: Call) -> Reply:
    """The settings that were given; the others stay."""
    name, body = _latest(call)
    check_revision(call.params.get("RevisionId"), body["configuration"]["RevisionId"], "GetFunction/GetAlias")
    settings = {key: call.params[key] for key in SETTINGS if key in call.params}
    if "Environment" in settings:
        settings["Environment"] = environment(settings["Environment"])
    body = changed(body, settings, call.cloud.clock.wall())
    put_version(call.tx, call.home, name, LATEST, body)
    return Reply(configuration(call.home, name, LATEST, body))


def _latest(call: Call) -> tuple[str, Body]:
    name, _ = the_function(call)
    body = call.tx.get(VERSIONS, under(call.home, name), LATEST)
    assert body is not None, name
    return name, body
