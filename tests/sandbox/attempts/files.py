"""Rows 14 to 19, 21, 24, 25, 33, 45, 48 and 55: what can be read, written and left behind.

Nothing is written where a hole would let it reach the system: such files are only opened. Real writes go to
sentinel files of the test (`A["sentinel"]`, `A["volume"]`) and to the container's own /tmp.
"""

# ruff: noqa: F821, UP031  (one text with common.py, N and A; runs in a bare worker)


def hidden():
    """Row 14: one hidden file by many names. The way beside it, to a file that is not hidden, must work."""
    path = A["hidden"]
    names = {
        "plain": path,
        "through /proc/1/root": "/proc/1/root" + path,
        "through dots": "/../../../../.." + path,
        "through /proc/self/cwd": "/proc/self/cwd/.." + path,
        "beside /lambda": "/lambda/.." + path,
        "beside /tmp": "/tmp/../../.." + path,
        "through a descriptor": None,
        "through an own link": "/tmp/link",
    }
    os.symlink(path, "/tmp/link")
    root = os.open("/", os.O_PATH)
    found = {}
    for name, text in names.items():
        if text is None:
            found[name] = outcome(lambda: os.close(os.open(path.lstrip("/"), os.O_RDONLY, dir_fd=root)))
        else:
            found[name] = outcome(os.open, text, os.O_RDONLY)
    found["the file beside it"] = outcome(os.open, A["visible"], os.O_RDONLY)
    found["listed"] = os.path.basename(os.path.dirname(path)) in os.listdir(os.path.dirname(os.path.dirname(path)))
    return found


def readable():
    """Row 14: one path."""
    return outcome(os.open, A["path"], os.O_RDONLY)


def replace_hidden():
    """Row 14 for uid 0, who may write beside the hidden tree: put something in its place and look through it."""
    tree, name = os.path.dirname(A["hidden"]), os.path.basename(A["hidden"])
    found = {"mkdir": outcome(os.mkdir, tree)}
    found["after mkdir"] = outcome(os.open, tree + "/" + name, os.O_RDONLY)
    if os.path.isdir(tree):
        found["listed"] = os.listdir(tree)
        os.rmdir(tree)
    os.mkdir("/tmp/empty")
    found["rename"] = outcome(os.rename, os.path.dirname(A["visible"]) + "/empty", tree)
    found["after rename"] = outcome(os.open, tree + "/" + name, os.O_RDONLY)
    return found


def shadow():
    """Row 15."""
    return {path: read_up_to(path, 16) for path in ("/etc/shadow", "/etc/shadow-", "/etc/gshadow", *A.get("more", ()))}


def host_files():
    """Row 16: opening for append writes nothing; the sentinel is really written to."""
    found = {path: outcome(os.open, path, os.O_WRONLY | os.O_APPEND) for path in ("/etc/passwd", A["program"])}
    found["/boot"] = os.access("/boot", os.W_OK)
    try:
        with open(A["sentinel"], "a") as file:
            file.write("changed by the function")
        found["sentinel"] = "OK"
    except OSError as problem:
        found["sentinel"] = word(problem.errno)
    found["delete"] = outcome(os.unlink, A["second"])
    return found


def own_code():
    """Row 17."""
    return {
        "append": outcome(os.open, "/lambda/fn.py", os.O_WRONLY | os.O_APPEND),
        "create": outcome(os.open, "/lambda/new", os.O_WRONLY | os.O_CREAT),
        "unlink": outcome(os.unlink, "/lambda/fn.py"),
        "rename": outcome(os.rename, "/lambda/fn.py", "/lambda/fn2.py"),
        "chmod": outcome(os.chmod, "/lambda/fn.py", 0o777),
        "touch": outcome(os.utime, "/lambda/fn.py"),
        "runtime": outcome(os.open, "/runtime/new", os.O_WRONLY | os.O_CREAT),
        "move": outcome(os.rename, "/lambda", "/lambda2"),
    }


