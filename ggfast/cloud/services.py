"""Every service of the control plane; importing this registers all operations."""

from __future__ import annotations

from collections.abc import Mapping

import ggfast.cloud.shadows  # noqa: F401  registers its operations
from ggfast.cloud.functions import LAMBDA
from ggfast.cloud.greengrass import GREENGRASS
from ggfast.cloud.iot import IOT
from ggfast.cloud.jobs import IOT_JOBS_DATA
from ggfast.cloud.operations import Service
from ggfast.cloud.roles import IAM, STS
from ggfast.cloud.secrets import SECRETS
from ggfast.cloud.shadows.service import IOT_DATA


def all_services() -> Mapping[str, Service]:
    """The services by the name of their credential scope."""
    services = (GREENGRASS, IOT, IOT_DATA, IOT_JOBS_DATA, LAMBDA, IAM, STS, SECRETS)
    return {service.name: service for service in services}
