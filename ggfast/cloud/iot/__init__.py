"""The IoT registry: things, certificates, policies, thing groups and types, role aliases, tags, endpoints.

Importing it registers every operation of cloud-api 7 but the job ones (`ggfast.cloud.jobs`).
"""

from __future__ import annotations

from ggfast.cloud.iot import (
    attachments,
    certificates,
    endpoints,
    policies,
    role_aliases,
    tags,
    thing_groups,
    thing_principals,
    thing_types,
    things,
)
from ggfast.cloud.iot.service import IOT

__all__ = [
    "IOT",
    "attachments",
    "certificates",
    "endpoints",
    "policies",
    "role_aliases",
    "tags",
    "thing_groups",
    "thing_principals",
    "thing_types",
    "things",
]
