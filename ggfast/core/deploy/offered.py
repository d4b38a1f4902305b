"""From what the control plane offers to a staged group: the work of the fetching process (fetch.py runs it).

    offer ─► checked whole ─► downloads ─► staging/<name>: packages, models, certificates, group.json, deployment.json

Packages and models that are live already are neither downloaded nor unpacked. Nothing live is touched. Every failure
is told in V1's words (greengrass-core 12.3, Appendix B). Blocking between requests.
"""

from __future__ import annotations

import asyncio
import re
import shutil
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

from ggfast import limits
from ggfast.config import Config
from ggfast.core.deploy.downloads import Downloads, Pause, Source
from ggfast.core.deploy.offer import PATHS, SUBJECT, Artifact, Offer, read_offer
from ggfast.core.deploy.room import full_text
from ggfast.core.deploy.staging import Stager, replaced_group, staging_directory
from ggfast.core.deploy.store import StagedGroup, live_deployment
from ggfast.core.functions.models import CONTENT, WRITABLE, written_resources
from ggfast.errors import ConfigError, DeploymentFailed, GgfastError, LimitReached, LinkDown
from ggfast.fields import Problems
from ggfast.group.document import Function, Group, Resource, S3Model, SageMakerModel
from ggfast.group.functions import runtime_of
from ggfast.group.validate import GroupRules
from ggfast.layout import Layout

INVALID: Final = "Error while processing. group config is invalid: "
_NAME: Final = re.compile(r"[a-zA-Z0-9][a-zA-Z0-9_-]{0,79}")


async def stage_offer(
    data: bytes, name: str, config: Config, source: Source, pause: Pause = asyncio.sleep
) -> StagedGroup:
    """Stage the group of the offer in the JSON text `data` in `layout.staging / name`, replacing what is left there.

    Raises DeploymentFailed with the text for the report, LinkDown if it is worth trying again later. What was
    downloaded stays for the next try, unless the disk is full; of the staged group nothing stays.
    """
    assert _NAME.fullmatch(name), f"{name!r} is no name of a staged group"
    directory = config.layout.staging / name
    try:
        if directory.exists():
            shutil.rmtree(directory)
        offer = read_offer(data, GroupRules.of(config))
        with Downloads(config.layout.downloads, source, pause) as downloads:
            return await _Work(offer, config, downloads).stage(directory)
    except (DeploymentFailed, LinkDown):
        raise
    except (GgfastError, OSError) as error:
        raise DeploymentFailed("stage", _words(error, directory), rolled_back=True) from error


def _words(error: GgfastError | OSError, directory: Path) -> str:
    """Why a group cannot be staged, for the report."""
    if isinstance(error, ConfigError):
        more = f" {error.hint}" if error.hint else ""
        return INVALID + ("; ".join(str(problem) for problem in error.problems) or error.subject) + more
    if isinstance(error, LimitReached):  # of the room for a package
        error_text = full_text(directory, error.value + limits.PACKAGE_SPARE_BYTES - error.maximum)
    else:
        error_text = str(error)
    return f"Error while processing. the group cannot be staged: {error_text}"


class _Work:
    def __init__(self, offer: Offer, config: Config, downloads: Downloads) -> None:
        self.offer, self.downloads = offer, downloads
        self.layout, self.rules = config.layout, GroupRules.of(config)
        self.notes: list[str] = []
        self.active = replaced_group(self.layout, self.notes)
        self.live = live_deployment(self.layout)

    async def stage(self, directory: Path) -> StagedGroup:
        offer = self.offer
        unchanged = {
            function.arn
            for function in offer.group.user_functions
            if is_unchanged(self.layout, function, offer.packages[function.arn], self.active, self.live)
        }
        needed = {digest for arn, digest in offer.packages.items() if arn not in unchanged}
        needed |= self._missing_models()
        artifacts = [offer.artifacts[digest] for digest in sorted(needed)]
        files = await self._download(artifacts)
        try:
            with staging_directory(self.layout, directory) as made:
                staged = self._stage(made, unchanged, files)
        except LimitReached:
            self.downloads.clear()  # they are why there is no room, or part of it
            raise
        self.downloads.clear()
        return staged

    async def _download(self, artifacts: list[Artifact]) -> dict[str, Path]:
        self.downloads.prepare(artifacts)
        return {artifact.digest: await self.downloads.fetch(artifact) for artifact in artifacts}

    def _missing_models(self) -> set[str]:
        """Digests of models that are not unpacked here in every form that is wanted."""
        written = written_resources(self.offer.group)
        missing = set()
        for resource_id, digest in self.offer.models.items():
            names = (digest, digest + WRITABLE) if resource_id in written else (digest,)
            if not all((self.layout.models / name / CONTENT).is_dir() for name in names):
                missing.add(digest)
        return missing

    # --- writing ---

    def _stage(self, directory: Path, unchanged: set[str], files: Mapping[str, Path]) -> StagedGroup:
        offer, problems = self.offer, Problems()
        stager = Stager(directory, offer.group, PATHS, self.layout, self.rules, problems=problems, notes=self.notes)
        functions = tuple(
            function if function.is_system else self._function(stager, position, unchanged, files)
            for position, function in enumerate(offer.group.functions)
        )
        problems.raise_if_any(SUBJECT)
        for position, resource in enumerate(offer.group.resources):
            self._model(stager, position, resource, files)
        problems.raise_if_any(SUBJECT)
        group = replace(offer.group, functions=functions)
        return stager.finish(group, self.active, offer.certificates, offer.record)

    def _function(self, stager: Stager, position: int, unchanged: set[str], files: Mapping[str, Path]) -> Function:
        arn = self.offer.group.functions[position].arn
        if arn not in unchanged:
            return stager.function(position, files[self.offer.packages[arn]], arn)
        live = self.active.function(arn)
        assert live is not None
        return stager.live_function(position, live)

    def _model(self, stager: Stager, position: int, resource: Resource, files: Mapping[str, Path]) -> None:
        archive = files.get(self.offer.models.get(resource.id, ""))
        if archive is not None and isinstance(resource.data, S3Model | SageMakerModel):
            stager.model(f"{PATHS['Resources']}[{position}]", resource.id, resource.data, archive)


def is_unchanged(
    layout: Layout, function: Function, digest: str, active: Group, live: Mapping[str, Any] | None
) -> bool:
    """Whether the package of `function` is in place already: from the same artifact `digest`, prepared for the same
    program. `live` is what deployment.json says of the live group `active`."""
    before = active.function(function.arn)
    artifacts = live.get("artifacts") if live is not None else None
    if before is None or not isinstance(artifacts, dict) or artifacts.get(function.arn) != digest:
        return False
    prepared = (before.handler, runtime_of(before)) == (function.handler, runtime_of(function))
    return prepared and bool(before.code_digest) and layout.function(function.arn).is_dir()
