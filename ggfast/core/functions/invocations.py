"""One invocation as a value: what is asked, what came of it, how long it took.

Sources: greengrass-core 6.3 (context), 6.7 (Handled, Unhandled), sdk-contract 2 (what callers see).
"""

from __future__ import annotations

from array import array
from collections.abc import Callable
from enum import Enum, IntEnum
from typing import NamedTuple

import orjson

from ggfast import limits
from ggfast.errors import GgfastError, LimitReached, Rejected


class InvokeStatus(IntEnum):
    """How an invocation ended; the numbers are those of an answer frame."""

    OK = 0
    HANDLED = 1
    UNHANDLED = 2
    REFUSED = 3


class InvocationType(IntEnum):
    """Whether the caller waits; the numbers are those of a call frame."""

    EVENT = 0
    REQUEST_RESPONSE = 1


class Refusal(Enum):
    """Why an invocation did not begin; each is an HTTP status where callers see one (sdk-contract 2)."""

    INVALID = 400
    UNKNOWN = 404
    TOO_LARGE = 413
    FAILED = 500
    FULL = 503


class InvokeResult(NamedTuple):
    """Status and payload: the handler's bytes, an error document, or for REFUSED a plain text."""

    status: InvokeStatus
    payload: bytes

    @property
    def function_error(self) -> str:
        """What SDKs call FunctionError: empty, `Handled` or `Unhandled`."""
        return {InvokeStatus.HANDLED: "Handled", InvokeStatus.UNHANDLED: "Unhandled"}.get(self.status, "")


class RefusedResult(InvokeResult):
    """A refusal that says why in a word too; equal to the plain result of the same text."""

    why: Refusal = Refusal.FAILED


EMPTY_RESULT = InvokeResult(InvokeStatus.OK, b"")
Done = Callable[[InvokeResult], None]


def unhandled(message: str) -> InvokeResult:
    """What the core says about an invocation it ended."""
    return InvokeResult(InvokeStatus.UNHANDLED, orjson.dumps({"errorMessage": message}))


def refused(text: str, why: Refusal = Refusal.FAILED) -> RefusedResult:
    """An invocation that did not begin."""
    result = RefusedResult(InvokeStatus.REFUSED, text.encode("utf-8", "replace"))
    result.why = why
    return result


def refused_by(error: GgfastError) -> RefusedResult:
    """The same from what `submit` raised."""
    if isinstance(error, LimitReached):
        return refused(str(error), Refusal.FULL)
    if isinstance(error, Rejected):
        known = {refusal.value: refusal for refusal in Refusal}
        return refused(str(error), known.get(error.reason_code or 0, Refusal.FAILED))
    return refused(str(error))


class Invocation:
    """Work for one handler call. `done` is called exactly once, or is None when nobody waits."""

    __slots__ = ("context", "done", "payload")

    def __init__(self, context: bytes, payload: bytes, done: Done | None = None) -> None:
        self.context = context
        self.payload = payload
        self.done = done

    @property
    def size(self) -> int:
        """Bytes it holds while it waits."""
        return len(self.context) + len(self.payload)

    def finish(self, result: InvokeResult) -> None:
        """Tell whoever waits; later calls do nothing."""
        done, self.done = self.done, None
        if done is not None:
            done(result)


class Durations:
    """The last handler durations of one function, for percentiles. Constant memory."""

    __slots__ = ("_at", "_samples")

    def __init__(self) -> None:
        self._samples = array("f")
        self._at = 0

    def add(self, seconds: float) -> None:
        """Remember one; the oldest makes room."""
        if len(self._samples) < limits.LATENCY_SAMPLES_MAX:
            self._samples.append(seconds)
            return
        self._samples[self._at] = seconds
        self._at = (self._at + 1) % limits.LATENCY_SAMPLES_MAX

    def percentile_ms(self, percent: int) -> float | None:
        """Milliseconds within which `percent` of the samples ended; None without samples."""
        if not self._samples:
            return None
        ordered = sorted(self._samples)
        return round(ordered[min(len(ordered) * percent // 100, len(ordered) - 1)] * 1000, 3)
