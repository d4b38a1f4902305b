"""Deployments on the cloud's side: freezing a group version, what cores fetch, what they report."""

# Its operations use what is here, and what is here uses groups and definitions: it begins, whichever is asked for.
import ggfast.cloud.greengrass  # noqa: F401
