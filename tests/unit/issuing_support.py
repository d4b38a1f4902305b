"""A core that asks for certificates, and devices that look at what it got: OpenSSL's command and Python's TLS."""

from __future__ import annotations

import json
import ssl
import subprocess
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from cloud_fleet import CORE, Fleet, desk_for
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa

from ggfast.cloud.certificate_parts import SIGNS, begun, common_name_of, general_name, usage
from ggfast.cloud.devices.identity import Identity, load
from ggfast.cloud.devices.issuing import Issuing
from ggfast.cloud.devices.routing import Asked
from ggfast.cloud.protocols import Request
from ggfast.limits import CERTIFICATE_BACKDATE_S

Key = ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey


def new_key() -> ec.EllipticCurvePrivateKey:
    """A key as cores make them."""
    return ec.generate_private_key(ec.SECP256R1())


def request_for(key: Key) -> str:
    """A signing request."""
    made = x509.CertificateSigningRequestBuilder(common_name_of("anybody")).sign(key, hashes.SHA256())
    return made.public_bytes(serialization.Encoding.PEM).decode()


class CoreThatAsks:
    """The fleet's core; its clock is the real one, so that what it gets is valid now."""

    def __init__(self, folder: Path, action: str = "greengrass:*") -> None:
        self.desk = desk_for(folder)
        self.desk.clock.now = time.time()
        self.fleet = Fleet(self.desk)
        allowed = {"Effect": "Allow", "Action": action, "Resource": "*"}
        text = json.dumps({"Version": "2012-10-17", "Statement": [allowed]})
        self.desk.call("CreatePolicy", service="iot", policyName="core", policyDocument=text)
        self.certificate_id = str(self.fleet.core["CertificateArn"]).rpartition("/")[2]
        self.desk.call("AttachPolicy", service="iot", policyName="core", target=self.fleet.core["CertificateArn"])
        self.issuing = Issuing(self.desk.cloud, self.desk.store)

    def ask(self, body: Any, thing: str = CORE) -> dict[str, Any]:
        """The answer. Raises Fault."""
        raw = body if isinstance(body, bytes) else json.dumps(body).encode()

        async def request() -> dict[str, Any]:
            identity = await self._identity(self.certificate_id)
            asked = Asked(identity, Request("POST", "/", "", {}, raw), {"ThingName": thing}, self._identity)
            return dict((await self.issuing.server_certificate(asked)).members)

        return self.desk.runner.run(request())

    def tells_addresses(self, *hosts: str) -> None:
        """The core's connectivity information."""
        entries = [{"HostAddress": host, "Id": str(number)} for number, host in enumerate(hosts)]
        self.desk.call("UpdateConnectivityInfo", ThingName=CORE, ConnectivityInfo=entries)

    async def _identity(self, certificate_id: str) -> Identity:
        found = await self.desk.store.read(lambda tx: load(tx, certificate_id))
        assert found is not None
        return found


def signed_by_core(
    ca_pem: str, ca_key: Key, key: Key, hosts: Sequence[str], *, name: str = "ggfast core", ca: bool = False
) -> str:
    """What a core makes with its delegated CA: a server certificate, or a CA that it must not make."""
    issuer = x509.load_pem_x509_certificate(ca_pem.encode())
    since, until = issuer.not_valid_before_utc, issuer.not_valid_after_utc
    made = (
        begun(common_name_of(name), issuer.subject, key.public_key(), since, until)
        .add_extension(x509.BasicConstraints(ca=ca, path_length=None), critical=True)
        .add_extension(usage(*(SIGNS if ca else ("digital_signature",))), critical=True)
        .add_extension(x509.SubjectAlternativeName([general_name(host) for host in hosts]), critical=False)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(ca_key.public_key()), critical=False)
        .sign(ca_key, hashes.SHA256())
    )
    return made.public_bytes(serialization.Encoding.PEM).decode()


def openssl_says(folder: Path, root: str, chain: Sequence[str], *names: str) -> str:
    """ "" if OpenSSL finds `chain` (leaf first) good for a server, with only `root` trusted; else its words."""
    for name, pems in (("root", [root]), ("leaf", chain[:1]), ("between", chain[1:])):
        (folder / f"{name}.pem").write_text("".join(pems))
    words = ["openssl", "verify", "-x509_strict", "-purpose", "sslserver", "-CAfile", str(folder / "root.pem")]
    if chain[1:]:
        words += ["-untrusted", str(folder / "between.pem")]
    done = subprocess.run([*words, *names, str(folder / "leaf.pem")], capture_output=True, text=True, timeout=30)
    return "" if done.returncode == 0 else done.stderr


def handshake(folder: Path, root: str, chain: Sequence[str], key: Key, host: str) -> str:
    """A device that trusts only `root` connects to a server at `host`: "" if it is content, else its words."""
    form, plain = serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    (folder / "key.pem").write_bytes(key.private_bytes(serialization.Encoding.PEM, form, plain))
    (folder / "chain.pem").write_text("".join(chain))
    serving = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    serving.load_cert_chain(folder / "chain.pem", folder / "key.pem")
    visiting = ssl.create_default_context(cadata=root)  # checks the host's name too
    to_server, to_client = ssl.MemoryBIO(), ssl.MemoryBIO()
    client = visiting.wrap_bio(to_client, to_server, server_hostname=host)
    server = serving.wrap_bio(to_server, to_client, server_side=True)
    waiting = [client, server]
    for _ in range(20):
        for side in list(waiting):
            try:
                side.do_handshake()
                waiting.remove(side)
            except ssl.SSLWantReadError:
                pass
            except ssl.SSLCertVerificationError as error:
                return error.verify_message
        if not waiting:
            return ""
    raise AssertionError("the handshake does not end")


def begins_before(seconds: float) -> int:
    """When what is made now becomes valid."""
    return int(seconds) - CERTIFICATE_BACKDATE_S
