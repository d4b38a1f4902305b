"""A fleet for tests of deployments: things with certificates, functions with versions, groups, all through the API.

fleet = Fleet(desk)
group = fleet.group(Functions=[fleet.function("hello")])      # members by kind, as definitions take them
started = fleet.deploy(group)
fleet.core_says(started, "Success")
"""

from __future__ import annotations

import base64
import io
import zipfile
from functools import cache
from pathlib import Path
from typing import Any

from cloud_desk import ACCOUNT, REGION, Desk, authority

from ggfast.cloud.deploy.reports import latest_for_core, report
from ggfast.cloud.functions import LAMBDA
from ggfast.cloud.greengrass import GREENGRASS
from ggfast.cloud.iot import IOT
from ggfast.cloud.jobs import operations as _jobs  # noqa: F401  # registers the jobs of IOT
from ggfast.cloud.secrets import SECRETS

HOME = f"{ACCOUNT}/{REGION}"
CORE = "core1"
_KINDS = ("Connector", "Core", "Device", "Function", "Logger", "Resource", "Subscription")


@cache
def certificate(name: str) -> str:
    """A client certificate, the same for every test that asks for this name."""
    return authority().new_keys_and_certificate(name)[0]


def package(text: str) -> str:
    """A function's zip in base64."""
    raw = io.BytesIO()
    with zipfile.ZipFile(raw, "w") as archive:
        archive.writestr(zipfile.ZipInfo("main.py"), f"def handler(event, context):\n    return {text!r}\n")
    return base64.b64encode(raw.getvalue()).decode()


def desk_for(folder: Path) -> Desk:
    """A desk with every service that deployments touch."""
    return Desk(folder, GREENGRASS, IOT, LAMBDA, SECRETS)


class Fleet:
    """See the module. The core "core1" is there from the beginning."""

    def __init__(self, desk: Desk) -> None:
        self.desk = desk
        self.core = self.thing(CORE)

    def thing(self, name: str, **more: Any) -> dict[str, Any]:
        """A thing with its certificate; its entry in a definition."""
        found = self.desk.call("CreateThing", thingName=name)
        known = self.desk.call("RegisterCertificateWithoutCA", certificatePem=certificate(name), status="ACTIVE")
        self.desk.call("AttachThingPrincipal", thingName=name, principal=known["certificateArn"])
        return {"Id": name, "ThingArn": found["thingArn"], "CertificateArn": known["certificateArn"], **more}

    def function(self, name: str, *, alias: str = "prod", **settings: Any) -> dict[str, Any]:
        """A function with version 1 and an alias on it; its entry in a definition, by the alias."""
        self.desk.call(
            "CreateFunction",
            FunctionName=name,
            Runtime="python3.7",
            Role=f"arn:aws:iam::{ACCOUNT}:role/lambda",
            Handler="main.handler",
            Code={"ZipFile": package(f"{name} 1")},
            Publish=True,
        )
        made = self.desk.call("CreateAlias", FunctionName=name, Name=alias, FunctionVersion="1")
        return {"Id": name, "FunctionArn": made["AliasArn"], "FunctionConfiguration": {"Pinned": True, **settings}}

    def secret(self, resource: str = "s1", labels: tuple[str, ...] = ()) -> tuple[dict[str, Any], str]:
        """A secret, one version with all labels; its resource, and the version's id."""
        made = self.desk.call("CreateSecret", Name=f"greengrass-{resource}", SecretString="hidden")
        for label in labels:
            self.desk.call(
                "UpdateSecretVersionStage",
                SecretId=made["ARN"],
                VersionStage=label,
                MoveToVersionId=made["VersionId"],
            )
        data = {"ARN": made["ARN"], "AdditionalStagingLabelsToDownload": list(labels)}
        container = {"SecretsManagerSecretResourceData": data}
        return {"Id": resource, "Name": resource, "ResourceDataContainer": container}, str(made["VersionId"])

    def new_code(self, name: str, text: str, alias: str = "prod") -> str:
        """Publish other code and move the alias to it; the version."""
        made = self.desk.call("UpdateFunctionCode", FunctionName=name, ZipFile=package(text), Publish=True)
        self.desk.call("UpdateAlias", FunctionName=name, Name=alias, FunctionVersion=made["Version"])
        return str(made["Version"])

    def group(self, name: str = "g", **members: Any) -> dict[str, str]:
        """A group with one version; its core is core1 unless `Cores` says otherwise. GroupId and GroupVersionId."""
        group_id = self.desk.call("CreateGroup", Name=name)["Id"]
        return {"GroupId": group_id, "GroupVersionId": self.version(group_id, **members)}

    def version(self, group_id: str, **members: Any) -> str:
        """Another version of a group."""
        members.setdefault("Cores", [self.core])
        references = {}
        for kind in _KINDS:
            content = {f"{kind}s": members[f"{kind}s"]} if members.get(f"{kind}s") else {}
            if kind == "Function" and "DefaultConfig" in members:
                content["DefaultConfig"] = members["DefaultConfig"]
            if content:
                made = self.desk.call(f"Create{kind}Definition", InitialVersion=content)
                references[f"{kind}DefinitionVersionArn"] = made["LatestVersionArn"]
        return str(self.desk.call("CreateGroupVersion", GroupId=group_id, **references)["Version"])

    def deploy(self, group: dict[str, str], kind: str = "NewDeployment", **more: str) -> dict[str, str]:
        """Start a deployment; GroupId and DeploymentId."""
        made = self.desk.call("CreateDeployment", DeploymentType=kind, **group, **more)
        return {"GroupId": group["GroupId"], "DeploymentId": made["DeploymentId"]}

    def status(self, started: dict[str, str]) -> dict[str, Any]:
        """What GetDeploymentStatus says."""
        return self.desk.call("GetDeploymentStatus", **started)

    def fetched(self, thing: str = CORE) -> dict[str, Any]:
        """What the core gets."""
        found = self.desk.look(lambda tx: latest_for_core(tx, HOME, thing))
        assert found is not None
        return found

    def core_says(self, started: dict[str, str], status: str, text: str | None = None, thing: str = CORE) -> None:
        """The core's report."""
        self.desk.change(
            lambda tx: report(tx, HOME, thing, started["DeploymentId"], status, text, self.desk.clock.wall())
        )


def deployed(fleet: Fleet, **members: Any) -> dict[str, str]:
    """A group that its core runs."""
    group = fleet.group(**members)
    fleet.core_says(fleet.deploy(group), "Success")
    return group


def reset(fleet: Fleet, group: dict[str, str], **more: Any) -> dict[str, str]:
    """A reset of a group, as `Fleet.status` takes it."""
    made = fleet.desk.call("ResetDeployments", GroupId=group["GroupId"], **more)
    return {"GroupId": group["GroupId"], "DeploymentId": made["DeploymentId"]}
