"""Face of ext/wire.pyx."""

from collections.abc import Callable
from typing import final

class Wire: ...

@final
class CallWire(Wire):
    def __init__(self, write: Callable[[bytes], object]) -> None: ...
