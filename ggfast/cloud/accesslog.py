"""The access log: one JSON line for each request. Never bodies, secrets, tokens or the Authorization header."""

from __future__ import annotations

from pathlib import Path

import orjson

from ggfast.cloud.limits import ACCESS_LOG_BYTES
from ggfast.cloud.surroundings import timestamp
from ggfast.log import RotatingFile


class AccessLog:
    """A file that keeps within limits.ACCESS_LOG_BYTES, older parts included. Never raises; `lost` counts lines that
    the disk refused."""

    def __init__(self, path: Path) -> None:
        self._file = RotatingFile(path, ACCESS_LOG_BYTES)
        self.lost = 0

    def write(
        self,
        *,
        time: float,
        request_id: str,
        source: str,
        key_id: str,
        region: str,
        service: str,
        operation: str,
        status: int,
        error: str,
        received: int,
        sent: int,
        seconds: float,
    ) -> None:
        """Write one line. Blocks for one short write."""
        line = {
            "time": timestamp(time),
            "requestId": request_id,
            "source": source,
            "keyId": key_id,
            "region": region,
            "service": service,
            "operation": operation,
            "status": status,
            "error": error,
            "bytesIn": received,
            "bytesOut": sent,
            "ms": round(seconds * 1e3, 3),
        }
        if not self._file.append(orjson.dumps(line, option=orjson.OPT_APPEND_NEWLINE)):
            self.lost += 1

    def close(self) -> None:
        """Let go of the file."""
        self._file.close()
