"""Face of ext/properties.pyx."""

from collections.abc import Mapping

Value = int | str | bytes | tuple[int, ...] | tuple[tuple[str, str], ...]
Properties = Mapping[str, Value]

def decode_properties(packet_name: str, data: bytes) -> dict[str, Value]: ...
def encode_properties(packet_name: str, values: Properties) -> bytes: ...
def publish_properties(values: Properties) -> bytes: ...
