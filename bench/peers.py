"""The brokers that are measured, and how each is configured: no limits, no logging, nothing on disk.

`python -m bench peers` lists them; `python -m bench peers install [aedes|amqtt]` puts those that npm and pip have
into build/bench/peers/, where nothing else looks.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import json
import os
import shlex
import shutil
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from bench import certificates
from bench.generator import BUILT, REPOSITORY, BenchFailed

OWN = "ggfast"
INSTALLED = BUILT / "peers"
SCRIPTS = REPOSITORY / "bench" / "peer"  # what starts the brokers that are libraries
AEDES, AMQTT = ("aedes", "1.2.0"), ("amqtt", "0.12.0")

# Nothing that makes a broker slower or lossy: no queue limits, no Nagle, nothing on disk, no log.
MOSQUITTO = """\
listener {port} 127.0.0.1
allow_anonymous true
max_queued_messages 0
max_inflight_messages 0
set_tcp_nodelay true
persistence false
connection_messages false
log_type error
log_dest stderr
"""
MOSQUITTO_TLS = """\
certfile {cert}
keyfile {key}
cafile {ca}
require_certificate true
"""
FLASHMQ = """\
thread_count 1
allow_anonymous true
log_level error
max_qos_msg_pending_per_client 65535
max_qos_bytes_pending_per_client 1073741824
client_max_write_buffer_size 1073741824
listen {
    protocol mqtt
    inet_protocol ip4
    inet4_bind_address 127.0.0.1
    port {port}
    tcp_nodelay true
"""
FLASHMQ_TLS = """\
    fullchain {cert}
    privkey {key}
    client_verification_ca_file {ca}
    client_verification_still_do_authn true
"""
FILES = (("mosquitto.conf", MOSQUITTO), ("flashmq.conf", f"{FLASHMQ}}}\n"))
FILES_TLS = (("mosquitto.conf", MOSQUITTO + MOSQUITTO_TLS), ("flashmq.conf", f"{FLASHMQ}{FLASHMQ_TLS}}}\n"))
Files = tuple[tuple[str, str], ...]


@dataclass(frozen=True)
class Peer:
    """A broker by its command.

    Filled in are `{port}`, `{directory}` (its own, empty but for `files`), and for TLS `{cert}`, `{key}`, `{ca}`.
    """

    name: str
    command: tuple[str, ...]
    version: str
    files: Files = ()
    tls_command: tuple[str, ...] = ()  # empty: it is not measured with TLS
    tls_files: Files = ()

    def form(self, tls: bool) -> tuple[tuple[str, ...], Files]:
        """Command and files, plain or for mutual TLS. Raises BenchFailed if there is none."""
        if tls and not self.tls_command:
            raise BenchFailed(f"how {self.name} is started with TLS is unknown; say it with --tls-peer.")
        return (self.tls_command, self.tls_files) if tls else (self.command, self.files)

    def filled(self, text: str, port: int, directory: Path) -> str:
        """`text` with the places filled in; other braces stay as they are."""
        text = text.replace("{port}", str(port)).replace("{directory}", str(directory))
        if any(place in text for place in ("{cert}", "{key}", "{ca}")):
            made = certificates.made()
            text = text.replace("{cert}", str(made.server)).replace("{key}", str(made.server_key))
            text = text.replace("{ca}", str(made.authority))
        return text


def own_broker() -> Peer:
    """ggfast's broker, as `ggfast-core broker` runs it."""
    command = (sys.executable, "-m", "ggfast.cli.broker", "--port", "{port}")
    tls = (*command, "--tls-cert", "{cert}", "--tls-key", "{key}", "--tls-ca", "{ca}")
    return Peer(OWN, command, importlib.metadata.version("ggfast"), tls_command=tls)


def mosquitto() -> Peer:
    """The mosquitto that is installed. Raises BenchFailed if there is none."""
    program = shutil.which("mosquitto", path=f"{os.environ.get('PATH', '')}:/usr/sbin:/usr/local/sbin")
    if program is None:
        raise BenchFailed("mosquitto is not installed: install it (apt install mosquitto), or measure without a "
                          "peer with --only ggfast.")  # fmt: skip
    shown = subprocess.run([program, "-h"], capture_output=True, text=True).stdout
    first = shown.partition("\n")[0].split()
    command = (program, "-c", "{directory}/mosquitto.conf")
    return Peer("mosquitto", command, first[-1] if first else "unknown", FILES, command, FILES_TLS)


def aedes() -> Peer:
    """The aedes that `peers install` fetched. Raises BenchFailed if it has not."""
    modules = INSTALLED / "aedes" / "node_modules"
    if not (modules / "aedes" / "package.json").exists() or shutil.which("node") is None:
        raise BenchFailed("aedes is not installed: python -m bench peers install aedes (it needs node and npm).")
    version = json.loads((modules / "aedes" / "package.json").read_text())["version"]
    command = ("node", str(SCRIPTS / "aedes.js"), str(modules), "{port}")
    return Peer("aedes", command, version, tls_command=(*command, "{cert}", "{key}", "{ca}"))


def amqtt() -> Peer:
    """The amqtt (on uvloop) that `peers install` fetched. Raises BenchFailed if it has not."""
    program = INSTALLED / "amqtt" / "bin" / "python"
    if not program.exists():
        raise BenchFailed("amqtt is not installed: python -m bench peers install amqtt.")
    ask = "import importlib.metadata; print(importlib.metadata.version('amqtt'))"
    version = subprocess.run([program, "-c", ask], capture_output=True, text=True).stdout.strip()
    command = (str(program), str(SCRIPTS / "amqtt_broker.py"), "{port}")
    return Peer("amqtt", command, version or "unknown", tls_command=(*command, "{cert}", "{key}", "{ca}"))


def installed() -> dict[str, Peer]:
    """Those of aedes and amqtt that are there."""
    found = {}
    for make in (aedes, amqtt):
        try:
            found[make.__name__] = make()
        except BenchFailed:
            continue
    return found


def given(text: str, tls_text: str = "") -> Peer:
    """A peer from `name=command with {port}`, and `name=command` for TLS; with mosquitto's or FlashMQ's file in
    `{directory}` the same command does for both. Raises BenchFailed for anything else or a missing program.
    """
    name, _, command = text.partition("=")
    words, tls_words = tuple(shlex.split(command)), tuple(shlex.split(tls_text.partition("=")[2]))
    files = any(f"{{directory}}/{file}" in word for word in words for file, _ in FILES)
    if not name or not words or not (files or any("{port}" in word for word in words)):
        raise BenchFailed(f"found --peer {text!r}, expected NAME=COMMAND with {{port}} where the port belongs.")
    if shutil.which(words[0]) is None:
        raise BenchFailed(f"peer {name} is not installed: no program {words[0]}.")
    tls_words = tls_words or (words if files else ())
    return Peer(name, words, "", FILES, tls_words, FILES_TLS)  # named with its version: only its maker can ask it


def install(name: str) -> None:
    """Fetch aedes or amqtt into build/bench/peers/. Raises BenchFailed."""
    place = INSTALLED / name
    place.mkdir(parents=True, exist_ok=True)
    package, version = AEDES if name == "aedes" else AMQTT
    if name == "aedes":
        _run("npm", "install", "--prefix", str(place), "--no-audit", "--no-fund", f"{package}@{version}")
    else:
        _run(sys.executable, "-m", "venv", str(place))
        _run(str(place / "bin" / "pip"), "install", "-q", f"{package}=={version}", "uvloop")


def _run(*command: str) -> None:
    try:
        done = subprocess.run(command, capture_output=True, text=True)
    except OSError as error:
        raise BenchFailed(f"{command[0]} cannot be run: {error.strerror}.") from error
    if done.returncode != 0:
        raise BenchFailed(f"{' '.join(command)} failed: {done.stderr.strip()[-500:]}")


def main(arguments: Sequence[str]) -> int:
    """List the brokers that would be measured, or install some; 2 if one cannot be installed."""
    parser = argparse.ArgumentParser(prog="python -m bench peers", description=__doc__)
    parser.add_argument("what", nargs="?", choices=["list", "install"], default="list")
    parser.add_argument("names", nargs="*", metavar="NAME", help="aedes, amqtt (default: both)")
    args = parser.parse_args(arguments)
    try:
        for name in (args.names or ("aedes", "amqtt")) if args.what == "install" else ():
            if name not in ("aedes", "amqtt"):
                raise BenchFailed(f"found {name}, expected aedes or amqtt; others are given with --peer NAME=COMMAND.")
            install(name)
    except BenchFailed as error:
        print(f"bench: {error}", file=sys.stderr)
        return 2
    for make in (own_broker, mosquitto, aedes, amqtt):
        try:
            peer = make()
            print(f"{peer.name} {peer.version}: {' '.join(peer.command)}")
        except BenchFailed as error:
            print(error)
    return 0
