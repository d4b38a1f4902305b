"""Lists of secrets: filters and orders."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from ggfast.cloud.limits import PAGE_DEFAULT
from ggfast.cloud.operations import Call, Reply, paged
from ggfast.cloud.secrets.reading import about, versions_to_stages
from ggfast.cloud.secrets.service import ROUTE, SECRETS
from ggfast.cloud.secrets.store import COLLECTION
from ggfast.cloud.shapes import Choice, Flag, Items, Record, Text, need
from ggfast.cloud.store.interface import BadToken, Body

_Texts = Callable[[Body, str], Sequence[str]]

# What each filter looks at, given a secret and its region.
_LOOKS_AT: dict[str, _Texts] = {
    "name": lambda secret, _: [secret["name"]],
    "description": lambda secret, _: [secret["description"]],
    "tag-key": lambda secret, _: [tag["Key"] for tag in secret["tags"]],
    "tag-value": lambda secret, _: [tag["Value"] for tag in secret["tags"]],
    "primary-region": lambda _, region: [region],
    "owning-service": lambda *_: [],
    "all": lambda secret, _: [
        secret["name"],
        secret["description"],
        *(text for tag in secret["tags"] for text in (tag["Key"], tag["Value"])),
    ],
}
_FILTER = Record({"Key": need(Choice(*_LOOKS_AT)), "Values": need(Items(Text(1, 512, r"!?.+"), 1, 10))}, open=True)
_FOLDED = ("description", "all")  # filters that take no notice of case


@SECRETS.operation(
    "ListSecrets",
    ROUTE,
    {
        "IncludePlannedDeletion": Flag(),
        "Filters": Items(_FILTER, 0, 10),
        "SortOrder": Choice("asc", "desc"),
        "SortBy": Choice("created-date", "last-accessed-date", "last-changed-date", "name"),
        **paged(most=100, where="body"),
    },
)
def list_secrets(call: Call) -> Reply:
    """Secrets without their values, newest first unless asked. Pages are in order of creation; `SortBy` orders the
    entries of each page."""
    newest_first = call.params.get("SortOrder", "desc") == "desc"
    wanted = int(call.params.get("MaxResults", PAGE_DEFAULT))
    token: str | None = call.params.get("NextToken")
    found: list[Body] = []
    while len(found) < wanted:
        try:
            page = call.tx.list(
                COLLECTION, call.home, limit=wanted - len(found), token=token, newest_first=newest_first
            )
        except BadToken as error:
            raise call.invalid("NextToken", token, "the token of an earlier page") from error
        found += [document.body for document in page.documents if _belongs(call, document.body)]
        token = page.token
        if token is None:
            break
    by = {"name": "name", "last-changed-date": "changed"}.get(call.params.get("SortBy", ""))
    if by is not None:
        found.sort(key=lambda secret: secret[by], reverse=newest_first)
    members: dict[str, Any] = {"SecretList": [_form(secret) for secret in found]}
    if token is not None:
        members["NextToken"] = token
    return Reply(members)


def _belongs(call: Call, secret: Body) -> bool:
    if secret["ends"] is not None:
        gone = call.cloud.clock.wall() >= secret["ends"]
        if gone or not call.params.get("IncludePlannedDeletion"):
            return False
    return all(_passes(secret, call.region, rule) for rule in call.params.get("Filters", []))


def _passes(secret: Body, region: str, rule: dict[str, Any]) -> bool:
    """Values are beginnings, of which one must fit; those after `!` must not."""
    fold = rule["Key"] in _FOLDED
    texts = [text.casefold() if fold else text for text in _LOOKS_AT[rule["Key"]](secret, region)]
    values = [value.casefold() if fold else value for value in rule["Values"]]
    wanted = tuple(value for value in values if not value.startswith("!"))
    unwanted = tuple(value[1:] for value in values if value.startswith("!"))
    if any(text.startswith(unwanted) for text in texts if unwanted):
        return False
    return not wanted or any(text.startswith(wanted) for text in texts)


def _form(secret: Body) -> dict[str, Any]:
    return about(secret) | {"SecretVersionsToStages": versions_to_stages(secret)}
