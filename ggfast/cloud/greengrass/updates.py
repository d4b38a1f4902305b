"""Software updates of cores: one operation, which makes a job for their update agents (greengrass-core 13.2).

Software is registered per kind, system and architecture as an artifact with its version (`register_software`). Where
none is, the job names the release that this control plane is, which cores also find in their package index. The job's
document is ours, and says its own version:

    {"format": "ggfast-update/1", "software": "core", "version": "1.2.0", "architecture": "armv7l",
     "operatingSystem": "raspbian", "logLevel": "ERROR",
     "artifact": {"path": "/greengrass/updates/core/raspbian/armv7l/1.2.0", "sha256": "...", "size": 1}}

`path` is on the devices' HTTPS server; `sha256` and `size` are there if the software is registered.
"""

from __future__ import annotations

from typing import Any
from uuid import uuid4

import orjson

from ggfast import __version__
from ggfast.cloud.faults import Fault
from ggfast.cloud.greengrass.service import GREENGRASS, client_token
from ggfast.cloud.jobs.creating import create_job
from ggfast.cloud.limits import JOB_TARGETS_MAX
from ggfast.cloud.operations import Call, Reply
from ggfast.cloud.shapes import Choice, Items, Text, need
from ggfast.cloud.store.interface import Body, Transaction

SOFTWARE = "software"
FORMAT = "ggfast-update/1"
PATH = "/greengrass/updates"

PAIRS = (
    ("ubuntu", "x86_64"),
    ("ubuntu", "aarch64"),
    ("amazon_linux", "x86_64"),
    ("raspbian", "armv7l"),
    ("raspbian", "armv6l"),
    ("openwrt", "aarch64"),
    ("openwrt", "armv7l"),
)
_NAMES = {"core": "the core software", "ota_agent": "the OTA agent software"}
SOFTWARE_KINDS = tuple(_NAMES)
_URL_LIFE_S = 3_600  # as the service signed them
_LEVELS = ("NONE", "TRACE", "DEBUG", "VERBOSE", "INFO", "WARN", "ERROR", "FATAL")


def register_software(
    tx: Transaction, home: str, software: str, system: str, architecture: str, version: str, digest: str, size: int
) -> None:
    """Let updates of `software` (one of SOFTWARE_KINDS) go to the artifact `digest` of `size` bytes, kept already."""
    body = {"version": version, "digest": digest, "size": size}
    tx.put(SOFTWARE, home, f"{software}/{system}/{architecture}", body)


def find_software(tx: Transaction, home: str, software: str, system: str, architecture: str) -> Body | None:
    """`version`, `digest` and `size` of what is registered."""
    return tx.get(SOFTWARE, home, f"{software}/{system}/{architecture}")


@GREENGRASS.operation(
    "CreateSoftwareUpdateJob",
    "POST /greengrass/updates",
    {
        **client_token(),
        "S3UrlSignerRole": need(Text(1, 2_048, r"arn:aws[a-z-]*:iam::[0-9]{12}:role/.+")),
        "SoftwareToUpdate": need(Choice(*_NAMES)),
        "UpdateAgentLogLevel": Choice(*_LEVELS),
        "UpdateTargets": need(Items(Text(1, 2_048), 1, JOB_TARGETS_MAX)),
        "UpdateTargetsArchitecture": need(Choice("armv6l", "armv7l", "x86_64", "aarch64")),
        "UpdateTargetsOperatingSystem": need(Choice("ubuntu", "raspbian", "amazon_linux", "openwrt")),
    },
    writes=True,
)
def create_software_update_job(call: Call) -> Reply:
    """Let the targets' agents fetch the newest software."""
    system, architecture = call.params["UpdateTargetsOperatingSystem"], call.params["UpdateTargetsArchitecture"]
    if (system, architecture) not in PAIRS:
        pairs = ", ".join("/".join(pair) for pair in PAIRS)
        text = f"UpdateTargetsOperatingSystem and UpdateTargetsArchitecture: found {system}/{architecture}, expected "
        raise Fault(GREENGRASS.invalid_code, f"{text}one of {pairs}.")
    software = call.params["SoftwareToUpdate"]
    found = find_software(call.tx, call.home, software, system, architecture)
    version = __version__ if found is None else found["version"]
    job = create_job(
        call.tx,
        call.cloud,
        call.home,
        f"GreengrassUpdateJob_{uuid4()}",
        call.params["UpdateTargets"],
        orjson.dumps(_document(call.params, version, found)).decode(),
        description=f"This job was created by Greengrass to update the Greengrass Cores in the targets with version "
        f"{version} of {_NAMES[software]} running on {architecture} architecture.",
        settings={
            "presignedUrlConfig": {"roleArn": call.params["S3UrlSignerRole"], "expiresInSec": _URL_LIFE_S},
        },
    )
    return Reply({"IotJobArn": job["jobArn"], "IotJobId": job["jobId"], "PlatformSoftwareVersion": version})


def _document(params: dict[str, Any], version: str, found: Body | None) -> dict[str, Any]:
    software, architecture = params["SoftwareToUpdate"], params["UpdateTargetsArchitecture"]
    system = params["UpdateTargetsOperatingSystem"]
    artifact: dict[str, Any] = {"path": f"{PATH}/{software}/{system}/{architecture}/{version}"}
    if found is not None:
        artifact |= {"sha256": found["digest"], "size": found["size"]}
    return {
        "format": FORMAT,
        "software": software,
        "version": version,
        "architecture": architecture,
        "operatingSystem": system,
        "logLevel": params.get("UpdateAgentLogLevel", "ERROR"),
        "artifact": artifact,
    }
