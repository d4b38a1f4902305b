"""Row 52 of the hostile-function checklist: what a package may bring, against the command that deploys it."""

from __future__ import annotations

import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.e2e.harness import Core, a_core
from tests.sandbox.hostile import row

pytestmark = pytest.mark.root
ENTRIES: dict[str, list[tuple[str, int, bytes]]] = {
    "climbs out": [("../../evil", 0o100644, b"x")],
    "climbs out of a folder": [("lib/../../../evil", 0o100644, b"x")],
    "absolute": [("/tmp/ggfast-evil", 0o100644, b"x")],
    "backslashes": [("..\\..\\evil", 0o100644, b"x")],
    "link": [("link", 0o120777, b"/etc/passwd")],
    "link to write through": [("link", 0o120777, b"/tmp"), ("link/ggfast-evil", 0o100644, b"x")],
    "device": [("disk", 0o060666, b"")],
    "pipe": [("pipe", 0o010666, b"")],
    "setuid": [("tool", 0o104755, b"#!/bin/sh\n")],
    "setgid": [("tool", 0o102755, b"#!/bin/sh\n")],
    "bomb": [("zeros", 0o100644, bytes(48 << 20))],
    "case clash": [("Lib/a.py", 0o100644, b""), ("lib/A.py", 0o100644, b"")],
    "twice": [("a", 0o100644, b"1"), ("a", 0o100644, b"2")],
    "file and folder": [("a", 0o100644, b"1"), ("a/b", 0o100644, b"2")],
}


@pytest.fixture(scope="module")
def resting_core() -> Iterator[Core]:
    """A core that is not started: packages are looked at, and refused, by the command that deploys."""
    with a_core() as core:
        yield core


def files_below(directory: Path) -> set[str]:
    return {str(path.relative_to(directory)) for path in directory.rglob("*") if path.name != "supervisor.lock"}


@row(52, "leave the target, bring links, devices, set-id bits, bombs", by="own extractor", result="deployment refused")
@pytest.mark.parametrize("kind", ENTRIES)
@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_row_52_packages(resting_core: Core, kind: str) -> None:
    """Unpacked as the daemon's user, whoever the function runs as. Nothing appears anywhere. What an archive can be
    beyond these is in tests/unit/test_packages.py."""
    core = resting_core
    folder = core.folder()
    folder.function("packed", "def handler(event, context):\n    pass\n", sdk=False)
    folder.functions[0]["Code"] = "functions/packed.zip"
    archive = folder.path / "functions" / "packed.zip"
    with zipfile.ZipFile(archive, "w") as zipped:
        zipped.write(folder.path / "functions" / "packed" / "main.py", "main.py")
        for name, mode, content in ENTRIES[kind]:
            info = zipfile.ZipInfo(name)
            info.external_attr = mode << 16
            info.create_system = 3
            zipped.writestr(info, content, zipfile.ZIP_DEFLATED)
    before = files_below(core.directory)
    done = core.deploy(folder, check=False)
    assert done.returncode == 1
    assert "Functions[0].Code: found" in done.stderr, done.stderr
    new = files_below(core.directory) - before - {f"{folder.path.name}/group.json"}
    assert not any("evil" in name or "/deployment/lambda/" in name for name in new), new
    assert not Path("/tmp/ggfast-evil").exists()
