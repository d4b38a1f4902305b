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


@dataclass(frozen=True, slots=True)
class Loaded:
    """The worker module's two entries: `prepare` makes this process an image, `main` is a worker's life."""

    main: Callable[[], object]
    prepare: Callable[[], object] | None = None


def preload(image: Image) -> Loaded | None:
    """Import what workers share; None without a worker module."""
    for path in reversed(image.python_path):
        sys.path.insert(0, path)
    for name in image.preload:
        importlib.import_module(name)
    if not image.module:
        return None
    module = importlib.import_module(image.module)
    return Loaded(module.main, getattr(module, "prepare", None))


def become_image(loaded: Loaded | None) -> None:
    """In the zygote: let the module prepare what its workers would each do for themselves, then freeze everything.

    Without the freeze the first collection in a worker copies the whole heap (sandbox.md section 8).
    """
    if loaded is not None and loaded.prepare is not None:
        loaded.prepare()
    gc.collect()
    gc.freeze()


def become_worker(loaded: Loaded | None) -> NoReturn:
    """In the child, inside its container: hand over to the preloaded module and never return.

    Every object of the spawner stays referenced by the frames above, so none is destroyed here and no descriptor
    number that now belongs to the worker is closed by a destructor.
    """
    status = 1
    try:
        assert loaded is not None
        loaded.main()
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
