"""Runs a plan in a throw-away child and says how far it got: the honest way to ask what a kernel can do."""

from __future__ import annotations

import os
import struct

from ggfast._ext import kernel
from ggfast.sandbox.plan import Builder

RECORD = struct.Struct("=II")


def attempt(trial: Builder) -> str | None:
    """None when every step worked, else the failing step and its reason. Blocks for the child's life; raises
    OSError when not even the fork into a new PID namespace is possible.

    The child ends inside the executor: not one line of the caller's Python runs in it.
    """
    trial.add("end", "exit")
    plan = trial.finish()
    namespace = os.open("/proc/self/ns/pid", os.O_RDONLY | os.O_CLOEXEC)
    reader, writer = os.pipe2(os.O_CLOEXEC)
    try:
        pid = kernel.spawn(plan.data, writer, namespace)
        os.close(writer)
        writer = -1
        os.waitpid(pid, 0)
        records = os.read(reader, 8 * RECORD.size)
    finally:
        for fd in (reader, writer, namespace):
            if fd >= 0:
                os.close(fd)
    if len(records) < RECORD.size:
        return "the trial was killed"
    index, number = RECORD.unpack(records[-RECORD.size :])  # after a failed exec the last word is the second
    return None if index == kernel.DONE else f"{plan.steps[index]}: {os.strerror(number)}"
