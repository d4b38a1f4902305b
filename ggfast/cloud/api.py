"""The API over HTTP: every service on one port, told apart by the credential scope of the signature.

A request's way: claim (headers) -> key -> body, bounded -> signature -> operation -> members -> `dispatch`. Whatever
happens ends in an answer in the words of the service's protocol, and in one line of the access log.
"""

from __future__ import annotations

import asyncio
import ipaddress
import logging
import uuid
from collections.abc import Mapping
from dataclasses import dataclass, field

from aiohttp import web

from ggfast.cloud.access import Access
from ggfast.cloud.accesslog import AccessLog
from ggfast.cloud.bodies import Bodies
from ggfast.cloud.dispatch import Dispatcher
from ggfast.cloud.faults import Fault
from ggfast.cloud.health import Health
from ggfast.cloud.limits import BUCKETS_MAX, REQUEST_BYTES_MAX
from ggfast.cloud.links import PATH as LINK_PATH
from ggfast.cloud.links import link_is_good
from ggfast.cloud.metrics import CONTENT_TYPE as METRICS_TYPE
from ggfast.cloud.metrics import Metrics
from ggfast.cloud.operations import Service
from ggfast.cloud.protocols import (
    Answer,
    Asked,
    Request,
    answer,
    find_operation,
    guess_protocol,
    read_query,
    read_request,
    refusal,
    too_large,
)
from ggfast.cloud.rates import Rates
from ggfast.cloud.shapes import Wrong
from ggfast.cloud.signing import NotBelieved, read_claim
from ggfast.errors import StorageFailed

logger = logging.getLogger("ggfast.cloud.api")

UNKNOWN = "unknown"  # service or operation, in counts and log lines


@dataclass(slots=True)
class Exchange:
    """One request and what became of it."""

    request: Request
    source: str
    began: float
    request_id: str = field(default_factory=lambda: str(uuid.uuid4()))
    protocol: str = "rest-json"
    service: str = UNKNOWN
    operation: str = UNKNOWN
    region: str = ""
    key_id: str = ""
    code: str = ""
    received: int = 0
    file_bytes: int = 0  # of a file in the answer


