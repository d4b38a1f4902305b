"""What hostile functions of a whole core are: their code, their neighbour, how they are asked and what is seen of them.

Everything is asked through `caller`, a function that invokes another and publishes what came of it. Beside it a
pinned function, `echo`, counts and beats: its device hears whether it was disturbed.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tests.e2e.harness import Core, Device, GroupFolder, function_arn
from tests.patience import SLOWNESS, patience

ECHO = """
import threading, time
import greengrasssdk
iot = greengrasssdk.client("iot-data")
count = 0

def beat():
    number = 0
    while True:
        time.sleep(0.1)
        number += 1
        iot.publish(topic="echo/beat", payload=str(number))

threading.Thread(target=beat, daemon=True).start()

def handler(event, context):
    global count
    if isinstance(event, dict) and "sleep" in event:
        time.sleep(event["sleep"])
        return {"genuine": True}
    if event == {}:
        count += 1
        iot.publish(topic="echo/count", payload=str(count))
    return event
"""

SLOW = "import time\ndef handler(event, context):\n    time.sleep(event['sleep'])\n    return {'genuine': True}\n"

CALLER = """
import json
import greengrasssdk
iot, functions = greengrasssdk.client("iot-data"), greengrasssdk.client("lambda")

def handler(event, context):
    try:
        result = functions.invoke(FunctionName=event["arn"], Payload=json.dumps(event["event"]))
        payload = result["Payload"]
        answer = {"error": result["FunctionError"],
                  "payload": json.loads((payload.read() if hasattr(payload, "read") else payload) or b"null")}
    except Exception as error:
        answer = {"error": "exception", "payload": str(error)}
    iot.publish(topic="caller/" + event["ticket"], payload=json.dumps(answer))
"""

HOSTILE = r"""
import array, concurrent.futures, http.client, os, random, re, signal, socket, ssl, struct, sys, time

def frame(kind, body):
    return struct.pack("<I", 1 + len(body)) + kind + body

def call(arn, context, payload=b"", number=0, kind=0):
    arn, context = arn.encode(), context.encode()
    head = struct.pack("<IBH", number, kind, len(arn)) + arn
    return frame(b"P", head + struct.pack("<H", len(context)) + context + payload)

def write(data):
    while data:
        data = data[os.write(3, data):]

def patience(seconds):
    return seconds * SLOWNESS

def rest():
    time.sleep(patience(60))

# --- frames ---

def garbage(event):
    write(random.Random(7).randbytes(65536) + bytes(5))
    rest()

def text(event):
    write(b"GET / HTTP/1.1\r\n\r\n" * 100)
    rest()

def huge(event):
    write(bytes([255, 255, 255, 127]) + b"R")
    rest()

def negative(event):
    write(struct.pack("<i", -1) + b"R")
    rest()

def empty(event):
    write(bytes(100))
    rest()

def unknown(event):
    write(frame(b"A", bytes(9)))
    rest()

def lying(event):
    write(frame(b"P", struct.pack("<IBH", 1, 0, 65535) + b"arn"))
    rest()

def truncated(event):
    write(struct.pack("<I", 100) + b"R")
    os._exit(0)

def closed(event):
    os.close(3)
    rest()

def endless(event):
    write(struct.pack("<I", 1000000) + b"R" + bytes(4))
    while True:
        write(b"x")
        time.sleep(0.05)

def deaf(event):
    number = 0
    while True:
        number += 1
        write(call(event["echo"], "", b'"' + b"x" * 60000 + b'"', number, 1))

# --- other functions' affairs ---

def forge_source(event):
    custom = '{"custom": {"source": "%s", "subject": "echo/count"}}' % event["echo"]
    for _ in range(20):
        write(call("arn:aws:lambda:::function:GGRouter", custom, b"forged"))
    return "done"

def forge_results(event):
    caller, numbers = sys._getframe(1), set()
    while caller is not None:  # the runtime's own variables hold this invocation's number; others are near it
        values = list(caller.f_locals.values())
        for value in list(values):
            names = [*getattr(value, "__dict__", {}), *getattr(type(value), "__slots__", ())]
            values += [getattr(value, name, None) for name in names]
        numbers |= {value for value in values if type(value) is int and value > 255}
        caller = caller.f_back
    until = time.monotonic() + event["seconds"]
    while time.monotonic() < until:
        for number in numbers:
            for near in (*range(number - 20, number), *range(number + 1, number + 20)):
                body = struct.pack("<I", near & 0xFFFFFFFF) + b'"forged"'
                write(frame(b"R", body) + frame(b"E", body))
        time.sleep(0.02)
    return len(numbers)

