"""The vocabulary of the control plane: services, their operations, and what a handler gets and gives.

    GREENGRASS = Service("greengrass", ...)

    @GREENGRASS.operation("GetGroup", "GET /greengrass/groups/{GroupId}", resource="/greengrass/groups/{GroupId}")
    def get_group(call: Call) -> Reply: ...

A handler is a plain function. It runs on a thread of the store, inside one transaction, may raise `Fault`, and tells
the rest of the cloud what happened with `call.tx.tell(event)` (events.py). What is slow and needs no state (making
keys, unpacking, digests) goes into the operation's `before`, whose result is `call.prepared`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any
from urllib.parse import quote, unquote_to_bytes

from ggfast.cloud.faults import Fault
from ggfast.cloud.limits import PAGE_DEFAULT, PAGE_MAX, REQUEST_BYTES_MAX
from ggfast.cloud.shapes import Member, Record, Shape, Text, Wrong, shown
from ggfast.cloud.store.interface import BadToken, Document, Page, Transaction

if TYPE_CHECKING:
    from ggfast.cloud.surroundings import Surroundings

CLIENT_TOKEN = "AmznClientToken"


@dataclass(frozen=True, slots=True)
class Principal:
    """Who asks. `allows(action, resource)` is the decision of the key's policy; a device's is made by its own.

    `allows_with` is the same with further values for conditions; None: there are no conditions to be asked.
    """

    arn: str
    key_id: str
    allows: Callable[[str, str], bool]
    allows_with: Callable[[str, str, Mapping[str, str]], bool] | None = None


@dataclass(frozen=True, slots=True)
class Reply:
    """A result: its members, or a raw body; `status` 0 means the operation's own."""

    members: Mapping[str, Any] = field(default_factory=dict)
    status: int = 0
    headers: Mapping[str, str] = field(default_factory=dict)
    raw: bytes | None = None
    content_type: str = ""


@dataclass(slots=True)
class Call:
    """One request to one operation, inside its transaction. `params` holds the members that were given, read."""

    cloud: Surroundings
    tx: Transaction
    service: Service
    region: str
    principal: Principal
    params: dict[str, Any]
    prepared: Any = None

    @property
    def account(self) -> str:
        """The account's 12 digits."""
        return self.cloud.account

    @property
    def home(self) -> str:
        """The parent of what belongs to account and region: "<account>/<region>"."""
        return f"{self.cloud.account}/{self.region}"

    def arn(self, resource: str, service: str = "") -> str:
        """`arn:aws:<service>:<region>:<account>:<resource>`."""
        return f"arn:aws:{service or self.service.name}:{self.region}:{self.cloud.account}:{resource}"

    def list(self, collection: str, parent: str, *, newest_first: bool = False) -> Page:
        """The page of a parent's documents that the request's paging members ask for."""
        limit, token = self._paging()
        try:
            return self.tx.list(collection, parent, limit=limit, token=token, newest_first=newest_first)
        except BadToken as error:
            raise self.invalid(self.service.token_names[0], token, "the token of an earlier page") from error

    def find(self, collection: str, label: str, value: str, *, newest_first: bool = False) -> Page:
        """The page of the documents with a label's value that the request's paging members ask for."""
        limit, token = self._paging()
        try:
            return self.tx.find(collection, label, value, limit=limit, token=token, newest_first=newest_first)
        except BadToken as error:
            raise self.invalid(self.service.token_names[0], token, "the token of an earlier page") from error

    def invalid(self, member: str, found: object, expected: str) -> Fault:
        """The service's refusal of one member's value."""
        return self.service.invalid(Wrong(member, shown(found), expected))

    def permit(self, operation: str, resource: str) -> None:
        """For an operation with `asks=False`: refuse unless the key's policies allow it on `resource`, an ARN."""
        check_permission(self.service, operation, self.principal, resource)

    def permit_role(self, role: str, service: str) -> None:
        """Refuse unless the key may hand a role, by its ARN, to a service ("greengrass.amazonaws.com"): whoever puts
        a role where its keys can be had has all that the role may do (IAM's iam:PassRole)."""
        action, who = "iam:PassRole", self.principal
        context = {"iam:PassedToService": service}
        if not (who.allows_with(action, role, context) if who.allows_with else who.allows(action, role)):
            raise _denied(self.service, who, action, role)

    def _paging(self) -> tuple[int, str | None]:
        token = next((self.params[name] for name in self.service.token_names if name in self.params), None)
        asked = next((self.params[name] for name in self.service.size_names if name in self.params), PAGE_DEFAULT)
        return max(1, min(int(asked), PAGE_MAX)), token


