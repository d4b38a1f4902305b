"""What the control plane answers instead of a result: one exception with a status, a code and a text."""

from __future__ import annotations

from collections.abc import Mapping

from ggfast.errors import PeerError


class Fault(PeerError):
    """A refusal as the client sees it (cloud-api 3, 6).

    `code` is the error's name; "" where the service sends none and clients report the status as the code. `members`
    are further members of the error's body (`ErrorDetails`, `resourceArn`, ...).
    """

    def __init__(
        self, code: str, message: str, *, status: int = 400, members: Mapping[str, object] | None = None
    ) -> None:
        super().__init__(message)
        self.code = code
        self.message = message
        self.status = status
        self.members = dict(members or {})
