"""Device certificates: made, registered, switched, deleted, listed."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from cloud_desk import ACCOUNT, REGION, Desk, authority
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from iot_support import DOCUMENT, Registry, foreign, request

from ggfast.cloud.events import CertificateEnded, CertificateTrusted, PermissionsChanged
from ggfast.cloud.iot import IOT
from ggfast.cloud.iot.certificates import anchors, get_certificate, homes_of_certificate

HOME = f"{ACCOUNT}/{REGION}"
ARN = f"arn:aws:iot:{REGION}:{ACCOUNT}:"
NOT_FOUND = (404, "ResourceNotFoundException")
INVALID = (400, "InvalidRequestException")
TAKEN = (409, "ResourceAlreadyExistsException")
CONFLICT = (409, "DeleteConflictException")
BAD_CERTIFICATE = (400, "CertificateValidationException")


@pytest.fixture
def iot(tmp_path: Path) -> Iterator[Registry]:
    desk = Desk(tmp_path, IOT)
    yield Registry(desk)
    desk.close()


# --- certificates ----------------------------------------------------------------------------------------


def test_keys_and_certificate_belong_together_and_the_key_is_not_kept(iot: Registry, tmp_path: Path) -> None:
    made = iot("CreateKeysAndCertificate", setAsActive=True)
    key = serialization.load_pem_private_key(made["keyPair"]["PrivateKey"].encode(), None)
    certificate = x509.load_pem_x509_certificate(made["certificatePem"].encode())
    form = serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
    public = certificate.public_key().public_bytes(*form).decode()
    assert key.public_key().public_bytes(*form).decode() == public == made["keyPair"]["PublicKey"]
    assert authority().issued(made["certificatePem"])
    assert made["certificateArn"] == f"{ARN}cert/{made['certificateId']}"
    described = iot("DescribeCertificate", certificateId=made["certificateId"])["certificateDescription"]
    assert described["status"] == "ACTIVE" and described["certificatePem"] == made["certificatePem"]
    assert described["validity"]["notBefore"] < described["validity"]["notAfter"]
    secret = made["keyPair"]["PrivateKey"].splitlines()[1].encode()
    kept = b"".join(path.read_bytes() for path in tmp_path.rglob("*") if path.is_file())
    assert made["certificateId"].encode() in kept and secret not in kept


def test_keys_on_weak_curves_get_no_certificate(iot: Registry) -> None:
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "device")])
    for curve, fits in ((ec.SECP192R1(), False), (ec.SECP256K1(), False), (ec.SECP384R1(), True)):
        key = ec.generate_private_key(curve)
        built = x509.CertificateSigningRequestBuilder().subject_name(name).sign(key, hashes.SHA256())
        text = built.public_bytes(serialization.Encoding.PEM).decode()
        if fits:
            iot("CreateCertificateFromCsr", certificateSigningRequest=text)
        else:
            assert iot.refused("CreateCertificateFromCsr", certificateSigningRequest=text) == INVALID


def test_a_certificate_from_a_request(iot: Registry) -> None:
    made = iot("CreateCertificateFromCsr", certificateSigningRequest=request())
    described = iot("DescribeCertificate", certificateId=made["certificateId"].upper())["certificateDescription"]
    assert described["status"] == "INACTIVE" and described["ownedBy"] == ACCOUNT
    for wrong in ("x", "", "-----BEGIN CERTIFICATE REQUEST-----\nAAAA\n-----END CERTIFICATE REQUEST-----", "x" * 4_097):
        assert iot.refused("CreateCertificateFromCsr", certificateSigningRequest=wrong) == INVALID
    assert len(iot("ListCertificates")["certificates"]) == 1


def test_certificates_of_others_are_registered_and_trusted(iot: Registry) -> None:
    pem = foreign("theirs")
    made = iot("RegisterCertificateWithoutCA", certificatePem=pem, status="ACTIVE")
    certificate_id = made["certificateId"]
    assert CertificateTrusted(pem) in iot.told()
    assert iot.desk.look(anchors) == [pem]
    assert iot.desk.look(lambda tx: homes_of_certificate(tx, certificate_id)) == [HOME]
    known = iot.desk.look(lambda tx: get_certificate(tx, HOME, certificate_id))
    assert known is not None and (known["status"], known["pem"], known["region"]) == ("ACTIVE", pem, REGION)

    fault = iot.desk.refused("RegisterCertificateWithoutCA", certificatePem=pem)
    assert (fault.status, fault.code) == TAKEN
    assert fault.members == {"resourceId": certificate_id, "resourceArn": made["certificateArn"]}
    iot("RegisterCertificateWithoutCA", certificatePem=pem, region="us-east-1")
    assert iot.desk.look(lambda tx: homes_of_certificate(tx, certificate_id)) == [HOME, f"{ACCOUNT}/us-east-1"]
    iot("UpdateCertificate", certificateId=certificate_id, newStatus="REVOKED")
    iot("DeleteCertificate", certificateId=certificate_id)
    assert iot.desk.look(lambda tx: homes_of_certificate(tx, certificate_id)) == [f"{ACCOUNT}/us-east-1"]
    assert iot.desk.look(lambda tx: get_certificate(tx, HOME, certificate_id)) is None


def test_registering_with_a_ca(iot: Registry) -> None:
    ca = foreign("their CA", ca=True)
    pem = foreign("leaf", issuer="their CA")
    made = iot("RegisterCertificate", certificatePem=pem, caCertificatePem=ca, setAsActive=True)
    described = iot("DescribeCertificate", certificateId=made["certificateId"])["certificateDescription"]
    assert described["status"] == "ACTIVE" and described["caCertificateId"] == authority().check(ca)[0]
    assert iot.refused("RegisterCertificate", certificatePem=foreign("leaf", issuer="their CA")) == BAD_CERTIFICATE
    other = {"certificatePem": foreign("leaf", issuer="their CA"), "caCertificatePem": foreign("another", ca=True)}
    assert iot.refused("RegisterCertificate", **other) == BAD_CERTIFICATE
    ours = authority().certificate_for(request())
    iot("RegisterCertificate", certificatePem=ours)
    assert iot.desk.look(anchors) == [pem], "ours needs no anchor of its own"


@pytest.mark.parametrize(
    "pem",
    [
        "x",
        "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----",
        foreign("one") + foreign("two", ca=True),
        "ü" * 100,
    ],
)
def test_certificates_that_are_none(iot: Registry, pem: str) -> None:
    assert iot.refused("RegisterCertificateWithoutCA", certificatePem=pem) == BAD_CERTIFICATE
    assert iot.refused("RegisterCertificate", certificatePem=pem) == BAD_CERTIFICATE
    assert iot("ListCertificates") == {"certificates": []}


def test_an_expired_certificate_is_not_registered(iot: Registry) -> None:
    pem = foreign("old")
    iot.desk.clock.now = x509.load_pem_x509_certificate(pem.encode()).not_valid_after_utc.timestamp()
    assert iot.refused("RegisterCertificateWithoutCA", certificatePem=pem) == BAD_CERTIFICATE
    iot.desk.clock.now -= 1
    iot("RegisterCertificateWithoutCA", certificatePem=pem)


def test_statuses_and_what_others_hear_of_them(iot: Registry) -> None:
    certificate_id, _ = iot.certificate()
    iot.told()
    iot("UpdateCertificate", certificateId=certificate_id, newStatus="ACTIVE")
    iot("UpdateCertificate", certificateId=certificate_id, newStatus="ACTIVE")
    assert iot.told() == [PermissionsChanged(certificate_id)]
    iot("UpdateCertificate", certificateId=certificate_id, newStatus="INACTIVE")
    assert iot.told() == [CertificateEnded(certificate_id)]
    iot("UpdateCertificate", certificateId=certificate_id, newStatus="REVOKED")
    assert iot.desk.call("DescribeCertificate", certificateId=certificate_id)["certificateDescription"]["status"] == (
        "REVOKED"
    )
    for status in ("PENDING_TRANSFER", "PENDING_ACTIVATION", "REGISTER_INACTIVE", "active", ""):
        assert iot.refused("UpdateCertificate", certificateId=certificate_id, newStatus=status) == INVALID
    assert iot.refused("UpdateCertificate", certificateId="0" * 64, newStatus="ACTIVE") == NOT_FOUND


def test_deleting_a_certificate_wants_it_free(iot: Registry) -> None:
    certificate_id, arn = iot.certificate(active=True)
    iot("CreateThing", thingName="a")
    iot("AttachThingPrincipal", thingName="a", principal=arn)
    iot("CreatePolicy", policyName="p", policyDocument=DOCUMENT)
    iot("AttachPolicy", policyName="p", target=arn)
    fault = iot.desk.refused("DeleteCertificate", certificateId=certificate_id, forceDelete=True)
    assert (fault.status, fault.code) == (406, "CertificateStateException")
    assert fault.message == f"Certificate must be deactivated (not ACTIVE) before deletion. Id: {certificate_id}"
    iot("UpdateCertificate", certificateId=certificate_id, newStatus="INACTIVE")
    assert iot.refused("DeleteCertificate", certificateId=certificate_id, forceDelete=True) == CONFLICT, "a thing"
    iot("DetachThingPrincipal", thingName="a", principal=arn)
    assert iot.refused("DeleteCertificate", certificateId=certificate_id) == CONFLICT, "a policy"
    iot("DeleteCertificate", certificateId=certificate_id, forceDelete=True)
    iot("DeletePolicy", policyName="p")
    for operation in ("DescribeCertificate", "DeleteCertificate"):
        assert iot.refused(operation, certificateId=certificate_id) == NOT_FOUND
        assert iot.refused(operation, certificateId="g" * 64) == INVALID
        assert iot.refused(operation, certificateId="0" * 63) == INVALID


def test_certificates_are_listed_newest_first(iot: Registry) -> None:
    made = [iot.certificate()[0] for _ in range(5)]

    def ids(**members: Any) -> list[str]:
        found: list[str] = []
        page = iot("ListCertificates", pageSize=2, **members)
        for _ in range(5):
            found += [entry["certificateId"] for entry in page["certificates"]]
            if "nextMarker" not in page:
                return found
            page = iot("ListCertificates", pageSize=2, marker=page["nextMarker"], **members)
        raise AssertionError("no end")

    assert ids() == made[::-1] and ids(ascendingOrder=True) == made
    assert iot.refused("ListCertificates", marker="?") == INVALID
    assert iot("ListCertificates", region="us-east-1") == {"certificates": []}
