"""Every number that bounds something, with its unit and its reason. Sections follow the layout."""

from __future__ import annotations

from typing import Final

KIB: Final = 1024
MIB: Final = 1024 * KIB

# --- messages: what the `v1` profile keeps because something may depend on it (greengrass-core 5.4) ------
V1_PAYLOAD_BYTES_MAX: Final = 128 * KIB
V1_TOPIC_BYTES_MAX: Final = 256
V1_TOPIC_SLASHES_MAX: Final = 7

# --- messages: the `open` profile and the broker alone --------------------------------------------------
OPEN_PAYLOAD_BYTES_MAX: Final = 256 * KIB  # twice V1's; still fits the smallest device's buffers
MQTT_TOPIC_BYTES_MAX: Final = 65_535  # the length field of an MQTT string [MQTT-1.5.3]
MQTT_PACKET_BYTES_MAX: Final = 268_435_455  # largest remaining length MQTT can express

# --- group (greengrass-core 16; the later, larger quota where pages differ) -----------------------------
GROUP_DEVICES_MAX: Final = 2_500
GROUP_FUNCTIONS_MAX: Final = 200
GROUP_RESOURCES_MAX: Final = 200
GROUP_SUBSCRIPTIONS_MAX: Final = 10_000
FUNCTION_RESOURCES_MAX: Final = 20
ENTITY_ID_CHARACTERS_MAX: Final = 128

# --- cloud spool (greengrass-core 5.7) ------------------------------------------------------------------
SPOOL_BYTES_DEFAULT: Final = 2_621_440
SPOOL_BYTES_MIN: Final = 262_144
SPOOL_RECORD_OVERHEAD_BYTES: Final = 192  # the Python objects that hold one message; keeps the bound honest in memory

# --- functions (greengrass-core 6, 16) ------------------------------------------------------------------
FUNCTION_MEMORY_KB_DEFAULT: Final = 16_384
FUNCTION_TIMEOUT_S_DEFAULT: Final = 3
WORK_ITEMS_MAX: Final = 1_024
ON_DEMAND_WORKERS_MAX: Final = 25

# --- control socket -------------------------------------------------------------------------------------
CONTROL_REQUEST_BYTES_MAX: Final = 1 * MIB  # an `invoke` carries its payload: 256 KiB of binary in JSON, with room
CONTROL_CONNECTIONS_MAX: Final = 16  # tools of one operator; bounds the memory behind the socket