def interpreter():
    """Row 18. The mount behind the descriptor decides what a write gets once nobody runs the file; opening it for
    writing answers ETXTBSY as long as somebody does, so it is asked about its mount as well."""
    found = {"open": outcome(os.open, "/proc/self/exe", os.O_WRONLY)}
    try:
        fd = os.open("/proc/self/exe", os.O_RDONLY)
    except OSError as problem:
        found["read"] = word(problem.errno)
        return found
    found["read"] = "OK"
    found["mount is read-only"] = bool(os.fstatvfs(fd).f_flag & os.ST_RDONLY)
    found["reopen"] = outcome(os.open, "/proc/self/fd/%d" % fd, os.O_WRONLY)
    found["mapped libraries"] = _mapped()
    return found


def send_interpreter():
    """Row 18: keep what /proc/self/exe leads to, and hand it to the test, which tries it when nobody runs the file."""
    fd = os.open("/proc/self/exe", os.O_RDONLY)
    with socket.socket(fileno=os.dup(3)) as sock:
        socket.send_fds(sock, [b"\0"], [fd])
    return "sent"


def _mapped():
    """Libraries of the image, which nobody executes as a program, through the files of its own mappings."""
    answers = set()
    try:
        names = os.listdir("/proc/self/map_files")[:40]
    except OSError as problem:
        return [word(problem.errno)]
    for name in names:
        answers.add(outcome(os.open, "/proc/self/map_files/" + name, os.O_WRONLY))
    return sorted(answers)


def _is_link_or_null(path):
    try:
        status = os.lstat(path)
    except OSError:
        return True
    return stat.S_ISLNK(status.st_mode) or (stat.S_ISCHR(status.st_mode) and status.st_rdev == os.makedev(1, 3))


def proc_files():
    """Row 19: opened, not written; and everything else in /proc that opens for writing and is not a process."""
    names = ("sys/kernel/core_pattern", "sys/kernel/modprobe", "sys/vm/drop_caches", "sys/kernel/sysrq",
             "sysrq-trigger", "sys/net/ipv4/ip_forward", "sys/kernel/hostname")  # fmt: skip
    found = {name: outcome(os.open, "/proc/" + name, os.O_WRONLY) for name in names}
    found["created"] = outcome(os.open, "/proc/sys/ggfast", os.O_WRONLY | os.O_CREAT)
    writable = []
    tops = ["/proc/" + name for name in os.listdir("/proc") if not name.isdigit()]
    for top in [*tops, "/proc/self/net"]:
        if top in ("/proc/self", "/proc/thread-self", "/proc/net"):
            continue
        paths = [top]
        if os.path.isdir(top):
            paths = [os.path.join(where, name) for where, _, names in os.walk(top) for name in names]
        for path in paths:
            if _is_link_or_null(path):
                continue
            if outcome(os.open, path, os.O_WRONLY | os.O_NONBLOCK) == "OK":
                writable.append(path)
    found["writable"] = writable
    return found


def sysfs():
    """Row 21: opened for writing, not written."""
    try:
        found = {"listed": sorted(os.listdir("/sys"))}
    except OSError as problem:
        return {"listed": word(problem.errno)}
    answers = {}
    looked = 0
    for top in ("/sys/kernel", "/sys/module", "/sys/power", "/sys/devices/system"):
        for where, directories, names in os.walk(top):
            directories.sort()
            for name in sorted(names):
                path = os.path.join(where, name)
                if looked < 3000 and os.stat(path).st_mode & 0o200:
                    looked += 1
                    answer = outcome(os.open, path, os.O_WRONLY | os.O_NONBLOCK)
                    answers[answer] = answers.get(answer, 0) + 1
    found["answers"] = answers
    found["create"] = outcome(os.mkdir, "/sys/kernel/ggfast")
    return found


def fill():
    """Row 24: at most `A["bytes"]` in all, over every place that it can write to."""
    block, total, found = b"x" * 65536, 0, {}
    for place in A["places"]:
        written, answer = 0, "full"
        try:
            with open(place + "/ggfast-fill", "wb", buffering=0) as file:
                while total < A["bytes"]:
                    done = file.write(block)
                    written, total = written + done, total + done
        except OSError as problem:
            answer = word(problem.errno)
        found[place] = [answer, written]
    for place in A["places"]:
        if os.path.exists(place + "/ggfast-fill"):
            os.unlink(place + "/ggfast-fill")
    number, answer = 0, "OK"
    while number < 20000 and answer == "OK":
        number += 1
        answer = outcome(os.mkdir, "/tmp/d%d" % number)
    found["directories"] = [answer, number]
    found["total"] = total
    return found


