"""Rows 5, 6, 9 to 13, 20, 34 to 37: mounts, control groups, devices, and calls into the kernel's machinery.

Every call has arguments with which it would do nothing, or nothing lasting, if it were let through.
"""

# ruff: noqa: F821, SIM115, UP031  (one text with common.py, N and A; runs in a bare worker)

MS_RDONLY, MS_REMOUNT, MS_BIND, MS_REC, MS_PRIVATE, MNT_DETACH = 1, 32, 4096, 16384, 1 << 18, 2


def _private_view():
    """Outside only: a mount namespace of its own, so that what succeeds there is gone with the process."""
    if A.get("outside"):
        assert call("unshare", 0x20000) == "OK"
        assert call("mount", b"none", b"/", 0, MS_REC | MS_PRIVATE, 0) == "OK"


def mounts():
    """Row 5."""
    _private_view()
    place = b"/tmp/ggfast-mount-%d" % os.getpid()
    os.mkdir(place)
    found = {
        "tmpfs": call("mount", b"x", place, b"tmpfs", 0, 0),
        "umount": call("umount2", place, MNT_DETACH),
        "bind": call("mount", b"/", place, 0, MS_BIND, 0),
        "proc": call("mount", b"proc", place, b"proc", 0, 0),
        "move": call("mount", b"/proc", place, 0, 8192, 0),
        "pivot_root": call("pivot_root", b".", b"."),
        "chroot": told_by_child(lambda: call("chroot", b"/")),
        "fsopen": call("fsopen", b"tmpfs", 0),
        "fspick": call("fspick", -100, b"/", 0),
        "fsconfig": call("fsconfig", -1, 0, 0, 0, 0),
        "fsmount": call("fsmount", -1, 0, 0),
        "open_tree": call("open_tree", -100, b"/", 1),
        "move_mount": call("move_mount", -1, b"", -1, b"", 0),
        "mount_setattr": call("mount_setattr", -100, place, 0, b"\0" * 32, 32),
    }
    if A.get("outside"):
        for _ in range(4):
            call("umount2", place, MNT_DETACH)
    os.rmdir(place)
    return found


def unmask():
    """Row 6: take away or make writable what protects it."""
    _private_view()
    found = {}
    for path in A["covered"]:
        name = path.encode()
        found["umount " + path] = call("umount2", name, MNT_DETACH)
        found["remount " + path] = call("mount", 0, name, 0, MS_REMOUNT | MS_BIND, 0)
    found["still"] = outcome(os.open, "/proc/sys/kernel/core_pattern", os.O_WRONLY)
    return found


def control_groups():
    """Rows 9 and 10."""
    _private_view()
    place = b"/tmp/ggfast-groups-%d" % os.getpid()
    os.mkdir(place)
    found = {}
    for name, kind in (("memory", b"cgroup"), ("devices", b"cgroup"), ("rdma", b"cgroup"), ("", b"cgroup2")):
        key = (kind.decode() + " " + name).strip()
        found[key] = call("mount", b"x", place, kind, 0, name.encode() + b"\0")
        if found[key] == "OK":
            call("umount2", place, MNT_DETACH)
    os.rmdir(place)
    with open("/proc/self/mounts") as file:
        found["visible"] = [line.split()[1] for line in file if line.split()[2].startswith("cgroup")]
    groups = {line.strip().split(":", 2)[2] for line in open("/proc/self/cgroup")}
    found["own groups"] = sorted(groups)
    files = []
    for top, directories, names in os.walk("/sys"):
        files += [os.path.join(top, name) for name in names if name in ("cgroup.procs", "release_agent", "tasks")]
        if len(files) > 10 or top.count("/") > 5:
            directories.clear()
    found["files"] = files[:10]
    return found


def nodes():
    """Row 11; the FIFO shows that the call itself is reached and only devices are refused."""
    found = {}
    for place in ("/tmp", "/dev", "/dev/shm", *A.get("places", ())):
        for name, mode, device in (
            ("disk", stat.S_IFBLK | 0o666, os.makedev(A["disk"][0], A["disk"][1])),
            ("null", stat.S_IFCHR | 0o666, os.makedev(1, 3)),
            ("whiteout", stat.S_IFCHR, 0),
            ("fifo", stat.S_IFIFO | 0o666, 0),
        ):
            path = "%s/ggfast-node-%s" % (place, name)
            found["%s in %s" % (name, place)] = outcome(os.mknod, path, mode, device)
            if os.path.lexists(path):
                os.unlink(path)
    return found


