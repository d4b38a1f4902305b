"""The core's own MQTT server certificate: when it is due, and having it made without any network (P3).

The daemon never loads a cryptography library (2-6 MB of memory on ARM): keys and certificates are made by
`ggfast.cli.cert` in a short-lived process, which leaves a record beside them. This module reads that record,
decides, runs the helper, and reports.

    <state>/server/ca.crt ca.key          the group CA; a renewed one keeps its key, so devices need no new copy
    <state>/server/server.crt server.key  what the listener serves; a renewed one keeps its key as well
    <state>/server/server.json            written last: what the certificate says, and which files it is about

The record is written after the files it describes and names them by their SHA-256, so a power cut between
any two writes leaves either the old state or a record that disagrees with its files, and disagreement means
"make it again". Certificates are found by the same id as everywhere else: SHA-256 of the DER form.
"""

from __future__ import annotations

import asyncio
import hashlib
import ipaddress
import json
import os
import re
import socket
import ssl
import sys
from collections.abc import Awaitable, Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from ggfast.clock import Clock, SystemClock
from ggfast.errors import ConfigError, LimitReached, OperatingError, Problem, StorageFailed
from ggfast.limits import (
    CERTIFICATE_FILE_BYTES_MAX,
    CERTIFICATE_HELPER_TIMEOUT_S,
    CERTIFICATE_HOSTS_MAX,
    CERTIFICATE_RETRY_S,
    CLOCK_FLOOR_S,
    SERVER_CERTIFICATE_DAYS_DEFAULT,
)

CA_CERTIFICATE = "ca.crt"
CA_KEY = "ca.key"
CA_PREVIOUS = "ca.previous.crt"
SERVER_CERTIFICATE = "server.crt"
SERVER_KEY = "server.key"
SERVER_RECORD = "server.json"

_LABEL = re.compile(r"(?!-)[a-z0-9_-]{1,63}(?<!-)")
_HOST_NAME_MAX = 253  # RFC 1035 2.3.4 in text form


@dataclass(frozen=True, slots=True)
class HelperResult:
    """How the helper process ended."""

    exit_status: int
    output: str
    error: str


Helper = Callable[[Sequence[str]], Awaitable[HelperResult]]


@dataclass(frozen=True, slots=True)
class Record:
    """`server.json`: what the certificates beside it say. Times are seconds since 1970 UTC."""

    certificate_id: str
    hosts: tuple[str, ...]
    not_before: int
    not_after: int
    ca_id: str
    ca_not_before: int
    ca_not_after: int

    @property
    def renew_at(self) -> int:
        """When two thirds of the server certificate's life are over."""
        return two_thirds(self.not_before, self.not_after)

    @property
    def ca_renew_at(self) -> int:
        """When two thirds of the CA's life are over."""
        return two_thirds(self.ca_not_before, self.ca_not_after)


@dataclass(frozen=True, slots=True)
class ServerCertificate:
    """What the listener serves, and when to ask again."""

    certificate: Path
    key: Path
    ca: Path
    certificate_id: str
    ca_id: str
    hosts: tuple[str, ...]
    not_after: int
    renew_at: float  #: wall clock; ask again then, and whenever the wall clock was set or an address changed
    renewed: bool  #: the certificate is new since the last call: load it into the listener
    ca_replaced: bool  #: the group has another CA key than before: devices must discover again
    warnings: tuple[str, ...] = ()


def two_thirds(not_before: int, not_after: int) -> int:
    """The moment at which two thirds of a life are over."""
    return not_before + (not_after - not_before) * 2 // 3


def normal_host(text: str) -> str:
    """The one spelling of an address or host name: addresses compressed, names in lower case without a final
    dot. Raises ValueError, saying why, for anything a certificate cannot name (link-scoped addresses too)."""
    if "%" in text:
        raise ValueError(f"{text!r} belongs to one network interface; a certificate cannot name a zone")
    try:
        return str(ipaddress.ip_address(text))
    except ValueError:
        pass
    name = text.lower().removesuffix(".")
    labels = name.split(".")
    if len(name) > _HOST_NAME_MAX or not all(_LABEL.fullmatch(label) for label in labels):
        raise ValueError(f"{text!r} is neither an IP address nor an ASCII host name")
    if labels[-1].isdigit():
        raise ValueError(f"{text!r} looks like an IPv4 address and is none")
    return name


