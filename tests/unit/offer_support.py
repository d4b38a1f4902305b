"""The control plane's side of fetching, without a network: artifacts by digest, and everything that can go wrong."""

from __future__ import annotations

import hashlib
import os
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from deploy_support import CERTIFICATE_ID, PEM
from group_support import CORE, FUNCTION

from ggfast.core.deploy.downloads import Sink
from ggfast.core.deploy.offer import Artifact
from ggfast.errors import Rejected

GROUP, VERSION = "11111111-2222-3333-4444-555555555555", "66666666-2222-3333-4444-555555555555"
_CERTIFICATE = "arn:aws:iot:eu-west-1:123456789012:cert/"

Step = Callable[[bytes, int, Sink], None]
"""What happens at one request: takes the whole content, the offset asked for and where the content goes."""


class Shop:
    """Like core.controlplane.ControlPlane for artifacts. `asked` are the requests, `script` what happens at the next
    ones; afterwards everything goes well, in pieces of 7 bytes."""

    def __init__(self, *contents: bytes, piece: int = 7) -> None:
        self.contents = {sha256(content): content for content in contents}
        self.asked: list[tuple[str, int]] = []
        self.script: list[Step] = []
        self.pauses: list[float] = []
        self._piece = piece

    async def artifact(self, digest: str, offset: int, sink: Sink) -> None:
        self.asked.append((digest, offset))
        if digest not in self.contents:
            raise Rejected(f"No current deployment of this core has the artifact {digest}.", reason_code=404)
        content = self.contents[digest]
        if self.script:
            self.script.pop(0)(content, offset, sink)
            return
        for at in range(offset, len(content), self._piece):
            sink(content[at : at + self._piece])

    async def pause(self, seconds: float) -> None:
        """Does not wait; remembers."""
        self.pauses.append(seconds)


def sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def offer_of(package: bytes, model: bytes | None = None) -> dict[str, Any]:
    """An offer of a group with one function, one device, and, if given, one model."""
    digest = sha256(package)
    function = {
        "Id": "f",
        "FunctionArn": FUNCTION,
        "Handler": "main.handler",
        "Runtime": "python3.7",
        "FunctionConfiguration": {"Pinned": True, "Environment": {"Variables": {"A": "1"}}},
        "DeploymentConfiguration": {"CodeSize": len(package), "CodeSha256": digest},
    }
    artifacts = [{"kind": "function", "name": FUNCTION, "digest": digest, "size": len(package)}]
    resources = []
    if model is not None:
        data = {"DestinationPath": "/ml", "S3Uri": "s3://models/m.zip", "ArchiveSha256": sha256(model)}
        resources.append({"Id": "m", "Name": "m", "Type": "ML_Model.S3_Object", "Data": data})
        artifacts.append({"kind": "model", "name": "m", "digest": sha256(model), "size": len(model)})
    device = {"Id": "d", "thingArn": f"{CORE}_d", "certificateArn": f"{_CERTIFICATE}{CERTIFICATE_ID}"}
    subscription = {"Id": "s", "Source": FUNCTION, "Subject": "a/#", "Target": "cloud"}
    document = {
        "Arn": f"arn:aws:greengrass:eu-west-1:123456789012:/greengrass/groups/{GROUP}/versions/{VERSION}",
        "Cores": [{"Id": "c", "thingArn": CORE, "certificateArn": _CERTIFICATE + "0" * 64}],
        "Devices": [device],
        "GroupDefinitions": {
            "Lambdas": {"Content": [function]},
            "Subscriptions": {"Content": [subscription]},
            "Resources": {"Content": resources},
        },
        "DeviceCertificates": [{"CertificateId": CERTIFICATE_ID, "Status": "ACTIVE", "CertificatePem": PEM}],
        "GroupCertificateAuthorities": [PEM],
        "CertificateExpiryInMilliseconds": 604_800_000,
        "ConnectivityInfo": [{"Id": "1", "HostAddress": "192.168.1.5", "PortNumber": 8883, "Metadata": ""}],
    }
    return {
        "id": "d",
        "type": "NewDeployment",
        "status": "InProgress",
        "groupId": GROUP,
        "versionId": VERSION,
        "resetFirst": "",
        "document": document,
        "artifacts": artifacts,
    }


def wanted(content: bytes) -> Artifact:
    return Artifact(sha256(content), len(content), ("arn:one",))


@contextmanager
def small_disk(place: Path, size: int) -> Iterator[Path]:
    """A disk of `size` bytes, mounted at the new directory `place`."""
    place.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size}", "none", place], check=True)
    try:
        yield place
    finally:
        subprocess.run(["umount", place], check=True)


def fill(place: Path, leave: int = 0) -> Path:
    """Leave `leave` bytes of the disk of `place` free; the file that takes the rest."""
    status = os.statvfs(place)
    filler = place / "filler"
    with filler.open("wb", buffering=0) as file:
        os.posix_fallocate(file.fileno(), 0, max(status.f_bavail * status.f_frsize - leave, 1))
    return filler
