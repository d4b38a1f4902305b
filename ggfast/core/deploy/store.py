"""The deployed group on disk: read, replaced as a whole, never between two groups (promise P4).

    deployment/group/                group.json, certificates/<id>.pem   ┐
      deployment.json                see live_deployment                 │ what is live
    deployment/lambda/<arn>/         one package per function version    │
    deployment/models/<sha256>/      one unpacked model per archive      ┘
    deployment/staging/<name>/       a group being prepared: group/, lambda/, models/ (only what is new or changed)
    deployment/activation.json       the journal; exists exactly from the first rename to confirmation
    deployment/previous/             what an unconfirmed activation replaced: group/, lambda/, models/
    deployment/downloads/            artifacts on their way (downloads.py), and
    deployment/agent.state           what the agent remembers (record.py): neither is touched here

`activate` moves the staged group in and keeps the old one; `confirm` makes that final by removing the journal, one
atomic step; `rollback` moves everything back. A crash at any instruction leaves a journal or none, and `recover` at
the next start rolls back or has nothing to do. Packages that did not change are not touched: running functions have
them mounted. Only one process at a time may use a store. Blocking.
"""

from __future__ import annotations

import os
import shutil
import ssl
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any, Final

import orjson

from ggfast import limits
from ggfast.core.deploy.room import full_text, is_full, missing_bytes
from ggfast.core.functions.models import model_names
from ggfast.errors import ConfigError, CorruptRecord, DeploymentFailed, Problem, StorageFailed
from ggfast.group.diff import Change
from ggfast.group.document import Device, Group
from ggfast.group.ondisk import read_deployed
from ggfast.layout import Layout

_UNDONE: Final = "undone"  # inside the staged directory: what a rollback took out again


@dataclass(frozen=True, slots=True)
class StagedGroup:
    """A group ready to be activated: on disk in `directory`, compared with what was live when it was prepared."""

    directory: Path
    group: Group
    changes: tuple[Change, ...]
    notes: tuple[str, ...] = ()


class Recovery(StrEnum):
    """What `recover` found."""

    CLEAN = "clean"
    ROLLED_BACK = "rolled back"


def load_active(layout: Layout) -> Group:
    """The deployed group; the empty one if nothing is deployed. Raises ConfigError, StorageFailed."""
    return _load(layout.group_file)


def live_deployment(layout: Layout) -> Mapping[str, Any] | None:
    """What the live group's deployment.json says: `id`, `type`, `groupId`, `versionId`, and of one that brought a group
    `artifacts` (digest by function ARN) and `trust`. None without one, as after a deployment from a folder, and where
    the file is damaged. Blocking."""
    try:
        with layout.deployment_file.open("rb") as file:
            data = file.read(limits.DEPLOYMENT_FILE_BYTES_MAX + 1)
        found = orjson.loads(data) if len(data) <= limits.DEPLOYMENT_FILE_BYTES_MAX else None
    except (OSError, ValueError):
        return None
    if not isinstance(found, dict) or not isinstance(found.get("id"), str):
        return None
    return found


def missing_packages(group: Group, layout: Layout) -> list[Problem]:
    """A problem for each function whose package is not on disk."""
    return [
        Problem(function.arn, "no such file or directory", str(layout.function(function.arn)))
        for function in group.user_functions
        if not layout.function(function.arn).is_dir()
    ]


def load_certificates(devices: Iterable[Device], layout: Layout) -> dict[str, bytes]:
    """Certificate id → DER form, for each device whose certificate is stored."""
    found = {}
    for device in devices:
        try:
            pem = layout.certificate(device.certificate_id).read_text("ascii")
            found[device.certificate_id] = ssl.PEM_cert_to_DER_cert(pem)
        except (OSError, ValueError):
            continue
    return found


