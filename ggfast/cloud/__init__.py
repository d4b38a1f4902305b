"""ggfast-cloud: the control plane. The Greengrass API, IoT registry, discovery and the data plane for devices.

A request's way: `api` (HTTP) -> `signing` (who) -> `protocols` (which operation, which members) -> `dispatch` (may
they, one transaction) -> a handler in the folder of its service -> `store`. Handlers are plain functions of a `Call`;
they know neither HTTP nor SQL. `operations` holds the vocabulary, `greengrass/definitions` the one repeated idea.
"""
