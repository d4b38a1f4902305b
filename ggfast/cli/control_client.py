"""The command line's side of the core's control socket (core/control.py). Blocking."""

from __future__ import annotations

import json
import os
import socket
from pathlib import Path
from typing import Any

from ggfast.errors import LinkDown, Rejected


def request(path: Path, message: dict[str, Any], *, timeout_s: float = 10.0) -> dict[str, Any]:
    """Send one request and wait for its answer.

    Raises LinkDown if no core listens there or it does not answer in time, Rejected with the core's own words if
    it refuses.
    """
    try:
        with connect(path, timeout_s) as sock:
            sock.sendall(json.dumps(message).encode() + b"\n")
            with sock.makefile("rb") as stream:
                line = stream.readline()
    except TimeoutError as error:
        text = f"the core has not answered {message.get('verb')} within {timeout_s:g} s and may still be at it."
        raise LinkDown(text, hint="See runtime.log.") from error
    except PermissionError as error:
        raise LinkDown(f"{path} is not yours to use.", hint="Run the command with sudo.") from error
    except OSError as error:
        raise LinkDown(f"no answer from a running core at {path}: {error}.", hint="Is it started?") from error
    if not line.endswith(b"\n"):
        raise LinkDown(
            f"the core closed its control socket {path} without an answer.",
            hint="It stopped or was started anew meanwhile: `ggfast-core status` tells what it runs.",
        )
    answer = json.loads(line)
    if not answer.pop("ok", False):
        raise Rejected(str(answer.get("error", "the core refused without a reason")))
    return dict(answer)


def connect(path: Path, timeout_s: float) -> socket.socket:
    """A connected control socket; paths longer than a socket address are reached through their directory."""
    directory = os.open(path.parent, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            sock.settimeout(timeout_s)
            sock.connect(f"/proc/self/fd/{directory}/{path.name}")
        except BaseException:
            sock.close()
            raise
        return sock
    finally:
        os.close(directory)
