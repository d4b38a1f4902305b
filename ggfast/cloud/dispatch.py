"""From a request's members to a handler's reply: shapes, permission, client tokens, one transaction."""

from __future__ import annotations

import asyncio
import hashlib
from collections import Counter
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager

import orjson

from ggfast.cloud.faults import Fault
from ggfast.cloud.limits import CLIENT_TOKEN_S, PREPARED_OF_ONE_MAX, SWEEP_BATCH
from ggfast.cloud.operations import CLIENT_TOKEN, Call, Operation, Principal, Reply, Service, check_permission
from ggfast.cloud.shapes import Wrong
from ggfast.cloud.store.interface import Store, Transaction
from ggfast.cloud.surroundings import Surroundings

TOKENS = "client-token"
AGE = "age"  # a label all of them have: found by it they are in order of creation


class Dispatcher:
    """Runs operations on a store."""

    def __init__(self, cloud: Surroundings, store: Store) -> None:
        self.cloud = cloud
        self.store = store
        self._turns = _Turns(PREPARED_OF_ONE_MAX)

    async def run(
        self,
        service: Service,
        operation: Operation,
        members: Mapping[str, object],
        principal: Principal,
        region: str,
    ) -> Reply:
        """The handler's reply. Raises Fault, or StorageFailed. `members` are decoded JSON values by member name."""
        try:
            params = operation.takes.read(dict(members), "")
        except Wrong as wrong:
            raise service.invalid(wrong) from wrong
        if operation.asks:
            resource = operation.arn(service.name, self.cloud.account, region, params)
            check_permission(service, operation.name, principal, resource)
        prepared = None
        if operation.before is not None:
            async with self._turns.of(_holder(principal.arn)):
                prepared = await asyncio.to_thread(operation.before, self.cloud, params)

        def work(tx: Transaction) -> Reply:
            call = Call(self.cloud, tx, service, region, principal, params, prepared)
            if operation.writes and params.get(CLIENT_TOKEN):
                return _once(call, operation)
            return operation.handler(call)

        return await (self.store.write(work) if operation.writes else self.store.read(work))


class _Turns:
    """At most `most` at a time of each name; the others wait for their turn, in the order they came."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._waiting: Counter[str] = Counter()  # and those whose turn it is
        self._turns: dict[str, asyncio.Semaphore] = {}

    @asynccontextmanager
    async def of(self, name: str) -> AsyncIterator[None]:
        """A turn of `name` for as long as the context lasts."""
        turn = self._turns.setdefault(name, asyncio.Semaphore(self._most))
        self._waiting[name] += 1
        try:
            async with turn:
                yield
        finally:
            self._waiting[name] -= 1
            if not self._waiting[name]:
                del self._waiting[name], self._turns[name]


def _holder(arn: str) -> str:
    """Who acts: of a role's sessions, whose names anybody chooses, the role."""
    return arn.rpartition("/")[0] if ":assumed-role/" in arn else arn


def _once(call: Call, operation: Operation) -> Reply:
    """The same answer for the same client token, without doing it again (cloud-api 2)."""
    parent = f"{call.home}/{call.service.name}.{operation.name}"
    token = call.params[CLIENT_TOKEN]
    digest = hashlib.sha256(orjson.dumps(call.params, option=orjson.OPT_SORT_KEYS, default=repr)).hexdigest()
    now = call.cloud.clock.wall()
    known = call.tx.get(TOKENS, parent, token)
    if known is not None and now - known["at"] < CLIENT_TOKEN_S:
        if known["digest"] != digest:
            raise Fault(
                call.service.invalid_code,
                f"Client token '{token}' was used for another request of {operation.name}; use a new token.",
            )
        return Reply(known["members"], known["status"])
    reply = operation.handler(call)
    call.tx.delete(TOKENS, parent, token)  # one that has grown old: its place in the order of age is the last now
    call.tx.put(
        TOKENS,
        parent,
        token,
        {"digest": digest, "at": now, "members": dict(reply.members), "status": reply.status},
        {AGE: [""]},
    )
    return reply


def forget_tokens(tx: Transaction, now: float) -> int:
    """Remove client tokens that bring no answer any more, the oldest first, a bounded number; how many."""
    removed = 0
    for document in tx.find(TOKENS, AGE, "", limit=SWEEP_BATCH).documents:
        if now - document.body["at"] < CLIENT_TOKEN_S:
            break
        removed += tx.delete(TOKENS, document.parent, document.name)
    return removed
