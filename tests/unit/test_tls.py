"""Server contexts: which versions and suites, in which order, for which processor."""

from __future__ import annotations

import ssl
from pathlib import Path

import pytest
from tls_support import People, people

from ggfast.net import tls
from ggfast.net.tls import has_aes, suites

__all__ = ["people"]  # a fixture: used by being there

X86 = "processor\t: 0\nflags\t\t: fpu vme aes avx\n"
ARMV7 = "processor\t: 0\nFeatures\t: half thumb fastmult vfp neon\n"
ARMV8 = "processor\t: 0\nFeatures\t: fp asimd evtstrm aes pmull sha1 sha2 crc32\n"


@pytest.mark.parametrize(
    ("facts", "expected"),
    [(X86, True), (ARMV7, False), (ARMV8, True), ("", False), ("flags: caesar\n", False)],
)
def test_what_the_processor_says(facts: str, expected: bool) -> None:
    assert has_aes(facts) is expected


@pytest.mark.parametrize(
    ("facts", "newest", "older"),
    [
        (X86, "TLS_AES_128_GCM_SHA256", "ECDHE-ECDSA-AES128-GCM-SHA256"),
        (ARMV7, "TLS_CHACHA20_POLY1305_SHA256", "ECDHE-ECDSA-CHACHA20-POLY1305"),
    ],
)
def test_the_server_chooses_what_its_processor_does_best(
    people: People, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, facts: str, newest: str, older: str
) -> None:
    (tmp_path / "cpuinfo").write_text(facts)
    monkeypatch.setattr(tls, "CPU_FACTS", tmp_path / "cpuinfo")
    context = people.serving()
    assert negotiated(context, people.visiting(people.device, ssl.TLSVersion.TLSv1_3)) == newest
    assert negotiated(context, people.visiting(people.device, ssl.TLSVersion.TLSv1_2)) == older


def negotiated(server: ssl.SSLContext, client: ssl.SSLContext) -> str:
    """The suite both agree on."""
    up, down = ssl.MemoryBIO(), ssl.MemoryBIO()
    ours = server.wrap_bio(up, down, server_side=True)
    theirs = client.wrap_bio(down, up, server_hostname="localhost")
    waiting = [theirs, ours]
    while waiting:
        try:
            waiting[0].do_handshake()
            waiting.pop(0)
        except ssl.SSLWantReadError:
            waiting.reverse()
    cipher = ours.cipher()
    assert cipher is not None
    return cipher[0]


def test_old_versions_and_weak_suites_are_not_offered(people: People) -> None:
    context = people.serving()
    assert context.minimum_version == ssl.TLSVersion.TLSv1_2
    assert context.num_tickets == 0
    assert context.options & ssl.OP_NO_RENEGOTIATION and context.options & ssl.OP_CIPHER_SERVER_PREFERENCE
    names = {cipher["name"] for cipher in context.get_ciphers()}
    assert not {name for name in names if "SHA256" in name and "GCM" not in name and "CHACHA" not in name}
    assert {"ECDHE-RSA-AES256-SHA", "AES128-SHA", "AES256-GCM-SHA384"} <= names


def test_every_listed_suite_exists_here(people: People) -> None:
    tls12, _ = suites(True)
    assert set(tls12.split(":")) <= {cipher["name"] for cipher in people.serving().get_ciphers()}
    assert sorted(tls12.split(":")) == sorted(suites(False)[0].split(":"))