class Store:
    """Changes what is deployed. `fsync` False gives up safety against power loss, not against crashes."""

    def __init__(self, layout: Layout, *, fsync: bool = True) -> None:
        self._layout = layout
        self._fsync = fsync

    def load_active(self) -> Group:
        """The deployed group; see the function of this name."""
        return load_active(self._layout)

    def live_deployment(self) -> Mapping[str, Any] | None:
        """Which deployment is live; see the function of this name."""
        return live_deployment(self._layout)

    def staged(self, directory: Path) -> Group:
        """The group staged in `directory`. Raises DeploymentFailed, ConfigError, StorageFailed."""
        document = directory / "group" / "group.json"
        if not document.is_file():
            raise DeploymentFailed("activate", f"no group is staged in {directory}", rolled_back=True)
        return _load(document)

    def activate(self, directory: Path) -> Group:
        """Make the group staged in `directory` the live one, keeping what it replaces; returns it.

        Raises ConfigError or StorageFailed with nothing touched if it cannot be read, DeploymentFailed, after moving
        everything back, if the disk refuses.
        """
        layout = self._layout
        group = self.staged(directory)
        if layout.journal.exists():
            detail = "the deployment before this one is neither confirmed nor rolled back"
            raise DeploymentFailed("activate", detail, rolled_back=False)
        try:
            journal = self._prepare(directory, group)
            self._write_journal(journal)
            for arn in (*journal.replaced, *journal.removed):
                os.rename(layout.function(arn), layout.previous / "lambda" / arn)
            for arn in (*journal.added, *journal.replaced):
                os.rename(directory / "lambda" / arn, layout.function(arn))
            for name in journal.models_removed:
                os.rename(layout.models / name, layout.previous / "models" / name)
            for name in journal.models_added:
                os.rename(directory / "models" / name, layout.models / name)
            if journal.had_group:
                os.rename(layout.group, layout.previous / "group")
            os.rename(directory / "group", layout.group)
            self._settle(layout.functions, layout.models, layout.previous / "lambda", layout.previous / "models")
            self._settle(layout.previous, layout.deployment)
        except OSError as error:
            self.rollback()
            why = full_text(layout.journal, missing_bytes(layout.deployment, 0)) if is_full(error) else str(error)
            raise DeploymentFailed("activate", f"the group cannot be put in place: {why}", rolled_back=True) from error
        return group

    def confirm(self) -> None:
        """Make the last activation final and remove what it replaced. Nothing to do without one."""
        layout = self._layout
        journal = self._read_journal()
        if journal is None:
            return
        try:
            layout.journal.unlink()
            self._settle(layout.deployment)
        except OSError as error:
            raise StorageFailed(f"the deployment cannot be confirmed: {error}") from error
        _remove(layout.previous, layout.staging / journal.staged)

    def rollback(self) -> bool:
        """Bring the group before the last activation back; False if there is none to undo.

        Safe to be cut off and repeated. Raises StorageFailed, CorruptRecord.
        """
        layout = self._layout
        journal = self._read_journal()
        if journal is None:
            return False
        try:
            self._undo(journal)
        except OSError as error:
            hint = f"What was live before stands in {layout.previous}."
            raise StorageFailed(f"the deployment cannot be rolled back: {error}", hint=hint) from error
        _remove(layout.previous, layout.staging / journal.staged)
        return True

    def discard(self, directory: Path) -> None:
        """Remove a staged group that will not be activated; left alone while a journal may need it."""
        if directory.parent == self._layout.staging and not self._layout.journal.exists():
            _remove(directory)

    def recover(self) -> Recovery:
        """To be called once at start, before a group is read or staged: undo what was not confirmed, clean up."""
        layout = self._layout
        undone = self.rollback()
        leftovers = list(layout.staging.iterdir()) if layout.staging.is_dir() else []
        _remove(layout.previous, _draft(layout), *leftovers)
        return Recovery.ROLLED_BACK if undone else Recovery.CLEAN

    # --- parts ---

    def _prepare(self, directory: Path, group: Group) -> _Journal:
        """Decide every move by what is on disk; makes the directories they need."""
        layout = self._layout
        assert directory.parent == layout.staging, f"{directory} does not lie in {layout.staging}"
        _remove(layout.previous)  # without a journal it is rubbish
        for needed in (layout.functions, layout.models, layout.previous / "lambda", layout.previous / "models"):
            needed.mkdir(parents=True, exist_ok=True)
        live = set(os.listdir(layout.functions))
        new = set(os.listdir(directory / "lambda"))
        wanted = {function.arn for function in group.user_functions}
        live_models = set(os.listdir(layout.models))
        staged = directory / "models"
        new_models = set(os.listdir(staged)) if staged.is_dir() else set()
        return _Journal(
            staged=directory.name,
            added=tuple(sorted(new - live)),
            replaced=tuple(sorted(new & live)),
            removed=tuple(sorted(live - new - wanted)),
            had_group=layout.group.exists(),
            models_added=tuple(sorted(new_models)),
            models_removed=tuple(sorted(live_models - (model_names(group) - new_models))),
        )

    def _undo(self, journal: _Journal) -> None:
        layout = self._layout
        undone = layout.staging / journal.staged / _UNDONE
        undone.mkdir(parents=True, exist_ok=True)
        for arn in (*journal.replaced, *journal.removed):
            _move_back(layout.previous / "lambda" / arn, layout.function(arn), undone / arn)
        for name in journal.models_removed:
            _move_back(layout.previous / "models" / name, layout.models / name, undone / name)
        for name in set(journal.models_added) - set(journal.models_removed):
            if (layout.models / name).exists():
                os.rename(layout.models / name, undone / name)
        for arn in journal.added:
            if layout.function(arn).exists():
                os.rename(layout.function(arn), undone / arn)
        if journal.had_group:
            _move_back(layout.previous / "group", layout.group, undone / "group")
        elif layout.group.exists():
            os.rename(layout.group, undone / "group")
        self._settle(layout.functions, *([layout.models] if layout.models.is_dir() else []), layout.deployment)
        layout.journal.unlink()
        self._settle(layout.deployment)

    def _write_journal(self, journal: _Journal) -> None:
        path = self._layout.journal
        draft = _draft(self._layout)
        with draft.open("wb") as file:
            file.write(orjson.dumps(journal))
            file.flush()
            if self._fsync:
                os.fsync(file.fileno())
        os.rename(draft, path)
        self._settle(path.parent)

    def _read_journal(self) -> _Journal | None:
        path = self._layout.journal
        try:
            content = orjson.loads(path.read_bytes())
            lists = {key: tuple(str(arn) for arn in content[key]) for key in ("added", "replaced", "removed")}
            for key in ("models_added", "models_removed"):  # a journal of the release before has none
                lists[key] = tuple(str(name) for name in content.get(key, ()))
            return _Journal(staged=str(content["staged"]), had_group=bool(content["had_group"]), **lists)
        except FileNotFoundError:
            return None
        except OSError as error:
            raise StorageFailed(f"{path} cannot be read: {error}") from error
        except (ValueError, KeyError, TypeError) as error:
            hint = f"Compare {self._layout.deployment} with {self._layout.previous}, then remove the file."
            raise CorruptRecord(f"{path} is damaged", hint=hint) from error

    def _settle(self, *directories: Path) -> None:
        """Make renames in `directories` survive power loss."""
        if not self._fsync:
            return
        for directory in directories:
            descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
            try:
                os.fsync(descriptor)
            finally:
                os.close(descriptor)