def normal_hosts(hosts: Iterable[str]) -> tuple[str, ...]:
    """`hosts` normalised, each once, in order. Raises ConfigError (all problems at once) or LimitReached."""
    found: dict[str, None] = {}
    problems = []
    for host in hosts:
        try:
            found[normal_host(host)] = None
        except ValueError as error:
            problems.append(Problem("hosts", str(error), "an IP address or a host name"))
    if problems:
        raise ConfigError("A server certificate cannot name these hosts:", problems)
    if not found:
        raise ConfigError("A server certificate needs at least one host.", hint="Give an address or a name.")
    if len(found) > CERTIFICATE_HOSTS_MAX:
        raise LimitReached("hosts in one server certificate", len(found), CERTIFICATE_HOSTS_MAX)
    return tuple(found)


def certificate_id(path: Path) -> str:
    """SHA-256 of the DER form of the first certificate in the PEM file, in hex: AWS IoT's certificate id.

    Raises OSError, or ValueError when the file holds no certificate."""
    text = _read_text(path)
    begin, end = "-----BEGIN CERTIFICATE-----", "-----END CERTIFICATE-----"
    start = text.find(begin)
    stop = text.find(end, start)
    if start < 0 or stop < 0:
        raise ValueError(f"{path} holds no PEM certificate")
    return hashlib.sha256(ssl.PEM_cert_to_DER_cert(text[start : stop + len(end)] + "\n")).hexdigest()


def read_record(path: Path) -> Record | None:
    """The record, or None when there is none or it is not one (it is then made again, never repaired)."""
    try:
        raw = json.loads(_read_text(path))
        numbers = [raw[key] for key in ("not_before", "not_after", "ca_not_before", "ca_not_after")]
        if not all(type(number) is int for number in numbers):
            return None
        return Record(
            certificate_id=str(raw["certificate_id"]),
            hosts=tuple(str(host) for host in raw["hosts"]),
            not_before=numbers[0],
            not_after=numbers[1],
            ca_id=str(raw["ca_id"]),
            ca_not_before=numbers[2],
            ca_not_after=numbers[3],
        )
    except (OSError, ValueError, KeyError, TypeError):
        return None


def write_record(record: Record) -> str:
    """The record as the text of `server.json`."""
    fields = {name: getattr(record, name) for name in Record.__slots__}
    return json.dumps(fields, indent=2) + "\n"


def pair_error(certificate: Path, key: Path) -> str:
    """Why this certificate and key cannot be used together; empty when they can. Reads two files."""
    for path in (certificate, key):
        if not path.exists():
            return f"{path.name} is missing"
    try:
        # An empty password: OpenSSL would otherwise ask for one on the terminal.
        ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_cert_chain(certificate, key, password="")
    except (OSError, ValueError) as error:
        return f"{certificate.name} and {key.name} do not belong together or cannot be read ({error})"
    return ""


def server_due(folder: Path, hosts: Sequence[str], now: float) -> str:
    """Why the server certificate must be made (again), empty when it serves as it is. Reads four files.

    A clock before 2026 is a machine without a battery that has not met a time server yet: what is on disk was
    made at a better time than now, so its dates are not judged.
    """
    problem = pair_error(folder / SERVER_CERTIFICATE, folder / SERVER_KEY)
    if problem:
        return problem
    record = read_record(folder / SERVER_RECORD)
    try:
        if record is None or record.certificate_id != certificate_id(folder / SERVER_CERTIFICATE):
            return f"{SERVER_RECORD} does not describe {SERVER_CERTIFICATE}"
        if record.ca_id != certificate_id(folder / CA_CERTIFICATE):
            return "the group CA is another one than at the last issue"
    except (OSError, ValueError) as error:
        return str(error)
    unnamed = [host for host in hosts if host not in record.hosts]
    if unnamed:
        return f"it does not name {', '.join(unnamed)}"
    if now < CLOCK_FLOOR_S:
        return ""
    if now < record.not_before:
        return "it is not valid yet: the clock was ahead when it was made"
    if now >= record.renew_at:
        return "two thirds of its life are over"
    return ""


