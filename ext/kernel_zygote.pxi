# Part of kernel.pyx: the loop of the zygote, the process that workers are forked from.
#
# It runs no Python. Every object the interpreter looks at gets its reference count written, and a page the parent
# writes after a fork is a page the child has alone: a parent that handled requests in Python would cost each worker
# a megabyte. So the supervisor thinks, and this process only receives plans, forks, and tells who ended.
#
# One SOCK_SEQPACKET packet each, little endian:
#   to the zygote    SPAWN u32, serial u32, plan; descriptors: ipc, stdout, stderr, error pipe
#                    KEEP u32, serial u32, plan; descriptors: the same and, where the plan needs it, a namespace's
#                    KILL u32, pid u32, signal u32
#                    SPARE u32, serial u32, the plan's beginning; descriptor: a SOCK_SEQPACKET socket
#   to a spare       SPAWN as above, once, on its own socket; it ends when that ends without one
#   from the zygote  SPAWN u32, serial u32, pid i32 or -errno
#                    ENDED u32, pid u32, wait status u32
#
# A worker without a PID namespace has nothing that ends what it started. KEEP forks a *keeper* and that forks the
# worker: whatever the worker starts and leaves behind becomes the keeper's child, the keeper kills all of it when the
# worker ends or when itself is told to (KEEPER_END, which is also the signal it gets when the zygote dies), and then
# ends in the same way as its worker did. It runs these lines and nothing else, has root's uid, so that no function of
# another user reaches it, no descriptor, and no capability but that of signalling.

cdef extern from *:
    """
    #include <dirent.h>
    #include <sys/socket.h>
    #include <sys/wait.h>

    #define GG_KEEPER_END 64

    static long gg_receive(int sock, void *data, size_t size, int *fds, int wanted, int *truncated) {
        union { struct cmsghdr head; char space[CMSG_SPACE(8 * sizeof(int))]; } control;
        struct iovec part = {data, size};
        struct msghdr message = {.msg_iov = &part, .msg_iovlen = 1, .msg_control = &control,
                                 .msg_controllen = sizeof control};
        struct cmsghdr *head;
        int index, count = 0;
        long got = recvmsg(sock, &message, MSG_CMSG_CLOEXEC);
        for (index = 0; index < wanted; index++) fds[index] = -1;
        *truncated = (message.msg_flags & (MSG_TRUNC | MSG_CTRUNC)) != 0;
        if (got < 0) return got;
        head = CMSG_FIRSTHDR(&message);
        if (head && head->cmsg_level == SOL_SOCKET && head->cmsg_type == SCM_RIGHTS) {
            count = (head->cmsg_len - CMSG_LEN(0)) / sizeof(int);
            for (index = 0; index < count && index < wanted; index++)
                memcpy(&fds[index], CMSG_DATA(head) + index * sizeof(int), sizeof(int));
        }
        return got;
    }
    static int gg_parent_of(const char *name) {  /* of a process, from its line in /proc; 0 when it is gone */
        char path[280], line[512], *end;
        int fd, size, parent = 0;
        snprintf(path, sizeof path, "/proc/%s/stat", name);
        fd = open(path, O_RDONLY | O_CLOEXEC);
        if (fd < 0) return 0;
        size = read(fd, line, sizeof line - 1);
        close(fd);
        line[size > 0 ? size : 0] = 0;
        end = strrchr(line, ')');  /* a name may contain anything */
        if (end) sscanf(end, ") %*c %d", &parent);
        return parent;
    }
    static void gg_kill_children(int me) {
        char path[64], list[4096], *at, *next;
        DIR *directory;
        struct dirent *entry;
        int fd, size, pid;
        snprintf(path, sizeof path, "/proc/self/task/%d/children", me);
        fd = open(path, O_RDONLY | O_CLOEXEC);
        if (fd >= 0) {  /* CONFIG_PROC_CHILDREN */
            size = read(fd, list, sizeof list - 1);
            close(fd);
            list[size > 0 ? size : 0] = 0;
            for (at = list; (pid = strtol(at, &next, 10)) > 0 && *next; at = next) kill(pid, SIGKILL);
            return;
        }
        directory = opendir("/proc");
        while (directory && (entry = readdir(directory)))
            if (entry->d_name[0] >= '1' && entry->d_name[0] <= '9' && gg_parent_of(entry->d_name) == me)
                kill(atoi(entry->d_name), SIGKILL);
        if (directory) closedir(directory);
    }
    /* Not the C library's: that leaves out the two signals it uses itself, and they would end a keeper. */
    static void gg_block_signals_but(int number) {
        unsigned long long mask = number ? ~(1ULL << (number - 1)) : ~0ULL;
        syscall(SYS_rt_sigprocmask, SIG_SETMASK, &mask, NULL, sizeof mask);
    }
    static void gg_end_like(int status) {
        struct rlimit none = {0, 0};
        if (WIFSIGNALED(status)) {
            setrlimit(RLIMIT_CORE, &none);
            kill(getpid(), WTERMSIG(status));
            gg_block_signals_but(WTERMSIG(status));
        }
        _exit(WIFEXITED(status) ? WEXITSTATUS(status) : 126);
    }
    static void gg_keep(int worker) {  /* every signal is blocked; does not return */
        struct timespec pause = {0, 2000000};
        sigset_t all;
        int pid, number, status, last = 0, alive = 1, ending = 0, me = getpid();
        memset(&all, 0xFF, sizeof all);  /* those two as well */
        for (;;) {
            while ((pid = waitpid(-1, &status, WNOHANG)) > 0)
                if (pid == worker) { last = status; alive = 0; ending = 1; }
            if (pid < 0 && errno == ECHILD) gg_end_like(last);
            if (ending && alive) kill(worker, SIGKILL);
            if (ending) gg_kill_children(me);
            number = ending ? sigtimedwait(&all, NULL, &pause) : sigwaitinfo(&all, NULL);
            if (number == GG_KEEPER_END) ending = 1;
            else if (number > 0 && number != SIGCHLD && alive) kill(worker, number);
        }
    }
    static void gg_default_signals(void) {
        int number;
        for (number = 1; number <= 64; number++) gg_default_signal(number);
    }
    static int gg_is_child(int pid) {  /* alive or a zombie, but not reaped: then the number is still its own */
        siginfo_t info;
        return waitid(P_PID, pid, &info, WEXITED | WNOHANG | WNOWAIT) == 0;
    }
    """
    long gg_receive(int sock, void *data, size_t size, int *fds, int wanted, int *truncated) nogil
    bint gg_is_child(int pid) nogil
    void gg_keep(int worker) nogil
    void gg_block_signals_but(int number) nogil
    void gg_default_signals() nogil
    int GG_KEEPER_END, PR_SET_CHILD_SUBREAPER
    int getpid() nogil
    int getppid() nogil
    int kill(int pid, int number) nogil
    int waitpid(int pid, int *status, int options) nogil
    int WNOHANG, POLLIN, EINTR_ "EINTR", EBADMSG_ "EBADMSG"
    long read(int fd, void *data, size_t size) nogil

