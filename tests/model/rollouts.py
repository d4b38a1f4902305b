"""What deployments of functions may do to messages, slow and obvious: the twin of `ggfast.core.functions.rollout`.

It knows which plans a group has, whether a deployment can succeed, and which numbers were sent to which function; the
test asks it what must have been handled, by whom, and how much may be missing.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field


@dataclass(frozen=True)
class Version:
    """One function of a group: what its module does when imported, and what tells plans of one version apart."""

    version: str
    act: str
    label: str
    device: bool = False


@dataclass
class Sent:
    """One message: which labels of its function were deployed from its arrival to the end of the test."""

    name: str
    number: int
    labels: set[str]


@dataclass
class SlowRollouts:
    """The group that is deployed, and all messages."""

    group: dict[str, Version] = field(default_factory=dict)
    sent: dict[int, Sent] = field(default_factory=dict)

    def succeeds(self, group: Mapping[str, Version], pinned: Iterable[str]) -> bool:
        """A pinned function that is new or changed and cannot be imported is the only reason to refuse."""
        return not any(
            name in pinned and version.act == "fail" and self.group.get(name) != version
            for name, version in group.items()
        )

    def deployed(self, group: Mapping[str, Version]) -> None:
        """The change-over has happened."""
        self.group = dict(group)
        for message in self.sent.values():
            if message.name in group:
                message.labels.add(group[message.name].label)

    def send(self, name: str, number: int) -> None:
        """A message for what is deployed now."""
        self.sent[number] = Sent(name, number, {self.group[name].label})

    def check(self, begun: Sequence[tuple[str, str, int]], ordered: Iterable[str], dropped: int) -> None:
        """`begun`: name, label and number of each handler call, in order; `dropped`: what the counters say."""
        numbers = [number for _, _, number in begun]
        assert len(numbers) == len(set(numbers)), f"handled twice: {begun}"
        missing = set(self.sent) - set(numbers)
        assert len(missing) == dropped, f"missing {sorted(missing)}, counted {dropped}"
        for name, label, number in begun:
            assert name == self.sent[number].name
            assert label in self.sent[number].labels, f"{number} was handled by {label}: {self.sent[number]}"
        for name in ordered:
            found = [number for where, _, number in begun if where == name]
            assert found == sorted(found), f"{name} out of order: {found}"