async def ensure_server_certificate(
    state_dir: Path,
    hosts: Sequence[str],
    *,
    days: int = SERVER_CERTIFICATE_DAYS_DEFAULT,
    run: Helper | None = None,
    clock: Clock | None = None,
) -> ServerCertificate:
    """Have a group CA and a server certificate naming every host, made or renewed if that is due.

    Needs no network. Does not block the loop except for reading a few small files. When a renewal fails and an
    older certificate is there, that one is returned with a warning and an early `renew_at`: serving with an old
    certificate beats not serving. Raises OperatingError (StorageFailed for the disk) when there is nothing to
    serve with, ConfigError for hosts that no certificate can name (greengrass-core 10.3).
    """
    names = normal_hosts(hosts)
    folder = state_dir / "server"
    work = _Renewal(folder, names, days, run or run_helper, clock or SystemClock())
    try:
        folder.mkdir(mode=0o755, parents=True, exist_ok=True)
        return await work.run()
    except OSError as error:
        raise StorageFailed(f"The certificates under {folder} cannot be kept: {error}") from error


class _Renewal:
    """One pass over CA and server certificate."""

    def __init__(self, folder: Path, hosts: tuple[str, ...], days: int, run: Helper, clock: Clock) -> None:
        self._folder = folder
        self._hosts = hosts
        self._days = days
        self._helper = run
        self._clock = clock
        self._warnings: list[str] = []
        self._ca_replaced = False
        self._renewed = False

    async def run(self) -> ServerCertificate:
        try:
            await self._ensure_ca()
            await self._ensure_server()
            if await self._renew_ca():
                await self._ensure_server()
        except OperatingError as error:
            if pair_error(self._folder / SERVER_CERTIFICATE, self._folder / SERVER_KEY):
                raise
            self._warnings.append(str(error))
        return self._result()

    async def _ensure_ca(self) -> None:
        certificate = self._folder / CA_CERTIFICATE
        problem = pair_error(certificate, self._folder / CA_KEY)
        if not problem:
            return
        if certificate.exists():
            # Devices still trust it; discovery lists it after the new one for as long as it is here.
            os.replace(certificate, self._folder / CA_PREVIOUS)
            self._ca_replaced = True
            self._warnings.append(f"a new group CA was made: {problem}; devices must discover again")
        await self._call("ca", "--out", str(self._folder), "--force")

    async def _ensure_server(self) -> None:
        if not server_due(self._folder, self._hosts, self._clock.wall()):
            return
        folder = str(self._folder)
        named = [part for host in self._hosts for part in ("--host", host)]
        options = ("--keep-key", "--force", "--days", str(self._days))
        await self._call("server", "--ca", folder, "--out", folder, *named, *options)
        self._renewed = True

    async def _renew_ca(self) -> bool:
        record = read_record(self._folder / SERVER_RECORD)
        if record is None or self._clock.wall() < record.ca_renew_at:
            return False
        try:
            await self._call("ca", "--out", str(self._folder), "--renew")
        except OperatingError as error:
            # A CA somebody else issued cannot be renewed here; it goes on until it ends.
            self._warnings.append(str(error))
            return False
        return True

    async def _call(self, *arguments: str) -> None:
        result = await self._helper(arguments)
        if result.exit_status != 0:
            detail = result.error.strip() or f"exit status {result.exit_status}"
            raise OperatingError(f"Making certificates failed (cert {arguments[0]}): {detail}")

    def _result(self) -> ServerCertificate:
        folder = self._folder
        record = read_record(folder / SERVER_RECORD)
        try:
            served = certificate_id(folder / SERVER_CERTIFICATE)
            ca = certificate_id(folder / CA_CERTIFICATE)
        except (OSError, ValueError) as error:
            raise OperatingError(f"The server certificate cannot be read back: {error}") from error
        retry_at = self._clock.wall() + CERTIFICATE_RETRY_S
        described = record is not None and record.certificate_id == served
        result = ServerCertificate(
            certificate=folder / SERVER_CERTIFICATE,
            key=folder / SERVER_KEY,
            ca=folder / CA_CERTIFICATE,
            certificate_id=served,
            ca_id=ca,
            hosts=record.hosts if record is not None and described else (),
            not_after=record.not_after if record is not None and described else 0,
            renew_at=float(record.renew_at) if record is not None and described else retry_at,
            renewed=self._renewed,
            ca_replaced=self._ca_replaced,
            warnings=tuple(self._warnings),
        )
        if server_due(folder, self._hosts, self._clock.wall()):
            return replace(result, renew_at=retry_at)
        return result


