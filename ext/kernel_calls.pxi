# Part of kernel.pyx: the system calls and constants that the executor and the module's functions use.
# What glibc's headers of 2018 lack is declared here by number; such numbers are the same on every architecture.

from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_GET_SIZE
from cpython.exc cimport PyErr_SetFromErrno
from libc.errno cimport EBADF, EINVAL, EIO, ELOOP, ENAMETOOLONG, ENODEV, ENOENT, EPIPE, errno
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
    #include <stdio.h>
    #include <stdlib.h>
    #include <string.h>
    #include <time.h>
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
    #define GG_landlock_add_rule 445
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
    /* A domain that forbids nothing: it is entered only because a process in a domain may not look into, or trace,
       one outside of it. The two rights it must name (making block devices, moving files between directories) are
       granted below the root, so below every mount. Linux 5.19: before, a domain always forbids the second. */
    static int gg_landlock_domain(void) {
        gg_landlock_attr attr = {1ULL << 11 | 1ULL << 13, 0, 0};
        struct { unsigned long long rights; int parent; } __attribute__((packed)) rule = {attr.fs, -1};
        int failed = -1, fd = syscall(GG_landlock_create_ruleset, &attr, sizeof attr.fs, 0);
        if (fd < 0) return -1;
        rule.parent = open("/", O_PATH | O_CLOEXEC);
        if (rule.parent >= 0) failed = syscall(GG_landlock_add_rule, fd, 1 /* PATH_BENEATH */, &rule, 0);
        if (!failed) failed = syscall(GG_landlock_restrict_self, fd, 0);
        if (rule.parent >= 0) close(rule.parent);
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
    /* Not the C library's: that refuses the two signals it keeps for itself, and make, for one, starts its programs
       with both ignored. All zeros is the default action in every architecture's form. */
    static void gg_default_signal(int number) {
        const char defaults[64] = {0};
        syscall(SYS_rt_sigaction, number, defaults, NULL, 8);
    }
    static int gg_reset_signals(int ignored_too) {
        sigset_t none;
        gg_default_signal(32);
        gg_default_signal(33);
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
    int gg_landlock_domain() nogil
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
    int PR_SET_PDEATHSIG, PR_SET_NO_NEW_PRIVS, PR_CAPBSET_DROP, PR_CAPBSET_READ
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
    mode_t umask(mode_t mask) nogil
    pid_t fork() nogil
    void _exit(int status) nogil
    uint64_t gnu_dev_makedev(unsigned int major, unsigned int minor) nogil

cdef extern from "Python.h":
    void PyOS_BeforeFork()
    void PyOS_AfterFork_Parent()
    void PyOS_AfterFork_Child()
