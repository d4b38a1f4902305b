"""What Python workers share: modules imported once, before the first of them is forked."""

from __future__ import annotations

import gc
import importlib
import os
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, NoReturn


@dataclass(frozen=True, slots=True)
class Image:
    """What is preloaded for Python workers and where they find it at /runtime."""

    python_path: tuple[str, ...] = ()
    module: str = ""
    runtime_dir: str = ""
    preload: tuple[str, ...] = ()

    @classmethod
    def from_json(cls, document: Mapping[str, Any]) -> Image:
        """From the launch spec."""
        return cls(
            tuple(document.get("python_path", ())),
            str(document.get("module", "")),
            str(document.get("runtime_dir", "")),
            tuple(document.get("preload", ())),
        )


def preload(image: Image) -> Callable[[], object] | None:
    """Import the worker's module and freeze everything; its `main`, or None without a module.

    Without the freeze the first collection in a worker copies the whole heap (sandbox.md section 8).
    """
    main: Callable[[], object] | None = None
    for path in reversed(image.python_path):
        sys.path.insert(0, path)
    for name in image.preload:
        importlib.import_module(name)
    if image.module:
        module = importlib.import_module(image.module)
        main = module.main
    gc.collect()
    gc.freeze()
    return main


def become_worker(main: Callable[[], object] | None) -> NoReturn:
    """In the child, inside its container: hand over to the preloaded module and never return.

    Every object of the spawner stays referenced by the frames above, so none is destroyed here and no descriptor
    number that now belongs to the worker is closed by a destructor.
    """
    status = 1
    try:
        assert main is not None
        main()
        status = 0
    except SystemExit as ending:
        status = ending.code if isinstance(ending.code, int) else int(ending.code is not None)
    except BaseException:
        import traceback

        traceback.print_exc()
    finally:
        try:
            sys.stdout.flush()
            sys.stderr.flush()
        finally:
            os._exit(status & 0xFF)
