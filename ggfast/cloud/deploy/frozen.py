"""From a group version to what its core runs: everything it refers to, as it is at this moment (greengrass-core 12.2).

The document is the file group.json of a core (greengrass-core 2.4), so that `group/ondisk.py` reads it, with further
members for the core's deployment agent:

    DeviceCertificates         of each device: CertificateId, Status and, of an active one, CertificatePem
    GroupCertificateAuthorities  PEM, newest first; CertificateExpiryInMilliseconds for the local server's certificate
    ConnectivityInfo           the core's addresses as they were
    Secrets                    of each secret resource: ResourceId, ARN, and Versions, the version ids by staging label

Function ARNs carry versions: an alias is looked up once, here. `DeploymentConfiguration` of a function and
`ArchiveSha256` of a model measure the archives, which are the deployment's artifacts; a core that has unpacked a
package puts its own measure in place of the first.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, Final

import orjson

from ggfast import arns, limits
from ggfast.arns import ThingArn
from ggfast.cloud.deploy.objects import find_object
from ggfast.cloud.deploy.reasons import NotDeployable, reasons_of
from ggfast.cloud.functions.store import resolve
from ggfast.cloud.greengrass.authorities import certificate_expiry, group_cas
from ggfast.cloud.greengrass.connectivity import connectivity_of
from ggfast.cloud.greengrass.definitions import get_definition_version
from ggfast.cloud.greengrass.kinds import KINDS
from ggfast.cloud.iot.certificates import get_certificate
from ggfast.cloud.iot.things import get_thing
from ggfast.cloud.secrets.store import CURRENT, find_secret
from ggfast.cloud.store.interface import Transaction
from ggfast.config import MessageLimits, Profile
from ggfast.fields import Problems, shown
from ggfast.group.document import Core, Device, Function, Group, Resource, S3Model, SageMakerModel, Secret
from ggfast.group.folder import read_folder
from ggfast.group.ondisk import write_deployed
from ggfast.group.validate import GroupRules, validate

# What the core's own settings decide (root, its paths, the strictness of its profile) is the core's to refuse.
_RULES: Final = GroupRules(messages=MessageLimits.of(Profile.OPEN), allow_root=True, at_core=False)
_NO_CODE: Final = {"Handler": "unknown.handler", "Runtime": "python3", "Code": "-"}  # so that the rest is judged too
_SECRET: Final = "SecretsManagerSecretResourceData"
_MODELS: Final = {
    "S3MachineLearningModelResourceData": "S3Uri",
    "SageMakerMachineLearningModelResourceData": "SageMakerJobArn",
}

Json = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Frozen:
    """A deployable group version: the document, the archives it needs (kind, name, digest, size), its core, and of
    each device certificate id and thing's name."""

    document: Json
    artifacts: list[Json]
    thing: str
    devices: list[tuple[str, str]]


def cores_of(tx: Transaction, home: str, references: Json) -> list[Json]:
    """The cores of a group version; `references` is its content."""
    content = get_definition_version(tx, home, references.get("CoreDefinitionVersionArn", ""), "cores")
    return list((content or {}).get("Cores", []))


def freeze(
    tx: Transaction, home: str, group_id: str, name: str, version_id: str, references: Json, now: float
) -> Frozen:
    """What the core of this group version would run. `references` is the version's content, seven ARNs; `now` is in
    seconds since 1970.

    Raises NotDeployable with every reason. Reads and changes nothing.
    """
    return _Freezer(tx, home, group_id, version_id, references, now).freeze(name)


