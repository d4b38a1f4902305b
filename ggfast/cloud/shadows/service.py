"""The service object of the IoT data plane (cloud-api 8), and what its refusals have in common."""

from __future__ import annotations

from typing import Final

from ggfast.cloud.operations import Service

IOT_DATA: Final = Service(
    "iotdata",
    protocol="rest-json",
    invalid_code="InvalidRequestException",
    prefix="iot",
    token_names=("nextToken",),
    size_names=("pageSize", "maxResults"),
)
