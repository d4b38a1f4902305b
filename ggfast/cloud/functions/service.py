"""The service, and what its operations have in common: refusals, finding functions."""

from __future__ import annotations

from ggfast.cloud.faults import Fault
from ggfast.cloud.functions.names import FunctionRef, function_arn
from ggfast.cloud.functions.store import FUNCTIONS, Qualified, find
from ggfast.cloud.operations import Call, Service
from ggfast.cloud.shapes import Wrong
from ggfast.cloud.store.interface import Body


class _Lambda(Service):
    def invalid(self, wrong: Wrong) -> Fault:
        return invalid(f"{wrong}.")


LAMBDA = _Lambda(
    "lambda",
    protocol="rest-json",
    invalid_code="InvalidParameterValueException",
    open_members=True,
    token_names=("Marker",),
    size_names=("MaxItems",),
)
PATH = "/2015-03-31/functions"
RESOURCE = "function:{FunctionName}"


def refusal(code: str, message: str, status: int = 400) -> Fault:
    """A Fault with the `Type` that Lambda sends beside its message."""
    return Fault(code, message, status=status, members={"Type": "User"})


def invalid(message: str) -> Fault:
    """The refusal of a parameter."""
    return refusal("InvalidParameterValueException", message)


def not_found(message: str) -> Fault:
    """The refusal of a name that leads nowhere."""
    return refusal("ResourceNotFoundException", message, 404)


def check_revision(given: str | None, current: str, what: str) -> None:
    """Raise Fault if the client has seen another revision than the one that is there."""
    if given is not None and given != current:
        raise refusal(
            "PreconditionFailedException",
            f"The Revision Id provided does not match the latest Revision Id. Call the {what} API to retrieve the "
            "latest Revision Id",
            412,
        )


def check_place(call: Call, name: FunctionRef) -> None:
    """Raise Fault for an ARN of another region or account."""
    if name.region and name.region != call.region:
        raise not_found(f"Functions from '{name.region}' are not reachable in this region ('{call.region}')")
    if name.account and name.account != call.account:
        raise not_found(f"Functions of account {name.account} are not reachable in this account ({call.account})")


def the_function(call: Call, *, qualified: bool = False) -> tuple[str, Body]:
    """Name and document of the function a request is about. `qualified`: its name may carry a qualifier."""
    name: FunctionRef = call.params["FunctionName"]
    check_place(call, name)
    if name.qualifier not in ("", "$LATEST") and not qualified:
        raise invalid(f"The operation takes no qualifier: found '{name.qualifier}', expected the function's own name.")
    body = call.tx.get(FUNCTIONS, call.home, str(name))
    if body is None:
        raise not_found(f"Function not found: {function_arn(call.home, name)}")
    return str(name), body


def asked_qualifier(call: Call) -> str:
    """The qualifier of the name or of the member; they must not differ. "" for none."""
    name: FunctionRef = call.params["FunctionName"]
    given: str = call.params.get("Qualifier", "")
    if name.qualifier and given and name.qualifier != given:
        raise invalid("The derived qualifier from the function name does not match the specified qualifier.")
    return given or name.qualifier


def the_version(call: Call) -> tuple[Qualified, str]:
    """The version a request is about, and the qualifier it was asked by."""
    name, _ = the_function(call, qualified=True)
    qualifier = asked_qualifier(call)
    found = find(call.tx, call.home, name, qualifier)
    if found is None:
        arn = function_arn(call.home, name, qualifier)
        raise not_found(f"Function not found: {arn}" if qualifier.isdigit() else f"Cannot find alias arn: {arn}")
    return found, qualifier