def descriptors(event):
    with socket.socket(fileno=os.dup(3)) as ipc:
        for _ in range(event["times"]):
            fds = array.array("i", [1] * 100)
            ipc.sendmsg([frame(b"I", bytes([1]))], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, fds)])
    return "sent"

# --- services of the host ---

def mqtt_connect(client_id):
    body = b"\0\4MQTT\4\2\0\x3c" + struct.pack(">H", len(client_id)) + client_id
    return bytes([0x10, len(body)]) + body

def as_client(port, client_id, context):
    try:
        with socket.create_connection(("127.0.0.1", port), timeout=patience(5)) as plain:
            sock = plain if context is None else context.wrap_socket(plain)
            sock.sendall(mqtt_connect(client_id))
            answer = sock.recv(4)
            return "closed" if not answer else "CONNACK " + answer.hex() if answer[0] == 0x20 else "no MQTT"
    except ssl.SSLError as error:
        return "refused"
    except ConnectionError as error:
        return "closed"

def tls(certificate=None):
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    if certificate:
        context.load_cert_chain(certificate + ".crt", certificate + ".key")
    return context

def services(event):
    found = {}
    with socket.create_connection(("127.0.0.1", event["other"]), timeout=patience(5)) as sock:
        found["a service without any check"] = sock.recv(5).decode()
    for client_id in (b"probe", event["echo"].encode()):
        found["no TLS as " + client_id.decode()] = as_client(event["mqtt"], client_id, None)
        found["no certificate as " + client_id.decode()] = as_client(event["mqtt"], client_id, tls())
        found["own certificate as " + client_id.decode()] = as_client(event["mqtt"], client_id, tls("/lambda/probe"))
    found["keys in sight"] = [path for path in event["keys"] if os.path.lexists(path)]
    return found

# --- time ---

def ignore_signals():
    for number in range(1, 32):
        if number not in (signal.SIGKILL, signal.SIGSTOP):
            signal.signal(number, signal.SIG_IGN)

def busy(event):
    ignore_signals()
    while True:
        pass

def sleeping(event):
    ignore_signals()
    signal.pthread_sigmask(signal.SIG_SETMASK, range(1, 32))
    while True:
        time.sleep(1000)

def in_c(event):
    ignore_signals()
    re.match(r"(a+)+$", "a" * 64 + "b")  # the matcher is C code and needs longer than anybody will wait

def children(event):
    ignore_signals()
    for _ in range(3):
        if os.fork() == 0:
            os.setsid()
            while True:
                time.sleep(1000)
    rest()

def flood(event):
    # Few bytes a line and many lines a call: on a slow machine too it prints more of them than are taken in a second.
    page = "\n".join(["x" * 200] * 500)
    while True:
        print(page)

# --- the HTTP interface ---

def ask(method, path, token=None, **headers):
    connection = http.client.HTTPConnection("127.0.0.1", int(os.environ["GG_DAEMON_PORT"]), timeout=patience(10))
    if token is not None:
        headers["Authorization"] = token
    try:
        connection.request(method, "/2016-11-01" + path, body=b"{}" if method == "POST" else None, headers=headers)
        answer = connection.getresponse()
        return [answer.status, answer.read(200).decode()]
    except (OSError, http.client.HTTPException) as error:
        return [0, type(error).__name__]
    finally:
        connection.close()

def guess_tokens(event):
    own, chance = os.environ["AWS_CONTAINER_AUTHORIZATION_TOKEN"], random.Random(3)
    flipped = [own[:at] + ("0" if own[at] != "0" else "1") + own[at + 1:] for at in range(len(own))]
    guesses = [None, "", own[:-1], own + "0", own.upper() + " ", "Bearer " + own, event["echo"], "0" * len(own)]
    guesses += flipped + ["%064x" % chance.getrandbits(256) for _ in range(100)]
    guesses = [guess for guess in guesses if guess != own]
    work = "/functions/" + event["echo"]
    places = [("POST", work), ("GET", work + "/work"), ("GET", "/credentialprovider/")]
    with concurrent.futures.ThreadPoolExecutor(16) as pool:  # each 401 is held back for a moment
        asked = [pool.submit(ask, *places[number % 3], guess) for number, guess in enumerate(guesses)]
        statuses = [answer.result()[0] for answer in asked]
    return {status: statuses.count(status) for status in set(statuses)}

