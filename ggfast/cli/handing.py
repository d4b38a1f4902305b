"""What root reads for the daemon: its certificate and key, whom it trusts, the local server's key.

Read once at the start, judged before anything runs, and put into sealed files in memory. The process that did it ends
or becomes another program, and those that hold the descriptors never map them: the keys are in no heap but the
daemon's own. What an expired certificate stops is traffic with the cloud, never a start (P3).
"""

from __future__ import annotations

import fcntl
import os
import ssl
import stat
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from ggfast import limits
from ggfast.cli.checks import Accounts
from ggfast.config import Config
from ggfast.crypto_settings import KeyReference
from ggfast.errors import ConfigError, OperatingError, Problem

SUBJECT: Final = "The core's certificates and keys cannot be used."
_SEALS: Final = fcntl.F_SEAL_SEAL | fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_WRITE
_KEY_BEGINS: Final = b"PRIVATE KEY-----"
_CERTIFICATE_BEGINS: Final = b"BEGIN CERTIFICATE-----"
_OTHER_KEY: Final = "KEY_VALUES_MISMATCH"


def hand_over(config: Config, accounts: Accounts) -> dict[str, int]:
    """Descriptors by name, as LaunchSpec.files and ggfast.core.handed know them; none in local mode.

    Raises ConfigError with everything that is wrong, OperatingError where memory is short. Blocks for reading four
    small files.
    """
    content = Reader(config).read()
    found: dict[str, int] = {}
    try:
        for name, data in content.items():
            found[name] = _sealed(name, data, accounts)
    except OSError as error:
        close(found)
        raise OperatingError(f"the core's certificates cannot be handed over: {error.strerror}.") from error
    return found


def close(files: dict[str, int]) -> None:
    """Give the descriptors back."""
    for fd in files.values():
        os.close(fd)


def check(config: Config) -> None:
    """Raise ConfigError with everything that would keep the core from starting with its certificates. Blocking."""
    Reader(config).read()


@dataclass(frozen=True, slots=True)
class _File:
    """One file, and where config.json names it."""

    where: str
    path: Path
    data: bytes = field(repr=False)