@dataclass(frozen=True, slots=True)
class _Journal:
    """Everything needed to undo an activation, decided before its first rename."""

    staged: str
    added: tuple[str, ...]
    replaced: tuple[str, ...]
    removed: tuple[str, ...]
    had_group: bool
    models_added: tuple[str, ...] = ()
    models_removed: tuple[str, ...] = ()


def _move_back(kept: Path, live: Path, undone: Path) -> None:
    """Put `kept` where `live` is. Nothing kept: it was never moved, or is back already."""
    if kept.exists():
        if live.exists():
            os.rename(live, undone)
        os.rename(kept, live)


def _draft(layout: Layout) -> Path:
    return layout.journal.with_suffix(".new")


def _remove(*paths: Path) -> None:
    """Remove what nobody needs once there is no journal; what cannot go now goes at the next start."""
    for path in paths:
        if path.is_dir():
            shutil.rmtree(path, ignore_errors=True)
        else:
            path.unlink(missing_ok=True)


def _load(path: Path) -> Group:
    try:
        with path.open("rb") as file:
            data = file.read(limits.GROUP_FILE_BYTES_MAX + 1)
    except FileNotFoundError:
        return Group()
    except OSError as error:
        raise StorageFailed(f"failed to load group: {path}: {error}") from error
    if len(data) > limits.GROUP_FILE_BYTES_MAX:
        problem = Problem(str(path), "a larger file", f"at most {limits.GROUP_FILE_BYTES_MAX} bytes")
        raise ConfigError("failed to load group: group.json is not valid.", [problem])
    return read_deployed(data)
