#include "channel.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <unistd.h>

#include "incoming.h"
#include "log.h"

enum { READ_BYTES = 65536 /* a whole burst of frames in one system call */ };

/* A thread that waits, in the list `sleepers` while it sleeps. */
struct waiter {
    bool (*ready)(const struct waiter *waiter);
    const void *about;
    uint32_t epoch;
    pthread_cond_t wake;
    struct waiter *next;
};

static pthread_mutex_t sending = PTHREAD_MUTEX_INITIALIZER;
static pthread_mutex_t state = PTHREAD_MUTEX_INITIALIZER; /* guards everything below, but for the reader's own */
static bool reading;                                      /* a thread is in the socket */
static struct waiter *sleepers;
static struct call *calls;  /* sent and not yet answered */
static unsigned calls_open; /* places taken, of CALLS_MAX */
static uint32_t last_call;
static struct work pending; /* one at most: the core sends the next when it has the result */
static bool have_pending;
static bool stopping;
static uint32_t epoch; /* how many daemons before this one; changes under both locks */
static bool announced;
static uint32_t announced_epoch;

static int end_fd = -1; /* an eventfd that channel_ask_to_end writes to */
static bool end_seen;   /* the reader's own */
static struct incoming input;
static uint8_t read_buffer[READ_BYTES];

/* --- waiting and reading ------------------------------------------------------------------------------------- */

static void wake_ready(void)
{
    for (struct waiter *waiter = sleepers; waiter; waiter = waiter->next)
        if (waiter->ready(waiter))
            pthread_cond_signal(&waiter->wake);
}

static const char *deliver(struct frame *frame)
{
    if (frame->kind == FRAME_END) {
        stopping = true;
        return NULL;
    }
    if (frame->kind == FRAME_WORK) {
        if (have_pending) {
            free(frame->memory);
            return "work while earlier work had not begun";
        }
        const uint8_t *payload = frame->memory ? frame->memory + frame->context_size + 1 : NULL;
        pending = (struct work){epoch, frame->number, frame->memory, (const char *)frame->memory,
                                payload, frame->payload_size, frame->lost};
        have_pending = true;
        return NULL;
    }
    for (struct call **at = &calls; *at; at = &(*at)->next) {
        struct call *call = *at;
        if (call->number == frame->number) {
            *at = call->next;
            call->status = (enum answer_status)frame->status;
            call->answer = frame->memory;
            call->answer_size = frame->payload_size;
            call->lost = frame->lost;
            call->answered = true;
            return NULL;
        }
    }
    free(frame->memory); /* nobody waits for it any more */
    return NULL;
}

/* The daemon was replaced. Called by the reader with both locks held. */
static void switch_to(int successor)
{
    static const char reason[] = "the core's daemon was restarted before it had answered";

    if (dup3(successor, CHANNEL_FD, O_CLOEXEC) < 0)
        log_fatal("the socket of the core's new daemon can not be used", errno);
    close(successor);
    epoch++;
    incoming_reset(&input);
    if (have_pending)
        free(pending.memory);
    have_pending = false;
    while (calls) {
        struct call *call = calls;
        calls = call->next;
        call->status = ANSWER_REFUSED;
        call->answer = malloc(sizeof reason - 1);
        call->answer_size = call->answer ? sizeof reason - 1 : 0; /* the status says enough without the text */
        if (call->answer)
            memcpy(call->answer, reason, sizeof reason - 1);
        call->answered = true;
    }
}

/* Read once. The bytes' number, 0 at the end of the stream, -1 when there is nothing to take yet. */
static ssize_t receive(int *successor)
{
    union {
        char bytes[CMSG_SPACE(sizeof(int))];
        struct cmsghdr align;
    } control;
    struct iovec room = {read_buffer, sizeof read_buffer};
    struct msghdr message = {.msg_iov = &room, .msg_iovlen = 1, .msg_control = &control,
                             .msg_controllen = CMSG_LEN(sizeof(int))}; /* of two descriptors one would be lost */
    struct pollfd ready[2] = {{.fd = CHANNEL_FD, .events = POLLIN}, {.fd = end_seen ? -1 : end_fd, .events = POLLIN}};

    *successor = -1;
    if (poll(ready, 2, -1) < 0)
        return -1;
    if (ready[1].revents)
        end_seen = true;
    if (!ready[0].revents)
        return -1;
    ssize_t count = recvmsg(CHANNEL_FD, &message, MSG_CMSG_CLOEXEC | MSG_DONTWAIT);
    if (count < 0) {
        /* A reset is reported once, before what is still queued. */
        if (errno == EINTR || errno == EAGAIN || errno == ECONNRESET || errno == ENOMEM)
            return -1;
        log_fatal("the core's socket can not be read", errno);
    }
    struct cmsghdr *header = CMSG_FIRSTHDR(&message);
    if (header && header->cmsg_level == SOL_SOCKET && header->cmsg_type == SCM_RIGHTS)
        memcpy(successor, CMSG_DATA(header), sizeof *successor);
    else if (message.msg_flags & MSG_CTRUNC)
        log_fatal("the socket of the core's new daemon did not arrive, perhaps too many files are open", 0);
    return count;
}

