"""Steps that tests of the IoT registry share."""

from __future__ import annotations

import datetime
import json
from functools import cache
from typing import Any

from cloud_desk import Desk
from cloud_shapes_check import conforms
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

DOCUMENT = json.dumps(
    {"Version": "2012-10-17", "Statement": [{"Effect": "Allow", "Action": ["iot:*"], "Resource": ["*"]}]}
)


class Registry:
    """A desk whose every answer is checked against botocore's model."""

    def __init__(self, desk: Desk) -> None:
        self.desk = desk

    def __call__(self, operation: str, /, **members: Any) -> dict[str, Any]:
        answer = self.desk.call(operation, **members)
        conforms("iot", operation, answer)
        return answer

    def refused(self, operation: str, /, **members: Any) -> tuple[int, str]:
        """(status, code) of a refusal."""
        fault = self.desk.refused(operation, **members)
        assert fault.message
        return fault.status, fault.code

    def certificate(self, *, active: bool = False, region: str = "eu-west-1") -> tuple[str, str]:
        """(id, ARN) of a new certificate; from a signing request, which needs no new RSA key."""
        made = self.desk.call(
            "CreateCertificateFromCsr", certificateSigningRequest=request(), setAsActive=active, region=region
        )
        return made["certificateId"], made["certificateArn"]

    def told(self) -> list[object]:
        """The events since the last look."""
        events = list(self.desk.events)
        self.desk.events.clear()
        return events


@cache
def _key() -> ec.EllipticCurvePrivateKey:
    return ec.generate_private_key(ec.SECP256R1())


@cache
def request() -> str:
    """A certificate signing request."""
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "device")])
    built = x509.CertificateSigningRequestBuilder().subject_name(name).sign(_key(), hashes.SHA256())
    return built.public_bytes(serialization.Encoding.PEM).decode()


def foreign(common_name: str, *, days: int = 3_650, issuer: str = "", ca: bool = False) -> str:
    """The PEM of a certificate that our CA did not sign."""
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common_name)])
    now = datetime.datetime.now(datetime.UTC)
    built = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, issuer or common_name)]))
        .public_key(_key().public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(days=3_650))
        .not_valid_after(now + datetime.timedelta(days=days))
        .add_extension(x509.BasicConstraints(ca=ca, path_length=None), critical=True)
        .sign(_key(), hashes.SHA256())
    )
    return built.public_bytes(serialization.Encoding.PEM).decode()
