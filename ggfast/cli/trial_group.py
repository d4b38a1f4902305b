"""What `ggfast-core try` runs: one function, taken from a package or out of a group's folder, as a group of its own.

The function gets the group it will have on a device as far as it concerns one function: its configuration, the
table's way to the cloud for all it publishes, no devices. Writes into the directory it is given, nothing else.
"""

from __future__ import annotations

import argparse
import errno
import json
import os
import shutil
import stat
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from ggfast import limits
from ggfast.arns import CLOUD
from ggfast.cli.invoke import WRONG
from ggfast.core.functions.packages import open_in_place
from ggfast.errors import ConfigError, OperatingError, Problem
from ggfast.fields import shown

REGION: Final = "us-east-1"
ACCOUNT: Final = "000000000000"
CORE_ARN: Final = f"arn:aws:iot:{REGION}:{ACCOUNT}:thing/try_Core"
GROUP_ID: Final = "00000000-0000-4000-8000-000000000000"
# Handlers people use when nothing tells another one, by the file that is there.
_USUAL: Final = (
    ("lambda_function.py", "lambda_function.lambda_handler", "python3"),
    ("main.py", "main.handler", "python3"),
    ("index.py", "index.handler", "python3"),
    ("handler.py", "handler.handler", "python3"),
    ("index.js", "index.handler", "nodejs"),
    ("index.mjs", "index.handler", "nodejs"),
    ("handler.js", "handler.handler", "nodejs"),
)


@dataclass(frozen=True, slots=True)
class TrialGroup:
    """The folder to deploy and the function's ARN in it."""

    folder: Path
    arn: str


def make_trial(directory: Path, arguments: argparse.Namespace) -> TrialGroup:
    """Write the group for the function that the command line names. Raises ConfigError, OperatingError."""
    source = Path(os.path.realpath(arguments.folder))
    if not source.exists():
        raise OperatingError(f"{source} does not exist.", hint="Name a function's folder or archive, or a group's.")
    document = _group_document(source)
    entry = _from_group(source, document, arguments) if document is not None else _from_package(source, arguments)
    folder = directory / "group"
    folder.mkdir(mode=0o700)  # the package may come from a place that others cannot read
    code = Path(str(entry["Code"]))
    name = f"code{code.suffix}" if code.is_file() else "code"
    _copy(code, folder / name)
    entry["Code"] = name
    resources = list((document or {}).get("Resources") or [])
    _write(folder, _document(entry, _attached(entry, resources)))
    return TrialGroup(folder, str(entry["FunctionArn"]))


def _copy(code: Path, target: Path) -> None:
    """The package as it is, links too: the deployment judges it."""
    try:
        if code.is_file():
            _copy_file(code, target)
        else:
            shutil.copytree(code, target, symlinks=True, copy_function=_copy_file)
    except ValueError as error:
        raise OperatingError(f"{code} cannot be copied: {error}.") from None
    except shutil.Error as error:
        source, _, reason = error.args[0][0]
        raise OperatingError(f"{source} cannot be copied: {reason}.", hint="A package holds plain files.") from None
    except OSError as error:
        raise OperatingError(f"{code} cannot be copied: {error.strerror}.") from None


def _copy_file(source: str | Path, target: str | Path) -> None:
    with os.fdopen(open_in_place(Path(source)), "rb") as file, open(target, "wb") as copy:
        mode = os.fstat(file.fileno()).st_mode
        if not stat.S_ISREG(mode):
            raise OSError(errno.EINVAL, "it is no regular file", source)
        shutil.copyfileobj(file, copy)
        os.fchmod(copy.fileno(), stat.S_IMODE(mode))


def _group_document(source: Path) -> dict[str, Any] | None:
    """The document of a group's folder, None if `source` is a function's package."""
    path = source / "group.json"
    if not source.is_dir() or not path.is_file():
        return None
    try:
        document = json.loads(path.read_bytes())
    except (OSError, ValueError) as error:
        raise ConfigError(f"{path} cannot be read.", [Problem(str(path), str(error), "a JSON document")]) from None
    if not isinstance(document, dict):
        raise ConfigError(f"{path} cannot be read.", [Problem(str(path), "no object", "a group's document")])
    return document


