"""The container's set-up, executed in C between fork and the first line of a function.

A *plan* is bytes made by ggfast.sandbox.plan: a list of operations, each one system call or a short fixed
sequence. `spawn` checks the plan's form, forks into a new PID namespace and executes it in the child. Until
the last operation the child touches no Python object, allocates nothing and takes no decision that the plan
does not contain: what a function's container is can be read in plan.py, how it is done can be read here.

Operation on the wire (little endian): code u8, flags u8, string count u8, zero u8, size u32 (whole operation,
a multiple of eight), four u64 numbers, then the strings: length u32, bytes, NUL. An operation with the
OPTIONAL flag may fail. Any other failure is written to the error pipe as (operation index u32, errno u32) and
ends the child; (DONE, 0) says that the plan was completed. Arguments are `bytes` only: one typed memoryview
would cost ten times the module's memory in every worker.

The rest of the module is the system calls that the standard library lacks; each raises OSError.
"""

from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_GET_SIZE
from cpython.exc cimport PyErr_SetFromErrno
from libc.errno cimport EINVAL, EIO, ELOOP, ENAMETOOLONG, ENODEV, ENOENT, EPIPE, errno
from libc.stdint cimport uint8_t, uint32_t, uint64_t, uintptr_t
from libc.string cimport memcpy, memset, strlen
from posix.types cimport gid_t, mode_t, pid_t, uid_t

