"""Every error ggfast raises on purpose, by whose doing it is.

GgfastError                     hint
├─ PeerError                    the other side did it: reason_code
│  ├─ Malformed                 bytes that are not the protocol
│  ├─ Violation                 legal bytes at the wrong time
│  ├─ NotAuthenticated          we do not know who this is
│  ├─ NotAuthorized             we know, and may not
│  └─ Rejected                  the other side said no
├─ OperatingError               the surroundings; expected, handled, counted
│  ├─ LimitReached              limit, value, maximum
│  ├─ LinkDown
│  ├─ StorageFailed
│  ├─ CorruptRecord
│  ├─ SandboxFailed             step, errno
│  ├─ WorkerCrashed             exit status
│  └─ InvokeTimedOut            after_s
├─ ConfigError                  problems: (path, found, expected) each
└─ DeploymentFailed             phase, detail, rolled_back

A broken invariant is an AssertionError: it is ours and nobody catches it. Conversion to an MQTT
reason code, an HTTP status or an exit code happens at the edge that knows the audience.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar


class GgfastError(Exception):
    """Root of all deliberate errors; `hint` says what the reader can do."""

    def __init__(self, message: str, *, hint: str = "") -> None:
        super().__init__(message)
        self.hint = hint

    def __str__(self) -> str:
        text = super().__str__()
        return f"{text} {self.hint}" if self.hint else text


class PeerError(GgfastError):
    """The other side of a connection did something; `reason_code` is the protocol's number for it, 0 if it has none."""

    default_code: ClassVar[int] = 0

    def __init__(self, message: str, *, reason_code: int = 0, hint: str = "") -> None:
        super().__init__(message, hint=hint)
        self.reason_code = reason_code or self.default_code


class Malformed(PeerError):
    """Bytes that are not the protocol."""

    default_code = 0x81  # MQTT 5: malformed packet


class Violation(PeerError):
    """Legal bytes at a time or place where the protocol forbids them."""

    default_code = 0x82  # MQTT 5: protocol error


class NotAuthenticated(PeerError):
    """The peer's identity could not be established."""


class NotAuthorized(PeerError):
    """The peer is known and may not do this."""


class Rejected(PeerError):
    """The peer refused our request."""


class OperatingError(GgfastError):
    """The surroundings failed; expected, handled and counted."""


class LimitReached(OperatingError):
    """A bound of limits.py or of the configuration was met."""

    def __init__(self, limit: str, value: int, maximum: int, *, hint: str = "") -> None:
        super().__init__(f"{limit} is {value}, the limit is {maximum}", hint=hint)
        self.limit = limit
        self.value = value
        self.maximum = maximum


class LinkDown(OperatingError):
    """A connection we need is not there now."""


class StorageFailed(OperatingError):
    """The disk refused a read or a write."""


class CorruptRecord(OperatingError):
    """Bytes on disk fail their own checks."""


class SandboxFailed(OperatingError):
    """A worker's container could not be set up: which step, which errno."""

    def __init__(self, step: str, errno: int, message: str, *, hint: str = "") -> None:
        super().__init__(message, hint=hint)
        self.step = step
        self.errno = errno


class WorkerCrashed(OperatingError):
    """A worker ended by itself or by the kernel."""

    def __init__(self, message: str, *, exit_status: int = 0, hint: str = "") -> None:
        super().__init__(message, hint=hint)
        self.exit_status = exit_status


class InvokeTimedOut(OperatingError):
    """An invocation took longer than the function's Timeout."""

    def __init__(self, message: str, *, after_s: float, hint: str = "") -> None:
        super().__init__(message, hint=hint)
        self.after_s = after_s


@dataclass(frozen=True, slots=True)
class Problem:
    """One finding in a document: where it is, what was found, what was expected."""

    path: str
    found: str
    expected: str

    def __str__(self) -> str:
        return f"{self.path}: found {self.found}, expected {self.expected}"


class ConfigError(GgfastError):
    """A document (config.json, group.json, command line) is wrong; all its problems at once."""

    def __init__(self, subject: str, problems: Sequence[Problem] = (), *, hint: str = "") -> None:
        lines = [subject, *(f"  {problem}" for problem in problems)]
        super().__init__("\n".join(lines), hint=hint)
        self.subject = subject
        self.problems = tuple(problems)


class DeploymentFailed(GgfastError):
    """A deployment ended in Failure; whether the previous group serves again."""

    def __init__(self, phase: str, detail: str, *, rolled_back: bool, hint: str = "") -> None:
        super().__init__(detail, hint=hint)
        self.phase = phase
        self.detail = detail
        self.rolled_back = rolled_back
