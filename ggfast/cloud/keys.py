"""Access keys of the control plane: who may call it, with which secret, under which policy.

A key is a document of collection `access-keys` under its account, named by its id; its secret is sealed. Every
function takes a transaction. They are made by the command line, not over the API: a policy of keys decides who may
do what, so making keys stays with who has the machine.
"""

from __future__ import annotations

import base64
import re
import secrets
from collections.abc import Iterator
from dataclasses import dataclass

from ggfast.cloud.events import KeysChanged
from ggfast.cloud.limits import PAGE_MAX
from ggfast.cloud.policy import PolicyDocument
from ggfast.cloud.store.interface import Body, Transaction
from ggfast.cloud.surroundings import Sealer, timestamp
from ggfast.errors import ConfigError, Problem

COLLECTION = "access-keys"
ADMINISTRATOR_POLICY = (
    '{"Version":"2012-10-17","Statement":[{"Effect":"Allow","Action":"*","Resource":"*"}]}'  # of the first key
)
_NAME = re.compile(r"[A-Za-z0-9+=,.@_-]{1,64}")  # what IAM allows in a user's name: it stands in the key's ARN
_SECRET_BYTES = 30  # 40 characters of base64


@dataclass(frozen=True, slots=True)
class AccessKey:
    """One key as it lies in the store; `sealed_secret` opens with `open_secret`."""

    key_id: str
    name: str
    sealed_secret: str
    policy: str
    active: bool
    created: str


def make_key(tx: Transaction, sealer: Sealer, account: str, name: str, policy: str, now: float) -> tuple[str, str]:
    """(key id, secret) of a new active key. Raises ConfigError for a name that is taken or none, or a bad policy."""
    if _NAME.fullmatch(name) is None:
        raise _wrong("name", repr(name[:80]), f"1 to 64 characters of {_NAME.pattern.partition('{')[0]}")
    if tx.find(COLLECTION, "name", f"{account}/{name}", limit=1).documents:
        raise _wrong("name", f"{name!r}, which a key has already", "another name, or that key deleted")
    try:
        PolicyDocument.parse(policy)
    except ValueError as error:
        raise _wrong("policy", f"a document that is no policy: {error}", "a policy document (IAM syntax)") from error
    key_id = "AKIA" + base64.b32encode(secrets.token_bytes(10)).decode()
    secret = base64.b64encode(secrets.token_bytes(_SECRET_BYTES)).decode()
    body: Body = {
        "name": name,
        "secret": sealer.seal(secret.encode(), _purpose(key_id)),
        "policy": policy,
        "state": "Active",
        "created": timestamp(now),
    }
    tx.create(COLLECTION, account, key_id, body, {"name": [f"{account}/{name}"]})
    tx.tell(KeysChanged())
    return key_id, secret


def find_key(tx: Transaction, account: str, key_id: str) -> AccessKey | None:
    """A key by its id, or None."""
    body = tx.get(COLLECTION, account, key_id)
    return None if body is None else _key(key_id, body)


def all_keys(tx: Transaction, account: str) -> Iterator[AccessKey]:
    """Every key of an account, oldest first."""
    token: str | None = None
    while True:
        page = tx.list(COLLECTION, account, limit=PAGE_MAX, token=token)
        yield from (_key(document.name, document.body) for document in page.documents)
        if page.token is None:
            return
        token = page.token


def delete_key(tx: Transaction, account: str, key_id_or_name: str) -> str | None:
    """Remove a key; its id, None if there is none."""
    keys = list(all_keys(tx, account))
    found = next((key for key in keys if key_id_or_name in (key.key_id, key.name)), None)
    if found is None:
        return None
    tx.delete(COLLECTION, account, found.key_id)
    tx.tell(KeysChanged())
    return found.key_id


def set_active(tx: Transaction, account: str, key_id: str, active: bool) -> bool:
    """Switch a key on or off; False if there is none."""
    body = tx.get(COLLECTION, account, key_id)
    if body is None:
        return False
    tx.put(COLLECTION, account, key_id, body | {"state": "Active" if active else "Inactive"})
    tx.tell(KeysChanged())
    return True


def open_secret(sealer: Sealer, key: AccessKey) -> bytes:
    """The secret access key. Raises CorruptRecord when it was sealed with another sealing key."""
    return sealer.unseal(key.sealed_secret, _purpose(key.key_id))


def user_arn(account: str, name: str) -> str:
    """The ARN under which a key acts."""
    return f"arn:aws:iam::{account}:user/{name}"


def _key(key_id: str, body: Body) -> AccessKey:
    return AccessKey(key_id, body["name"], body["secret"], body["policy"], body["state"] == "Active", body["created"])


def _purpose(key_id: str) -> str:
    return f"secret-key/{key_id}"


def _wrong(path: str, found: str, expected: str) -> ConfigError:
    return ConfigError("The access key cannot be made.", [Problem(path, found, expected)])
