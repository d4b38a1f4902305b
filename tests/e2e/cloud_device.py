"""A thing with its certificate, for tests against a running cloud: HTTPS by raw bytes, MQTT by paho."""

from __future__ import annotations

import contextlib
import json
import queue
import socket
import ssl
import threading
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

import paho.mqtt.client as paho
from paho.mqtt.properties import Properties
from paho.mqtt.reasoncodes import ReasonCode

from tests.e2e.cloud_process import CloudProcess
from tests.patience import patience

WAIT_S = patience(10.0)
EVERYTHING = {"Effect": "Allow", "Action": ["iot:*", "greengrass:*", "iotjobsdata:*"], "Resource": "*"}


def policy(*statements: dict[str, Any]) -> str:
    """A policy document."""
    return json.dumps({"Version": "2012-10-17", "Statement": list(statements)})


@dataclass(slots=True)
class HttpAnswer:
    """One response as it came."""

    status: int
    head: str
    body: bytes

    @property
    def json(self) -> Any:
        """The body, decoded."""
        return json.loads(self.body)


@dataclass(slots=True)
class Device:
    """A thing and the certificate attached to it."""

    cloud: CloudProcess
    thing: str
    certificate_id: str
    certificate: Path
    key: Path
    region: str

    @classmethod
    def make(cls, cloud: CloudProcess, thing: str, *statements: dict[str, Any], region: str = "") -> Self:
        """Register it with a policy; without statements it may do everything."""
        iot = cloud.client("iot", region=region)
        iot.create_thing(thingName=thing)
        made = iot.create_keys_and_certificate(setAsActive=True)
        iot.attach_thing_principal(thingName=thing, principal=made["certificateArn"])
        name = f"policy-{made['certificateId'][:16]}"
        iot.create_policy(policyName=name, policyDocument=policy(*(statements or (EVERYTHING,))))
        iot.attach_policy(policyName=name, target=made["certificateArn"])
        place = cloud.folder.with_name(f"{cloud.folder.name}-{thing}-{made['certificateId'][:8]}")
        certificate, key = place.with_suffix(".crt"), place.with_suffix(".key")
        certificate.write_text(made["certificatePem"])
        key.write_text(made["keyPair"]["PrivateKey"])
        return cls(cloud, thing, made["certificateId"], certificate, key, region or cloud.region)

    @property
    def arn(self) -> str:
        """The thing's."""
        return f"arn:aws:iot:{self.region}:{self.cloud.account}:thing/{self.thing}"

    @property
    def certificate_arn(self) -> str:
        return f"arn:aws:iot:{self.region}:{self.cloud.account}:cert/{self.certificate_id}"

    def context(self, *, certificate: bool = True, alpn: str = "") -> ssl.SSLContext:
        """Trusting the cloud's CA."""
        context = ssl.create_default_context(cafile=str(self.cloud.ca_path))
        if certificate:
            context.load_cert_chain(self.certificate, self.key)
        if alpn:
            context.set_alpn_protocols([alpn])
        return context

    def http(self, method: str, path: str, body: Any = None, *, certificate: bool = True, **headers: str) -> HttpAnswer:
        """One request on a connection of its own; the body ends where the byte rules say, the connection stays."""
        sent = b"" if body is None else body if isinstance(body, bytes) else json.dumps(body).encode()
        lines = [f"{method} {path} HTTP/1.1", "Host: localhost"]
        lines += [f"{name.replace('_', '-')}: {value}" for name, value in headers.items()]
        if sent:
            lines.append(f"Content-Length: {len(sent)}")
        with (
            socket.create_connection((self.cloud.address, self.cloud.https_port), WAIT_S + 60) as sock,
            self.context(certificate=certificate).wrap_socket(sock, server_hostname=self.cloud.iot_host) as tls,
        ):
            tls.sendall("\r\n".join([*lines, "", ""]).encode() + sent)
            return read_answer(tls)

    def mqtt(self, client_id: str = "", *, level: int = 4, **options: Any) -> DeviceClient:
        """A paho client that tries to connect."""
        return DeviceClient(self, client_id or self.thing, level, **options)


