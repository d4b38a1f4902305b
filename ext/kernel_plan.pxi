# Part of kernel.pyx: the executor. Everything from `check_plan` to `execute_plan` is plain C without the GIL;
# no function here may touch a Python object or allocate, because it runs between fork and the end of the plan.

# code: (name, strings it must carry). plan.py reads this table; the order is the code.
OPERATIONS = (
    ("write", 2), ("setsid", 0), ("unshare", 0), ("setns", 0), ("mount", 4), ("mkdir", 1), ("whiteout", 1),
    ("opaque", 1), ("symlink", 2), ("node", 1), ("bind", 2), ("chdir", 1), ("pivot", 0), ("umount", 1),
    ("hostname", 1), ("rlimit", 0), ("descriptors", 0), ("keyring", 0), ("bounding", 0), ("groups", 1), ("ids", 0),
    ("nocaps", 0), ("pdeathsig", 0), ("no_new_privs", 0), ("landlock", 0), ("domain", 0), ("seccomp", 1),
    ("signals", 0), ("title", 1), ("umask", 0), ("exit", 0),
)
OPTIONAL = 1
# Operation indices of records that say something else: completed; the number of a process that a keeper forked, its
# pid beside it; the keeper could not fork, errno beside it.
DONE, NUMBER, FORK = 0xFFFFFFFF, 0xFFFFFFFE, 0xFFFFFFFD
HEADER_BYTES = sizeof(gg_op)

cdef enum:
    OP_WRITE, OP_SETSID, OP_UNSHARE, OP_SETNS, OP_MOUNT, OP_MKDIR, OP_WHITEOUT, OP_OPAQUE, OP_SYMLINK, OP_NODE
    OP_BIND, OP_CHDIR, OP_PIVOT, OP_UMOUNT, OP_HOSTNAME, OP_RLIMIT, OP_DESCRIPTORS, OP_KEYRING, OP_BOUNDING
    OP_GROUPS, OP_IDS, OP_NOCAPS, OP_PDEATHSIG, OP_NO_NEW_PRIVS, OP_LANDLOCK, OP_DOMAIN, OP_SECCOMP, OP_SIGNALS
    OP_TITLE, OP_UMASK, OP_EXIT, OP_COUNT

cdef enum:
    STRINGS_MAX = 4
    ERROR_FD = 4            # where the error pipe lives once the other descriptors are closed
    RECORD_DONE = 0xFFFFFFFF
    RECORD_NUMBER = 0xFFFFFFFE
    RECORD_FORK = 0xFFFFFFFD
    NAME_BYTES = 256        # one path component with its NUL

cdef uint8_t strings_of[OP_COUNT]
cdef char *title_start = NULL
cdef size_t title_bytes = 0

for _index, _entry in enumerate(OPERATIONS):
    strings_of[_index] = _entry[1]


cdef int check_plan(const char *plan, size_t size) noexcept nogil:
    """The number of operations, or -1: every length is inside the plan and every string ends in NUL."""
    cdef size_t at = 0, cursor, end
    cdef const gg_op *op
    cdef uint32_t length
    cdef int count = 0, index
    while at < size:
        if size - at < sizeof(gg_op):
            return -1
        op = <const gg_op *>(plan + at)
        if op.code >= OP_COUNT or op.strings != strings_of[op.code] or op.size % 8 or op.size < sizeof(gg_op):
            return -1
        if op.size > size - at:
            return -1
        cursor, end = at + sizeof(gg_op), at + op.size
        for index in range(op.strings):
            if end - cursor < 5:
                return -1
            memcpy(&length, plan + cursor, 4)
            if length > end - cursor - 5 or plan[cursor + 4 + length] != 0:
                return -1
            cursor += 5 + length
        at = end
        count += 1
    return count


