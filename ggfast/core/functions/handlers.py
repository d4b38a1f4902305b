"""Whether an unpacked package holds what its handler names: found out at deployment, not at the first message.

Source: greengrass-core 6.2 (handlers by language). Reads the package only; blocking.
"""

from __future__ import annotations

from pathlib import Path

from ggfast.core.functions.archive import Unjudged, holds_entry
from ggfast.group.runtimes import Language


def missing_handler(language: Language, target: Path, handler: str) -> str:
    """What the package at `target` should hold for `handler` and does not; empty if it does."""
    return {
        Language.PYTHON: _missing_module,
        Language.NODEJS: _missing_script,
        Language.JAVA: _missing_class,
        Language.EXECUTABLE: _missing_file,
    }[language](target, handler)


def make_executable(target: Path, handler: str) -> None:
    """Archives made elsewhere know no execution bit: the handler's file gets it."""
    file = target / handler
    if file.is_file() and not file.is_symlink():
        file.chmod(0o755)


def _missing_module(target: Path, handler: str) -> str:
    module = handler.rpartition(".")[0]
    path = target / module.replace(".", "/")
    parent, name = path.parent, path.name
    there = path.is_dir() or (parent / f"{name}.py").is_file() or (parent / f"{name}.pyc").is_file()
    there = there or any(file.name.startswith(f"{name}.") for file in parent.glob("*.so"))
    return "" if there else f"a module {module}"


def _missing_script(target: Path, handler: str) -> str:
    script = handler.rpartition(".")[0]
    places = [target / f"{script}{suffix}" for suffix in ("", ".js", ".mjs", ".cjs", ".json", ".node", "/index.js")]
    return "" if any(place.is_file() for place in places) else f"a file {script}.js"


def _missing_class(target: Path, handler: str) -> str:
    name = handler.partition("::")[0]
    entry = name.replace(".", "/") + ".class"
    if (target / entry).is_file():
        return ""
    jars = [*target.glob("*.jar"), *(target / "lib").glob("*.jar")]
    return "" if any(_holds(jar, entry) for jar in jars) else f"a class {name} (at its root, in *.jar or lib/*.jar)"


def _holds(jar: Path, entry: str) -> bool:
    try:
        with jar.open("rb") as file:
            return holds_entry(file, entry)
    except Unjudged:
        return True  # the virtual machine will tell
    except (OSError, ValueError):
        return False  # the virtual machine will not be able to read it either


def _missing_file(target: Path, handler: str) -> str:
    return "" if (target / handler).is_file() else f"an executable file {handler}"
