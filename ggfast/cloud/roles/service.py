"""The two services, shapes of their members, and their common refusals."""

from __future__ import annotations

import base64
import hashlib
import re
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

from ggfast.cloud.faults import Fault
from ggfast.cloud.limits import TAGS_MAX
from ggfast.cloud.operations import Call, Reply, Service, paged
from ggfast.cloud.policy import PolicyDocument
from ggfast.cloud.shapes import Items, Record, Text, need
from ggfast.cloud.store.interface import Document, Page

IAM = Service(
    "iam",
    protocol="query",
    invalid_code="ValidationError",
    unknown_operation="InvalidAction",
    api_version="2010-05-08",
    open_members=True,
    token_names=("Marker",),
    size_names=("MaxItems",),
)
STS = Service(
    "sts",
    protocol="query",
    invalid_code="ValidationError",
    unknown_operation="InvalidAction",
    api_version="2011-06-15",
    open_members=True,
)
ROUTE = "POST /"
ROLE_NAME = Text(1, 64, r"[A-Za-z0-9_+=,.@-]+")
POLICY_NAME = Text(1, 128, r"[A-Za-z0-9_+=,.@-]+")
PATH = Text(1, 512, r"/|/[!-~]+/")
PATH_PREFIX = Text(1, 512, r"/[!-~]*")
DOCUMENT = Text(1, 131_072, r"[\t\n\r -\u00ff]+")
ARN = Text(20, 2_048)
TAGS = Items(Record({"Key": need(Text(1, 128)), "Value": need(Text(0, 256))}, open=True), 0, TAGS_MAX)
PAGED = paged("Marker", "MaxItems", 1_000, where="body")
_SPACE = re.compile(r"\s+")


def no_such_entity(what: str) -> Fault:
    """What a name that leads nowhere is answered with."""
    return Fault("NoSuchEntity", f"{what} cannot be found.", status=404)


def check_document(text: str, most: int, what: str) -> PolicyDocument:
    """A policy document that may be kept. Raises Fault."""
    try:
        document = PolicyDocument.parse(text)
    except ValueError as error:
        raise Fault("MalformedPolicyDocument", f"The {what} is malformed: {error}.") from error
    size = len(_SPACE.sub("", text))
    if size > most:
        raise too_much(f"The {what} has {size} characters without white space, at most {most} are taken.")
    return document


def too_much(message: str) -> Fault:
    """The refusal of what passes a quota."""
    return Fault("LimitExceeded", message, status=409)


def bare_size(text: str) -> int:
    """Characters of a document without white space: what quotas count."""
    return len(_SPACE.sub("", text))


def stamp(seconds: float) -> str:
    """A time as the query services write it: ISO 8601 to the second."""
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def unique_id(prefix: str, arn: str, salt: str = "") -> str:
    """An id of 21 characters as IAM's look: the same for the same ARN and salt."""
    digest = base64.b32encode(hashlib.sha256(f"{salt}/{arn}".encode()).digest()).decode()
    return prefix + digest[:17]


def listed(page: Page, member: str, form: Callable[[Document], Any | None]) -> Reply:
    """A page of a list; entries whose form is None do not belong to it."""
    found = [form(document) for document in page.documents]
    members: dict[str, Any] = {
        member: [entry for entry in found if entry is not None],
        "IsTruncated": page.token is not None,
    }
    if page.token is not None:
        members["Marker"] = page.token
    return Reply(members)


def tags_of(call: Call) -> list[dict[str, str]]:
    """The request's tags. Raises Fault for a key that comes twice."""
    tags: list[dict[str, str]] = call.params.get("Tags", [])
    if len({tag["Key"] for tag in tags}) != len(tags):
        raise Fault("InvalidInput", "Duplicate tag keys found. Please note that Tag keys are case insensitive.")
    return tags