cdef int walk_fd(int base, const char *path, int create) noexcept nogil:
    """An O_PATH descriptor for `path` below `base`, or -1 with errno; no link, `.` or `..` is ever followed.

    `create`: 0 nothing, else the S_IFMT of what the last component shall be when it does not exist.
    """
    cdef char name[NAME_BYTES]
    cdef int here = fcntl(base, F_DUPFD_CLOEXEC, 10)
    cdef int there, made, length
    cdef stat_t status
    while here >= 0:
        while path[0] == b"/":
            path += 1
        if path[0] == 0:
            return here
        length = 0
        while path[length] != 0 and path[length] != b"/":
            length += 1
        if length >= NAME_BYTES:
            close(here)
            (&errno)[0] = ENAMETOOLONG
            return -1
        memcpy(name, path, length)
        name[length] = 0
        path += length
        if name[0] == b"." and (length == 1 or (length == 2 and name[1] == b".")):
            close(here)
            (&errno)[0] = ELOOP
            return -1
        there = openat(here, name, O_PATH | O_NOFOLLOW | O_CLOEXEC)
        if there < 0 and errno == ENOENT and create:
            if path[0] == 0 and create != <int>S_IFDIR:
                made = openat(here, name, O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0o644)
                if made >= 0:
                    close(made)
            else:
                made = mkdirat(here, name, 0o755)
            if made >= 0:
                there = openat(here, name, O_PATH | O_NOFOLLOW | O_CLOEXEC)
        made = errno
        close(here)
        (&errno)[0] = made
        if there >= 0 and (fstat(there, &status) or status.st_mode & S_IFMT == S_IFLNK):
            close(there)
            (&errno)[0] = ELOOP
            return -1
        here = there
    return -1


cdef void fd_path(char *text, int fd) noexcept nogil:
    """Write "/proc/self/fd/<fd>"; `text` has 32 bytes."""
    cdef int digits = 0, rest = fd
    memcpy(text, b"/proc/self/fd/", 14)
    while True:
        digits += 1
        rest = rest // 10
        if rest == 0:
            break
    text[14 + digits] = 0
    while digits:
        digits -= 1
        text[14 + digits] = 48 + fd % 10
        fd = fd // 10


cdef int bind_mount(const char *source, const char *target, unsigned long flags, mode_t kind, uint64_t device,
                    mode_t create) noexcept nogil:
    """Bind `source` (host path) at `target` below the new root "m"; both walked without following links.

    `kind` and `device` say what the source must still be (ENODEV otherwise): the spawner looked before.
    """
    cdef char origin_path[32]
    cdef char place_path[32]
    cdef unsigned long inherited
    cdef stat_t status
    cdef int base, origin = -1, place = -1, result = -1
    base = open("/", O_PATH | O_DIRECTORY | O_CLOEXEC)
    if base < 0:
        return -1
    origin = walk_fd(base, source, 0)
    close(base)
    if origin < 0:
        return -1
    if fstat(origin, &status) or (kind and status.st_mode & S_IFMT != kind) or (device and status.st_rdev != device):
        close(origin)
        (&errno)[0] = ENODEV
        return -1
    base = open("m", O_PATH | O_DIRECTORY | O_CLOEXEC)
    if base >= 0:
        place = walk_fd(base, target, create)
    if place >= 0:
        fd_path(origin_path, origin)
        fd_path(place_path, place)
        result = mount_(origin_path, place_path, NULL, MS_BIND, NULL)
        close(place)
    if result == 0:  # the new mount lies above the old descriptor: walk again to reach it
        inherited = gg_fs_flags(origin) & (MS_NOEXEC | MS_NOSUID | MS_NOATIME | MS_NODIRATIME)  # statfs has MS_* bits
        result = -1
        place = walk_fd(base, target, 0)
        if place >= 0:
            fd_path(place_path, place)
            result = mount_(NULL, place_path, NULL, MS_REMOUNT | MS_BIND | flags | inherited, NULL)
            close(place)
    kind = errno
    close(origin)
    if base >= 0:
        close(base)
    (&errno)[0] = kind
    return result


