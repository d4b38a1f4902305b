"""The scenario in Python: does what the message asks and publishes what came of it."""

import json
import os
import time

import greengrasssdk

iot = greengrasssdk.client("iot-data")
functions = greengrasssdk.client("lambda")
CALLEE = os.environ["CALLEE"]
hoard = []


def handler(event, context):
    if os.environ["ENCODING_TYPE"] == "binary":
        iot.publish(topic=os.environ["OUT"] + "/bytes", payload=event[::-1])
        return event[::-1]
    wish = event["do"]
    if wish == "echo":
        say("echo", {"subject": context.client_context.custom["subject"], "event": event})
    elif wish == "invoke":
        say("invoke", answer(functions.invoke(FunctionName=CALLEE, Payload=json.dumps({"n": 20}))))
    elif wish == "invoke event":
        result = functions.invoke(FunctionName=CALLEE, Payload=json.dumps({"n": 1}), InvocationType="Event")
        say("event", {"error": result["FunctionError"]})
    elif wish == "invoke failing":
        say("failing", answer(functions.invoke(FunctionName=CALLEE, Payload=json.dumps({"fail": 1}))))
    elif wish == "raise":
        raise ValueError("raised on purpose")
    elif wish == "sleep":
        time.sleep(60)
    elif wish == "grow":
        while True:
            hoard.append(bytearray(1024 * 1024))
            hoard[-1][::4096] = b"x" * 256
    return {"did": wish}


def say(topic, document):
    iot.publish(topic=os.environ["OUT"] + "/" + topic, payload=json.dumps(document))


def answer(result):
    payload = result["Payload"]
    payload = payload.read() if hasattr(payload, "read") else payload
    return {"error": result["FunctionError"], "payload": json.loads(payload)}
