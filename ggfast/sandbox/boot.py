"""The first code of the supervisor's process, run by ggfast.sandbox.launch as a script in isolated mode.

It reads the launch spec, takes its descriptors, makes the workers' image and forks the zygote from it; only then does
it import the supervisor and become it. The order is the point: see image.py.
"""

from __future__ import annotations

import sys

if __name__ == "__main__":  # isolated mode leaves only the standard library on the path; it stays first
    sys.path.append(__file__.rsplit("/", 3)[0])

import fcntl
import json
import os

from ggfast._ext import kernel
from ggfast.sandbox import image

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

RESERVED = 10  # descriptors below belong to workers: nothing of ours may have such a number
DESCRIPTORS = ("ready_fd", "pid_dir_fd", "crash_dir_fd", "host_mounts_fd", "lock_fd")


def main(argv: list[str]) -> int:
    """`boot.py <memfd of the launch spec>`; the exit status."""
    os.environ.clear()  # the interpreter adds LC_CTYPE by itself; workers begin with nothing
    number = int(argv[1])
    with open(number, encoding="utf-8") as file:
        file.seek(0)
        spec = json.load(file)
    own_descriptors(spec)
    reserve_low_descriptors()
    try:
        show_title(str(spec["title"]))
        module = image.load(spec["worker"])
        zygote = image.fork_zygote(module)
    except Exception as error:  # an image's modules may raise anything; nothing has been started yet
        report(spec["ready_fd"], {"ok": False, "step": "image", "error": f"{type(error).__name__}: {error}"})
        print(f"supervisor: image: {type(error).__name__}: {error}", file=sys.stderr, flush=True)
        return 1
    from ggfast.sandbox import supervisor

    return supervisor.supervise(spec, module, zygote)


def report(fd: int | None, message: dict[str, Any]) -> None:
    """One JSON line to whoever started us; nobody listening is no error."""
    if fd is None:
        return
    try:
        os.write(fd, json.dumps(message).encode() + b"\n")
    except OSError:
        pass


def own_descriptors(spec: dict[str, Any]) -> None:
    """Replace every inherited descriptor of the launch spec by a private copy above the reserved numbers."""
    for name in DESCRIPTORS:
        if spec.get(name) is not None:
            spec[name] = _own(int(spec[name]))
    for name in ("listeners", "files"):
        spec[name] = {str(key): _own(int(fd)) for key, fd in spec[name].items()}


def reserve_low_descriptors() -> None:
    """Occupy every free number below RESERVED, so that nothing of ours ever collides with a worker's 0 to 4."""
    while (fd := os.open("/dev/null", os.O_RDWR | os.O_CLOEXEC)) < RESERVED:
        pass
    os.close(fd)


def show_title(title: str) -> None:
    """Show `title` as this process's command line."""
    with open("/proc/self/stat", encoding="ascii", errors="replace") as file:
        fields = file.read().rsplit(")", 1)[1].split()
    kernel.claim_title(int(fields[45]), int(fields[46]))  # arg_start, arg_end: fields 48 and 49 of the line
    kernel.set_title(title.encode())
    with open("/proc/self/comm", "w", encoding="utf-8") as file:
        file.write("ggfast-core")


def _own(fd: int) -> int:
    copy = fcntl.fcntl(fd, fcntl.F_DUPFD_CLOEXEC, RESERVED)
    os.close(fd)
    return copy


if __name__ == "__main__":
    sys.exit(main(sys.argv))
