"""ggfast: the open replacement for AWS Greengrass V1 (see README.md for the tour)."""

__version__ = "0.1.0"
