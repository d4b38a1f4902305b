"""Secrets Manager: the source of secret resources (cloud-api 10, greengrass-core 17.4). Values are sealed."""

from ggfast.cloud.secrets import ending, listing, reading, writing
from ggfast.cloud.secrets.service import SECRETS

__all__ = ["SECRETS", "ending", "listing", "reading", "writing"]
