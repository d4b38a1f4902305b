"""The shadow client of the published AWSIoTPythonSDK against a core: update, get, delta, delete. Prints what it saw.

Started by test_rows_shadow.py with its settings as JSON. Uses only the standard library and the SDK.
"""

from __future__ import annotations

import json
import queue
import sys
from typing import Any

from AWSIoTPythonSDK.MQTTLib import AWSIoTMQTTShadowClient

WAIT_S = 20


def main(given: dict[str, Any]) -> dict[str, Any]:
    """Every operation once."""
    answers: queue.Queue[tuple[str, str, str]] = queue.Queue()

    def answered(payload: str, status: str, token: str) -> None:
        answers.put((payload, status, token))

    client = AWSIoTMQTTShadowClient(given["thing"])
    client.configureEndpoint(given["host"], given["port"])
    client.configureCredentials(given["ca"], given["key"], given["certificate"])
    client.configureMQTTOperationTimeout(10)
    assert client.connect()
    shadow = client.createShadowHandlerWithName(given["thing"], True)
    deltas: queue.Queue[str] = queue.Queue()
    shadow.shadowRegisterDeltaCallback(lambda payload, _status, _token: deltas.put(payload))
    found: dict[str, Any] = {}
    shadow.shadowGet(answered, WAIT_S)
    found["missing"] = answers.get(timeout=WAIT_S)[1]
    shadow.shadowUpdate(json.dumps({"state": {"desired": {"light": "on"}}}), answered, WAIT_S)
    payload, found["update"], _ = answers.get(timeout=WAIT_S)
    found["version"] = json.loads(payload)["version"]
    found["delta"] = json.loads(deltas.get(timeout=WAIT_S))["state"]
    shadow.shadowUpdate(json.dumps({"state": {"reported": {"light": "on"}}, "version": 9}), answered, WAIT_S)
    payload, found["conflict"], _ = answers.get(timeout=WAIT_S)
    found["code"] = json.loads(payload)["code"]
    shadow.shadowGet(answered, WAIT_S)
    found["got"] = json.loads(answers.get(timeout=WAIT_S)[0])["state"]
    shadow.shadowDelete(answered, WAIT_S)
    found["deleted"] = answers.get(timeout=WAIT_S)[1]
    client.disconnect()
    return found


if __name__ == "__main__":
    print(json.dumps(main(json.loads(sys.argv[1]))))