Handler = Callable[[Call], Reply]
Before = Callable[["Surroundings", dict[str, Any]], Any]


@dataclass(frozen=True, slots=True)
class Operation:
    """One operation: how it is asked for, what it takes, who may, and what does it."""

    name: str
    method: str
    segments: tuple[str, ...]  # of the path; `{Name}` for a member
    takes: Record
    status: int
    writes: bool
    resource: str  # of its ARN, with `{Member}`s; "" for "*"
    asks: bool  # False: whoever has a key may, or the handler asks `Call.permit`, as only the store tells the ARN
    body_bytes_max: int
    before: Before | None
    handler: Handler

    def arn(self, service: str, account: str, region: str, params: Mapping[str, Any]) -> str:
        """The ARN that policies of keys are asked about; a member that was not given counts as `*`."""
        if not self.resource:
            return "*"
        if self.resource.startswith("{") and self.resource.endswith("Arn}"):
            return str(params.get(self.resource[1:-1], "*"))
        region = "" if service in ("iam",) else region
        text = self.resource.format_map(_Given(params))
        return f"arn:aws:{service}:{region}:{account}:{text}"


class _Given(dict[str, str]):
    def __init__(self, params: Mapping[str, Any]) -> None:
        super().__init__({name: str(value) for name, value in params.items()})

    def __missing__(self, name: str) -> str:
        return "*"