async def run_helper(arguments: Sequence[str]) -> HelperResult:
    """Run `ggfast.cli.cert` with `arguments` in a process of its own and wait for it, without blocking the loop.

    Isolated mode and an empty environment: nothing in this process's surroundings reaches the key maker. Raises
    OperatingError when it cannot be started or does not end in time; kills it then, and when cancelled."""
    command = (sys.executable, "-I", "-m", "ggfast.cli.cert", *arguments)
    try:
        process = await asyncio.create_subprocess_exec(
            *command,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
            cwd="/",
            env={},
        )
    except OSError as error:
        raise OperatingError(f"The certificate helper could not be started: {error}") from error
    try:
        async with asyncio.timeout(CERTIFICATE_HELPER_TIMEOUT_S):
            output, complaint = await process.communicate()
    except TimeoutError:
        seconds = int(CERTIFICATE_HELPER_TIMEOUT_S)
        raise OperatingError(f"The certificate helper did not end within {seconds} s") from None
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    status = process.returncode if process.returncode is not None else -1
    return HelperResult(status, output.decode(errors="replace"), complaint.decode(errors="replace")[-2_000:])


def local_hosts() -> tuple[str, ...]:
    """Every address and name of this machine that a device could use, in a stable order. Reads /proc, asks no
    name server. Link-local, temporary and unsettled addresses are left out: they come and go."""
    found: dict[str, None] = {"localhost": None, "127.0.0.1": None}
    try:
        found[normal_host(socket.gethostname())] = None
    except ValueError:
        pass  # a host name no certificate can carry; devices cannot use it either
    addresses = {*_ipv4_addresses(_read_proc("fib_trie")), *_ipv6_addresses(_read_proc("if_inet6"))}
    for address in sorted(addresses, key=lambda text: (":" in text, text)):
        found[address] = None
    return tuple(found)[:CERTIFICATE_HOSTS_MAX]


def _ipv4_addresses(fib_trie: str) -> set[str]:
    """The addresses that /proc/net/fib_trie calls local to this host."""
    found = set()
    address = ""
    for line in fib_trie.splitlines():
        words = line.split()
        if words[:1] == ["|--"] and len(words) == 2:
            address = words[1]
        elif words[:3] == ["/32", "host", "LOCAL"] and address:
            found.add(address)
    return {address for address in found if not ipaddress.ip_address(address).is_link_local}


def _ipv6_addresses(if_inet6: str) -> set[str]:
    """The addresses in /proc/net/if_inet6 (hex, index, prefix, scope, flags, interface) that stay."""
    passing = 0x01 | 0x08 | 0x20 | 0x40  # temporary, duplicate found, deprecated, tentative (linux/if_addr.h)
    found = set()
    for line in if_inet6.splitlines():
        words = line.split()
        if len(words) != 6 or len(words[0]) != 32 or int(words[4], 16) & passing:
            continue
        address = ipaddress.IPv6Address(bytes.fromhex(words[0]))
        if not address.is_link_local:
            found.add(str(address))
    return found


def _read_proc(name: str) -> str:
    try:
        return Path("/proc/net", name).read_text()
    except OSError:
        return ""


def _read_text(path: Path) -> str:
    with path.open("rb") as file:
        raw = file.read(CERTIFICATE_FILE_BYTES_MAX + 1)
    if len(raw) > CERTIFICATE_FILE_BYTES_MAX:
        raise ValueError(f"{path} is larger than {CERTIFICATE_FILE_BYTES_MAX} bytes: no certificate or record")
    return raw.decode("ascii")
