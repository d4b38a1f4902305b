"""One worker as it is seen over HTTP: the calls it makes, the results it has not fetched, its requests for work.

Everything belongs to one worker and ends with it; nothing here is shared between functions. Results are kept for
HTTP_RESULT_S, at most HTTP_RESULTS_MAX and HTTP_RESULTS_BYTES_MAX of them, and given out once. Work is handed to one
request once: a connection that breaks before the program has read it leaves the invocation to its time-out, because
the program may have begun. Source: sdk-contract 2.
"""

from __future__ import annotations

import asyncio
import base64
import hmac
import itertools
import secrets
import uuid
from collections import deque
from collections.abc import Coroutine
from typing import Any, Final

from ggfast import limits
from ggfast.arns import ROUTER_ARN
from ggfast.core.functions.invocations import (
    EMPTY_RESULT,
    Invocation,
    InvocationType,
    InvokeResult,
    InvokeStatus,
    Refusal,
    RefusedResult,
)
from ggfast.core.functions.surroundings import CallHandler
from ggfast.core.functions.worker import Worker, WorkerState
from ggfast.counters import Counters
from ggfast.net.http import Exchange
from ggfast.net.httpserver import Owner

INVOCATION_ID: Final = "X-Amz-InvocationId"
FUNCTION_ERROR: Final = "X-Amz-Function-Error"
CLIENT_CONTEXT: Final = "X-Amz-Client-Context"
_STOPPING: Final = "The worker is being stopped"
_BINARY: Final = ("Content-Type", "application/octet-stream")


class _Call:
    """One call from its POST to the GET that takes its result."""

    __slots__ = ("arn", "id", "result", "until", "waiter")

    def __init__(self, arn: str) -> None:
        self.id = str(uuid.uuid4())
        self.arn = arn
        self.result: InvokeResult | None = None
        self.until = 0.0
        self.waiter: Exchange | None = None