class Service:
    """One service: its operations by name and by path, and how it words refusals.

    `name` is the SigV4 scope name, `prefix` the word before the colon in policy actions (the same unless given),
    `protocol` one of rest-json, query, json.
    """

    def __init__(
        self,
        name: str,
        *,
        protocol: str,
        invalid_code: str,
        unknown_operation: str = "UnknownOperationException",
        prefix: str = "",
        api_version: str = "",
        open_members: bool = False,
        token_names: tuple[str, ...] = ("NextToken",),
        size_names: tuple[str, ...] = ("MaxResults",),
    ) -> None:
        self.name = name
        self.protocol = protocol
        self.invalid_code = invalid_code
        self.unknown_operation = unknown_operation
        self.prefix = prefix or name
        self.api_version = api_version
        self.open_members = open_members
        self.token_names = token_names
        self.size_names = size_names
        self.operations: dict[str, Operation] = {}
        self._routes: dict[tuple[str, int], list[Operation]] = {}

    def operation(
        self,
        name: str,
        route: str,
        takes: Mapping[str, Shape | Member] | None = None,
        *,
        status: int = 200,
        writes: bool = False,
        resource: str = "",
        asks: bool = True,
        body_bytes_max: int = REQUEST_BYTES_MAX,
        before: Before | None = None,
    ) -> Callable[[Handler], Handler]:
        """Register a handler. Members named in the route's path are path members and must be there."""

        def register(handler: Handler) -> Handler:
            method, _, path = route.partition(" ")
            segments = tuple(path.strip("/").split("/"))
            members = {
                key: value if isinstance(value, Member) else Member(value) for key, value in (takes or {}).items()
            }
            for segment in segments:
                if segment.startswith("{"):
                    given = members.get(segment[1:-1], Member(Text(1, 2_048)))
                    members[segment[1:-1]] = Member(given.shape, True, "path")
            self.add(
                Operation(
                    name=name,
                    method=method,
                    segments=segments,
                    takes=Record(members, open=self.open_members),
                    status=status,
                    writes=writes,
                    resource=resource,
                    asks=asks,
                    body_bytes_max=body_bytes_max,
                    before=before,
                    handler=handler,
                )
            )
            return handler

        return register

    def add(self, operation: Operation) -> None:
        """Make an operation known. Literal segments win over members."""
        if operation.name in self.operations:
            raise ValueError(f"{self.name}.{operation.name} is there twice")
        self.operations[operation.name] = operation
        routes = self._routes.setdefault((operation.method, len(operation.segments)), [])
        routes.append(operation)
        routes.sort(key=lambda known: [segment.startswith("{") for segment in known.segments])

    def route(self, method: str, raw_path: str) -> tuple[Operation, dict[str, str]]:
        """The operation of a request and its path members, decoded. Raises Fault.

        The path is taken apart before it is decoded: `%2F` is part of a member (cloud-api 2).
        """
        segments = raw_path.strip("/").split("/")
        for operation in self._routes.get((method, len(segments)), ()):
            found: dict[str, str] = {}
            for pattern, segment in zip(operation.segments, segments, strict=True):
                if pattern.startswith("{"):
                    if not segment:
                        break
                    found[pattern[1:-1]] = self._decoded(pattern[1:-1], segment)
                elif pattern != segment and quote(pattern, safe="") != segment:
                    break
            else:
                return operation, found
        raise Fault(self.unknown_operation, f"{self.name} has no operation {method} {raw_path[:200]}.", status=404)

    def invalid(self, wrong: Wrong) -> Fault:
        """The refusal of a request whose member is not what it should be."""
        return Fault(self.invalid_code, f"{wrong}.")

    def _decoded(self, name: str, segment: str) -> str:
        try:
            return unquote_to_bytes(segment).decode()
        except UnicodeDecodeError as error:
            raise self.invalid(Wrong(name, "bytes that are not UTF-8", "UTF-8 text, percent-encoded")) from error


def check_permission(service: Service, operation: str, principal: Principal, resource: str) -> None:
    """Raise the service's Fault unless the policies of a key allow an operation on a resource."""
    action = f"{service.prefix}:{operation}"
    if not principal.allows(action, resource):
        raise _denied(service, principal, action, resource)


def _denied(service: Service, principal: Principal, action: str, resource: str) -> Fault:
    code = "AccessDenied" if service.protocol == "query" else "AccessDeniedException"
    text = f"User: {principal.arn} is not authorized to perform: {action} on resource: {resource}"
    return Fault(code, text, status=403)


def paged(
    token: str = "NextToken", size: str = "MaxResults", most: int = PAGE_MAX, *, where: str = "query"
) -> dict[str, Member]:
    """The paging members of a list, in the query string unless `where`. Sizes may be text that holds a number."""
    return {token: Member(Text(1, 2_048), where=where), size: Member(_Size(most), where=where)}


class _Size(Shape):
    """A page's size, as a number or a text with one (Greengrass sends text)."""

    def __init__(self, most: int) -> None:
        self.most = most
        self.expected = f"a whole number from 1 to {most}"

    def read(self, value: object, path: str) -> int:
        if isinstance(value, bool) or not str(value).isascii() or not str(value).isdigit() or len(str(value)) > 9:
            raise self.wrong(value, path)
        if int(str(value)) < 1:
            raise self.wrong(value, path)
        return min(int(str(value)), self.most)


def entries(page: Page, form: Callable[[Document], Any], member: str, token: str = "NextToken") -> Reply:
    """A list's answer: `member` with every document in its form, and the token if there is more."""
    members: dict[str, Any] = {member: [form(document) for document in page.documents]}
    if page.token is not None:
        members[token] = page.token
    return Reply(members)
