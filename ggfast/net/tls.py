"""Server-side TLS contexts: who we are, whom we let in, which protocol versions and suites.

A device certificate may come from any CA: Greengrass registers the certificate itself (greengrass-core 5.6). So
the registered certificates are the trust anchors, one by one, and anything else ends in the handshake, before a
byte of MQTT is read. Sources: greengrass-core 10.5 (suites), speed.md section 2 (no tickets: 7 KB a connection).
"""

from __future__ import annotations

import logging
import ssl
from collections.abc import Sequence
from pathlib import Path

from ggfast._ext.tls import prepare
from ggfast.errors import ConfigError

logger = logging.getLogger("ggfast.broker")

CPU_FACTS = Path("/proc/cpuinfo")

AES = ("AES128-GCM-SHA256", "AES256-GCM-SHA384")
CHACHA = ("CHACHA20-POLY1305",)
# What V1's listener offered beside forward secrecy with authenticated encryption: old device stacks have nothing else.
V1_SUITES = (
    *("ECDHE-RSA-AES128-SHA", "ECDHE-RSA-AES256-SHA"),
    *("AES128-GCM-SHA256", "AES256-GCM-SHA384", "AES128-SHA", "AES256-SHA"),
)
AES13 = ("TLS_AES_128_GCM_SHA256", "TLS_AES_256_GCM_SHA384")
CHACHA13 = ("TLS_CHACHA20_POLY1305_SHA256",)


def has_aes(cpu_facts: str) -> bool:
    """Whether the text of /proc/cpuinfo names AES instructions; x86 calls the line `flags`, ARM `Features`."""
    for line in cpu_facts.splitlines():
        name, _, values = line.partition(":")
        if name.strip() in ("flags", "Features"):
            return "aes" in values.split()
    return False


def suites(aes: bool) -> tuple[str, str]:
    """Cipher suites for TLS 1.2 and for 1.3 in our order: AES first only where the processor helps with it."""
    modern = AES + CHACHA if aes else CHACHA + AES
    forward = [f"ECDHE-{key}-{cipher}" for cipher in modern for key in ("ECDSA", "RSA")]
    return ":".join([*forward, *V1_SUITES]), ":".join(AES13 + CHACHA13 if aes else CHACHA13 + AES13)


def server_context(
    cert: str | Path,
    key: str | Path,
    *,
    client_cas_pem: Sequence[str] | None = None,
) -> ssl.SSLContext:
    """A server's context from a certificate chain file and its key file (PEM).

    With `client_cas_pem` (PEM texts: registered device certificates or CAs) a client must prove one of them; an
    empty list lets nobody in. None asks for no client certificate. Raises ConfigError with the file or position
    of what cannot be used. Blocks for reading the two files.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.num_tickets = 0
    context.options |= ssl.OP_NO_TICKET | ssl.OP_NO_COMPRESSION | ssl.OP_NO_RENEGOTIATION
    context.options |= ssl.OP_CIPHER_SERVER_PREFERENCE
    tls12, tls13 = suites(_processor_has_aes())
    context.set_ciphers(tls12)
    problem = prepare(context, tls13)
    if problem is not None:  # the suites keep OpenSSL's order, and old clients may resume sessions: slower, not wrong
        logger.info("TLS contexts cannot be tuned: %s", problem)
    try:
        context.load_cert_chain(cert, key)
    except (OSError, ssl.SSLError) as error:
        raise ConfigError(
            f"the server certificate {cert} with key {key} cannot be used: {error}.",
            hint="Expected a PEM certificate and the PEM private key that belongs to it, both readable.",
        ) from error
    if client_cas_pem is not None:
        require_client_certificates(context, client_cas_pem)
    return context


def require_client_certificates(context: ssl.SSLContext, trusted_pem: Sequence[str]) -> None:
    """Refuse, in the handshake, every client whose certificate is not in `trusted_pem` or issued by one there.

    Raises ConfigError naming the position of a text that is not a PEM certificate.
    """
    context.verify_mode = ssl.CERT_REQUIRED
    # A certificate that is itself an anchor ends the chain, whatever its issuer.
    context.verify_flags |= ssl.VerifyFlags.VERIFY_X509_PARTIAL_CHAIN
    context.verify_flags &= ~ssl.VerifyFlags.VERIFY_X509_STRICT  # factory certificates are rarely strict
    for position, text in enumerate(trusted_pem):
        try:
            context.load_verify_locations(cadata=text)
        except (ssl.SSLError, ValueError) as error:
            raise ConfigError(
                f"client certificate number {position + 1} of {len(trusted_pem)} cannot be used: {error}.",
                hint="Expected a certificate in PEM form.",
            ) from error


def _processor_has_aes() -> bool:
    try:
        return has_aes(CPU_FACTS.read_text(encoding="ascii", errors="replace"))
    except OSError:  # not mounted: then it is no gateway, and ordinary machines have them
        return True
