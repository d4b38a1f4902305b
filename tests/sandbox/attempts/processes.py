"""Rows 1 to 4, 7, 8, 32 and 38 to 44: other processes, namespaces, identities, limits, what was inherited."""

# ruff: noqa: F821, SIM115, UP031  (one text with common.py, N and A; runs in a bare worker)


def signals():
    """Row 1. `A["victim"]` is a process of the same user on the host."""
    victim = A["victim"]
    return {
        "kill": outcome(os.kill, victim, 0),
        "tgkill": call("tgkill", victim, victim, 0),
        "rt_sigqueueinfo": call("rt_sigqueueinfo", victim, 0, struct.pack("=3i", 0, 0, -1).ljust(128, b"\0")),
        "all": outcome(os.kill, -1, 0),
        "getpgid": outcome(os.getpgid, victim),
        "prlimit": call("prlimit64", victim, 7, 0, ctypes.create_string_buffer(16)),
        # Whatever this answers, the victim must keep its niceness: the test looks.
        "nice": outcome(os.setpriority, os.PRIO_USER, os.getuid(), 19),
    }


def processes():
    """Row 2."""
    return {
        "pid": os.getpid(),
        "numbers": sorted(int(entry) for entry in os.listdir("/proc") if entry.isdigit()),
        "self": os.readlink("/proc/self"),
        "victim": outcome(os.stat, "/proc/%d" % A["victim"]),
    }


def memory_of_others():
    """Row 3, with a child of its own as the target: the call alone is refused."""
    child = resting_child()
    buffer = ctypes.create_string_buffer(8)
    local = struct.pack("PN", ctypes.addressof(buffer), 8)
    remote = struct.pack("PN", ctypes.addressof(buffer), 8)
    pidfd = raw(N["pidfd_open"], child, 0)[0]
    found = {
        "process_vm_readv": call("process_vm_readv", child, local, 1, remote, 1, 0),
        "process_vm_writev": call("process_vm_writev", child, local, 1, remote, 1, 0),
        "pidfd_getfd": call("pidfd_getfd", pidfd, 0, 0),
        "kcmp": call("kcmp", os.getpid(), child, 1, 0, 0),
        "ptrace": call("ptrace", 16, child, 0, 0),
    }
    end_child(child)
    return found


def pidfd():
    """Row 4."""
    return {"victim": call("pidfd_open", A["victim"], 0), "own": call("pidfd_open", os.getpid(), 0)}


NAMESPACES = {
    "user": 0x10000000, "mount": 0x20000, "cgroup": 0x2000000, "uts": 0x4000000, "ipc": 0x8000000,
    "pid": 0x20000000, "net": 0x40000000, "time": 0x80,
}  # fmt: skip


def _cloned(flags):
    result, problem = raw(N["clone"], flags | signal.SIGCHLD, 0, 0, 0, 0)
    if result == 0:
        os._exit(0)
    if result > 0:
        os.waitpid(result, 0)
    return problem if result == -1 else "OK"


def namespaces():
    """Row 7; each in a child, so that one that succeeds changes nothing for the next."""
    found = {}
    for name, flag in NAMESPACES.items():
        found["unshare " + name] = told_by_child(lambda flag=flag: call("unshare", flag))
        if name != "time":  # not a flag of clone(2)
            found["clone " + name] = told_by_child(lambda flag=flag: _cloned(flag))
    found["clone plain"] = _cloned(0)
    found["clone3"] = call("clone3", 0, 0)
    return found


def enter_namespace():
    """Row 8: namespaces it can name, its own included."""
    found = {}
    for name in ("uts", "mnt", "pid_for_children", "net", "ipc"):
        try:
            fd = os.open("/proc/self/ns/" + name, os.O_RDONLY)
        except OSError as problem:
            found[name] = "open " + word(problem.errno)
            continue
        found[name] = call("setns", fd, 0)
        os.close(fd)
    fd = raw(N["pidfd_open"], os.getpid(), 0)[0]
    found["pidfd"] = call("setns", fd, 0x4000000)
    return found


def identities():
    """Row 32. `A["suid"]` is a setuid-root copy of id(1)."""
    own = os.getuid()
    other = 0 if own else A["other"]
    return {
        "program": told_by_child(lambda: int(os.popen(A["suid"] + " -u").read() or -1)),
        "setuid": told_by_child(lambda: outcome(os.setuid, other)),
        "setresuid": told_by_child(lambda: outcome(os.setresuid, other, other, other)),
        "setgid": told_by_child(lambda: outcome(os.setgid, other)),
        "setgroups": told_by_child(lambda: outcome(os.setgroups, [0])),
        "effective after exec": os.popen("grep CapEff /proc/self/status").read().split()[1],
        "bounding": status_field("CapBnd"),
        "capset": call("capset", struct.pack("=II", 0x20080522, 0), struct.pack("=6I", *[0xFFFFFFFF] * 6)),
        "no_new_privs": status_field("NoNewPrivs"),
        "seccomp": status_field("Seccomp"),
    }


def foreign_calls():
    """Row 38."""
    import mmap

    def int80():
        memory = mmap.mmap(-1, 4096, prot=mmap.PROT_READ | mmap.PROT_WRITE | mmap.PROT_EXEC)
        memory.write(b"\xb8\x14\x00\x00\x00\xcd\x80\xc3")  # mov eax, 20 (getpid); int 0x80; ret
        address = ctypes.addressof(ctypes.c_char.from_buffer(memory))
        ctypes.CFUNCTYPE(ctypes.c_int)(address)()
        return 0

    found = {"int 0x80": in_child(int80)}
    for name, number in (("x32 getpid", 0x40000000 + 39), ("x32 execve", 0x40000000 + 520), ("1000", 1000), ("-1", -1)):
        found[name] = raw(number, 0, 0, 0)[1]
    # mseal(2) of nothing: newer than the filter's table, harmless, and known to new kernels.
    found["mseal"] = raw(A["mseal"], 0, 0, 0)[1]
    found["statmount"] = raw(A["statmount"], 0, 0, 0, 0)[1]
    return found


