"""The container's set-up, executed in C between fork and the first line of a function.

A *plan* is bytes made by ggfast.sandbox.plan: a list of operations, each one system call or a short fixed
sequence. `spawn` checks the plan's form, forks into a new PID namespace and executes it in the child. Until
the last operation the child touches no Python object, allocates nothing and takes no decision that the plan
does not contain: what a function's container is can be read in plan.py, how it is done can be read here.

The executor itself is kernel_plan.pxi, the declarations are kernel_calls.pxi.

Operation on the wire (little endian): code u8, flags u8, string count u8, zero u8, size u32 (whole operation,
a multiple of eight), four u64 numbers, then the strings: length u32, bytes, NUL. An operation with the
OPTIONAL flag may fail. Any other failure is written to the error pipe as (operation index u32, errno u32) and
ends the child; (DONE, 0) says that the plan was completed. Arguments are `bytes` only: one typed memoryview
would cost ten times the module's memory in every worker.

The rest of the module is the system calls that the standard library lacks; each raises OSError.
"""

include "ext/kernel_calls.pxi"
include "ext/kernel_plan.pxi"


cdef int fork_worker(int own_pid_namespace):
    """Fork into a new PID namespace: the child's pid, 0 in the child, -errno when refused.

    The caller's "namespace for children" is put back afterwards, so that its next child is an ordinary one. In the
    child the interpreter is not usable before PyOS_AfterFork_Child.
    """
    cdef int child, failure
    if setns_(own_pid_namespace, CLONE_NEWPID) or unshare_(CLONE_NEWPID):
        return -errno
    PyOS_BeforeFork()
    child = fork()
    if child == 0:
        return 0
    failure = errno
    PyOS_AfterFork_Parent()
    setns_(own_pid_namespace, CLONE_NEWPID)
    return child if child > 0 else -failure


def spawn(bytes plan not None, int error_fd, int own_pid_namespace) -> int:
    """Fork into a new PID namespace and run `plan` there; the child's pid, or 0 in a child whose plan is done.

    Raises ValueError for a malformed plan and OSError when the fork itself is refused; a plan that fails ends
    the child and shows on `error_fd`. `own_pid_namespace` is a descriptor of /proc/self/ns/pid.
    """
    cdef const char *data = PyBytes_AS_STRING(plan)
    cdef size_t size = PyBytes_GET_SIZE(plan)
    cdef int child
    if check_plan(data, size) <= 0:
        raise ValueError("malformed plan: found a bad length, code or string, expected what plan.py builds")
    child = fork_worker(own_pid_namespace)
    if child == 0:
        if execute_plan(data, size, error_fd):
            _exit(126)
        PyOS_AfterFork_Child()
    elif child < 0:
        (&errno)[0] = -child
        PyErr_SetFromErrno(OSError)
    return child


include "ext/kernel_zygote.pxi"


# --- system calls the standard library lacks ------------------------------------------------------------

def unshare(int flags) -> None:
    """unshare(2)."""
    if unshare_(flags):
        PyErr_SetFromErrno(OSError)


def setns(int fd, int kind) -> None:
    """setns(2)."""
    if setns_(fd, kind):
        PyErr_SetFromErrno(OSError)


def mount(bytes source not None, bytes target not None, bytes kind not None, unsigned long flags,
          bytes data not None) -> None:
    """mount(2); empty source, kind or data are passed as NULL."""
    if mount_(or_null(source), target, or_null(kind), flags, or_null(data)):
        PyErr_SetFromErrno(OSError)


def umount2(bytes target not None, int flags) -> None:
    """umount2(2)."""
    if umount2_(target, flags):
        PyErr_SetFromErrno(OSError)


def pivot_root() -> None:
    """pivot_root(".", "."): the working directory becomes the root with the old root on top of it."""
    if gg_pivot():
        PyErr_SetFromErrno(OSError)


def mount_setattr(bytes path not None, unsigned int flags, unsigned long long set_bits,
                  unsigned long long clear_bits) -> None:
    """mount_setattr(2), Linux 5.12; ENOSYS before."""
    if gg_mount_setattr(path, flags, set_bits, clear_bits):
        PyErr_SetFromErrno(OSError)


