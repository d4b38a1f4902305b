"""What the daemon may ask the spawner for: a fixed schema and the root-owned policy (sandbox.md section 12).

The daemon talks to the network, so the spawner believes nothing it says: unknown fields, wrong types, values
beyond a limit, identities and paths outside the policy are refused with SandboxFailed("policy", EPERM, ...).
Nothing here is changed by a request.
"""

from __future__ import annotations

import errno
import json
import os
import re
import sys
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from ggfast import limits
from ggfast.errors import SandboxFailed
from ggfast.sandbox.paths import below_any, is_below, text_problem

INSTANCE: Final = re.compile(r"[A-Za-z0-9_-]{1,64}")
HOSTNAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9.-]{0,63}")

# V1 refused volumes below these (greengrass-core 7; /dev/shm and /proc have rules of their own).
SOURCES_DENIED: Final = ("/sys", "/dev", "/var", "/root", "/boot", "/run")
SOURCES_READ_ONLY: Final = ("/etc", "/usr", "/bin", "/sbin", "/lib", "/lib32", "/lib64", "/proc")
PROC_DENIED: Final = re.compile(
    r"/proc(/([0-9]+|self|thread-self|kcore|kmsg|keys|key-users|sysrq-trigger|kallsyms|timer_list)(/.*)?)?"
)
MODEL: Final = re.compile(r"[0-9a-f]{64}(-w)?/content")
# What the container itself is made of; everything else may be a destination.
DESTINATIONS_DENIED: Final = ("/proc", "/sys", "/dev", "/lambda", "/runtime")
# Fields that describe a container, and what they are without one.
CONTAINERS_ALONE: Final[Mapping[str, object]] = {
    "tmpfs_kb": None, "sysfs": False, "mounts": [], "devices": [], "hostname": "",
}  # fmt: skip
HIDDEN_ALWAYS: Final = ("/root",)
# Readable by root alone: passwords, and the keys with which a machine joins networks and others trust it.
HIDDEN_FROM_ROOT: Final = (
    *("/etc/shadow", "/etc/shadow-", "/etc/gshadow", "/etc/gshadow-", "/etc/security/opasswd", "/etc/krb5.keytab"),
    *("/etc/ssh", "/etc/ssl/private", "/etc/pki/tls/private", "/etc/letsencrypt", "/etc/sudoers", "/etc/sudoers.d"),
    *("/etc/NetworkManager/system-connections", "/etc/wpa_supplicant", "/etc/wpa_supplicant.conf", "/etc/ppp"),
    *("/etc/wireguard", "/etc/openvpn", "/etc/ipsec.secrets", "/etc/ipsec.d", "/etc/swanctl", "/etc/iwd"),
)
# What the next start executes as root; nobody gets to write it through a volume.
OWN_CODE: Final = tuple(
    {
        *(os.path.realpath(path) for path in (os.path.dirname(limits.__file__), sys.executable, os.__file__)),
        os.path.dirname(sys.executable),
    }
)


@dataclass(frozen=True, slots=True)
class Mount:
    """A volume: `source` on the host at `destination` in the container."""

    source: str
    destination: str
    writable: bool
    private: bool = False  # writable, but what is written stays in the container and ends with it


@dataclass(frozen=True, slots=True)
class Device:
    """A device node, or a directory of them, at its own path; `access` is "r" or "rw"."""

    path: str
    access: str


@dataclass(frozen=True, slots=True)
class WorkerSpec:
    """A validated spawn request. Not `contained`: an ordinary process of the host, `code_dir` its working directory;
    its memory_kb may be 0, no limit, and there is nothing of the fields from tmpfs_kb on."""

    contained: bool
    code_dir: str
    uid: int
    gid: int
    groups: tuple[int, ...]
    memory_kb: int
    pids_max: int
    tmpfs_kb: int
    sysfs: bool
    mounts: tuple[Mount, ...]
    devices: tuple[Device, ...]
    hostname: str
    hash: str


