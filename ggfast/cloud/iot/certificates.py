"""Device certificates: made here, or registered as they are (cloud-api 7).

An id is the SHA-256 of the certificate, the same everywhere; a certificate may be registered in several regions, in
each of them once. Private keys are given out and not kept. Sources of the rules: cloud-api 7 notes, section 12.
"""

from __future__ import annotations

import uuid
from dataclasses import dataclass
from typing import Any

from ggfast.cloud.events import CertificateEnded, CertificateTrusted, PermissionsChanged
from ggfast.cloud.faults import Fault
from ggfast.cloud.iot.lookups import (
    ATTACHMENTS,
    CERTIFICATES,
    certificates_of_thing,
    everything_found,
    things_of_certificate,
)
from ggfast.cloud.iot.relying import certificate_changed
from ggfast.cloud.iot.service import CERTIFICATE_ID, IOT, exists, in_use, name_in_arn, not_found
from ggfast.cloud.operations import Call, Reply, entries, paged
from ggfast.cloud.shapes import Choice, Flag, Text, need, query
from ggfast.cloud.store.interface import Body, Document, Transaction
from ggfast.cloud.surroundings import Surroundings

__all__ = ["anchors", "certificates_of_thing", "get_certificate", "homes_of_certificate", "required_principal"]

ACTIVE, INACTIVE, REVOKED = "ACTIVE", "INACTIVE", "REVOKED"
_SETTABLE = (ACTIVE, INACTIVE, REVOKED)
_STATUSES = Choice(*_SETTABLE, "PENDING_TRANSFER", "REGISTER_INACTIVE", "PENDING_ACTIVATION")
_COMMON_NAME = "AWS IoT Certificate"  # what the service we replace writes; scripts look for it
_PEM = Text(1, 65_536)
_RESOURCE = "cert/{certificateId}"


@dataclass(frozen=True, slots=True)
class Ready:
    """A certificate that `before` has made or checked."""

    id: str
    pem: str
    not_before: float
    not_after: float
    ours: bool  # our CA signed it
    ca_id: str = ""
    public_key: str = ""
    private_key: str = ""


def get_certificate(tx: Transaction, home: str, certificate_id: str) -> Body | None:
    """A certificate: `status`, `pem`, `region`, `ours`, `not_before`, `not_after`; None if there is none."""
    return tx.get(CERTIFICATES, home, certificate_id)


def homes_of_certificate(tx: Transaction, certificate_id: str) -> list[str]:
    """The homes it is registered in, the oldest registration first: a device's region is its certificate's."""
    return [document.parent for document in everything_found(tx, CERTIFICATES, "id", certificate_id)]


def anchors(tx: Transaction) -> list[str]:
    """PEM of every registered certificate that our CA did not sign: each is its own trust anchor, whatever its
    status, which is looked at when a device connects."""
    return [document.body["pem"] for document in everything_found(tx, CERTIFICATES, "ours", "no")]


def required_principal(call: Call, arn: str) -> str:
    """The id of the certificate whose ARN a request gives as principal or target; 400 or 404."""
    certificate_id = name_in_arn(call, arn, "cert")
    if certificate_id is None and (not arn.startswith("arn:aws:iot:") or ":cert/" not in arn):
        raise call.invalid("principal", arn, f"a certificate's ARN, {call.arn('cert/<id>')}")
    if certificate_id is None or get_certificate(call.tx, call.home, certificate_id) is None:
        raise not_found("certificate", arn)
    return certificate_id


# --- making and registering ------------------------------------------------------------------------------


def _made(cloud: Surroundings, pem: str, public_key: str = "", private_key: str = "") -> Ready:
    certificate_id, not_before, not_after = cloud.authority.check(pem)
    return Ready(certificate_id, pem, not_before, not_after, True, "", public_key, private_key)


def _new_keys(cloud: Surroundings, _params: dict[str, Any]) -> Ready:
    return _made(cloud, *cloud.authority.new_keys_and_certificate(_COMMON_NAME))


def _from_csr(cloud: Surroundings, params: dict[str, Any]) -> Ready:
    try:
        pem = cloud.authority.certificate_for(params["certificateSigningRequest"])
    except ValueError as error:
        raise Fault("InvalidRequestException", f"The certificate signing request cannot be used: {error}.") from error
    return _made(cloud, pem)


