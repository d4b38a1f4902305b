"""Members of a function's configuration: what they may be, and how they are kept."""

from __future__ import annotations

import uuid
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from ggfast.cloud.functions.packages import Code
from ggfast.cloud.functions.service import invalid
from ggfast.cloud.limits import ENVIRONMENT_BYTES_MAX, REQUEST_ZIP_BYTES_MAX, TAGS_MAX
from ggfast.cloud.shapes import Blob, Choice, Flag, Items, Member, Record, Shape, Table, Text, Whole, need
from ggfast.cloud.store.interface import Body

TAGS = Table(Text(0, 256), TAGS_MAX, Text(1, 128, r"(?!aws:).*"))
_RUNTIME = Text(1, 128, r"[a-z][a-z0-9.]{1,40}|nodejs4\.3-edge|arn:aws:greengrass:::runtime/function/executable")
_ROLE = Text(1, 2_048, r"arn:aws[a-zA-Z-]*:iam::[0-9]{12}:role/?[a-zA-Z0-9_+=,.@/-]+")
_VARIABLES = Table(Text(0, ENVIRONMENT_BYTES_MAX), 500, Text(2, 512, r"[a-zA-Z][a-zA-Z0-9_]+"))
ARCHITECTURES = Items(Choice("x86_64", "arm64"), 1, 1)
_RESERVED = frozenset(
    {
        "AWS_ACCESS_KEY_ID",
        "AWS_DEFAULT_REGION",
        "AWS_EXECUTION_ENV",
        "AWS_LAMBDA_FUNCTION_MEMORY_SIZE",
        "AWS_LAMBDA_FUNCTION_NAME",
        "AWS_LAMBDA_FUNCTION_VERSION",
        "AWS_LAMBDA_RUNTIME_API",
        "AWS_REGION",
        "AWS_SECRET_ACCESS_KEY",
        "AWS_SESSION_TOKEN",
        "LAMBDA_RUNTIME_DIR",
        "LAMBDA_TASK_ROOT",
    }
)  # the platform sets them itself
_TIMEOUT_MAX = 5_400  # seconds: the service model's bound
_MEMORY_MIN, _MEMORY_MAX = 128, 32_768  # MB: the service model's bounds
_DEFAULTS: Mapping[str, Any] = {"Description": "", "Timeout": 3, "MemorySize": 128}

SETTINGS: Mapping[str, Shape | Member] = {
    "Runtime": _RUNTIME,
    "Role": _ROLE,
    "Handler": Text(1, 128, r"[^\s]+"),
    "Description": Text(0, 256),
    "Timeout": Whole(1, _TIMEOUT_MAX),
    "MemorySize": Whole(_MEMORY_MIN, _MEMORY_MAX),
    "Environment": Record({"Variables": _VARIABLES}, open=True),
}
CODE: Mapping[str, Shape | Member] = {
    "ZipFile": Blob(REQUEST_ZIP_BYTES_MAX),
    "S3Bucket": Text(),
    "S3Key": Text(),
    "ImageUri": Text(),
}
CREATE: Mapping[str, Shape | Member] = {
    **SETTINGS,
    "Role": need(_ROLE),
    "Code": need(Record(CODE, open=True)),
    "Publish": Flag(),
    "PackageType": Choice("Zip"),
    "Architectures": ARCHITECTURES,
    "Tags": TAGS,
}


def zip_of(code: Mapping[str, Any], where: str) -> bytes:
    """The zip among the ways code may be given. Raises Fault: the others need services that are not here."""
    for name in ("S3Bucket", "S3Key", "ImageUri"):
        if name in code:
            raise invalid(
                f"{where}{name}: found {code[name][:80]!r}, expected nothing: there is no S3 and no image registry "
                f"here; send the code itself as {where}ZipFile."
            )
    if "ZipFile" not in code:
        raise invalid(f"Please provide a source for function code: {where}ZipFile.")
    return bytes(code["ZipFile"])


def new_body(params: Mapping[str, Any], code: Code, now: float) -> Body:
    """The document of a new function's `$LATEST`. Raises Fault."""
    for name in ("Runtime", "Handler"):
        if name not in params:
            raise invalid(
                "Runtime and Handler are mandatory parameters for functions created with deployment packages. "
                f"({name} is missing.)"
            )
    settings = {name: params.get(name, _DEFAULTS.get(name)) for name in SETTINGS if name != "Environment"}
    if "Environment" in params:
        settings["Environment"] = environment(params["Environment"])
    settings |= {"PackageType": "Zip", "Architectures": params.get("Architectures", ["x86_64"])}
    return changed({"configuration": settings, "digest": ""}, {}, now, code)


def changed(body: Body, settings: Mapping[str, Any], now: float, code: Code | None = None) -> Body:
    """A body with other settings or other code, and a new revision."""
    configuration = body["configuration"] | settings | {"RevisionId": str(uuid.uuid4()), "LastModified": _time(now)}
    digest = body["digest"]
    if code is not None:
        configuration |= {"CodeSha256": code.sha256, "CodeSize": code.size}
        digest = code.digest
    return {**body, "configuration": configuration, "digest": digest}


def environment(given: Mapping[str, Any]) -> dict[str, Any]:
    """A checked `Environment`. Raises Fault."""
    variables: dict[str, str] = given.get("Variables", {})
    reserved = sorted(_RESERVED.intersection(variables))
    if reserved:
        raise invalid(
            "Lambda was unable to configure your environment variables because the environment variables you have "
            "provided contains reserved keys that are currently not supported for modification. Reserved keys used in "
            f"this request: {', '.join(reserved)}"
        )
    size = sum(len(text.encode()) for pair in variables.items() for text in pair)
    if size > ENVIRONMENT_BYTES_MAX:
        raise invalid(
            "Lambda was unable to configure your environment variables because the environment variables you have "
            f"provided exceeded the 4KB limit. (Found {size} bytes, at most {ENVIRONMENT_BYTES_MAX}.)"
        )
    return {"Variables": variables}


def same_function(one: Body, other: Body) -> bool:
    """Whether two versions have the same code and configuration; their description and time do not count."""
    moving = ("RevisionId", "LastModified", "Description")
    plain = [{k: v for k, v in body["configuration"].items() if k not in moving} for body in (one, other)]
    return bool(plain[0] == plain[1] and one["digest"] == other["digest"])


def _time(now: float) -> str:
    """As Lambda writes times: milliseconds and an offset without a colon."""
    return datetime.fromtimestamp(now, UTC).strftime("%Y-%m-%dT%H:%M:%S.") + f"{int(now * 1000) % 1000:03d}+0000"
