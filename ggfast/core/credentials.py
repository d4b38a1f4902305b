"""Keys of the group role for functions: got from the control plane, kept sealed, served while they are valid.

SDKs in functions ask the HTTP interface, which asks here. One request to the control plane serves all who wait. Keys
that are in use are renewed before they end; without a network the last ones are served until their end and not a second
longer. They lie sealed in `<state>/credentials` (core/sealed.py), so that a restart without a network does not lose
them as V1's did; another group, a reset or a group without a role removes them. They are never logged.

Their end is judged by two clocks: the wall clock, which may be wrong, and the monotonic one, by which they get no more
than the life they came with. Kept ones are not taken by a clock from before they were got. Sources: greengrass-core 15,
sdk-contract 9.
"""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final, Protocol

import orjson

from ggfast import limits
from ggfast.clock import Clock
from ggfast.core.sealed import Sealer
from ggfast.errors import CorruptRecord, GgfastError, LinkDown, Malformed, NotAuthorized, OperatingError, Rejected
from ggfast.log import SystemLog
from ggfast.plainfile import open_plain
from ggfast.storage.privatefiles import write_private

FILE: Final = "credentials"
_FORBIDDEN: Final = 403


class RoleKeys(Protocol):
    """The part of the control plane that is asked: accessKeyId, secretAccessKey, sessionToken, expiration; None: the
    group has no role."""

    async def credentials(self, group_id: str) -> Mapping[str, Any] | None: ...


