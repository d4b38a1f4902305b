"""Where the supervisor and the daemon's last words go: an append-only file of bounded size.

The directory may belong to the daemon's user, who may be hostile: the file is opened through a descriptor of
the directory, no link is followed, and only a plain file with one name that root owns is written to.
"""

from __future__ import annotations

import os
import stat

from ggfast import limits


class CrashLog:
    """Never raises and never blocks longer than a write to disk; a log that cannot be written is dropped."""

    def __init__(self, directory_fd: int, name: str) -> None:
        self.dropped = 0
        self._directory = directory_fd
        self._name = name
        self._fd = -1
        self._size = 0

    def write(self, data: bytes | memoryview) -> None:
        """Append; at the limit the file becomes `<name>.1` and a new one begins."""
        try:
            if self._fd < 0 or self._size + len(data) > limits.CRASH_LOG_BYTES_MAX:
                self._open(rotate=self._fd >= 0)
            self._size += os.write(self._fd, data)
        except OSError:
            self.dropped += len(data)

    def line(self, text: str) -> None:
        """One line of the supervisor's own."""
        self.write(b"supervisor: " + text.encode("utf-8", "replace") + b"\n")

    def _open(self, *, rotate: bool) -> None:
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1
        if rotate:
            os.rename(self._name, self._name + ".1", src_dir_fd=self._directory, dst_dir_fd=self._directory)
        self._fd, self._size = open_log(self._directory, self._name)
        if self._size >= limits.CRASH_LOG_BYTES_MAX and not rotate:
            self._open(rotate=True)


def open_log(directory_fd: int, name: str) -> tuple[int, int]:
    """Descriptor and size of the log; raises OSError where the name is not a plain file of ours."""
    flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK
    fd = os.open(name, flags, 0o644, dir_fd=directory_fd)
    status = os.fstat(fd)
    if not stat.S_ISREG(status.st_mode) or status.st_nlink != 1 or status.st_uid != os.geteuid():
        os.close(fd)
        raise PermissionError(f"{name}: expected a plain file of root with one name")
    return fd, status.st_size
