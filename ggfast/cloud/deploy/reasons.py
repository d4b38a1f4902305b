"""Why a group cannot be deployed, in the words tools look for (greengrass-core 12.3)."""

from __future__ import annotations

from collections.abc import Iterable

from ggfast.cloud.deploy.records import Reasons
from ggfast.cloud.limits import DEPLOYMENT_REASONS_MAX
from ggfast.errors import PeerError, Problem
from ggfast.fields import Refusal

_CODES = {
    "Cores": "CORE_INVALID_ERROR",
    "Devices": "DEVICE_INVALID_ERROR",
    "Functions": "FUNCTION_INVALID_ERROR",
    "DefaultConfig": "FUNCTION_INVALID_ERROR",
    "Subscriptions": "SUBSCRIPTION_INVALID_ERROR",
    "Resources": "RESOURCE_INVALID_ERROR",
    "Loggers": "LOGGER_INVALID_ERROR",
    "Connectors": "CONNECTOR_INVALID_ERROR",
}


class NotDeployable(PeerError):
    """A group version that no core could run. `reasons` are a deployment's error details."""

    def __init__(self, reasons: Reasons) -> None:
        super().__init__(message_of(reasons))
        self.reasons = reasons[:DEPLOYMENT_REASONS_MAX]


def message_of(reasons: Reasons) -> str:
    """The error message of a deployment that failed while it was built."""
    models = [
        f"ErrorModel(errorCode={reason['DetailedErrorCode']}, errorMsg={reason['DetailedErrorMessage']})"
        for reason in reasons[:DEPLOYMENT_REASONS_MAX]
    ]
    if len(reasons) > DEPLOYMENT_REASONS_MAX:
        models.append(f"and {len(reasons) - DEPLOYMENT_REASONS_MAX} more")
    return (
        "We cannot deploy because the group definition is invalid or corrupted for the following reasons: "
        f"{{ErrorSet(errorSet=[{', '.join(models)}])}}"
    )


def reasons_of(problems: Iterable[Problem]) -> Reasons:
    """What was found wrong, as error details: V1's own words where it had them, else found and expected."""
    return [
        {
            "DetailedErrorCode": _code_of(problem),
            "DetailedErrorMessage": problem.text if isinstance(problem, Refusal) else str(problem),
        }
        for problem in problems
    ]


def _code_of(problem: Problem) -> str:
    """The two codes that the real service is known to have sent, else one of ours."""
    if problem.path.endswith(".CertificateArn"):
        return "THING_CERT_NOT_FOUND_ERROR"
    if isinstance(problem, Refusal) and "refers to resource of type" in problem.text:
        return "RESOURCE_TYPE_UNEXPECTED_ERROR"
    return _CODES.get(problem.path.partition("[")[0].partition(".")[0], "GROUP_INVALID_ERROR")
