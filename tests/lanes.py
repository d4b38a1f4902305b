"""Runs the whole suite in two lanes side by side: `python tests/lanes.py [PYTEST ARGUMENTS]`.

Half of the suite waits for processes, the other half computes; one after the other they leave a core idle. What tests
share (ports, control groups, fetched packages) they share safely. With arguments there is one lane: pytest itself.

The first lane is shown as it runs, the second when it has ended. Exit status 0: both passed.
"""

from __future__ import annotations

import glob
import os
import subprocess
import sys
import tempfile

CLOUDS = "tests/e2e/test_cloud_*.py"  # control planes alone: no core, no functions
LANES = (
    ("tests/e2e", "tests/sandbox", f"--ignore-glob={CLOUDS}"),
    ("tests/unit", "tests/property", "tests/vectors", "tests/fuzz", *sorted(glob.glob(CLOUDS))),
)
SLOWNESS = "2"  # each lane may find the other on its core


def main(arguments: list[str]) -> int:
    """Run; 0 if everything passed, else the first lane's or the second's status."""
    if arguments:
        os.execv(sys.executable, pytest(*arguments))
    environment = {"GGFAST_TEST_SLOWNESS": SLOWNESS, **os.environ}
    with tempfile.TemporaryFile() as output:
        second = subprocess.Popen(
            pytest(*LANES[1], "-p", "no:cacheprovider"), env=environment, stdout=output, stderr=subprocess.STDOUT
        )
        try:
            first_status = subprocess.run(pytest(*LANES[0]), env=environment).returncode
            second_status = second.wait()
        finally:
            second.terminate()
            second.wait()
        output.seek(0)
        sys.stdout.flush()
        for block in iter(lambda: output.read(65_536), b""):
            sys.stdout.buffer.write(block)
    sys.stdout.flush()
    return first_status or second_status


def pytest(*arguments: str) -> list[str]:
    """The command line of one run."""
    return [sys.executable, "-m", "pytest", *arguments]


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
