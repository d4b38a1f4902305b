"""Attributes of things and thing groups, and how updates change them (cloud-api 7)."""

from __future__ import annotations

from typing import Any

from ggfast.cloud.iot.service import ATTRIBUTE_NAME, ATTRIBUTE_VALUE, unusable
from ggfast.cloud.limits import THING_ATTRIBUTES_MAX
from ggfast.cloud.shapes import Flag, Record, Table

PAYLOAD = Record({"attributes": Table(ATTRIBUTE_VALUE, key=ATTRIBUTE_NAME), "merge": Flag()})


def merged(before: dict[str, str], payload: dict[str, Any] | None) -> dict[str, str]:
    """Attributes after an update: replaced, or merged if asked; an empty value removes one."""
    if payload is None or "attributes" not in payload:
        return before
    after = before | payload["attributes"] if payload.get("merge") else payload["attributes"]
    after = {name: value for name, value in after.items() if value}
    if len(after) > THING_ATTRIBUTES_MAX:
        raise unusable(f"The request leads to {len(after)} attributes, expected at most {THING_ATTRIBUTES_MAX}.")
    return after
