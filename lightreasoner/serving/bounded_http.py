"""A transport of httpx that reads an answer whole, but only within limits: a server may be anyone.

An answer that never ends, or that comes a byte at a time, is given up; of a failure only the
beginning is read. Compressed answers, which may unpack to any size, are not asked for and refused.
What reaches the client is the status, the bytes, and those headers that it heeds.
"""

import asyncio
from pathlib import Path

import httpx

HEEDED = ("retry-after", "retry-after-ms", "x-should-retry", "location")
FAILURE_BYTES = 4096
"""Of an answer with another status than 2xx: an error message quotes less."""


class UnboundedError(Exception):
    """An answer reached a limit; asking again would bring the same."""


class BoundedTransport(httpx.AsyncBaseTransport):
    """Answers of at most `most` bytes that are there `seconds` after they were asked for, from the
    server's address or from one that listens on the file `socket`.

    Raises httpx.ReadTimeout where nothing came in that time, UnboundedError for all that came so
    far if it is too slow, too large or compressed, and what httpx raises.
    """

    def __init__(self, most: int, seconds: float, socket: Path | None = None):
        limits = httpx.Limits(max_connections=None)
        uds = str(socket) if socket else None
        self._inner = httpx.AsyncHTTPTransport(trust_env=False, limits=limits, uds=uds)
        self._most, self._seconds = most, seconds

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        """The whole answer. Raises as the class says."""
        request.headers["Accept-Encoding"] = "identity"
        body = bytearray()
        try:
            async with asyncio.timeout(self._seconds):
                answer = await self._inner.handle_async_request(request)
                try:
                    await self._read(answer, body)
                finally:
                    await answer.aclose()
        except TimeoutError:
            if not body:
                raise httpx.ReadTimeout("no answer", request=request) from None
            raise UnboundedError(
                f"its answer of {len(body):,} bytes so far had no end after {self._seconds:g} s"
            ) from None
        headers = [(name, answer.headers[name]) for name in HEEDED if name in answer.headers]
        return httpx.Response(answer.status_code, headers=headers, content=bytes(body))

    async def _read(self, answer: httpx.Response, body: bytearray) -> None:
        packing = answer.headers.get("content-encoding", "identity")
        if packing.lower() != "identity":
            raise UnboundedError(f"its answer is packed ({packing[:20]!r}), unasked")
        async for part in answer.aiter_raw():
            body += part
            if not answer.is_success and len(body) >= FAILURE_BYTES:
                del body[FAILURE_BYTES:]
                return
            if len(body) > self._most:
                raise UnboundedError(f"its answer has over {self._most:,} bytes")

    async def aclose(self) -> None:
        """Close all connections."""
        await self._inner.aclose()
