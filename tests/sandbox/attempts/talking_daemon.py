"""The harness's daemon, which first says something on stderr: `--say <hex, masked>` unmasked."""

import os
import sys

arguments = dict(zip(sys.argv[1::2], sys.argv[2::2], strict=False))
os.write(2, (bytes(byte ^ 0x5A for byte in bytes.fromhex(arguments["--say"])) + b"\n") * 20)
with open(os.path.join(os.path.dirname(__file__), "..", "image", "relay.py"), encoding="utf-8") as file:
    exec(compile(file.read(), "relay.py", "exec"))