cdef int write_once(int fd, const char *data, size_t size) noexcept nogil:
    """Write everything in one call and close; a short write is EIO."""
    cdef long written
    cdef int failure
    if fd < 0:
        return -1
    written = write(fd, data, size)
    failure = errno
    close(fd)
    (&errno)[0] = failure if written < 0 else EIO
    return 0 if written == <long>size else -1


cdef int set_descriptors(int ipc, int out, int err, int *error_fd) noexcept nogil:
    """0 null, 1 2 logs, 3 ipc, 4 error pipe (closed by exec); everything else is closed.

    The caller keeps all descriptors of its own above 9, so none of these is overwritten before it is used.
    """
    cdef int null = open("/dev/null", O_RDWR | O_CLOEXEC)
    if null < 0 or dup2(null, 0) < 0 or dup2(out, 1) < 0 or dup2(err, 2) < 0 or dup2(ipc, 3) < 0:
        return -1
    if dup3(error_fd[0], ERROR_FD, O_CLOEXEC) < 0:
        return -1
    error_fd[0] = ERROR_FD
    if gg_close_range_(ERROR_FD + 1, 0xFFFFFFFF) == 0:
        return 0
    for null in range(ERROR_FD + 1, 65536):  # kernels before 5.9; the spawner's own limit is below this
        close(null)
    return 0


cdef int die_with_parent(int error_fd) noexcept nogil:
    """SIGKILL at the spawner's death; if it is dead already nobody reads our error pipe."""
    cdef pollfd pipe_state
    if prctl_(PR_SET_PDEATHSIG, SIGKILL, 0, 0, 0):
        return -1
    pipe_state.fd = error_fd
    pipe_state.events = 0
    pipe_state.revents = 0
    if poll(&pipe_state, 1, 0) < 0:
        return -1
    if pipe_state.revents & POLLERR:
        (&errno)[0] = EPIPE
        return -1
    return 0


cdef int drop_bounding_set(uint64_t keep) noexcept nogil:
    """Drop every capability not in `keep` from the bounding set; the first unknown number ends the list."""
    cdef int number, present
    for number in range(64):
        present = prctl_(PR_CAPBSET_READ, number, 0, 0, 0)  # a look is far cheaper than a new set of credentials
        if present < 0:
            return 0 if errno == EINVAL and number > 0 else -1
        if present and not (keep >> number) & 1 and prctl_(PR_CAPBSET_DROP, number, 0, 0, 0):
            return -1
    return 0


cdef void put_title(const char *text, size_t size) noexcept nogil:
    """What ps shows: the memory of the original arguments."""
    if title_start == NULL:
        return
    if size >= title_bytes:
        size = title_bytes - 1
    memset(title_start, 0, title_bytes)
    memcpy(title_start, text, size)


cdef const char *or_null(const char *text) noexcept nogil:
    return text if text[0] else NULL