cdef extern from *:
    """
    #ifndef _GNU_SOURCE
    #define _GNU_SOURCE
    #endif
    #include <errno.h>
    #include <fcntl.h>
    #include <grp.h>
    #include <poll.h>
    #include <sched.h>
    #include <signal.h>
    #include <stddef.h>
    #include <unistd.h>
    #include <linux/bpf.h>
    #include <linux/capability.h>
    #include <linux/filter.h>
    #include <sys/mount.h>
    #include <sys/prctl.h>
    #include <sys/resource.h>
    #include <sys/signalfd.h>
    #include <sys/stat.h>
    #include <sys/statfs.h>
    #include <sys/syscall.h>
    #include <sys/sysmacros.h>
    #include <sys/xattr.h>

    /* Numbers from 403 upwards are the same on every architecture; old headers lack them. */
    #define GG_pidfd_open 434
    #define GG_close_range 436
    #define GG_mount_setattr 442
    #define GG_landlock_create_ruleset 444
    #define GG_landlock_restrict_self 446

    typedef struct { unsigned char code, flags, strings, zero; unsigned int size; unsigned long long n[4]; } gg_op;
    typedef struct { unsigned long long set, clear, propagation, userns; } gg_mount_attr;
    typedef struct { unsigned long long fs, net, scoped; } gg_landlock_attr;

    static int gg_landlock(unsigned long long scoped) {
        gg_landlock_attr attr = {0, 0, scoped};
        int failed, fd = syscall(GG_landlock_create_ruleset, &attr, sizeof attr, 0);
        if (fd < 0) return -1;
        failed = syscall(GG_landlock_restrict_self, fd, 0);
        close(fd);
        return failed;
    }
    static int gg_landlock_abi(void) { return syscall(GG_landlock_create_ruleset, NULL, 0, 1); }

    static int gg_seccomp(const char *filter, size_t bytes, unsigned int flags) {
        struct sock_fprog program = {bytes / sizeof(struct sock_filter), (struct sock_filter *)filter};
        return syscall(SYS_seccomp, 1 /* SECCOMP_SET_MODE_FILTER */, flags, &program);
    }
    static int gg_capabilities(unsigned long long kept) {
        struct __user_cap_header_struct head = {_LINUX_CAPABILITY_VERSION_3, 0};
        unsigned int low = (unsigned int)kept, high = (unsigned int)(kept >> 32);
        struct __user_cap_data_struct sets[2] = {{low, low, 0}, {high, high, 0}};
        return syscall(SYS_capset, &head, sets);
    }
    static int gg_no_capabilities(void) { return gg_capabilities(0); }
    static int gg_bpf_load(const char *code, size_t bytes, char *log, size_t log_bytes) {
        union bpf_attr attr;
        memset(&attr, 0, sizeof attr);
        attr.prog_type = BPF_PROG_TYPE_CGROUP_DEVICE;
        attr.expected_attach_type = BPF_CGROUP_DEVICE;
        attr.insns = (unsigned long long)(uintptr_t)code;
        attr.insn_cnt = bytes / sizeof(struct bpf_insn);
        attr.license = (unsigned long long)(uintptr_t)"Apache-2.0";
        attr.log_buf = (unsigned long long)(uintptr_t)log;
        attr.log_size = log_bytes;
        attr.log_level = log ? 1 : 0;
        return syscall(SYS_bpf, BPF_PROG_LOAD, &attr, sizeof attr);
    }
    static int gg_bpf_attach(int program, int cgroup) {
        union bpf_attr attr;
        memset(&attr, 0, sizeof attr);
        attr.target_fd = cgroup;
        attr.attach_bpf_fd = program;
        attr.attach_type = BPF_CGROUP_DEVICE;
        attr.attach_flags = BPF_F_ALLOW_MULTI;
        return syscall(SYS_bpf, BPF_PROG_ATTACH, &attr, sizeof attr);
    }
    static int gg_mount_setattr(const char *path, unsigned flags, unsigned long long set, unsigned long long clear) {
        gg_mount_attr attr = {set, clear, 0, 0};
        return syscall(GG_mount_setattr, AT_FDCWD, path, flags, &attr, sizeof attr);
    }
    static int gg_reset_signals(int ignored_too) {
        sigset_t none;
        if (ignored_too) { signal(SIGPIPE, SIG_DFL); signal(SIGXFSZ, SIG_DFL); }
        sigemptyset(&none);
        return sigprocmask(SIG_SETMASK, &none, NULL);
    }
    static int gg_signal_fd(unsigned long long mask) {
        sigset_t set;
        int number;
        sigemptyset(&set);
        for (number = 1; number < 64; number++) if (mask >> number & 1) sigaddset(&set, number);
        if (sigprocmask(SIG_BLOCK, &set, NULL)) return -1;
        return signalfd(-1, &set, SFD_CLOEXEC | SFD_NONBLOCK);
    }
    static int gg_set_limit(int resource, unsigned long long soft, unsigned long long hard) {
        struct rlimit limit = {soft, hard};
        return setrlimit(resource, &limit);
    }
    static long gg_pidfd_open_(int pid) { return syscall(GG_pidfd_open, pid, 0); }
    static long gg_close_range_(unsigned a, unsigned b) { return syscall(GG_close_range, a, b, 0); }
    static long gg_pivot(void) { return syscall(SYS_pivot_root, ".", "."); }
    static long gg_new_keyring(void) { return syscall(SYS_keyctl, 1 /* JOIN_SESSION_KEYRING */, NULL, 0, 0, 0); }
    static long gg_setgroups(size_t count, const void *list) { return setgroups(count, (const gid_t *)list); }
    static unsigned long gg_fs_flags(int fd) { struct statfs s; return fstatfs(fd, &s) ? 0 : (unsigned long)s.f_flags; }
    """
    ctypedef struct gg_op:
        uint8_t code, flags, strings, zero
        uint32_t size
        uint64_t n[4]
    int gg_landlock(uint64_t scoped) nogil
    int gg_landlock_abi() nogil
    int gg_seccomp(const char *filter, size_t size, unsigned int flags) nogil
    int gg_no_capabilities() nogil
    int gg_capabilities(unsigned long long kept) nogil
    int gg_bpf_load(const char *code, size_t size, char *log, size_t log_bytes) nogil
    int gg_bpf_attach(int program, int cgroup) nogil
    int gg_mount_setattr(const char *path, unsigned flags, uint64_t set, uint64_t clear) nogil
    int gg_reset_signals(int ignored_too) nogil
    int gg_signal_fd(uint64_t mask) nogil
    int gg_set_limit(int resource, uint64_t soft, uint64_t hard) nogil
    long gg_pidfd_open_(int pid) nogil
    long gg_close_range_(unsigned first, unsigned last) nogil
    long gg_pivot() nogil
    long gg_new_keyring() nogil
    long gg_setgroups(size_t count, const void *groups) nogil
    unsigned long gg_fs_flags(int fd) nogil

    struct stat_t "stat":
        mode_t st_mode
        uint64_t st_rdev
    struct pollfd:
        int fd
        short events, revents
    int AT_FDCWD, O_PATH, O_NOFOLLOW, O_CLOEXEC, O_DIRECTORY, O_WRONLY, O_RDWR, O_CREAT, O_EXCL, F_DUPFD_CLOEXEC
    int CLONE_NEWPID, POLLERR, SIGKILL
    int PR_SET_PDEATHSIG, PR_SET_NO_NEW_PRIVS, PR_CAPBSET_DROP
    mode_t S_IFMT, S_IFLNK, S_IFDIR, S_IFCHR
    unsigned long MS_BIND, MS_REMOUNT, MS_NOEXEC, MS_NOSUID, MS_NOATIME, MS_NODIRATIME
    int open(const char *path, int flags, ...) nogil
    int openat(int base, const char *path, int flags, ...) nogil
    int mkdirat(int base, const char *path, mode_t mode) nogil
    int mkdir(const char *path, mode_t mode) nogil
    int mknod(const char *path, mode_t mode, uint64_t device) nogil
    int symlink(const char *target, const char *path) nogil
    int chmod(const char *path, mode_t mode) nogil
    int chown(const char *path, uid_t uid, gid_t gid) nogil
    int chdir(const char *path) nogil
    int close(int fd) nogil
    int dup2(int old, int new) nogil
    int dup3(int old, int new, int flags) nogil
    int fcntl(int fd, int command, ...) nogil
    int fstat(int fd, stat_t *status) nogil
    int setxattr(const char *path, const char *name, const void *value, size_t size, int flags) nogil
    long write(int fd, const void *data, size_t size) nogil
    int setsid() nogil
    int unshare_ "unshare"(int flags) nogil
    int setns_ "setns"(int fd, int kind) nogil
    int mount_ "mount"(const char *source, const char *target, const char *kind, unsigned long flags, const void *data) nogil
    int umount2_ "umount2"(const char *target, int flags) nogil
    int sethostname(const char *name, size_t size) nogil
    int setresuid(uid_t a, uid_t b, uid_t c) nogil
    int setresgid(gid_t a, gid_t b, gid_t c) nogil
    int prctl_ "prctl"(int option, ...) nogil
    int poll(pollfd *fds, unsigned long count, int timeout) nogil
    int execve(const char *path, char **argv, char **envp) nogil
    mode_t umask(mode_t mask) nogil
    pid_t fork() nogil
    void _exit(int status) nogil
    uint64_t gnu_dev_makedev(unsigned int major, unsigned int minor) nogil

