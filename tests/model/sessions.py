"""The slow twin of sessions and wills: what is kept of each client, worked out from the rules one by one."""

from __future__ import annotations

import math
from dataclasses import dataclass, field


@dataclass
class Kept:
    """One client id: its connection, or what waits for the next one."""

    connected: bool = True
    level: int = 5
    expiry_s: float = 0.0
    delay_s: int = 0
    will: int | None = None
    ends_at: float = math.inf
    will_at: float = math.inf
    queue: list[int] = field(default_factory=list)


class SlowSessions:
    """Sessions by client id; every call gives the numbers of the wills that go out by it."""

    def __init__(self) -> None:
        self.now = 0.0
        self.kept: dict[str, Kept] = {}

    def connect(
        self, name: str, level: int, clean: bool, expiry_s: float, will: int | None, delay_s: int
    ) -> tuple[bool, list[int], list[int]]:
        """(session present, what waited, wills)."""
        gone: list[int] = []
        old = self.kept.get(name)
        if old is not None and old.connected:
            gone += self.leave(name)
            old = self.kept.get(name)
        if old is not None and clean:
            gone += [old.will] if old.will is not None else []
            old = None
        if level < 5:
            expiry_s, delay_s = (0.0 if clean else math.inf), 0
        waited = [] if old is None else old.queue
        self.kept[name] = Kept(True, level, expiry_s, delay_s, will)
        return old is not None, waited, gone

    def leave(self, name: str, says_goodbye: bool = False, expiry_s: float | None = None) -> list[int]:
        """The connection ends; a goodbye takes the will back."""
        session = self.kept[name]
        session.expiry_s = session.expiry_s if expiry_s is None else expiry_s
        will, session.will = (None if says_goodbye else session.will), None
        session.connected = False
        if session.expiry_s == 0:
            del self.kept[name]
        else:
            session.ends_at = self.now + session.expiry_s
            if will is not None and session.delay_s:
                session.will, will = will, None
                session.will_at = min(self.now + session.delay_s, session.ends_at)
        return [] if will is None else [will]

    def publish(self, name: str, number: int) -> bool:
        """A message for a client: whether it waits (else the client has it now, or nobody has)."""
        session = self.kept.get(name)
        if session is None or session.connected:
            return False
        session.queue.append(number)
        return True

    def advance(self, seconds: float) -> list[int]:
        """Let time pass."""
        self.now += seconds
        gone = []
        for name, session in list(self.kept.items()):
            if session.connected:
                continue
            if session.will is not None and session.will_at < self.now:
                gone.append(session.will)
                session.will = None
            if session.ends_at < self.now:
                del self.kept[name]
        return gone

    def restart(self) -> None:
        """The broker closes: only wills of 5.0 sessions that are kept wait for the next start."""
        for name, session in list(self.kept.items()):
            if not session.connected:
                continue
            waits = session.level == 5 and session.expiry_s > 0
            will = session.will if waits else None
            self.leave(name, says_goodbye=True)
            if will is not None:
                session.will, session.will_at = will, min(self.now + session.delay_s, session.ends_at)
