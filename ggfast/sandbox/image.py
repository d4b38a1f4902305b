"""The image that Python workers are forked from, and the birth of the process that keeps it: the zygote.

This module is loaded before the zygote is forked, and what is loaded then lies between the objects that workers
write to: every page of it costs each worker a little. So it imports next to nothing (sandbox.md section 8; bench
`functions` measures it), and boot.py imports nothing else of the supervisor's before.
"""

from __future__ import annotations

import gc
import importlib
import os
import sys
from _socket import AF_UNIX, SOCK_SEQPACKET, socketpair

from ggfast._ext import kernel

TYPE_CHECKING = False
if TYPE_CHECKING:  # typing itself would be the largest thing in the image
    from collections.abc import Mapping
    from typing import Any, NoReturn

PR_SET_PDEATHSIG = 1
SIGKILL, SIGCHLD = 9, 17  # the signal module brings enumerations with it
SOCKET, NAMESPACE, SIGNALS, FIRST_FREE = 10, 11, 12, 13  # the zygote's own descriptors, and where requests bring theirs


def load(worker: Mapping[str, Any]) -> Any:
    """Import what workers share, named by the launch spec; the worker module, or None if there is none."""
    for path in reversed(worker.get("python_path", ())):
        sys.path.insert(0, path)
    for name in worker.get("preload", ()):
        importlib.import_module(name)
    return importlib.import_module(worker["module"]) if worker.get("module") else None


def fork_zygote(module: Any) -> tuple[int, int]:
    """Fork the zygote from this process as it is now: (pid, our end of its socket). Raises OSError.

    It prepares the image and then stays in C (ext/kernel_zygote.pxi), so that its memory does not move on from what
    its children share with it.
    """
    ours, theirs = socketpair(AF_UNIX, SOCK_SEQPACKET)
    pid = os.fork()
    if pid == 0:
        _live(theirs.fileno(), module)
    theirs.close()
    return pid, ours.detach()


def _live(sock: int, module: Any) -> NoReturn:
    """In the zygote. Whatever happens, the supervisor's code above must not go on here."""
    try:
        kernel.prctl(PR_SET_PDEATHSIG, SIGKILL)
        kernel.set_title(b"ggfast-zygote")
        kernel.drop_bounding(0)  # nothing here is ever executed; workers find nothing left to drop
        namespace = os.open("/proc/self/ns/pid", os.O_RDONLY | os.O_CLOEXEC)
        signals = kernel.signal_descriptor(1 << SIGCHLD)
        moved = [os.dup(fd) for fd in (sock, namespace, signals)]
        free = max(*moved, FIRST_FREE) + 1
        moved = [os.dup2(fd, free + place, inheritable=False) for place, fd in enumerate(moved)]
        for place, fd in zip((SOCKET, NAMESPACE, SIGNALS), moved, strict=True):
            os.dup2(fd, place, inheritable=False)
        close_from(FIRST_FREE)
        _become_image(module)
        kernel.serve_zygote(SOCKET, NAMESPACE, SIGNALS)
        _become_worker(module)
    finally:
        os._exit(1)


def _become_image(module: Any) -> None:
    """Let the module prepare what its workers would each do for themselves, then freeze everything: without the
    freeze the first collection in a worker copies the whole heap."""
    prepare = getattr(module, "prepare", None)
    if prepare is not None:
        prepare()
    gc.collect()
    gc.freeze()


def _become_worker(module: Any) -> NoReturn:
    """In a worker, inside its container: hand over to the module and never return.

    Every object of the image stays referenced by the frames above, so none is destroyed here and no descriptor
    number that now belongs to the worker is closed by a destructor.
    """
    status = 1
    try:
        module.main()
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


def close_from(first: int) -> None:
    """Close every descriptor from this number on."""
    try:
        kernel.close_range(first, 0xFFFFFFFF)
    except OSError:  # before Linux 5.9
        os.closerange(first, max(map(int, os.listdir("/proc/self/fd"))) + 1)
