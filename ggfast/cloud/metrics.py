"""What the control plane counts, as OpenMetrics text."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable

from ggfast.counters import Counters

CONTENT_TYPE = "application/openmetrics-text; version=1.0.0; charset=utf-8"
_BOUNDS_S = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)


class Metrics:
    """Requests by service, operation and class of status; latencies by service; numbers that others keep.

    Names of services and operations must be known ones, or "unknown": the set stays bounded. Never blocks.
    """

    def __init__(self) -> None:
        self._requests: dict[tuple[str, str, str], int] = {}
        self._latencies: dict[str, list[int]] = {}
        self._seconds: dict[str, float] = {}
        self._gauges: dict[str, tuple[str, Callable[[], float]]] = {}
        self._counters: dict[str, tuple[str, Callable[[], float]]] = {}
        self._bags: list[Counters] = []

    def request(self, service: str, operation: str, status: int, seconds: float) -> None:
        """Count one answered request."""
        key = (service, operation, f"{status // 100}xx")
        self._requests[key] = self._requests.get(key, 0) + 1
        buckets = self._latencies.setdefault(service, [0] * (len(_BOUNDS_S) + 1))
        buckets[bisect_left(_BOUNDS_S, seconds)] += 1
        self._seconds[service] = self._seconds.get(service, 0.0) + seconds

    def gauge(self, name: str, meaning: str, read: Callable[[], float]) -> None:
        """Show a number that goes up and down."""
        self._gauges[name] = (meaning, read)

    def counter(self, name: str, meaning: str, read: Callable[[], float]) -> None:
        """Show a number that only grows."""
        self._counters[name] = (meaning, read)

    def counters(self, bag: Counters) -> None:
        """Show every counter of a bag, by its name in a label."""
        self._bags.append(bag)

    def text(self) -> str:
        """Everything, in OpenMetrics form."""
        lines = ["# TYPE ggfast_cloud_requests counter", "# HELP ggfast_cloud_requests Answered requests."]
        for (service, operation, status), count in sorted(self._requests.items()):
            labels = f'service="{service}",operation="{operation}",status="{status}"'
            lines.append(f"ggfast_cloud_requests_total{{{labels}}} {count}")
        lines += [
            "# TYPE ggfast_cloud_request_seconds histogram",
            "# UNIT ggfast_cloud_request_seconds seconds",
            "# HELP ggfast_cloud_request_seconds From a request's head to its answer.",
        ]
        for service, buckets in sorted(self._latencies.items()):
            lines += self._histogram(service, buckets)
        for kind, suffix, table in (("gauge", "", self._gauges), ("counter", "_total", self._counters)):
            for name, (meaning, read) in sorted(table.items()):
                lines += [f"# TYPE ggfast_cloud_{name} {kind}", f"# HELP ggfast_cloud_{name} {meaning}"]
                lines.append(f"ggfast_cloud_{name}{suffix} {read():g}")
        lines += ["# TYPE ggfast_cloud_events counter", "# HELP ggfast_cloud_events What devices' listeners count."]
        for bag in self._bags:
            lines += [f'ggfast_cloud_events_total{{name="{name}"}} {value}' for name, value in bag.snapshot().items()]
        return "\n".join([*lines, "# EOF", ""])

    def _histogram(self, service: str, buckets: list[int]) -> list[str]:
        lines, total = [], 0
        for bound, count in zip((*map(str, _BOUNDS_S), "+Inf"), buckets, strict=True):
            total += count
            lines.append(f'ggfast_cloud_request_seconds_bucket{{service="{service}",le="{bound}"}} {total}')
        lines.append(f'ggfast_cloud_request_seconds_count{{service="{service}"}} {total}')
        lines.append(f'ggfast_cloud_request_seconds_sum{{service="{service}"}} {self._seconds[service]:.6f}')
        return lines
