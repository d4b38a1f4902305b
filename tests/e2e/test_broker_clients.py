"""The broker as its own process with real clients: mosquitto's and paho's, plain and over mutual TLS."""

from __future__ import annotations

import contextlib
import datetime
import os
import queue
import signal
import socket
import ssl
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import paho.mqtt.client as paho
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.x509.oid import NameOID
from paho.mqtt.enums import CallbackAPIVersion

from ggfast._ext.framing import Connack, Connect, Publish, decode, encode

TIMEOUT_S = 10.0


class BrokerProcess:
    """`ggfast-core broker` on a free port."""

    def __init__(self, *options: str | Path) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-m", "ggfast.cli.broker", "--port", "0", *map(str, options)],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        assert self.process.stdout is not None
        self.line = self.process.stdout.readline()
        if " port " not in self.line:
            self.process.wait(TIMEOUT_S)
            raise AssertionError(f"no broker: {self.line!r} {self.process.communicate()}")
        self.port = int(self.line.split(" port ")[1].split()[0])

    def stop(self, number: int = signal.SIGTERM) -> str:
        """An orderly end; what it wrote to standard error."""
        self.process.send_signal(number)
        _, errors = self.process.communicate(timeout=TIMEOUT_S)
        assert self.process.returncode == 0, errors
        return errors


@contextlib.contextmanager
def running(*options: str | Path) -> Iterator[BrokerProcess]:
    broker = BrokerProcess(*options)
    try:
        yield broker
    finally:
        if broker.process.poll() is None:
            broker.stop()


@pytest.fixture(scope="module")
def shared() -> Iterator[BrokerProcess]:
    """One plain broker for the tests that do not mind each other."""
    with running() as broker:
        yield broker


class Device:
    """A paho client with its messages in a queue."""

    def __init__(
        self, port: int, client_id: str, clean: bool = True, tls: ssl.SSLContext | None = None, **will: Any
    ) -> None:
        self.messages: queue.Queue[paho.MQTTMessage] = queue.Queue()
        self.events: queue.Queue[tuple[str, Any]] = queue.Queue()
        self.client = paho.Client(CallbackAPIVersion.VERSION2, client_id, clean_session=clean, protocol=paho.MQTTv311)
        self.client.on_connect = lambda _c, _u, flags, code, _p: self.events.put(
            ("connected", (flags.session_present, code.value))
        )
        self.client.on_disconnect = lambda *_: self.events.put(("disconnected", None))
        self.client.on_subscribe = lambda _c, _u, _m, codes, _p: self.events.put(
            ("subscribed", [code.value for code in codes])
        )
        self.client.on_message = lambda _c, _u, message: self.messages.put(message)
        if will:
            self.client.will_set(**will)
        if tls is not None:
            self.client.tls_set_context(tls)
        self.client.connect("localhost" if tls else "127.0.0.1", port, keepalive=30)
        self.client.loop_start()
        self.present, self.code = self.expect("connected")

    def expect(self, event: str) -> Any:
        """The next event, which must be this one."""
        name, value = self.events.get(timeout=TIMEOUT_S)
        assert name == event
        return value

    def subscribe(self, topic: str, qos: int) -> list[int]:
        """The SUBACK's codes."""
        self.client.subscribe(topic, qos)
        codes: list[int] = self.expect("subscribed")
        return codes

    def publish(self, topic: str, payload: bytes, qos: int = 0, retain: bool = False) -> None:
        """Wait until the broker has it (QoS 1 and 2)."""
        info = self.client.publish(topic, payload, qos, retain)
        info.wait_for_publish(TIMEOUT_S)
        assert info.is_published()

    def next(self) -> tuple[str, bytes, int, bool]:
        """The next message."""
        message = self.messages.get(timeout=TIMEOUT_S)
        return message.topic, bytes(message.payload), message.qos, message.retain

    def leave(self) -> None:
        """DISCONNECT and wait for its thread."""
        self.client.disconnect()
        self.client.loop_stop()

    def vanish(self) -> None:
        """Cut the connection without a DISCONNECT."""
        sock: Any = self.client.socket()
        self.client.loop_stop()
        with contextlib.suppress(OSError):
            sock.shutdown(socket.SHUT_RDWR)
        sock.close()


