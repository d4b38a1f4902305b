"""HOSTILE-v2.md: what the last run in the emulated machine gave, beside the table of HOSTILE.md.

The rows are those that the tests name; the results are those of pytest's JUnit file.
"""

from __future__ import annotations

import json
import xml.etree.ElementTree as ElementTree
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

HEAD = """# Hostile functions on cgroup v2

Written by `make hostile-v2`: the result of its last run, in an emulated machine with Debian's own kernel and
nothing but the v2 tree. [HOSTILE.md](HOSTILE.md) says what stops each attempt.

"""
PASSED, MISSING = "as expected", "not run"
NO_RESULT = ("No result: the machine ended before its tests did.", "The console shows how far it came.")


@dataclass(frozen=True, slots=True)
class Case:
    """One test's result: `problem` is "" unless it failed, `lacks` unless it was skipped for what it needs."""

    file: str
    name: str
    problem: str
    lacks: str = ""

    @property
    def test(self) -> str:
        """Its name without parameters."""
        return self.name.partition("[")[0]

    @property
    def parameters(self) -> list[str]:
        """What stands in its brackets."""
        return self.name.partition("[")[2].removesuffix("]").split("-")


@dataclass(frozen=True, slots=True)
class Run:
    """What one boot of the machine gave; `status` is pytest's, "" when it did not end."""

    status: str
    facts: Mapping[str, object]
    doctor: str
    cases: tuple[Case, ...]
    seconds: float
    emulated: bool

    @property
    def passed(self) -> bool:
        """Whether there were tests, each of them passed, and none was skipped that may not be."""
        return self.status == "0" and bool(self.cases) and not any(case.problem for case in self.cases)


def read(files: Mapping[str, str], seconds: float, *, emulated: bool) -> Run:
    """A run from the files the guest left; one without tests when it left none."""
    status = files.get("status", "").strip()
    cases = read_cases(files["junit.xml"]) if status and "junit.xml" in files else ()
    facts = json.loads(files.get("facts.json") or "{}")
    return Run(status, facts, files.get("doctor.txt", ""), cases, seconds, emulated)


def read_cases(junit: str) -> tuple[Case, ...]:
    """Every test of a JUnit file, in its order."""
    found = []
    for element in ElementTree.fromstring(junit).iter("testcase"):
        problems = [_text(kind, part) for kind in ("error", "failure") for part in element.findall(kind)]
        skips = [part.get("message") or "" for part in element.findall("skipped")]
        file = "/".join(element.get("classname", "").split(".")[1:]) + ".py"  # below tests/
        found.append(Case(file, element.get("name", ""), "".join(problems[:1]), "".join(skips[:1])))
    return tuple(found)


def _text(kind: str, part: ElementTree.Element) -> str:
    return f"{kind}: {(part.get('message') or part.text or '').strip()}"


def outcome(cases: Iterable[Case]) -> str:
    """One cell of the table."""
    texts = {"**" + case.problem.partition(":")[0] + "**" if case.problem else case.lacks or PASSED for case in cases}
    return ", ".join(sorted(texts)) or MISSING


def table(rows: Sequence[tuple[int, str, str, str]], cases: Sequence[Case]) -> str:
    """The table for (number, attempt, file, test); a test that takes no identity fills the first column alone."""
    lines = ["| row | attempt | as `ggc_user` | as uid 0 | test |", "|---|---|---|---|---|"]
    for number, attempt, file, test in rows:
        mine = [case for case in cases if (case.file, case.test) == (file, test)]
        root = [case for case in mine if "root" in case.parameters]
        other = [case for case in mine if "root" not in case.parameters]
        cells = [outcome(other), outcome(root) if root or not other else "same test"]
        lines.append(f"| {number} | {attempt} | {' | '.join(cells)} | `{test}` |")
    return "\n".join(lines) + "\n"


def document(v2: Run, without_memory: Run, rows: Sequence[tuple[int, str, str, str]], day: str) -> str:
    """The whole file, from both boots of the machine."""
    facts = v2.facts
    minutes = (v2.seconds + without_memory.seconds) / 60
    words = [
        f"- Last run: {day}, {'software emulation' if v2.emulated else 'KVM'}, two processors, {minutes:.0f} minutes",
        f"- Kernel: {facts.get('kernel')}, {facts.get('kernel version')}",
        f"- Control groups: {facts.get('cgroups')} with {' '.join(map(str, facts.get('controllers') or ['nothing']))}",
        f"- The tests ran in {facts.get('own group')}, where a login session has its processes",
        f"- Python {facts.get('python')}",
        f"- `ggfast-core doctor`: {verdict(v2)}",
    ]
    text = HEAD + "\n".join(words) + "\n\n" + table(rows, v2.cases)
    text += "\n## All tests of the run\n\n" + files(v2.cases) + problems(v2.cases)
    text += "\n## Without a memory controller\n\n"
    text += f"The same machine booted with `{facts_of(without_memory)}`: functions without a container run, containers "
    text += f"are refused. `ggfast-core doctor`: {verdict(without_memory)}\n\n"
    return text + files(without_memory.cases) + problems(without_memory.cases)


def verdict(run: Run) -> str:
    """The line of `doctor` that says what functions get."""
    found = (line.partition(":")[2].strip() for line in run.doctor.splitlines() if line.startswith("Functions get:"))
    return next(found, "no answer")


def facts_of(run: Run) -> str:
    """What was said to the kernel beyond what every boot says."""
    words = str(run.facts.get("command line", "")).split()
    return " ".join(word for word in words if word.startswith("cgroup_")) or "nothing in particular"


def files(cases: Sequence[Case]) -> str:
    """How many tests of each file passed, failed and were skipped."""
    lines = ["| file | passed | failed | skipped |", "|---|---|---|---|"]
    for file in [*sorted({case.file for case in cases}), ""]:
        mine = [case for case in cases if file in ("", case.file)]
        lines.append(f"| {f'`{file}`' if file else 'all'} | {' | '.join(map(str, counts(mine)))} |")
    return "\n".join(lines) + "\n"


def counts(cases: Sequence[Case]) -> tuple[int, int, int]:
    """Passed, failed, skipped."""
    failed, skipped = sum(bool(case.problem) for case in cases), sum(bool(case.lacks) for case in cases)
    return len(cases) - failed - skipped, failed, skipped


def problems(cases: Sequence[Case]) -> str:
    """What failed, with the first line of the reason; "" when nothing did."""
    lines = [f"- `{case.file}` `{case.name}`: {case.problem.splitlines()[0]}" for case in cases if case.problem]
    return "\n## What failed\n\n" + "\n".join(lines) + "\n" if lines else ""


def summary(run: Run) -> str:
    """What is printed at the end."""
    if not run.cases:
        return " ".join(NO_RESULT)
    lines = [f"{case.file} {case.name}: {case.problem.splitlines()[0]}" for case in run.cases if case.problem]
    passed, failed, skipped = counts(run.cases)
    return "\n".join([*lines, f"{passed} passed, {failed} failed, {skipped} skipped in {run.seconds:.0f} s"])
