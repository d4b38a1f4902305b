"""`ggfast-cloud backup` and `restore`: everything in one file, and back. The file holds every secret: keep it safe."""

from __future__ import annotations

import argparse
from pathlib import Path

from ggfast.cli.cloud_folder import add_folder
from ggfast.cli.cloud_init import prepare_folder, remove_content
from ggfast.cloud.backups import back_up, restore
from ggfast.cloud.settings import CloudFolder, load_settings


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of the command the parser is for."""
    if parser.prog.endswith(" backup"):
        add_folder(parser)
        parser.add_argument("file", type=Path, metavar="FILE", help="a file that is not there yet")
    else:
        parser.add_argument("file", type=Path, metavar="FILE", help="what `backup` has written")
        parser.add_argument("folder", type=Path, metavar="DIR", help="an empty folder, or none yet")


def run(args: argparse.Namespace) -> int:
    """Do what the command says. Raises OperatingError, OSError."""
    folder, file = CloudFolder(args.folder.absolute()), args.file.absolute()
    if args.command == "backup":
        load_settings(folder)
        count = back_up(folder, file)
        print(f"{file} holds the {count} files of {folder.root}. It holds every secret of it too: keep it safe.")
        return 0
    made_here = prepare_folder(folder.root)
    try:
        count = restore(file, folder)
        settings = load_settings(folder)
    except BaseException:
        remove_content(folder.root, itself=made_here)
        raise
    print(f"{folder.root} is a control plane for account {settings.account} again, of {count} files.")
    return 0
