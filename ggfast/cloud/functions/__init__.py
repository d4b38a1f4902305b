"""Lambda as far as deployments need it: functions with code, versions, aliases (cloud-api 9). None is run here."""

from ggfast.cloud.functions import aliases, functions, tags, updates, versions
from ggfast.cloud.functions.service import LAMBDA

__all__ = ["LAMBDA", "aliases", "functions", "tags", "updates", "versions"]
