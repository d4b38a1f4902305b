"""The service object of the jobs data plane, what devices call (cloud-api 8)."""

from __future__ import annotations

from typing import Final

from ggfast.cloud.operations import Service

IOT_JOBS_DATA: Final = Service(
    "iot-jobs-data", protocol="rest-json", invalid_code="InvalidRequestException", prefix="iotjobsdata"
)
