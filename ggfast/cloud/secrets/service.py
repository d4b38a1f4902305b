"""The service, shapes that never show a value, and finding the secret a request is about."""

from __future__ import annotations

from typing import Any

from ggfast.cloud.faults import Fault
from ggfast.cloud.limits import SECRET_BYTES_MAX, TAGS_MAX
from ggfast.cloud.operations import Call, Service
from ggfast.cloud.secrets.store import find_secret, secret_arn_of
from ggfast.cloud.shapes import Blob, Items, Record, Shape, Text, Wrong, need
from ggfast.cloud.store.interface import Body

SECRETS = Service(
    "secretsmanager",
    protocol="json",
    invalid_code="InvalidParameterException",
    open_members=True,
)
ROUTE = "POST /"
SECRET_ID = Text(1, 2_048)
TOKEN = Text(32, 64, r"[A-Za-z0-9-]+")
VERSION_ID = Text(32, 64)
STAGE = Text(1, 256)
TAGS = Items(Record({"Key": need(Text(1, 128)), "Value": need(Text(0, 256))}, open=True), 0, TAGS_MAX)


class _Hidden(Shape):
    """Another shape whose refusals tell nothing of what was found."""

    def __init__(self, of: Shape, expected: str) -> None:
        self._of = of
        self.expected = expected

    def read(self, value: object, path: str) -> Any:
        try:
            return self._of.read(value, path)
        except Wrong as wrong:
            size = f" of {len(value)} characters" if isinstance(value, str) else ""
            raise Wrong(path, f"{type(value).__name__}{size}", self.expected) from wrong


STRING = _Hidden(Text(1, SECRET_BYTES_MAX), f"a string of 1 to {SECRET_BYTES_MAX} characters")
BINARY = _Hidden(Blob(SECRET_BYTES_MAX), f"base64 of 1 to {SECRET_BYTES_MAX} bytes")


def not_found() -> Fault:
    """The service's answer for a secret that is not there."""
    return Fault("ResourceNotFoundException", "Secrets Manager can't find the specified secret.")


def bad_request(message: str) -> Fault:
    """The refusal of something the secret's state does not allow."""
    return Fault("InvalidRequestException", message)


def invalid(message: str) -> Fault:
    """The refusal of a parameter."""
    return Fault("InvalidParameterException", message)


def the_secret(call: Call, operation: str, *, deleted: bool = False) -> Body:
    """The secret a request names, once its key may do the operation with it. Raises Fault.

    Policies are asked about the whole ARN; of a secret that is not there, about what was written.
    """
    given = call.params["SecretId"]
    secret = find_secret(call.tx, call.home, given, call.cloud.clock.wall())
    call.permit(operation, secret["arn"] if secret is not None else secret_arn_of(call.home, given))
    if secret is None:
        raise not_found()
    if secret["ends"] is not None and not deleted:
        raise bad_request(
            "You can't perform this operation on the secret because it was marked for deletion. Restore it first."
        )
    return secret


def given_value(call: Call) -> tuple[bytes, bool] | None:
    """The value in a request and whether it is binary; None if there is none. Raises Fault."""
    text, binary = call.params.get("SecretString"), call.params.get("SecretBinary")
    if text is not None and binary is not None:
        raise invalid("You can't specify both a binary secret value and a string secret value in the same secret.")
    if binary is not None:
        value = bytes(binary)
    elif text is not None:
        value = text.encode()
    else:
        return None
    if not 1 <= len(value) <= SECRET_BYTES_MAX:
        raise invalid(f"The secret value has {len(value)} bytes, expected 1 to {SECRET_BYTES_MAX}.")
    return value, binary is not None
