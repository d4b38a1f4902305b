"""Where devices reach the data plane, and the registration code (cloud-api 7)."""

from __future__ import annotations

import secrets

from ggfast.cloud.iot.service import IOT
from ggfast.cloud.limits import MQTT_TLS_PORT
from ggfast.cloud.operations import Call, Reply
from ggfast.cloud.shapes import Text, query

_REGISTRATION = "iot-registration-code"


@IOT.operation("DescribeEndpoint", "GET /endpoint", {"endpointType": query(Text(0, 128))})
def describe_endpoint(call: Call) -> Reply:
    """The name of a host, with a port where it is not the one every client assumes."""
    known = {
        "iot:Data": call.cloud.endpoints.mqtt.removesuffix(f":{MQTT_TLS_PORT}"),
        "iot:Data-ATS": call.cloud.endpoints.mqtt.removesuffix(f":{MQTT_TLS_PORT}"),
        "iot:Jobs": call.cloud.endpoints.https.removesuffix(":443"),
        "iot:CredentialProvider": call.cloud.endpoints.https.removesuffix(":443"),
    }
    asked = call.params.get("endpointType", "iot:Data")
    if asked not in known:
        raise call.invalid("endpointType", asked, f"one of {', '.join(known)}")
    return Reply({"endpointAddress": known[asked]})


@IOT.operation("GetRegistrationCode", "GET /registrationcode", writes=True)
def get_registration_code(call: Call) -> Reply:
    """The account's code in this region: 64 hex digits, made at the first request."""
    known = call.tx.get(_REGISTRATION, call.home, "code")
    if known is None:
        known = {"code": secrets.token_hex(32)}
        call.tx.create(_REGISTRATION, call.home, "code", known)
    return Reply({"registrationCode": known["code"]})