class Reader:
    """Reads and judges the files of one configuration."""

    def __init__(self, config: Config) -> None:
        self.problems: list[Problem] = []
        self._config = config

    def read(self) -> dict[str, bytes]:
        """What each handed file holds. Raises ConfigError."""
        content = self.look()
        if self.problems:
            raise ConfigError(SUBJECT, self.problems)
        return content

    def look(self) -> dict[str, bytes]:
        """The same, with findings in `problems`."""
        config, settings = self._config, self._settings()
        if config.ggfast.local:
            return {}
        found = {}
        authorities = self._file(settings["authorities"], config.ca_file, limits.HANDED_AUTHORITIES_BYTES_MAX)
        if authorities is not None:
            self._judge_authorities(authorities)
            found["authorities"] = authorities.data
        certificate = self._file(settings["certificate"], config.certificate_file)
        key = self._key(settings["key"], KeyReference(config.key_file) if config.crypto is None else config.crypto.key)
        if certificate is not None and key is not None:
            found["identity"] = self._identity(certificate, key)
        server = self._key(settings["server key"], None if config.crypto is None else config.crypto.mqtt_server_key)
        if server is not None:
            found["server_key"] = server.data
        return found

    def _settings(self) -> dict[str, str]:
        """Where config.json names which file."""
        server = "crypto.principals.MQTTServerCertificate.privateKeyPath"
        if self._config.crypto is None:
            ca, certificate, key = "coreThing.caPath", "coreThing.certPath", "coreThing.keyPath"
        else:
            core = "crypto.principals.IoTCertificate"
            ca, certificate, key = "crypto.caPath", f"{core}.certificatePath", f"{core}.privateKeyPath"
        return {"authorities": ca, "certificate": certificate, "key": key, "server key": server}

    def _file(
        self, setting: str, path: Path | None, bytes_max: int = limits.CERTIFICATE_FILE_BYTES_MAX
    ) -> _File | None:
        """None, with a finding, if it cannot be read or is no small file with something in it."""
        if path is None:
            return None
        file = _File(f"{setting} ({path})", path, b"")
        try:
            fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
            with open(fd, "rb") as opened:
                if not stat.S_ISREG(os.fstat(fd).st_mode):
                    self._refuse(file, "what is not a regular file", "a PEM file")
                    return None
                data = opened.read(bytes_max + 1)
        except OSError as error:
            self._refuse(file, error.strerror or "an error", "a PEM file that can be read")
            return None
        if len(data) > bytes_max:
            self._refuse(file, "a larger file", f"at most {bytes_max} bytes")
            return None
        if not data.strip():
            self._refuse(file, "an empty file", "a PEM file")
            return None
        return _File(file.where, path, data)

    def _key(self, setting: str, reference: KeyReference | None) -> _File | None:
        """A private key, None with a finding if it is none that can be used."""
        if reference is not None and reference.pkcs11_uri:
            found = "a key in a hardware module (pkcs11:), which this release does not support"
            self.problems.append(Problem(setting, found, "file:///absolute/path of a private key in PEM form"))
            return None
        file = self._file(setting, None if reference is None else reference.file)
        if file is None:
            return None
        if _KEY_BEGINS not in file.data:
            self._refuse(file, "no private key", "a private key in PEM form")
            return None
        if b"ENCRYPTED" in file.data:
            self._refuse(file, "a key with a password", "a key without one: nobody is there to type it")
            return None
        return file

    def _refuse(self, file: _File, found: str, expected: str) -> None:
        self.problems.append(Problem(file.where, found, expected))

    # --- judging --------------------------------------------------------------------------------------------

    def _judge_authorities(self, file: _File) -> None:
        try:
            ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT).load_verify_locations(cadata=file.data.decode("ascii", "replace"))
        except (ssl.SSLError, ValueError) as error:
            self._refuse(file, _reason(error), "one or more certificates in PEM form")

    def _identity(self, certificate: _File, key: _File) -> bytes:
        """Certificate chain and key in one, with a finding if they cannot be used together."""
        # The key comes first: certificate files hold keys too at times, and the first one counts. A file that has both
        # is used as it is, or its certificate would be there twice.
        same = key.data == certificate.data
        whole = certificate.data if same else key.data.rstrip() + b"\n" + certificate.data
        error = _load(whole)
        if error is None:
            return whole
        if isinstance(error, ssl.SSLError) and error.reason == _OTHER_KEY:
            self._refuse(key, "another key", f"the key that belongs to {certificate.path}")
        elif _CERTIFICATE_BEGINS not in certificate.data:
            self._refuse(certificate, "no certificate", "a certificate in PEM form")
        else:
            text = f"what cannot be used together with its key ({_reason(error)})"
            self._refuse(certificate, text, f"a certificate in PEM form whose key is {key.path}")
        return whole


def _load(data: bytes) -> Exception | None:
    """Why a certificate with its key cannot be used."""
    fd = os.memfd_create("ggfast-judge", os.MFD_CLOEXEC)
    try:
        _write(fd, data)
        path = f"/proc/self/fd/{fd}"
        ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT).load_cert_chain(path, path, password="")
    except (OSError, ValueError) as error:
        return error
    finally:
        os.close(fd)
    return None


def _reason(error: Exception) -> str:
    if isinstance(error, ssl.SSLError) and error.reason:
        return error.reason.replace("_", " ").lower()
    return str(error)


def _sealed(name: str, data: bytes, accounts: Accounts) -> int:
    """A file in memory that the daemon may open and nobody may change."""
    fd = os.memfd_create(f"ggfast-{name}", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    try:
        _write(fd, data)
        os.fchmod(fd, 0o400)
        os.fchown(fd, accounts.daemon_uid, accounts.daemon_gid)
        fcntl.fcntl(fd, fcntl.F_ADD_SEALS, _SEALS)
    except BaseException:
        os.close(fd)
        raise
    return fd


def _write(fd: int, data: bytes) -> None:
    left = memoryview(data)
    while left:
        left = left[os.write(fd, left) :]
