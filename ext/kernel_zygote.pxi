# Part of kernel.pyx: the loop of the zygote, the process that workers are forked from.
#
# It runs no Python. Every object the interpreter looks at gets its reference count written, and a page the parent
# writes after a fork is a page the child has alone: a parent that handled requests in Python would cost each worker
# a megabyte. So the supervisor thinks, and this process only receives plans, forks, and tells who ended.
#
# One SOCK_SEQPACKET packet each, little endian:
#   to the zygote    SPAWN u32, serial u32, plan; descriptors: ipc, stdout, stderr, error pipe
#                    KILL u32, pid u32, signal u32
#                    SPARE u32, serial u32, the plan's beginning; descriptor: a SOCK_SEQPACKET socket
#   to a spare       SPAWN as above, once, on its own socket; it ends when that ends without one
#   from the zygote  SPAWN u32, serial u32, pid i32 or -errno
#                    ENDED u32, pid u32, wait status u32

cdef extern from *:
    """
    #include <sys/socket.h>
    #include <sys/wait.h>

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
    static int gg_is_child(int pid) {  /* alive or a zombie, but not reaped: then the number is still its own */
        siginfo_t info;
        return waitid(P_PID, pid, &info, WEXITED | WNOHANG | WNOWAIT) == 0;
    }
    """
    long gg_receive(int sock, void *data, size_t size, int *fds, int wanted, int *truncated) nogil
    bint gg_is_child(int pid) nogil
    int kill(int pid, int number) nogil
    int waitpid(int pid, int *status, int options) nogil
    int WNOHANG, POLLIN, EINTR_ "EINTR", EBADMSG_ "EBADMSG"
    long read(int fd, void *data, size_t size) nogil

SPAWN, KILL, ENDED, SPARE = 1, 2, 3, 4
WORKER_DESCRIPTORS = (20, 21, 22)  # ipc, stdout, stderr in a child of the zygote, for the plan to name

cdef enum:
    MESSAGE_SPAWN = 1
    MESSAGE_KILL = 2
    MESSAGE_ENDED = 3
    MESSAGE_SPARE = 4
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
    """In a fresh child: run the plan with these four descriptors. 1 when it is a worker; never returns otherwise.
    `used` bytes of the request buffer hold what the host looks like, which is none of the function's business."""
    cdef int index
    for index in range(4):
        if dup2(fds[index], FIRST_DESCRIPTOR + index) < 0:
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
    got = gg_receive(sock, request, sizeof(request), fds, 4, &truncated)
    if got <= 8 or truncated or head[0] != MESSAGE_SPAWN or fds[3] < 0:
        _exit(0 if got == 0 else 126)
    close(sock)
    if check_plan(<const char *>request + 8, <size_t>got - 8) <= 0:
        _exit(126)
    return become(<const char *>request + 8, <size_t>got - 8, fds, max(<size_t>got, size + 8))


cdef int fork_received(int sock, size_t size, int *fds, int namespace):
    """Fork for the request in the buffer, a worker or a spare. 1 in a worker whose plan is done, 0 in the zygote."""
    cdef const uint32_t *head = <const uint32_t *>request
    cdef const char *plan = <const char *>request + 8
    cdef bint spare = head[0] == MESSAGE_SPARE
    cdef int result = -EBADMSG_, index
    if check_plan(plan, size - 8) > 0 and fds[0 if spare else 3] >= 0:
        result = fork_worker(namespace)
        if result == 0:
            return wait_as_spare(plan, size - 8, fds) if spare else become(plan, size - 8, fds, size)
    for index in range(4):
        if fds[index] >= 0:
            close(fds[index])
    tell(sock, MESSAGE_SPAWN, head[1], <uint32_t>result)
    memset(request, 0, size)  # or the next worker would have this one's plan in its memory
    return 0


def serve_zygote(int sock, int own_pid_namespace, int signals) -> None:
    """Fork workers as asked on `sock` until it ends, then end the process. Returns only in a worker.

    `signals` is a signalfd for SIGCHLD. The descriptors from 13 to 16 are where requests bring theirs: the caller
    has closed everything above 12, so that they lie below FIRST_DESCRIPTOR.
    """
    cdef pollfd waiting[2]
    cdef int fds[4]
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
        size = gg_receive(sock, request, sizeof(request), fds, 4, &truncated)
        if size < 8 or truncated:
            _exit(0 if size == 0 else 1)
        if head[0] == MESSAGE_SPAWN or head[0] == MESSAGE_SPARE:
            if fork_received(sock, <size_t>size, fds, own_pid_namespace):
                return
        elif head[0] == MESSAGE_KILL and size == 12 and gg_is_child(<int>head[1]):
            kill(<int>head[1], <int>head[2])
