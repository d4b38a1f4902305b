"""A deployment without a cloud: from a folder with group.json, code and certificates to a staged group.

Everything is checked before anything live is touched, and all problems are reported together. Reads the folder,
writes only below the staging directory. Blocking; meant for a thread or a command.
"""

from __future__ import annotations

import hashlib
import os
import re
import ssl
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Final

from ggfast import limits
from ggfast.core.deploy.staging import (
    Owner,
    Stager,
    is_function_arn,
    replaced_group,
    staging_directory,
    write_group,
)
from ggfast.core.deploy.store import StagedGroup
from ggfast.errors import ConfigError, Problem, StorageFailed
from ggfast.fields import Problems, parse_json, shown
from ggfast.group.diff import diff
from ggfast.group.document import Device, Function, Group, Resource, S3Model, SageMakerModel
from ggfast.group.folder import NOT_VALID, ReadGroup, read_folder, version_id
from ggfast.group.ondisk import write_deployed
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
    owner: Owner = None,
) -> StagedGroup:
    """Prepare the group in `folder` for activation in `layout`.

    `staging_directory` must be new and lie in `layout.staging`; by default a fresh one is made. `owner` (uid, gid)
    gets everything written: the process that activates must be able to move it. Raises ConfigError with all
    problems, LimitReached if the disk has no room, StorageFailed if it fails; nothing stays behind then.
    """
    try:
        return _Folder(folder, layout, rules or GroupRules(), owner).stage(staging_directory)
    except OSError as error:
        hint = "The account that deploys must be able to read the whole folder."
        raise StorageFailed(f"the folder {folder} cannot be deployed: {error}", hint=hint) from error


def stage_empty(layout: Layout, *, owner: Owner = None) -> StagedGroup:
    """Prepare the removal of everything deployed (greengrass-core 12.5)."""
    with staging_directory(layout, None, owner) as directory:
        write_group(directory, layout, Group(), {}, owner=owner)
        notes: list[str] = []
        return StagedGroup(directory, Group(), diff(replaced_group(layout, notes), Group()), tuple(notes))


@dataclass(slots=True)
class _Folder:
    folder: Path
    layout: Layout
    rules: GroupRules
    owner: Owner
    problems: Problems = field(default_factory=Problems)
    notes: list[str] = field(default_factory=list)

    def stage(self, wanted: Path | None) -> StagedGroup:
        problems = self.problems
        document = parse_json(self._read_document(), problems, "group.json")
        problems.raise_if_any(NOT_VALID)
        read = read_folder(document, problems)
        validate(read.group, self.rules, problems, read.paths)
        self.notes += read.warnings
        active = replaced_group(self.layout, self.notes)
        certificates = self._certificates(read)
        with staging_directory(self.layout, wanted, self.owner) as directory:
            stager = Stager(
                directory, read.group, read.paths, self.layout, self.rules, self.owner, problems, self.notes
            )
            functions = tuple(self._functions(stager))
            problems.raise_if_any(NOT_VALID)
            resources = tuple(self._resources(stager))
            problems.raise_if_any(NOT_VALID)
            group = replace(read.group, functions=functions, resources=resources)
            content = hashlib.sha256(write_deployed(group)).hexdigest()
            group = replace(group, version_id=version_id(group.group_id, content))
            return stager.finish(group, active, certificates)

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

    # --- code and models ---

    def _functions(self, stager: Stager) -> Iterator[Function]:
        for position, function in enumerate(stager.group.functions):
            if function.is_system or not function.code or not is_function_arn(function.arn):
                yield function  # what is wrong with it is noted already
                continue
            source = self._inside(function.code)
            if source is not None and source.exists():
                yield stager.function(position, source, function.code)
                continue
            path = f"{stager.paths['Functions']}[{position}].Code"
            self.problems.add(path, shown(function.code), f"a folder or zip archive in {self.folder}")
            yield function

    def _resources(self, stager: Stager) -> Iterator[Resource]:
        """The resources, models among them unpacked unless they were before."""
        for position, resource in enumerate(stager.group.resources):
            data = resource.data
            if not isinstance(data, S3Model | SageMakerModel) or not data.archive:
                yield resource
                continue
            path = f"{stager.paths['Resources']}[{position}].Archive"
            source = self._inside(data.archive)
            if source is None or not source.is_file():
                self.problems.add(path, shown(data.archive), f"a .zip or .tar.gz archive in {self.folder}")
                yield resource
            else:
                digest = stager.model(path, resource.id, data, source)
                yield replace(resource, data=replace(data, archive="", digest=digest))

    def _inside(self, name: str) -> Path | None:
        """The real path of `name` in the folder, None if it leads out of it."""
        root = os.path.realpath(self.folder)
        path = "" if "\0" in name else os.path.realpath(os.path.join(root, name))
        return Path(path) if path.startswith(root + os.sep) else None

    # --- certificates ---

    def _certificates(self, read: ReadGroup) -> dict[str, bytes]:
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
                self.problems.add(path, shown(name), f"a PEM file in {self.folder}")
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
                self.problems.add(path, shown(device.certificate_arn), expected)
        unused = len(found.keys() - wanted.keys())
        if unused:
            self.notes.append(f"certificates: {unused} belong to no device of the group")
        return wanted


def _certificate_id(device: Device) -> str:
    """The device's certificate id, empty if its ARN is wrong, which is noted already."""
    try:
        return device.certificate_id
    except ValueError:
        return ""


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
