"""What a group needs, written beside the live one: packages, models, certificates, the document.

Shared by deployments from a folder (folder.py) and from the control plane (offered.py): both say where things come
from, this says what becomes of them. Blocking; meant for a thread, a command or a process of its own.
"""

from __future__ import annotations

import os
import shutil
import uuid
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path

from ggfast import arns
from ggfast.core.deploy.room import full_text, is_full, missing_bytes
from ggfast.core.deploy.store import StagedGroup, load_active
from ggfast.core.functions.handlers import make_executable, missing_handler
from ggfast.core.functions.java_archive import ensure_archive, place_archive, placed_name
from ggfast.core.functions.model_archives import stage_model
from ggfast.core.functions.models import read_instead_of_written, written_resources
from ggfast.core.functions.packages import unpack
from ggfast.core.functions.runtimes import find_interpreter
from ggfast.errors import ConfigError, DeploymentFailed, StorageFailed
from ggfast.fields import Problems, shown
from ggfast.group.diff import diff
from ggfast.group.document import Function, Group, Isolation, S3Model, SageMakerModel
from ggfast.group.functions import isolation_of, runtime_of
from ggfast.group.ondisk import write_deployed
from ggfast.group.runtimes import Language, language_of
from ggfast.group.validate import GroupRules
from ggfast.layout import Layout

Owner = tuple[int, int] | None
"""uid and gid of everything written; None leaves them the writer's."""


@contextmanager
def staging_directory(layout: Layout, wanted: Path | None = None, owner: Owner = None) -> Iterator[Path]:
    """A new directory below `layout.staging`, `wanted` or one of a fresh name; gone again if the block raises.

    Raises StorageFailed if it cannot be made.
    """
    directory = wanted or layout.staging / uuid.uuid4().hex
    assert directory.parent == layout.staging, f"{directory} does not lie in {layout.staging}"
    try:
        _make_directories(layout, directory, owner)
    except FileExistsError as error:
        raise StorageFailed(f"{directory} cannot be made: {error}") from error
    except OSError as error:
        shutil.rmtree(directory, ignore_errors=True)
        raise StorageFailed(f"{directory} cannot be made: {error}") from error
    try:
        yield directory
    except BaseException:
        shutil.rmtree(directory, ignore_errors=True)
        raise


def replaced_group(layout: Layout, notes: list[str]) -> Group:
    """The live group; one that cannot be read counts as none, so that a deployment can replace it."""
    try:
        return load_active(layout)
    except ConfigError as error:
        notes.append(f"{layout.group_file} is replaced as a whole: {error.subject}")
        return Group()