/* Read and dispatch once. Called with the state lock held, which is open meanwhile. */
static void read_once(void)
{
    int successor;
    const char *problem = NULL;

    reading = true;
    pthread_mutex_unlock(&state);
    ssize_t count = receive(&successor);
    if (count == 0)
        _exit(0); /* nobody is left to work for */
    if (successor >= 0)
        pthread_mutex_lock(&sending);
    pthread_mutex_lock(&state);
    if (successor >= 0)
        count--; /* the byte that carried the descriptor is no frame's */
    if (count > 0)
        problem = incoming_take(&input, read_buffer, (size_t)count, deliver);
    if (problem)
        log_fatal(problem, -1);
    if (successor >= 0) {
        switch_to(successor);
        pthread_mutex_unlock(&sending);
    }
    if (end_seen)
        stopping = true;
    reading = false;
    wake_ready();
}

static void sleep_until_woken(struct waiter *waiter)
{
    waiter->next = sleepers;
    sleepers = waiter;
    pthread_cond_wait(&waiter->wake, &state);
    for (struct waiter **at = &sleepers; *at; at = &(*at)->next)
        if (*at == waiter) {
            *at = waiter->next;
            break;
        }
}

/* Return when `waiter` is ready. Called with the state lock held. */
static void wait_until(struct waiter *waiter)
{
    if (waiter->ready(waiter))
        return;
    pthread_cond_init(&waiter->wake, NULL);
    while (!waiter->ready(waiter)) {
        if (reading)
            sleep_until_woken(waiter);
        else
            read_once();
    }
    pthread_cond_destroy(&waiter->wake);
    if (!reading && sleepers)
        pthread_cond_signal(&sleepers->wake); /* the reading is that thread's */
}

/* --- sending ------------------------------------------------------------------------------------------------- */

/* Write it all; false when the other end is gone. Called with the sending lock held. */
static bool write_all(struct iovec *parts, size_t count)
{
    struct msghdr message = {.msg_iov = parts, .msg_iovlen = count};

    for (;;) {
        while (message.msg_iovlen && !message.msg_iov->iov_len) {
            message.msg_iov++;
            message.msg_iovlen--;
        }
        if (!message.msg_iovlen)
            return true;
        ssize_t sent = sendmsg(CHANNEL_FD, &message, MSG_NOSIGNAL);
        if (sent < 0 && errno == EINTR)
            continue;
        if (sent < 0 && (errno == EAGAIN || errno == ENOBUFS || errno == ENOMEM)) {
            struct pollfd ready = {.fd = CHANNEL_FD, .events = POLLOUT};
            poll(&ready, 1, errno == EAGAIN ? -1 : 10); /* without memory the socket would be ready at once */
            continue;
        }
        if (sent < 0)
            return false;
        for (size_t left = (size_t)sent; left;) {
            size_t part = left < message.msg_iov->iov_len ? left : message.msg_iov->iov_len;
            message.msg_iov->iov_base = (char *)message.msg_iov->iov_base + part;
            message.msg_iov->iov_len -= part;
            left -= part;
            if (!message.msg_iov->iov_len) {
                message.msg_iov++;
                message.msg_iovlen--;
            }
        }
    }
}

static bool is_replaced(const struct waiter *waiter)
{
    return epoch != waiter->epoch;
}

/*
 * Send one frame of `count` parts (5 at most). Only to the daemon number `*only` unless that is null. `call`, if any,
 * is registered for its answer before its frame leaves.
 */
static void send_frame(const struct iovec *parts, size_t count, const uint32_t *only, struct call *call)
{
    struct iovec left[5];

    for (;;) {
        pthread_mutex_lock(&sending);
        struct waiter waiter = {.ready = is_replaced, .epoch = epoch};
        bool wanted = !only || *only == epoch, sent = false;
        if (wanted && call) {
            pthread_mutex_lock(&state);
            if (call->answered)
                free(call->answer); /* given up with the daemon before: it is asked anew */
            call->answer = NULL;
            call->answered = false;
            call->next = calls;
            calls = call;
            pthread_mutex_unlock(&state);
        }
        if (wanted) {
            memcpy(left, parts, count * sizeof *parts);
            sent = write_all(left, count);
        }
        pthread_mutex_unlock(&sending);
        if (sent || !wanted)
            return;
        /* The other end is gone: a successor's socket is queued behind it, or nobody is left. */
        pthread_mutex_lock(&state);
        wait_until(&waiter);
        pthread_mutex_unlock(&state);
    }
}