def others_work(event):
    own, work = os.environ["AWS_CONTAINER_AUTHORIZATION_TOKEN"], "/functions/" + event["echo"]
    forged = {"X-Amz-InvocationId": event["echo"]}
    return {
        "take its work": ask("GET", work + "/work", own)[0],
        "answer its work": ask("POST", work + "/work", own, **forged)[0],
        "fail its work": ask("POST", work + "/work", own, **forged, **{"X-Amz-Function-Error": "Handled"})[0],
        "fetch a result of others": ask("GET", work, own, **forged)[0],
    }

def handler(event, context):
    return globals()[event["do"]](event)
""".replace("SLOWNESS", repr(SLOWNESS))


class Watch:
    """A device that hears the neighbour: what it counted, and every beat."""

    def __init__(self, device: Device) -> None:
        self.device = device
        self.beats: list[int] = []
        self.asked = 0

    def count(self) -> int:
        """Have the neighbour count once more."""
        self.asked += 1
        self.device.publish("echo/in", "{}")
        return self._next("echo/count")

    def beat(self) -> int:
        """Wait for its next beat."""
        return self._next("echo/beat")

    def _next(self, wanted: str) -> int:
        deadline = time.monotonic() + patience(15.0)
        while True:
            topic, payload = self.device.received.get(timeout=max(0.01, deadline - time.monotonic()))
            if topic == "echo/beat":
                self.beats.append(int(payload))
            if topic == wanted:
                return int(payload)


def add_hostile(folder: GroupFolder, name: str, who: str, source: str, **config: Any) -> None:
    """A function that runs as this kind of user."""
    if who == "root":
        config["Environment"] = {"Execution": {"RunAs": {"Uid": 0, "Gid": 0}}}
    folder.function(f"{name}-{who}", source, sdk=False, **config)


def status_of(core: Core, name: str) -> dict[str, Any]:
    rows = {row["arn"]: row for row in core.status()["functions"]}
    found: dict[str, Any] = rows[function_arn(name)]
    return found


def begin(probe: Device, name: str, do: str, **event: Any) -> str:
    """Have the caller invoke a function; its ticket."""
    ticket = os.urandom(4).hex()
    body = {"do": do, "echo": function_arn("echo"), **event}
    probe.publish("caller/in", json.dumps({"arn": function_arn(name), "event": body, "ticket": ticket}))
    return ticket


def outcome(probe: Device, ticket: str, timeout_s: float = patience(45.0)) -> dict[str, Any]:
    """What the caller was told."""
    answer: dict[str, Any] = json.loads(probe.expect_on(f"caller/{ticket}", timeout_s))
    return answer


def attack(probe: Device, name: str, do: str, **event: Any) -> dict[str, Any]:
    return outcome(probe, begin(probe, name, do, **event))


@contextmanager
def undisturbed(core: Core, watch: Watch) -> Iterator[None]:
    """The neighbour keeps its process, its count and every beat; the daemon keeps its own process."""
    before, pids, daemon = watch.count(), status_of(core, "echo")["pids"], core.daemon_pid()
    first, asked = len(watch.beats), watch.asked
    yield
    assert watch.count() == before + watch.asked - asked  # nobody else made it count, and nobody counted for it
    watch.beat()
    beats = watch.beats[first:]
    assert beats == list(range(beats[0], beats[0] + len(beats)))
    assert (status_of(core, "echo")["pids"], core.daemon_pid()) == (pids, daemon)


def ends(core: Core, name: str) -> list[dict[str, Any]]:
    """The runtime log's reports of workers of this function that had to be ended."""
    text = [line for line in core.log().splitlines() if "Worker is ungracefully killed." in line]
    reports = [json.loads(line.partition("\t")[2]) for line in text]
    return [report for report in reports if report["functionArn"] == function_arn(name)]


def private_kb(core: Core) -> tuple[int, int]:
    """The daemon's own memory: pages of files that nobody else has mapped just now, and all others."""
    lines = Path(f"/proc/{core.daemon_pid()}/smaps_rollup").read_text().splitlines()
    sizes = {line.partition(":")[0]: int(line.split()[1]) for line in lines if line.startswith("Private_")}
    return sizes["Private_Clean"], sizes["Private_Dirty"]
