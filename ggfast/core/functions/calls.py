"""What functions ask of the core: publish, invoke another function, shadows, secrets.

The caller's name is its socket's, never what a message claims (greengrass-core 6.8, sandbox 10). A publish goes to
the router within the same callback that read it. Sources: sdk-contract 2 (system targets and their error
documents), greengrass-core 5.4 (limits), 5.9 (queue-full policy), 6.7 (invocations).
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Final, Protocol

import orjson

from ggfast import limits
from ggfast.arns import SECRETS_ARN, SHADOW_ARN
from ggfast.clock import Clock
from ggfast.core.functions.invocations import (
    EMPTY_RESULT,
    Invocation,
    InvocationType,
    InvokeResult,
    InvokeStatus,
    Refusal,
    refused,
    refused_by,
)
from ggfast.core.functions.surroundings import Caller
from ggfast.counters import Counters
from ggfast.errors import GgfastError, LimitReached
from ggfast.log import SystemLog

SystemTarget = Callable[[str, bytes, bytes], Awaitable[bytes]]
"""(calling function's ARN, client context JSON or empty, payload) → the result document."""

_NOT_HERE: Final = {
    SHADOW_ARN: {"code": 501, "message": "The shadow service does not run on this core"},
    SECRETS_ARN: {"Status": 404, "Message": "No secrets are deployed to this core"},
}


class Publisher(Protocol):
    """The part of the router that functions reach."""

    def publish(self, source: str, topic: bytes, payload: bytes, qos: int = 0, retain: bool = False) -> int: ...
    def publish_all_or_error(
        self, source: str, topic: bytes, payload: bytes, qos: int = 0, retain: bool = False
    ) -> int: ...


@dataclass(frozen=True, slots=True)
class MessageLimits:
    """What a message may be; `slashes` None means any depth."""

    payload_bytes: int = limits.V1_PAYLOAD_BYTES_MAX
    topic_bytes: int = limits.V1_TOPIC_BYTES_MAX
    slashes: int | None = limits.V1_TOPIC_SLASHES_MAX

    def problem(self, topic: bytes, payload: bytes) -> str:
        """What is wrong with a message, empty if nothing is."""
        if self.too_large(payload):
            return f"the payload is {len(payload)} bytes, the limit is {self.payload_bytes}"
        if not topic or len(topic) > self.topic_bytes:
            return f"the topic is {len(topic)} bytes, allowed are 1 to {self.topic_bytes}"
        if b"+" in topic or b"#" in topic or b"\0" in topic:
            return "the topic holds a wildcard or a null character: messages go to one topic"
        if self.slashes is not None and topic.count(b"/") > self.slashes:
            return f"the topic has {topic.count(b'/')} slashes, the limit is {self.slashes}"
        return ""

    def too_large(self, payload: bytes) -> bool:
        """Whether it is the payload's size."""
        return len(payload) > self.payload_bytes


V1_LIMITS: Final = MessageLimits()
OPEN_LIMITS: Final = MessageLimits(limits.OPEN_PAYLOAD_BYTES_MAX, limits.MQTT_TOPIC_BYTES_MAX, None)


class Calls:
    """Answers callers. `submit` queues an invocation and raises GgfastError when it refuses it."""

    def __init__(
        self,
        router: Publisher,
        message_limits: MessageLimits,
        system_targets: dict[str, SystemTarget],
        submit: Callable[[str, Invocation], None],
        clock: Clock,
        counters: Counters,
        log: SystemLog,
    ) -> None:
        self._router = router
        self._limits = message_limits
        self._system_targets = system_targets
        self._submit = submit
        self._clock = clock
        self._counters = counters
        self._log = log
        self._complained: dict[tuple[str, str], float] = {}

    def publish(self, caller: Caller, call: int, context: bytes, payload: bytes) -> None:
        """A message from a function into the table."""
        result = EMPTY_RESULT
        try:
            custom = orjson.loads(context)["custom"]
            topic = custom["subject"].encode()
            all_or_error = custom.get("queueFullPolicy") == "AllOrError"
        except (ValueError, KeyError, TypeError, AttributeError):
            problem = 'the client context is not {"custom": {"subject": <topic>}}'
        else:
            problem = self._limits.problem(topic, payload)
        if problem:
            self._complain(caller.arn, "Message of a function is dropped.", problem)
            self._counters.add("functions.dropped.bad_message")
            why = Refusal.TOO_LARGE if self._limits.too_large(payload) else Refusal.INVALID
            result = refused(f"The message is not published: {problem}", why)
        elif all_or_error:
            try:
                self._router.publish_all_or_error(caller.arn, topic, payload)
            except LimitReached as error:
                self._counters.add("functions.refused.queue_full")
                result = refused(f"The message is not published, a queue is full: {error}", Refusal.FULL)
        else:
            self._router.publish(caller.arn, topic, payload)
        if call:
            caller.open_calls += 1
            caller.answer(call, result)

    def call(self, caller: Caller, call: int, kind: int, arn: str, context: bytes, payload: bytes) -> None:
        """An invocation of a function, or a request to a part of the core."""
        waits = kind == InvocationType.REQUEST_RESPONSE
        caller.open_calls += 1
        if caller.open_calls > limits.WORKER_CALLS_MAX:
            text = f"More than {limits.WORKER_CALLS_MAX} calls wait for an answer"
            self._finish(caller, call, refused(text, Refusal.FULL))
        elif arn in self._system_targets:
            caller.run_beside(self._ask(self._system_targets[arn], caller, call, context, payload))
        elif arn in _NOT_HERE:
            self._finish(caller, call, InvokeResult(InvokeStatus.OK, orjson.dumps(_NOT_HERE[arn])))
        elif len(payload) > self._limits.payload_bytes:
            text = f"The payload is {len(payload)} bytes, the limit is {self._limits.payload_bytes}"
            self._finish(caller, call, refused(text, Refusal.TOO_LARGE))
        else:
            done = (lambda result: self._finish(caller, call, result)) if waits else None
            try:
                self._submit(arn, Invocation(context, payload, done))
            except GgfastError as error:
                self._finish(caller, call, refused_by(error))
                return
            if not waits:
                self._finish(caller, call, EMPTY_RESULT)

    def _finish(self, caller: Caller, call: int, result: InvokeResult) -> None:
        if call:
            caller.answer(call, result)
        else:
            caller.open_calls -= 1

    async def _ask(self, target: SystemTarget, caller: Caller, call: int, context: bytes, payload: bytes) -> None:
        try:
            result = InvokeResult(InvokeStatus.OK, await target(caller.arn, context, payload))
        except GgfastError as error:
            result = refused_by(error)
        except Exception as error:
            self._complain(caller.arn, "A request of a function failed inside the core.", repr(error))
            result = refused("The core could not answer: see its runtime log")
        self._finish(caller, call, result)

    def _complain(self, arn: str, message: str, problem: str) -> None:
        """Write a complaint once in a while: a function that repeats its mistake must not fill the disk."""
        now = self._clock.monotonic()
        key = (arn, message)
        last = self._complained.get(key)
        if last is not None and now - last < limits.COMPLAINT_S:
            return
        self._complained[key] = now
        self._log.error(message, functionArn=arn, reason=problem)
