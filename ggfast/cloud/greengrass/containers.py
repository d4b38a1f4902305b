"""What definitions and groups are alike in: a name, tags, and immutable versions of a content.

Documents, with `<kind>` "definition" or "group" and `<parent>` the account and region (and the kind of definition):

    <kind>            <parent>        <id>       Name, CreationTimestamp, LastUpdatedTimestamp, LatestVersion
    <kind>-version    <parent>/<id>   <version>  CreationTimestamp
    <kind>-content    <parent>/<id>   <version>  the content, as it was given

The content lies apart, so that lists do not read it: it may be megabytes.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any
from uuid import uuid4

from ggfast.cloud.greengrass.service import arn_of
from ggfast.cloud.greengrass.tags import add_tags, drop_tags, tags_of
from ggfast.cloud.operations import Call, Reply
from ggfast.cloud.store.interface import Body, Document, Transaction
from ggfast.cloud.surroundings import timestamp


@dataclass(frozen=True, slots=True)
class Container:
    """One kind of them: where its documents lie, and the path in its ARNs."""

    collection: str  # "definition", "group"
    place: str  # behind the home, in parents: "/cores"; "" for groups
    path: str  # "/greengrass/definition/cores", "/greengrass/groups"

    def parent(self, home: str) -> str:
        """The parent of the documents."""
        return home + self.place

    def get(self, tx: Transaction, home: str, name: str) -> Body | None:
        """The document of an id."""
        return tx.get(self.collection, self.parent(home), name)

    def exists(self, tx: Transaction, home: str, name: str) -> bool:
        """Whether there is one with that id."""
        return self.get(tx, home, name) is not None

    def arn(self, home: str, name: str, version: str = "") -> str:
        """The ARN of an id, or of a version of it."""
        return arn_of(home, f"{self.path}/{name}" + (f"/versions/{version}" if version else ""))

    # --- changes ---------------------------------------------------------------------------------------

    def create(self, call: Call) -> tuple[str, Body]:
        """Make one with the request's `Name` and `tags`, without a version; its id and document. Raises Fault."""
        identifier = str(uuid4())
        now = timestamp(call.cloud.clock.wall())
        body: Body = {"CreationTimestamp": now, "LastUpdatedTimestamp": now}
        if "Name" in call.params:
            body["Name"] = call.params["Name"]
        call.tx.put(self.collection, self.parent(call.home), identifier, body)
        add_tags(call.tx, call.home, self.arn(call.home, identifier), call.params.get("tags", {}))
        return identifier, body

    def add_version(self, call: Call, identifier: str, body: Body, content: Mapping[str, Any]) -> str:
        """Make `content` the newest version; its id. `body` is the document, which is written with it."""
        version = str(uuid4())
        now = timestamp(call.cloud.clock.wall())
        parent = f"{self.parent(call.home)}/{identifier}"
        call.tx.put(f"{self.collection}-version", parent, version, {"CreationTimestamp": now})
        call.tx.put(f"{self.collection}-content", parent, version, dict(content))
        body["LatestVersion"] = version
        body["LastUpdatedTimestamp"] = now
        call.tx.put(self.collection, self.parent(call.home), identifier, body)
        return version

    def rename(self, call: Call, identifier: str, body: Body) -> None:
        """Give it the request's `Name`."""
        body["Name"] = call.params["Name"]
        body["LastUpdatedTimestamp"] = timestamp(call.cloud.clock.wall())
        call.tx.put(self.collection, self.parent(call.home), identifier, body)

    def remove(self, call: Call, identifier: str) -> None:
        """Remove it, its versions and its tags."""
        call.tx.delete(self.collection, self.parent(call.home), identifier)
        for part in ("version", "content"):
            call.tx.delete_all(f"{self.collection}-{part}", f"{self.parent(call.home)}/{identifier}")
        drop_tags(call.tx, call.home, self.arn(call.home, identifier))

    # --- answers ---------------------------------------------------------------------------------------

    def form(self, home: str, identifier: str, body: Body) -> dict[str, Any]:
        """DEF of cloud-api 4: members that it has not are left out."""
        form = {
            "Arn": self.arn(home, identifier),
            "CreationTimestamp": body["CreationTimestamp"],
            "Id": identifier,
            "LastUpdatedTimestamp": body["LastUpdatedTimestamp"],
        }
        if "LatestVersion" in body:
            form["LatestVersion"] = body["LatestVersion"]
            form["LatestVersionArn"] = self.arn(home, identifier, body["LatestVersion"])
        if "Name" in body:
            form["Name"] = body["Name"]
        return form

    def tagged(self, tx: Transaction, home: str, identifier: str, body: Body) -> dict[str, Any]:
        """DEF with its tags."""
        return self.form(home, identifier, body) | {"tags": tags_of(tx, home, self.arn(home, identifier))}

    def version_form(self, home: str, identifier: str, version: str, body: Body) -> dict[str, Any]:
        """VER of cloud-api 4."""
        return {
            "Arn": self.arn(home, identifier, version),
            "CreationTimestamp": body["CreationTimestamp"],
            "Id": identifier,
            "Version": version,
        }

    def version(self, tx: Transaction, home: str, identifier: str, version: str) -> dict[str, Any] | None:
        """VER of one version, if it exists."""
        body = tx.get(f"{self.collection}-version", f"{self.parent(home)}/{identifier}", version)
        return None if body is None else self.version_form(home, identifier, version, body)

    def content(self, tx: Transaction, home: str, identifier: str, version: str) -> Body | None:
        """What a version holds, exactly as it was given."""
        return tx.get(f"{self.collection}-content", f"{self.parent(home)}/{identifier}", version)

    def versions(self, call: Call, identifier: str) -> Reply:
        """The request's page of the versions, newest first (cloud-api 3)."""
        page = call.list(f"{self.collection}-version", f"{self.parent(call.home)}/{identifier}", newest_first=True)
        return _listed(
            "Versions",
            [self.version_form(call.home, identifier, found.name, found.body) for found in page.documents],
            page.token,
        )

    def listed(self, call: Call, member: str, *, tags: bool) -> Reply:
        """The request's page of all of them; with `tags`, those that have any show them."""

        def shown(document: Document) -> dict[str, Any]:
            form = self.form(call.home, document.name, document.body)
            found = tags_of(call.tx, call.home, form["Arn"]) if tags else {}
            return form | ({"tags": found} if found else {})

        page = call.list(self.collection, self.parent(call.home))
        return _listed(member, [shown(document) for document in page.documents], page.token)


def _listed(member: str, forms: list[dict[str, Any]], token: str | None) -> Reply:
    return Reply({member: forms} | ({} if token is None else {"NextToken": token}))
