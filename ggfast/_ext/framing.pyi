"""Face of ext/framing.pyx."""

from typing import Final, NamedTuple

from ggfast._ext.properties import Properties

LEVEL_31: Final = 3
LEVEL_311: Final = 4
LEVEL_5: Final = 5
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
    properties: Properties = ...

class Connect(NamedTuple):
    level: int
    clean: bool = True
    keep_alive_s: int = 0
    client_id: str = ""
    will: Will | None = None
    username: str | None = None
    password: bytes | None = None
    properties: Properties = ...

class Connack(NamedTuple):
    session_present: bool
    code: int
    properties: Properties = ...

class Publish(NamedTuple):
    topic: bytes
    payload: bytes
    qos: int = 0
    retain: bool = False
    dup: bool = False
    packet_id: int = 0
    properties: Properties = ...

class Ack(NamedTuple):
    kind: str
    packet_id: int
    code: int = 0
    properties: Properties = ...

class Subscribe(NamedTuple):
    packet_id: int
    filters: tuple[tuple[bytes, int], ...]
    properties: Properties = ...

class Suback(NamedTuple):
    packet_id: int
    codes: tuple[int, ...]
    properties: Properties = ...

class Unsubscribe(NamedTuple):
    packet_id: int
    filters: tuple[bytes, ...]
    properties: Properties = ...

class Unsuback(NamedTuple):
    packet_id: int
    codes: tuple[int, ...]
    properties: Properties = ...

class Disconnect(NamedTuple):
    code: int = 0
    properties: Properties = ...

class Auth(NamedTuple):
    code: int = 0
    properties: Properties = ...

class Bare(NamedTuple):
    kind: str

Packet = Connect | Connack | Publish | Ack | Subscribe | Suback | Unsubscribe | Unsuback | Bare | Disconnect | Auth

def packet_name(kind: int) -> str: ...
def decode(frame: bytes, level: int = ...) -> Packet: ...
def encode(packet: Packet, level: int = ...) -> bytes: ...
