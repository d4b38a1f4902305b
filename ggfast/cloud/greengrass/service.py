"""The service's object, and what all its operations share: ARNs, the client token, refusals without a code."""

from __future__ import annotations

from collections.abc import Sequence

from ggfast.cloud.faults import Fault
from ggfast.cloud.limits import DETAILS_MAX
from ggfast.cloud.operations import CLIENT_TOKEN, Service
from ggfast.cloud.shapes import Member, Text, header

GREENGRASS = Service("greengrass", protocol="rest-json", invalid_code="InvalidInputException", api_version="2017-06-07")

CREATED = 201  # what the real service answers where its model says 200 (cloud-api 3)


def client_token() -> dict[str, Member]:
    """The member that makes a repeated creation one creation (cloud-api 2)."""
    return {CLIENT_TOKEN: header(Text(1, 64), "X-Amzn-Client-Token")}


def arn_of(home: str, path: str) -> str:
    """The ARN of `/greengrass/...` in the account and region of `home`."""
    account, _, region = home.partition("/")
    return f"arn:aws:greengrass:{region}:{account}:{path}"


def path_in(home: str, arn: str) -> str | None:
    """The `/greengrass/...` of an ARN of that account and region, also of one written without the slash; else None."""
    start = arn_of(home, "")
    if not arn.startswith(start):
        return None
    path = arn[len(start) :]
    path = path if path.startswith("/") else "/" + path
    return path if path.startswith("/greengrass/") else None


def unknown(text: str, code: str = "IdNotFoundException") -> Fault:
    """404: what the path names does not exist."""
    return Fault(code, text, status=404)


def corrupted(text: str, details: Sequence[str], detail_code: str) -> Fault:
    """400 without a code, as the real service refuses what it calls invalid (cloud-api 3, 6): clients report "400".

    `text` is followed by the details in brackets, and the body has them one by one as well.
    """
    listed = list(details[:DETAILS_MAX])
    if len(details) > DETAILS_MAX:
        listed.append(f"and {len(details) - DETAILS_MAX} more")
    return Fault(
        "",
        f"{text} (ErrorDetails: [{', '.join(listed)}])",
        members={
            "ErrorDetails": [
                {"DetailedErrorCode": detail_code, "DetailedErrorMessage": detail} for detail in details[:DETAILS_MAX]
            ]
        },
    )
