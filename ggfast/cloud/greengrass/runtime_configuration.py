"""Whether a core is asked to send telemetry (greengrass-core 17.10). No core says yet that it does: out of sync."""

from __future__ import annotations

from ggfast.cloud.greengrass.service import GREENGRASS, unknown
from ggfast.cloud.operations import Call, Reply
from ggfast.cloud.shapes import Choice, Record, Text, need
from ggfast.cloud.store.interface import Body, Transaction

_COLLECTION = "runtime-configuration"
_PATH = "/greengrass/things/{ThingName}/runtimeconfig"
_THING = Text(1, 128, r"[a-zA-Z0-9:_-]+")


def runtime_configuration_of(tx: Transaction, home: str, thing: str) -> Body | None:
    """What was asked of a core: `Telemetry` ("On", "Off") and `ConfigurationSyncStatus`; None: nothing ever."""
    return tx.get(_COLLECTION, home, thing)


@GREENGRASS.operation("GetThingRuntimeConfiguration", f"GET {_PATH}", {"ThingName": _THING}, resource=_PATH)
def get_runtime_configuration(call: Call) -> Reply:
    """What was asked of the core, and whether it has taken it up."""
    thing = call.params["ThingName"]
    found = runtime_configuration_of(call.tx, call.home, thing)
    if found is None:
        raise unknown(
            f"The runtime configuration of thing {thing} does not exist. Make it with UpdateThingRuntimeConfiguration.",
            "ResourceNotFoundException",
        )
    return Reply({"RuntimeConfiguration": {"TelemetryConfiguration": found}})


@GREENGRASS.operation(
    "UpdateThingRuntimeConfiguration",
    f"PUT {_PATH}",
    {"ThingName": _THING, "TelemetryConfiguration": need(Record({"Telemetry": need(Choice("On", "Off"))}))},
    writes=True,
    resource=_PATH,
)
def update_runtime_configuration(call: Call) -> Reply:
    """Ask the core for another configuration."""
    telemetry = call.params["TelemetryConfiguration"]["Telemetry"]
    call.tx.put(
        _COLLECTION,
        call.home,
        call.params["ThingName"],
        {"ConfigurationSyncStatus": "OutOfSync", "Telemetry": telemetry},
    )
    return Reply()
