"""Rows 26 to 30 and 51: sockets. Loopback only; requests to the kernel name interfaces that do not exist."""

# ruff: noqa: F821, UP031  (one text with common.py, N and A; runs in a bare worker)

FAMILIES = {
    "packet": 17, "alg": 38, "vsock": 40, "can": 29, "bluetooth": 31, "key": 15, "tipc": 30, "xdp": 44, "rds": 21,
    "kcm": 41, "pppox": 24, "nfc": 39, "smc": 43, "ax25": 3, "ipx": 4, "appletalk": 5, "x25": 9, "llc": 26,
    "phonet": 35, "ieee802154": 36, "caif": 37, "qipcrtr": 42, "mctp": 45,
}  # fmt: skip


def families():
    """Row 26."""
    found = {}
    for name, number in FAMILIES.items():
        kinds = {"packet": 3, "alg": 5, "vsock": 1, "can": 3, "key": 3}
        found[name] = call("socket", number, kinds.get(name, 2), 2 if name == "key" else 0)
    for name, family, kind, protocol in (
        ("raw inet", 2, 3, 1), ("raw inet close-on-exec", 2, 3 | 0o2000000, 1), ("raw inet6", 10, 3, 58),
        ("packet kind", 2, 10, 768), ("raw unix", 1, 3, 0),
    ):  # fmt: skip
        found[name] = call("socket", family, kind, protocol)
    for name, family, kind in (("tcp", 2, 1), ("udp", 2, 2), ("tcp6", 10, 1), ("unix", 1, 1), ("netlink", 16, 3)):
        found[name] = call("socket", family, kind, 0)
    found["pair of alg"] = call("socketpair", 38, 5, 0, ctypes.create_string_buffer(8))
    return found


def _ask(sock, kind, body, flags):
    length = 16 + len(body)
    sock.send(struct.pack("=IHHII", length, kind, flags, 1, 0) + body)
    data = sock.recv(65536)
    kind = struct.unpack_from("=H", data, 4)[0]
    return word(-struct.unpack_from("=i", data, 16)[0]) if kind == 2 else "answer %d" % kind


def netlink():
    """Row 27: changes to an interface and a table that are not there, and a question, which is allowed."""
    sock = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, 0)
    sock.settimeout(10)
    link = struct.pack("=BxHiII", 0, 0, 0x7FFFFFF0, 0, 0)
    route = struct.pack("=BBBBBBBBI", 2, 24, 0, 0, 250, 3, 0, 1, 0)
    found = {
        "delete link": _ask(sock, 17, link, 5),
        "change link": _ask(sock, 19, link, 5),
        "delete route": _ask(sock, 25, route, 5),
        "list links": _ask(sock, 18, link[:4].ljust(16, b"\0"), 0x301),
    }
    plain = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    request = struct.pack("16sH22x", b"ggfast-none0", 1)
    found["SIOCSIFFLAGS"] = outcome(fcntl.ioctl, plain.fileno(), 0x8914, request)
    return found


def low_port():
    """Row 28."""
    return {
        "low": outcome(socket.socket().bind, ("127.0.0.1", A["port"])),
        "high": outcome(socket.socket().bind, ("127.0.0.1", 0)),
    }


def connect():
    """Rows 29 and 30: `A["addresses"]`, abstract ones with a leading @."""
    found = {}
    for address in A["addresses"]:
        sock = socket.socket(socket.AF_UNIX)
        found[address] = outcome(sock.connect, "\0" + address[1:] if address[0] == "@" else address)
        sock.close()
    return found


def sockets_in_sight():
    """Row 29: every socket file below the trees where services put theirs."""
    found = []
    for top in ("/run", "/var", "/tmp", "/dev"):
        for where, _, names in os.walk(top):
            for name in names:
                try:
                    if stat.S_ISSOCK(os.lstat(os.path.join(where, name)).st_mode):
                        found.append(os.path.join(where, name))
                except OSError:
                    pass
    return found


def send_descriptor():
    """Row 51: one end of a pipe beside one byte on the daemon's socket. When nobody took it, the pipe ends."""
    import array

    reader, writer = os.pipe()
    with socket.socket(fileno=os.dup(3)) as sock:
        rights = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", [writer]))]
        sock.sendmsg([b"\0"], rights)
    os.close(writer)
    poll = select.poll()
    poll.register(reader, select.POLLIN)
    return [event for _, event in poll.poll(10000)]
