"""Sources of the devices' broker: "<account>/<region>/<client id>"; without a client id it is the cloud itself."""

from __future__ import annotations


def home_of(source: str) -> str:
    """ "<account>/<region>"."""
    return "/".join(source.split("/", 2)[:2])


def client_of(source: str) -> str:
    """The client id, "" for the cloud itself."""
    return source.split("/", 2)[2] if source.count("/") >= 2 else ""
