"""The SDK of the bundle."""

__version__ = "1.0.0"

from greengrasssdk.client import client  # noqa: F401  (what users import)
