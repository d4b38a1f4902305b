"""Who sends a request: access keys, session keys, and how often they may ask.

`identify` needs only the headers, so nothing is read from a sender that has no key here; `check` compares the
signature once the body is there. Opened keys are remembered for a moment (limits.KEY_CACHED_S): another process may
switch a key off. Everything runs on the loop; `identify` waits for the store.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass

from ggfast.cloud.credentials import TokenExpired, TokenInvalid, open_token
from ggfast.cloud.events import KeysChanged
from ggfast.cloud.keys import find_key, open_secret, user_arn
from ggfast.cloud.limits import (
    BUCKETS_MAX,
    FAILED_SIGNATURES_BURST,
    FAILED_SIGNATURES_PER_S,
    KEY_CACHED_S,
    KEYS_CACHED_MAX,
)
from ggfast.cloud.operations import Principal
from ggfast.cloud.policy import PolicyDocument, decide
from ggfast.cloud.protocols import Request
from ggfast.cloud.rates import Rates
from ggfast.cloud.roles.principals import principal_of
from ggfast.cloud.signing import Claim, NotBelieved, Reason, check_claim, verify
from ggfast.cloud.store.interface import Store
from ggfast.cloud.surroundings import Surroundings

_NOT_VALID = "The security token included in the request is invalid."
_EXPIRED = "The security token included in the request is expired"


@dataclass(frozen=True, slots=True)
class Identity:
    """A key that is known and active, opened. Requests count against `rate`: sessions, of which anybody may have
    many, against the lasting key or the role behind them."""

    secret: bytes
    principal: Principal
    until: float
    rate: str


class Access:
    """See the module."""

    def __init__(self, cloud: Surroundings, store: Store) -> None:
        self._cloud = cloud
        self._store = store
        self._known: OrderedDict[str, Identity] = OrderedDict()
        self._failures = Rates(cloud.clock, FAILED_SIGNATURES_PER_S, FAILED_SIGNATURES_BURST, BUCKETS_MAX)
        self.failed = 0
        store.listen(self._hear)

    async def identify(self, claim: Claim, headers: Mapping[str, str], source: str) -> Identity:
        """The opened key of a claim. Raises NotBelieved, or StorageFailed. `source` is the sender's address."""
        try:
            check_claim(claim, headers, self._cloud.clock.wall())
            return await self._identity(claim, source)
        except NotBelieved as refused:
            raise self._count(refused, source) from refused

    def check(self, claim: Claim, identity: Identity, request: Request, source: str) -> None:
        """Compare the signature with the whole request. Raises NotBelieved. Not blocking, but it hashes the body."""
        try:
            verify(
                claim,
                identity.secret,
                request.method,
                request.raw_path,
                request.raw_query,
                request.headers,
                request.body,
            )
        except NotBelieved as refused:
            raise self._count(refused, source) from refused

    async def _identity(self, claim: Claim, source: str) -> Identity:
        if claim.token:
            return await self._session(claim)
        now = self._cloud.clock.monotonic()
        known = self._known.get(claim.key_id)
        if known is not None and now < known.until:
            self._known.move_to_end(claim.key_id)
            return known
        if not self._failures.has(source):  # nobody makes us search the store for keys by guessing
            raise NotBelieved(Reason.THROTTLED, "Too many requests with unknown keys or wrong signatures; wait.")
        account = self._cloud.account
        key = await self._store.read(lambda tx: find_key(tx, account, claim.key_id))
        if key is None or not key.active:
            self._known.pop(claim.key_id, None)
            raise NotBelieved(Reason.UNKNOWN_KEY, _NOT_VALID)
        documents = [PolicyDocument.parse(key.policy)]
        principal = _principal(user_arn(account, key.name), key.key_id, documents)
        identity = Identity(open_secret(self._cloud.sealer, key), principal, now + KEY_CACHED_S, key.key_id)
        self._known[key.key_id] = identity
        while len(self._known) > KEYS_CACHED_MAX:
            self._known.popitem(last=False)
        return identity

    async def _session(self, claim: Claim) -> Identity:
        """A session's secret is in its token; what it may do is looked up each time: roles change."""
        try:
            session = open_token(self._cloud, claim.token, claim.key_id)
            principal = await self._store.read(lambda tx: principal_of(tx, self._cloud, session))
        except TokenExpired as error:
            raise NotBelieved(Reason.EXPIRED_TOKEN, _EXPIRED) from error
        except TokenInvalid as error:
            raise NotBelieved(Reason.UNKNOWN_KEY, _NOT_VALID) from error
        return Identity(session.secret.encode(), principal, 0.0, session.parent_key_id or session.role_arn)

    def _count(self, refused: NotBelieved, source: str) -> NotBelieved:
        if refused.reason is Reason.MISSING:
            return refused
        self.failed += 1
        if self._failures.take(source) or refused.reason is Reason.THROTTLED:
            return refused
        return NotBelieved(Reason.THROTTLED, "Too many requests with unknown keys or wrong signatures; wait.")

    def _hear(self, event: object) -> None:
        if isinstance(event, KeysChanged):
            self._known.clear()


def _principal(arn: str, key_id: str, documents: list[PolicyDocument]) -> Principal:
    context = {"aws:PrincipalArn": arn}
    return Principal(
        arn,
        key_id,
        lambda action, resource: decide(documents, action, resource, context),
        lambda action, resource, more: decide(documents, action, resource, {**context, **more}),
    )