class _Freezer:
    def __init__(
        self, tx: Transaction, home: str, group_id: str, version_id: str, references: Json, now: float
    ) -> None:
        self.tx, self.home, self.now = tx, home, now
        self.group_id, self.version_id = group_id, version_id
        self.references = references
        self.account, _, self.region = home.partition("/")
        self.problems = Problems()
        self.functions: dict[str, Json] = {}  # what an ARN as written came to
        self.models: dict[str, Json] = {}  # digest and size by resource id
        self.secrets: dict[str, Json] = {}  # version ids by label, by resource id
        self.certificates: dict[str, Json] = {}

    def freeze(self, name: str) -> Frozen:
        contents = self._contents()
        read = read_folder(self._folder(name, contents), self.problems)
        validate(read.group, _RULES, self.problems, read.paths)
        self._check_things(read.group)
        self._raise_if_any()
        group = self._resolved(read.group)
        validate(group, _RULES, self.problems, read.paths)  # two aliases may be one version
        self._raise_if_any()
        assert group.core is not None
        document = orjson.loads(write_deployed(group))
        document |= self._for_the_agent(group, group.core)
        devices = [(arns.certificate_id(each.certificate_arn), each.thing_name) for each in group.devices]
        return Frozen(document, self._artifacts(group), group.core.thing_name, devices)

    def _raise_if_any(self) -> None:
        if self.problems:
            raise NotDeployable(reasons_of(self.problems))

    # --- what the group version says -------------------------------------------------------------------

    def _contents(self) -> dict[str, Json]:
        """The content of each definition version referred to. Raises NotDeployable if one is no more."""
        found, gone = {}, []
        for kind in KINDS:
            arn = self.references.get(kind.reference_member, "")
            content = get_definition_version(self.tx, self.home, arn, kind.path) if arn else {}
            if content is None:
                gone.append(f"{kind.referred} definition reference does not exist")
            else:
                found[kind.name] = content
        if gone:
            raise NotDeployable(
                [{"DetailedErrorCode": "DEFINITION_NOT_FOUND_ERROR", "DetailedErrorMessage": text} for text in gone]
            )
        return found

    def _folder(self, name: str, contents: dict[str, Json]) -> Json:
        """The group in the shape that `group/folder.py` reads: definitions with code and archives beside them."""
        functions = contents["Function"].get("Functions", [])
        resources = contents["Resource"].get("Resources", [])
        return {
            "Name": name or self.group_id,
            "GroupId": self.group_id,
            "Region": self.region,
            "Account": self.account,
            "Cores": contents["Core"].get("Cores", []),
            "Devices": contents["Device"].get("Devices", []),
            "Functions": [self._function(at, entry) for at, entry in enumerate(functions)],
            "DefaultConfig": contents["Function"].get("DefaultConfig", {}),
            "Subscriptions": contents["Subscription"].get("Subscriptions", []),
            "Resources": [self._resource(at, entry) for at, entry in enumerate(resources)],
            "Loggers": contents["Logger"].get("Loggers", []),
            "Connectors": contents["Connector"].get("Connectors", []),
        }

    # --- what it refers to -----------------------------------------------------------------------------

    def _function(self, position: int, entry: Json) -> Json:
        """A function with what its version or alias is now."""
        arn = entry.get("FunctionArn", "")
        if not arn or arn.startswith("arn:aws:lambda:::function:"):
            return entry
        path = f"Functions[{position}].FunctionArn"
        found = resolve(self.tx, self.home, arn) if _is_qualified(arn) else None
        if _is_qualified(arn) and found is None:
            expected = f"a published version, or an alias of one, that exists in {self.region} of {self.account}"
            self.problems.add(path, shown(arn), expected)
        elif found is not None and found["latest"] and not arn.endswith(":$LATEST"):  # the reader refuses the plain one
            self.problems.add(path, shown(arn), "an alias of a published version: this one leads to $LATEST")
        if found is None or found["latest"]:
            return entry | _NO_CODE
        self.functions[arn] = found
        settings = found["configuration"]
        if not found["digest"]:
            self.problems.add(path, f"{shown(arn)}, which has no code", "a function with a package")
        return entry | {
            "Handler": settings.get("Handler", ""),
            "Runtime": settings.get("Runtime", ""),
            "Code": found["digest"] or "-",
        }

    def _resource(self, position: int, entry: Json) -> Json:
        """A resource; a model with the digest of the archive that its address means."""
        container = entry["ResourceDataContainer"]
        if _SECRET in container:
            self._check_secret(position, entry["Id"], container[_SECRET])
        given = next((kind for kind in _MODELS if kind in container), None)
        if given is None:
            return entry
        address = container[given].get(_MODELS[given], "")
        found = find_object(self.tx, self.home, address) if address else None
        if found is None and address:
            text = f"The group refers to a resource {entry['Id']} with nonexistent S3 object {shown(address)}. "
            text += "Register the model's .zip or .tar.gz under this address and deploy again."
            self.problems.refuse(
                f"Resources[{position}].ResourceDataContainer.{given}.{_MODELS[given]}",
                text,
                found=shown(address),
                expected="the address of a registered object",
            )
        if found is not None:
            self.models[entry["Id"]] = found
        return entry | {"Archive": "-" if found is None else found["digest"]}

    def _check_secret(self, position: int, resource: str, secret: Json) -> None:
        """The secret is there, with every staging label that is wanted; which versions those are is kept."""
        path = f"Resources[{position}].ResourceDataContainer.{_SECRET}"
        arn = secret.get("ARN", "")
        found = find_secret(self.tx, self.home, arn, self.now) if arn.startswith("arn:") else None
        if found is None or found["ends"] is not None:
            expected = f"a secret that exists in {self.region} of {self.account} and is not being deleted"
            self.problems.add(f"{path}.ARN", shown(arn), expected)
            return
        labels = [CURRENT, *secret.get("AdditionalStagingLabelsToDownload", [])]
        for label in labels:
            if label not in found["stages"]:
                expected = f"staging labels of {arn}: " + ", ".join(sorted(found["stages"]))
                self.problems.add(f"{path}.AdditionalStagingLabelsToDownload", shown(label), expected)
        self.secrets[resource] = {label: found["stages"].get(label, "") for label in labels}

    def _check_things(self, group: Group) -> None:
        """The core and every device are registered here, with their certificates."""
        core = group.core
        for path, member in ([("Cores[0]", core)] if core else []) + [
            (f"Devices[{at}]", device) for at, device in enumerate(group.devices)
        ]:
            self._check_thing(path, member)

    def _check_thing(self, path: str, member: Core | Device) -> None:
        try:
            thing = ThingArn.parse(member.thing_arn)
            identifier = arns.certificate_id(member.certificate_arn)
        except ValueError:
            return  # noted already
        here = f"in {self.region} of {self.account}"
        if (thing.account, thing.region) != (self.account, self.region) or (
            get_thing(self.tx, self.home, thing.name) is None
        ):
            self.problems.add(f"{path}.ThingArn", shown(member.thing_arn), f"a thing that exists {here}")
        certificate = get_certificate(self.tx, self.home, identifier)
        if certificate is None:
            self.problems.add(
                f"{path}.CertificateArn", shown(member.certificate_arn), f"a certificate that is registered {here}"
            )
            return
        found = {"CertificateId": identifier, "Status": certificate["status"]}
        if certificate["status"] == "ACTIVE":
            found["CertificatePem"] = certificate["pem"]
        if isinstance(member, Device):
            self.certificates[identifier] = found

    # --- what comes out --------------------------------------------------------------------------------

    def _resolved(self, group: Group) -> Group:
        """The group with versions for aliases, in functions and subscriptions, and with archives measured."""
        versions = {arn: found["arn"] for arn, found in self.functions.items()}

        def function(entry: Function) -> Function:
            found = self.functions.get(entry.arn)
            if found is None:
                return replace(entry, code="")
            return replace(entry, arn=found["arn"], code="", code_digest=found["digest"], code_bytes=found["size"])

        def resource(entry: Resource) -> Resource:
            if not isinstance(entry.data, S3Model | SageMakerModel):
                return entry
            return replace(entry, data=replace(entry.data, archive="", digest=self.models[entry.id]["digest"]))

        return replace(
            group,
            version_id=self.version_id,
            functions=tuple(function(entry) for entry in group.functions),
            resources=tuple(resource(entry) for entry in group.resources),
            subscriptions=tuple(
                replace(
                    entry,
                    source=versions.get(entry.source, entry.source),
                    target=versions.get(entry.target, entry.target),
                )
                for entry in group.subscriptions
            ),
        )

    def _for_the_agent(self, group: Group, core: Core) -> Json:
        return {
            "DeviceCertificates": list(self.certificates.values()),
            "GroupCertificateAuthorities": [found["pem"] for found in group_cas(self.tx, self.home, self.group_id)],
            "CertificateExpiryInMilliseconds": certificate_expiry(self.tx, self.home, self.group_id),
            "ConnectivityInfo": connectivity_of(self.tx, self.home, core.thing_name),
            "Secrets": [
                {"ResourceId": resource.id, "ARN": resource.data.arn, "Versions": self.secrets[resource.id]}
                for resource in group.resources
                if isinstance(resource.data, Secret)
            ],
        }

    def _artifacts(self, group: Group) -> list[Json]:
        code = [
            {"kind": "function", "name": found["arn"], "digest": found["digest"], "size": found["size"]}
            for found in self.functions.values()
        ]
        models = [{"kind": "model", "name": name, **found} for name, found in self.models.items()]
        assert len(code) + len(models) <= limits.GROUP_FUNCTIONS_MAX + limits.GROUP_RESOURCES_MAX
        return code + models


def _is_qualified(arn: str) -> bool:
    try:
        return bool(arns.FunctionArn.parse(arn).qualifier)
    except ValueError:
        return False