def _from_group(source: Path, document: dict[str, Any], arguments: argparse.Namespace) -> dict[str, Any]:
    """The entry of the function that --function names, its options replaced by those of the command line."""
    given = document.get("Functions")
    entries = [
        entry for entry in (given if isinstance(given, list) else []) if isinstance(entry, dict) and "Code" in entry
    ]
    names = {str(entry.get("FunctionArn", "")).split(":")[6:7][0]: entry for entry in entries if _has_name(entry)}
    wanted = arguments.function or (next(iter(names)) if len(names) == 1 else "")
    if wanted not in names:
        expected = f"one of {', '.join(sorted(names)) or 'the functions of group.json: it has none'}"
        raise ConfigError(WRONG, [Problem("--function", wanted or "nothing", expected)])
    entry = json.loads(json.dumps(names[wanted]))
    entry["Code"] = _inside(source, str(entry["Code"]))
    configuration = entry.setdefault("FunctionConfiguration", {})
    configuration["Pinned"] = False
    _override(entry, arguments)
    return dict(entry)


def _inside(source: Path, name: str) -> str:
    """The real path of a package in the group's folder: it is copied as root, from nowhere else."""
    root = os.path.realpath(source)
    path = "" if "\0" in name else os.path.realpath(os.path.join(root, name))
    if not path.startswith(root + os.sep) or not os.path.exists(path):
        problem = Problem("Code", shown(name), f"a folder or zip archive in {source}")
        raise ConfigError(f"{source / 'group.json'} cannot be used.", [problem])
    return path


def _has_name(entry: dict[str, Any]) -> bool:
    return len(str(entry.get("FunctionArn", "")).split(":")) > 6


def _from_package(source: Path, arguments: argparse.Namespace) -> dict[str, Any]:
    handler, runtime = arguments.handler, arguments.runtime
    for file, usual, language in _USUAL:
        if not handler and (not runtime or runtime.startswith(language.rstrip("3"))) and (source / file).is_file():
            handler, runtime = usual, runtime or language
    if not handler:
        names = ", ".join(file for file, _, _ in _USUAL)
        raise ConfigError(
            WRONG, [Problem("--handler", "nothing", f"the handler, as {source.name} has none of {names}")]
        )
    entry: dict[str, Any] = {
        "Id": "trial",
        "FunctionArn": f"arn:aws:lambda:{REGION}:{ACCOUNT}:function:{_name(source)}:1",
        "Code": str(source),
        "Handler": handler,
        "Runtime": runtime or "python3",
        "FunctionConfiguration": {"MemorySize": limits.TRY_MEMORY_KB},
    }
    _override(entry, arguments)
    return entry


def _name(source: Path) -> str:
    """The folder's name as a function can be called."""
    kept = "".join(c if c.isascii() and (c.isalnum() or c in "-_") else "-" for c in source.stem)
    return kept.strip("-")[:64] or "function"


def _override(entry: dict[str, Any], arguments: argparse.Namespace) -> None:
    configuration = entry["FunctionConfiguration"]
    if arguments.memory is not None:
        configuration["MemorySize"] = arguments.memory
    if arguments.timeout is not None:
        configuration["Timeout"] = arguments.timeout
    if arguments.binary:
        configuration["EncodingType"] = "binary"
    if arguments.handler:
        entry["Handler"] = arguments.handler
    if arguments.runtime:
        entry["Runtime"] = arguments.runtime
    environment = configuration.setdefault("Environment", {})
    variables = environment.setdefault("Variables", {})
    for pair in arguments.env:
        name, equals, value = pair.partition("=")
        if not equals:
            raise ConfigError(WRONG, [Problem("--env", pair, "NAME=VALUE")])
        variables[name] = value


def _attached(entry: dict[str, Any], resources: list[Any]) -> list[Any]:
    """The resources of the group that the function uses."""
    policies = entry["FunctionConfiguration"].get("Environment", {}).get("ResourceAccessPolicies") or []
    used = {policy.get("ResourceId") for policy in policies if isinstance(policy, dict)}
    return [resource for resource in resources if isinstance(resource, dict) and resource.get("Id") in used]


def _document(entry: dict[str, Any], resources: list[Any]) -> dict[str, Any]:
    core = {"Id": "core", "ThingArn": CORE_ARN, "SyncShadow": False}
    core["CertificateArn"] = f"arn:aws:iot:{REGION}:{ACCOUNT}:cert/{'0' * 64}"
    everything = {"Id": "all", "Source": entry["FunctionArn"], "Subject": "#", "Target": CLOUD}
    return {
        "Name": "try",
        "GroupId": GROUP_ID,
        "Cores": [core],
        "Functions": [entry],
        "Subscriptions": [everything],
        "Resources": resources,
    }


def _write(folder: Path, document: dict[str, Any]) -> None:
    (folder / "group.json").write_text(json.dumps(document, indent=1), encoding="utf-8")