@dataclass(frozen=True, slots=True)
class _Keys:
    key_id: str = field(repr=False)
    secret: str = field(repr=False)
    token: str = field(repr=False)
    got: float  #: wall clock
    expires: float  #: wall clock, as the control plane says
    deadline: float  #: monotonic clock

    @property
    def renew_before_s(self) -> float:
        """How long before their end new ones are to be got."""
        return min(limits.CREDENTIALS_MARGIN_S, (self.expires - self.got) / limits.CREDENTIALS_MARGIN_PART)

    def document(self) -> dict[str, Any]:
        """As SDKs want them; old ones take no fractions of seconds."""
        expiration = datetime.fromtimestamp(int(self.expires), UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
        members = {"AccessKeyId": self.key_id, "SecretAccessKey": self.secret}
        return {**members, "Token": self.token, "Expiration": expiration}


class GroupCredentials:
    """The CredentialSource of a core. `controlplane` None: a core without a cloud, which has no keys.

    `identity`: the PEM file with the core's private key; without one the keys are in memory alone.
    """

    def __init__(
        self,
        controlplane: RoleKeys | None,
        state: Path,
        clock: Clock,
        log: SystemLog,
        identity: Path | None = None,
    ) -> None:
        self._controlplane = controlplane
        self._path = state / FILE
        self._clock = clock
        self._log = log
        self._sealer = self._make_sealer(identity)
        self._disk = asyncio.Lock()
        self._group: str | None = None
        self._generation = 0
        self._keys: _Keys | None = None
        self._failure: GgfastError | None = None
        self._request: asyncio.Task[None] | None = None
        self._running: set[asyncio.Task[None]] = set()
        self._timer: asyncio.TimerHandle | None = None
        self._said = ""
        self._clear()

    def set_group(self, group_id: str) -> None:
        """Serve the role of this group from now on; "": none is deployed. Keys of another group are forgotten, on disk
        too; those kept of this one are taken up. Blocks for a small read."""
        if group_id == self._group:
            return
        self._clear()
        self._group = group_id
        self._keys = self._load(group_id) if group_id else None
        if self._keys is None:
            self._remove()

    def forget(self) -> None:
        """Keep nothing, on disk neither; the next who asks makes a new request."""
        self._clear()
        self._remove()

    async def stop(self) -> None:
        """End what is under way; what is kept stays."""
        self._clear()
        running = list(self._running)
        for task in running:
            task.cancel()
        await asyncio.gather(*running, return_exceptions=True)

    async def credentials(self) -> dict[str, Any] | None:
        """Valid keys; None without a role. Waits for the control plane only when there are none.

        Raises LinkDown when it cannot be reached, NotAuthorized when a policy is missing, OperatingError or PeerError
        for an answer that is of no use.
        """
        if self._controlplane is None or not self._group:
            return None
        if (keys := self._valid()) is not None:
            if self._left(keys) < keys.renew_before_s:
                self._begin()
            return self._serve(keys)
        if self._clock.monotonic() < self._no_role_until:
            return None
        generation, request = self._generation, self._begin()
        if request is not None:
            await asyncio.wait({request})  # who gives up waiting does not end it for the others
        if generation != self._generation:
            raise LinkDown("The group has changed meanwhile.", hint="Ask again.")
        if (keys := self._valid()) is not None:
            return self._serve(keys)
        if self._failure is not None:
            raise self._failure.with_traceback(None)
        return None

    def _serve(self, keys: _Keys) -> dict[str, Any]:
        if self._timer is None:
            self._look_in(self._left(keys) - keys.renew_before_s)  # they are used: have new ones in time
        return keys.document()

    # --- getting them ---------------------------------------------------------------------------------------

    def _begin(self) -> asyncio.Task[None] | None:
        """The request that is under way, or a new one; None so soon after the last one."""
        if self._request is None and self._clock.monotonic() >= self._retry_at:
            assert self._controlplane is not None
            assert self._group
            self._request = self._run(self._ask(self._controlplane, self._group, self._generation))
        return self._request

    def _run(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        task = asyncio.get_running_loop().create_task(work)
        self._running.add(task)
        task.add_done_callback(self._running.discard)
        return task

    async def _ask(self, controlplane: RoleKeys, group: str, generation: int) -> None:
        keys: _Keys | None = None
        failure: GgfastError | None = None
        try:
            answer = await controlplane.credentials(group)
            keys = self._read(answer) if answer is not None else None
        except Rejected as error:
            failure = _refusal(error)
        except GgfastError as error:
            failure = error
        except Exception as error:
            failure = OperatingError(f"Keys of the group role could not be got: {type(error).__name__}.")
        if generation != self._generation:
            return
        self._request = None
        if failure is None:
            self._succeeded(keys)
        else:
            self._failed(failure)

    def _succeeded(self, keys: _Keys | None) -> None:
        now = self._clock.monotonic()
        self._stop_looking()
        self._keys, self._failure, self._said = keys, None, ""
        self._pause, self._retry_at = limits.CREDENTIALS_RETRY_S, now + limits.CREDENTIALS_RETRY_S
        if keys is None:
            self._no_role_until = now + limits.CREDENTIALS_NONE_S
            self._log.info("The group has no role: functions get no keys.")
        else:
            self._log.info("Got keys of the group role.", expiration=keys.document()["Expiration"])
        self._run(self._keep(self._generation))

    def _failed(self, failure: GgfastError) -> None:
        self._failure = failure
        self._retry_at = self._clock.monotonic() + self._pause
        valid = self._valid() is not None
        text = (
            "No new keys of the group role; those in use are good until they end."
            if valid
            else "No keys of the group role."
        )
        if self._said != (said := f"{text} {failure}"):
            self._said = said
            self._log.warn(text, reason=str(failure))
        if valid:
            self._look_in(self._pause)
        self._pause = min(self._pause * 2, limits.CREDENTIALS_RETRY_S_MAX)

    def _look_in(self, seconds: float) -> None:
        self._stop_looking()
        delay = max(seconds, limits.CREDENTIALS_RETRY_S)
        self._timer = asyncio.get_running_loop().call_later(delay, self._renew)

    def _stop_looking(self) -> None:
        timer, self._timer = self._timer, None
        if timer is not None:
            timer.cancel()

    def _renew(self) -> None:
        self._timer = None
        if self._valid() is not None and self._begin() is None:
            self._look_in(self._retry_at - self._clock.monotonic())

    def _read(self, answer: Mapping[str, Any]) -> _Keys:
        names = ("accessKeyId", "secretAccessKey", "sessionToken", "expiration")
        texts = [answer.get(name) for name in names]
        key_id, secret, token, expiration = (text if isinstance(text, str) else "" for text in texts)
        if not (key_id and secret and expiration) or sum(map(len, (key_id, secret, token))) > _TEXTS_MAX:
            raise Malformed("Keys of the group role: found another document, expected " + ", ".join(names) + ".")
        try:
            expires = datetime.fromisoformat(expiration).timestamp()
        except (ValueError, OverflowError):
            raise Malformed(f"Keys of the group role: expiration is {expiration[:40]!r}, expected a time.") from None
        now = self._clock.wall()
        if expires <= now:
            shown = datetime.fromtimestamp(now, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
            text = f"Keys of the group role came that ended at {expiration[:40]}; this machine's clock says {shown}."
            raise OperatingError(text, hint="Set the clock.")
        life = min(expires - now, limits.CREDENTIALS_LIFE_S_MAX)
        return _Keys(key_id, secret, token, now, now + life, self._clock.monotonic() + life)

    # --- their end ------------------------------------------------------------------------------------------

    def _left(self, keys: _Keys) -> float:
        """Seconds of life, by the clock that says less."""
        return min(keys.expires - self._clock.wall(), keys.deadline - self._clock.monotonic())

    def _valid(self) -> _Keys | None:
        if self._keys is not None and self._left(self._keys) <= 0:
            self._keys = None
        return self._keys

    def _clear(self) -> None:
        """Know nothing; a request under way comes to nothing."""
        self._generation += 1
        self._keys = self._failure = self._request = None
        self._pause = limits.CREDENTIALS_RETRY_S
        self._retry_at = self._no_role_until = -float("inf")
        self._stop_looking()

    # --- on disk --------------------------------------------------------------------------------------------

    def _make_sealer(self, identity: Path | None) -> Sealer | None:
        try:
            return Sealer.of(identity, "keys of the group role") if identity is not None else None
        except OSError as error:
            text = "The core's private key cannot be read: keys of the group role are not kept over a restart."
            self._log.warn(text, reason=str(error))
            return None

    async def _keep(self, generation: int) -> None:
        """Bring the file to what is known now."""
        async with self._disk:
            if generation != self._generation:
                return
            keys = self._keys
            if keys is None or self._sealer is None:
                self._remove()
                return
            texts = [keys.key_id, keys.secret, keys.token]
            record = {"group": self._group, "keys": texts, "got": keys.got, "expires": keys.expires}
            sealed = self._sealer.seal(orjson.dumps(record))
            try:
                await asyncio.to_thread(write_private, self._path, sealed)
            except OSError as error:
                self._log.warn("Keys of the group role are not kept over a restart.", reason=str(error))
            if generation != self._generation:  # what was to be forgotten was being written
                self._remove()

    def _load(self, group: str) -> _Keys | None:
        """Those kept for `group` that are valid still; anything else is as good as none."""
        if self._sealer is None:
            return None
        try:
            with open_plain(self._path, follow_links=False) as file:
                record = orjson.loads(self._sealer.open(file.read(limits.CREDENTIALS_BYTES_MAX)))
            if record["group"] != group:
                return None
            key_id, secret, token = map(str, record["keys"])
            got, expires = float(record["got"]), float(record["expires"])
        except FileNotFoundError:
            return None
        except (OSError, CorruptRecord, ValueError, KeyError, TypeError) as error:
            self._log.warn("Kept keys of the group role cannot be used.", reason=str(error))
            return None
        now = self._clock.wall()
        if not got - limits.CREDENTIALS_CLOCK_BACK_S <= now < expires:
            return None
        life = min(expires - now, expires - got, limits.CREDENTIALS_LIFE_S_MAX)
        return _Keys(key_id, secret, token, got, expires, self._clock.monotonic() + life)

    def _remove(self) -> None:
        try:
            self._path.unlink(missing_ok=True)
        except OSError as error:
            self._log.error("Keys of the group role could not be removed.", file=str(self._path), reason=str(error))


_TEXTS_MAX: Final = limits.CREDENTIALS_BYTES_MAX * 3 // 4  # characters: JSON and the seal need the rest


def _refusal(error: Rejected) -> GgfastError:
    if error.reason_code != _FORBIDDEN:
        return error
    text = f"The control plane gives no keys of the group role: {error}"
    hint = "The core's certificate needs a policy with greengrass:AssumeRoleForGroup on the group."
    return NotAuthorized(text, reason_code=_FORBIDDEN, hint=hint)
