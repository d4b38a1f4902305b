"""A desk with things, a group and jobs, for tests of jobs."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from cloud_desk import ACCOUNT, REGION, Desk

import ggfast.cloud.iot
import ggfast.cloud.jobs
from ggfast.cloud.events import Publish
from ggfast.cloud.iot.service import IOT
from ggfast.cloud.jobs import rollout, topics
from ggfast.cloud.jobs.service import IOT_JOBS_DATA

HOME = f"{ACCOUNT}/{REGION}"
DOCUMENT = '{ "do": "it" }'


def arn(name: str, kind: str = "thing") -> str:
    return f"arn:aws:iot:{REGION}:{ACCOUNT}:{kind}/{name}"


class JobDesk(Desk):
    """A desk of both jobs services with the things t1 to t4; t1 and t2 are in the group g."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder, IOT, IOT_JOBS_DATA)
        for number in range(1, 5):
            self.call("CreateThing", thingName=f"t{number}")
        self.call("CreateThingGroup", thingGroupName="g")
        for name in ("t1", "t2"):
            self.call("AddThingToThingGroup", thingGroupName="g", thingName=name)
        self.events.clear()

    def job(self, job_id: str = "j", *things: str, **members: Any) -> dict[str, Any]:
        """Make a job for things, t1 if none is named."""
        targets = members.pop("targets", [arn(thing) for thing in things or ("t1",)])
        return self.call("CreateJob", jobId=job_id, targets=targets, document=DOCUMENT, **members)

    def device(self, operation: str, **members: Any) -> dict[str, Any]:
        """A device's operation."""
        return self.call(operation, service="iot-jobs-data", **members)

    def report(self, thing: str, status: str, job_id: str = "j", **members: Any) -> dict[str, Any]:
        """A device says how its execution goes."""
        return self.device("UpdateJobExecution", thingName=thing, jobId=job_id, status=status, **members)

    def status(self, thing: str = "t1", job_id: str = "j") -> str:
        """Where a thing's newest execution is."""
        found = self.call("DescribeJobExecution", service="iot", thingName=thing, jobId=job_id)
        return str(found["execution"]["status"])

    def job_status(self, job_id: str = "j") -> str:
        """Where a job is."""
        return str(self.call("DescribeJob", jobId=job_id)["job"]["status"])

    def tick(self, seconds: float = 0) -> int:
        """Let time pass and the clock do what is due."""
        self.clock.now += seconds
        return self.change(lambda tx: rollout.expire(tx, self.cloud, self.clock.now))

    def send(self, topic: str, payload: object = None, thing: str = "t1") -> None:
        """A device's message to a jobs topic; bytes are sent as they are."""
        body = payload if isinstance(payload, bytes) else b"" if payload is None else json.dumps(payload).encode()
        self.change(lambda tx: topics.handle(tx, self.cloud, HOME, f"$aws/things/{thing}/jobs/{topic}", body))

    def told(self, thing: str = "t1") -> list[tuple[str, dict[str, Any]]]:
        """What was told to a thing since the last look: rest of the topic, message."""
        prefix = f"$aws/things/{thing}/jobs/"
        found = [event for event in self.events if isinstance(event, Publish) and event.topic.startswith(prefix)]
        assert all(event.home == HOME for event in found)
        self.events.clear()
        return [(event.topic.removeprefix(prefix), json.loads(event.payload)) for event in found]


assert ggfast.cloud.iot and ggfast.cloud.jobs  # imported for the operations they register
