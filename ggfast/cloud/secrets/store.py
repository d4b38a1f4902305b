"""Secrets and their versions as documents.

secrets           <home>   <name>         {name, arn, created, changed, description, kms, type, tags, stages, ends,
                                           deleted}; label ending, of those marked for deletion
secret-versions   <ARN>    <version id>   {sealed, binary, created}

`stages` maps staging labels to version ids. `ends` is when a secret marked for deletion is gone: from then on nothing
finds it, and a later request removes it.
"""

from __future__ import annotations

import re
import secrets
from collections.abc import Mapping
from dataclasses import dataclass

from ggfast.cloud.limits import SECRET_PURGE_BATCH, SECRET_VERSIONS_MAX
from ggfast.cloud.store.interface import Body, Transaction
from ggfast.cloud.surroundings import Surroundings

COLLECTION = "secrets"
VERSIONS = "secret-versions"
CURRENT, PREVIOUS = "AWSCURRENT", "AWSPREVIOUS"
_LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789"
_SUFFIX = re.compile(r"-[A-Za-z0-9]{6}")
_SUFFIX_CHARACTERS = 7


@dataclass(frozen=True, slots=True, repr=False)
class SecretValue:
    """One version of a secret, opened. `created` in seconds since 1970. Its text form tells nothing."""

    arn: str
    name: str
    version_id: str
    value: bytes
    binary: bool
    stages: tuple[str, ...]
    created: float


def new_arn(home: str, name: str) -> str:
    """The ARN of a new secret: six characters tell it from others that had the name."""
    return secret_arn_of(home, name) + "-" + "".join(secrets.choice(_LETTERS) for _ in range(6))


def secret_arn_of(home: str, secret_id: str) -> str:
    """An ARN for what a client wrote, itself if it is one."""
    if secret_id.startswith("arn:"):
        return secret_id
    account, _, region = home.partition("/")
    return f"arn:aws:secretsmanager:{region}:{account}:secret:{secret_id}"


def find_secret(tx: Transaction, home: str, secret_id: str, now: float) -> Body | None:
    """A secret by its name, its ARN, or its ARN without the last seven characters; also one marked for deletion."""
    prefix = secret_arn_of(home, "")
    if not secret_id.startswith("arn:"):
        return _there(tx.get(COLLECTION, home, secret_id), now)
    if not secret_id.startswith(prefix):
        return None
    rest = secret_id.removeprefix(prefix)
    if _SUFFIX.fullmatch(rest[-_SUFFIX_CHARACTERS:]):
        found = _there(tx.get(COLLECTION, home, rest[:-_SUFFIX_CHARACTERS]), now)
        if found is not None and found["arn"] == secret_id:
            return found
    return _there(tx.get(COLLECTION, home, rest), now)


def put_secret(tx: Transaction, home: str, secret: Body) -> None:
    """Make or replace a secret's document."""
    tx.put(COLLECTION, home, secret["name"], secret, {"ending": [home] if secret["ends"] is not None else []})


def remove_secret(tx: Transaction, home: str, secret: Body) -> None:
    """A secret and all its values, for good."""
    tx.delete_all(VERSIONS, secret["arn"])
    tx.delete(COLLECTION, home, secret["name"])


def remove_ended(tx: Transaction, home: str, now: float) -> None:
    """Remove secrets whose recovery window is over, a bounded number of them."""
    token: str | None = None
    for _ in range(SECRET_PURGE_BATCH):
        page = tx.find(COLLECTION, "ending", home, limit=SECRET_PURGE_BATCH, token=token)
        ended = [document.body for document in page.documents if _there(document.body, now) is None]
        for secret in ended:
            remove_secret(tx, home, secret)
        if ended or page.token is None:
            return
        token = page.token


def add_version(
    tx: Transaction, cloud: Surroundings, secret: Body, version_id: str, value: bytes, binary: bool
) -> None:
    """Seal a value as a version."""
    body = {
        "sealed": cloud.sealer.seal(value, _purpose(secret["arn"], version_id)),
        "binary": binary,
        "created": cloud.clock.wall(),
    }
    tx.create(VERSIONS, secret["arn"], version_id, body)
    _forget_old(tx, secret)


def move_stage(secret: Body, stage: str, version_id: str) -> None:
    """Give a staging label to a version. What had AWSCURRENT gets AWSPREVIOUS."""
    stages = secret["stages"]
    before = stages.get(stage)
    stages[stage] = version_id
    if stage == CURRENT and before not in (None, version_id):
        stages[PREVIOUS] = before


def stages_of(secret: Body, version_id: str) -> list[str]:
    """The staging labels of a version."""
    return [stage for stage, owner in secret["stages"].items() if owner == version_id]


def get_value(
    tx: Transaction, cloud: Surroundings, home: str, secret_id: str, *, stage: str = CURRENT, version_id: str = ""
) -> SecretValue | None:
    """A value by staging label, or by version id. None if secret or version is not there, or it is being deleted."""
    secret = find_secret(tx, home, secret_id, cloud.clock.wall())
    if secret is None or secret["ends"] is not None:
        return None
    version_id = version_id or secret["stages"].get(stage, "")
    body = tx.get(VERSIONS, secret["arn"], version_id)
    return None if body is None else opened(cloud, secret, version_id, body)


def opened(cloud: Surroundings, secret: Body, version_id: str, body: Mapping[str, object]) -> SecretValue:
    """A version's document with its seal broken."""
    return SecretValue(
        arn=secret["arn"],
        name=secret["name"],
        version_id=version_id,
        value=cloud.sealer.unseal(str(body["sealed"]), _purpose(secret["arn"], version_id)),
        binary=bool(body["binary"]),
        stages=tuple(stages_of(secret, version_id)),
        created=float(str(body["created"])),
    )


def _there(secret: Body | None, now: float) -> Body | None:
    ended = secret is not None and secret["ends"] is not None and now >= secret["ends"]
    return None if ended else secret


def _forget_old(tx: Transaction, secret: Body) -> None:
    """Past the bound the oldest versions without a staging label go."""
    surplus = tx.count(VERSIONS, secret["arn"]) - SECRET_VERSIONS_MAX
    if surplus <= 0:
        return
    kept = set(secret["stages"].values())
    page = tx.list(VERSIONS, secret["arn"], limit=SECRET_VERSIONS_MAX + surplus)
    for document in [document for document in page.documents if document.name not in kept][:surplus]:
        tx.delete(VERSIONS, secret["arn"], document.name)


def _purpose(arn: str, version_id: str) -> str:
    return f"secret/{arn}/{version_id}"
