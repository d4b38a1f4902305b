"""cloud.json: every problem is named, and what is written is read back."""

from __future__ import annotations

import pytest

from ggfast.cloud.settings import CloudSettings, parse_settings
from ggfast.errors import ConfigError


def test_settings_are_read_back() -> None:
    settings = CloudSettings("123456789012", "eu-west-1", ("gw.example", "::1"), api_port=0, requests_per_s=7)
    assert parse_settings(settings.text()) == settings


def test_every_problem_is_named() -> None:
    text = b'{"account": "1", "region": "x", "hosts": ["a b"], "apiPort": 70000, "odd": 1, "limits": {"more": 2}}'
    with pytest.raises(ConfigError) as refused:
        parse_settings(text)
    found = {problem.path for problem in refused.value.problems}
    assert found == {"account", "region", "hosts[0]", "apiPort", "odd", "limits.more"}
