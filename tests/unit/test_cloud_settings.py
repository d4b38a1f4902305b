"""cloud.json: every problem is named, and what is written is read back."""

from __future__ import annotations

import pytest

from ggfast.cloud.settings import CloudSettings, parse_settings
from ggfast.errors import ConfigError


def test_settings_are_read_back() -> None:
    settings = CloudSettings("123456789012", "eu-west-1", ("gw.example", "::1"), api_port=0, requests_per_s=7)
    assert parse_settings(settings.text()) == settings


def test_lives_of_certificates_are_read_back_and_bounded() -> None:
    settings = CloudSettings("123456789012", "eu-west-1", ("a",), server_certificate_s=30, delegated_authority_days=0)
    assert parse_settings(settings.text()) == settings
    for member, wrong in (
        ("serverCertificateSeconds", "4"),
        ("serverCertificateSeconds", "2592001"),
        ("delegatedAuthorityDays", "-1"),
        ("delegatedAuthorityDays", "7301"),
    ):
        text = f'{{"account": "123456789012", "region": "eu-west-1", "hosts": ["a"], "{member}": {wrong}}}'
        with pytest.raises(ConfigError) as refused:
            parse_settings(text.encode())
        assert [problem.path for problem in refused.value.problems] == [member]


def test_every_problem_is_named() -> None:
    text = b'{"account": "1", "region": "x", "hosts": ["a b"], "apiPort": 70000, "odd": 1, "limits": {"more": 2}}'
    with pytest.raises(ConfigError) as refused:
        parse_settings(text)
    found = {problem.path for problem in refused.value.problems}
    assert found == {"account", "region", "hosts[0]", "apiPort", "odd", "limits.more"}


@pytest.mark.parametrize(
    ("written", "words"),
    [
        ("\"/opt/keys 'a b' --c\"", ("/opt/keys", "a b", "--c")),
        ('["/opt/keys", "a b"]', ("/opt/keys", "a b")),
        ("null", ()),
    ],
)
def test_a_command_is_words_or_text(written: str, words: tuple[str, ...]) -> None:
    text = f'{{"account": "123456789012", "region": "eu-west-1", "hosts": ["a"], "credentialsProcess": {written}}}'
    settings = parse_settings(text.encode())
    assert settings.credentials_process == words
    assert parse_settings(settings.text()) == settings


@pytest.mark.parametrize("written", ['""', '"  "', '"\'open"', "[]", '[""]', "7", "[1]", '"\\u0000"', "\"'' a\""])
def test_what_is_no_command_is_named(written: str) -> None:
    text = f'{{"account": "123456789012", "region": "eu-west-1", "hosts": ["a"], "credentialsProcess": {written}}}'
    with pytest.raises(ConfigError) as refused:
        parse_settings(text.encode())
    assert {problem.path.partition("[")[0] for problem in refused.value.problems} == {"credentialsProcess"}
