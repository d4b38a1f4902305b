"""What cores come for: artifacts, reports, connectivity, keys of roles. And discovery, for everybody.

What they wait for is in `news`.

    GET  /greengrass/discover/thing/<thing>                                    greengrass:Discover on the thing
    GET  /greengrass/artifacts/<digest>                                        greengrass:GetDeploymentArtifacts
    PUT  /greengrass/groups/<group>/deployments/<id>/cores/<thing ARN>/status  greengrass:UpdateCoreDeploymentStatus
    GET  /greengrass/updates/<kind>/<system>/<architecture>/<version>          greengrass:GetSoftwareUpdate
    GET  /greengrass/groups/<group>/credentials?thing=<core>                   greengrass:AssumeRoleForGroup
    GET  /role-aliases/<alias>/credentials                                     iot:AssumeRoleWithCertificate

Keys of a group's role are those that the configured command prints (`credentialsProcess`), if there is one. Whoever
has a real AWS role configures it; role aliases name roles kept here and are always answered with keys of ours.

The forms of the second to the fifth are our own (greengrass-core 12.2); actions and resources are V1's (10.4), but
for GetSoftwareUpdate: V1 signed addresses in S3 instead. A certificate speaks only for things it is attached to.
"""

from __future__ import annotations

import logging
from typing import Any

from ggfast.cloud.deploy import records, reports
from ggfast.cloud.devices.discovery import discover
from ggfast.cloud.devices.routing import Asked, FileReply, Routes, bad, denied
from ggfast.cloud.faults import Fault
from ggfast.cloud.greengrass.membership import groups_of_thing
from ggfast.cloud.greengrass.roles import role_of_group
from ggfast.cloud.greengrass.updates import find_software
from ggfast.cloud.iot.role_aliases import get_role_alias
from ggfast.cloud.operations import Reply
from ggfast.cloud.roles.principals import RoleRefused, role_credentials_for_alias, role_credentials_for_core
from ggfast.cloud.store.interface import Store, Transaction
from ggfast.cloud.surroundings import Surroundings
from ggfast.errors import PeerError

logger = logging.getLogger("ggfast.cloud.devices")

Json = dict[str, Any]