@dataclass(slots=True)
class Stager:
    """Fills `directory` with what `group` needs. `paths` says where the group's lists stand in its document; findings
    go to `problems` with the path of the entry, remarks to `notes`."""

    directory: Path
    group: Group
    paths: Mapping[str, str]
    layout: Layout
    rules: GroupRules
    owner: Owner = None
    problems: Problems = field(default_factory=Problems)
    notes: list[str] = field(default_factory=list)

    # --- code ---

    def function(self, position: int, source: Path, name: str) -> Function:
        """The group's function at `position` with its package, from the folder or zip `source` that texts call `name`,
        unpacked and measured."""
        function = self.group.functions[position]
        path = f"{self.paths['Functions']}[{position}]"
        target = self.directory / "lambda" / function.arn
        if not is_function_arn(function.arn) or target.exists():
            return function  # noted already
        language = language_of(runtime_of(function)) or Language.PYTHON
        try:
            package = unpack(source, target, python=language is Language.PYTHON, owner=self.owner)
        except ConfigError as error:
            for problem in error.problems:
                self.problems.add(f"{path}.Code", f"{problem.path}: {problem.found}", problem.expected)
            return function
        if function.handler and (missing := missing_handler(language, target, function.handler)):
            self.problems.add(f"{path}.Handler", shown(function.handler), f"{missing} in the package {name}")
        self._prepare_runtime(path, function, target)
        self.notes += [f"{function.arn}: {note}" for note in package.notes]
        return replace(function, code="", code_digest=package.digest, code_bytes=package.size_bytes)

    def live_function(self, position: int, live: Function) -> Function:
        """The group's function at `position` whose package, that of `live`, is in place already."""
        function = self.group.functions[position]
        self._interpreter(f"{self.paths['Functions']}[{position}]", function)
        return replace(function, code="", code_digest=live.code_digest, code_bytes=live.code_bytes)

    def _prepare_runtime(self, path: str, function: Function, target: Path) -> None:
        """What the function's program needs beside its package."""
        interpreter = self._interpreter(path, function)
        language = language_of(runtime_of(function))
        if interpreter is None:
            return
        if language is Language.EXECUTABLE:
            make_executable(target, function.handler)
        elif language is Language.JAVA:
            archive = ensure_archive(Path(interpreter), self.layout.java_archives, self.notes.append)
            if archive is not None:
                place_archive(archive, target / placed_name(Path(interpreter)))

    def _interpreter(self, path: str, function: Function) -> str | None:
        contained = isolation_of(self.group, function) is not Isolation.NO_CONTAINER
        hidden: Sequence[str] | None = self.rules.denied_paths if contained else None
        try:
            return find_interpreter(function, dict(self.rules.runtimes), hidden)
        except DeploymentFailed as error:
            self.problems.add(f"{path}.Runtime", shown(runtime_of(function)), error.detail)
            return None

    # --- models ---

    def model(self, path: str, resource_id: str, data: S3Model | SageMakerModel, source: Path) -> str:
        """The SHA-256 of the archive `source`, which is unpacked unless it was before; empty if it is refused."""
        try:
            return stage_model(
                source,
                self.directory / "models",
                self.layout.models,
                needs_parent=isinstance(data, S3Model),
                writable=resource_id in written_resources(self.group),
                owner=self.owner,
            )
        except ConfigError as error:
            for problem in error.problems:
                self.problems.add(path, f"{problem.path}: {problem.found}", problem.expected)
            return ""

    # --- the end ---

    def finish(
        self, group: Group, active: Group, certificates: Mapping[str, bytes], deployment: bytes | None = None
    ) -> StagedGroup:
        """Write the document of `group`, which is this stager's with packages and models measured, the certificates by
        id, and, of a deployment of the control plane, what it was. Packages that are live already are left out.

        Raises StorageFailed.
        """
        self.notes += [
            f"{arn}: without a container it reads the model {resource_id}, but cannot write it"
            for arn, resource_id in read_instead_of_written(group)
        ]
        self.notes += [
            f"{function.arn}: this release serves no streams, the entry has no effect"
            for function in group.functions
            if function.arn == arns.STREAM_MANAGER_ARN
        ]
        for function in group.user_functions:
            staged = self.directory / "lambda" / function.arn
            if staged.is_dir() and is_same_package(self.layout, active, function):
                shutil.rmtree(staged)
        write_group(self.directory, self.layout, group, certificates, deployment, self.owner)
        return StagedGroup(self.directory, group, diff(active, group), tuple(self.notes))


def is_same_package(layout: Layout, active: Group, function: Function) -> bool:
    """Whether the live package is the one of `function`, prepared for the same program."""
    live = active.function(function.arn)
    if live is None or live.code_digest != function.code_digest:
        return False
    prepared = (live.handler, runtime_of(live)) == (function.handler, runtime_of(function))
    return prepared and layout.function(function.arn).is_dir()


def is_function_arn(arn: str) -> bool:
    """Whether this names a version of a function, as directories of packages do."""
    try:
        return bool(arns.FunctionArn.parse(arn).qualifier)
    except ValueError:
        return False


# --- writing ----------------------------------------------------------------------------------------------


def write_group(
    directory: Path,
    layout: Layout,
    group: Group,
    certificates: Mapping[str, bytes],
    deployment: bytes | None = None,
    owner: Owner = None,
) -> None:
    """Write the document and what lies beside it, and see everything staged safely on disk. Raises StorageFailed."""
    files = {f"certificates/{name}.pem": content for name, content in certificates.items()}
    files[layout.group_file.name] = write_deployed(group)
    if deployment is not None:
        files[layout.deployment_file.name] = deployment
    for name, content in files.items():
        path = directory / "group" / name
        try:
            path.write_bytes(content)
            _give(path, owner)
        except OSError as error:
            text = f"{directory} cannot be written: {error}"
            if is_full(error):
                text = full_text(path, missing_bytes(directory, len(content)))
            raise StorageFailed(text) from error
    os.sync()  # one wait for all files of all packages; activation relies on them


def _make_directories(layout: Layout, directory: Path, owner: Owner) -> None:
    for parent in (layout.deployment, layout.functions, layout.models, layout.staging):
        if not parent.exists():
            parent.mkdir(parents=True)
            _give(parent, owner)
    inside = ("lambda", "models", "group", "group/certificates")
    for child in (directory, *(directory / name for name in inside)):
        child.mkdir()
        _give(child, owner)


def _give(path: Path, owner: Owner) -> None:
    """Code for every function's user to pass; the group, which holds functions' variables, for the daemon alone."""
    mode = 0o750 if path.name == "group" else 0o755
    path.chmod(mode if path.is_dir() else 0o644)
    if owner is not None:
        os.chown(path, *owner)
