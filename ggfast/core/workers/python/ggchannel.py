"""The worker's end of its socket (fd 3): frames out, frames in, from any thread.

A frame is a u32 little-endian length of (type byte + body), the type byte, the body. There is no reader
thread: whichever thread waits for something reads for all of them, and the others sleep until a read has
happened. A thread that only sends (a best-effort publish) never waits.

When the daemon has been replaced, a single byte with a descriptor arrives: the new socket. Input that was
incomplete, work that had not begun and calls without an answer belonged to the old daemon and are given up;
a frame whose sending failed is sent again on the new socket.
"""

import json
import os
from _socket import AF_UNIX, CMSG_SPACE, SCM_RIGHTS, SOCK_STREAM, SOL_SOCKET, socket, socketpair
from _thread import allocate_lock
from collections import deque
from struct import Struct

FRAME_BYTES_MAX = 1024 * 1024  # both directions; the daemon ends a worker that sends more
READ_BYTES = 65536  # 64 KiB: a whole burst of messages in one system call
CONTEXT_BYTES_MAX = 65535  # its length field
OK, HANDLED, UNHANDLED, REFUSED = range(4)  # the status of an answer
EVENT, REQUEST_RESPONSE = range(2)  # the invocation type of a call
FD = 3

_DESCRIPTOR = Struct("i")
_HEAD = Struct("<IB")
_NUMBERED = Struct("<IBI")
_CALL = Struct("<IBIBH")
_SHORT = Struct("<H")
_WORK = Struct("<IH")
_ANSWER = Struct("<IB")
_FD_SPACE = CMSG_SPACE(4)
_BUFFER = bytearray(READ_BYTES)  # the image's: a worker owns only the part it reads into
_RESTARTED = (REFUSED, b"the core's daemon was restarted before it had answered")


class Work(object):
    """One invocation to run: its number, the raw client context (JSON or empty), the payload."""

    __slots__ = ("context", "epoch", "invocation", "payload")

    def __init__(self, epoch, invocation, context, payload):
        self.epoch = epoch
        self.invocation = invocation
        self.context = context
        self.payload = payload