@contextlib.contextmanager
def devices(*made: Device) -> Iterator[tuple[Device, ...]]:
    try:
        yield made
    finally:
        for device in made:
            device.leave()


def mosquitto_sub(port: int, *options: str) -> subprocess.Popen[str]:
    """A subscriber that has its SUBACK."""
    process = subprocess.Popen(
        ["stdbuf", "-oL", "mosquitto_sub", "-d", "-p", str(port), *options],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    assert process.stdout is not None
    for line in process.stdout:
        if "Subscribed" in line:
            return process
    raise AssertionError(f"mosquitto_sub ended with {process.wait()}")


def mosquitto_pub(port: int, *options: str) -> None:
    subprocess.run(["mosquitto_pub", "-p", str(port), *options], check=True, timeout=TIMEOUT_S, capture_output=True)


def lines_of(process: subprocess.Popen[str]) -> list[str]:
    """The messages of a mosquitto_sub that ends by itself (`-C`)."""
    output, _ = process.communicate(timeout=TIMEOUT_S)
    return [line for line in output.splitlines() if line.startswith("message ")]


# --- mosquitto's clients -------------------------------------------------------------------------------


@pytest.mark.parametrize("qos", ["0", "1", "2"])
@pytest.mark.parametrize("version", ["mqttv31", "mqttv311", "mqttv5"])
def test_mosquitto_clients(shared: BrokerProcess, qos: str, version: str) -> None:
    reader = mosquitto_sub(
        shared.port, "-V", version, "-t", f"m/{version}/#", "-q", qos, "-C", "2", "-F", "message %t %q %p"
    )
    for text in ("one", "two"):
        mosquitto_pub(shared.port, "-V", version, "-t", f"m/{version}/x", "-q", qos, "-m", text)
    assert lines_of(reader) == [f"message m/{version}/x {qos} one", f"message m/{version}/x {qos} two"]


def test_mosquitto_clients_with_what_5_adds(shared: BrokerProcess) -> None:
    """Properties, retain options, expiry and `$SYS`, seen through a client that is not ours."""
    five = ["-p", str(shared.port), "-V", "mqttv5"]
    kept = ["-D", "publish", "content-type", "a/b", "-D", "publish", "message-expiry-interval", "100"]
    named = ["-D", "publish", "user-property", "k", "v"]
    mosquitto_pub(shared.port, *five[2:], "-t", "five/kept", "-r", "-q", "1", "-m", "x", *kept, *named)

    def first(*options: str) -> str:
        command = ["mosquitto_sub", *five, "-C", "1", *options]
        return subprocess.run(command, check=True, timeout=TIMEOUT_S, capture_output=True, text=True).stdout.strip()

    assert first("-t", "five/#", "-q", "2", "-F", "%t %r %q %C %P %p") == "five/kept 1 1 a/b k:v x"
    assert first("-t", "$SYS/broker/version", "-F", "%r %p").startswith("1 ggfast ")


# --- paho ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("qos", [0, 1, 2])
def test_paho_order_and_loss(shared: BrokerProcess, qos: int) -> None:
    with devices(Device(shared.port, f"r{qos}"), Device(shared.port, f"w{qos}")) as (reader, writer):
        assert reader.subscribe(f"p/{qos}", qos) == [qos]
        for number in range(300):
            writer.client.publish(f"p/{qos}", b"%d" % number, qos)
        assert [reader.next()[1:3] for _ in range(300)] == [(b"%d" % number, qos) for number in range(300)]


def test_large_payloads(shared: BrokerProcess) -> None:
    with devices(Device(shared.port, "lr"), Device(shared.port, "lw")) as (reader, writer):
        reader.subscribe("large/+", 2)
        for qos, size in enumerate((0, 65_536, 262_144)):
            payload = bytes(range(256)) * (size // 256)
            writer.publish(f"large/{qos}", payload, qos)
            assert reader.next() == (f"large/{qos}", payload, qos, False)


def test_retained(shared: BrokerProcess) -> None:
    with devices(Device(shared.port, "keeper")) as (writer,):
        for number in range(1_000):
            writer.client.publish(f"kept/{number:04d}", b"v%d" % number, 1, True)
        writer.publish("kept/0007", b"", 1, True)
        with devices(Device(shared.port, "late")) as (reader,):
            reader.subscribe("kept/#", 1)
            got = sorted(reader.next() for _ in range(999))
            assert got == [(f"kept/{n:04d}", b"v%d" % n, 1, True) for n in range(1_000) if n != 7]
            writer.publish("kept/0007", b"live", 1, True)
            assert reader.next() == ("kept/0007", b"live", 1, False)


def test_will(shared: BrokerProcess) -> None:
    will: dict[str, Any] = {"topic": "will/x", "payload": b"gone", "qos": 1, "retain": False}
    with devices(Device(shared.port, "mourner")) as (reader,):
        reader.subscribe("will/#", 1)
        Device(shared.port, "polite", **will).leave()
        Device(shared.port, "rude", **will).vanish()
        assert reader.next() == ("will/x", b"gone", 1, False)
        with devices(Device(shared.port, "end")) as (writer,):
            writer.publish("will/end", b"", 1)
        assert reader.next()[0] == "will/end", "exactly one of the two wills was sent"


def test_persistent_session(shared: BrokerProcess) -> None:
    first = Device(shared.port, "persistent", clean=False)
    assert not first.present
    first.subscribe("stay/#", 2)
    first.leave()
    with devices(Device(shared.port, "feeder")) as (writer,):
        for number in range(20):
            writer.publish("stay/x", b"%d" % number, 1 + number % 2)
    again = Device(shared.port, "persistent", clean=False)
    assert again.present
    got = [again.next()[1:3] for _ in range(20)]
    for qos in (1, 2):  # paho shows a QoS 2 message only at its PUBREL: order holds within each QoS
        assert [message for message in got if message[1] == qos] == [
            (b"%d" % number, qos) for number in range(20) if 1 + number % 2 == qos
        ]
    again.leave()
    with devices(Device(shared.port, "persistent", clean=True)) as (cleaned,):
        assert not cleaned.present
    with devices(Device(shared.port, "persistent", clean=False)) as (anew,):
        assert not anew.present


def test_take_over(shared: BrokerProcess) -> None:
    older = raw(shared.port, Connect(4, True, 0, "same"))
    newer = raw(shared.port, Connect(4, True, 0, "same"))
    with older, newer:
        assert older.recv(1) == b""
        newer.sendall(b"\xc0\x00")
        assert newer.recv(2) == b"\xd0\x00"


def test_keep_alive_expires_between_one_and_a_half_and_three(shared: BrokerProcess) -> None:
    with raw(shared.port, Connect(4, True, 1, "silent")) as sock:
        begun = time.monotonic()
        assert sock.recv(1) == b""
        assert 1.4 < time.monotonic() - begun < 6.0


def raw(port: int, hello: Connect) -> socket.socket:
    """A bare socket with its CONNACK."""
    sock = socket.create_connection(("127.0.0.1", port), timeout=TIMEOUT_S)
    sock.sendall(encode(hello))
    assert decode(sock.recv(4)) == Connack(False, 0)
    return sock


# --- hostile and slow ----------------------------------------------------------------------------------


def test_p7_noise_disturbs_nobody(shared: BrokerProcess) -> None:
    with devices(Device(shared.port, "calm")) as (calm,):
        calm.subscribe("calm", 1)
        for seed in range(60):
            with socket.create_connection(("127.0.0.1", shared.port), timeout=TIMEOUT_S) as sock:
                prefix = encode(Connect(4, True, 0, f"noise{seed}")) if seed % 2 else b""
                with contextlib.suppress(OSError):
                    sock.sendall(prefix + os.urandom(50 * seed))
            calm.publish("calm", b"%d" % seed, 1)
            assert calm.next()[1] == b"%d" % seed


def test_a_frozen_reader_stops_nobody_for_long(shared: BrokerProcess) -> None:
    with raw(shared.port, Connect(4, True, 0, "frozen")) as frozen:
        frozen.sendall(b"\x82\x09\x00\x01\x00\x04flod\x00")
        assert frozen.recv(5) == b"\x90\x03\x00\x01\x00"
        with (
            devices(Device(shared.port, "brisk")) as (reader,),
            raw(shared.port, Connect(4, True, 0, "flood")) as writer,
        ):
            reader.subscribe("flod", 0)
            block = encode(Publish(b"flod", bytes(1_000))) * 1_000
            for _ in range(20):
                writer.sendall(block)
            writer.sendall(encode(Publish(b"flod", b"last")))
            deadline = time.monotonic() + 2 * TIMEOUT_S
            while reader.next()[1] != b"last":
                assert time.monotonic() < deadline


# --- orderly end and restart ---------------------------------------------------------------------------


def test_state_survives_an_orderly_restart(tmp_path: Path) -> None:
    with running("--data", tmp_path) as broker:
        sleeper = Device(broker.port, "sleeper", clean=False)
        sleeper.subscribe("s/#", 2)
        sleeper.leave()
        with devices(Device(broker.port, "w")) as (writer,):
            writer.publish("s/kept", b"retained", 1, True)
            writer.publish("s/queued", b"\0\xff", 2)
        broker.stop(signal.SIGINT)
    with running("--data", tmp_path) as broker:
        again = Device(broker.port, "sleeper", clean=False)
        assert again.present
        assert [again.next()[:2], again.next()[:2]] == [("s/kept", b"retained"), ("s/queued", b"\0\xff")]
        again.leave()
        with devices(Device(broker.port, "late")) as (late,):
            late.subscribe("s/#", 0)
            assert late.next() == ("s/kept", b"retained", 0, True)
        broker.stop()


@pytest.mark.parametrize("position", [0, 10, 60])
def test_corrupt_state_is_reported_and_set_aside(tmp_path: Path, position: int) -> None:
    with running("--data", tmp_path) as broker:
        with devices(Device(broker.port, "w")) as (writer,):
            writer.publish("kept", b"x", 1, True)
        broker.stop()
    stored = tmp_path / "broker-state"
    data = bytearray(stored.read_bytes())
    data[position] ^= 1
    stored.write_bytes(bytes(data))
    with running("--data", tmp_path) as broker:
        assert "set aside" in broker.stop()
    assert (tmp_path / "broker-state.corrupt").read_bytes() == bytes(data)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--tls-key", "x"], "--tls-cert"),
        (["--tls-cert", "x"], "--tls-key"),
        (["--tls-cert", "/none", "--tls-key", "/none"], "/none"),
        (["--host", "203.0.113.1"], "cannot listen"),
        (["--max-packet-bytes", "0"], "expected 1 to 268000000"),
    ],
)
def test_wrong_options_are_refused_with_a_reason(options: Sequence[str], words: str) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "ggfast.cli.broker", "--port", "0", *options],
        capture_output=True,
        text=True,
        timeout=TIMEOUT_S,
        check=False,
    )
    assert done.returncode != 0
    assert words in done.stderr


