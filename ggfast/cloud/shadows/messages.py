"""Messages by HTTP: Publish, and the retained ones (cloud-api 8)."""

from __future__ import annotations

from typing import Any, Final

from ggfast.cloud.events import Publish
from ggfast.cloud.faults import Fault
from ggfast.cloud.jobs import topics as jobs_topics
from ggfast.cloud.limits import PUBLISH_BYTES_MAX
from ggfast.cloud.operations import Call, Reply, entries, paged
from ggfast.cloud.shadows import retained
from ggfast.cloud.shadows import topics as shadow_topics
from ggfast.cloud.shadows.service import IOT_DATA
from ggfast.cloud.shapes import Choice, Flag, Text, Whole, header, payload, query
from ggfast.cloud.store.interface import Document
from ggfast.limits import V1_TOPIC_BYTES_MAX, V1_TOPIC_SLASHES_MAX

_TOPIC: Final = Text(1, V1_TOPIC_BYTES_MAX)
_PAGE_MAX: Final = 200  # the service model's largest page of retained messages


@IOT_DATA.operation(
    "Publish",
    "POST /topics/{topic}",
    {
        "topic": Text(1, 65_535),
        "qos": query(Whole(0, 1)),
        "retain": query(Flag()),
        "payload": payload(2 * PUBLISH_BYTES_MAX),
        "userProperties": header(Text(0, 16_384), "x-amz-mqtt5-user-properties"),
        "payloadFormatIndicator": header(
            Choice("UNSPECIFIED_BYTES", "UTF8_DATA"), "x-amz-mqtt5-payload-format-indicator"
        ),
        "contentType": query(Text(0, 1_024)),
        "responseTopic": query(Text(0, 1_024)),
        "correlationData": header(Text(0, 16_384), "x-amz-mqtt5-correlation-data"),
        "messageExpiry": query(Whole(0)),
    },
    writes=True,
    asks=False,
)
def publish(call: Call) -> Reply:
    """Hand a message to whoever subscribed; to a shadow or jobs topic it is a request as a device's is.

    What only MQTT 5 has (user properties, expiry, ...) is accepted and not passed on.
    """
    topic, body = call.params["topic"], call.params.get("payload", b"")
    retain, qos = call.params.get("retain", False), call.params.get("qos", 0)
    _check_topic(call, topic)
    if len(body) > PUBLISH_BYTES_MAX:
        raise call.invalid("payload", f"{len(body)} bytes", f"at most {PUBLISH_BYTES_MAX} bytes")
    call.permit("Publish", call.arn(f"topic/{topic}", "iot"))
    if retain:
        call.permit("RetainPublish", call.arn(f"topic/{topic}", "iot"))
        if topic.startswith("$"):
            raise call.invalid("retain", True, "false for a topic that begins with $")
        retained.put(call.tx, call.home, topic, body, qos, call.cloud.clock.wall())
    call.tx.tell(Publish(topic, body, qos, retain, call.home))
    shadow_topics.handle(call.tx, call.cloud, call.home, topic, body)
    jobs_topics.handle(call.tx, call.cloud, call.home, topic, body)
    return Reply()


@IOT_DATA.operation("GetRetainedMessage", "GET /retainedMessage/{topic}", {"topic": _TOPIC}, asks=False)
def get_retained_message(call: Call) -> Reply:
    """One topic's retained message."""
    topic = call.params["topic"]
    call.permit("GetRetainedMessage", call.arn(f"topic/{topic}", "iot"))
    body = call.tx.get(retained.RETAINED, call.home, topic)
    if body is None or 0 < body.get("until", 0) <= call.cloud.clock.wall():
        raise Fault("ResourceNotFoundException", f"No retained message exists for topic: '{topic}'", status=404)
    members = {"topic": topic, "payload": body["payload"], "qos": body["qos"]}
    return Reply(members | {"lastModifiedTime": int(body["at"] * 1_000)})


@IOT_DATA.operation("ListRetainedMessages", "GET /retainedMessage", paged("nextToken", "maxResults", _PAGE_MAX))
def list_retained_messages(call: Call) -> Reply:
    """The topics that have one, in the order in which they first had."""
    return entries(call.list(retained.RETAINED, call.home), _summary, "retainedTopics", "nextToken")


def _summary(document: Document) -> dict[str, Any]:
    message = retained.from_body(document.name, document.body)
    return {
        "topic": message.topic,
        "payloadSize": len(message.payload),
        "qos": message.qos,
        "lastModifiedTime": int(message.at * 1_000),
    }


def _check_topic(call: Call, topic: str) -> None:
    """Refuse a name that no message can have, and the reserved ones that nobody may publish to."""
    if "+" in topic or "#" in topic:
        raise call.invalid("topic", topic, "a topic without the wildcards + and #")
    if topic.count("/") > V1_TOPIC_SLASHES_MAX:
        raise call.invalid("topic", topic, f"at most {V1_TOPIC_SLASHES_MAX} slashes")
    if len(topic.encode()) > V1_TOPIC_BYTES_MAX:
        raise call.invalid("topic", topic, f"at most {V1_TOPIC_BYTES_MAX} bytes of UTF-8")
    if topic.startswith("$") and not (shadow_topics.is_request(topic) or jobs_topics.is_request(topic)):
        raise call.invalid("topic", topic, "a topic without $ first, or a request topic of a shadow or of jobs")