class Channel(object):
    """Frames over `fd`, which stays the same number for the life of the process; `open` comes before all else."""

    def __init__(self, fd=FD):
        self._fd = fd
        self._socket = socket(AF_UNIX, SOCK_STREAM, 0, fd)
        self._sending = allocate_lock()  # one frame at a time; taken before _state, never after it
        self._state = allocate_lock()  # guards everything below
        self._reading = False
        self._sleepers = []
        self._buffer = _BUFFER
        self._input = bytearray()
        self._config = None
        self._launch = None
        self._work = deque()
        self._answers = {}
        self._last_call = 0
        self._stopping = False
        self._epoch = 0  # how many daemons before this one
        self._announced = -1  # the epoch that was told that we are initialised

    # --- what the runtime uses ---------------------------------------------------------------------------

    def open(self):
        """Set up the descriptor; the rest of the channel may have been made before it was there."""
        os.set_inheritable(self._fd, False)
        os.set_blocking(self._fd, True)
        return self

    def configuration(self):
        """Wait for the first frame: (configuration, None) or (None, what to become instead), JSON bytes."""
        self._wait(lambda: self._config is not None or self._launch is not None)
        return self._config, self._launch

    def initialised(self, ok, text=""):
        """Tell the daemon once that the function can take work, or why it can not."""
        with self._state:
            epoch = self._epoch
            if self._announced == epoch:
                return
            self._announced = epoch
        body = (b"\x01" if ok else b"\x00") + text.encode("utf-8", "replace")[:4096]
        self._send(_HEAD.pack(1 + len(body), 73) + body, epoch=epoch)

    def next_work(self):
        """Wait for work; None means that the daemon asks this process to end."""
        while True:
            self.initialised(True)
            self._wait(lambda: self._work or self._stopping or self._announced != self._epoch)
            with self._state:
                if self._work:
                    return self._work.popleft()
                if self._stopping:
                    return None

    def result(self, work, payload):
        """Send the handler's result; dropped when the daemon that asked for it is gone."""
        self._reply(82, work, payload)

    def error(self, work, document):
        """Send the handler's error document (JSON bytes)."""
        self._reply(69, work, document)

    # --- what the SDK's modules use ----------------------------------------------------------------------

    def call(self, arn, kind, context, payload, answered):
        """Send a call; returns its number for `answer`, or 0 when no answer is wanted.

        Raises ValueError when the frame would be larger than the daemon accepts.
        """
        if len(context) > CONTEXT_BYTES_MAX:
            raise ValueError("client context is %d bytes, the limit is %d" % (len(context), CONTEXT_BYTES_MAX))
        size = 10 + len(arn) + len(context) + len(payload)
        if size > FRAME_BYTES_MAX or len(arn) > 65535:
            raise ValueError("payload is %d bytes, the limit is %d" % (len(payload), FRAME_BYTES_MAX - 1024))
        number = 0
        if answered:
            with self._state:
                number = self._last_call = self._last_call % 0xFFFFFFFF + 1
        head = _CALL.pack(size, 80, number, kind, len(arn))
        self._send(b"".join((head, arn, _SHORT.pack(len(context)), context, payload)), call=number)
        return number

    def answer(self, number):
        """Wait for the answer to call `number`: (status, payload bytes)."""
        if number not in self._answers:
            raise ValueError("no call %r is waiting for an answer" % (number,))
        self._wait(lambda: self._answers[number] is not None)
        with self._state:
            return self._answers.pop(number)

    # --- sending -----------------------------------------------------------------------------------------

    def _reply(self, kind, work, payload):
        if 5 + len(payload) > FRAME_BYTES_MAX:
            raise ValueError("result is %d bytes, the limit is %d" % (len(payload), FRAME_BYTES_MAX - 5))
        self._send(_NUMBERED.pack(5 + len(payload), kind, work.invocation) + payload, epoch=work.epoch)

    def _send(self, frame, call=0, epoch=None):
        while True:
            with self._sending:
                current = self._epoch
                if epoch is not None and epoch != current:
                    return
                if call:
                    with self._state:
                        self._answers[call] = None
                try:
                    self._socket.sendall(frame)
                    return
                except OSError:
                    pass  # the other end is gone: a successor's socket is queued behind it, or nobody is left
            self._wait(lambda: self._epoch != current)

    # --- reading -----------------------------------------------------------------------------------------

    def _wait(self, satisfied):
        """Return when `satisfied()` holds; it is evaluated under the state lock."""
        while True:
            turn = None
            with self._state:
                if satisfied():
                    return
                if self._reading:
                    turn = allocate_lock()
                    turn.acquire()
                    self._sleepers.append(turn)
                else:
                    self._reading = True
            if turn is not None:
                turn.acquire()
                continue
            try:
                self._read()
            finally:
                with self._state:
                    self._reading = False
                    sleepers, self._sleepers = self._sleepers, []
                for sleeper in sleepers:
                    sleeper.release()

    def _read(self):
        try:
            count, ancillary, _, _ = self._socket.recvmsg_into([self._buffer], _FD_SPACE)
        except ConnectionResetError:
            return  # said once, before what is still queued
        for level, kind, data in ancillary:
            if level == SOL_SOCKET and kind == SCM_RIGHTS and len(data) >= 4:
                self._switch(_DESCRIPTOR.unpack_from(data)[0])
                return
        if not count:
            os._exit(0)  # nobody is left to work for
        with self._state:
            self._input += memoryview(self._buffer)[:count]
            self._dispatch()

    def _dispatch(self):
        data = self._input
        at = 0
        while len(data) - at >= 5:
            size, kind = _HEAD.unpack_from(data, at)
            end = at + 4 + size
            if end > len(data):
                break
            self._frame(kind, bytes(memoryview(data)[at + 5 : end]))
            at = end
        if at:
            del data[:at]

    def _frame(self, kind, body):
        if kind == 87:  # W
            invocation, length = _WORK.unpack_from(body)
            self._work.append(Work(self._epoch, invocation, body[6 : 6 + length], body[6 + length :]))
        elif kind == 65:  # A
            number, status = _ANSWER.unpack_from(body)
            if number in self._answers:
                self._answers[number] = (status, body[5:])
        elif kind == 88:  # X
            self._stopping = True
        elif kind == 67:  # C
            self._config = body
        elif kind == 76:  # L
            self._launch = body

    def _switch(self, successor):
        with self._sending:
            os.dup2(successor, self._fd, False)
            os.close(successor)
            os.set_blocking(self._fd, True)
            with self._state:
                self._epoch += 1
                self._input = bytearray()
                self._work.clear()
                for number, answer in self._answers.items():
                    if answer is None:
                        self._answers[number] = _RESTARTED


def rehearsal_socket(config):
    """(the daemon's socket, the worker's fd): configuration, three work items and the end wait to be read."""
    daemon, worker = socketpair(AF_UNIX, SOCK_STREAM)
    context = b'{"custom":{"subject":"rehearsal/topic"}}'
    body = json.dumps(config).encode("utf-8")
    frames = [_HEAD.pack(1 + len(body), 67) + body]
    for number in range(3):
        payload = b'{"number": %d}' % number
        frames.append(_NUMBERED.pack(7 + len(context) + len(payload), 87, number))
        frames.append(_SHORT.pack(len(context)) + context + payload)
    frames.append(_HEAD.pack(1, 88))
    daemon.sendall(b"".join(frames))
    return daemon, worker.detach()


def in_image():
    """The channel of the worker to come, on a descriptor FD that is a socket only while it is made."""
    try:
        kept = os.dup(FD)
    except OSError:
        kept = -1
        placeholder = os.open(os.devnull, os.O_RDONLY)
        if placeholder != FD:
            os.dup2(placeholder, FD)
            os.close(placeholder)
    near, far = socketpair(AF_UNIX, SOCK_STREAM)  # FD is taken: neither end gets its number
    os.dup2(near.fileno(), FD)
    channel = Channel(FD)
    if kept >= 0:
        os.dup2(kept, FD, False)
        os.close(kept)
    else:
        os.close(FD)
    near.close()
    far.close()
    return channel