# --- TLS -----------------------------------------------------------------------------------------------


class Identity:
    """A key and a self-signed or issued certificate, as files."""

    def __init__(
        self, folder: Path, name: str, issuer: Identity | None = None, use_rsa: bool = False, ca: bool = False
    ) -> None:
        self.key: Any = rsa.generate_private_key(65537, 2048) if use_rsa else ec.generate_private_key(ec.SECP256R1())
        self.name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
        now = datetime.datetime.now(datetime.UTC)
        builder = (
            x509.CertificateBuilder()
            .subject_name(self.name)
            .issuer_name(issuer.name if issuer else self.name)
            .public_key(self.key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - datetime.timedelta(hours=1))
            .not_valid_after(now + datetime.timedelta(days=1))
            .add_extension(x509.BasicConstraints(ca, None), critical=True)
            .add_extension(x509.SubjectAlternativeName([x509.DNSName(name)]), critical=False)
        )
        certificate = builder.sign(issuer.key if issuer else self.key, hashes.SHA256())
        self.pem = certificate.public_bytes(serialization.Encoding.PEM).decode()
        self.cert_file, self.key_file = folder / f"{name}.crt", folder / f"{name}.key"
        self.cert_file.write_text(self.pem)
        self.key_file.write_bytes(
            self.key.private_bytes(
                serialization.Encoding.PEM,
                serialization.PrivateFormat.PKCS8,
                serialization.NoEncryption(),
            )
        )

    def context(
        self, server: Identity, version: ssl.TLSVersion | None = None, ciphers: str | None = None
    ) -> ssl.SSLContext:
        """A client's context that proves this identity and trusts that server."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.load_verify_locations(cadata=server.pem)
        context.load_cert_chain(self.cert_file, self.key_file)
        if version is not None:
            context.minimum_version = context.maximum_version = version
        if ciphers is not None:
            context.set_ciphers(ciphers)
        return context


@pytest.fixture(scope="module")
def people(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Identity]:
    folder = tmp_path_factory.mktemp("tls")
    maker = Identity(folder, "maker", ca=True)
    return {
        "server": Identity(folder, "localhost", use_rsa=True, ca=True),
        "registered": Identity(folder, "registered", issuer=maker),
        "sibling": Identity(folder, "sibling", issuer=maker),
        "stranger": Identity(folder, "stranger"),
    }


@pytest.fixture(scope="module")
def tls_broker(people: dict[str, Identity]) -> Iterator[BrokerProcess]:
    server = people["server"]
    # The registered device certificate itself is the anchor; its maker's CA is not known here.
    with running(
        "--tls-cert", server.cert_file, "--tls-key", server.key_file, "--tls-ca", people["registered"].cert_file
    ) as broker:
        yield broker


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
def test_registered_device_over_mutual_tls(
    tls_broker: BrokerProcess, people: dict[str, Identity], version: ssl.TLSVersion
) -> None:
    context = people["registered"].context(people["server"], version)
    with devices(Device(tls_broker.port, f"t{version}", tls=context)) as (device,):
        device.subscribe("t", 1)
        for size in (1, 1_000, 100_000):
            device.publish("t", bytes(size), 1)
            assert device.next()[1] == bytes(size)


def test_mosquitto_over_mutual_tls(tls_broker: BrokerProcess, people: dict[str, Identity]) -> None:
    me = people["registered"]
    options = ["-h", "localhost", "--cafile", str(people["server"].cert_file), "--cert", str(me.cert_file)]
    options += ["--key", str(me.key_file)]
    reader = mosquitto_sub(tls_broker.port, *options, "-t", "mt", "-q", "1", "-C", "1", "-F", "message %p")
    mosquitto_pub(tls_broker.port, *options, "-t", "mt", "-q", "1", "-m", "secret")
    assert lines_of(reader) == ["message secret"]


@pytest.mark.parametrize("suite", ["AES128-SHA", "AES128-GCM-SHA256", "ECDHE-RSA-AES128-GCM-SHA256"])
def test_old_suites_of_tls_1_2(tls_broker: BrokerProcess, people: dict[str, Identity], suite: str) -> None:
    context = people["registered"].context(people["server"], ssl.TLSVersion.TLSv1_2, suite + ":@SECLEVEL=0")
    with (
        socket.create_connection(("127.0.0.1", tls_broker.port), timeout=TIMEOUT_S) as sock,
        context.wrap_socket(sock, server_hostname="localhost") as tls,
    ):
        assert tls.cipher()[0] == suite  # type: ignore[index]
        tls.sendall(encode(Connect(4, True, 0, "old")))
        assert decode(tls.recv(4)) == Connack(False, 0)


@pytest.mark.parametrize("who", ["sibling", "stranger"])
@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
def test_unregistered_certificates_end_in_the_handshake(
    tls_broker: BrokerProcess, people: dict[str, Identity], who: str, version: ssl.TLSVersion
) -> None:
    context = people[who].context(people["server"], version)
    with (
        socket.create_connection(("127.0.0.1", tls_broker.port), timeout=TIMEOUT_S) as sock,
        pytest.raises((ssl.SSLError, ConnectionError)),
        context.wrap_socket(sock, server_hostname="localhost") as tls,
    ):
        tls.sendall(encode(Connect(4, True, 0, who)))
        answer = tls.recv(4)  # TLS 1.3 tells a client only when it reads
        assert answer == b"", answer
        raise ConnectionError("closed without an answer")
