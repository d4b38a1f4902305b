"""What `doctor` finds: one line for each requirement, and the verdict over all of them. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from enum import StrEnum
from typing import Any


class Status(StrEnum):
    """How a requirement stands."""

    OK = "ok"
    WARN = "warn"  # the core runs, but something is missing or will hurt
    FAIL = "FAIL"  # the core cannot run
    UNKNOWN = "?"  # could not be checked, usually without root


@dataclass(frozen=True, slots=True)
class Finding:
    """One requirement: what was found and, unless that is fine, what was expected and what to do."""

    area: str
    name: str
    status: Status
    found: str
    expected: str = ""
    advice: str = ""

    def __str__(self) -> str:
        line = f"{self.status:5} {self.area + ': ' + self.name:40} {self.found}"
        if self.status is Status.OK:
            return line
        expected = f"; expected {self.expected}" if self.expected else ""
        advice = f". {self.advice}" if self.advice else ""
        return line + expected + advice


@dataclass(frozen=True, slots=True)
class Area:
    """Makes findings of one area."""

    name: str

    def ok(self, name: str, found: str) -> Finding:
        """A requirement that is met."""
        return Finding(self.name, name, Status.OK, found)

    def bad(self, name: str, found: str, expected: str, advice: str, *, required: bool) -> Finding:
        """A requirement that is not met."""
        return Finding(self.name, name, Status.FAIL if required else Status.WARN, found, expected, advice)

    def unknown(self, name: str, why: str, advice: str = "Run as root to check it.") -> Finding:
        """A requirement that could not be checked."""
        return Finding(self.name, name, Status.UNKNOWN, why, advice=advice)


def can_run(findings: Sequence[Finding]) -> bool:
    """Whether the core can run: nothing required is missing, and nothing stayed unchecked."""
    return not any(finding.status in (Status.FAIL, Status.UNKNOWN) for finding in findings)


def verdict(findings: Sequence[Finding]) -> str:
    """The last line of the report."""
    count = {status: sum(finding.status is status for finding in findings) for status in Status}
    if count[Status.FAIL]:
        return f"The core cannot run: {_of(count[Status.FAIL], 'requirement')} not met (the lines with FAIL)."
    if count[Status.UNKNOWN]:
        return f"Not certain: {_of(count[Status.UNKNOWN], 'requirement')} could not be checked (the lines with ?)."
    if count[Status.WARN]:
        return f"The core can run, with {_of(count[Status.WARN], 'warning')}."
    return "The core can run."


def _of(number: int, noun: str) -> str:
    return f"{number} {noun}{'' if number == 1 else 's'}"


def as_json(findings: Sequence[Finding], isolation: str) -> dict[str, Any]:
    """The report for programs."""
    return {
        "canRun": can_run(findings),
        "isolation": isolation,
        "checks": [{**asdict(finding), "status": finding.status.lower()} for finding in findings],
    }
