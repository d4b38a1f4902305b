"""The published tools that drive a control plane, run unmodified as processes of their own."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

from tests.patience import patience

REPOSITORY = Path(__file__).resolve().parents[2]
FETCH = REPOSITORY / "packaging" / "fetch_test_packages.py"

PROGRAMS = {  # what the console script of each package calls
    "aws": ("", "from awscli.clidriver import main; sys.exit(main())"),
    "greengo": ("greengo", "from greengo.greengo import main; sys.exit(main())"),
    "gud": ("gud", "from greengo.greengo import main; sys.exit(main())"),
    "gg_group_setup": ("", "from gg_group_setup import main; sys.exit(main())"),
}


def fetched(kind: str) -> Path:
    """The directory with the published packages of a kind."""
    done = subprocess.run([sys.executable, str(FETCH), kind], capture_output=True, text=True, timeout=patience(600))
    assert done.returncode == 0, done.stderr
    return Path(done.stdout.strip())


# The AWS CLI takes a second to load and a tenth to run: one process runs many commands, each with a fresh driver.
COMMANDS = """
import contextlib, io, json, os, sys
from awscli.clidriver import create_clidriver
for line in sys.stdin:
    where, words = json.loads(line)
    os.chdir(where)
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        status = create_clidriver().main(words)
    print(json.dumps([status, out.getvalue(), err.getvalue()]), flush=True)
"""


class Tools:
    """The tools, with the environment that leads them to one cloud. `close` ends the process of `aws`."""

    def __init__(self, environment: dict[str, str], home: Path) -> None:
        self.packages = fetched("cloud-tools")
        kept = {name: os.environ[name] for name in ("PATH", "LANG") if name in os.environ}
        self.environment = {**kept, "HOME": str(home), "AWS_PAGER": "", **environment}
        self._commands = subprocess.Popen(
            [sys.executable, "-c", COMMANDS],
            env={**self.environment, "PYTHONPATH": str(self.packages)},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def run(self, program: str, *arguments: str, cwd: Path) -> str:
        """Run one to its end; what it printed. Fails the test unless it says success."""
        done = self.ended(program, *arguments, cwd=cwd)
        assert done.returncode == 0, f"{program} {' '.join(arguments)}:\n{done.stdout}\n{done.stderr}"
        return done.stdout

    def ended(self, program: str, *arguments: str, cwd: Path) -> subprocess.CompletedProcess[str]:
        """Run one to its end, whichever."""
        own, code = PROGRAMS[program]
        places = [str(self.packages / own), str(self.packages)] if own else [str(self.packages)]
        return subprocess.run(
            [sys.executable, "-c", f"import sys; sys.argv[0] = {program!r}; {code}", *arguments],
            cwd=cwd,
            env={**self.environment, "PYTHONPATH": os.pathsep.join(places)},
            capture_output=True,
            text=True,
            stdin=subprocess.DEVNULL,
            timeout=patience(120),
        )

    def aws(self, service: str, command: str, cwd: Path, **options: Any) -> Any:
        """`aws SERVICE COMMAND --name value`; its decoded answer. Anything but text goes as JSON; None: a
        flag without a value."""
        words = []
        for name, value in options.items():
            words.append(f"--{name.replace('_', '-')}")
            if value is not None:
                words.append(value if isinstance(value, str) else json.dumps(value))
        status, text, errors = self.command_line([service, command, "--output", "json", *words], cwd)
        assert status == 0, f"aws {service} {command}: {errors}"
        return json.loads(text) if text.strip() else {}

    def command_line(self, words: list[str], cwd: Path) -> tuple[int, str, str]:
        """Exit status, output and complaints of one command of the AWS CLI."""
        assert self._commands.stdin is not None
        assert self._commands.stdout is not None
        self._commands.stdin.write(json.dumps([str(cwd), words]) + "\n")
        self._commands.stdin.flush()
        line = self._commands.stdout.readline()
        assert line, "the AWS CLI's process has ended"
        status, text, errors = json.loads(line)
        return status, text, errors

    def close(self) -> None:
        """End the process that runs the AWS CLI's commands."""
        self._commands.communicate(timeout=patience(30))
