"""Bulk deployments: many groups from one input file (cloud-api 4, greengrass-core 12.7). `deploy/bulk_steps.py` works
through it.

There is no S3 beside this cloud, and files of its own machine are not for callers of the API. `InputFileUri` may be

    data:[<type>][;base64],<lines>   the lines themselves
    artifact:<sha256>                an artifact that is kept already
    s3://... or https://...          an address under which an artifact was registered (deploy/objects.py)
"""

from __future__ import annotations

import base64
import binascii
import re
from typing import Any
from urllib.parse import unquote_to_bytes
from uuid import uuid4

from ggfast.cloud.deploy import bulk_steps, records
from ggfast.cloud.deploy.bulk_steps import bulk_arn
from ggfast.cloud.events import BulkDeploymentWaiting
from ggfast.cloud.faults import Fault
from ggfast.cloud.greengrass.deployments import deployment_form, status_form
from ggfast.cloud.greengrass.service import GREENGRASS, client_token, unknown
from ggfast.cloud.greengrass.tags import SHAPE as TAG_SHAPE
from ggfast.cloud.greengrass.tags import add_tags, taggable, tags_of
from ggfast.cloud.limits import BULK_URL_CHARACTERS_MAX
from ggfast.cloud.operations import Call, Reply, entries, paged
from ggfast.cloud.shapes import Text, need
from ggfast.cloud.store.interface import Body, Document, Transaction
from ggfast.cloud.surroundings import Surroundings, timestamp

_PATH = "/greengrass/bulk/deployments"
_ONE = f"{_PATH}/{{BulkDeploymentId}}"
_ROLE = Text(1, 2_048, r"arn:aws[a-z-]*:iam::[0-9]{12}:role/.+")
_ARTIFACT = re.compile(r"artifact:([0-9a-f]{64})")
_ADDRESS = re.compile(r"(s3|https)://.{1,2040}")
_FORMS = "data:[<type>][;base64],<lines>, artifact:<sha256 of an uploaded artifact>, or the s3:// or https:// address "
_FORMS += "under which one was registered"


def _keep_input(cloud: Surroundings, params: dict[str, Any]) -> dict[str, str]:
    """Where the input is: an address, or the digest of an artifact, which the lines of a data: URL become."""
    uri: str = params["InputFileUri"]
    match = _ARTIFACT.fullmatch(uri)
    if match is not None:
        if cloud.artifacts.size(match[1]) < 0:
            raise _wrong(uri, "the digest of an artifact that is kept here")
        return {"address": "", "digest": match[1]}
    if uri.startswith("data:"):
        return {"address": "", "digest": cloud.artifacts.keep(_lines(uri))}
    if _ADDRESS.fullmatch(uri) is None:
        hint = " Files of the server cannot be named." if uri.startswith("file:") else ""
        raise _wrong(uri, f"{_FORMS}.{hint}")
    return {"address": uri, "digest": ""}


def _lines(uri: str) -> bytes:
    """The content of a data: URL."""
    head, comma, content = uri.partition(",")
    if not comma:
        raise _wrong(uri, "data:[<type>][;base64],<lines>")
    raw = unquote_to_bytes(content)
    if not head.endswith(";base64"):
        return raw
    try:
        return base64.b64decode(raw, validate=True)
    except (binascii.Error, ValueError) as error:
        raise _wrong(uri, f"base64 behind the comma ({error})") from error


def _wrong(uri: str, expected: str) -> Fault:
    return Fault(GREENGRASS.invalid_code, f"InputFileUri: found {uri[:80]!r}, expected {expected}")


@GREENGRASS.operation(
    "StartBulkDeployment",
    f"POST {_PATH}",
    {
        **client_token(),
        "ExecutionRoleArn": need(_ROLE),
        "InputFileUri": need(Text(1, BULK_URL_CHARACTERS_MAX)),
        "tags": TAG_SHAPE,
    },
    writes=True,
    before=_keep_input,
)
def start_bulk(call: Call) -> Reply:
    """Begin one; refused while another is not finished, and unless the caller may deploy every group it names."""
    other = bulk_steps.open_bulk(call.tx, call.home)
    if other is not None:
        status = other.body["status"]
        raise Fault(
            "BadRequestException",
            f"Bulk deployment {other.name} is {status}: one runs at a time in an account and region. Wait until it has "
            "finished, or stop it.",
        )
    source = bulk_steps.fixed_input(call.tx, call.home, call.prepared)
    for group in sorted(bulk_steps.groups_in(call.cloud, source)):
        call.permit("CreateDeployment", call.arn(f"/greengrass/groups/{group}"))
    bulk = str(uuid4())
    body: Body = {
        "status": bulk_steps.INITIALIZING,
        "created": timestamp(call.cloud.clock.wall()),
        "input": source,
        "role": call.params["ExecutionRoleArn"],
        "message": "",
        "RecordsProcessed": 0,
        "InvalidInputRecords": 0,
        "RetryAttempts": 0,
    }
    bulk_steps.save_bulk(call.tx, call.home, bulk, body)
    add_tags(call.tx, call.home, bulk_arn(call.home, bulk), call.params.get("tags", {}))
    call.tx.tell(BulkDeploymentWaiting())
    return Reply({"BulkDeploymentArn": bulk_arn(call.home, bulk), "BulkDeploymentId": bulk})


