"""The unprivileged daemon's entry: started by the supervisor, never by a person.

It inherits the channel to the spawner, the listening sockets and the files that root has read for it as descriptors,
reads the configuration, and runs the core on uvloop until the supervisor says stop. Output before the logs are open
goes to crash.log (stderr).
"""

from __future__ import annotations

import argparse
import gc
import socket
import sys
from pathlib import Path

import uvloop

from ggfast import limits
from ggfast.config import load_config
from ggfast.core.handed import OPTION, Handed
from ggfast.core.runtime import Core
from ggfast.errors import GgfastError
from ggfast.sandbox import privileges


def main() -> int:
    """Run the core; exit status 0 after an orderly stop, 1 with the reason on stderr otherwise."""
    arguments = _parse()
    privileges.set_process_name("ggfast-daemon")
    gc.set_threshold(limits.GC_THRESHOLD)
    loop = uvloop.new_event_loop()
    try:
        config = load_config(arguments.root)
        channel = socket.socket(fileno=arguments.channel_fd)
        listeners = {name: socket.socket(fileno=number) for name, number in arguments.listener}
        handed = Handed.from_arguments(arguments.file)
        core = Core(config, loop, channel, listeners, (arguments.function_uid, arguments.function_gid), handed=handed)
        gc.collect()
        gc.freeze()  # modules and code stay: a collection amid messages need not look at them
        loop.run_until_complete(core.run())
    except GgfastError as error:
        print(f"ggfast-daemon: {error}", file=sys.stderr)
        return 1
    finally:
        loop.close()
    return 0


def _parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="ggfast-daemon")
    parser.add_argument("--root", type=Path, required=True)
    parser.add_argument("--function-uid", type=int, required=True)
    parser.add_argument("--function-gid", type=int, required=True)
    parser.add_argument("--channel-fd", type=int, required=True)
    parser.add_argument("--listener", type=_listener, action="append", default=[])
    parser.add_argument(OPTION, dest="file", action="append", default=[])
    return parser.parse_args()


def _listener(text: str) -> tuple[str, int]:
    name, _, number = text.partition("=")
    return name, int(number)


if __name__ == "__main__":
    sys.exit(main())
