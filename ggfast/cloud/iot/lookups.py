"""What the parts of the registry, and others, read of each other. Nothing here changes anything.

Every function takes the home, "<account>/<region>", and never raises for a name that does not exist.
"""

from __future__ import annotations

from collections.abc import Iterator

from ggfast.cloud.iot.service import not_found
from ggfast.cloud.limits import PAGE_MAX
from ggfast.cloud.operations import Call
from ggfast.cloud.store.interface import Body, Document, Page, Transaction

THINGS = "iot-thing"
THING_PRINCIPALS = "iot-thing-principal"  # parent: home/thing, name: certificate id
CERTIFICATES = "iot-certificate"
GROUPS = "iot-thing-group"
MEMBERS = "iot-thing-group-member"  # parent: home/group, name: thing
TYPES = "iot-thing-type"
POLICIES = "iot-policy"
POLICY_VERSIONS = "iot-policy-version"  # parent: home/policy, name: version id
ATTACHMENTS = "iot-policy-attachment"  # parent: home/kind/target name, name: policy


def get_thing(tx: Transaction, home: str, name: str) -> Body | None:
    """A thing: `id`, `attributes`, `type` ("" for none), `version`, `billing`; None if there is none."""
    return tx.get(THINGS, home, name)


def required_thing(call: Call, name: str) -> Body:
    """The same, or 404."""
    thing = get_thing(call.tx, call.home, name)
    if thing is None:
        raise not_found("thing", name)
    return thing


def required_group(call: Call, name: str) -> Body:
    """A thing group: `id`, `parent` ("" for none), `ancestors` (root first), `attributes`, ...; or 404."""
    group = call.tx.get(GROUPS, call.home, name)
    if group is None:
        raise not_found("thing group", name)
    return group


def certificates_of_thing(tx: Transaction, home: str, thing: str) -> list[str]:
    """Ids of the certificates a thing is attached to, whatever their status."""
    return [document.name for document in everything(tx, THING_PRINCIPALS, f"{home}/{thing}")]


def things_of_certificate(tx: Transaction, home: str, certificate_id: str) -> list[str]:
    """Names of the things a certificate is attached to, in the order of attaching."""
    found = everything_found(tx, THING_PRINCIPALS, "certificate", f"{home}/{certificate_id}")
    return [document.body["thing"] for document in found]


def groups_of_thing(tx: Transaction, home: str, thing: str) -> list[str]:
    """Names of the thing groups a thing was put into; not their parents."""
    return [document.body["group"] for document in everything_found(tx, MEMBERS, "thing", f"{home}/{thing}")]


def things_of_group(tx: Transaction, home: str, group: str) -> Iterator[str]:
    """Names of the things in a thing group and in the groups below it."""
    for document in everything_found(tx, MEMBERS, "group", f"{home}/{group}"):
        yield document.name


def everything(tx: Transaction, collection: str, parent: str) -> Iterator[Document]:
    """All documents of a parent, read page by page."""
    token: str | None = None
    while True:
        page: Page = tx.list(collection, parent, limit=PAGE_MAX, token=token)
        yield from page.documents
        token = page.token
        if token is None:
            return


def everything_found(tx: Transaction, collection: str, label: str, value: str) -> Iterator[Document]:
    """All documents with a label's value, read page by page."""
    token: str | None = None
    while True:
        page: Page = tx.find(collection, label, value, limit=PAGE_MAX, token=token)
        yield from page.documents
        token = page.token
        if token is None:
            return
