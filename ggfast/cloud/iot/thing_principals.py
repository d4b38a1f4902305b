"""Which certificates belong to which things (cloud-api 7). Attaching twice and detaching what is not attached are no
errors: both operations end in the state that was asked for."""

from __future__ import annotations

from ggfast.cloud.events import PermissionsChanged
from ggfast.cloud.iot.certificates import required_principal
from ggfast.cloud.iot.lookups import THING_PRINCIPALS, required_thing, things_of_certificate
from ggfast.cloud.iot.relying import attachment_changed
from ggfast.cloud.iot.service import ARN, IOT, NAME, unusable
from ggfast.cloud.operations import Call, Reply, entries, paged
from ggfast.cloud.shapes import Choice, header, query

_PRINCIPAL = header(ARN, "x-amzn-principal", required=True)
_EXCLUSIVE = "EXCLUSIVE_THING"
_RESOURCE = "thing/{thingName}"


@IOT.operation(
    "AttachThingPrincipal",
    "PUT /things/{thingName}/principals",
    {
        "thingName": NAME,
        "principal": _PRINCIPAL,
        "thingPrincipalType": query(Choice(_EXCLUSIVE, "NON_EXCLUSIVE_THING")),
    },
    writes=True,
    resource=_RESOURCE,
)
def attach_thing_principal(call: Call) -> Reply:
    """Say that a certificate is a thing's."""
    name = call.params["thingName"]
    required_thing(call, name)
    certificate_id = required_principal(call, call.params["principal"])
    exclusive = call.params.get("thingPrincipalType") == _EXCLUSIVE
    others = [thing for thing in things_of_certificate(call.tx, call.home, certificate_id) if thing != name]
    for other in others[:1]:
        known = call.tx.get(THING_PRINCIPALS, f"{call.home}/{other}", certificate_id)
        if exclusive or (known is not None and known["exclusive"]):
            raise unusable(
                f"The certificate is attached to thing {other}, expected to no other thing: detach it there."
            )
    call.tx.put(
        THING_PRINCIPALS,
        f"{call.home}/{name}",
        certificate_id,
        {"thing": name, "exclusive": exclusive},
        {"certificate": [f"{call.home}/{certificate_id}"]},
    )
    call.tx.tell(PermissionsChanged(certificate_id))
    attachment_changed(call.tx, call.home, certificate_id, name, attached=True)
    return Reply()


@IOT.operation(
    "DetachThingPrincipal",
    "DELETE /things/{thingName}/principals",
    {"thingName": NAME, "principal": _PRINCIPAL},
    writes=True,
    resource=_RESOURCE,
)
def detach_thing_principal(call: Call) -> Reply:
    """Say that a certificate is no longer a thing's."""
    name = call.params["thingName"]
    required_thing(call, name)
    certificate_id = required_principal(call, call.params["principal"])
    if call.tx.delete(THING_PRINCIPALS, f"{call.home}/{name}", certificate_id):
        call.tx.tell(PermissionsChanged(certificate_id))
        attachment_changed(call.tx, call.home, certificate_id, name, attached=False)
    return Reply()


@IOT.operation(
    "ListThingPrincipals",
    "GET /things/{thingName}/principals",
    {"thingName": NAME, **paged("nextToken", "maxResults")},
    resource=_RESOURCE,
)
def list_thing_principals(call: Call) -> Reply:
    """ARNs of a thing's certificates."""
    name = call.params["thingName"]
    required_thing(call, name)
    page = call.list(THING_PRINCIPALS, f"{call.home}/{name}")
    return entries(page, lambda document: call.arn(f"cert/{document.name}"), "principals", "nextToken")


@IOT.operation(
    "ListPrincipalThings",
    "GET /principals/things",
    {"principal": _PRINCIPAL, **paged("nextToken", "maxResults")},
)
def list_principal_things(call: Call) -> Reply:
    """Names of a certificate's things."""
    certificate_id = required_principal(call, call.params["principal"])
    page = call.find(THING_PRINCIPALS, "certificate", f"{call.home}/{certificate_id}")
    return entries(page, lambda document: document.body["thing"], "things", "nextToken")
