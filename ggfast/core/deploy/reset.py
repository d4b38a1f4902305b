"""What a reset removes beside the group itself (greengrass-core 12.5).

Removed: functions, models, devices' certificates (with the group), user logs, and what other parts keep for the group:
server certificate, cached keys, messages for the cloud, sessions and retained messages. Kept: config.json, the core's
certificate, system logs.
"""

from __future__ import annotations

import asyncio
import os
import shutil
import uuid
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path

import orjson

from ggfast.core.deploy.machine import Deployment
from ggfast.errors import StorageFailed
from ggfast.group.document import Group
from ggfast.group.ondisk import write_deployed
from ggfast.layout import Layout
from ggfast.log import Logs


class Reset:
    """The agent's Cleaner. `forgetters` are the parts' own; none of them blocks the loop."""

    def __init__(self, layout: Layout, logs: Logs, forgetters: Sequence[Callable[[], Awaitable[None]]]) -> None:
        self._layout = layout
        self._logs = logs
        self._forgetters = tuple(forgetters)

    async def stage_nothing(self, deployment: Deployment) -> Path:
        """A staged group without anything in it. Raises StorageFailed."""
        return await asyncio.to_thread(stage_nothing, self._layout, deployment)

    async def forget(self) -> None:
        """Remove the rest. Raises StorageFailed; can be repeated."""
        self._logs.forget_functions()
        for forget in self._forgetters:
            await forget()
        await asyncio.to_thread(self._remove)

    def _remove(self) -> None:
        layout = self._layout
        for directory in (layout.user_logs, layout.downloads, layout.model_links):
            try:
                for entry in os.scandir(directory):
                    shutil.rmtree(entry.path) if entry.is_dir(follow_symlinks=False) else os.unlink(entry.path)
            except FileNotFoundError:
                continue
            except OSError as error:
                raise StorageFailed(f"{directory} cannot be emptied: {error}") from error


def stage_nothing(layout: Layout, deployment: Deployment) -> Path:
    """The empty group, staged under the name of the deployment that wants it. Blocking. Raises StorageFailed."""
    directory = layout.staging / f"reset-{uuid.uuid4().hex}"
    identity = {"id": deployment.id, "type": deployment.type, "groupId": deployment.group_id, "versionId": ""}
    try:
        for child in (directory, directory / "lambda", directory / "models", directory / "group"):
            child.mkdir(parents=True, mode=0o755)
        (directory / "group").chmod(0o750)
        (directory / "group" / "certificates").mkdir()
        (directory / "group" / "group.json").write_bytes(write_deployed(Group()))
        (directory / "group" / layout.deployment_file.name).write_bytes(orjson.dumps(identity))
    except OSError as error:
        shutil.rmtree(directory, ignore_errors=True)
        raise StorageFailed(f"{directory} cannot be made: {error}") from error
    return directory
