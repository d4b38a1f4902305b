"""`doctor`'s look at one installation: its directories, configuration, certificates and ports.

Nothing is changed, no key leaves the process. Sources: greengrass-core 2.2 (tree, permissions, path length),
2.3 (configuration), 3.2 (start-up checks).
"""

from __future__ import annotations

import datetime
import os
import socket
import stat
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from ggfast import limits
from ggfast.cli import process
from ggfast.cli.cert import show_certificate
from ggfast.cli.doctor_machine import closed_directory
from ggfast.cli.findings import Area, Finding
from ggfast.config import Config, load_config
from ggfast.core.certificates import pair_error
from ggfast.errors import ConfigError, GgfastError, OperatingError
from ggfast.layout import Layout

DAY_S: Final = 86_400


# --- directories -----------------------------------------------------------------------------------------


def root_directory(root: Path) -> Iterator[Finding]:
    """The Greengrass root: there, enterable for functions' processes, and with a short name."""
    area = Area("root")
    if not root.is_dir():
        advice = "Unpack your core's setup archive there, or name another directory with --root."
        yield area.bad("directory", f"no directory {root}", "the Greengrass root", advice, required=True)
        return
    closed = closed_directory(root)
    if closed is None:
        yield area.ok("directory", str(root))
    else:
        advice = f"Allow it with `chmod o+x {closed}`, or move the root."
        found = f"other users cannot enter {closed}"
        yield area.bad("directory", found, "mode o+x on the root and all its parents", advice, required=True)
    length = len(os.fsencode(root))
    if length > limits.INSTALL_PATH_BYTES_MAX:
        expected = f"at most {limits.INSTALL_PATH_BYTES_MAX} bytes"
        advice = "Move the root: socket addresses below it would be too long for other programs."
        yield area.bad("path length", f"{length} bytes", expected, advice, required=False)


def written_directories(layout: Layout) -> Iterator[Finding]:
    """Space and write permission where the core writes, and the directory of the PID file."""
    area = Area("files")
    place = layout.written
    while not place.exists():
        place = place.parent
    about = os.statvfs(place)
    free_kb = about.f_bavail * about.f_frsize // 1024
    if about.f_flag & os.ST_RDONLY:
        advice = "Mount it writable, or set writeDirectory in config.json."
        yield area.bad("written", f"{place} is read-only", "a writable file system", advice, required=True)
    elif free_kb < limits.MACHINE_DISK_KB_MIN:
        expected = f"at least {limits.MACHINE_DISK_KB_MIN // 1024} MB"
        advice = "Make room: a full disk stops the spool and the shadows."
        yield area.bad("written", f"{free_kb // 1024} MB free at {place}", expected, advice, required=False)
    else:
        yield area.ok("written", f"{free_kb // 1024} MB free at {place}")
    if not layout.pid_directory.is_dir():
        advice = f"Create {layout.pid_directory}, or set pidFileDirectory in config.json."
        yield area.bad("PID directory", f"no {layout.pid_directory}", "a directory", advice, required=True)


# --- configuration -----------------------------------------------------------------------------------------


def configuration(root: Path) -> tuple[Config | None, list[Finding]]:
    """config.json as a value (None if it is wrong or unreadable) and what there is to say about it."""
    area = Area("config")
    try:
        config = load_config(root)
    except ConfigError as error:
        if any(isinstance(cause, PermissionError) for cause in (error, error.__cause__)):
            return None, [area.unknown("config.json", error.subject)]
        advice = error.hint or "Correct the file; the reference lists every setting."
        if not error.problems:
            return None, [area.bad("config.json", error.subject, "a valid file", advice, required=True)]
        return None, [
            area.bad(problem.path, problem.found, problem.expected, advice, required=True) for problem in error.problems
        ]
    cloud = "no cloud (ggfast.local)" if config.ggfast.local else f"cloud at {config.core_thing.iot_host}"
    told = [area.ok("config.json", f"{config.layout.config_file}, core {config.core_thing.thing_arn.name}, {cloud}")]
    for warning in config.warnings:
        path, _, text = warning.partition(": ")
        told.append(area.bad(path, text, "a known setting", "Correct its spelling or remove it.", required=False))
    return config, told


# --- certificates --------------------------------------------------------------------------------------------


def certificates(config: Config, now: float | None = None) -> Iterator[Finding]:
    """The core's own certificate and key, the cloud's CA, and the local server certificate."""
    area = Area("certificates")
    seconds = time.time() if now is None else now
    needed = {"cloud CA": config.ca_file, "core certificate": config.certificate_file}
    for name, path in needed.items():
        if path is not None:
            yield _certificate(area, name, path, seconds, required=not config.ggfast.local)
    if config.certificate_file is not None and config.key_file is not None:
        yield from _key(area, config.certificate_file, config.key_file, required=not config.ggfast.local)
    yield from _hardware_keys(area, config)
    server = config.layout.server_certificate
    try:
        exists = server.exists()
    except PermissionError:
        yield area.unknown("local server certificate", f"{server} cannot be looked at")
        return
    if not exists:
        yield area.ok("local server certificate", "none yet; the core makes it when it starts")
        return
    yield _certificate(area, "local server certificate", server, seconds, required=False)


