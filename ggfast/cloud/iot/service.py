"""The IoT API's registry (cloud-api 7): its service object, the shapes of its names, and how it refuses."""

from __future__ import annotations

from ggfast.cloud.faults import Fault
from ggfast.cloud.operations import Call, Service
from ggfast.cloud.shapes import Items, Record, Text, need

IOT = Service(
    "iot",
    protocol="rest-json",
    invalid_code="InvalidRequestException",
    token_names=("nextToken", "marker"),
    size_names=("maxResults", "pageSize"),
)

NAME = Text(1, 128, r"[a-zA-Z0-9:_-]+")  # of things, thing groups, thing types, billing groups
POLICY_NAME = Text(1, 128, r"[a-zA-Z0-9_+=,.@-]+")
VERSION_ID = Text(1, 9, r"[0-9]+")


class _CertificateId(Text):
    """Reads as lower case: policies of keys are asked about the one spelling that is kept."""

    def read(self, value: object, path: str) -> str:
        return super().read(value, path).lower()


CERTIFICATE_ID = _CertificateId(64, 64, r"[a-fA-F0-9]+")
DESCRIPTION = Text(0, 2_028, r"[^\x00-\x1f\x7f-\x9f]*")
ATTRIBUTE_NAME = Text(1, 128, r"[a-zA-Z0-9_.,@/:#-]+")
ATTRIBUTE_VALUE = Text(0, 800, r"[a-zA-Z0-9_.,@/:#=\[\]-]*")
ARN = Text(1, 2_048)
TAG_KEY = Text(1, 128, r"[\w .:/=+\-@]+")
TAGS = Items(Record({"Key": need(TAG_KEY), "Value": Text(0, 256)}), most=50)


def not_found(what: str, name: str) -> Fault:
    """404: what was named does not exist in this account and region."""
    return Fault(
        "ResourceNotFoundException", f"The {what} {name} does not exist in this account and region.", status=404
    )


def exists(message: str, resource_id: str, arn: str) -> Fault:
    """409, with what is in the way."""
    members = {"resourceId": resource_id, "resourceArn": arn}
    return Fault("ResourceAlreadyExistsException", message, status=409, members=members)


def unusable(message: str) -> Fault:
    """400: understood, and not possible as things are."""
    return Fault("InvalidRequestException", message)


def in_use(message: str) -> Fault:
    """409: something still refers to what shall be deleted."""
    return Fault("DeleteConflictException", message, status=409)


def over_limit(message: str) -> Fault:
    """410, this service's status for it."""
    return Fault("LimitExceededException", message, status=410)


def check_version(call: Call, what: str, found: int) -> None:
    """Refuse with 409 if the request expects another version than there is."""
    expected = call.params.get("expectedVersion")
    if expected is not None and expected != found:
        raise Fault(
            "VersionConflictException",
            f"The version of {what} is {found}, expected {expected}. Read it again and repeat the change.",
            status=409,
        )


def name_in_arn(call: Call, arn: str, kind: str) -> str | None:
    """The last part of an ARN of that kind ("thing", "cert", ...) in this account and region, else None."""
    begin = call.arn(f"{kind}/")
    name = arn.removeprefix(begin)
    return name if name != arn and name else None
