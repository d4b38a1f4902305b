"""The harness's daemon: passes packets and descriptors between the test and the spawner, both ways.

    relay.py --channel-fd N --listener control=M

`control` is a SOCK_SEQPACKET socketpair whose other end the test holds. The packet "die" ends this process
with status 9, "flood" asks the spawner without reading its answers, "leave" starts a process that outlives it,
"whoami" is answered with what the process is. `--fail` exits at once.
"""

import array
import json
import os
import select
import socket
import sys


def receive(sock):
    data, ancillary, _, _ = sock.recvmsg(65536, socket.CMSG_SPACE(32))
    fds = array.array("i")
    for _, _, content in ancillary:
        fds.frombytes(content)
    return data, list(fds)


def send(sock, data, fds):
    sock.sendmsg([data], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", fds))] if fds else [])
    for fd in fds:
        os.close(fd)


def whoami():
    with open("/proc/self/status", encoding="ascii") as file:
        status = dict(line.rstrip("\n").split(":\t", 1) for line in file if ":\t" in line)
    return {"whoami": True, "argv": sys.argv[1:], "uid": os.getuid(), "pid": os.getpid(), "environ": dict(os.environ),
            "status": status, "fds": sorted(int(fd) for fd in os.listdir("/proc/self/fd")),
            "writable": os.access("/tmp", os.W_OK)}  # fmt: skip


def leave_a_child():
    """A process that has left this one's family and holds everything it had open."""
    reader, writer = os.pipe()
    if os.fork() == 0:
        os.setsid()
        if (pid := os.fork()) == 0:
            os.execv("/bin/sleep", ["sleep", "600"])
        os.write(writer, b"%d" % pid)
        os._exit(0)
    os.wait()
    return int(os.read(reader, 20))


def main():
    arguments = dict(zip(sys.argv[1::2], sys.argv[2::2], strict=False))
    if "--fail" in arguments:
        sys.stderr.write("relay: told to fail\n")
        sys.exit(3)
    channel = socket.socket(fileno=int(arguments["--channel-fd"]))
    control = socket.socket(fileno=int(arguments["--listener"].split("=")[1]))
    send(control, json.dumps({"event": "daemon", "pid": os.getpid()}).encode(), [])
    stopping = False
    while True:
        for sock in select.select([channel, control], [], [])[0]:
            data, fds = receive(sock)
            if not data:
                sys.exit(0)
            if sock is control and data == b"leave":
                send(control, json.dumps({"event": "left", "pid": leave_a_child()}).encode(), [])
                continue
            if sock is control and data == b"die":
                os._exit(9)
            if sock is control and data == b"flood":
                for number in range(100_000):
                    channel.send(b'{"id":%d,"verb":"list"}' % (1_000_000 + number))
            if sock is control and data == b"whoami":
                send(control, json.dumps(whoami()).encode(), [])
                continue
            send(control if sock is channel else channel, data, fds)
            stopping = stopping or b'"event":"stop"' in data
        if stopping:
            sys.exit(0)


main()