@dataclass(frozen=True, slots=True)
class Policy:
    """What root allows the daemon to ask for. Ids are ranges, both ends included."""

    uids: tuple[tuple[int, int], ...] = ()
    gids: tuple[tuple[int, int], ...] = ()
    denied_uids: frozenset[int] = frozenset()
    denied_gids: frozenset[int] = frozenset()
    allow_root: bool = False
    code_prefixes: tuple[str, ...] = ()
    hidden: tuple[str, ...] = ()
    denied_sources: tuple[str, ...] = ()
    model_prefixes: tuple[str, ...] = ()  # unpacked models lie here, inside what is hidden otherwise
    memory_kb_max: int = limits.WORKER_MEMORY_KB_MAX
    instances_max: int = limits.SANDBOX_INSTANCES_MAX
    spawns_per_second: float = limits.SANDBOX_SPAWNS_PER_SECOND

    @classmethod
    def from_json(cls, document: Mapping[str, Any]) -> Policy:
        """From the launch spec, which root wrote; raises SandboxFailed for unknown or malformed keys."""
        known = {name: document[name] for name in cls.__slots__ if name in document}
        if unknown := sorted(set(document) - set(known)):
            raise refuse(f"policy: found unknown keys {unknown}, expected some of {sorted(cls.__slots__)}")
        for name in ("uids", "gids"):
            known[name] = tuple(_range(entry, name) for entry in known.get(name, ()))
        for name in ("code_prefixes", "hidden", "denied_sources", "model_prefixes"):
            known[name] = tuple(known.get(name, ()))
            for path in known[name]:
                if problem := text_problem(path):
                    raise refuse(f"policy.{name}: {problem}")
        for name in ("hidden", "denied_sources"):
            known[name] = tuple(dict.fromkeys(real for path in known[name] for real in _real_names(path)))
        for name in ("denied_uids", "denied_gids"):
            known[name] = frozenset(
                _number(entry, f"policy.{name}", 0, limits.UID_MAX) for entry in known.get(name, ())
            )
        return cls(**known)

    def validate(self, document: object) -> WorkerSpec:
        """A spawn request as a value; raises SandboxFailed("policy") at the first field that is not allowed."""
        fields = _Fields(document, "spec")
        contained = fields.boolean("contained", True)
        if not contained:
            fields.refuse(CONTAINERS_ALONE, "expected none without a container")
        least = limits.WORKER_MEMORY_KB_MIN if contained or fields.is_given("memory_kb", 0) else 0
        memory_kb = fields.number("memory_kb", None if contained else 0, least, self.memory_kb_max)
        largest = max(limits.WORKER_TMPFS_KB_MIN, min(memory_kb // 2, limits.WORKER_TMPFS_KB_MAX))
        spec = WorkerSpec(
            contained=contained,
            code_dir=fields.path("code_dir"),
            uid=fields.number("uid", None, 0, limits.UID_MAX),
            gid=fields.number("gid", None, 0, limits.UID_MAX),
            groups=fields.numbers("groups", limits.WORKER_GROUPS_MAX, limits.UID_MAX),
            memory_kb=memory_kb,
            pids_max=fields.number("pids_max", limits.SANDBOX_PIDS_DEFAULT, 1, limits.SANDBOX_PIDS_MAX),
            tmpfs_kb=fields.number("tmpfs_kb", largest, limits.WORKER_TMPFS_KB_MIN, max(largest, memory_kb)),
            sysfs=fields.boolean("sysfs"),
            mounts=tuple(_mount(entry) for entry in fields.array("mounts", limits.WORKER_MOUNTS_MAX)),
            devices=tuple(_device(entry) for entry in fields.array("devices", limits.WORKER_DEVICES_MAX)),
            hostname=fields.text("hostname", "", 64),
            hash=spec_hash(document),
        )
        fields.finish()
        if spec.hostname and not HOSTNAME.fullmatch(spec.hostname):
            raise refuse(f"spec.hostname: found {spec.hostname!r}, expected letters, digits, '.' and '-'")
        self._check_identity(spec)
        self._check_code(spec)
        for mount in spec.mounts:
            self._check_mount(mount, spec)
        _check_private(spec.mounts)
        for device in spec.devices:
            _check_device(device)
        return spec

    def hidden_for(self, uid: int) -> tuple[str, ...]:
        """Trees a worker must not see."""
        return HIDDEN_ALWAYS + self.hidden + (HIDDEN_FROM_ROOT if uid == 0 else ())

    def _check_identity(self, spec: WorkerSpec) -> None:
        if 0 in (spec.uid, spec.gid, *spec.groups) and not self.allow_root:
            raise refuse(
                "spec: found uid or gid 0, expected another",
                hint='Set runtime.allowFunctionsToRunAsRoot to "yes" in config.json if root is meant.',
            )
        if spec.uid and (not _allowed(spec.uid, self.uids) or spec.uid in self.denied_uids):
            text = f"spec.uid: found {spec.uid}, expected one of {_show(self.uids)}, not one as good as root"
            raise refuse(text, hint="Name it in ggfast.runAsUids in config.json if it is meant.")
        for gid in (spec.gid, *spec.groups):
            if gid and not _allowed(gid, self.gids):
                raise refuse(f"spec.gid: found {gid}, expected one of {_show(self.gids)}")
            if gid and gid in self.denied_gids:
                raise refuse(f"spec.gid: found {gid}, a group that owns system files, expected an ordinary group")

    def _check_code(self, spec: WorkerSpec) -> None:
        prefix = below_any(spec.code_dir, self.code_prefixes)
        if prefix is None or prefix == spec.code_dir:
            raise refuse(f"spec.code_dir: found {spec.code_dir}, expected a directory below {list(self.code_prefixes)}")

    def _check_mount(self, mount: Mount, spec: WorkerSpec) -> None:
        if fault := self.mount_fault(mount, spec.uid):
            raise refuse(f"spec.mounts: {fault}")

    def mount_fault(self, mount: Mount, uid: int) -> str:
        """Why a function with this uid may not have this volume or model; empty if it may. Pure."""
        source, destination = mount.source, mount.destination
        if source == "/dev/shm":
            if mount.writable and not mount.private and destination == "/dev/shm":
                return ""
            return "found /dev/shm read-only or elsewhere, expected it writable at /dev/shm"
        if destination == "/" or below_any(destination, DESTINATIONS_DENIED):
            return f"destination {destination} belongs to the container itself"
        if below_any(source, self.model_prefixes):
            return self._model_fault(mount)
        if mount.private:
            return f"source {source} is no model, only models are copied"
        if source == "/" or PROC_DENIED.fullmatch(source):
            return f"source {source} is not available to functions"
        if denied := below_any(source, SOURCES_DENIED + self.denied_sources):
            return f"source {source} lies below {denied}, which is not available to functions"
        for hidden in self.hidden_for(uid):
            if is_below(source, hidden) or is_below(hidden, source):
                return f"source {source} overlaps {hidden}, which is hidden from functions"
        if mount.writable and (fixed := below_any(source, SOURCES_READ_ONLY)):
            return f"source {source} lies below {fixed}, which functions get read-only"
        for own in OWN_CODE if mount.writable else ():
            if is_below(source, own) or is_below(own, source):
                return f"source {source} contains {own}, which the core runs, expected it read-only"
        return ""

    def _model_fault(self, mount: Mount) -> str:
        """Models are shared by functions: nobody writes to them. A private one is the lower part of an overlay."""
        prefix, name = below_any(mount.source, self.model_prefixes) or "", mount.source
        if not MODEL.fullmatch(name.removeprefix(prefix + "/")):
            return f"source {name} is no unpacked model"
        if mount.writable:
            return f"source {name} is a model, expected it read-only or private"
        if mount.private and any(character in mount.destination for character in ",:\\"):
            return f"destination {mount.destination} holds a character that separates mount options"
        if mount.private and len(mount.destination.encode()) > limits.MODEL_DESTINATION_BYTES_MAX:
            return f"destination of {len(mount.destination)} characters, more than fit the options of a mount"
        return ""


def spec_hash(document: object) -> str:
    """A short name for equal requests, so that a new daemon can tell whether a running worker is still right."""
    text = json.dumps(document, sort_keys=True, separators=(",", ":"), default=str).encode()
    return f"{zlib.crc32(text):08x}{zlib.adler32(text):08x}"


def refuse(text: str, *, hint: str = "") -> SandboxFailed:
    """The error of this module."""
    return SandboxFailed("policy", errno.EPERM, text, hint=hint)


def check_instance(name: object) -> str:
    """An instance id; raises SandboxFailed."""
    if not isinstance(name, str) or not INSTANCE.fullmatch(name):
        raise refuse(f"instance: found {str(name)[:80]!r}, expected 1 to 64 of A-Z a-z 0-9 _ -")
    return name


class _Fields:
    """Typed access to one JSON object; `finish` refuses what nobody asked for."""

    def __init__(self, document: object, name: str) -> None:
        if not isinstance(document, dict):
            raise refuse(f"{name}: found {type(document).__name__}, expected an object")
        self._rest: dict[str, object] = dict(document)
        self._name = name

    def _take(self, key: str, default: object) -> object:
        value = self._rest.pop(key, default)
        if value is None:
            raise refuse(f"{self._name}.{key}: found nothing, expected a value")
        return value

    def number(self, key: str, default: int | None, minimum: int, maximum: int) -> int:
        return _number(self._take(key, default), f"{self._name}.{key}", minimum, maximum)

    def boolean(self, key: str, default: bool = False) -> bool:
        value = self._take(key, default)
        if not isinstance(value, bool):
            raise refuse(f"{self._name}.{key}: found {str(value)[:40]!r}, expected true or false")
        return value

    def text(self, key: str, default: str | None, maximum: int) -> str:
        return _text(self._take(key, default), f"{self._name}.{key}", maximum)

    def path(self, key: str) -> str:
        value = self._take(key, None)
        if problem := text_problem(value):
            raise refuse(f"{self._name}.{key}: {problem}")
        return str(value)

    def array(self, key: str, maximum: int) -> list[object]:
        value = self._take(key, [])
        if not isinstance(value, list) or len(value) > maximum:
            raise refuse(f"{self._name}.{key}: found {str(value)[:40]!r}, expected a list of at most {maximum}")
        return value

    def numbers(self, key: str, maximum: int, largest: int) -> tuple[int, ...]:
        name = f"{self._name}.{key}"
        return tuple(_number(value, name, 0, largest) for value in self.array(key, maximum))

    def is_given(self, key: str, empty: object) -> bool:
        return self._rest.get(key, empty) != empty

    def refuse(self, keys: Mapping[str, object], expected: str) -> None:
        for key, empty in keys.items():
            if self.is_given(key, empty):
                raise refuse(f"{self._name}.{key}: found {str(self._rest[key])[:40]!r}, {expected}")

    def finish(self) -> None:
        if self._rest:
            raise refuse(f"{self._name}: found unknown fields {sorted(self._rest)[:8]}")


def _number(value: object, name: str, minimum: int, maximum: int) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or not minimum <= value <= maximum:
        raise refuse(f"{name}: found {str(value)[:40]!r}, expected {minimum} to {maximum}")
    return value


def _text(value: object, name: str, maximum: int) -> str:
    if not isinstance(value, str) or len(value) > maximum or "\0" in value:
        raise refuse(f"{name}: found {str(value)[:40]!r}, expected text of at most {maximum} characters")
    try:
        value.encode()
    except UnicodeEncodeError:
        raise refuse(f"{name}: found {value[:40]!a}, expected valid Unicode") from None
    return value


def _mount(entry: object) -> Mount:
    fields = _Fields(entry, "spec.mounts")
    source, destination = fields.path("source"), fields.path("destination")
    mount = Mount(source, destination, fields.boolean("writable"), fields.boolean("private"))
    fields.finish()
    return mount


def _device(entry: object) -> Device:
    fields = _Fields(entry, "spec.devices")
    device = Device(fields.path("path"), fields.text("access", None, 2))
    fields.finish()
    return device


def _check_private(mounts: tuple[Mount, ...]) -> None:
    """An overlay names its parts by path. Inside a volume somebody could exchange a directory of that path."""
    for mount in mounts:
        for other in mounts if mount.private else ():
            if other is not mount and is_below(mount.destination, other.destination):
                raise refuse(f"spec.mounts: private destination {mount.destination} lies in {other.destination}")


def _check_device(device: Device) -> None:
    if not device.path.startswith("/dev/") or is_below(device.path, "/dev/shm"):
        raise refuse(f"spec.devices: found {device.path}, expected a node below /dev")
    if device.access not in ("r", "rw"):
        raise refuse(f"spec.devices: found access {device.access!r}, expected r or rw")


def _real_names(path: str) -> tuple[str, ...]:
    """A path without links in front of its last component, and what it leads to: hiding a link hides nothing."""
    above, name = os.path.split(path)
    return (os.path.join(os.path.realpath(above), name), os.path.realpath(path)) if name else (path,)


def _range(entry: object, name: str) -> tuple[int, int]:
    ends: Sequence[object] = entry if isinstance(entry, list | tuple) and len(entry) == 2 else (entry, entry)
    return _number(ends[0], f"policy.{name}", 0, limits.UID_MAX), _number(ends[1], f"policy.{name}", 0, limits.UID_MAX)


def _allowed(value: int, ranges: tuple[tuple[int, int], ...]) -> bool:
    return any(first <= value <= last for first, last in ranges)


def _show(ranges: tuple[tuple[int, int], ...]) -> str:
    return ", ".join(str(a) if a == b else f"{a}-{b}" for a, b in ranges) or "none"
