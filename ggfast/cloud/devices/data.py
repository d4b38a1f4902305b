"""Operations of the API that devices may call with their certificates instead of a signature (cloud-api 8).

The handlers, errors and answers are those of the API; what the certificate's policies allow decides.
"""

from __future__ import annotations

from urllib.parse import quote

from ggfast.cloud.devices.routing import Asked, Handler, Routes
from ggfast.cloud.dispatch import Dispatcher
from ggfast.cloud.greengrass.service import GREENGRASS
from ggfast.cloud.jobs.service import IOT_JOBS_DATA
from ggfast.cloud.operations import Principal, Reply, Service
from ggfast.cloud.protocols import Request, answer, find_operation, read_request
from ggfast.cloud.shadows.service import IOT_DATA

_PATHS: tuple[tuple[Service, str], ...] = (
    (IOT_DATA, "GET /things/{ThingName}/shadow"),
    (IOT_DATA, "POST /things/{ThingName}/shadow"),
    (IOT_DATA, "DELETE /things/{ThingName}/shadow"),
    (IOT_DATA, "GET /api/things/shadow/ListNamedShadowsForThing/{ThingName}"),
    (IOT_DATA, "POST /topics/{Topic...}"),
    (IOT_DATA, "GET /retainedMessage"),
    (IOT_DATA, "GET /retainedMessage/{Topic...}"),
    (IOT_JOBS_DATA, "GET /things/{ThingName}/jobs"),
    (IOT_JOBS_DATA, "PUT /things/{ThingName}/jobs/{JobId}"),
    (IOT_JOBS_DATA, "GET /things/{ThingName}/jobs/{JobId}"),
    (IOT_JOBS_DATA, "POST /things/{ThingName}/jobs/{JobId}"),
)
_CONNECTIVITY = "/greengrass/things/{ThingName}/connectivityInfo"


class Data:
    """The handlers; `add_to` makes their paths known."""

    def __init__(self, dispatcher: Dispatcher) -> None:
        self._dispatcher = dispatcher

    def add_to(self, routes: Routes) -> None:
        """Every path."""
        for service, route in _PATHS:
            routes.add(route, self._handler(service))
        for method in ("GET", "PUT"):
            routes.add(f"{method} {_CONNECTIVITY}", self.connectivity)

    async def connectivity(self, asked: Asked) -> Reply:
        """A core's addresses, read or replaced by the core itself."""
        asked.require_thing(asked.params["ThingName"])
        return await self._run(GREENGRASS, asked)

    def _handler(self, service: Service) -> Handler:
        async def handle(asked: Asked) -> Reply:
            return await self._run(service, asked)

        return handle

    async def _run(self, service: Service, asked: Asked) -> Reply:
        request = _one_segment(asked)
        found = find_operation(service, request)
        members = read_request(service, found, request)
        identity = asked.identity
        principal = Principal(identity.arn, identity.certificate_id, identity.allows)
        reply = await self._dispatcher.run(service, found.operation, members, principal, identity.region)
        made = answer(service, found.operation, reply, "")
        headers = {name: value for name, value in made.headers.items() if name.lower() != "x-amzn-requestid"}
        return Reply(status=made.status, headers=headers, raw=made.body)


def _one_segment(asked: Asked) -> Request:
    """Devices write the levels of a topic as segments of the path, where the API has one encoded segment."""
    request = asked.request
    if "Topic" not in asked.params:
        return request
    first = request.raw_path.lstrip("/").partition("/")[0]
    path = f"/{first}/{quote(asked.params['Topic'], safe='')}"
    return Request(request.method, path, request.raw_query, request.headers, request.body)
