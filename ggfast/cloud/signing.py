"""AWS Signature Version 4, the receiving side: what a request claims, and whether its signature holds (cloud-api 2).

Nothing here looks keys up: `read_claim` takes the claim out of the headers, `verify` compares with a secret at hand.
"""

from __future__ import annotations

import calendar
import hashlib
import hmac
import re
import time
from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum
from urllib.parse import quote, unquote_to_bytes

from ggfast.cloud.faults import Fault
from ggfast.cloud.limits import CLOCK_SKEW_S

ALGORITHM = "AWS4-HMAC-SHA256"
_PART = re.compile(r"(Credential|SignedHeaders|Signature)=([^,\s]+)")
_SCOPE = re.compile(r"([A-Z0-9]{16,128})/([0-9]{8})/([a-z0-9-]{1,32})/([a-z0-9-]{1,32})/aws4_request")
_REGION = re.compile(r"[a-z]{2}(-[a-z]+)+-[0-9]")
_DATE = re.compile(r"[0-9]{8}T[0-9]{6}Z")
_HEADERS = re.compile(r"[a-z0-9!#$%&'*+.^_`|~-]+(;[a-z0-9!#$%&'*+.^_`|~-]+)*")
_HEX = re.compile(r"[0-9a-f]{64}")


class Reason(Enum):
    """Why a request is not believed: its code for JSON services, for query services, its status."""

    MISSING = ("MissingAuthenticationTokenException", "MissingAuthenticationToken", 403)
    INCOMPLETE = ("IncompleteSignatureException", "IncompleteSignature", 403)
    MISMATCH = ("InvalidSignatureException", "SignatureDoesNotMatch", 403)
    UNKNOWN_KEY = ("UnrecognizedClientException", "InvalidClientTokenId", 403)
    EXPIRED_TOKEN = ("ExpiredTokenException", "ExpiredToken", 403)
    THROTTLED = ("ThrottlingException", "Throttling", 429)


class NotBelieved(Exception):
    """A request whose sender is not who it claims, or claims nothing."""

    def __init__(self, reason: Reason, message: str) -> None:
        super().__init__(message)
        self.reason = reason
        self.message = message

    def fault(self, protocol: str) -> Fault:
        """The refusal in the words of a service's protocol."""
        code, query_code, status = self.reason.value
        return Fault(query_code if protocol == "query" else code, self.message, status=status)


@dataclass(frozen=True, slots=True)
class Claim:
    """What a request says about its sender. `at` is X-Amz-Date as sent, `seconds` the same since 1970."""

    key_id: str
    date: str
    region: str
    service: str
    signed_headers: tuple[str, ...]
    signature: str
    at: str
    seconds: float
    token: str

    @property
    def scope(self) -> str:
        """The credential scope: "<date>/<region>/<service>/aws4_request"."""
        return f"{self.date}/{self.region}/{self.service}/aws4_request"


def read_claim(headers: Mapping[str, str]) -> Claim:
    """The claim in the Authorization header; `headers` by lower-case name. Raises NotBelieved."""
    authorization = headers.get("authorization", "")
    if not authorization:
        raise NotBelieved(Reason.MISSING, "Missing Authentication Token")
    if not authorization.startswith(ALGORITHM):
        raise NotBelieved(Reason.INCOMPLETE, f"Authorization header requires the algorithm '{ALGORITHM}'.")
    parts = dict(_PART.findall(authorization))
    missing = [name for name in ("Credential", "Signature", "SignedHeaders") if name not in parts]
    at = headers.get("x-amz-date") or headers.get("date", "")
    problems = [f"Authorization header requires '{name}' parameter." for name in missing]
    if _DATE.fullmatch(at) is None:
        problems.append("Authorization header requires existence of either a 'X-Amz-Date' or a 'Date' header.")
    if problems:
        raise NotBelieved(Reason.INCOMPLETE, " ".join(problems))
    scope = _SCOPE.fullmatch(parts["Credential"])
    if scope is None:
        raise NotBelieved(
            Reason.INCOMPLETE,
            "Credential must be '<access key id>/<date>/<region>/<service>/aws4_request', found "
            f"'{parts['Credential'][:160]}'.",
        )
    key_id, date, region, service = scope.groups()
    signed = parts["SignedHeaders"]
    if _HEADERS.fullmatch(signed) is None or _HEX.fullmatch(parts["Signature"]) is None:
        raise NotBelieved(Reason.INCOMPLETE, "SignedHeaders or Signature is not of the form that SigV4 gives it.")
    return Claim(
        key_id=key_id,
        date=date,
        region=region,
        service=service,
        signed_headers=tuple(signed.split(";")),
        signature=parts["Signature"],
        at=at,
        seconds=_seconds(at),
        token=headers.get("x-amz-security-token", ""),
    )


