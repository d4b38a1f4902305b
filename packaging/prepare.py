#!/usr/bin/env python3
"""Makes a checkout ready and runs a command in it; `make` calls it before everything it does.

    python3 packaging/prepare.py run|test|fuzz|vm [-- COMMAND...]      python3 packaging/prepare.py clean

It installs the Debian packages that are missing, makes a virtual environment, builds the compiled part,
creates the accounts, and replaces itself by COMMAND (as root, the environment's programs first on PATH).
Each step is skipped when the content of its inputs has not changed, so a second call takes a second.

The core runs its daemon and its functions as other users, so nothing may live where they cannot reach it:
a checkout below a private directory is mirrored to /opt/ggfast-checkouts, and the work is done there.

Standard library only, and parseable by old interpreters, which get a sentence instead of a traceback.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import shutil
import stat
import subprocess
import sys
from pathlib import Path

CHECKOUT = Path(__file__).resolve().parent.parent
MIRRORS = Path("/opt/ggfast-checkouts")
PYTHON_FLOOR = (3, 11)
# Made by us or by tools: neither mirrored nor part of any stamp.
MADE_DIRECTORIES = {".git", ".venv", ".make", "build", "dist", "__pycache__", ".hypothesis"}
MADE_SUFFIXES = ("_cache", ".egg-info", ".so", ".jar", ".pyc")
# What setup.py builds from: when something of it has changed it is built again.
COMPILED = (
    *("setup.py", "ext", "ggfast/_ext", "packaging/build_java.py", "packaging/build_native.py"),
    *("ggfast/core/workers/java", "ggfast/core/workers/native"),
)
# What pip reads from its surroundings; sudo would drop it.
PASSED_THROUGH = ("PIP_", "SSL_CERT_", "HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY", "CI")
# Where the product's own processes have their private view instead of the machine's.
HIDDEN_FROM_FUNCTIONS = ("/root", "/tmp", "/run", "/var", "/dev", "/proc")


class Failed(Exception):
    """Preparation cannot go on; the text is the one sentence the user reads."""


def say(text: str) -> None:
    """One short line about what is being done."""
    print(f"ggfast: {text}", flush=True)


def main(arguments: list[str]) -> int:
    """Prepare for a purpose and become the command after `--`; `clean` removes what was made."""
    purpose = arguments[0] if arguments else ""
    command = arguments[2:] if arguments[1:2] == ["--"] else []
    if purpose not in ("run", "test", "fuzz", "vm", "clean") or (arguments[1:] and not command):
        print(__doc__.split("\n\n")[1], file=sys.stderr)
        return 2
    os.umask(0o022)
    try:
        become_root(arguments)
        tree, why_mirrored = working_tree()
        if purpose == "clean":
            clean(tree)
            return 0
        prepare(purpose, tree, why_mirrored)
    except Failed as failure:
        print(f"ggfast: {failure}", file=sys.stderr)
        return 1
    if command:
        enter(tree, command)
    return 0


def become_root(arguments: list[str]) -> None:
    """Go on under sudo when not root, with pip's settings kept. Does not return then."""
    if os.geteuid() == 0:
        return
    sudo = shutil.which("sudo")
    if sudo is None:
        raise Failed("this needs root (it installs packages, creates users and starts containers); no sudo found.")
    kept = [f"{k}={v}" for k, v in os.environ.items() if k.upper().startswith(PASSED_THROUGH)]
    os.execv(sudo, [sudo, "env", *kept, sys.executable, str(Path(__file__).resolve()), *arguments])


