"""A group folder that changes between deployments, and what is live on disk after them."""

from __future__ import annotations

import copy
import hashlib
import json
import ssl
import zipfile
from pathlib import Path
from typing import Any

from group_support import CORE, FUNCTION, MINIMAL

from ggfast.core.deploy.folder import stage_folder
from ggfast.core.deploy.store import Store
from ggfast.group.document import Group
from ggfast.layout import Layout

# Any bytes do as a certificate here: nothing looks inside, identity is the digest of the DER form.
DER = b"\x30\x03\x02\x01\x07"
CERTIFICATE_ID = hashlib.sha256(DER).hexdigest()
PEM = ssl.DER_cert_to_PEM_cert(DER)
OTHER = FUNCTION.replace("counter", "other")
THIRD = FUNCTION.replace("counter", "third")


class Folder:
    """A group folder that tests change between deployments."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.document: dict[str, Any] = copy.deepcopy(MINIMAL)
        self.document["Functions"] = []
        path.mkdir()

    def function(self, arn: str, source: str = "def handler(e, c): pass\n", **more: Any) -> None:
        name = arn.split(":")[6]
        (self.path / name).mkdir(exist_ok=True)
        (self.path / name / "main.py").write_text(source)
        entry = {"Id": name, "FunctionArn": arn, "Code": name, "Handler": "main.handler", "Runtime": "python3.8"}
        kept = [item for item in self.document["Functions"] if item["Id"] != name]
        self.document["Functions"] = [*kept, entry | more]

    def remove(self, arn: str) -> None:
        self.document["Functions"] = [item for item in self.document["Functions"] if item["FunctionArn"] != arn]

    def model(self, name: str, content: str = "weights", permission: str = "ro") -> None:
        """A model resource, attached to the first function."""
        with zipfile.ZipFile(self.path / f"{name}.zip", "w") as archive:
            archive.writestr(zipfile.ZipInfo("weights"), content)
        data = {"S3Uri": f"s3://models/{name}.zip", "DestinationPath": f"/models/{name}"}
        container = {"S3MachineLearningModelResourceData": data}
        entry = {"Id": name, "Name": name, "Archive": f"{name}.zip", "ResourceDataContainer": container}
        self.forget_model(name)
        self.document["Resources"] = [*self.document["Resources"], entry]
        policies = self._policies(self.document["Functions"][0])
        policies.append({"ResourceId": name, "Permission": permission})

    def forget_model(self, name: str) -> None:
        """Take the resource out of the group."""
        kept = [item for item in self.document.get("Resources", []) if item["Id"] != name]
        self.document["Resources"] = kept
        for function in self.document["Functions"]:
            policies = self._policies(function)
            policies[:] = [policy for policy in policies if policy["ResourceId"] != name]

    @staticmethod
    def _policies(function: dict[str, Any]) -> list[dict[str, str]]:
        environment = function.setdefault("FunctionConfiguration", {}).setdefault("Environment", {})
        policies: list[dict[str, str]] = environment.setdefault("ResourceAccessPolicies", [])
        return policies

    def device(self, **more: Any) -> None:
        arn = f"arn:aws:iot:eu-west-1:123456789012:cert/{CERTIFICATE_ID}"
        self.document["Devices"] = [{"Id": "d", "ThingArn": CORE + "_d", "CertificateArn": arn} | more]

    def write(self) -> Path:
        (self.path / "group.json").write_text(json.dumps(self.document))
        return self.path


def deploy(folder: Folder, layout: Layout, store: Store) -> Group:
    group = store.activate(stage_folder(folder.write(), layout).directory)
    store.confirm()
    return group


def live(layout: Layout) -> dict[str, bytes]:
    """Everything that is live, by name."""
    found = {}
    for top in (layout.group, layout.functions, layout.models):
        for path in top.rglob("*"):
            if path.is_file():
                found[str(path.relative_to(layout.deployment))] = path.read_bytes()
    return found