SPAWN, KILL, ENDED, SPARE, KEEP = 1, 2, 3, 4, 5
KEEPER_END = GG_KEEPER_END  # the signal that ends a keeper and everything it keeps
WORKER_DESCRIPTORS = (20, 21, 22)  # ipc, stdout, stderr in a child of the zygote, for the plan to name
NAMESPACE_DESCRIPTOR = 24  # the fifth descriptor of a KEEP

cdef enum:
    MESSAGE_SPAWN = 1
    MESSAGE_KILL = 2
    MESSAGE_ENDED = 3
    MESSAGE_SPARE = 4
    MESSAGE_KEEP = 5
    RIGHTS = 5                  # descriptors of one request at most
    CAPABILITY_KILL = 5
    FIRST_DESCRIPTOR = 20
    REQUEST_WORDS = 24576       # 192 KiB: a plan made from one channel packet is below 128

cdef uint64_t request[REQUEST_WORDS]


cdef void tell(int sock, uint32_t kind, uint32_t first, uint32_t second) noexcept nogil:
    """Blocks until the supervisor has read enough; without it there is no reason to live."""
    cdef uint32_t record[3]
    record[0], record[1], record[2] = kind, first, second
    if write(sock, record, sizeof(record)) != <long>sizeof(record):
        _exit(1)


cdef void tell_ended(int sock, int signals) noexcept nogil:
    cdef char drain[512]
    cdef int pid, status
    read(signals, drain, sizeof(drain))
    while True:
        pid = waitpid(-1, &status, WNOHANG)
        if pid <= 0:
            return
        tell(sock, MESSAGE_ENDED, <uint32_t>pid, <uint32_t>status)


cdef int become(const char *plan, size_t size, int *fds, size_t used) noexcept:
    """In a fresh child: run the plan with these descriptors. 1 when it is a worker; never returns otherwise.
    `used` bytes of the request buffer hold what the host looks like, which is none of the function's business."""
    cdef int index
    for index in range(RIGHTS):
        if fds[index] >= 0 and dup2(fds[index], FIRST_DESCRIPTOR + index) < 0:
            _exit(126)
    if execute_plan(plan, size, FIRST_DESCRIPTOR + 3):
        _exit(126)
    memset(request, 0, used)
    PyOS_AfterFork_Child()
    return 1


