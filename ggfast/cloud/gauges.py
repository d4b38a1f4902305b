"""What `/metrics` shows beside requests: each part's numbers under their names."""

from __future__ import annotations

from ggfast.cloud.access import Access
from ggfast.cloud.accesslog import AccessLog
from ggfast.cloud.api import Api
from ggfast.cloud.listening import ApiListener
from ggfast.cloud.metrics import Metrics
from ggfast.cloud.store.sqlite import SqliteStore
from ggfast.counters import Counters
from ggfast.mqtt.broker import Broker


def show_front(metrics: Metrics, api: Api, listener: ApiListener, access: Access, log: AccessLog) -> None:
    """The API and its listener."""
    metrics.gauge("requests_under_way", "Requests being answered.", lambda: api.under_way)
    metrics.gauge("connections", "Open connections of the API.", lambda: listener.connections)
    metrics.gauge("certificate_expiry_seconds", "End of the servers' certificate.", lambda: listener.certificate.end)
    metrics.counter("connections_refused", "Connections closed: too many.", lambda: listener.refused)
    metrics.counter("signatures_failed", "Requests that were not believed.", lambda: access.failed)
    metrics.counter("log_lines_lost", "Access log lines the disk refused.", lambda: log.lost)


def show_store(metrics: Metrics, store: SqliteStore) -> None:
    """The store's writer."""
    metrics.gauge("store_queue", "Transactions that wait for the store's writer.", lambda: store.waiting)


def show_devices(metrics: Metrics, broker: Broker, counters: Counters) -> None:
    """The devices' listeners and everything they count."""
    metrics.gauge("devices_connected", "Clients in the MQTT broker.", lambda: broker.client_count)
    metrics.counters(counters)