def prepare(purpose: str, tree: Path, why_mirrored: str) -> None:
    """Everything that must exist before a command can run in `tree`; raises Failed."""
    install_system_packages(purpose)
    if why_mirrored:
        say(f"working in {tree}, because {why_mirrored}")
        mirror(tree)
    made = tree / ".make"
    made.mkdir(exist_ok=True)
    with open(made / "lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        install(purpose, tree)
    create_users(tree)


def enter(tree: Path, command: list[str]) -> None:
    """Replace this process by `command` inside the prepared tree."""
    programs = tree / ".venv" / "bin"
    os.environ["PATH"] = f"{programs}:{os.environ.get('PATH') or '/usr/bin:/bin'}:/usr/sbin:/sbin"
    os.environ["VIRTUAL_ENV"] = str(tree / ".venv")
    os.environ.pop("PYTHONHOME", None)
    os.chdir(tree)
    sys.stdout.flush()
    try:
        os.execvp(command[0], command)
    except OSError as error:
        print(f"ggfast: cannot run {command[0]}: {error.strerror}.", file=sys.stderr)
        sys.exit(127)


# --- system packages -----------------------------------------------------------------------------------


def install_system_packages(purpose: str) -> None:
    """Install what packaging/debian-packages.txt names and dpkg does not have; silent when nothing is missing."""
    if shutil.which("dpkg-query") is None:
        say("not a Debian system: expecting the programs that packaging/debian-packages.txt names to be there")
        return
    needed, optional = [], []
    for line in (CHECKOUT / "packaging" / "debian-packages.txt").read_text().splitlines():
        fields = line.partition("#")[0].split()
        wanted_for, _, program = fields[1].partition(":") if fields else ("", "", "")
        if program and shutil.which(program):
            continue  # it came another way, and the package might throw that out
        if wanted_for == "optional":
            optional.append(fields[0])
        elif wanted_for in ("run", purpose):
            needed.append(fields[0])
    have = installed_packages(needed + optional)
    missing = [name for name in needed if name not in have]
    wished = [name for name in optional if name not in have]
    declined = CHECKOUT / ".make" / "declined-packages"  # optional ones that could not be had: tried once
    if declined.exists():
        wished = [name for name in wished if name not in declined.read_text().split()]
    if not missing and not wished:
        return
    say(f"installing Debian packages: {' '.join(missing + wished)}")
    apt_get("update", "-qq")  # a failure shows below, if it matters
    if missing:
        error = apt_get("install", "-y", "-qq", "--no-install-recommends", *missing)
        if error:
            raise Failed(f"the Debian packages {' '.join(missing)} could not be installed: {error}")
    for name in wished:
        if apt_get("install", "-y", "-qq", "--no-install-recommends", name):
            say(f"going on without the optional package {name}")
            declined.parent.mkdir(parents=True, exist_ok=True)
            with open(declined, "a") as file:
                file.write(f"{name}\n")


def installed_packages(names: list[str]) -> set[str]:
    """Those of `names` that dpkg calls installed."""
    query = ["dpkg-query", "-W", "-f=${Package} ${db:Status-Status}\n", *names]
    lines = subprocess.run(query, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL).stdout.decode().splitlines()
    return {line.split()[0] for line in lines if line.endswith(" installed")}


def apt_get(*arguments: str) -> str:
    """Run apt-get; "" on success, else its last complaint."""
    environment = dict(os.environ, DEBIAN_FRONTEND="noninteractive")
    try:
        done = subprocess.run(
            ["apt-get", *arguments], env=environment, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
        )  # fmt: skip
    except OSError as error:
        return f"apt-get: {error.strerror}"
    if done.returncode == 0:
        return ""
    complaints = [line for line in done.stdout.decode(errors="replace").splitlines() if line.startswith("E: ")]
    return complaints[-1] if complaints else f"apt-get ended with status {done.returncode}"


# --- where to work -------------------------------------------------------------------------------------


def working_tree() -> tuple[Path, str]:
    """The directory to build and run in, and why it is not the checkout ("" if it is)."""
    reason = unreachable(CHECKOUT) or unreadable(CHECKOUT / "ggfast" / "__init__.py")
    if not reason and str(CHECKOUT).startswith(tuple(f"{place}/" for place in HIDDEN_FROM_FUNCTIONS)):
        reason = f"functions do not see {CHECKOUT} from inside their containers"
    if not reason:
        return CHECKOUT, ""
    name = hashlib.sha256(str(CHECKOUT).encode()).hexdigest()[:12]
    return MIRRORS / name / "ggfast", reason


def unreachable(path: Path) -> str:
    """Why a process of another user cannot enter `path`; "" if it can."""
    for directory in [*reversed(path.parents), path]:
        if directory.is_dir() and not directory.stat().st_mode & stat.S_IXOTH:
            return f"other users cannot enter {directory}"
    return ""


def unreadable(path: Path) -> str:
    """Why a process of another user cannot read the file `path`; "" if it can."""
    return "" if path.stat().st_mode & stat.S_IROTH else f"other users cannot read {path}"


def is_made(name: str) -> bool:
    """Whether a file or directory of this name is a product of tools, not a source."""
    return name in MADE_DIRECTORIES or name.endswith(MADE_SUFFIXES)


def sources(top: Path, *below: str) -> list[Path]:
    """All source files of `top` (or of the named parts of it), relative, sorted."""
    found = []
    for part in below or (".",):
        if (top / part).is_file():
            found.append(Path(part))
        for folder, folders, files in os.walk(top / part):
            folders[:] = [name for name in folders if not is_made(name)]
            found += [Path(folder, name).relative_to(top) for name in files if not is_made(name)]
    return sorted(found)


def mirror(tree: Path) -> None:
    """Make `tree` hold the checkout's sources and the checkout's .venv lead to the tree's."""
    copy_sources(CHECKOUT, tree)
    link = CHECKOUT / ".venv"
    if link.is_symlink() or not link.exists():
        link.unlink(missing_ok=True)
        link.symlink_to(tree / ".venv")


def copy_sources(top: Path, tree: Path) -> None:
    """Make `tree` hold the sources of `top`, readable for everybody; what is unchanged keeps its date."""
    tree.mkdir(parents=True, exist_ok=True)
    wanted = sources(top)
    for path in wanted:
        source, target = top / path, tree / path
        target.parent.mkdir(parents=True, exist_ok=True)
        content = source.read_bytes()
        if not target.is_file() or target.read_bytes() != content:
            target.write_bytes(content)
        target.chmod(0o755 if source.stat().st_mode & stat.S_IXUSR else 0o644)
    for path in set(sources(tree)) - set(wanted):
        (tree / path).unlink()


# --- the virtual environment and the compiled part -------------------------------------------------------


def install(purpose: str, tree: Path) -> None:
    """Bring the virtual environment and the compiled part of `tree` up to date with their inputs."""
    environment = tree / ".venv"
    interpreter = choose_interpreter()
    base = digest([str(interpreter).encode(), subprocess.check_output([str(interpreter), "-VV"])])
    if stamp(environment, "base") != base:
        say(f"making {environment} with {interpreter}")
        shutil.rmtree(environment, ignore_errors=True)
        execute(tree, [str(interpreter), "-m", "venv", str(environment)], "make a virtual environment")
        write_stamp(environment, "base", base)
    described = digest((tree / name).read_bytes() for name in ("pyproject.toml", "setup.py"))
    compiled = digest((tree / path).read_bytes() for path in sources(tree, *COMPILED))
    wanted = f"{'demo' if purpose == 'run' else 'dev'} {described}"
    installed = stamp(environment, "installed")
    if installed not in (wanted, f"dev {described}"):
        install_packages(tree, wanted.split()[0])
        write_stamp(environment, "installed", wanted)
        write_stamp(tree / ".make", "compiled", compiled)
    elif stamp(tree / ".make", "compiled") != compiled:
        say("compiling ext/")
        python = str(environment / "bin" / "python")
        execute(tree, [python, "setup.py", "-q", "build_ext", "--inplace"], "compile ext/")
        write_stamp(tree / ".make", "compiled", compiled)


def install_packages(tree: Path, extra: str) -> None:
    """Install build tools, then the checkout itself, editable, with the dependencies of `extra`."""
    say("installing Python packages and compiling ext/ (a minute or two)")
    python = str(tree / ".venv" / "bin" / "python")
    reading = "import tomllib, json; t = tomllib.load(open('pyproject.toml', 'rb')); "
    show = "print(*t['build-system']['requires'], '', *t['project']['optional-dependencies']['prctl'], sep='\\n')"
    listed = subprocess.check_output([python, "-c", reading + show], cwd=tree).decode()
    tools, _, prctl = listed.partition("\n\n")
    pip = [python, "-m", "pip", "install", "-q", "--disable-pip-version-check", "--root-user-action=ignore"]
    execute(tree, [*pip, *tools.split("\n")], "install the build tools with pip")
    execute(tree, [*pip, "--no-build-isolation", "-e", f".[{extra}]"], "install ggfast and its dependencies")
    try:
        execute(tree, [*pip, "--no-build-isolation", *prctl.split()], "install python-prctl")
    except Failed:
        say("going on without python-prctl: the kernel extension makes the same calls")


def choose_interpreter() -> Path:
    """A Python new enough and reachable for other users: Debian's own if it will do. Raises Failed."""
    seen = []
    names = [f"python3.{minor}" for minor in range(PYTHON_FLOOR[1] + 4, PYTHON_FLOOR[1] - 1, -1)]
    places = os.environ.get("PATH", "").split(":")
    for place in [Path("/usr/bin/python3")] + [Path(at, name) for name in [*names, "python3"] for at in places if at]:
        if not os.access(place, os.X_OK):
            continue
        ask = f"import sys; print(sys.version_info >= {PYTHON_FLOOR}, sys.base_prefix, sep='\\n')"
        answer = subprocess.run([str(place), "-I", "-c", ask], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
        new_enough, _, prefix = answer.stdout.decode().strip().partition("\n")
        if new_enough != "True":
            seen.append(f"{place} is older")
        elif unreachable(place.resolve().parent) or unreachable(Path(prefix)):
            seen.append(f"{place} cannot be reached by other users")
        else:
            return place
    floor = ".".join(map(str, PYTHON_FLOOR))
    raise Failed(f"no Python {floor} or newer that other users can run ({'; '.join(seen) or 'none on PATH'}).")


def execute(tree: Path, command: list[str], aim: str) -> None:
    """Run one step quietly; on failure raise Failed after showing the end of what it said."""
    environment = {k: v for k, v in os.environ.items() if k not in ("PYTHONPATH", "PYTHONHOME")}
    done = subprocess.run(
        command, cwd=tree, env=environment, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
    )
    if done.returncode == 0:
        return
    lines = done.stdout.decode(errors="replace").splitlines()
    print("\n".join(f"    {line}" for line in lines[-30:]), file=sys.stderr)
    raise Failed(f"could not {aim}: `{' '.join(command[:6])} ...` ended with status {done.returncode}.")


def digest(parts: object) -> str:
    """A short name for the content of `parts` (an iterable of bytes), each with its length."""
    total = hashlib.sha256()
    for part in parts:  # type: ignore[attr-defined]
        total.update(b"%d:" % len(part) + part)
    return total.hexdigest()[:24]


def stamp(directory: Path, name: str) -> str:
    """The inputs that the step `name` was last done for; "" if never."""
    path = directory / f"ggfast-{name}.stamp"
    return path.read_text() if path.exists() else ""


def write_stamp(directory: Path, name: str, value: str) -> None:
    """Record that the step `name` is done for the inputs `value`."""
    (directory / f"ggfast-{name}.stamp").write_text(value)


# --- accounts and cleaning -------------------------------------------------------------------------------


def create_users(tree: Path) -> None:
    """Create ggfast, ggc_user and ggc_group if they are missing; raises Failed."""
    code = "from ggfast.sandbox.users import ensure_users; ensure_users()"
    execute(tree, [str(tree / ".venv" / "bin" / "python"), "-c", code], "create the users ggfast and ggc_user")


def clean(tree: Path) -> None:
    """Remove everything that preparing and building made, and the mirror if there is one."""
    if tree != CHECKOUT:
        shutil.rmtree(tree.parent, ignore_errors=True)
    for folder, folders, files in os.walk(CHECKOUT):
        for name in [name for name in folders + files if is_made(name) and name != ".git"]:
            path = Path(folder, name)
            if path.is_dir() and not path.is_symlink():
                shutil.rmtree(path)
            else:
                path.unlink()
        folders[:] = [name for name in folders if not is_made(name)]


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