def devices():
    """Rows 12 and 13."""
    found = {"listed": sorted(os.listdir("/dev"))}
    for name in A["absent"]:
        found[name] = outcome(os.open, "/dev/" + name, os.O_RDONLY | os.O_NONBLOCK)
    for path in A.get("nodes", ()):
        for mode, flags in (("r", os.O_RDONLY), ("w", os.O_WRONLY), ("rw", os.O_RDWR)):
            found["%s %s" % (path, mode)] = outcome(os.open, path, flags | os.O_NONBLOCK)
    return found


def kernel_logs():
    """Row 20."""
    names = ("kcore", "kallsyms", "keys", "key-users", "kmsg", "timer_list", "slabinfo", "sched_debug",
             "kpagecount", "kpageflags", "kpagecgroup", "vmallocinfo", "pagetypeinfo")  # fmt: skip
    found = {name: read_up_to("/proc/" + name, 4096) for name in names}
    buffer = ctypes.create_string_buffer(4096)
    for name, action in (("read all", 3), ("size", 10), ("unread", 9)):
        found["syslog " + name] = call("syslog", action, buffer, 4096)
    return found


def keys():
    """Row 34."""
    return {
        "get keyring": call("keyctl", 0, -3, 0, 0, 0),
        "describe user keyring": call("keyctl", 6, -4, 0, 0, 0),
        "link": call("keyctl", 8, -4, -3, 0, 0),
        "add_key": call("add_key", b"user", b"ggfast", b"x", 1, -3),
        "request_key": call("request_key", b"user", b"ggfast", 0, 0),
        "/proc/keys": read_up_to("/proc/keys", 4096)[1],
        "/proc/key-users": read_up_to("/proc/key-users", 4096)[1],
    }


def machinery():
    """Row 35."""
    params = ctypes.create_string_buffer(128)
    return {
        "bpf": call("bpf", 0, struct.pack("=IIIII", 2, 4, 4, 1, 0).ljust(72, b"\0"), 72),
        "perf_event_open": call("perf_event_open", struct.pack("=IIQ", 1, 112, 0).ljust(112, b"\0"), 0, -1, -1, 0),
        "userfaultfd": call("userfaultfd", 1),
        "io_uring_setup": call("io_uring_setup", 1, params),
        "io_uring_enter": call("io_uring_enter", -1, 0, 0, 0, 0, 0),
        "io_uring_register": call("io_uring_register", -1, 99, 0, 0),
        "fanotify_init": call("fanotify_init", 0, 0),
        "fanotify_mark": call("fanotify_mark", -1, 0, 0, -1, 0),
        "lookup_dcookie": call("lookup_dcookie", 0, 0, 0),
    }


def machine():
    """Row 36: each with arguments that make it fail for another reason where it is allowed."""
    none = b"/ggfast-does-not-exist"
    return {
        "init_module": call("init_module", b"", 0, b""),
        "finit_module": call("finit_module", -1, b"", 0),
        "delete_module": call("delete_module", b"ggfast_none", 0o4000),
        "kexec_load": call("kexec_load", 0, 0, 0, 0xFFFF),
        "reboot": call("reboot", 0, 0, 0, 0),
        "swapon": call("swapon", none, 0),
        "swapoff": call("swapoff", none),
        "quotactl": call("quotactl", 0x7FFFFF00, none, 0, 0),
        "acct": call("acct", none),
        "settimeofday": call("settimeofday", 1, 0),
        "clock_settime": call("clock_settime", 0, 1),
        "adjtimex": call("adjtimex", 1),
        "clock_adjtime": call("clock_adjtime", 0, 1),
        "sethostname": call("sethostname", b"x", -1),
        "setdomainname": call("setdomainname", b"x", -1),
        "iopl": call("iopl", 99),
        "ioperm": call("ioperm", 1 << 24, 1, 1),
        "personality": call("personality", 0xFFFFFFFF),
        "modify_ldt": call("modify_ldt", 0, ctypes.create_string_buffer(16), 16),
        "mbind": call("mbind", 0, 0, 0, 0, 0, 0),
        "move_pages": call("move_pages", 0, 0, 0, 0, 0, 0),
    }


def handles():
    """Row 37."""
    handle = struct.pack("=Ii", 128, 0).ljust(136, b"\0")
    mount_id = ctypes.create_string_buffer(8)
    buffer = ctypes.create_string_buffer(handle, 136)
    found = {"name_to_handle_at": call("name_to_handle_at", -100, b"/tmp", buffer, mount_id, 0)}
    fd = os.open("/", os.O_RDONLY)
    found["open_by_handle_at"] = call("open_by_handle_at", fd, buffer, os.O_RDONLY)
    os.close(fd)
    return found
