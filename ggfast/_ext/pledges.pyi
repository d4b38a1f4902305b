"""Face of ext/pledges.pyx."""

from typing import final

@final
class Pledge:
    waiting: int
    def settle(self, code: int = 0) -> None: ...
