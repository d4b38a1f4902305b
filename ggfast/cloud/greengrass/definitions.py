"""Definitions: the eight operations of each of the seven kinds, written once (cloud-api 4, 6).

A definition is a name, tags and versions; a version is a content that never changes. Deleting a definition takes its
versions with it, also while a group version refers to them: what is deployed was copied when it was deployed.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from ggfast.cloud.faults import Fault
from ggfast.cloud.greengrass.containers import Container
from ggfast.cloud.greengrass.kinds import BY_PATH, KINDS, Kind
from ggfast.cloud.greengrass.service import CREATED, GREENGRASS, client_token, corrupted, path_in, unknown
from ggfast.cloud.greengrass.tags import SHAPE as TAG_SHAPE
from ggfast.cloud.greengrass.tags import taggable
from ggfast.cloud.limits import DEFINITION_BYTES_MAX, DEFINITION_NAME_MAX
from ggfast.cloud.operations import Call, Reply, paged
from ggfast.cloud.shapes import Record, Text, query
from ggfast.cloud.store.interface import Body, Transaction

NAME = Text(0, DEFINITION_NAME_MAX)

_VERSION_PATH = re.compile(r"/greengrass/definition/([a-z]+)/([^/]+)/versions/([^/]+)")
_PAGED_CONTENTS = ("Connector", "Device", "Function", "Logger", "Subscription")  # kinds whose GetVersion has a token


def get_definition_version(tx: Transaction, home: str, arn: str, kind: str = "") -> Body | None:
    """The content of the version with that ARN, None if there is none.

    `kind` ("cores", ...) asks for one of that kind alone. The ARN may lack the slash after the account.
    """
    match = _VERSION_PATH.fullmatch(path_in(home, arn) or "")
    if match is None or match[1] not in BY_PATH or kind not in ("", match[1]):
        return None
    return BY_PATH[match[1]].container.content(tx, home, match[2], match[3])


@dataclass(frozen=True, slots=True)
class Definitions:
    """The operations of one kind."""

    kind: Kind
    container: Container

    def create(self, call: Call) -> Reply:
        """A definition, with or without name and first version."""
        content = call.params.get("InitialVersion")
        if content is not None:
            self._check(content)
        identifier, body = self.container.create(call)
        if content is not None:
            self.container.add_version(call, identifier, body, content)
        return Reply(self.container.form(call.home, identifier, body))

    def list(self, call: Call) -> Reply:
        """The definitions of this kind."""
        return self.container.listed(call, "Definitions", tags=True)

    def get(self, call: Call) -> Reply:
        """One definition, with its tags."""
        text = self.kind.unknown or f"That {self.kind.list_word} List Definition does not exist."
        identifier, body = self._found(call, text)
        return Reply(self.container.tagged(call.tx, call.home, identifier, body))

    def update(self, call: Call) -> Reply:
        """Another name: nothing else of a definition can change."""
        identifier, body = self._found(call)
        if not call.params.get("Name"):
            raise Fault(*self.kind.nameless)
        self.container.rename(call, identifier, body)
        return Reply()

    def delete(self, call: Call) -> Reply:
        """The definition, its versions and tags go."""
        identifier, _ = self._found(call)
        self.container.remove(call, identifier)
        return Reply()

    def create_version(self, call: Call) -> Reply:
        """A new newest version."""
        identifier, body = self._found(call, self.kind.unknown_for_version)
        content = {member: call.params[member] for member in self.kind.content if member in call.params}
        self._check(content)
        version = self.container.add_version(call, identifier, body, content)
        found = self.container.version(call.tx, call.home, identifier, version)
        assert found is not None
        return Reply(found)

    def list_versions(self, call: Call) -> Reply:
        """The versions, newest first."""
        identifier, _ = self._found(call)
        return self.container.versions(call, identifier)

    def get_version(self, call: Call) -> Reply:
        """One version with its content, all at once: there is never a token."""
        identifier, _ = self._found(call)
        if "NextToken" in call.params:
            raise call.invalid("NextToken", call.params["NextToken"], "the token of an earlier page")
        version = call.params[self.kind.version_member]
        form = self.container.version(call.tx, call.home, identifier, version)
        if form is None:
            raise unknown(
                f"Version {version} of {self.kind.list_word} List Definition {identifier} does not exist.",
                self.kind.unknown_version_code,
            )
        return Reply(form | {"Definition": self.container.content(call.tx, call.home, identifier, version)})

    def _found(self, call: Call, text: str = "") -> tuple[str, Body]:
        """The id and document the path names. Raises Fault with `text`, or the kind's usual one."""
        identifier = call.params[self.kind.id_member]
        body = self.container.get(call.tx, call.home, identifier)
        if body is None:
            raise unknown(text or f"That {self.kind.word} definition does not exist.")
        return identifier, body

    def _check(self, content: Mapping[str, Any]) -> None:
        faults = self.kind.faults(content)
        if faults:
            raise corrupted(self.kind.corrupted, faults, "InvalidDefinition")

    def register(self) -> None:
        """Make the eight operations known."""
        kind, operation = self.kind, GREENGRASS.operation
        name, path = f"{kind.name}Definition", self.container.path
        one, resource = f"{path}/{{{kind.id_member}}}", f"{path}/{{{kind.id_member}}}"
        version = f"{one}/versions/{{{kind.version_member}}}"
        token = {"NextToken": query(Text(1, 2_048))} if kind.name in _PAGED_CONTENTS else {}
        operation(
            f"Create{name}",
            f"POST {path}",
            {**client_token(), "Name": NAME, "InitialVersion": Record(kind.content), "tags": TAG_SHAPE},
            status=CREATED,
            writes=True,
            body_bytes_max=DEFINITION_BYTES_MAX,
        )(self.create)
        operation(f"List{name}s", f"GET {path}", paged())(self.list)
        operation(f"Get{name}", f"GET {one}", resource=resource)(self.get)
        operation(f"Update{name}", f"PUT {one}", {"Name": NAME}, writes=True, resource=resource)(self.update)
        operation(f"Delete{name}", f"DELETE {one}", writes=True, resource=resource)(self.delete)
        operation(
            f"Create{name}Version",
            f"POST {one}/versions",
            {**client_token(), **kind.content},
            status=CREATED,
            writes=True,
            resource=resource,
            body_bytes_max=DEFINITION_BYTES_MAX,
        )(self.create_version)
        operation(f"List{name}Versions", f"GET {one}/versions", paged(), resource=resource)(self.list_versions)
        operation(f"Get{name}Version", f"GET {version}", token, resource=version)(self.get_version)
        taggable(path, self.container.exists)


for _kind in KINDS:
    Definitions(_kind, _kind.container).register()
