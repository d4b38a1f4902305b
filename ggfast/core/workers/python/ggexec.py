"""Turns a forked worker into another program: Node.js, Java, an executable, another Python.

Everything about the container is in place when this runs; only the environment and the words come from the
daemon, over the worker's own socket, because they hold the worker's secret.
"""

import _signal
import json
import os

FD = 3


def become(document):
    """Execute the launch document's program; returns a text only when that failed."""
    launch = json.loads(document)
    try:
        os.chdir(launch["cwd"])
        if launch["stdio"]:
            os.dup2(FD, 0)  # alone: what the program's own machinery prints to fd 1 belongs into the log
        else:
            os.set_inheritable(FD, True)
        for number in (_signal.SIGPIPE, _signal.SIGXFSZ):  # ignored by Python, and an ignored signal survives execve
            _signal.signal(number, _signal.SIG_DFL)
        environment = {os.fsencode(name): os.fsencode(value) for name, value in launch["environment"].items()}
        os.execve(launch["argv"][0], launch["argv"], environment)
    except (OSError, ValueError) as error:
        return "%s can not be started: %s" % (launch["argv"][0], error)