def check_claim(claim: Claim, headers: Mapping[str, str], now: float) -> None:
    """Everything about a claim that needs no secret: time, scope, what must be signed. Raises NotBelieved."""
    if abs(claim.seconds - now) > CLOCK_SKEW_S:
        minutes = CLOCK_SKEW_S // 60
        if claim.seconds < now:
            edge = f"is now earlier than {_text(now - CLOCK_SKEW_S)} ({_text(now)} - {minutes} min.)"
            raise NotBelieved(Reason.MISMATCH, f"Signature expired: {claim.at} {edge}")
        edge = f"is still later than {_text(now + CLOCK_SKEW_S)} ({_text(now)} + {minutes} min.)"
        raise NotBelieved(Reason.MISMATCH, f"Signature not yet current: {claim.at} {edge}")
    if not claim.at.startswith(claim.date):
        raise NotBelieved(
            Reason.MISMATCH,
            f"Date in Credential scope does not match YYYYMMDD from ISO-8601 version of date: {claim.at}",
        )
    if _REGION.fullmatch(claim.region) is None:
        raise NotBelieved(Reason.MISMATCH, f"Credential should be scoped to a valid region, not '{claim.region}'.")
    unsigned = sorted(
        name
        for name in headers
        if (name == "host" or name in ("x-amz-date", "x-amz-security-token", "x-amz-target"))
        and name not in claim.signed_headers
    )
    if "host" not in headers or unsigned:
        found = ", ".join(unsigned) or "host"
        raise NotBelieved(Reason.MISMATCH, f"'{found}' must be a 'SignedHeader' in the AWS Authorization.")


def verify(
    claim: Claim, secret: bytes, method: str, raw_path: str, raw_query: str, headers: Mapping[str, str], body: bytes
) -> None:
    """Compare the claimed signature with the one the secret gives. Raises NotBelieved. Takes the same time for
    every wrong signature."""
    request = canonical_request(method, raw_path, raw_query, headers, claim.signed_headers, body)
    if not hmac.compare_digest(signature_of(claim, secret, request), claim.signature):
        raise NotBelieved(
            Reason.MISMATCH,
            "The request signature we calculated does not match the signature you provided. Check your AWS Secret "
            "Access Key and signing method. Consult the service documentation for details.",
        )


def canonical_request(
    method: str,
    raw_path: str,
    raw_query: str,
    headers: Mapping[str, str],
    signed_headers: tuple[str, ...],
    body: bytes,
) -> str:
    """What is signed. Path and query are as received; a signed header that is not there counts as empty."""
    lines = [method, _canonical_path(raw_path), _canonical_query(raw_query)]
    lines += [f"{name}:{' '.join(headers.get(name, '').split())}" for name in signed_headers]
    lines += ["", ";".join(signed_headers), hashlib.sha256(body).hexdigest()]
    return "\n".join(lines)


def signature_of(claim: Claim, secret: bytes, request: str) -> str:
    """The signature of a canonical request, in hex."""
    digest = hashlib.sha256(request.encode("utf-8", "surrogateescape")).hexdigest()
    key = b"AWS4" + secret
    for part in (claim.date, claim.region, claim.service, "aws4_request"):
        key = hmac.digest(key, part.encode(), "sha256")
    return hmac.digest(key, f"{ALGORITHM}\n{claim.at}\n{claim.scope}\n{digest}".encode(), "sha256").hex()


def _canonical_path(raw_path: str) -> str:
    """The path without dot segments and empty ones, percent-encoded once more: every service but S3 signs it so."""
    kept: list[str] = []
    for segment in raw_path.split("/"):
        if segment == "..":
            del kept[-1:]
        elif segment not in ("", "."):
            kept.append(segment)
    path = "/" + "/".join(kept)
    if kept and raw_path.endswith("/"):
        path += "/"
    return quote(path.encode("utf-8", "surrogateescape"), safe="/~")


def _canonical_query(raw_query: str) -> str:
    pairs = []
    for part in raw_query.split("&") if raw_query else ():
        name, _, value = part.partition("=")
        pairs.append((_again(name), _again(value)))
    return "&".join(f"{name}={value}" for name, value in sorted(pairs))


def _again(text: str) -> str:
    return quote(unquote_to_bytes(text.encode("utf-8", "surrogateescape")), safe="~")


def _seconds(at: str) -> float:
    try:
        return float(calendar.timegm(time.strptime(at, "%Y%m%dT%H%M%SZ")))
    except ValueError as error:
        raise NotBelieved(Reason.INCOMPLETE, f"'{at}' is no date of the form YYYYMMDD'T'HHMMSS'Z'.") from error


def _text(seconds: float) -> str:
    return time.strftime("%Y%m%dT%H%M%SZ", time.gmtime(seconds))
