"""What the control plane offers a core, read strictly: who sends it is trusted, what it says is checked all the same.

The document is the file group.json of a core, with further members for its deployment agent:

    DeviceCertificates           of each device: CertificateId, Status and, of an active one, CertificatePem
    GroupCertificateAuthorities  PEM, newest first; CertificateExpiryInMilliseconds for the local server's certificate
    ConnectivityInfo             the core's addresses as they were

`artifacts` names what has to be downloaded, by SHA-256: the packages of functions and the archives of models. Nothing
of an offer becomes part of a path unless its form was checked here. Pure.
"""

from __future__ import annotations

import hashlib
import re
import ssl
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

import orjson

from ggfast import limits
from ggfast.fields import Fields, Problems, parse_json, shown
from ggfast.group.document import Group, S3Model, SageMakerModel
from ggfast.group.ondisk import read_deployed, write_deployed
from ggfast.group.validate import GroupRules, validate

SUBJECT: Final = "The deployment that the control plane offers is not valid."
PATHS: Final = {
    kind: kind for kind in ("Cores", "Devices", "Functions", "Subscriptions", "Resources", "Loggers", "DefaultConfig")
}
"""Where the lists of a group stand for those who made it: in the definitions that the API takes."""

_ID: Final = re.compile(r"[a-zA-Z0-9-]{1,64}")
_DIGEST: Final = re.compile(r"[0-9a-f]{64}")
_STATUS: Final = re.compile(r"[A-Z_]{1,32}")
_TYPES: Final = ("NewDeployment", "Redeployment")
_ACTIVE: Final = "ACTIVE"
_PEM: Final = re.compile(r"-----BEGIN CERTIFICATE-----[A-Za-z0-9+/=\s]{1,16384}-----END CERTIFICATE-----\s*")
_BYTES_MAX: Final = {"function": limits.PACKAGE_ARCHIVE_BYTES_MAX, "model": limits.MODEL_ARCHIVE_BYTES_MAX}

Json = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Artifact:
    """One archive. `names` are the functions' ARNs and the models' resource ids it is for."""

    digest: str
    size: int
    names: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Offer:
    """A checked offer. `packages`: artifact digest by function ARN; `models`: by resource id; `certificates`: PEM by
    certificate id, of the devices that may connect; `trust`: what certificates of this group depend on."""

    id: str
    type: str
    group_id: str
    version_id: str
    group: Group
    artifacts: Mapping[str, Artifact]
    packages: Mapping[str, str]
    models: Mapping[str, str]
    certificates: Mapping[str, bytes]
    trust: Json

    @property
    def record(self) -> bytes:
        """The text of deployment.json."""
        record: Json = {"id": self.id, "type": self.type, "groupId": self.group_id, "versionId": self.version_id}
        return orjson.dumps(record | {"artifacts": dict(self.packages), "trust": self.trust})


def read_offer(data: bytes, rules: GroupRules) -> Offer:
    """The offer in the JSON text `data`, its group judged by `rules`. Raises ConfigError with all problems."""
    problems = Problems()
    if len(data) > limits.OFFER_BYTES_MAX:
        problems.add("offer", "a longer text", f"at most {limits.OFFER_BYTES_MAX} bytes")
    document = None if problems else parse_json(data, problems, "offer")
    problems.raise_if_any(SUBJECT)
    offer = _Reader(Fields(document, "", problems), rules, problems).read()
    problems.raise_if_any(SUBJECT)
    return offer


