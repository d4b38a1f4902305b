"""Row 56: what a function without a container tries against the core. Signals are 0, and nothing is written."""

# ruff: noqa: F821, UP031  (one text with common.py, N and A; runs in a bare worker)


def against(pid):
    """Every way to another process: signals, tracing, its memory, its environment, its descriptors."""
    buffer = ctypes.create_string_buffer(8)
    vector = struct.pack("PN", ctypes.addressof(buffer), 8)
    found = {
        "kill": outcome(os.kill, pid, 0),
        "priority": outcome(os.setpriority, os.PRIO_PROCESS, pid, os.getpriority(os.PRIO_PROCESS, pid)),
        "ptrace": told_by_child(lambda: call("ptrace", 0x4206, pid, 0, 0)),  # PTRACE_SEIZE does not stop it
        "process_vm_readv": call("process_vm_readv", pid, vector, 1, vector, 1, 0),
        "prlimit": call("prlimit64", pid, 7, 0, ctypes.create_string_buffer(16)),
    }
    for name in ("mem", "environ", "fd/0", "root/etc/passwd", "cwd/x"):
        found[name] = outcome(os.open, "/proc/%d/%s" % (pid, name), os.O_RDONLY)
    fd = raw(N["pidfd_open"], pid, 0)[0]
    found["pidfd_getfd"] = call("pidfd_getfd", fd, 0, 0)
    found["pidfd_send_signal"] = call("pidfd_send_signal", fd, 0, 0, 0)
    return found


def core():
    """The daemon, and the files that only it may read."""
    return {
        "daemon": against(A["daemon"]),
        "keys": {path: outcome(os.open, path, os.O_RDONLY) for path in A["keys"]},
        "changed": {path: outcome(os.open, path, os.O_WRONLY | os.O_APPEND) for path in A["keys"]},
        "supervisor": outcome(os.kill, A["supervisor"], 0),
        "capabilities": int(status_field("CapEff"), 16) | int(status_field("CapBnd"), 16),
        "no_new_privs": status_field("NoNewPrivs"),
        "uid": os.getuid(),
    }


def own():
    """The control: a process of the same uid."""
    return against(A["victim"])
