"""Short-lived keys: who they are lies sealed in their session token, nothing about them is stored.

A token is what only our sealing key could have made, so whoever shows it and signs with the secret in it is who it
says. What they may do is looked up at each use: `roles.principals` makes a principal of a session.
"""

from __future__ import annotations

import base64
import binascii
import secrets
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import orjson

from ggfast.cloud.limits import SESSION_TOKEN_CHARACTERS_MAX
from ggfast.cloud.surroundings import Surroundings, timestamp
from ggfast.errors import CorruptRecord, PeerError

_PURPOSE = "session-token"
_SECRET_BYTES = 30  # 40 characters of base64, as long as secrets of lasting keys
_CONTENT_BYTES_MAX = 65_536  # of an unpacked token: we made it, but a bound costs nothing


class TokenInvalid(PeerError):
    """No session token of ours, or not with that key id."""


class TokenExpired(PeerError):
    """A session token of ours whose time is over."""


class TokenTooLarge(PeerError):
    """Session policies that do not fit into a token."""


@dataclass(frozen=True, slots=True)
class Session:
    """What a token says. Times in seconds since 1970.

    Exactly one of `role_arn` and `parent_key_id` is set: a role's keys, or keys that GetSessionToken gave to the
    holder of a lasting key. `policy` (a document, "" for none) and `policy_arns` narrow what the role allows.
    """

    key_id: str
    secret: str
    role_arn: str
    session_name: str
    parent_key_id: str
    issued: float
    expires: float
    policy: str = ""
    policy_arns: tuple[str, ...] = ()


def issue(
    cloud: Surroundings,
    role_arn: str,
    session_name: str,
    seconds: float,
    *,
    parent_key_id: str = "",
    policy: str = "",
    policy_arns: Sequence[str] = (),
) -> dict[str, str]:
    """`AccessKeyId`, `SecretAccessKey`, `SessionToken`, `Expiration` (ISO 8601) of new keys. Never blocks.

    Nothing is checked here: the caller decides whether they may be given. Raises TokenTooLarge.
    """
    now = cloud.clock.wall()
    expires = float(int(now + seconds))
    key_id = "ASIA" + base64.b32encode(secrets.token_bytes(10)).decode()
    secret = base64.b64encode(secrets.token_bytes(_SECRET_BYTES)).decode()
    content = [key_id, secret, role_arn, session_name, parent_key_id, now, expires, policy, list(policy_arns)]
    token = cloud.sealer.seal(zlib.compress(orjson.dumps(content), 9), _PURPOSE)
    if len(token) > SESSION_TOKEN_CHARACTERS_MAX:
        raise TokenTooLarge(f"the session token has {len(token)} characters, at most {SESSION_TOKEN_CHARACTERS_MAX}")
    return {
        "AccessKeyId": key_id,
        "SecretAccessKey": secret,
        "SessionToken": token,
        "Expiration": timestamp(expires).replace(".000Z", "Z"),
    }


def open_token(cloud: Surroundings, token: str, key_id: str = "") -> Session:
    """Who a token says it is; `key_id`, if given, must be the one it was given out with. Never blocks.

    Raises TokenInvalid, or TokenExpired. The role may be gone since: `roles.principals.principal_of` sees that.
    """
    if len(token) > SESSION_TOKEN_CHARACTERS_MAX:
        raise TokenInvalid(f"the session token has {len(token)} characters, at most {SESSION_TOKEN_CHARACTERS_MAX}")
    try:
        content: list[Any] = orjson.loads(_unpacked(cloud.sealer.unseal(token, _PURPOSE)))
        content[-1] = tuple(content[-1])
        session = Session(*content)
    except (CorruptRecord, binascii.Error, zlib.error, ValueError, TypeError, IndexError) as error:
        raise TokenInvalid("the session token was not given out here") from error
    if key_id and key_id != session.key_id:
        raise TokenInvalid("the session token belongs to another access key")
    if cloud.clock.wall() >= session.expires:
        raise TokenExpired(f"the session token has ended at {timestamp(session.expires)}")
    return session


def _unpacked(packed: bytes) -> bytes:
    content = zlib.decompressobj().decompress(packed, _CONTENT_BYTES_MAX)
    if not content:
        raise ValueError("an empty token")
    return content
