"""Face of ext/framing.pyx."""

from typing import Final, NamedTuple

LEVEL_31: Final = 3
LEVEL_311: Final = 4
ACCEPTED: Final = 0
UNACCEPTABLE_LEVEL: Final = 1
IDENTIFIER_REJECTED: Final = 2
SERVER_UNAVAILABLE: Final = 3
BAD_CREDENTIALS: Final = 4
NOT_AUTHORIZED: Final = 5
SUBACK_FAILURE: Final = 0x80

class Will(NamedTuple):
    topic: bytes
    payload: bytes
    qos: int
    retain: bool

class Connect(NamedTuple):
    level: int
    clean: bool = True
    keep_alive_s: int = 0
    client_id: str = ""
    will: Will | None = None
    username: str | None = None
    password: bytes | None = None

class Connack(NamedTuple):
    session_present: bool
    code: int

class Publish(NamedTuple):
    topic: bytes
    payload: bytes
    qos: int = 0
    retain: bool = False
    dup: bool = False
    packet_id: int = 0

class Ack(NamedTuple):
    kind: str
    packet_id: int

class Subscribe(NamedTuple):
    packet_id: int
    filters: tuple[tuple[bytes, int], ...]

class Suback(NamedTuple):
    packet_id: int
    codes: tuple[int, ...]

class Unsubscribe(NamedTuple):
    packet_id: int
    filters: tuple[bytes, ...]

class Bare(NamedTuple):
    kind: str

Packet = Connect | Connack | Publish | Ack | Subscribe | Suback | Unsubscribe | Bare

def packet_name(kind: int) -> str: ...
def decode(frame: bytes) -> Packet: ...
def encode(packet: Packet) -> bytes: ...
