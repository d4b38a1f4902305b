"""Software update jobs: what is accepted, and the job that a core's update agent gets."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import orjson
import pytest
from cloud_desk import ACCOUNT, REGION
from cloud_fleet import HOME, Fleet, desk_for

from ggfast import __version__
from ggfast.cloud.greengrass.updates import PAIRS, register_software
from ggfast.cloud.limits import JOB_TARGETS_MAX

SYSTEMS = ("ubuntu", "raspbian", "amazon_linux", "openwrt")
ARCHITECTURES = ("armv6l", "armv7l", "x86_64", "aarch64")


@pytest.fixture
def fleet(tmp_path: Path) -> Iterator[Fleet]:
    desk = desk_for(tmp_path)
    yield Fleet(desk)
    desk.close()


def members(fleet: Fleet, **more: Any) -> dict[str, Any]:
    return {
        "S3UrlSignerRole": f"arn:aws:iam::{ACCOUNT}:role/signer",
        "SoftwareToUpdate": "core",
        "UpdateTargets": [fleet.core["ThingArn"]],
        "UpdateTargetsArchitecture": "armv7l",
        "UpdateTargetsOperatingSystem": "raspbian",
        **more,
    }


def document(fleet: Fleet, made: dict[str, Any]) -> dict[str, Any]:
    text = fleet.desk.call("GetJobDocument", service="iot", jobId=made["IotJobId"])["document"]
    found: dict[str, Any] = orjson.loads(text)
    return found


def test_a_job_is_made_for_the_targets(fleet: Fleet) -> None:
    made = fleet.desk.call("CreateSoftwareUpdateJob", **members(fleet))
    assert re.fullmatch(r"GreengrassUpdateJob_[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}", made["IotJobId"])
    assert made["IotJobArn"] == f"arn:aws:iot:{REGION}:{ACCOUNT}:job/{made['IotJobId']}"
    assert made["PlatformSoftwareVersion"] == __version__
    job = fleet.desk.call("DescribeJob", service="iot", jobId=made["IotJobId"])["job"]
    assert job["description"] == (
        "This job was created by Greengrass to update the Greengrass Cores in the targets with version "
        f"{__version__} of the core software running on armv7l architecture."
    )
    assert job["targetSelection"] == "SNAPSHOT" and job["targets"] == [fleet.core["ThingArn"]]
    assert job["presignedUrlConfig"] == {"roleArn": f"arn:aws:iam::{ACCOUNT}:role/signer", "expiresInSec": 3_600}
    assert document(fleet, made) == {
        "format": "ggfast-update/1",
        "software": "core",
        "version": __version__,
        "architecture": "armv7l",
        "operatingSystem": "raspbian",
        "logLevel": "ERROR",
        "artifact": {"path": f"/greengrass/updates/core/raspbian/armv7l/{__version__}"},
    }
    [queued] = fleet.desk.call("ListJobExecutionsForThing", service="iot", thingName="core1")["executionSummaries"]
    assert queued["jobId"] == made["IotJobId"]


def test_registered_software_is_named_with_its_digest(fleet: Fleet) -> None:
    fleet.desk.change(lambda tx: register_software(tx, HOME, "core", "raspbian", "armv7l", "9.9.9", "ab" * 32, 1_234))
    made = fleet.desk.call("CreateSoftwareUpdateJob", **members(fleet, UpdateAgentLogLevel="TRACE"))
    assert made["PlatformSoftwareVersion"] == "9.9.9"
    found = document(fleet, made)
    assert (found["version"], found["logLevel"]) == ("9.9.9", "TRACE")
    assert found["artifact"] == {
        "path": "/greengrass/updates/core/raspbian/armv7l/9.9.9",
        "sha256": "ab" * 32,
        "size": 1_234,
    }
    other = fleet.desk.call("CreateSoftwareUpdateJob", **members(fleet, SoftwareToUpdate="ota_agent"))
    assert other["PlatformSoftwareVersion"] == __version__
    assert document(fleet, other)["software"] == "ota_agent"


@pytest.mark.parametrize("system", SYSTEMS)
@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_pairs_of_system_and_architecture(fleet: Fleet, system: str, architecture: str) -> None:
    asked = members(fleet, UpdateTargetsOperatingSystem=system, UpdateTargetsArchitecture=architecture)
    if (system, architecture) in PAIRS:
        assert fleet.desk.call("CreateSoftwareUpdateJob", **asked)["IotJobId"]
        return
    fault = fleet.desk.refused("CreateSoftwareUpdateJob", **asked)
    assert (fault.status, fault.code) == (400, "InvalidInputException")
    assert f"found {system}/{architecture}, expected one of ubuntu/x86_64" in fault.message


@pytest.mark.parametrize(
    ("member", "value"),
    [
        ("SoftwareToUpdate", "kernel"),
        ("UpdateAgentLogLevel", "LOUD"),
        ("UpdateTargetsArchitecture", "mips"),
        ("UpdateTargetsOperatingSystem", "windows"),
        ("UpdateTargets", []),
        ("UpdateTargets", ["x"] * (JOB_TARGETS_MAX + 1)),
        ("UpdateTargets", "core1"),
        ("S3UrlSignerRole", "signer"),
        ("S3UrlSignerRole", None),
    ],
)
def test_wrong_members_are_named(fleet: Fleet, member: str, value: object) -> None:
    fault = fleet.desk.refused("CreateSoftwareUpdateJob", **members(fleet, **{member: value}))
    assert (fault.status, fault.code) == (400, "InvalidInputException")
    assert fault.message.startswith(f"{member}: found ")


def test_targets_must_exist_and_nothing_stays_otherwise(fleet: Fleet) -> None:
    stranger = f"arn:aws:iot:{REGION}:{ACCOUNT}:thing/nobody"
    for targets in ([stranger], [fleet.core["ThingArn"], stranger], ["core1"]):
        assert fleet.desk.refused("CreateSoftwareUpdateJob", **members(fleet, UpdateTargets=targets)).status in (
            400,
            404,
        )
    assert fleet.desk.call("ListJobs", service="iot")["jobs"] == []


def test_a_client_token_makes_one_job(fleet: Fleet) -> None:
    made = fleet.desk.call("CreateSoftwareUpdateJob", **members(fleet), AmznClientToken="u")
    assert fleet.desk.call("CreateSoftwareUpdateJob", **members(fleet), AmznClientToken="u") == made
    assert len(fleet.desk.call("ListJobs", service="iot")["jobs"]) == 1
