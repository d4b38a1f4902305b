"""What the control socket offers about functions: look at them, invoke one, see what waits for the cloud.

Answers of `ggfast-core functions`, `invoke` and `try`. Payloads travel as base64: they may be any bytes.
"""

from __future__ import annotations

import base64
import binascii
import time
from collections.abc import Mapping
from typing import Any

from ggfast import limits
from ggfast.arns import FunctionArn
from ggfast.core.functions.invocations import InvocationType
from ggfast.core.functions.manager import FunctionManager
from ggfast.core.spooler import MemorySpool
from ggfast.errors import ConfigError, Problem, Rejected

_REQUEST_WRONG = "The request is not valid."


class FunctionVerbs:
    """Verbs for ControlServer. Each takes the request and returns the answer's members."""

    def __init__(self, functions: FunctionManager, spool: MemorySpool) -> None:
        self._functions = functions
        self._spool = spool

    async def functions(self, request: Mapping[str, Any]) -> dict[str, Any]:
        """Every deployed function: state, instances, memory, invocations, errors, durations, last error."""
        return {"functions": [row.as_dict() for row in await self._functions.status()]}

    async def invoke(self, request: Mapping[str, Any]) -> dict[str, Any]:
        """Run `function` (name, name:version or ARN) with `payload`, `context` (both base64) and `type`; waits for
        a RequestResponse as long as the function's Timeout allows it to."""
        arn = self.find(request.get("function"))
        kinds = {"RequestResponse": InvocationType.REQUEST_RESPONSE, "Event": InvocationType.EVENT}
        kind = kinds.get(str(request.get("type", "RequestResponse")))
        if kind is None:
            problem = Problem("type", str(request.get("type"))[:40], "RequestResponse or Event")
            raise ConfigError(_REQUEST_WRONG, [problem])
        payload, context = _decoded(request, "payload"), _decoded(request, "context")
        began = time.perf_counter()
        result = await self._functions.invoke(arn, payload, context, kind)
        return {
            "arn": arn,
            "status": result.status.name,
            "function_error": result.function_error,
            "payload": base64.b64encode(result.payload).decode("ascii"),
            "milliseconds": round((time.perf_counter() - began) * 1000, 3),
        }

    async def spool(self, request: Mapping[str, Any]) -> dict[str, Any]:
        """The oldest messages that wait for the cloud, `count` at most, payloads in base64."""
        count = request.get("count", limits.SPOOL_LISTING_MAX)
        if not isinstance(count, int) or isinstance(count, bool) or not 0 <= count <= limits.SPOOL_LISTING_MAX:
            problem = Problem("count", str(count)[:40], f"0 to {limits.SPOOL_LISTING_MAX}")
            raise ConfigError(_REQUEST_WRONG, [problem])
        messages = [
            {
                "source": message.source,
                "topic": message.topic.decode("utf-8", "replace"),
                "payload": base64.b64encode(message.payload).decode("ascii"),
            }
            for message in self._spool.oldest(count)
        ]
        return {"messages": messages, "waiting": len(self._spool)}

    def find(self, name: object) -> str:
        """The ARN of the one deployed function that `name` can mean. Raises Rejected, saying which there are."""
        deployed = self._functions.deployed
        if isinstance(name, str) and name in deployed:
            return name
        parsed = {arn: FunctionArn.parse(arn) for arn in deployed}
        found = [arn for arn, parts in parsed.items() if name in (parts.name, f"{parts.name}:{parts.qualifier}")]
        if len(found) == 1:
            return found[0]
        if found:
            versions = ", ".join(f"{parsed[arn].name}:{parsed[arn].qualifier}" for arn in found)
            raise Rejected(f"{name} is deployed in {len(found)} versions.", hint=f"Name one of {versions}.")
        names = ", ".join(sorted(f"{parts.name}:{parts.qualifier}" for parts in parsed.values()))
        hint = f"Deployed: {names}." if names else "No function is deployed."
        raise Rejected(f"No function {str(name)[:200]!r} is deployed on this core.", reason_code=404, hint=hint)


def _decoded(request: Mapping[str, Any], key: str) -> bytes:
    value = request.get(key, "")
    try:
        return base64.b64decode(value, validate=True)
    except (TypeError, ValueError, binascii.Error):
        raise ConfigError(_REQUEST_WRONG, [Problem(key, str(value)[:40], "base64 text")]) from None
