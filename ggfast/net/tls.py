"""Server-side TLS contexts: who we are, whom we let in, which protocol versions and suites.

A device certificate may come from any CA: Greengrass registers the certificate itself (greengrass-core 5.6). So
the registered certificates are the trust anchors, one by one, and anything else ends in the handshake, before a
byte of MQTT is read. Sources: greengrass-core 10.5 (suites), speed.md section 2 (no tickets: 7 KB a connection).
"""

from __future__ import annotations

import ssl
from collections.abc import Sequence
from pathlib import Path

from ggfast.errors import ConfigError

# Forward secrecy first; plain RSA with AES last, because old TLS 1.2 device stacks have nothing else.
TLS12_SUITES = (
    "ECDHE+AESGCM:ECDHE+CHACHA20:ECDHE+AES:"
    "AES128-GCM-SHA256:AES256-GCM-SHA384:AES128-SHA256:AES256-SHA256:AES128-SHA:AES256-SHA"
    ":!aNULL:!eNULL:!PSK:!SRP:!ARIA:!CAMELLIA:!AESCCM"
)


def server_context(
    cert: str | Path,
    key: str | Path,
    *,
    client_cas_pem: Sequence[str] | None = None,
    suites: str = TLS12_SUITES,
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
    context.set_ciphers(suites)
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
