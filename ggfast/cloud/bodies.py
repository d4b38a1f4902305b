"""Reading bodies of requests: never more than allowed, never slower than allowed, never too many at once."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from aiohttp.web import BaseRequest

from ggfast.cloud.faults import Fault
from ggfast.cloud.limits import BODIES_BYTES_MAX, BODY_BYTES_PER_S, BODY_S


class Bodies:
    """`reading` is how many bytes are held for bodies on their way in and requests under way."""

    def __init__(self) -> None:
        self.reading = 0

    async def read(self, request: BaseRequest, most: int, too_large: Callable[[int], Fault]) -> bytes:
        """The whole body. Raises Fault: past `most` bytes, too slow, or too much is being read already."""
        length = request.content_length
        if length is not None and length > most:
            raise too_large(most)
        if not request.can_read_body:
            return b""
        held = most if length is None else length
        if self.reading + held > BODIES_BYTES_MAX:
            raise Fault("ThrottlingException", "Too many large requests at once; try again.", status=429)
        self.reading += held
        try:
            async with asyncio.timeout(BODY_S + held / BODY_BYTES_PER_S):
                return await self._read(request, most, too_large)
        except TimeoutError as error:
            message = f"The request's body did not arrive in time; send at least {BODY_BYTES_PER_S} bytes a second."
            raise Fault("RequestTimeoutException", message, status=408) from error
        finally:
            self.reading -= held

    async def _read(self, request: BaseRequest, most: int, too_large: Callable[[int], Fault]) -> bytes:
        if request.headers.get("Expect", "").lower() == "100-continue":
            assert request.transport is not None
            request.transport.write(b"HTTP/1.1 100 Continue\r\n\r\n")
        parts: list[bytes] = []
        size = 0
        async for part in request.content.iter_any():
            size += len(part)
            if size > most:
                raise too_large(most)
            parts.append(part)
        return b"".join(parts)