def fill_volume():
    """Row 25: a writable volume until it refuses, and what the function can write elsewhere then."""
    block, written, answer = b"x" * 65536, 0, "OK"
    with open(A["volume"] + "/fill", "wb", buffering=0) as file:
        while written < A["bytes"] and answer == "OK":
            try:
                written += file.write(block)
            except OSError as problem:
                answer = word(problem.errno)
    with open("/tmp/other", "wb", buffering=0) as file:
        elsewhere = file.write(block)
    return {"answer": answer, "written": written, "elsewhere": elsewhere}


def setuid_files():
    """Row 33, in a writable volume; chmod without those bits must work."""
    place = A["volume"]
    path = place + "/plain"
    with open(path, "w") as file:
        file.write("#!/bin/sh\n")
    fd = os.open(path, os.O_RDWR)
    found = {"plain": outcome(os.chmod, path, 0o755)}
    for bits in (0o4755, 0o2755, 0o6755):
        found["chmod %o" % bits] = outcome(os.chmod, path, bits)
        found["fchmod %o" % bits] = outcome(os.fchmod, fd, bits)
        found["fchmodat %o" % bits] = call("fchmodat", -100, path.encode(), bits)
        found["fchmodat2 %o" % bits] = call("fchmodat2", -100, path.encode(), bits, 0)
        new = "%s/new%o" % (place, bits)
        found["open %o" % bits] = outcome(os.open, new, os.O_WRONLY | os.O_CREAT, bits)
        found["tmpfile %o" % bits] = outcome(os.open, place, os.O_WRONLY | os.O_TMPFILE, bits)
        found["creat %o" % bits] = call("creat", new.encode(), bits)
        found["mkdir %o" % bits] = outcome(os.mkdir, new + "d", bits)
        found["mknod %o" % bits] = outcome(os.mknod, new + "n", stat.S_IFREG | bits)
        found["openat2 %o" % bits] = call("openat2", -100, new.encode(), struct.pack("=QQQ", 0o101, bits, 0), 24)
    capability = struct.pack("<IIIII", 0x02000001, 0xFFFFFFFF, 0, 0, 0)
    found["file capability"] = outcome(os.setxattr, path, "security.capability", capability)
    os.close(fd)
    return found


def links():
    """Row 45, first half: replace a directory of a writable volume by a link."""
    os.symlink(A["target"], A["volume"] + "/swapped")
    return os.readlink(A["volume"] + "/swapped")


def hard_links():
    """Row 48."""
    return {
        "into /tmp": outcome(os.link, "/etc/passwd", "/tmp/passwd"),
        "into /dev/shm": outcome(os.link, "/etc/passwd", "/dev/shm/passwd"),
        "out of a volume": outcome(os.link, A["volume"] + "/file", "/tmp/file"),
        "into a volume": outcome(os.link, A["sentinel"], A["volume"] + "/sentinel"),
    }


def write_at():
    """Rows 46 and 47: open for writing and create at given places."""
    return {path: outcome(os.open, path, os.O_WRONLY | os.O_CREAT) for path in A["paths"]}


def leave_traces():
    """Row 55, first half: everything another function could find; stays alive."""
    open("/tmp/trace", "w").close()
    open("/dev/shm/trace", "w").close()
    open("/var/tmp/trace", "w").close()
    return {
        "shm": call("shmget", A["key"], 4096, 0o1666),
        "msg": call("msgget", A["key"], 0o1666),
        "sem": call("semget", A["key"], 1, 0o1666),
        "mq": call("mq_open", b"ggfast", os.O_CREAT | os.O_RDWR, 0o666, 0),
        "bound": outcome(socket.socket(socket.AF_UNIX).bind, "/tmp/socket"),
    }


def find_traces():
    """Row 55, second half."""
    found = {path: os.path.lexists(path) for path in ("/tmp/trace", "/dev/shm/trace", "/var/tmp/trace", "/tmp/socket")}
    found["shm"] = call("shmget", A["key"], 4096, 0o666)
    found["msg"] = call("msgget", A["key"], 0o666)
    found["sem"] = call("semget", A["key"], 1, 0o666)
    found["mq"] = call("mq_open", b"ggfast", os.O_RDWR, 0, 0)
    return found
