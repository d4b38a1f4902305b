"""What the tests of Node.js functions share: the shipped runtime, in a real interpreter, with a function's files."""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from worker_support import Worker, environment

RUNTIME = Path(__file__).resolve().parents[2] / "ggfast" / "core" / "workers" / "nodejs"


def node() -> str:
    """The installed interpreter."""
    found = shutil.which("node")
    assert found, "node is not installed: packaging/debian-packages.txt names what has it"
    return found


def start(
    folder: Path,
    source: str | Mapping[str, str],
    handler: str = "index.handler",
    *,
    flags: Sequence[str] = (),
    drain: bool = True,
    **variables: str,
) -> Worker:
    """Start a function made of `source`, the text of index.js or a text for each path."""
    for name, text in ({"index.js": source} if isinstance(source, str) else source).items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    argv = [node(), *flags, str(RUNTIME / "main.js"), f"--handler={handler}"]
    return Worker(argv, environment(GGFAST_CODE_DIR=str(folder), **variables), folder, drain=drain)


def ready(*arguments: Any, **keywords: Any) -> Worker:
    """`start`, and wait until it takes work."""
    worker = start(*arguments, **keywords)
    try:
        problem = worker.initialised()
        assert problem == "", problem
    except BaseException:
        worker.close()
        raise
    return worker


def published_sdk() -> Path:
    """The node_modules with npm's unmodified aws-greengrass-core-sdk and what it needs; fetched once."""
    script = RUNTIME.parents[3] / "packaging" / "fetch_test_packages.py"
    done = subprocess.run(
        [sys.executable, str(script), "npm"], capture_output=True, text=True, timeout=300, check=False
    )
    assert done.returncode == 0, done.stderr
    return Path(done.stdout.strip()) / "node_modules"
