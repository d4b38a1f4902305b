"""The `crypto` object of config.json: where keys and certificates live (greengrass-core 2.3, from V1.7).

It wins over the paths in `coreThing`. Keys are `file:///absolute/path` or an RFC 7512 URI of a hardware module;
the module's pin is never shown in a finding.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from ggfast.fields import Fields, shown

_FILE: Final = "file://"
_PKCS11 = re.compile(r"pkcs11:[A-Za-z0-9._~%=;/?&:@!$'()*+,-]+")


@dataclass(frozen=True, slots=True)
class KeyReference:
    """A private key: a file, or an object in a hardware module (exactly one is set)."""

    file: Path | None = None
    pkcs11_uri: str = ""


@dataclass(frozen=True, slots=True)
class Pkcs11:
    """The hardware module."""

    provider: str
    slot_label: str
    slot_user_pin: str = field(repr=False)
    openssl_engine: str = ""


@dataclass(frozen=True, slots=True)
class Crypto:
    """Keys and certificates of the core's principals; None where the core makes its own."""

    ca_file: Path
    certificate_file: Path
    key: KeyReference
    mqtt_server_key: KeyReference | None = None
    secrets_key: KeyReference | None = None
    pkcs11: Pkcs11 | None = None

    @property
    def key_file(self) -> Path | None:
        """The core's private key if it is a file."""
        return self.key.file


def read_crypto(source: Fields) -> Crypto:
    """The `crypto` object; findings go to `source.problems`."""
    principals = source.child("principals")
    identity = principals.child("IoTCertificate")
    module = source.child("PKCS11") if source.has("PKCS11") else None
    keys = {"IoTCertificate": _key(identity)}
    for name in ("MQTTServerCertificate", "SecretsManager"):
        if principals.has(name):
            keys[name] = _key(principals.child(name))
    if module is None and any(key.pkcs11_uri for key in keys.values()):
        source.problems.add(source.at("PKCS11"), "nothing", "the hardware module that holds the pkcs11: keys")
    return Crypto(
        ca_file=_file(source, "caPath"),
        certificate_file=_file(identity, "certificatePath"),
        key=keys["IoTCertificate"],
        mqtt_server_key=keys.get("MQTTServerCertificate"),
        secrets_key=keys.get("SecretsManager"),
        pkcs11=_pkcs11(module) if module else None,
    )


def _pkcs11(source: Fields) -> Pkcs11:
    return Pkcs11(
        provider=source.text("P11Provider", expected="the absolute path of the module's library"),
        slot_label=source.text("slotLabel"),
        slot_user_pin=source.text("slotUserPin", secret=True),
        openssl_engine=source.text("OpenSSLEngine", default=""),
    )


def _file(source: Fields, key: str) -> Path:
    expected = "file:///absolute/path"
    written = source.text(key, expected=expected)
    if written and not written.startswith(_FILE + "/"):
        source.problems.add(source.at(key), shown(written), expected)
    return Path(written.removeprefix(_FILE))


def _key(source: Fields) -> KeyReference:
    expected = "file:///absolute/path or pkcs11:object=<label>;type=private"
    written = source.text("privateKeyPath", expected=expected, secret=True)
    if written.startswith(_FILE + "/"):
        return KeyReference(file=Path(written.removeprefix(_FILE)))
    if _PKCS11.fullmatch(written):
        return KeyReference(pkcs11_uri=written)
    if written:
        scheme = written.partition(":")[0][:16] if ":" in written else "no scheme"
        text = f"ErrUnknownURIScheme: {shown(scheme)}, expected {expected}"
        source.problems.refuse(source.at("privateKeyPath"), text, found=shown(scheme), expected=expected)
    return KeyReference()