def _given(cloud: Surroundings, params: dict[str, Any]) -> Ready:
    """Check a certificate that a request brings; and its CA, if that comes with it."""
    pem, ca_pem = params["certificatePem"], params.get("caCertificatePem", "")
    try:
        if pem.count("-----BEGIN ") != 1:  # a second one would become a trust anchor with it
            raise ValueError(f"found {pem.count('-----BEGIN ')} PEM blocks, expected one certificate")
        certificate_id, not_before, not_after = cloud.authority.check(pem)
        if not_after <= cloud.clock.wall():
            raise ValueError("it has expired")
        ca_id = cloud.authority.check(ca_pem)[0] if ca_pem else ""
        ours = cloud.authority.issued(pem)
        if ca_pem and not cloud.authority.issued(pem, ca_pem):
            raise ValueError("the given CA certificate did not sign it")
    except ValueError as error:
        raise _invalid_certificate(f"The certificate cannot be registered: {error}.") from error
    return Ready(certificate_id, pem, not_before, not_after, ours, ca_id)


def _given_with_ca(cloud: Surroundings, params: dict[str, Any]) -> Ready:
    ready = _given(cloud, params)
    if not ready.ours and not ready.ca_id:
        raise _invalid_certificate(
            "The certificate cannot be registered: none of our CAs signed it. Give the CA as caCertificatePem,"
            " or use RegisterCertificateWithoutCA."
        )
    return ready


@IOT.operation(
    "CreateKeysAndCertificate",
    "POST /keys-and-certificate",
    {"setAsActive": query(Flag())},
    writes=True,
    before=_new_keys,
)
def create_keys_and_certificate(call: Call) -> Reply:
    """A new key pair and its certificate. This answer is the only place where the private key is ever seen."""
    ready: Ready = call.prepared
    members = _keep(call, ready, ACTIVE if call.params.get("setAsActive") else INACTIVE)
    keys = {"PublicKey": ready.public_key, "PrivateKey": ready.private_key}
    return Reply(members | {"certificatePem": ready.pem, "keyPair": keys})


@IOT.operation(
    "CreateCertificateFromCsr",
    "POST /certificates",
    {"certificateSigningRequest": need(Text(1, 4_096)), "setAsActive": query(Flag())},
    writes=True,
    before=_from_csr,
)
def create_certificate_from_csr(call: Call) -> Reply:
    """A certificate for a key that stays where it is."""
    ready: Ready = call.prepared
    members = _keep(call, ready, ACTIVE if call.params.get("setAsActive") else INACTIVE)
    return Reply(members | {"certificatePem": ready.pem})


@IOT.operation(
    "RegisterCertificate",
    "POST /certificate/register",
    {
        "certificatePem": need(_PEM),
        "caCertificatePem": _PEM,
        "setAsActive": query(Flag()),
        "status": Choice(*_SETTABLE),
    },
    writes=True,
    before=_given_with_ca,
)
def register_certificate(call: Call) -> Reply:
    """Take a certificate of somebody's CA."""
    default = ACTIVE if call.params.get("setAsActive") else INACTIVE
    return Reply(_keep(call, call.prepared, call.params.get("status", default)))


@IOT.operation(
    "RegisterCertificateWithoutCA",
    "POST /certificate/register-no-ca",
    {"certificatePem": need(_PEM), "status": Choice(*_SETTABLE)},
    writes=True,
    before=_given,
)
def register_certificate_without_ca(call: Call) -> Reply:
    """Take a certificate whoever signed it."""
    return Reply(_keep(call, call.prepared, call.params.get("status", INACTIVE), mode="SNI_ONLY"))


# --- the rest of its life ---------------------------------------------------------------------------------


@IOT.operation(
    "DescribeCertificate", "GET /certificates/{certificateId}", {"certificateId": CERTIFICATE_ID}, resource=_RESOURCE
)
def describe_certificate(call: Call) -> Reply:
    """All about a certificate but its private key."""
    certificate_id, body = _required(call)
    description = {
        **_entry(call, Document(call.home, certificate_id, body)),
        "certificatePem": body["pem"],
        "ownedBy": call.account,
        "lastModifiedDate": body["modified"],
        "customerVersion": body["version"],
        "transferData": {},
        "generationId": body["generation"],
        "validity": {"notBefore": body["not_before"], "notAfter": body["not_after"]},
    }
    if body["ca_id"]:
        description["caCertificateId"] = body["ca_id"]
    return Reply({"certificateDescription": description})


