"""Functions, their versions and aliases as documents.

functions          <home>           <name>     {last: number of the newest version}
function-versions  <home>/<name>    $LATEST, 1, 2, ...   a configuration, its code's digest; label home
function-aliases   <home>/<name>    <alias>    {version, description, revision}; label version
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from ggfast.cloud.functions.names import LATEST, function_arn, parse_name
from ggfast.cloud.limits import PAGE_MAX
from ggfast.cloud.store.interface import Body, Transaction

FUNCTIONS = "functions"
VERSIONS = "function-versions"
ALIASES = "function-aliases"


@dataclass(frozen=True, slots=True)
class Qualified:
    """What a qualifier leads to: a version's body, and the alias by which it was found ("" for none)."""

    name: str
    version: str
    alias: str
    body: Body


def under(home: str, name: str) -> str:
    """The parent of a function's versions and aliases."""
    return f"{home}/{name}"


def put_version(tx: Transaction, home: str, name: str, version: str, body: Body) -> None:
    """Make or replace a version's document."""
    tx.put(VERSIONS, under(home, name), version, body, {"home": [home]})


def find(tx: Transaction, home: str, name: str, qualifier: str = "") -> Qualified | None:
    """The version that a qualifier of a function names: a number, `$LATEST` (also ""), or an alias."""
    version, alias = qualifier or LATEST, ""
    if version != LATEST and not version.isdigit():
        known = tx.get(ALIASES, under(home, name), version)
        if known is None:
            return None
        alias, version = version, known["version"]
    body = tx.get(VERSIONS, under(home, name), version)
    return None if body is None else Qualified(name, version, alias, body)


def resolve(tx: Transaction, home: str, function_arn_text: str) -> dict[str, Any] | None:
    """The code that a function's ARN means at this moment; None if it leads nowhere in `home` ("<account>/<region>").

    `arn` (of the version, aliases resolved; of `$LATEST` with that qualifier), `name`, `version`, `alias` ("" unless
    found by one), `latest` (True: code that may change under that ARN), `digest` and `size` (of the artifact that
    holds the zip; "" and 0 for none), `configuration` (as the API shows it).
    """
    ref = parse_name(function_arn_text)
    account, _, region = home.partition("/")
    if ref is None or ref.region != region or ref.account != account:
        return None
    found = find(tx, home, str(ref), ref.qualifier)
    if found is None:
        return None
    return {
        "arn": function_arn(home, found.name, found.version),
        "name": found.name,
        "version": found.version,
        "alias": found.alias,
        "latest": found.version == LATEST,
        "digest": found.body["digest"],
        "size": found.body["configuration"]["CodeSize"],
        "configuration": configuration(home, found.name, found.version, found.body, qualifier=found.version),
    }


def configuration(home: str, name: str, version: str, body: Body, *, qualifier: str = "") -> dict[str, Any]:
    """A version as the API shows it. Its ARN has a qualifier when one is given."""
    return {
        "FunctionName": name,
        "FunctionArn": function_arn(home, name, qualifier),
        "Version": version,
        **body["configuration"],
        "State": "Active",
        "LastUpdateStatus": "Successful",
    }


def aliases_of_version(tx: Transaction, home: str, name: str, version: str) -> list[str]:
    """Names of the aliases that lead to a version."""
    found: list[str] = []
    token: str | None = None
    while True:
        page = tx.find(ALIASES, "version", version_label(home, name, version), limit=PAGE_MAX, token=token)
        found += [document.name for document in page.documents]
        if page.token is None:
            return found
        token = page.token


def version_label(home: str, name: str, version: str) -> str:
    """The value of an alias document's label `version`."""
    return f"{home}/{name}:{version}"