class Cores:
    """The handlers; `add_to` makes their paths known."""

    def __init__(self, cloud: Surroundings, store: Store) -> None:
        self._cloud = cloud
        self._store = store

    def add_to(self, routes: Routes) -> None:
        """See the module."""
        routes.add("GET /greengrass/discover/thing/{ThingName}", self.discover)
        routes.add("GET /greengrass/artifacts/{Digest}", self.artifact)
        routes.add("PUT /greengrass/groups/{GroupId}/deployments/{DeploymentId}/cores/{CoreArn}/status", self.report)
        routes.add("GET /greengrass/updates/{Kind}/{System}/{Architecture}/{Version}", self.software)
        routes.add("GET /greengrass/groups/{GroupId}/credentials", self.group_credentials)
        routes.add("GET /role-aliases/{Alias}/credentials", self.alias_credentials)

    async def discover(self, asked: Asked) -> Reply:
        """The groups, cores and CAs of a thing."""
        thing = asked.params["ThingName"]
        asked.require("greengrass:Discover", asked.identity.arn_of("iot", f"thing/{thing}"))
        asked.require_thing(thing)
        return Reply(await self._store.read(lambda tx: discover(tx, asked.identity, thing)))

    async def artifact(self, asked: Asked) -> FileReply:
        """A file of the newest deployment of one of the certificate's cores; ranges are served."""
        digest = asked.params["Digest"]
        names = list(asked.identity.things)

        def look(tx: Transaction) -> Json | None:
            for name in names:
                found = reports.latest_for_core(tx, asked.identity.home, name)
                if found is not None and any(entry["digest"] == digest for entry in found["artifacts"]):
                    return found
            return None

        found = await self._store.read(look)
        if found is None:
            text = f"No current deployment of this core has the artifact {digest[:80]}."
            raise Fault("ResourceNotFoundException", text, status=404)
        asked.require("greengrass:GetDeploymentArtifacts", _deployment_arn(asked, found))
        return FileReply(self._cloud.artifacts.path(digest))

    async def software(self, asked: Asked) -> FileReply:
        """A registered release that an update job names; ranges are served."""
        kind, system, architecture, version = (
            asked.params[name] for name in ("Kind", "System", "Architecture", "Version")
        )
        home = asked.identity.home
        resource = f"/greengrass/updates/{kind}/{system}/{architecture}"
        asked.require("greengrass:GetSoftwareUpdate", asked.identity.arn_of("greengrass", resource))
        found = await self._store.read(lambda tx: find_software(tx, home, kind, system, architecture))
        if found is None or found["version"] != version:
            text = f"No software {kind[:80]} {version[:80]} is registered for {system[:80]}/{architecture[:80]}."
            raise Fault("ResourceNotFoundException", text, status=404)
        return FileReply(self._cloud.artifacts.path(found["digest"]))

    async def report(self, asked: Asked) -> Reply:
        """A core says how its deployment went: `DeploymentStatus`, and `ErrorMessage` with a failure."""
        group, deployment, core = (asked.params[name] for name in ("GroupId", "DeploymentId", "CoreArn"))
        identity = asked.identity
        thing = core.removeprefix(identity.arn_of("iot", "thing/"))
        if thing == core:
            raise bad(f"The core is {core[:200]}, expected the ARN of a thing in {identity.region}.")
        asked.require_thing(thing)
        raw_core = asked.request.raw_path.rstrip("/").split("/")[-2]
        resource = f"/greengrass/groups/{group}/deployments/{deployment}/cores/{raw_core}"
        asked.require("greengrass:UpdateCoreDeploymentStatus", identity.arn_of("greengrass", resource))
        body = asked.body()
        status, message = body.get("DeploymentStatus"), body.get("ErrorMessage")
        if not isinstance(status, str) or not isinstance(message, str | None):
            raise bad("Expected DeploymentStatus, a string, and with a failure ErrorMessage, a string.")
        now = self._cloud.clock.wall()

        def work(tx: Transaction) -> None:
            found = records.find(tx, identity.home, deployment)
            if found is not None and found.group != group:  # what the policy was asked about is not what would change
                text = f"The group {group[:80]} has no deployment {deployment[:80]}."
                raise Fault("ResourceNotFoundException", text, status=404)
            reports.report(tx, identity.home, thing, deployment, status, message, now)

        await self._store.write(work)
        return Reply()

    async def group_credentials(self, asked: Asked) -> Reply:
        """Short-lived keys of the group's role, for its core; with `credentialsProcess` those that the command gives,
        for a group that has a role, wherever that role is."""
        group, identity = asked.params["GroupId"], asked.identity
        arn = identity.arn_of("greengrass", f"/greengrass/groups/{group}")
        asked.require("greengrass:AssumeRoleForGroup", arn)
        handed_through = self._cloud.group_keys

        def work(tx: Transaction) -> dict[str, str]:
            core = next((thing for thing in identity.things if _is_core(tx, asked, thing, group)), None)
            if core is None:
                raise denied(f"The certificate is that of no core of the group {group[:80]}.")
            role = role_of_group(tx, identity.home, group)
            if role is None:
                raise Fault("ResourceNotFoundException", f"The group {group} has no role.", status=404)
            if handed_through is not None:
                return {}
            try:
                return role_credentials_for_core(tx, self._cloud, role, core, group_arn=arn)
            except RoleRefused as refused:
                raise denied(str(refused)) from refused

        keys = await self._store.read(work)
        if handed_through is None:
            return _credentials(keys)
        try:
            return _credentials(await handed_through.credentials())
        except PeerError as error:
            logger.error("no keys for a core group=%s: %s", group, error)
            text = "The command that gives keys to cores failed; the control plane's log says why."
            raise Fault("ServiceUnavailableException", text, status=503) from error

    async def alias_credentials(self, asked: Asked) -> Reply:
        """Short-lived keys of a role alias's role, as AWS IoT's credential provider gives them."""
        alias, identity = asked.params["Alias"], asked.identity
        thing = asked.request.headers.get("x-amzn-iot-thingname", "")
        if thing:
            asked.require_thing(thing)
        asked.require("iot:AssumeRoleWithCertificate", identity.arn_of("iot", f"rolealias/{alias}"))

        def work(tx: Transaction) -> dict[str, str]:
            found = get_role_alias(tx, identity.home, alias)
            if found is None:
                raise Fault("ResourceNotFoundException", f"The role alias {alias[:128]} does not exist.", status=404)
            arn = identity.arn_of("iot", f"rolealias/{alias}")
            try:
                return role_credentials_for_alias(
                    tx, self._cloud, found["role"], identity.certificate_id, alias_arn=arn, seconds=found["seconds"]
                )
            except RoleRefused as refused:
                raise denied(str(refused)) from refused

        return _credentials(await self._store.read(work))


def _is_core(tx: Transaction, asked: Asked, thing: str, group: str) -> bool:
    arn = asked.identity.arn_of("iot", f"thing/{thing}")
    return any(found.group_id == group and found.is_core for found in groups_of_thing(tx, asked.identity.home, arn))


def _deployment_arn(asked: Asked, found: Json) -> str:
    return asked.identity.arn_of("greengrass", f"/greengrass/groups/{found['groupId']}/deployments/{found['id']}")


def _credentials(keys: dict[str, str]) -> Reply:
    credentials = {
        "accessKeyId": keys["AccessKeyId"],
        "secretAccessKey": keys["SecretAccessKey"],
        "sessionToken": keys["SessionToken"],
        "expiration": keys["Expiration"],
    }
    return Reply({"credentials": credentials})