@IOT.operation(
    "UpdateCertificate",
    "PUT /certificates/{certificateId}",
    {"certificateId": CERTIFICATE_ID, "newStatus": query(_STATUSES, required=True)},
    writes=True,
    resource=_RESOURCE,
)
def update_certificate(call: Call) -> Reply:
    """Set its status. Whoever is connected with a certificate that is no longer active is cut off."""
    status = call.params["newStatus"]
    if status not in _SETTABLE:
        raise call.invalid("newStatus", status, f"one of {', '.join(_SETTABLE)}: others are set by the service itself")
    certificate_id, body = _required(call)
    if body["status"] == status:
        return Reply()
    ended = body["status"] == ACTIVE
    body |= {"status": status, "modified": call.cloud.clock.wall(), "version": body["version"] + 1}
    call.tx.put(CERTIFICATES, call.home, certificate_id, body)
    call.tx.tell(CertificateEnded(certificate_id) if ended else PermissionsChanged(certificate_id))
    certificate_changed(call.tx, call.home, certificate_id)
    return Reply()


@IOT.operation(
    "DeleteCertificate",
    "DELETE /certificates/{certificateId}",
    {"certificateId": CERTIFICATE_ID, "forceDelete": query(Flag())},
    writes=True,
    resource=_RESOURCE,
)
def delete_certificate(call: Call) -> Reply:
    """Remove one that is not active and not attached; `forceDelete` detaches its policies, not its things."""
    certificate_id, body = _required(call)
    arn = call.arn(f"cert/{certificate_id}")
    if body["status"] == ACTIVE:
        raise Fault(
            "CertificateStateException",
            f"Certificate must be deactivated (not ACTIVE) before deletion. Id: {certificate_id}",
            status=406,
        )
    if things_of_certificate(call.tx, call.home, certificate_id):
        raise in_use(f"Things must be detached before deletion (arn: {arn})")
    policies = f"{call.home}/cert/{certificate_id}"
    if call.params.get("forceDelete"):
        call.tx.delete_all(ATTACHMENTS, policies)
    elif call.tx.count(ATTACHMENTS, policies):
        raise in_use(f"Certificate policies must be detached before deletion (arn: {arn})")
    call.tx.delete(CERTIFICATES, call.home, certificate_id)
    call.tx.tell(PermissionsChanged(certificate_id))
    certificate_changed(call.tx, call.home, certificate_id)
    return Reply()


@IOT.operation(
    "ListCertificates",
    "GET /certificates",
    {**paged("marker", "pageSize"), "ascendingOrder": query(Flag(), "isAscendingOrder")},
)
def list_certificates(call: Call) -> Reply:
    """All certificates, the newest first unless the request wants it otherwise."""
    page = call.list(CERTIFICATES, call.home, newest_first=not call.params.get("ascendingOrder", False))
    return entries(page, lambda document: _entry(call, document), "certificates", "nextMarker")


def _keep(call: Call, ready: Ready, status: str, mode: str = "DEFAULT") -> dict[str, Any]:
    """Write a certificate; the members every answer has. Refuse with 409 what is registered here already."""
    arn = call.arn(f"cert/{ready.id}")
    now = call.cloud.clock.wall()
    body = {
        "status": status,
        "pem": ready.pem,
        "region": call.region,
        "ours": ready.ours,
        "not_before": ready.not_before,
        "not_after": ready.not_after,
        "ca_id": ready.ca_id,
        "mode": mode,
        "created": now,
        "modified": now,
        "version": 1,
        "generation": str(uuid.uuid4()),
    }
    labels = {"id": [ready.id], "ours": ["yes" if ready.ours else "no"]}
    if not call.tx.create(CERTIFICATES, call.home, ready.id, body, labels):
        raise exists("The certificate is already provisioned or registered", ready.id, arn)
    if not ready.ours:
        call.tx.tell(CertificateTrusted(ready.pem))
    call.tx.tell(PermissionsChanged(ready.id))
    certificate_changed(call.tx, call.home, ready.id)
    return {"certificateArn": arn, "certificateId": ready.id}


def _required(call: Call) -> tuple[str, Body]:
    certificate_id = call.params["certificateId"]
    body = get_certificate(call.tx, call.home, certificate_id)
    if body is None:
        raise not_found("certificate", certificate_id)
    return certificate_id, body


def _entry(call: Call, document: Document) -> dict[str, Any]:
    return {
        "certificateArn": call.arn(f"cert/{document.name}"),
        "certificateId": document.name,
        "status": document.body["status"],
        "certificateMode": document.body["mode"],
        "creationDate": document.body["created"],
    }


def _invalid_certificate(message: str) -> Fault:
    return Fault("CertificateValidationException", message)