cdef extern from "Python.h":
    void PyOS_BeforeFork()
    void PyOS_AfterFork_Parent()
    void PyOS_AfterFork_Child()


# --- the operations -------------------------------------------------------------------------------------
# code: (name, strings it must carry). plan.py reads this table; the order is the code.
OPERATIONS = (
    ("write", 2), ("open", 1), ("write_slot", 1), ("setsid", 0), ("unshare", 0), ("mount", 4), ("mkdir", 1),
    ("whiteout", 1), ("opaque", 1), ("symlink", 2), ("node", 1), ("file", 2), ("bind", 2), ("chdir", 1),
    ("pivot", 0), ("umount", 1), ("hostname", 1), ("rlimit", 0), ("descriptors", 0), ("keyring", 0),
    ("bounding", 0), ("groups", 1), ("ids", 0), ("nocaps", 0), ("pdeathsig", 0), ("no_new_privs", 0),
    ("landlock", 0), ("seccomp", 1), ("signals", 0), ("title", 1), ("umask", 0), ("exec", 2),
)
OPTIONAL = 1
DONE = 0xFFFFFFFF  # operation index of the record that says "completed"
HEADER_BYTES = sizeof(gg_op)

cdef enum:
    OP_WRITE, OP_OPEN, OP_WRITE_SLOT, OP_SETSID, OP_UNSHARE, OP_MOUNT, OP_MKDIR, OP_WHITEOUT, OP_OPAQUE, OP_SYMLINK
    OP_NODE, OP_FILE, OP_BIND, OP_CHDIR, OP_PIVOT, OP_UMOUNT, OP_HOSTNAME, OP_RLIMIT, OP_DESCRIPTORS, OP_KEYRING
    OP_BOUNDING, OP_GROUPS, OP_IDS, OP_NOCAPS, OP_PDEATHSIG, OP_NO_NEW_PRIVS, OP_LANDLOCK, OP_SECCOMP, OP_SIGNALS
    OP_TITLE, OP_UMASK, OP_EXEC, OP_COUNT