def terminal():
    """Row 39; descriptor 0 is no terminal, so a call that gets through says ENOTTY."""
    letter = ctypes.create_string_buffer(b"x")
    found = {}
    for name, request in (("TIOCSTI", 0x5412), ("TIOCLINUX", 0x541C), ("TIOCSETD", 0x5423)):
        found[name] = call("ioctl", 0, request, letter)
        found[name + " with high bits"] = call("ioctl", 0, request | 1 << 32, letter)
    found["TIOCGWINSZ"] = call("ioctl", 0, 0x5413, ctypes.create_string_buffer(8))
    found["/dev/tty"] = outcome(os.open, "/dev/tty", os.O_RDWR)
    found["/dev/ptmx"] = outcome(os.open, "/dev/ptmx", os.O_RDWR)
    found["tty of stat"] = int(open("/proc/self/stat").read().rsplit(")", 1)[1].split()[4])
    return found


def _lower_oom_score(score):
    LIBC.prctl(4, 1, 0, 0, 0)  # dumpable: then the file is the function's own
    try:
        with open("/proc/self/oom_score_adj", "w", encoding="ascii") as file:
            file.write(score)
    except OSError as problem:
        return word(problem.errno)
    return "OK"


DEADLINE = struct.pack("=IIQiIQQQ", 48, 6, 0, 0, 0, 10**6, 10**7, 10**7)  # struct sched_attr


def limits():
    """Row 40."""
    import resource

    def raised(kind):
        hard = resource.getrlimit(kind)[1]
        try:
            resource.setrlimit(kind, (hard + 1, hard + 1))
        except (OSError, ValueError) as problem:
            return word(problem.errno) if isinstance(problem, OSError) else "EPERM"
        return "OK"

    return {
        "nofile": raised(resource.RLIMIT_NOFILE),
        "core": raised(resource.RLIMIT_CORE),
        "memlock": raised(resource.RLIMIT_MEMLOCK),
        "core is": resource.getrlimit(resource.RLIMIT_CORE)[1],
        "nice": outcome(os.setpriority, os.PRIO_PROCESS, 0, -20),
        "fifo": told_by_child(lambda: outcome(os.sched_setscheduler, 0, os.SCHED_FIFO, os.sched_param(1))),
        "deadline": told_by_child(lambda: call("sched_setattr", 0, DEADLINE, 0)),
        "io priority": call("ioprio_set", 1, 0, 1 << 13),
        "oom scores": {score: told_by_child(lambda score=score: _lower_oom_score(score)) for score in A["scores"]},
        "oom score is": int(open("/proc/self/oom_score_adj").read()),
        "lower nice by one": outcome(os.setpriority, os.PRIO_PROCESS, 0, 1),
    }


def outlive():
    """Row 41: a daemonised grandchild; stays for the test to look from outside."""
    buffer = ctypes.c_int(-1)
    cleared = call("prctl", 1, 0, 0, 0, 0)
    LIBC.prctl(2, ctypes.byref(buffer), 0, 0, 0)
    if os.fork() == 0:
        os.setsid()
        if os.fork():
            os._exit(0)
        call("prctl", 1, 0, 0, 0, 0)
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        while True:
            time.sleep(60)
    os.wait()
    return {"cleared": cleared, "signal": buffer.value}


def descriptors():
    """Row 42: looks at numbers itself, because /proc may be closed to it."""
    found = {}
    for number in range(4096):
        try:
            mode = os.fstat(number).st_mode
        except OSError:
            continue
        found[number] = stat.S_IFMT(mode)
    found["listed"] = sorted(int(name) for name in os.listdir("/proc/self/fd"))
    found["cwd"] = os.getcwd()
    return found


def environment():
    """Row 44."""
    found = {name: read_up_to("/proc/%s/environ" % name, 65536) for name in ("self", "1")}
    found["os.environ"] = dict(os.environ)
    with open("/proc/self/cmdline", "rb") as file:
        found["cmdline"] = file.read().decode("utf-8", "replace")
    return found


MASK = 0x5A
TABLE = bytes(byte ^ MASK for byte in range(256))


def _readable_regions():
    for line in open("/proc/self/maps"):
        addresses, rights, rest = line.split(None, 2)
        first, last = (int(part, 16) for part in addresses.split("-"))
        if rights[0] == "r" and "[vvar" not in rest and "[vsyscall" not in rest:
            yield first, last


def scan_memory():
    """Row 43: every readable byte of its own memory. The needles come masked, so that the search does not find
    itself: memory is masked piece by piece before it is compared."""
    needles = {name: bytes.fromhex(text) for name, text in A["needles"].items()}
    found = dict.fromkeys(needles, 0)
    scanned = 0
    for first, last in list(_readable_regions()):
        for at in range(first, last, 1 << 20):
            piece = ctypes.string_at(at, min(last - at, (1 << 20) + 256)).translate(TABLE)
            scanned += len(piece)
            for name, needle in needles.items():
                found[name] += piece.count(needle)
    return {"found": found, "scanned": scanned}