def read_answer(tls: ssl.SSLSocket) -> HttpAnswer:
    """The head, and as many bytes as `content-length: <n>` says: how the first Python SDK reads it."""
    data = b""
    while b"\r\n\r\n" not in data:
        part = tls.recv(65_536)
        assert part, f"the connection ended inside the head: {data!r}"
        data += part
    head, _, body = data.partition(b"\r\n\r\n")
    status = int(head.split()[1])
    if status == 204:
        return HttpAnswer(status, head.decode(), body)
    size = int(head.decode().split("content-length: ")[1].split("\r\n")[0])
    while len(body) < size:
        part = tls.recv(65_536)
        assert part, "the connection ended inside the body"
        body += part
    assert len(body) == size
    return HttpAnswer(status, head.decode(), body)


@dataclass
class DeviceClient:
    """A connection; `code` is the CONNACK's reason. Messages arrive in order."""

    device: Device
    client_id: str
    level: int
    clean: bool = True
    will: tuple[str, bytes] | None = None
    port: int = 0
    code: int = -1
    messages: queue.Queue[tuple[str, bytes]] = field(default_factory=queue.Queue)
    acknowledged: dict[int, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self._answers: queue.Queue[tuple[str, Any]] = queue.Queue()
        self.gone = threading.Event()
        version = paho.MQTTv5 if self.level == 5 else paho.MQTTv311
        clean = None if self.level == 5 else self.clean
        self.paho = paho.Client(
            paho.CallbackAPIVersion.VERSION2, self.client_id, clean, protocol=version, reconnect_on_failure=False
        )
        self.paho.tls_set_context(self.device.context())
        self.paho.username_pw_set("?SDK=Python&Version=1.6.2")
        if self.will is not None:
            self.paho.will_set(*self.will)
        self.paho.on_connect = self._connected
        self.paho.on_disconnect = lambda *_: self.gone.set()
        self.paho.on_message = lambda _client, _data, message: self.messages.put((message.topic, message.payload))
        self.paho.on_subscribe = lambda _client, _data, _number, codes, _properties: self._answers.put(
            ("subscribed", [code.value for code in codes])
        )
        self.paho.on_publish = lambda _client, _data, _number, code, _properties: self._answers.put(
            ("published", code.value)
        )
        with contextlib.suppress(OSError):
            self.paho.connect(self.device.cloud.iot_host, self.port or self.device.cloud.mqtt_port, 60)
            self.paho.loop_start()
            with contextlib.suppress(queue.Empty):
                self.code = self._answer("connected")
        if self.code != 0:
            self.close()

    def _connected(self, _client: Any, _data: Any, _flags: Any, code: ReasonCode, _more: Properties | None) -> None:
        self._answers.put(("connected", code.value))

    def _answer(self, kind: str) -> Any:
        found, value = self._answers.get(timeout=WAIT_S)
        assert found == kind, (found, value)
        return value

    def subscribe(self, *filters: str) -> list[int]:
        """The codes granted."""
        self.paho.subscribe([(name, 1) for name in filters])
        return list(self._answer("subscribed"))

    def publish(self, topic: str, payload: Any, *, retain: bool = False) -> int:
        """With QoS 1; the acknowledgement's code."""
        self.send(topic, payload, 1, retain=retain)
        return int(self._answer("published"))

    def send(self, topic: str, payload: Any, qos: int = 0, *, retain: bool = False) -> None:
        """Publish without waiting."""
        data = payload if isinstance(payload, bytes) else json.dumps(payload).encode()
        self.paho.publish(topic, data, qos, retain)

    def take(self) -> tuple[str, bytes]:
        """The next message."""
        return self.messages.get(timeout=WAIT_S)

    def take_json(self) -> tuple[str, Any]:
        """The next message, decoded."""
        topic, payload = self.take()
        return topic, json.loads(payload)

    def close(self) -> None:
        """Say goodbye."""
        self.paho.disconnect()
        self.paho.loop_stop()
        # The client frees its sockets when nothing refers to it, so it may not refer to us.
        self.paho.on_connect = self.paho.on_disconnect = self.paho.on_message = None
        self.paho.on_subscribe = self.paho.on_publish = None

    def __enter__(self) -> Self:
        assert self.code == 0, f"{self.client_id} was not let in: {self.code}"
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
