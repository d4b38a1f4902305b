"""What every attempt begins with: raw system calls and the names of what came of them.

The text of this file and of one other is what a hostile worker runs; `N` maps names of system calls to numbers
(from the machine's own <asm/unistd.h>) and `A` holds the test's arguments. Both are put in front of this text.
"""

# ruff: noqa: F401, F821, UP031  (one text with common.py, N and A; runs in a bare worker)

import ctypes
import errno
import fcntl
import json
import os
import select
import signal
import socket
import stat
import struct
import sys
import time

LIBC = ctypes.CDLL(None, use_errno=True)
LIBC.syscall.restype = ctypes.c_long


def word(number):
    """An errno by its name."""
    return errno.errorcode.get(number, str(number))


def raw(number, *arguments):
    """(result, errno name) of one system call; bytes are passed as pointers."""
    ctypes.set_errno(0)
    converted = [ctypes.c_long(value) if isinstance(value, int) else value for value in arguments]
    result = LIBC.syscall(ctypes.c_long(number), *converted)
    return result, word(ctypes.get_errno())


def call(name, *arguments):
    """What came of one system call: `OK`, the name of an errno, or `none` where this architecture lacks it."""
    if name not in N:
        return "none"
    result, problem = raw(N[name], *arguments)
    return problem if result == -1 else "OK"


def outcome(function, *arguments):
    """`OK` or the errno's name of a Python call."""
    try:
        result = function(*arguments)
    except OSError as problem:
        return word(problem.errno)
    if isinstance(result, int) and function is os.open:
        os.close(result)
    return "OK"


def in_child(function):
    """Run it in a forked child: `exit N` or `signal N`."""
    pid = os.fork()
    if pid == 0:
        try:
            os._exit(function() or 0)
        finally:
            os._exit(99)
    status = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    return "exit %d" % status if status >= 0 else "signal %d" % -status


def told_by_child(function):
    """Run it in a forked child and take its JSON answer; None when the child died."""
    reader, writer = os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            os.write(writer, json.dumps(function()).encode())
        finally:
            os._exit(0)
    os.close(writer)
    data = b""
    while True:
        part = os.read(reader, 65536)
        if not part:
            break
        data += part
    os.close(reader)
    os.waitpid(pid, 0)
    return json.loads(data) if data else None


def resting_child():
    """A child that waits until it is killed."""
    pid = os.fork()
    if pid == 0:
        try:
            while True:
                time.sleep(60)
        finally:
            os._exit(0)
    return pid


def end_child(pid):
    """Kill and reap it."""
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)


def read_up_to(path, size):
    """(errno name or `OK`, number of bytes that could be read without blocking)."""
    try:
        fd = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
    except OSError as problem:
        return [word(problem.errno), 0]
    try:
        return ["OK", len(os.read(fd, size))]
    except OSError as problem:
        return [word(problem.errno), 0]
    finally:
        os.close(fd)


def status_field(name):
    """A line of /proc/self/status."""
    with open("/proc/self/status", encoding="ascii") as file:
        for line in file:
            if line.startswith(name + ":"):
                return line.split(":", 1)[1].strip()
    return ""
