"""Face of ext/routes.pyx."""

from collections.abc import Callable
from typing import final

from ggfast._ext.routetable import RouteTable

@final
class Router(RouteTable):
    retain: Callable[[str, bytes, bytes, int, bytes, int], None] | None
    def publish(
        self,
        source: str,
        topic: bytes,
        payload: bytes,
        qos: int = 0,
        retain: bool = False,
        properties: bytes = b"",
        expiry_s: int = -1,
    ) -> int: ...
    def set_time(self, now: int) -> None: ...
    def publish_all_or_error(
        self, source: str, topic: bytes, payload: bytes, qos: int = 0, retain: bool = False
    ) -> int: ...
    def flush(self) -> None: ...
    def take_counts(self) -> dict[str, int]: ...