cdef int wait_as_spare(const char *plan, size_t size, int *fds) noexcept:
    """In a fresh child: do what needs no request, then wait for one; its descriptors lie below FIRST_DESCRIPTOR."""
    cdef const uint32_t *head = <const uint32_t *>request
    cdef int truncated = 0, sock = FIRST_DESCRIPTOR + 4
    cdef long got
    if dup2(fds[0], sock) < 0 or close(fds[0]):
        _exit(126)
    if prctl_(PR_SET_PDEATHSIG, SIGKILL, 0, 0, 0) or execute_plan(plan, size, -1):
        _exit(126)
    got = gg_receive(sock, request, sizeof(request), fds, RIGHTS, &truncated)
    if got <= 8 or truncated or head[0] != MESSAGE_SPAWN or fds[3] < 0:
        _exit(0 if got == 0 else 126)
    close(sock)
    if check_plan(<const char *>request + 8, <size_t>got - 8) <= 0:
        _exit(126)
    return become(<const char *>request + 8, <size_t>got - 8, fds, max(<size_t>got, size + 8))


cdef int fork_kept(int error_fd):
    """Fork a keeper, and a worker from it: the keeper's pid, 0 in the worker, -errno when refused."""
    cdef int child, worker, failure, zygote = getpid()
    PyOS_BeforeFork()
    child = fork()
    if child > 0 or child < 0:
        failure = errno
        PyOS_AfterFork_Parent()
        return child if child > 0 else -failure
    gg_block_signals_but(0)
    # Nothing can be left behind: a zygote that dies from here on is a signal that waits.
    if prctl_(PR_SET_PDEATHSIG, GG_KEEPER_END, 0, 0, 0) or getppid() != zygote:
        _exit(126)
    worker = -1 if prctl_(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0) else fork()
    if worker == 0:
        report(error_fd, RECORD_NUMBER, getpid())
        return 0
    if worker < 0:
        report(error_fd, RECORD_FORK, errno)
        _exit(126)
    gg_default_signals()
    put_title("ggfast-keeper", 13)
    if gg_close_range_(0, 0xFFFFFFFF):
        for failure in range(65536):
            close(failure)
    if gg_capabilities(1 << CAPABILITY_KILL):  # an outer container without it: of the rest it needs nothing either
        gg_no_capabilities()
    gg_keep(worker)
    _exit(126)


cdef int fork_received(int sock, size_t size, int *fds, int namespace):
    """Fork for the request in the buffer, a worker or a spare. 1 in a worker whose plan is done, 0 in the zygote."""
    cdef const uint32_t *head = <const uint32_t *>request
    cdef const char *plan = <const char *>request + 8
    cdef bint spare = head[0] == MESSAGE_SPARE
    cdef int result = -EBADMSG_, index
    if check_plan(plan, size - 8) > 0 and fds[0 if spare else 3] >= 0:
        result = fork_kept(fds[3]) if head[0] == MESSAGE_KEEP else fork_worker(namespace)
        if result == 0:
            return wait_as_spare(plan, size - 8, fds) if spare else become(plan, size - 8, fds, size)
    for index in range(RIGHTS):
        if fds[index] >= 0:
            close(fds[index])
    tell(sock, MESSAGE_SPAWN, head[1], <uint32_t>result)
    memset(request, 0, size)  # or the next worker would have this one's plan in its memory
    return 0


def serve_zygote(int sock, int own_pid_namespace, int signals) -> None:
    """Fork workers as asked on `sock` until it ends, then end the process. Returns only in a worker.

    `signals` is a signalfd for SIGCHLD. The descriptors from 13 to 17 are where requests bring theirs: the caller
    has closed everything above 12, so that they lie below FIRST_DESCRIPTOR.
    """
    cdef pollfd waiting[2]
    cdef int fds[RIGHTS]
    cdef int truncated = 0
    cdef long size
    cdef const uint32_t *head = <const uint32_t *>request
    waiting[0].fd, waiting[1].fd = sock, signals
    waiting[0].events = waiting[1].events = <short>POLLIN
    while True:
        waiting[0].revents = waiting[1].revents = 0
        if poll(waiting, 2, -1) < 0 and errno != EINTR_:
            _exit(1)
        if waiting[1].revents:
            tell_ended(sock, signals)
        if not waiting[0].revents:
            continue
        size = gg_receive(sock, request, sizeof(request), fds, RIGHTS, &truncated)
        if size < 8 or truncated:
            _exit(0 if size == 0 else 1)
        if head[0] == MESSAGE_SPAWN or head[0] == MESSAGE_SPARE or head[0] == MESSAGE_KEEP:
            if fork_received(sock, <size_t>size, fds, own_pid_namespace):
                return
        elif head[0] == MESSAGE_KILL and size == 12 and gg_is_child(<int>head[1]):
            kill(<int>head[1], <int>head[2])