def _certificate(area: Area, name: str, path: Path, now: float, *, required: bool) -> Finding:
    """One certificate file: readable, a certificate, valid now and for a while."""
    replace = f"Put a valid PEM certificate at {path}."
    try:
        with path.open("rb"):
            pass
        told = dict(line.partition(": ")[::2] for line in show_certificate(path).splitlines())
    except PermissionError:
        return area.unknown(name, f"{path} cannot be read")
    except FileNotFoundError:
        return area.bad(name, f"no file {path}", "a PEM certificate", replace, required=required)
    except (GgfastError, OSError) as error:
        if isinstance(error.__cause__, ModuleNotFoundError):
            advice = "Install it with: pip install 'ggfast[certs]'"
            return area.bad(name, f"{path} not looked into", "the cryptography library", advice, required=False)
        return area.bad(name, str(error), "a PEM certificate", replace, required=required)
    begins, ends = (datetime.datetime.fromisoformat(told[key]).timestamp() for key in ("not before", "not after"))
    day = told["not after"][:10]
    if now < begins:
        advice = "Set the clock, or wait."
        return area.bad(name, f"valid from {told['not before']}", "valid now", advice, required=False)
    if now > ends:
        return _expired(area, name, day, replace)
    if ends - now < limits.CERTIFICATE_WARNING_DAYS * DAY_S and name != "local server certificate":
        expected = f"more than {limits.CERTIFICATE_WARNING_DAYS} days"
        return area.bad(name, f"valid until {day}", expected, replace, required=False)
    return area.ok(name, f"{path}, valid until {day}, {int((ends - now) // DAY_S)} days left")


def _hardware_keys(area: Area, config: Config) -> Iterator[Finding]:
    """Keys that this release cannot reach; a start refuses them."""
    crypto = config.crypto
    if crypto is None or config.ggfast.local:
        return
    for name, key in (("IoTCertificate", crypto.key), ("MQTTServerCertificate", crypto.mqtt_server_key)):
        if key is not None and key.pkcs11_uri:
            found = "a key in a hardware module (pkcs11:), which this release does not support"
            advice = f"Set crypto.principals.{name}.privateKeyPath to the file of another key."
            yield area.bad(f"{name} key", found, "a key in a file", advice, required=True)


def _expired(area: Area, name: str, day: str, replace: str) -> Finding:
    """An expired certificate stops one kind of traffic, never the core itself (promise P3)."""
    if name == "local server certificate":
        advice = "The core makes a new one when it starts."
    else:
        advice = f"The cloud refuses it, local traffic goes on. {replace}"
    return area.bad(name, f"expired on {day}", "valid now", advice, required=False)


def _key(area: Area, certificate: Path, key: Path, *, required: bool) -> Iterator[Finding]:
    """The core's private key: belongs to the certificate, and is nobody else's to read."""
    try:
        mode = key.stat().st_mode
        with key.open("rb"):
            pass
    except FileNotFoundError:
        advice = f"Put the key that belongs to {certificate} there."
        yield area.bad("core key", f"no file {key}", "a PEM private key", advice, required=required)
        return
    except OSError as error:
        yield area.unknown("core key", f"{key}: {error.strerror}")
        return
    wrong = pair_error(certificate, key)
    if wrong:
        advice = f"Put the key that belongs to {certificate} at {key}."
        yield area.bad("core key", wrong, "the certificate's own key", advice, required=required)
    else:
        yield area.ok("core key", f"{key} belongs to the core certificate")
    if mode & (stat.S_IRWXG | stat.S_IRWXO):
        advice = f"Close it with `chmod 0600 {key}`."
        yield area.bad("core key mode", f"{stat.S_IMODE(mode):04o}", "0600", advice, required=False)


# --- ports -----------------------------------------------------------------------------------------------


def ports(config: Config) -> Iterator[Finding]:
    """Whether the core can listen, or already does."""
    area = Area("ports")
    try:
        running = process.find(config.layout)
    except OperatingError as error:
        yield area.bad("PID file", str(error), "a process number", error.hint, required=True)
        return
    if running is not None:
        running.close()
        yield area.ok("local MQTT and HTTP", f"in use by the running core, PID {running.pid}")
        return
    wanted = (
        ("local MQTT", config.ggfast.mqtt_host, config.core_thing.gg_mqtt_port, "coreThing.ggMqttPort"),
        ("function HTTP", "127.0.0.1", config.core_thing.gg_daemon_port, "coreThing.ggDaemonPort"),
    )
    for name, host, port, setting in wanted:
        complaint = listen_error(host, port)
        if complaint:
            advice = f"Stop what uses it (`ss -ltnp sport = :{port}`), or set {setting} in config.json."
            yield area.bad(name, f"{host}:{port}: {complaint}", "a free port", advice, required=True)
        else:
            yield area.ok(name, f"{host}:{port} is free")


def listen_error(host: str, port: int) -> str:
    """Why nobody can listen there now; "" if it works."""
    try:
        place = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)[0]
        with socket.socket(place[0], place[1]) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(place[4])
            probe.listen(1)
    except OSError as error:
        return error.strerror or str(error)
    return ""