def prctl(int option, unsigned long a=0, unsigned long b=0, unsigned long c=0, unsigned long d=0) -> int:
    """prctl(2) with numbers only."""
    cdef int result = prctl_(option, a, b, c, d)
    if result < 0:
        PyErr_SetFromErrno(OSError)
    return result


def drop_bounding(unsigned long long keep) -> None:
    """Drop every capability whose bit is not set in `keep` from the bounding set."""
    if drop_bounding_set(keep):
        PyErr_SetFromErrno(OSError)


def drop_capabilities() -> None:
    """Empty the permitted, effective and inheritable sets (and so the ambient one)."""
    if gg_no_capabilities():
        PyErr_SetFromErrno(OSError)


def set_capabilities(unsigned long long kept) -> None:
    """Permitted and effective become exactly the bits of `kept`, inheritable becomes empty."""
    if gg_capabilities(kept):
        PyErr_SetFromErrno(OSError)


def close_range(unsigned int first, unsigned int last) -> None:
    """close_range(2), Linux 5.9; ENOSYS before."""
    if gg_close_range_(first, last):
        PyErr_SetFromErrno(OSError)


def seccomp(bytes program not None, unsigned int flags) -> None:
    """Install a classic BPF filter for this thread; no_new_privs must be set."""
    if gg_seccomp(program, PyBytes_GET_SIZE(program), flags):
        PyErr_SetFromErrno(OSError)


def landlock_abi() -> int:
    """The kernel's Landlock version, 0 when there is none."""
    cdef int version = gg_landlock_abi()
    return version if version > 0 else 0


def load_device_program(bytes instructions not None) -> int:
    """Load a BPF_PROG_TYPE_CGROUP_DEVICE program; its descriptor."""
    cdef int fd = gg_bpf_load(instructions, PyBytes_GET_SIZE(instructions), NULL, 0)
    if fd < 0:
        PyErr_SetFromErrno(OSError)
    return fd


def attach_device_program(int program, int cgroup) -> None:
    """Attach a device program to an open v2 cgroup directory; it stays until the directory is removed."""
    if gg_bpf_attach(program, cgroup):
        PyErr_SetFromErrno(OSError)


def join_new_keyring() -> None:
    """keyctl(KEYCTL_JOIN_SESSION_KEYRING): a fresh anonymous session keyring."""
    if gg_new_keyring() < 0:
        PyErr_SetFromErrno(OSError)


def pidfd_open(int pid) -> int:
    """pidfd_open(2), Linux 5.3; ENOSYS before."""
    cdef long fd = gg_pidfd_open_(pid)
    if fd < 0:
        PyErr_SetFromErrno(OSError)
    return fd


def signal_descriptor(unsigned long long mask) -> int:
    """Block the signals whose bits are set and return a non-blocking signalfd for them."""
    cdef int fd = gg_signal_fd(mask)
    if fd < 0:
        PyErr_SetFromErrno(OSError)
    return fd


def reset_signals(bint ignored_too) -> None:
    """Empty the signal mask; with `ignored_too` also undo what the interpreter ignores (before an exec)."""
    if gg_reset_signals(ignored_too):
        PyErr_SetFromErrno(OSError)


def walk(int base, bytes path not None) -> int:
    """An O_PATH descriptor for `path` below the directory `base`; ELOOP at any link, `.` or `..`."""
    cdef int fd = walk_fd(base, path, 0)
    if fd < 0:
        PyErr_SetFromErrno(OSError)
    return fd


def claim_title(unsigned long long start, unsigned long long end) -> None:
    """Remember where the arguments of this process lie (arg_start, arg_end of /proc/self/stat)."""
    global title_start, title_bytes
    if not start < end or end - start > 1 << 20:
        raise ValueError(f"argument memory: found {start:#x}-{end:#x}, expected a range below 1 MiB")
    title_start = <char *><uintptr_t>start
    title_bytes = end - start


def set_title(bytes text not None) -> None:
    """Show `text` as the command line of this process, cut to the memory claimed."""
    put_title(text, PyBytes_GET_SIZE(text))
