"""The IoT data plane: shadows, messages published by the API, retained messages. Importing it registers everything."""

from ggfast.cloud.shadows import messages, operations

__all__ = ["messages", "operations"]