cdef enum:
    STRINGS_MAX = 4
    SLOTS_MAX = 4
    WORDS_MAX = 64          # arguments or environment entries of an exec
    ERROR_FD = 4            # where the error pipe lives once the other descriptors are closed
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


cdef int set_descriptors(int ipc, int out, int err, int stdio, int *error_fd) noexcept nogil:
    """0 null, 1 2 logs, 3 ipc, 4 error pipe (closed by exec); everything else is closed.

    With `stdio` the ipc socket is 0 and 1, for runtimes that cannot adopt descriptor 3. The caller keeps
    all descriptors of its own above 9, so none of these is overwritten before it is used.
    """
    cdef int null = open("/dev/null", O_RDWR | O_CLOEXEC)
    if null < 0:
        return -1
    if dup2(ipc if stdio else null, 0) < 0 or dup2(ipc if stdio else out, 1) < 0 or dup2(err, 2) < 0:
        return -1
    if dup2(null if stdio else ipc, 3) < 0 or dup3(error_fd[0], ERROR_FD, O_CLOEXEC) < 0:
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
    cdef int number
    for number in range(64):
        if not (keep >> number) & 1 and prctl_(PR_CAPBSET_DROP, number, 0, 0, 0):
            return 0 if errno == EINVAL and number > 0 else -1
    return 0


cdef void put_title(const char *text, size_t size) noexcept nogil:
    """What ps shows: the memory of the original arguments."""
    if title_start == NULL:
        return
    if size >= title_bytes:
        size = title_bytes - 1
    memset(title_start, 0, title_bytes)
    memcpy(title_start, text, size)


cdef int execute_image(const gg_op *op, const char *argv_text, const char *envp_text) noexcept nogil:
    """execve with NUL-separated arguments and environment; counts are n[0] and n[1]."""
    cdef char *argv[WORDS_MAX + 1]
    cdef char *envp[WORDS_MAX + 1]
    cdef uint64_t index
    if not 0 < op.n[0] <= WORDS_MAX or op.n[1] > WORDS_MAX:
        (&errno)[0] = EINVAL
        return -1
    for index in range(op.n[0]):
        argv[index] = <char *>argv_text
        argv_text += strlen(argv_text) + 1
    argv[op.n[0]] = NULL
    for index in range(op.n[1]):
        envp[index] = <char *>envp_text
        envp_text += strlen(envp_text) + 1
    envp[op.n[1]] = NULL
    return execve(argv[0], argv, envp)


cdef const char *or_null(const char *text) noexcept nogil:
    return text if text[0] else NULL


