"""Reading bodies of requests: never more than allowed, never slower than allowed, never too many at once."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

from aiohttp.web import BaseRequest

from ggfast.cloud.faults import Fault
from ggfast.cloud.limits import BODIES_BYTES_MAX, BODIES_BYTES_OF_ONE_MAX, BODY_BYTES_PER_S, BODY_S


class Bodies:
    """`reading` is how many bytes are held for bodies on their way in and requests under way."""

    def __init__(self) -> None:
        self.reading = 0
        self._of_source: Counter[str] = Counter()

    @asynccontextmanager
    async def read(
        self, request: BaseRequest, source: str, most: int, too_large: Callable[[int], Fault]
    ) -> AsyncIterator[bytes]:
        """The whole body, which counts until the context ends: what is made of it takes memory as well.

        Raises Fault: past `most` bytes, too slow, or too much is held already, of all or of one `source`, who
        stands for a sender: an address, a certificate.
        """
        length = request.content_length
        if length is not None and length > most:
            raise too_large(most)
        if not request.can_read_body:
            yield b""
            return
        held = most if length is None else length
        if self.reading + held > BODIES_BYTES_MAX or self._of_source[source] + held > BODIES_BYTES_OF_ONE_MAX:
            raise Fault("ThrottlingException", "Too many large requests at once; try again.", status=429)
        self.reading += held
        self._of_source[source] += held
        try:
            yield await self._read(request, most, too_large)
        finally:
            self.reading -= held
            self._of_source[source] -= held
            if not self._of_source[source]:
                del self._of_source[source]

    async def _read(self, request: BaseRequest, most: int, too_large: Callable[[int], Fault]) -> bytes:
        if request.headers.get("Expect", "").lower() == "100-continue":
            assert request.transport is not None
            request.transport.write(b"HTTP/1.1 100 Continue\r\n\r\n")
        parts: list[bytes] = []
        size = 0
        end = asyncio.get_running_loop().time() + BODY_S
        try:
            async with asyncio.timeout_at(end) as patience:
                async for part in request.content.iter_any():
                    size += len(part)
                    if size > most:
                        raise too_large(most)
                    parts.append(part)
                    patience.reschedule(end + size / BODY_BYTES_PER_S)
        except TimeoutError as error:
            message = f"The request's body did not arrive in time; send at least {BODY_BYTES_PER_S} bytes a second."
            raise Fault("RequestTimeoutException", message, status=408) from error
        return b"".join(parts)
