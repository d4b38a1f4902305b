"""Face of ext/tls.pyx."""

from asyncio import AbstractEventLoop
from collections.abc import Callable
from ssl import SSLContext

from ggfast._ext.transport import PeerName, Transport, TransportProtocol

def unusable(context: SSLContext) -> str | None: ...
def prepare(context: SSLContext, suites: str) -> str | None: ...

class Handshakes:
    def __init__(self, loop: AbstractEventLoop, failed: Callable[[PeerName, str], None], timeout_s: float) -> None: ...
    def has_room(self) -> bool: ...
    def __len__(self) -> int: ...

class TlsTransport(Transport):
    def __init__(
        self,
        loop: AbstractEventLoop,
        fd: int,
        protocol: None,
        peer: PeerName,
        context: SSLContext,
        handshakes: Handshakes,
        make_protocol: Callable[[], TransportProtocol],
    ) -> None: ...
    def getpeercert(self, binary_form: bool = True) -> bytes | None: ...