cdef int run_op(const gg_op *op, const char **s, const uint32_t *length, int *error_fd) noexcept nogil:
    """One operation; 0 or -1 with errno."""
    if op.code == OP_WRITE:
        return write_once(open(s[0], O_WRONLY | O_CLOEXEC), s[1], length[1])
    elif op.code == OP_SETSID:
        return 0 if setsid() >= 0 else -1
    elif op.code == OP_UNSHARE:
        return unshare_(<int>op.n[0])
    elif op.code == OP_SETNS:
        return setns_(<int>op.n[0], <int>op.n[1])
    elif op.code == OP_MOUNT:
        return mount_(or_null(s[0]), s[1], or_null(s[2]), <unsigned long>op.n[0], or_null(s[3]))
    elif op.code == OP_MKDIR:
        if mkdir(s[0], <mode_t>op.n[0]):
            return -1
        if (op.n[1] or op.n[2]) and chown(s[0], <uid_t>op.n[1], <gid_t>op.n[2]):
            return -1
        return chmod(s[0], <mode_t>op.n[0]) if op.n[0] & ~<uint64_t>0o755 else 0  # what the umask 022 took away
    elif op.code == OP_WHITEOUT:
        return mknod(s[0], S_IFCHR, 0)
    elif op.code == OP_OPAQUE:
        return setxattr(s[0], "trusted.overlay.opaque", "y", 1, 0)
    elif op.code == OP_SYMLINK:
        return symlink(s[0], s[1])
    elif op.code == OP_NODE:
        if mknod(s[0], S_IFCHR | 0o600, gnu_dev_makedev(<unsigned int>op.n[1], <unsigned int>op.n[2])):
            return -1
        return chmod(s[0], <mode_t>op.n[0])
    elif op.code == OP_BIND:
        return bind_mount(s[0], s[1], <unsigned long>op.n[0], <mode_t>op.n[1], op.n[2], <mode_t>op.n[3])
    elif op.code == OP_CHDIR:
        return chdir(s[0])
    elif op.code == OP_PIVOT:
        return <int>gg_pivot()
    elif op.code == OP_UMOUNT:
        return umount2_(s[0], <int>op.n[0])
    elif op.code == OP_HOSTNAME:
        return sethostname(s[0], length[0])
    elif op.code == OP_RLIMIT:
        return gg_set_limit(<int>op.n[0], op.n[1], op.n[2])
    elif op.code == OP_DESCRIPTORS:
        return set_descriptors(<int>op.n[0], <int>op.n[1], <int>op.n[2], error_fd)
    elif op.code == OP_KEYRING:
        return 0 if gg_new_keyring() >= 0 else -1
    elif op.code == OP_BOUNDING:
        return drop_bounding_set(op.n[0])
    elif op.code == OP_GROUPS:
        return <int>gg_setgroups(length[0] // sizeof(gid_t), s[0])
    elif op.code == OP_IDS:
        if setresgid(<gid_t>op.n[1], <gid_t>op.n[1], <gid_t>op.n[1]):
            return -1
        return setresuid(<uid_t>op.n[0], <uid_t>op.n[0], <uid_t>op.n[0])
    elif op.code == OP_NOCAPS:
        return gg_no_capabilities()
    elif op.code == OP_PDEATHSIG:
        return die_with_parent(error_fd[0])
    elif op.code == OP_NO_NEW_PRIVS:
        return prctl_(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)
    elif op.code == OP_LANDLOCK:
        return gg_landlock(op.n[0])
    elif op.code == OP_DOMAIN:
        return gg_landlock_domain()
    elif op.code == OP_SECCOMP:
        return gg_seccomp(s[0], length[0], <unsigned int>op.n[0])
    elif op.code == OP_SIGNALS:
        return gg_reset_signals(<int>op.n[0])
    elif op.code == OP_TITLE:
        put_title(s[0], length[0])
        return 0
    elif op.code == OP_UMASK:
        umask(<mode_t>op.n[0])
        return 0
    _exit(0)  # OP_EXIT: check_plan admits no other code


cdef void report(int error_fd, uint32_t index, int failure) noexcept nogil:
    cdef uint32_t record[2]
    record[0] = index
    record[1] = <uint32_t>failure
    write(error_fd, record, sizeof(record))  # a reader that is gone cannot be told anything


cdef int execute_plan(const char *plan, size_t size, int error_fd) noexcept nogil:
    """Run every operation of a checked plan; 0 when completed, else the failure has been reported."""
    cdef const char *strings[STRINGS_MAX]
    cdef uint32_t lengths[STRINGS_MAX]
    cdef const gg_op *op
    cdef size_t at = 0, cursor
    cdef uint32_t number = 0
    cdef int index
    while at < size:
        op = <const gg_op *>(plan + at)
        cursor = at + sizeof(gg_op)
        for index in range(op.strings):
            memcpy(&lengths[index], plan + cursor, 4)
            strings[index] = plan + cursor + 4
            cursor += 5 + lengths[index]
        if op.code == OP_EXIT:  # nothing can be said after it
            report(error_fd, RECORD_DONE, 0)
        if run_op(op, strings, lengths, &error_fd) and not op.flags & 1:
            report(error_fd, number, errno)
            return -1
        at += op.size
        number += 1
    report(error_fd, RECORD_DONE, 0)
    close(error_fd)
    return 0