@GREENGRASS.operation("ListBulkDeployments", f"GET {_PATH}", paged())
def list_bulk(call: Call) -> Reply:
    """All that are kept, in the order they were started."""

    def form(document: Document) -> dict[str, Any]:
        return {
            "BulkDeploymentArn": bulk_arn(call.home, document.name),
            "BulkDeploymentId": document.name,
            "CreatedAt": document.body["created"],
        }

    return entries(call.list(bulk_steps.BULKS, call.home), form, "BulkDeployments")


@GREENGRASS.operation("GetBulkDeploymentStatus", f"GET {_ONE}/status", resource=_ONE)
def get_bulk_status(call: Call) -> Reply:
    """How far one is."""
    bulk, body = _found(call)
    members: dict[str, Any] = {
        "BulkDeploymentMetrics": {
            name: body[name] for name in ("InvalidInputRecords", "RecordsProcessed", "RetryAttempts")
        },
        "BulkDeploymentStatus": body["status"],
        "CreatedAt": body["created"],
        "tags": tags_of(call.tx, call.home, bulk_arn(call.home, bulk)),
    }
    if body["message"]:
        details = [{"DetailedErrorCode": "INPUT_FILE_ERROR", "DetailedErrorMessage": body["message"]}]
        members |= {"ErrorMessage": body["message"], "ErrorDetails": details}
    return Reply(members)


@GREENGRASS.operation("ListBulkDeploymentDetailedReports", f"GET {_ONE}/detailed-reports", paged(), resource=_ONE)
def list_bulk_reports(call: Call) -> Reply:
    """What each record came to, with the present status of its deployment."""
    bulk, _ = _found(call)
    parent = f"{call.home}/{bulk}"
    return entries(call.list(bulk_steps.RESULTS, parent), lambda found: _report(call, found.body), "Deployments")


def _report(call: Call, result: Body) -> dict[str, Any]:
    deployment = records.load(call.tx, call.home, result["group"], result["deployment"])
    if deployment is not None:
        return deployment_form(deployment) | status_form(deployment)
    report = {"DeploymentType": records.NEW}
    if result["group"]:
        report["GroupArn"] = call.arn(f"/greengrass/groups/{result['group']}")
    if result["deployment"]:  # its record is gone, with its group or as too old
        report["DeploymentId"] = result["deployment"]
        return report
    details = [{"DetailedErrorCode": "INVALID_INPUT_RECORD", "DetailedErrorMessage": result["message"]}]
    return report | {
        "CreatedAt": result["created"],
        "DeploymentStatus": records.FAILURE,
        "ErrorMessage": result["message"],
        "ErrorDetails": details,
    }


@GREENGRASS.operation("StopBulkDeployment", f"PUT {_ONE}/$stop", writes=True, resource=_ONE)
def stop_bulk(call: Call) -> Reply:
    """No further groups are deployed; those that were go on. One that has finished stays as it is."""
    bulk, body = _found(call)
    if body["status"] in bulk_steps.OPEN:
        bulk_steps.save_bulk(call.tx, call.home, bulk, body | {"status": bulk_steps.STOPPING})
        call.tx.tell(BulkDeploymentWaiting())
    return Reply()


def _found(call: Call) -> tuple[str, Body]:
    bulk = call.params["BulkDeploymentId"]
    body = bulk_steps.load_bulk(call.tx, call.home, bulk)
    if body is None:
        raise unknown(f"Bulk deployment '{bulk}' does not exist.", "ResourceNotFoundException")
    return bulk, body


def _exists(tx: Transaction, home: str, bulk: str) -> bool:
    return bulk_steps.load_bulk(tx, home, bulk) is not None


taggable(_PATH, _exists)
