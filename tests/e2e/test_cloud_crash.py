"""The control plane is killed in the middle of its work: what it acknowledged is there, nothing is half there."""

from __future__ import annotations

import os
import random
import signal
import threading
from pathlib import Path
from typing import Any

import pytest
from botocore.exceptions import BotoCoreError, ClientError

from tests.e2e.cloud_process import CloudProcess

CLIENTS = 8
MUTATIONS = 1_000


class Worker(threading.Thread):
    """One client: makes, renames, versions and deletes its own definitions and things, and writes down what it was
    told. `doubtful` is what it had asked for when the cloud died: either is right."""

    def __init__(self, number: int, cloud: CloudProcess, share: int, done: threading.Semaphore) -> None:
        super().__init__(name=f"client-{number}")
        self.number = number
        self.random = random.Random(number)
        self.greengrass = cloud.client("greengrass", retries=0)
        self.iot = cloud.client("iot", retries=0)
        self.share = share
        self.finished = done
        self.definitions: dict[str, dict[str, Any]] = {}  # id -> name, versions
        self.things: dict[str, str] = {}  # name -> id
        self.gone: set[str] = set()
        self.doubtful = ""
        self.errors: list[BaseException] = []

    def run(self) -> None:
        for step in range(self.share):
            try:
                self.mutate(step)
            except BotoCoreError:  # the connection: the cloud has been killed
                return
            except BaseException as error:
                self.errors.append(error)
                return
            self.doubtful = ""
            self.finished.release()

    def mutate(self, step: int) -> None:
        """One random change."""
        choice = self.random.choice(("make", "make", "version", "rename", "delete", "thing"))
        name = f"{self.name}-{step}"
        if choice == "thing":
            self.doubtful = name
            self.things[name] = self.iot.create_thing(thingName=name, attributePayload={"attributes": {"a": name}})[
                "thingId"
            ]
        elif choice == "make" or not self.definitions:
            self.doubtful = name
            content = {"Loggers": self.loggers(step)}
            made = self.greengrass.create_logger_definition(Name=name, InitialVersion=content)
            self.definitions[made["Id"]] = {"name": name, "versions": {made["LatestVersion"]: content}}
        else:
            chosen = self.random.choice(sorted(self.definitions))
            self.doubtful = chosen
            if choice == "version":
                content = {"Loggers": self.loggers(step)}
                made = self.greengrass.create_logger_definition_version(LoggerDefinitionId=chosen, **content)
                self.definitions[chosen]["versions"][made["Version"]] = content
            elif choice == "rename":
                self.greengrass.update_logger_definition(LoggerDefinitionId=chosen, Name=name)
                self.definitions[chosen]["name"] = name
            else:
                self.greengrass.delete_logger_definition(LoggerDefinitionId=chosen)
                del self.definitions[chosen]
                self.gone.add(chosen)

    def loggers(self, step: int) -> list[dict[str, Any]]:
        """A version's content, larger than a page of the file now and then."""
        return [
            {
                "Id": f"{self.number}-{step}-{n}",
                "Type": "FileSystem",
                "Component": "Lambda",
                "Level": "INFO",
                "Space": 1,
            }
            for n in range(self.random.choice((1, 2, 40)))
        ]


@pytest.mark.parametrize("seed", [1, 2])
def test_p2_kill_9_among_a_thousand_mutations(seed: int, tmp_path: Path) -> None:
    done = threading.Semaphore(0)
    rng = random.Random(seed)
    with CloudProcess(tmp_path / "data") as cloud:
        workers = [Worker(number, cloud, MUTATIONS // CLIENTS, done) for number in range(CLIENTS)]
        for worker in workers:
            worker.start()
        for _ in range(rng.randrange(MUTATIONS // 3, MUTATIONS * 9 // 10)):
            assert done.acquire(timeout=30)
        os.kill(cloud.pid, signal.SIGKILL)
        for worker in workers:
            worker.join(60)
            assert not worker.is_alive()
            assert worker.errors == []
        cloud.restart()
        for worker in workers:
            compare(worker, cloud)


def compare(worker: Worker, cloud: CloudProcess) -> None:
    """What the client was told is what the cloud has, and nothing else of that client's is there."""
    greengrass, iot = cloud.client("greengrass"), cloud.client("iot")
    found = {}
    for page in greengrass.get_paginator("list_logger_definitions").paginate():
        found |= {entry["Id"]: entry for entry in page["Definitions"]}
    for key, known in worker.definitions.items():
        if key == worker.doubtful and key not in found:
            continue  # its deletion was under way
        got = found[key]
        versions = {
            entry["Version"]
            for page in greengrass.get_paginator("list_logger_definition_versions").paginate(LoggerDefinitionId=key)
            for entry in page["Versions"]
        }
        assert set(known["versions"]) <= versions
        if key != worker.doubtful:
            assert got["Name"] == known["name"]
            assert set(known["versions"]) == versions
        assert got["LatestVersion"] in versions
        for version in versions:
            read = greengrass.get_logger_definition_version(LoggerDefinitionId=key, LoggerDefinitionVersionId=version)
            content = known["versions"].get(version)
            assert content is None or read["Definition"] == content
    assert not worker.gone & set(found)
    mine = {key for key, entry in found.items() if entry["Name"].startswith(f"{worker.name}-")}
    assert len(mine - set(worker.definitions)) <= 1  # the one that was asked for and not answered
    for key in mine - set(worker.definitions):
        assert found[key]["Name"] == worker.doubtful
        greengrass.get_logger_definition_version(
            LoggerDefinitionId=key, LoggerDefinitionVersionId=found[key]["LatestVersion"]
        )
    for name, thing_id in worker.things.items():
        described = iot.describe_thing(thingName=name)
        assert (described["thingId"], described["attributes"]) == (thing_id, {"a": name})
    if worker.doubtful and not worker.doubtful.startswith("client-"):
        return
    try:
        assert not worker.doubtful or iot.describe_thing(thingName=worker.doubtful)["attributes"]
    except ClientError as error:
        assert error.response["Error"]["Code"] == "ResourceNotFoundException"
