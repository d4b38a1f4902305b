"""Rows 22 and 23: bombs, each bounded by itself as well as by the container."""

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
