"""The Greengrass API: groups, definitions, deployments. Importing this registers every operation with `GREENGRASS`."""

from ggfast.cloud.greengrass import (
    authorities,
    connectivity,
    definitions,
    groups,
    roles,
    runtime_configuration,
    tags,
)
from ggfast.cloud.greengrass.service import GREENGRASS

__all__ = [
    "GREENGRASS",
    "authorities",
    "connectivity",
    "definitions",
    "groups",
    "roles",
    "runtime_configuration",
    "tags",
]
