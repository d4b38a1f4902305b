"""Working on a control plane's folder from the command line, also while it is served."""

from __future__ import annotations

import argparse
import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import TypeVar

from ggfast.cloud.server import Opened, Ports, opened
from ggfast.cloud.settings import CloudFolder, CloudSettings, load_settings

T = TypeVar("T")


def add_folder(parser: argparse.ArgumentParser) -> None:
    """The argument DIR."""
    parser.add_argument("folder", type=Path, metavar="DIR", help="a folder made by `ggfast-cloud init`")


def in_folder(path: Path, work: Callable[[Opened, CloudSettings], Awaitable[T]], ports: Ports | None = None) -> T:
    """What `work` gives for the control plane at `path`. Raises ConfigError, StorageFailed, what `work` raises."""
    folder = CloudFolder(path.absolute())
    settings = load_settings(folder)
    named = ports or Ports(settings.api_port, settings.mqtt_port, settings.https_port)

    async def run() -> T:
        async with opened(folder, settings, named) as cloud:
            return await work(cloud, settings)

    return asyncio.run(run())
