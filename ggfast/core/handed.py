"""Files that root has read for the daemon: its certificate with the key, whom it trusts, the local server's key.

The keys stay root's on disk (0600). What the daemon gets are sealed files in memory, as descriptors that it inherits
and can open again by their number; a helper process gets them the same way. Functions never do.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Final

from ggfast.errors import ConfigError, Problem

OPTION: Final = "--file"
_DIRECTORY: Final = Path("/proc/self/fd")
_PAIR: Final = re.compile(r"([a-z_]{1,32})=([0-9]{1,9})")


@dataclass(frozen=True, slots=True)
class Handed:
    """PEM files by what they are for, None for what there is not: a core without cloud has none.

    `identity` holds the core's certificate chain and its private key, so that
    `context.load_cert_chain(identity, identity)` takes it; `authorities` every CA that the cloud may show;
    `server_key` the key that the owner has set for the local server's certificate.
    """

    identity: Path | None = None
    authorities: Path | None = None
    server_key: Path | None = None

    @classmethod
    def from_arguments(cls, pairs: Iterable[str]) -> Handed:
        """From the values of the `--file` options, `<name>=<descriptor>`; programs started from here do not inherit
        them by themselves. Raises ConfigError for another form, an unknown name or a descriptor that is not open."""
        names = [field.name for field in fields(cls)]
        found: dict[str, Path] = {}
        for pair in pairs:
            match = _PAIR.fullmatch(pair)
            if match is None or match[1] not in names or match[1] in found:
                expected = f"one <name>=<descriptor> each for {', '.join(names)}"
                raise ConfigError("A handed file cannot be used.", [Problem(OPTION, repr(pair[:80]), expected)])
            try:
                os.set_inheritable(int(match[2]), False)
            except OSError as error:
                problem = Problem(OPTION, f"{pair[:80]} ({error.strerror})", "the number of an open descriptor")
                raise ConfigError("A handed file cannot be used.", [problem]) from error
            found[match[1]] = _DIRECTORY / match[2]
        return cls(**found)

    def descriptors(self) -> tuple[int, ...]:
        """What a helper process must be given (`pass_fds`) beside `arguments`."""
        return tuple(int(path.name) for _, path in self._present())

    def arguments(self) -> list[str]:
        """The options that say to a helper process which descriptor is what; see `from_arguments`."""
        return [word for name, path in self._present() for word in (OPTION, f"{name}={path.name}")]

    def _present(self) -> list[tuple[str, Path]]:
        found = [(field.name, getattr(self, field.name)) for field in fields(self)]
        return [(name, path) for name, path in found if path is not None]