static void send_call(const struct call *call, struct call *awaited)
{
    uint8_t head[12], context_size[2] = {(uint8_t)call->context_size, (uint8_t)(call->context_size >> 8)};
    size_t arn_size = strlen(call->arn);

    put_u32(head, (uint32_t)(10 + arn_size + call->context_size + call->payload_size));
    head[4] = 'P';
    put_u32(head + 5, awaited ? awaited->number : 0);
    head[9] = call->kind;
    head[10] = (uint8_t)arn_size;
    head[11] = (uint8_t)(arn_size >> 8);
    struct iovec parts[5] = {{head, 12},
                             {(void *)call->arn, arn_size},
                             {context_size, 2},
                             {(void *)call->context, call->context_size},
                             {(void *)call->payload, call->payload_size}};
    send_frame(parts, 5, NULL, awaited);
}

/* --- what the rest of the library uses ------------------------------------------------------------------------- */

const char *channel_open(void)
{
    struct stat about;

    if (fstat(CHANNEL_FD, &about) < 0 || !S_ISSOCK(about.st_mode))
        return "descriptor 3 is not a socket: this program is to be started by the Greengrass core";
    end_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    if (end_fd < 0)
        return "no descriptor is left for signals: too many files are open";
    int flags = fcntl(CHANNEL_FD, F_GETFL);
    if (fcntl(CHANNEL_FD, F_SETFD, FD_CLOEXEC) < 0 || fcntl(CHANNEL_FD, F_SETFL, flags & ~O_NONBLOCK) < 0)
        return "the core's socket can not be set up";
    return NULL;
}

bool channel_fits(const struct call *call)
{
    size_t arn_size = strlen(call->arn);

    if (arn_size > UINT16_MAX || call->context_size > CONTEXT_BYTES_MAX)
        return false;
    return call->payload_size <= FRAME_BYTES_MAX - 10 - arn_size - call->context_size;
}

void channel_send(const struct call *call)
{
    send_call(call, NULL);
}

static bool is_place_free(const struct waiter *waiter)
{
    (void)waiter;
    return calls_open < CALLS_MAX;
}

static bool is_answered(const struct waiter *waiter)
{
    return ((const struct call *)waiter->about)->answered;
}

void channel_call(struct call *call)
{
    struct waiter place = {.ready = is_place_free}, answer = {.ready = is_answered, .about = call};

    pthread_mutex_lock(&state);
    wait_until(&place);
    calls_open++;
    if (++last_call == 0)
        last_call = 1; /* 0 says that no answer is wanted */
    call->number = last_call;
    pthread_mutex_unlock(&state);
    send_call(call, call);
    pthread_mutex_lock(&state);
    wait_until(&answer);
    if (calls_open-- == CALLS_MAX)
        wake_ready();
    pthread_mutex_unlock(&state);
}

static void announce(void)
{
    static uint8_t head[6] = {2, 0, 0, 0, 'I', 1};
    struct iovec part = {head, sizeof head};

    pthread_mutex_lock(&state);
    bool wanted = !announced || announced_epoch != epoch;
    uint32_t to = epoch;
    announced = true;
    announced_epoch = to;
    pthread_mutex_unlock(&state);
    if (wanted)
        send_frame(&part, 1, &to, NULL);
}

static bool is_runtime_wanted(const struct waiter *waiter)
{
    (void)waiter;
    return have_pending || stopping || announced_epoch != epoch;
}

bool channel_next_work(struct work *work)
{
    struct waiter waiter = {.ready = is_runtime_wanted};

    for (;;) {
        announce();
        pthread_mutex_lock(&state);
        wait_until(&waiter);
        bool found = have_pending, end = stopping;
        if (found)
            *work = pending;
        have_pending = false;
        pthread_mutex_unlock(&state);
        if (found || end)
            return found;
    }
}

static void reply(uint8_t kind, const struct work *work, const void *body, size_t size)
{
    uint8_t head[9];
    struct iovec parts[2] = {{head, sizeof head}, {(void *)body, size}};

    put_u32(head, (uint32_t)(5 + size));
    head[4] = kind;
    put_u32(head + 5, work->invocation);
    send_frame(parts, 2, &work->epoch, NULL);
}

void channel_result(const struct work *work, const void *result, size_t size)
{
    reply('R', work, result, size);
}

void channel_error(const struct work *work, const void *document, size_t size)
{
    reply('E', work, document, size);
}

void channel_ask_to_end(void)
{
    static const uint64_t one = 1;
    int kept = errno;

    if (write(end_fd, &one, sizeof one) < 0) {
        /* full: it has been asked for before */
    }
    errno = kept;
}
