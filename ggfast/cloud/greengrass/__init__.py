"""The Greengrass API: groups, definitions, deployments. Importing this registers every operation with `GREENGRASS`."""

from ggfast.cloud.greengrass import (
    authorities,
    bulk,
    connectivity,
    definitions,
    deployments,
    groups,
    roles,
    runtime_configuration,
    tags,
    updates,
)
from ggfast.cloud.greengrass.service import GREENGRASS

__all__ = [
    "GREENGRASS",
    "authorities",
    "bulk",
    "connectivity",
    "definitions",
    "deployments",
    "groups",
    "roles",
    "runtime_configuration",
    "tags",
    "updates",
]
