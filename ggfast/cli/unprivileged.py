"""Running one piece of work as another user: for root's commands that look into files somebody else wrote.

The work happens in a forked child with the other user's ids and no capability but reading every file
(CAP_DAC_READ_SEARCH): the operator's folder may be private, yet a flaw in a zip parser must not be a flaw of root's.
It has none of root's descriptors but the standard ones, and ends with its parent. It is in a session of its own:
whoever shares root's terminal can type on it.
"""

from __future__ import annotations

import json
import os
import signal
import sys
from collections.abc import Callable
from typing import Any

from ggfast import limits
from ggfast._ext import kernel
from ggfast.errors import GgfastError, OperatingError, Rejected
from ggfast.sandbox.image import close_from

CAP_DAC_READ_SEARCH = 2
_PR_SET_PDEATHSIG = 1
_PR_SET_KEEPCAPS = 8
_PR_SET_NO_NEW_PRIVS = 38


def run_as(uid: int, gid: int, work: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    """Run `work` in a child process as `uid`/`gid` and return what it returned (JSON values only). Blocking.

    Raises Rejected with the child's own words if `work` raised a GgfastError, OperatingError if the child died.
    """
    sys.stdout.flush()
    sys.stderr.flush()
    reader, writer = os.pipe()
    parent = os.getpid()
    pid = os.fork()
    if pid == 0:
        _child(uid, gid, work, writer, parent)
    os.close(writer)
    with os.fdopen(reader, "rb") as stream:
        data = stream.read(limits.HELPER_ANSWER_BYTES_MAX + 1)
    if len(data) > limits.HELPER_ANSWER_BYTES_MAX:  # its writing ends with our end of the pipe
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
        raise OperatingError(f"the helper process said more than {limits.HELPER_ANSWER_BYTES_MAX} bytes.")
    _, status = os.waitpid(pid, 0)
    if not data:
        raise OperatingError(f"the helper process died with status {os.waitstatus_to_exitcode(status)}.")
    try:
        answer = json.loads(data)
        if "error" in answer:
            raise Rejected(str(answer["error"]))
        result: dict[str, Any] = answer["result"]
    except (ValueError, TypeError, KeyError, RecursionError):  # it may have been taken over by what it looked into
        raise OperatingError(f"the helper process said {data[:80]!r}, which is no answer.") from None
    return result


def _child(uid: int, gid: int, work: Callable[[], dict[str, Any]], writer: int, parent: int) -> None:
    """Never returns."""
    status = 1
    try:
        os.setsid()
        os.closerange(3, writer)
        close_from(writer + 1)
        _become(uid, gid)
        kernel.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)  # a change of ids clears it
        if os.getppid() != parent:
            os._exit(status)
        answer: dict[str, Any] = {"result": work()}
        status = 0
    except GgfastError as error:
        answer = {"error": str(error)}
    except BaseException as error:
        answer = {"error": f"{type(error).__name__}: {error}"}
    try:
        with os.fdopen(writer, "wb") as stream:
            stream.write(json.dumps(answer).encode())
    finally:
        os._exit(status)


def _become(uid: int, gid: int) -> None:
    os.umask(0o022)
    kernel.drop_bounding(1 << CAP_DAC_READ_SEARCH)
    kernel.prctl(_PR_SET_KEEPCAPS, 1)
    os.setgroups([])
    os.setresgid(gid, gid, gid)
    os.setresuid(uid, uid, uid)
    kernel.set_capabilities(1 << CAP_DAC_READ_SEARCH)
    kernel.prctl(_PR_SET_NO_NEW_PRIVS, 1)