class HttpSide:
    """See the module. A Caller of the core's services and the Side of its worker."""

    def __init__(self, worker: Worker, calls: CallHandler, loop: asyncio.AbstractEventLoop, counters: Counters) -> None:
        self.worker = worker
        self.owner = Owner(loop)
        self._calls = calls
        self._loop = loop
        self._counters = counters
        self._numbers = itertools.count(1)
        self._open: dict[int, _Call] = {}
        self._known: dict[str, _Call] = {}
        self._finished: deque[_Call] = deque()
        self._result_bytes = 0
        self._expiry: asyncio.TimerHandle | None = None
        self._arriving = 0
        self._requests: list[Exchange] = []
        self._work: tuple[str, int] | None = None
        self._event_key = secrets.token_bytes(16)

    # --- the worker as a caller ---------------------------------------------------------------------------

    @property
    def arn(self) -> str:
        """The function's."""
        return self.worker.arn

    @property
    def open_calls(self) -> int:
        """Calls that wait for an answer, those over the worker's socket too."""
        return self.worker.open_calls

    @open_calls.setter
    def open_calls(self, number: int) -> None:
        self.worker.open_calls = number

    def run_beside(self, work: Coroutine[Any, Any, None]) -> None:
        """Run a coroutine that will answer."""
        self.worker.run_beside(work)

    def answer(self, call: int, result: InvokeResult) -> None:
        """What came of a call."""
        self.open_calls -= 1
        found = self._open.pop(call, None)
        if found is None:
            return
        found.result = result
        if found.waiter is not None:
            del self._known[found.id]
            self._deliver(found.waiter, result)
        elif found.id in self._known:
            self._keep(found)

    # --- calls ----------------------------------------------------------------------------------------------

    def reserve(self, exchange: Exchange, size: int) -> bool:
        """Take room for a body that is about to arrive, given back when the request has ended."""
        if self._arriving + size > limits.HTTP_WORKER_BODIES_BYTES_MAX:
            return False
        self._arriving += size

        def give_back() -> None:
            self._arriving -= size

        exchange.ended = give_back
        return True

    def post(self, exchange: Exchange, arn: str, kind: InvocationType, context: bytes) -> None:
        """Begin a call and answer with its id, or with what is wrong with it."""
        number, call = next(self._numbers), _Call(arn)
        self._open[number] = call
        if arn == ROUTER_ARN:
            kind = InvocationType.EVENT
            self._calls.publish(self, number, context, exchange.body)
        else:
            self._calls.call(self, number, kind, arn, context, exchange.body)
        result = call.result
        if result is not None and result.status is InvokeStatus.REFUSED:
            self._deliver(exchange, result)
        elif kind is InvocationType.EVENT:
            exchange.answer(200, headers=((INVOCATION_ID, self._event_id()),))
        else:
            self._known[call.id] = call
            if result is not None:
                self._keep(call)
            exchange.answer(200, headers=((INVOCATION_ID, call.id),))

    def fetch(self, exchange: Exchange, arn: str, invocation_id: str) -> None:
        """Answer with the result of a call, now or when it is there."""
        call = self._known.get(invocation_id)
        if arn == ROUTER_ARN or self._is_event_id(invocation_id):
            self._deliver(exchange, EMPTY_RESULT)
        elif call is None or call.arn != arn:
            exchange.refuse(404, "No invocation of this function with this id waits for its result to be fetched")
        elif call.result is not None:
            self._forget(call)
            self._deliver(exchange, call.result)
        elif call.waiter is not None:
            exchange.refuse(409, "Another request waits for this result")
        else:
            call.waiter = exchange
            exchange.ended = lambda: setattr(call, "waiter", None)

    # --- work -----------------------------------------------------------------------------------------------

    def ask(self, exchange: Exchange) -> None:
        """Answer with the next work when there is some."""
        if self.worker.state is WorkerState.ENDING:
            exchange.refuse(503, _STOPPING, close=True)
            return
        if len(self._requests) >= limits.HTTP_WORK_REQUESTS_MAX:
            exchange.refuse(503, f"{limits.HTTP_WORK_REQUESTS_MAX} requests for work wait already")
            return
        self._requests.append(exchange)
        exchange.ended = lambda: self._asks_no_more(exchange)
        if not self.worker.asks_for_work():
            exchange.refuse(409, "The work of this worker comes over its socket")

    def give(self, number: int, invocation: Invocation) -> None:
        """Hand work to the oldest request that waits for it."""
        exchange = self._requests.pop(0)
        self._work = (str(uuid.uuid4()), number)
        context = base64.b64encode(invocation.context).decode()
        exchange.answer(200, invocation.payload, (_BINARY, (INVOCATION_ID, self._work[0]), (CLIENT_CONTEXT, context)))
        self._loop.call_soon(self._check_output)  # the answer is written when this request's turn is over

    def finish(self, exchange: Exchange, invocation_id: str, failed: bool) -> None:
        """The program brings the result of its work, or an error document."""
        work, worker = self._work, self.worker
        if work is None or not hmac.compare_digest(work[0].encode(), invocation_id.encode()):
            if worker.may_have_earlier_work:  # whoever waited for it went with the daemon of then
                self._counters.add("functions.dropped.late_result")
                exchange.answer(200)
            else:
                exchange.refuse(404, "This worker has no work with this invocation id")
            return
        self._work = None
        (worker.error if failed else worker.result)(work[1], exchange.body)
        exchange.answer(200)
        if self._requests:
            worker.asks_for_work()

    # --- the end -----------------------------------------------------------------------------------------------

    def retire(self) -> None:
        """There will be no more work."""
        for exchange in list(self._requests):
            exchange.refuse(503, _STOPPING, close=True)

    def close(self) -> None:
        """Forget everything and end its connections; harmless when repeated."""
        if self._expiry is not None:
            self._expiry.cancel()
            self._expiry = None
        self._requests.clear()
        self._open.clear()
        self._known.clear()
        self._finished.clear()
        self._result_bytes = 0
        self.owner.close()

    # --- inside ------------------------------------------------------------------------------------------------

    def _asks_no_more(self, exchange: Exchange) -> None:
        if exchange in self._requests:
            self._requests.remove(exchange)
            if not self._requests:
                self.worker.asks_no_more()

    def _deliver(self, exchange: Exchange, result: InvokeResult) -> None:
        if result.status is InvokeStatus.REFUSED:
            why = result.why if isinstance(result, RefusedResult) else Refusal.FAILED
            exchange.refuse(why.value, result.payload.decode("utf-8", "replace"))
        else:
            exchange.answer(200, result.payload, (_BINARY, (FUNCTION_ERROR, result.function_error)))
        self._loop.call_soon(self._check_output)  # the answer is written when this request's turn is over

    def _check_output(self) -> None:
        """What waits for a worker that does not read is bounded, over all its connections."""
        while self.owner.unwritten > limits.WORKER_OUTBOUND_BYTES_MAX:
            self._counters.add("http.dropped.slow_readers")
            max(self.owner.connections, key=lambda connection: connection.unwritten).abort()

    def _keep(self, call: _Call) -> None:
        """Until it is fetched; the oldest makes room."""
        call.until = self._loop.time() + limits.HTTP_RESULT_S
        self._finished.append(call)
        self._result_bytes += _size(call)
        while len(self._finished) > limits.HTTP_RESULTS_MAX or self._result_bytes > limits.HTTP_RESULTS_BYTES_MAX:
            self._drop_oldest()
        self._expire_later()

    def _forget(self, call: _Call) -> None:
        del self._known[call.id]
        self._finished.remove(call)
        self._result_bytes -= _size(call)

    def _drop_oldest(self) -> None:
        self._counters.add("http.dropped.results")
        self._forget(self._finished[0])

    def _expire_later(self) -> None:
        if self._expiry is None and self._finished:
            self._expiry = self._loop.call_at(self._finished[0].until, self._expire)

    def _expire(self) -> None:
        self._expiry = None
        while self._finished and self._finished[0].until <= self._loop.time():
            self._drop_oldest()
        self._expire_later()

    def _event_id(self) -> str:
        """An id that says, to this worker alone, that nothing is to be fetched."""
        nonce = secrets.token_bytes(8)
        return str(uuid.UUID(bytes=nonce + hmac.digest(self._event_key, nonce, "sha256")[:8]))

    def _is_event_id(self, text: str) -> bool:
        try:
            raw = uuid.UUID(text).bytes
        except ValueError:
            return False
        return hmac.compare_digest(hmac.digest(self._event_key, raw[:8], "sha256")[:8], raw[8:])


def _size(call: _Call) -> int:
    return 0 if call.result is None else len(call.result.payload)
