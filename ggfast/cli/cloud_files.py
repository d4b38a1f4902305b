"""`ggfast-cloud add-object` and `add-software`: files that definitions and update jobs name. Also while it is served.

An object is what stood in S3: a model, the input of a bulk deployment. Software is what update jobs offer to cores.
"""

from __future__ import annotations

import argparse
import json
import re
from pathlib import Path

from ggfast.cli.cloud_folder import add_folder, in_folder
from ggfast.cloud.artifacts import ArtifactFolder
from ggfast.cloud.deploy.objects import object_name, register_object
from ggfast.cloud.greengrass.updates import PAIRS, SOFTWARE_KINDS, register_software
from ggfast.cloud.server import Opened
from ggfast.cloud.settings import REGION, CloudFolder, CloudSettings, load_settings
from ggfast.cloud.store.interface import Transaction
from ggfast.errors import ConfigError, Problem

_OBJECT = re.compile(
    r"s3://[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]/[^\0]{1,1024}"
    r"|arn:aws[a-z-]*:sagemaker:[a-z0-9-]+:[0-9]{12}:training-job/[A-Za-z0-9-]{1,63}"
)
_VERSION = re.compile(r"[0-9A-Za-z][0-9A-Za-z.+_-]{0,63}")  # stands in the path under which a core fetches it


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of the command the parser is for."""
    add_folder(parser)
    if parser.prog.endswith(" add-object"):
        parser.add_argument(
            "address", metavar="URI", help="s3://<bucket>/<key>, an https address in S3, or the ARN of a training job"
        )
    else:
        parser.add_argument("architecture", metavar="ARCH", choices=sorted({pair[1] for pair in PAIRS}), help="its CPU")
        parser.add_argument("system", metavar="OS", choices=sorted({pair[0] for pair in PAIRS}), help="its system")
        parser.add_argument("version", metavar="VERSION", help="what the jobs say it is")
        parser.add_argument("--kind", choices=SOFTWARE_KINDS, default="core", help="default: %(default)s")
    parser.add_argument("file", type=Path, metavar="FILE", help="its content")
    parser.add_argument("--region", metavar="R", help="default: the control plane's")
    parser.add_argument("--json", action="store_true", help="print one JSON object")


def run(args: argparse.Namespace) -> int:
    """Keep the file, then register it. Raises ConfigError, StorageFailed, OSError."""
    problems = _object_problems(args) if args.command == "add-object" else _software_problems(args)
    if args.region is not None and REGION.fullmatch(args.region) is None:
        problems.append(Problem("--region", repr(args.region[:80]), "a region such as eu-west-1"))
    if problems:
        raise ConfigError("The file cannot be registered.", problems)
    folder = CloudFolder(args.folder.absolute())
    load_settings(folder)
    with args.file.open("rb") as file:
        digest, size = ArtifactFolder(folder.artifacts).keep_file(file)

    async def register(cloud: Opened, settings: CloudSettings) -> str:
        home = f"{settings.account}/{args.region or settings.region}"
        return await cloud.store.write(lambda tx: _register(tx, home, args, digest, size))

    name = in_folder(args.folder, register)
    if args.json:
        print(json.dumps({"name": name, "sha256": digest, "size": size}))
    else:
        print(f"{name} is now {args.file} of {size} bytes (SHA-256 {digest}).")
    return 0


def _register(tx: Transaction, home: str, args: argparse.Namespace, digest: str, size: int) -> str:
    if args.command == "add-object":
        register_object(tx, home, args.address, digest, size)
        return object_name(args.address)
    register_software(tx, home, args.kind, args.system, args.architecture, args.version, digest, size)
    return f"{args.kind} {args.version} for {args.system}/{args.architecture}"


def _object_problems(args: argparse.Namespace) -> list[Problem]:
    if _OBJECT.fullmatch(object_name(args.address)) is not None:
        return []
    expected = "s3://<bucket>/<key>, https://<bucket>.s3.amazonaws.com/<key> or the ARN of a SageMaker training job"
    return [Problem("URI", repr(args.address[:200]), expected)]


def _software_problems(args: argparse.Namespace) -> list[Problem]:
    problems = []
    if (args.system, args.architecture) not in PAIRS:
        pairs = ", ".join("/".join(pair) for pair in PAIRS)
        problems.append(Problem("OS and ARCH", f"{args.system}/{args.architecture}", f"one of {pairs}"))
    if _VERSION.fullmatch(args.version) is None:
        problems.append(Problem("VERSION", repr(args.version[:80]), "letters, digits, '.', '+', '_', '-'"))
    return problems
