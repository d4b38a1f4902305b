"""Rows 22, 23 and 54: bombs, each bounded by itself as well as by the container."""

# ruff: noqa: F821  (one text with common.py, N and A; runs in a bare worker)

MEGABYTE = 1 << 20
BYTES_MAX = 200 * MEGABYTE
TASKS_MAX = 200


def _eat():
    held = []
    while len(held) * MEGABYTE < BYTES_MAX:
        held.append(b"x" * MEGABYTE)
    return len(held)


def memory():
    """Row 22: by itself."""
    return _eat()


def memory_of_child():
    """Row 22: a child dies, and the function must not go on as if nothing had happened."""
    pid = os.fork()
    if pid == 0:
        _eat()
        os._exit(0)
    os.waitpid(pid, 0)
    time.sleep(A["patience_s"])
    return "survived its child"


def memory_of_files():
    """Row 22: in the tmpfs, which is sized like the limit here."""
    total = 0
    with open("/tmp/bomb", "wb", buffering=0) as file:
        while total < BYTES_MAX:
            total += file.write(b"x" * MEGABYTE)
    return total


def forks():
    """Row 23."""
    children, answer = [], "OK"
    while len(children) < TASKS_MAX and answer == "OK":
        try:
            children.append(resting_child())
        except OSError as problem:
            answer = word(problem.errno)
    for pid in children:
        end_child(pid)
    return {"children": len(children), "answer": answer}


def threads():
    """Row 23."""
    import threading

    over, started, answer = threading.Event(), [], "OK"
    threading.stack_size(64 * 1024)
    while len(started) < TASKS_MAX and answer == "OK":
        thread = threading.Thread(target=over.wait)
        try:
            thread.start()
        except RuntimeError as problem:
            answer = str(problem)
        else:
            started.append(thread)
    over.set()
    for thread in started:
        thread.join()
    return {"threads": len(started), "answer": answer}


HELD = []
PIPE_BYTES = 1 << 20
F_SETPIPE_SZ, F_GETPIPE_SZ = 1031, 1032


def _until_refused(most, make):
    count = 0
    while count < most:
        try:
            HELD.append(make())
        except OSError as problem:
            return [word(problem.errno), count]
        count += 1
    return ["OK", count]


def _large_pipe():
    ends = os.pipe()
    HELD.append(ends)
    if fcntl.fcntl(ends[1], F_SETPIPE_SZ, PIPE_BYTES) < PIPE_BYTES:
        raise OSError(errno.EPERM, "a smaller one")
    return ends


def _queue():
    result, problem = raw(N["mq_open"], b"ggfast%d" % len(HELD), os.O_CREAT | os.O_RDWR, 0o600, 0)
    if result < 0:
        raise OSError(getattr(errno, problem), problem)
    return result


def _inotify():
    result, problem = raw(N["inotify_init1"], 0)
    if result < 0:
        raise OSError(getattr(errno, problem), problem)
    return result


def counted_by_user():
    """Row 54: what the kernel counts for each uid, taken until it is refused, and kept. Pipes last: they need few
    descriptors, inotify instances end theirs."""
    return {
        "queues": _until_refused(A["most"], _queue),
        "pipes": _until_refused(min(A["most"], 200), _large_pipe),
        "inotify": _until_refused(A["most"], _inotify),
    }


def one_of_each():
    """Row 54: what another function gets of the same."""
    ends = os.pipe()
    return {
        "queues": _until_refused(1, _queue)[0],
        "pipes": fcntl.fcntl(ends[1], F_GETPIPE_SZ),
        "inotify": _until_refused(1, _inotify)[0],
    }


def timers():
    """Row 54: timers and clocks have no limit of their own worth the name but take memory, or descriptors."""
    timer = ctypes.c_int()

    def make():
        result, problem = raw(N["timer_create"], 1, 0, ctypes.byref(timer))
        if result < 0:
            raise OSError(getattr(errno, problem), problem)

    def clock():
        result, problem = raw(N["timerfd_create"], 1, 0)
        if result < 0:
            raise OSError(getattr(errno, problem), problem)
        return result

    found = {"clocks": _until_refused(5000, clock)}
    spare = HELD[-1]
    found["timers"] = _until_refused(A["most"], make)
    os.close(spare)  # the answer needs a descriptor
    return found
