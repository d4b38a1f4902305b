"""What an emulated machine boots from: Debian packages, this checkout with its virtual environment, two disks.

    build/vm/<digest>/root          the installed system, made once; the digest is that of its inputs
    build/vm/<digest>/vmlinuz ...   its kernel and initrd, the disk of the last run, the result of the last run

The checkout stands in the guest where it stands here, and uses the guest's own Python: so the host has to be the
release and the architecture of the guest, and nothing is compiled or installed a second time.
"""

from __future__ import annotations

import fcntl
import os
import platform
import shutil
import subprocess
import sys
import tarfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from machine import ROOT_LABEL, Machine
from prepare import Failed, digest, say

RELEASE, SUITE, PYTHON = "12", "bookworm", "/usr/bin/python3.11"
DISK_BYTES = 3 << 30  # sparse; the guest's programs and the checkout take a third of it
RESULT_BYTES = 16 << 20  # for a tar archive of the run's results
PLACE = "/ggfast-vm"  # in the guest: what is only there because it is such a machine
NOT_COPIED = shutil.ignore_patterns(".git", "build", "dist", ".hypothesis", "*_cache", "*.egg-info")
TIMEOUT_S = 900


def check_host(machine: Machine, python: Path, release: Mapping[str, str], processor: str) -> None:
    """Raise Failed unless what was built here also runs in the guest."""
    found = f"{release.get('ID')} {release.get('VERSION_ID')} on {processor}"
    if found != f"debian {RELEASE} on x86_64" or machine.architecture != "amd64":
        raise Failed(
            f"this is {found}; the machine is a Debian {RELEASE} on {machine.architecture} that runs this checkout's "
            f"own build. Use a Debian {RELEASE} on x86_64."
        )
    if str(python) != PYTHON:
        raise Failed(
            f"the virtual environment uses {python}; the machine has {PYTHON} alone. "
            f"Make it anew with that one: `make clean`, then this again with no other Python on PATH."
        )


def check_this_host(machine: Machine) -> None:
    """`check_host` with what this machine is."""
    check_host(machine, Path(sys.executable).resolve(), platform.freedesktop_os_release(), platform.machine())


def guest_packages(listing: str, architecture: str) -> list[str]:
    """What the guest gets: all that is needed to run the project, and what such a machine needs besides."""
    lines = (line.partition("#")[0].split() for line in listing.splitlines())
    wanted = ("run", "guest", f"guest-{architecture}")
    return [words[0] for words in lines if words and words[1].partition(":")[0] in wanted]


def apt_sources(etc: Path = Path("/etc/apt")) -> list[Path]:
    """This host's own files of package sources that name the release; raises Failed when there is none."""
    files = [etc / "sources.list", *sorted((etc / "sources.list.d").glob("*.list"))]
    files += sorted((etc / "sources.list.d").glob("*.sources"))
    found = [file for file in files if file.is_file() and f" {SUITE}" in file.read_text()]
    if not found:
        raise Failed(f"no package sources for {SUITE} in {etc}; expected a line for it in sources.list.")
    return found


@contextmanager
def cached(directory: Path) -> Iterator[None]:
    """One user of the directory at a time; raises Failed when it is in use."""
    directory.mkdir(parents=True, exist_ok=True)
    with open(directory / "lock", "w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise Failed(f"{directory} is in use by another run of this; wait for its end.") from None
        yield


def cache_directory(machine: Machine, checkout: Path, packages: list[str], sources: list[Path]) -> Path:
    """Where the system made of these inputs lies."""
    inputs = [machine.architecture, SUITE, *packages, *(path.read_text() for path in sources)]
    return checkout / "build" / "vm" / digest(text.encode() for text in inputs)


def install_system(machine: Machine, directory: Path, packages: list[str], sources: list[Path]) -> Path:
    """The installed system in `directory`, made when it is not there yet (a minute or two); raises Failed."""
    root = directory / "root"
    if root.exists():
        return root
    say(f"installing Debian {RELEASE} for {machine.architecture} in {directory}")
    unfinished = directory / "unfinished"
    shutil.rmtree(unfinished, ignore_errors=True)
    options = ["--quiet", "--variant=minbase", f"--architectures={machine.architecture}", "--format=directory"]
    execute(["mmdebstrap", *options, f"--include={','.join(packages)}", SUITE, str(unfinished), *map(str, sources)])
    for name, pattern in (("vmlinuz", "vmlinuz-*"), ("initrd.img", "initrd.img-*")):
        (found,) = (unfinished / "boot").glob(pattern)
        shutil.copyfile(found, directory / name)
    unfinished.rename(root)
    return root


def install_checkout(tree: Path, root: Path, guest: Path, settings: str) -> None:
    """Put the checkout, at its own path, and what the guest is to do with it into the system; raises OSError."""
    place = root / str(tree)[1:]
    shutil.rmtree(place, ignore_errors=True)
    shutil.copytree(tree, place, symlinks=True, ignore=NOT_COPIED)
    if (tree / "build" / "sdk").is_dir():  # packages that the tests installed: the guest has no network to do so
        shutil.copytree(tree / "build" / "sdk", place / "build" / "sdk", symlinks=True)
    shutil.rmtree(root / PLACE[1:], ignore_errors=True)
    shutil.copytree(guest, root / PLACE[1:])
    (root / PLACE[1:] / "settings").write_text(settings)


def make_disks(root: Path, directory: Path) -> None:
    """root.img with all of `root`, and an empty result.img; raises Failed."""
    image = directory / "root.img"
    image.unlink(missing_ok=True)
    with open(image, "wb") as file:
        file.truncate(DISK_BYTES)
    layout = ["-t", "ext4", "-O", "^has_journal", "-E", "lazy_itable_init=0", "-L", ROOT_LABEL]
    execute(["mke2fs", "-q", "-F", *layout, "-d", str(root), str(image)])
    result = directory / "result.img"
    result.unlink(missing_ok=True)
    with open(result, "wb") as file:
        file.truncate(RESULT_BYTES)


def read_result(image: Path) -> dict[str, str]:
    """The files that the guest wrote as a tar archive at the start of the disk; {} when it did not come to that."""
    try:
        with tarfile.open(image, "r:") as archive:
            members = [member for member in archive if member.isfile()]
            texts = {member.name: archive.extractfile(member) for member in members}
            return {
                name.removeprefix("./"): file.read().decode(errors="replace") for name, file in texts.items() if file
            }
    except tarfile.ReadError:
        return {}


def execute(command: list[str]) -> None:
    """Run one step quietly; raises Failed with the end of what it said."""
    environment = {**os.environ, "LC_ALL": "C.UTF-8"}
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, env=environment, stdin=subprocess.DEVNULL, timeout=TIMEOUT_S
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise Failed(f"{command[0]}: {error}") from None
    if done.returncode:
        lines = (done.stderr or done.stdout).splitlines()[-5:]
        raise Failed(f"{command[0]} ended with status {done.returncode}: {' / '.join(lines)}")