cdef int run_op(const gg_op *op, const char **s, const uint32_t *length, int *slots, int *error_fd) noexcept nogil:
    """One operation; 0 or -1 with errno."""
    if op.code == OP_WRITE:
        return write_once(open(s[0], O_WRONLY | O_CLOEXEC), s[1], length[1])
    elif op.code == OP_OPEN:
        if op.n[0] >= SLOTS_MAX:
            (&errno)[0] = EINVAL
            return -1
        slots[op.n[0]] = open(s[0], <int>op.n[1] | O_CLOEXEC)
        return 0 if slots[op.n[0]] >= 0 else -1
    elif op.code == OP_WRITE_SLOT:
        return write_once(slots[op.n[0] % SLOTS_MAX], s[0], length[0])
    elif op.code == OP_SETSID:
        return 0 if setsid() >= 0 else -1
    elif op.code == OP_UNSHARE:
        return unshare_(<int>op.n[0])
    elif op.code == OP_MOUNT:
        return mount_(or_null(s[0]), s[1], or_null(s[2]), <unsigned long>op.n[0], or_null(s[3]))
    elif op.code == OP_MKDIR:
        if mkdir(s[0], 0o700) or chown(s[0], <uid_t>op.n[1], <gid_t>op.n[2]):
            return -1
        return chmod(s[0], <mode_t>op.n[0])
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
    elif op.code == OP_FILE:
        return write_once(open(s[0], O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, <int>op.n[0]), s[1], length[1])
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
        return set_descriptors(<int>op.n[0], <int>op.n[1], <int>op.n[2], <int>op.n[3], error_fd)
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
    return execute_image(op, s[0], s[1])  # OP_EXEC: check_plan admits no other code


cdef void report(int error_fd, uint32_t index, int failure) noexcept nogil:
    cdef uint32_t record[2]
    record[0] = index
    record[1] = <uint32_t>failure
    write(error_fd, record, sizeof(record))  # a reader that is gone cannot be told anything


cdef int execute_plan(const char *plan, size_t size, int error_fd) noexcept nogil:
    """Run every operation of a checked plan; 0 when completed, else the failure has been reported."""
    cdef const char *strings[STRINGS_MAX]
    cdef uint32_t lengths[STRINGS_MAX]
    cdef int slots[SLOTS_MAX]
    cdef const gg_op *op
    cdef size_t at = 0, cursor
    cdef uint32_t number = 0
    cdef int index
    for index in range(SLOTS_MAX):
        slots[index] = -1
    while at < size:
        op = <const gg_op *>(plan + at)
        cursor = at + sizeof(gg_op)
        for index in range(op.strings):
            memcpy(&lengths[index], plan + cursor, 4)
            strings[index] = plan + cursor + 4
            cursor += 5 + lengths[index]
        if op.code == OP_EXEC:  # nothing can be said after it succeeded; a failure is a second record
            report(error_fd, 0xFFFFFFFF, 0)
        if run_op(op, strings, lengths, slots, &error_fd) and not op.flags & 1:
            report(error_fd, number, errno)
            return -1
        at += op.size
        number += 1
    report(error_fd, 0xFFFFFFFF, 0)
    close(error_fd)
    return 0


def spawn(bytes plan not None, int error_fd, int own_pid_namespace) -> int:
    """Fork into a new PID namespace and run `plan` there; the child's pid, or 0 in a child whose plan is done.

    Raises ValueError for a malformed plan and OSError when the fork itself is refused; a plan that fails ends
    the child and shows on `error_fd`. `own_pid_namespace` is a descriptor of /proc/self/ns/pid: the caller's
    "namespace for children" is put back after the fork, so that its next child is an ordinary one.
    """
    cdef const char *data = PyBytes_AS_STRING(plan)
    cdef size_t size = PyBytes_GET_SIZE(plan)
    cdef pid_t child
    cdef int failure
    if check_plan(data, size) <= 0:
        raise ValueError("malformed plan: found a bad length, code or string, expected what plan.py builds")
    if setns_(own_pid_namespace, CLONE_NEWPID) or unshare_(CLONE_NEWPID):
        PyErr_SetFromErrno(OSError)
    PyOS_BeforeFork()
    child = fork()
    if child == 0:
        if execute_plan(data, size, error_fd):
            _exit(126)
        PyOS_AfterFork_Child()
        return 0
    failure = errno
    PyOS_AfterFork_Parent()
    setns_(own_pid_namespace, CLONE_NEWPID)
    if child < 0:
        (&errno)[0] = failure
        PyErr_SetFromErrno(OSError)
    return child


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
