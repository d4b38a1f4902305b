"""A whole control plane without HTTP, for tests of its handlers: real store, real keys, real artifacts.

desk = Desk(tmp_path, SERVICE)          # or the fixture of a test file
answer = desk.call("CreateGroup", Name="a")
fault = desk.refused("GetGroup", GroupId="?")
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

from ggfast.cloud.artifacts import ArtifactFolder
from ggfast.cloud.authority import CertificateAuthority
from ggfast.cloud.dispatch import Dispatcher
from ggfast.cloud.faults import Fault
from ggfast.cloud.operations import Principal, Reply, Service
from ggfast.cloud.sealing import KeySealer
from ggfast.cloud.store.interface import T, Transaction
from ggfast.cloud.store.sqlite import SqliteStore
from ggfast.cloud.surroundings import Endpoints, Surroundings

ACCOUNT = "123456789012"
REGION = "eu-west-1"
ADMINISTRATOR = Principal(f"arn:aws:iam::{ACCOUNT}:user/admin", "AKIATEST", lambda _action, _resource: True)


@cache
def authority() -> CertificateAuthority:
    """One authority for all tests: making its key takes long."""
    return CertificateAuthority(*CertificateAuthority.new("ggfast test CA"))


class Hands:
    """Clocks that tests move."""

    def __init__(self) -> None:
        self.now = 1_790_000_000.0

    def monotonic(self) -> float:
        return self.now

    def wall(self) -> float:
        return self.now


class Desk:
    """One cloud. `events` collects what was told."""

    def __init__(self, folder: Path, *services: Service, durable: bool = False) -> None:
        self.services = {service.name: service for service in services}
        self.clock = Hands()
        self.cloud = Surroundings(
            account=ACCOUNT,
            clock=self.clock,
            sealer=KeySealer(b"k" * 32),
            artifacts=ArtifactFolder(folder / "artifacts"),
            authority=authority(),
            endpoints=Endpoints("https://localhost:8080", "localhost:8883", "localhost:8443"),
        )
        self.runner = asyncio.Runner()
        self.store = self.runner.run(self._open(folder / "store.db", durable))
        self.dispatcher = Dispatcher(self.cloud, self.store)
        self.events: list[object] = []
        self.store.listen(self.events.append)

    async def _open(self, path: Path, durable: bool) -> SqliteStore:
        return SqliteStore(path, durable=durable)

    def close(self) -> None:
        """End the store."""
        self.runner.run(self.store.close())
        self.runner.close()

    def reply(
        self,
        operation: str,
        /,
        *,
        service: str = "",
        region: str = REGION,
        who: Principal = ADMINISTRATOR,
        **members: Any,
    ) -> Reply:
        """The whole reply of an operation."""
        found = self.services[service] if service else self._service_of(operation)
        return self.runner.run(self.dispatcher.run(found, found.operations[operation], members, who, region))

    def call(self, operation: str, /, **members: Any) -> dict[str, Any]:
        """The members of an operation's reply."""
        return dict(self.reply(operation, **members).members)

    def refused(self, operation: str, /, **members: Any) -> Fault:
        """The fault an operation ends in."""
        try:
            reply = self.reply(operation, **members)
        except Fault as fault:
            return fault
        raise AssertionError(f"{operation} was not refused: {reply}")

    def all(self, operation: str, member: str, /, token: str = "NextToken", **members: Any) -> list[Any]:
        """Every entry of a list, page after page."""
        found: list[Any] = []
        for _ in range(1_000):
            page = self.call(operation, **members)
            found += page[member]
            if token not in page:
                return found
            members = members | {token: page[token]}
        raise AssertionError("the list has no end")

    def look(self, work: Callable[[Transaction], T]) -> T:
        """What a function sees in the store."""
        return self.runner.run(self.store.read(work))

    def change(self, work: Callable[[Transaction], T]) -> T:
        """Run a function in a transaction."""
        return self.runner.run(self.store.write(work))

    def _service_of(self, operation: str) -> Service:
        found = [service for service in self.services.values() if operation in service.operations]
        assert len(found) == 1, f"{operation} is in {[service.name for service in found]}"
        return found[0]
