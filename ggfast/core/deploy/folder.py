"""A deployment without a cloud: from a folder with group.json, code and certificates to a staged group.

Everything is checked before anything live is touched, and all problems are reported together. Reads the folder,
writes only below the staging directory. Blocking; meant for a thread or a command.
"""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import ssl
import uuid
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

from ggfast import arns, limits
from ggfast.core.deploy.store import StagedGroup, load_active
from ggfast.core.functions.handlers import make_executable, missing_handler
from ggfast.core.functions.java_archive import ensure_archive, place_archive, placed_name
from ggfast.core.functions.model_archives import stage_model
from ggfast.core.functions.models import read_instead_of_written, written_resources
from ggfast.core.functions.packages import unpack
from ggfast.core.functions.runtimes import find_interpreter
from ggfast.errors import ConfigError, DeploymentFailed, Problem, StorageFailed
from ggfast.fields import Problems, parse_json, shown
from ggfast.group.diff import diff
from ggfast.group.document import Device, Function, Group, Isolation, Resource, S3Model, SageMakerModel
from ggfast.group.folder import NOT_VALID, ReadGroup, read_folder, version_id
from ggfast.group.functions import isolation_of, runtime_of
from ggfast.group.ondisk import write_deployed
from ggfast.group.runtimes import Language, language_of
from ggfast.group.validate import GroupRules, validate
from ggfast.layout import Layout
from ggfast.plainfile import open_plain

_PEM: Final = re.compile(r"-----BEGIN CERTIFICATE-----[A-Za-z0-9+/=\s]{1,65536}-----END CERTIFICATE-----")
_CERTIFICATE_SUFFIXES: Final = {".pem", ".crt"}


def stage_folder(
    folder: Path,
    layout: Layout,
    staging_directory: Path | None = None,
    *,
    rules: GroupRules | None = None,
    owner: tuple[int, int] | None = None,
) -> StagedGroup:
    """Prepare the group in `folder` for activation in `layout`.

    `staging_directory` must be new and lie in `layout.staging`; by default a fresh one is made. `owner` (uid, gid)
    gets everything written: the process that activates must be able to move it. Raises ConfigError with all
    problems, LimitReached if the disk has no room, StorageFailed if it fails; nothing stays behind then.
    """
    try:
        return _Stager(folder, layout, rules or GroupRules(), owner).stage(staging_directory)
    except OSError as error:
        hint = "The account that deploys must be able to read the whole folder."
        raise StorageFailed(f"the folder {folder} cannot be deployed: {error}", hint=hint) from error


def stage_empty(layout: Layout, *, owner: tuple[int, int] | None = None) -> StagedGroup:
    """Prepare the removal of everything deployed (greengrass-core 12.5)."""
    directory = _new_directory(layout, None, owner)
    _write_group(directory, Group(), {}, owner)
    notes: list[str] = []
    return StagedGroup(directory, Group(), diff(_replaced(layout, notes), Group()), tuple(notes))


def _replaced(layout: Layout, notes: list[str]) -> Group:
    """The live group; one that cannot be read counts as none, so that a deployment can replace it."""
    try:
        return load_active(layout)
    except ConfigError as error:
        notes.append(f"{layout.group_file} is replaced as a whole: {error.subject}")
        return Group()