class Api:
    """See the module. `answer` is the handler of an aiohttp server; everything runs on the loop."""

    def __init__(
        self,
        dispatcher: Dispatcher,
        services: Mapping[str, Service],
        access: Access,
        metrics: Metrics,
        health: Health,
        log: AccessLog,
        *,
        requests_per_s: float,
        requests_burst: float,
    ) -> None:
        self._dispatcher = dispatcher
        self._cloud = dispatcher.cloud
        self._services = services
        self._access = access
        self._metrics = metrics
        self._health = health
        self._log = log
        self._bodies = Bodies()
        self._rates = Rates(self._cloud.clock, requests_per_s, requests_burst, BUCKETS_MAX)
        self.under_way = 0

    async def answer(self, http: web.BaseRequest) -> web.StreamResponse:
        """The response to a request, whatever it is."""
        exchange = Exchange(_request(http), http.remote or "", self._cloud.clock.monotonic())
        exchange.protocol = guess_protocol(exchange.request)
        self.under_way += 1
        try:
            found = await self._answer(http, exchange)
        except asyncio.CancelledError:
            self._note(exchange, Answer(499, {}, b""))
            raise
        finally:
            self.under_way -= 1
        self._note(exchange, found)
        if found.file is not None:
            return web.FileResponse(found.file, headers=found.headers)
        response = web.Response(status=found.status, headers=found.headers, body=found.body)
        if found.status in (408, 413):
            response.force_close()  # the rest of the body is not worth reading
        return response

    async def _answer(self, http: web.BaseRequest, exchange: Exchange) -> Answer:
        try:
            return await self._page(http, exchange) or await self._call(http, exchange)
        except NotBelieved as refused:
            fault = refused.fault(exchange.protocol)
        except Fault as refused:
            fault = refused
        except StorageFailed as error:
            logger.error("request failed id=%s: %s", exchange.request_id, error)
            code = "ServiceUnavailable" if exchange.protocol == "query" else "ServiceUnavailableException"
            fault = Fault(code, "The store cannot be used now; nothing of this request was kept.", status=503)
        except (ConnectionError, web.RequestPayloadError) as error:
            fault = Fault("IncompleteBody", f"The request ended before its body did ({type(error).__name__}).")
        except Exception:
            logger.exception("request failed id=%s operation=%s", exchange.request_id, exchange.operation)
            code = "InternalFailure" if exchange.protocol == "query" else "InternalFailureException"
            fault = Fault(code, f"An internal error has occurred (request id {exchange.request_id}).", status=500)
        exchange.code = fault.code or str(fault.status)
        return refusal(exchange.protocol, fault, exchange.request_id)

    # --- operations ------------------------------------------------------------------------------------

    async def _call(self, http: web.BaseRequest, exchange: Exchange) -> Answer:
        request = exchange.request
        claim = read_claim(request.headers)
        exchange.region = claim.region
        service = self._services.get(claim.service)
        if service is not None:
            exchange.service, exchange.protocol = service.name, service.protocol
        identity = await self._access.identify(claim, request.headers, exchange.source)
        exchange.key_id = claim.key_id
        if service is None:
            known = ", ".join(sorted(self._services))
            text = f"The signature is scoped to the service '{claim.service}'; there are {known}."
            raise Fault("UnknownOperationException", text, status=404)
        asked, unknown = self._look(service, request)
        most = asked.operation.body_bytes_max if asked else REQUEST_BYTES_MAX
        async with self._bodies.read(http, exchange.source, most, lambda bound: too_large(service, bound)) as body:
            exchange.received = len(body)
            request = Request(request.method, request.raw_path, request.raw_query, request.headers, body)
            self._access.check(claim, identity, request, exchange.source)
            if not self._rates.take(identity.rate):
                raise _too_many(service)
            if unknown is not None:
                raise unknown
            asked = asked or find_operation(service, request)
            exchange.operation = asked.operation.name
            members = read_request(service, asked, request)
            reply = await self._dispatcher.run(service, asked.operation, members, identity.principal, claim.region)
            return answer(service, asked.operation, reply, exchange.request_id)

    def _look(self, service: Service, request: Request) -> tuple[Asked | None, Fault | None]:
        """The operation, if the head tells it; or why there is none, to be said once the sender is believed."""
        if service.protocol == "query":
            return None, None
        try:
            return find_operation(service, request), None
        except Fault as fault:
            return None, fault

    # --- what is no operation --------------------------------------------------------------------------

    async def _page(self, http: web.BaseRequest, exchange: Exchange) -> Answer | None:
        request = exchange.request
        if request.method != "GET":
            return None
        if request.raw_path == "/healthz":
            exchange.service, exchange.operation = "front", "Health"
            return await self._health.answer()
        if request.raw_path == "/metrics":
            exchange.service, exchange.operation = "front", "Metrics"
            return await self._show_metrics(http, exchange)
        if request.raw_path.startswith(LINK_PATH):
            exchange.service, exchange.operation = "front", "GetArtifact"
            return await self._artifact(exchange)
        return None

    async def _show_metrics(self, http: web.BaseRequest, exchange: Exchange) -> Answer:
        """From this machine without a key, from elsewhere with a signature (any scope) of a key that may
        `ggfast:GetMetrics`."""
        if not is_loopback(exchange.source):
            request = exchange.request
            claim = read_claim(request.headers)
            identity = await self._access.identify(claim, request.headers, exchange.source)
            self._access.check(claim, identity, request, exchange.source)
            exchange.key_id = claim.key_id
            if not identity.principal.allows("ggfast:GetMetrics", "*"):
                raise Fault("AccessDeniedException", "The key may not ggfast:GetMetrics.", status=403)
        headers = {"Content-Type": METRICS_TYPE, "x-amzn-RequestId": exchange.request_id}
        return Answer(200, headers, self._metrics.text().encode())

    async def _artifact(self, exchange: Exchange) -> Answer:
        digest = exchange.request.raw_path[len(LINK_PATH) :]
        try:
            token = read_query(exchange.request.raw_query).get("token", [""])[0]
        except Wrong:
            token = ""
        if not link_is_good(self._cloud, digest, token):
            raise Fault(
                "AccessDeniedException", "The link is not one of ours, or has ended; ask for a new one.", status=403
            )
        file = await asyncio.to_thread(self._cloud.artifacts.checked, digest)
        headers = {"Content-Type": "application/octet-stream", "x-amzn-RequestId": exchange.request_id}
        exchange.file_bytes = self._cloud.artifacts.size(digest)
        return Answer(200, headers, b"", file)

    # --- what is kept about it -------------------------------------------------------------------------

    def _note(self, exchange: Exchange, found: Answer) -> None:
        seconds = self._cloud.clock.monotonic() - exchange.began
        self._metrics.request(exchange.service, exchange.operation, found.status, seconds)
        self._log.write(
            time=self._cloud.clock.wall(),
            request_id=exchange.request_id,
            source=exchange.source,
            key_id=exchange.key_id,
            region=exchange.region,
            service=exchange.service,
            operation=exchange.operation,
            status=found.status,
            error=exchange.code,
            received=exchange.received,
            sent=len(found.body) + exchange.file_bytes,
            seconds=seconds,
        )


def _request(http: web.BaseRequest) -> Request:
    """The raw parts of a request. A header that comes twice counts as its values with commas (SigV4)."""
    path, _, query = http.raw_path.partition("?")
    headers: dict[str, str] = {}
    for name, value in http.headers.items():
        key = name.lower()
        headers[key] = f"{headers[key]},{value}" if key in headers else value
    return Request(http.method, path, query, headers)


def is_loopback(source: str) -> bool:
    """Whether an address is this machine's own."""
    try:
        return ipaddress.ip_address(source).is_loopback
    except ValueError:
        return False


def _too_many(service: Service) -> Fault:
    code = "Throttling" if service.protocol == "query" else "ThrottlingException"
    if service.name == "lambda":
        code = "TooManyRequestsException"
    return Fault(code, "Rate exceeded", status=429)
