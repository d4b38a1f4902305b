"""Tries each kernel feature that containers use, for `ggfast-core doctor`."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Probe:
    """One feature: whether it is there, whether functions need it, and what to do when it is missing."""

    name: str
    ok: bool
    required: bool
    found: str
    expected: str
    advice: str


def probe_all() -> list[Probe]:
    """Every feature, in the order in which a container uses them."""
    return []