@dataclass(slots=True)
class _Stager:
    folder: Path
    layout: Layout
    rules: GroupRules
    owner: tuple[int, int] | None

    def stage(self, wanted: Path | None) -> StagedGroup:
        problems = Problems()
        document = parse_json(self._read_document(), problems, "group.json")
        problems.raise_if_any(NOT_VALID)
        read = read_folder(document, problems)
        validate(read.group, self.rules, problems, read.paths)
        notes = list(read.warnings)
        active = _replaced(self.layout, notes)
        certificates = self._certificates(read, problems, notes)
        directory = _new_directory(self.layout, wanted, self.owner)
        try:
            functions = tuple(
                function if function.is_system else self._package(function, at, read, directory, problems, notes)
                for at, function in enumerate(read.group.functions)
            )
            problems.raise_if_any(NOT_VALID)
            resources = self._models(read, directory, problems, notes)
            problems.raise_if_any(NOT_VALID)
            group = replace(read.group, functions=functions, resources=resources)
            content = hashlib.sha256(write_deployed(group)).hexdigest()
            group = replace(group, version_id=version_id(group.group_id, content))
            for function in functions:
                if not function.is_system and self._is_live(active, function):
                    shutil.rmtree(directory / "lambda" / function.arn)
            _write_group(directory, group, certificates, self.owner)
        except BaseException:
            shutil.rmtree(directory, ignore_errors=True)
            raise
        notes += [
            f"{arns.STREAM_MANAGER_ARN}: this release serves no streams, the entry has no effect"
            for function in functions
            if function.arn == arns.STREAM_MANAGER_ARN
        ]
        return StagedGroup(directory, group, diff(active, group), tuple(notes))

    def _read_document(self) -> bytes:
        path = self.folder / "group.json"
        try:
            with open_plain(path) as file:
                data = file.read(limits.GROUP_FILE_BYTES_MAX + 1)
        except OSError as error:
            problem = Problem(str(path), error.strerror or "no readable file", "the group's document")
            raise ConfigError(f"The folder {self.folder} holds no group.", [problem]) from error
        if len(data) > limits.GROUP_FILE_BYTES_MAX:
            problem = Problem(str(path), "a larger file", f"at most {limits.GROUP_FILE_BYTES_MAX} bytes")
            raise ConfigError(NOT_VALID, [problem])
        return data

    # --- code ---

    def _package(
        self,
        function: Function,
        position: int,
        read: ReadGroup,
        directory: Path,
        problems: Problems,
        notes: list[str],
    ) -> Function:
        """`function` with its package unpacked and measured; findings go to `problems`."""
        path = f"{read.paths['Functions']}[{position}]"
        source = self._inside(function.code)
        target = directory / "lambda" / function.arn
        if not function.code or not _is_function_arn(function.arn) or target.exists():
            return function  # noted already
        if source is None or not source.exists():
            problems.add(f"{path}.Code", shown(function.code), f"a folder or zip archive in {self.folder}")
            return function
        language = language_of(runtime_of(function)) or Language.PYTHON
        python = language is Language.PYTHON
        try:
            package = unpack(source, target, python=python, owner=self.owner)
        except ConfigError as error:
            for problem in error.problems:
                problems.add(f"{path}.Code", f"{problem.path}: {problem.found}", problem.expected)
            return function
        if function.handler and (missing := missing_handler(language, target, function.handler)):
            problems.add(f"{path}.Handler", shown(function.handler), f"{missing} in the package {function.code}")
        contained = isolation_of(read.group, function) is not Isolation.NO_CONTAINER
        hidden = self.rules.denied_paths if contained else None
        self._prepare_runtime(path, function, hidden, target, problems, notes)
        notes += [f"{function.arn}: {note}" for note in package.notes]
        return replace(function, code="", code_digest=package.digest, code_bytes=package.size_bytes)

    def _prepare_runtime(
        self,
        path: str,
        function: Function,
        hidden: Sequence[str] | None,
        target: Path,
        problems: Problems,
        notes: list[str],
    ) -> None:
        """What the function's program needs beside its package; a missing interpreter goes to `problems`."""
        try:
            interpreter = find_interpreter(function, dict(self.rules.runtimes), hidden)
        except DeploymentFailed as error:
            problems.add(f"{path}.Runtime", shown(runtime_of(function)), error.detail)
            return
        language = language_of(runtime_of(function))
        if language is Language.EXECUTABLE:
            make_executable(target, function.handler)
        elif language is Language.JAVA:
            archive = ensure_archive(Path(interpreter), self.layout.java_archives, notes.append)
            if archive is not None:
                place_archive(archive, target / placed_name(Path(interpreter)))

    # --- models ---

    def _models(self, read: ReadGroup, directory: Path, problems: Problems, notes: list[str]) -> tuple[Resource, ...]:
        """The resources, models among them unpacked unless they were before; findings go to `problems`."""
        written = written_resources(read.group)
        resources = []
        for position, resource in enumerate(read.group.resources):
            data = resource.data
            if isinstance(data, S3Model | SageMakerModel) and data.archive:
                path = f"{read.paths['Resources']}[{position}].Archive"
                digest = self._model(path, data, resource.id in written, directory / "models", problems)
                resource = replace(resource, data=replace(data, archive="", digest=digest))
            resources.append(resource)
        notes += [
            f"{arn}: without a container it reads the model {resource_id}, but cannot write it"
            for arn, resource_id in read_instead_of_written(read.group)
        ]
        return tuple(resources)

    def _model(
        self, path: str, data: S3Model | SageMakerModel, writable: bool, target: Path, problems: Problems
    ) -> str:
        source = self._inside(data.archive)
        if source is None or not source.is_file():
            problems.add(path, shown(data.archive), f"a .zip or .tar.gz archive in {self.folder}")
            return ""
        try:
            return stage_model(
                source,
                target,
                self.layout.models,
                needs_parent=isinstance(data, S3Model),
                writable=writable,
                owner=self.owner,
            )
        except ConfigError as error:
            for problem in error.problems:
                problems.add(path, f"{problem.path}: {problem.found}", problem.expected)
            return ""

    def _is_live(self, active: Group, function: Function) -> bool:
        """Whether the live package is this very one."""
        live = active.function(function.arn)
        same = live is not None and live.code_digest == function.code_digest
        return same and self.layout.function(function.arn).is_dir()

    def _inside(self, name: str) -> Path | None:
        """The real path of `name` in the folder, None if it leads out of it."""
        root = os.path.realpath(self.folder)
        path = "" if "\0" in name else os.path.realpath(os.path.join(root, name))
        return Path(path) if path.startswith(root + os.sep) else None

    # --- certificates ---

    def _certificates(self, read: ReadGroup, problems: Problems, notes: list[str]) -> dict[str, bytes]:
        """Certificate id → PEM for every device; live ones are kept for devices whose file is not there."""
        found: dict[str, bytes] = {}
        directory = self.folder / "certificates"
        files = sorted(directory.iterdir()) if directory.is_dir() else []
        for file in files:
            if file.suffix in _CERTIFICATE_SUFFIXES:
                found |= _read_certificates(file)
        for path, name in read.certificates.items():
            source = self._inside(name) if name else None
            if name and (source is None or not source.is_file()):
                problems.add(path, shown(name), f"a PEM file in {self.folder}")
            elif source is not None:
                found |= _read_certificates(source)
        wanted = {}
        for position, device in enumerate(read.group.devices):
            certificate_id = _certificate_id(device)
            stored = self.layout.certificate(certificate_id) if certificate_id else None
            if certificate_id in found:
                wanted[certificate_id] = found[certificate_id]
            elif stored is not None and stored.is_file():
                wanted[certificate_id] = stored.read_bytes()
            elif certificate_id:
                path = f"{read.paths['Devices']}[{position}].CertificateArn"
                expected = f"a certificate with this SHA-256 in {directory} (*.pem or *.crt)"
                problems.add(path, shown(device.certificate_arn), expected)
        unused = len(found.keys() - wanted.keys())
        if unused:
            notes.append(f"certificates: {unused} belong to no device of the group")
        return wanted


