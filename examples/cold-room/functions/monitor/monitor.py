"""Watches a cold room: averages the thermometer's readings, raises an alarm when it gets too warm.

A pinned function: one process for as long as the core runs, so its state lives in module variables and requests
come one at a time. `sentAt` in a message is the sender's time stamp; it is passed on so that whoever gets the
result can tell how old the cause is.
"""

import json
import logging
import os
from collections import deque

import greengrasssdk

COUNTER_ARN = os.environ["COUNTER_ARN"]
LIMIT_CELSIUS = float(os.environ["LIMIT_CELSIUS"])
WINDOW = int(os.environ["WINDOW"])

log = logging.getLogger("monitor")
messages = greengrasssdk.client("iot-data")
functions = greengrasssdk.client("lambda")

readings = deque(maxlen=WINDOW)
counted = {"door": 0, "alarm": 0}
too_warm = False


def handler(event, context):
    """Called for every message that the subscription table sends here; the topic says which kind it is."""
    topic = context.client_context.custom["subject"]
    if topic == "coldroom/temperature":
        on_temperature(event)
    elif topic == "coldroom/door":
        counted["door"] = count("door")
        log.info("door %s, event number %d", event["state"], counted["door"])


def on_temperature(event):
    readings.append(float(event["celsius"]))
    average = sum(readings) / len(readings)
    publish(
        "coldroom/average",
        {
            "celsius": round(average, 2),
            "readings": len(readings),
            "doorEvents": counted["door"],
            "sentAt": event["sentAt"],
        },
    )
    judge(average, event["sentAt"])


def judge(average, sent_at):
    """Say when the room becomes too warm and when it is cold again, once each."""
    global too_warm
    if (average > LIMIT_CELSIUS) == too_warm:
        return
    too_warm = not too_warm
    counted["alarm"] = count("alarm")
    state = "on" if too_warm else "off"
    log.warning("alarm %s at %.2f degrees, event number %d", state, average, counted["alarm"])
    alarm = {"state": state, "celsius": round(average, 2), "number": counted["alarm"], "sentAt": sent_at}
    publish("coldroom/alarm", alarm)


def count(kind):
    """Ask the counter function, and wait for its answer."""
    answer = functions.invoke(FunctionName=COUNTER_ARN, Payload=json.dumps({"kind": kind}).encode())
    if answer["FunctionError"]:
        log.error("the counter failed: %s", answer["Payload"])
        return counted[kind]
    return json.loads(answer["Payload"].read().decode())["number"]


def publish(topic, message):
    messages.publish(topic=topic, payload=json.dumps(message).encode())