class _Reader:
    def __init__(self, top: Fields, rules: GroupRules, problems: Problems) -> None:
        self.top, self.rules, self.problems = top, rules, problems
        self.document = top.child("document")

    def read(self) -> Offer:
        top, problems = self.top, self.problems
        header = {key: top.text(key, pattern=_ID, expected="letters, digits and -") for key in ("id", "groupId")}
        version = top.text("versionId", pattern=_ID, expected="letters, digits and -")
        kind = top.choice("type", _TYPES)
        problems.raise_if_any(SUBJECT)
        group = self._group()
        if (group.group_id, group.version_id) != (header["groupId"], version):
            problems.add("document.Arn", shown(group.arn), f"version {version} of the group {header['groupId']}")
        packages, models, artifacts = self._artifacts(group)
        certificates, ended = self._certificates(group)
        trust = self._trust(header["groupId"], ended)
        return Offer(
            header["id"],
            kind,
            header["groupId"],
            version,
            group,
            artifacts,
            packages,
            models,
            certificates,
            trust,
        )

    def _group(self) -> Group:
        group = read_deployed(orjson.dumps(self.top.raw("document")))
        if group.core is None:
            self.problems.add("Cores", "0 cores", "exactly one")
            self.problems.raise_if_any(SUBJECT)
        validate(group, self.rules, self.problems, PATHS)
        size = len(write_deployed(group))
        if size > limits.GROUP_FILE_BYTES_MAX:
            self.problems.add("document", f"a group of {size} bytes", f"at most {limits.GROUP_FILE_BYTES_MAX} bytes")
        return group

    # --- artifacts ---

    def _artifacts(self, group: Group) -> tuple[dict[str, str], dict[str, str], dict[str, Artifact]]:
        """Digests by function and by model, and what has to be downloaded for them."""
        found: dict[str, dict[str, str]] = {"function": {}, "model": {}}
        artifacts: dict[str, Artifact] = {}
        for entry in self.top.children("artifacts", limits.GROUP_FUNCTIONS_MAX + limits.GROUP_RESOURCES_MAX):
            kind = entry.choice("kind", tuple(_BYTES_MAX))
            name = entry.text("name")
            digest = entry.text("digest", pattern=_DIGEST, expected="a SHA-256 of 64 hex digits")
            size = entry.integer("size", 1, _BYTES_MAX[kind], unit="bytes")
            if name in found[kind]:
                self.problems.add(entry.at("name"), shown(name), "another one: it has an artifact already")
            known = artifacts.get(digest, Artifact(digest, size, ()))
            if known.size != size:
                self.problems.add(entry.at("size"), str(size), f"{known.size} bytes, as before for this digest")
            found[kind][name] = digest
            artifacts[digest] = Artifact(digest, known.size, (*known.names, name))
        functions = {function.arn: function.code_digest for function in group.user_functions}
        models = {
            resource.id: resource.data.digest
            for resource in group.resources
            if isinstance(resource.data, S3Model | SageMakerModel)
        }
        self._compare("function", found["function"], functions)
        self._compare("model", found["model"], models)
        return found["function"], found["model"], artifacts

    def _compare(self, kind: str, offered: Mapping[str, str], wanted: Mapping[str, str]) -> None:
        for name, digest in wanted.items():
            if offered.get(name) != digest or not digest:
                where = f"artifacts: the {kind} {shown(name)}"
                found = shown(offered.get(name)) if name in offered else "nothing"
                self.problems.add(where, found, f"the artifact {digest or 'with a digest'} that the document names")
        for name in offered.keys() - wanted.keys():
            self.problems.add("artifacts", f"the {kind} {shown(name)}", f"{kind}s of the document")

    # --- certificates ---

    def _certificates(self, group: Group) -> tuple[dict[str, bytes], list[str]]:
        """PEM by id of the devices that may connect, and the ids of those that may not."""
        active: dict[str, bytes] = {}
        seen: dict[str, str] = {}
        for entry in self.document.children("DeviceCertificates", limits.GROUP_DEVICES_MAX):
            identifier = entry.text("CertificateId", pattern=_DIGEST, expected="64 hex digits")
            seen[identifier] = entry.text("Status", pattern=_STATUS, expected="a status of a certificate")
            if seen[identifier] == _ACTIVE:
                pem = entry.text(
                    "CertificatePem",
                    pattern=_PEM,
                    expected="a certificate in PEM form",
                    characters_max=limits.CERTIFICATE_FILE_BYTES_MAX,
                )
                found, active[identifier] = _normal(pem)
                if found != identifier:
                    self.problems.add(entry.at("CertificatePem"), f"the certificate {found or '?'}", identifier)
        wanted = {device.certificate_id for device in group.devices if _has_certificate_id(device.certificate_arn)}
        for identifier in sorted(wanted - seen.keys()):
            self.problems.add("document.DeviceCertificates", "nothing", f"the status of the certificate {identifier}")
        ended = sorted(identifier for identifier in wanted if seen.get(identifier) != _ACTIVE)
        return {identifier: pem for identifier, pem in active.items() if identifier in wanted}, ended

    def _trust(self, group_id: str, ended: list[str]) -> Json:
        """The members of the control plane's `trust` that a deployment brings along."""
        document = self.document
        authorities = document.values("GroupCertificateAuthorities", limits.OFFER_AUTHORITIES_MAX)
        for position, found in enumerate(authorities):
            if not isinstance(found, str) or not _PEM.fullmatch(found) or not _normal(found)[0]:
                where = f"document.GroupCertificateAuthorities[{position}]"
                self.problems.add(where, shown(found), "a certificate in PEM form")
        addresses = document.children("ConnectivityInfo", limits.OFFER_ADDRESSES_MAX)
        trust: Json = {"groupId": group_id, "endedCertificates": ended, "authorities": authorities}
        if document.has("CertificateExpiryInMilliseconds"):
            seconds_max = limits.SERVER_CERTIFICATE_DAYS_MAX * 86_400
            trust["certificateSeconds"] = (
                document.integer("CertificateExpiryInMilliseconds", 1_000, seconds_max * 1_000) // 1_000
            )
        trust["connectivity"] = [
            {
                "Id": entry.text("Id", default=""),
                "HostAddress": entry.text("HostAddress"),
                "PortNumber": entry.integer("PortNumber", 0, 65_535, default=0),
                "Metadata": entry.text("Metadata", default=""),
            }
            for entry in addresses
        ]
        return trust


def _has_certificate_id(arn: str) -> bool:
    return _DIGEST.fullmatch(arn.rpartition("/")[2]) is not None


def _normal(pem: str) -> tuple[str, bytes]:
    """Id and tidy form of a certificate; empty if it is none."""
    try:
        der = ssl.PEM_cert_to_DER_cert(pem.strip())
    except ValueError:
        return "", b""
    return hashlib.sha256(der).hexdigest(), ssl.DER_cert_to_PEM_cert(der).encode()