def _certificate_id(device: Device) -> str:
    """The device's certificate id, empty if its ARN is wrong, which is noted already."""
    try:
        return device.certificate_id
    except ValueError:
        return ""


def _is_function_arn(arn: str) -> bool:
    try:
        return bool(arns.FunctionArn.parse(arn).qualifier)
    except ValueError:
        return False


def _read_certificates(file: Path) -> dict[str, bytes]:
    """Certificate id → PEM of every certificate in a file; keys and other text in it are passed over."""
    found = {}
    with open_plain(file) as stream:
        text = stream.read(limits.CERTIFICATE_FILE_BYTES_MAX).decode("latin-1")
    for match in _PEM.finditer(text):
        try:
            der = ssl.PEM_cert_to_DER_cert(match[0])
        except ValueError:
            continue
        found[hashlib.sha256(der).hexdigest()] = ssl.DER_cert_to_PEM_cert(der).encode()
    return found


# --- writing ----------------------------------------------------------------------------------------------


def _new_directory(layout: Layout, wanted: Path | None, owner: tuple[int, int] | None) -> Path:
    directory = wanted or layout.staging / uuid.uuid4().hex
    assert directory.parent == layout.staging, f"{directory} does not lie in {layout.staging}"
    try:
        for parent in (layout.deployment, layout.functions, layout.models, layout.staging):
            if not parent.exists():
                parent.mkdir(parents=True)
                _give(parent, owner)
        inside = ("lambda", "models", "group", "group/certificates")
        for child in (directory, *(directory / name for name in inside)):
            child.mkdir()
            _give(child, owner)
    except OSError as error:
        raise StorageFailed(f"{directory} cannot be made: {error}") from error
    return directory


def _give(path: Path, owner: tuple[int, int] | None) -> None:
    """Code for every function's user to pass; the group, which holds functions' variables, for the daemon alone."""
    mode = 0o750 if path.name == "group" else 0o755
    path.chmod(mode if path.is_dir() else 0o644)
    if owner is not None:
        os.chown(path, *owner)


def _write_group(directory: Path, group: Group, certificates: dict[str, bytes], owner: tuple[int, int] | None) -> None:
    """Write the document and the certificates, and see everything staged safely on disk."""
    files = {f"certificates/{name}.pem": content for name, content in certificates.items()}
    files["group.json"] = write_deployed(group)
    try:
        for name, content in files.items():
            path = directory / "group" / name
            path.write_bytes(content)
            _give(path, owner)
        os.sync()  # one wait for all files of all packages; activation relies on them
    except OSError as error:
        raise StorageFailed(f"{directory} cannot be written: {error}") from error
