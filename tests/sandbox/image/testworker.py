"""The module preloaded in the harness: runs /lambda/fn.py and answers with its `attempt()` as JSON on fd 3."""

import json
import os
import socket
import struct
import traceback


def main():
    path = "/lambda/fn.py" if os.getpid() == 1 else os.path.abspath("fn.py")  # without a container where it lies
    with open(path, encoding="utf-8") as file:
        source = file.read()
    names = {"__name__": "fn", "channel": 3}
    try:
        exec(compile(source, path, "exec"), names)
        answer = None if "serve" in names else {"ok": True, "value": names["attempt"]()}
    except BaseException:
        answer = {"ok": False, "error": traceback.format_exc()}
    if answer is None:
        names["serve"]()  # its exceptions are the worker's end
        return
    data = json.dumps(answer).encode()
    with socket.socket(fileno=os.dup(3)) as sock:
        sock.sendall(struct.pack("<I", len(data)) + data)
        sock.recv(1)  # stay until the test has looked
