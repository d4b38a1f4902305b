"""Every service of the control plane; importing this registers all operations."""

from __future__ import annotations

import importlib
from collections.abc import Mapping

from ggfast.cloud.operations import Service

_FOLDERS = ("greengrass", "iot", "shadows", "jobs", "functions", "roles", "secrets")


def all_services() -> Mapping[str, Service]:
    """The services by the name of their credential scope."""
    found: dict[str, Service] = {}
    for folder in _FOLDERS:
        try:
            importlib.import_module(f"ggfast.cloud.{folder}")
            module = importlib.import_module(f"ggfast.cloud.{folder}.service")
        except ImportError:
            continue
        found.update({value.name: value for value in vars(module).values() if isinstance(value, Service)})
    return found
