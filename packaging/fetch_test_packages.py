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
import zipfile
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

DEVICE_SDKS = (  # Python 3.11 on x86_64
    Package("AWSIoTPythonSDK", "1.6.2", "sha256-Ej70VSsLf2ctoqXUcW9Z/U0ZSRVC9MV84GvwuCh74tc="),
    Package("awsiotsdk", "1.31.0", "sha256-zME7BvroFd4iNVjaCzNU36MQOTzxlhl847R0QgTsFho="),
    Package("awscrt", "0.36.1", "sha256-roFteCO9P1woppayV6NpR40FwROquV78DY6CyWNtTaE="),
)
DEVICE_SAMPLES = (  # source archives: wheels have no samples
    Package("AWSIoTPythonSDK", "1.6.2", "sha256-rVwT8PVjFoo074GMv3TPGuAndGUFWaB0lQ9mMZgavNo="),
)
CLOUD_TOOLS = (  # the AWS CLI and deployment tools with all they import; Python 3.11 on x86_64
    Package("awscli", "1.46.3", "sha256-lMVhwbGyzwl47I2H2VbCbIB1VUOFk+7CnqkGArlRjPs="),
    Package("boto3", "1.44.5", "sha256-cMPgQJeUsp7BkAvK/waVtzI0otMv+u01BFuUyqJiEqU="),
    Package("botocore", "1.44.5", "sha256-jxalbR3/El3WUyKuAh76e6UZWm21ECuWhiVmBVt0iSE="),
    Package("colorama", "0.4.6", "sha256-Tx2ZkfWswMoRn51ENiC3f51rM3A+UQEcFrr1evsoX8Y="),
    Package("docutils", "0.19", "sha256-Xh3k2En+4CxjsECko/1Wf0qxBN79ilUR+7wkqKAX77w="),
    Package("fire", "0.7.1", "sha256-5D/YpQM6kAHn4pc7q5YHBpS58S8uDs+W1Gg5cbWrGII="),
    Package("gg-group-setup", "0.5.3", "sha256-NNVe/9rmgz0B62Xc7CEzMy03LfgBjXXpW7W6CxivJ00="),
    Package("jmespath", "1.1.0", "sha256-pWYxGN5JCMkXKb6grK3KVlJusmmOg94QzRFq4PTpfGQ="),
    Package("pyasn1", "0.6.5", "sha256-QBew/OElCWuFc7OcmJ/bGksZz3YeaDOYGEVQ/qDmZYc="),
    Package("python-dateutil", "2.9.0.post0", "sha256-qLK8e/+uKCKByBQKl9OqnBTaCxNt/oP4UO6ppfdHBCc="),
    Package("PyYAML", "6.0.3", "sha256-uLsIZMWigCT6yKYyxEPIfFqm8hXAsSbESa4aFQQS8x0="),
    Package("rsa", "4.7.2", "sha256-ePmpv0574MXe1FgzJudGHjo8Wq4kBzZItL36eX14ydI="),
    Package("s3transfer", "0.19.3", "sha256-JOt1NYBDBjVeMclSqQAiv1svnXYPmhEGLHSTohfAhVM="),
    Package("six", "1.17.0", "sha256-RyHzke2QVB/drKtaz5R6oNPcfSey4ejtor6JcFhsMnQ="),
    Package("termcolor", "3.3.0", "sha256-z2Qu+trwqOu79Lx6Mc7C+bXyGp9yb0zLsIGSycJvQ6U="),
    Package("urllib3", "2.8.0", "sha256-DPPK5WjTaqlXayjfs18RMo8cuXTKdkfZR167hsdaxuM="),
    Package("greengo", "1.0.7", "sha256-qlxtBRUE6WCLM90YZKsQHTnbHufVWvd9AbCAirjObvA="),
    Package("gud", "2.0.18", "sha256-5/V5QqgzOibZNDoZJo8WZF5qq2Y2eplrY4UKSw5xkwo="),
)
APART = {"greengo", "gud"}  # both bring a module of the name greengo


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
            put(packages, fresh)
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


def put_python(packages: tuple[Package, ...], place: Path) -> None:
    """Unpack pure or prebuilt Python packages, as pip would; those in APART into a directory of their own."""
    with tempfile.TemporaryDirectory() as directory:
        for package, archive in download_python(packages, directory):
            unpack_python(archive, place / package.name if package.name in APART else place, package.name)


def put_samples(packages: tuple[Package, ...], place: Path) -> None:
    """Unpack the samples in the source archives of Python packages."""
    with tempfile.TemporaryDirectory() as directory:
        for _, archive in download_python(packages, directory, "--no-binary=:all:"):
            with tarfile.open(archive) as members:
                members.extractall(directory)  # its content is pinned
            (samples,) = Path(directory).glob("*/samples")
            shutil.copytree(samples, place / "samples", dirs_exist_ok=True)
            shutil.rmtree(samples)


def download_python(packages: tuple[Package, ...], directory: str, *options: str) -> list[tuple[Package, Path]]:
    """Packages from their index into `directory`, checked."""
    pip = [sys.executable, "-m", "pip", "download", "-q", "--disable-pip-version-check", "--no-deps"]
    wanted = [f"{package.name}=={package.version}" for package in packages]
    run([*pip, "--no-build-isolation", *options, *wanted], directory)
    found = []
    for package in packages:
        name = package.name.lower().replace("-", "_")
        (archive,) = (path for path in Path(directory).iterdir() if spelled(path).startswith(f"{name}_"))
        check(package, archive)
        found.append((package, archive))
    return found


def spelled(path: Path) -> str:
    """A file's name with all separators alike: registries spell them in several ways."""
    return path.name.lower().replace("-", "_")


def unpack_python(archive: Path, target: Path, name: str) -> None:
    """Put a wheel's files, or the one module of a source archive, into `target`."""
    if archive.suffix == ".whl":
        with zipfile.ZipFile(archive) as members:
            members.extractall(target)
        return
    with tempfile.TemporaryDirectory() as directory:
        with tarfile.open(archive) as members:
            members.extractall(directory)  # its content is pinned
        (unpacked,) = Path(directory).glob(f"{name}-*/")
        shutil.copytree(unpacked / name, target / name)


def one_by_one(put: Callable[[Package, Path], None]) -> Callable[[tuple[Package, ...], Path], None]:
    """A function for one package as one for all of a kind."""

    def put_all(packages: tuple[Package, ...], place: Path) -> None:
        for package in packages:
            put(package, place)

    return put_all


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


KINDS: dict[str, tuple[tuple[Package, ...], Callable[[tuple[Package, ...], Path], None]]] = {
    "cloud-tools": (CLOUD_TOOLS, put_python),
    "device-samples": (DEVICE_SAMPLES, put_samples),
    "device-sdks": (DEVICE_SDKS, put_python),
    "maven": (MAVEN, one_by_one(put_maven)),
    "npm": (NPM, one_by_one(put_npm)),
}

if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
