#!/usr/bin/env python3
"""Fetches the published packages that tests run unmodified: `fetch_test_packages.py KIND` prints where they lie.

Each kind is a list of pinned packages with the digest of what the registry must hand over; the ordinary client of
that registry downloads them. Nothing of a package is run. What has been fetched once stays in .make/test-packages,
in a directory named after the list's content, so a second call only prints.

Standard library only.
"""

from __future__ import annotations

import base64
import fcntl
import hashlib
import os
import shutil
import subprocess
import sys
import tarfile
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

PLACE = Path(__file__).resolve().parent.parent / ".make" / "test-packages"
FETCH_TIMEOUT_S = 300  # a registry that answers slowly, not one that has stopped answering


class Failed(Exception):
    """The packages cannot be had; the text is the one sentence the user reads."""


class Package(NamedTuple):
    """One published file. `digest` is `<algorithm>-<base64>`, as npm and browsers write it."""

    name: str
    version: str
    digest: str


NPM = (
    Package(
        "aws-greengrass-core-sdk",
        "1.7.0",
        "sha512-QBAuZ4CLEIz7VFAiLvVAmtGF6plxAYdyLzB8Ppq5wwA9rNFTz9KEsM//qz85uTHGwjD1LRN4UF092O/yMo8CSQ==",
    ),
    Package(
        "cbor",
        "5.0.1",
        "sha512-l4ghwqioCyuAaD3LvY4ONwv8NMuERz62xjbMHGdWBqERJPygVmoFER1b4+VS6iW0rXwoVGuKZPPPTofwWOg3YQ==",
    ),
    Package(
        "bignumber.js",
        "9.3.1",
        "sha512-Ko0uX15oIUS7wJ3Rb30Fs6SkVbLmPBAKdlm7q9+ak9bbIeFf0MwuBsQV6z7+X768/cHsfg+WlysDWJcmthjsjQ==",
    ),
    Package(
        "nofilter",
        "1.0.4",
        "sha512-N8lidFp+fCz+TD51+haYdbDGrcBWwuHX40F5+z0qkUjMJ5Tp+rdSuAkMJ9N9eoolDlEVTf6u5icM+cNKkKW2mA==",
    ),
)

JACKSON = "com.fasterxml.jackson.core"
MAVEN = (  # what Java functions bundle: Lambda's interfaces, and the JSON mapper with what it needs
    Package("com.amazonaws:aws-lambda-java-core", "1.2.3", "sha256-WeNqomAp+7j1QrAj//hkIqVXcQV2TTGDm1bUldc/qlw="),
    Package(f"{JACKSON}:jackson-annotations", "2.17.3", "sha256-J0f2A0N4Om7IpoQFx8g5+gu+MO5OJFnSGhrDtzZeHtU="),
    Package(f"{JACKSON}:jackson-core", "2.17.3", "sha256-GeA+5x8AqGJV+jyYBWCyMeEwVIb2SCyQVgEgkBT1hww="),
    Package(f"{JACKSON}:jackson-databind", "2.17.3", "sha256-k7E+cJoLYg3kIBkYCnW8H8SIXIH+W2CHpKokj5H7mpU="),
)
MAVEN_COPY = "org.apache.maven.plugins:maven-dependency-plugin:2.8:copy"  # Maven's own default, said aloud


def main(arguments: list[str]) -> int:
    """Fetch one kind and print its directory."""
    if len(arguments) != 1 or arguments[0] not in KINDS:
        print(f"usage: fetch_test_packages.py {'|'.join(KINDS)}", file=sys.stderr)
        return 2
    try:
        print(fetch(arguments[0]))
    except Failed as failure:
        print(f"ggfast: {failure}", file=sys.stderr)
        return 1
    return 0


def fetch(kind: str) -> Path:
    """The directory with the packages of this kind; downloads what is missing. Blocks; raises Failed."""
    packages, put = KINDS[kind]
    stamp = hashlib.sha256(repr(packages).encode()).hexdigest()[:12]
    target = PLACE / f"{kind}-{stamp}"
    if target.is_dir():
        return target
    PLACE.mkdir(parents=True, exist_ok=True)
    with open(PLACE / "lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if target.is_dir():  # somebody else fetched it meanwhile
            return target
        fresh = Path(tempfile.mkdtemp(prefix=f"{kind}-", dir=PLACE))
        try:
            for package in packages:
                put(package, fresh)
            fresh.chmod(0o755)
            os.rename(fresh, target)
        finally:
            shutil.rmtree(fresh, ignore_errors=True)
    return target


def put_npm(package: Package, place: Path) -> None:
    """Unpack one npm package into node_modules, as npm would without running its scripts."""
    with tempfile.TemporaryDirectory() as directory:
        run(["npm", "pack", "--silent", "--ignore-scripts", f"{package.name}@{package.version}"], directory)
        (archive,) = Path(directory).glob("*.tgz")
        check(package, archive)
        with tarfile.open(archive) as members:
            members.extractall(directory)  # its content is pinned
        shutil.copytree(Path(directory) / "package", place / "node_modules" / package.name)


def put_maven(package: Package, place: Path) -> None:
    """Put one jar into `place`, under the name that Maven gives it."""
    artifact = f"{package.name}:{package.version}"
    with tempfile.TemporaryDirectory() as directory:
        copy = ["mvn", "-q", "-B", MAVEN_COPY, f"-Dartifact={artifact}", f"-DoutputDirectory={directory}"]
        run([*copy, f"-Dmaven.repo.local={PLACE / 'maven-repository'}"], directory)
        (jar,) = Path(directory).glob("*.jar")
        check(package, jar)
        shutil.copyfile(jar, place / jar.name)


def run(command: list[str], directory: str) -> None:
    """Run a registry's client; raises Failed with its last words."""
    program = shutil.which(command[0])
    if program is None:
        raise Failed(f"{command[0]} is not installed: packaging/debian-packages.txt names what has it")
    done = subprocess.run(
        [program, *command[1:]], cwd=directory, capture_output=True, text=True, timeout=FETCH_TIMEOUT_S
    )
    if done.returncode:
        words = done.stderr.strip().splitlines() or [f"status {done.returncode}"]
        raise Failed(f"`{' '.join(command)}` failed: {words[-1]}")


def check(package: Package, file: Path) -> None:
    """Raise Failed unless the file is the pinned one."""
    algorithm = package.digest.partition("-")[0]
    digest = base64.b64encode(hashlib.new(algorithm, file.read_bytes()).digest()).decode()
    if f"{algorithm}-{digest}" != package.digest:
        raise Failed(f"{package.name} {package.version} is {algorithm}-{digest}, expected {package.digest}")


KINDS: dict[str, tuple[tuple[Package, ...], Callable[[Package, Path], None]]] = {
    "maven": (MAVEN, put_maven),
    "npm": (NPM, put_npm),
}

if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
