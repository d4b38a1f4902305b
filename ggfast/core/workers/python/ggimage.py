"""Making the warm image: everything a worker would otherwise do for itself, done once before it is forked.

What a worker writes to is its own memory; what it only reads it shares with the image and all other workers. A page
is written when an object on it is counted, a function on it runs for its first times (CPython 3.11 rewrites code as
it warms up), or a lock is repaired. So the image imports the runtime, makes the streams, and rehearses a whole
worker's life until nothing in it is new. Measured with CPython 3.11 on x86-64: see bench/README.md.

Import this module before all others of the runtime: from then on until `use_fork_hooks` it keeps what modules want to
run at forks.
"""

import atexit
import os
import sys
import types

REHEARSALS = 40  # a function is rewritten after 8 calls, its parts up to 16 calls later
# Modules whose functions at a fork only repair locks of other threads: the image has none.
_NEEDLESS = ("logging", "threading", "_weakrefset", "weakref")

_hooks = []
_is_worker = False
_register = getattr(os, "register_at_fork", None)


def _collect(**functions):
    _hooks.append(functions)


if _register is not None:
    os.register_at_fork = _collect


def use_fork_hooks():
    """Register what was kept so that the fork that makes a worker skips what a worker does not need.

    A worker's own children, forked by a function's code, get all of it.
    """
    if _register is None:
        return
    os.register_at_fork = _register
    for functions in _hooks:
        child = functions.get("after_in_child")
        needed = child is not None and getattr(child, "__module__", "") not in _NEEDLESS
        _register(**{when: child if needed and function is child else _guarded(function)
                     for when, function in functions.items()})  # fmt: skip
    del _hooks[:]


def become_worker():
    """In the forked worker: from now on forks are the function's own."""
    global _is_worker
    _is_worker = True


def forget():
    """Drop what belongs to the image alone: exit functions, the name `__main__`, its thread's number."""
    atexit._clear()
    threading = sys.modules.get("threading")
    if threading is not None:
        threading.main_thread()._native_id = 1  # a worker is the first process of its namespace
    main = sys.modules.get("__main__")
    sys.modules["__main__"] = types.ModuleType("__main__")
    return main


def _guarded(function):
    def call():
        if _is_worker:
            function()

    return call
