"""Objects that definitions name by an address in a bucket or by the ARN of a training job: artifacts kept here.

There is no S3 beside this cloud, so an address leads nowhere by itself. Whoever runs the cloud registers an artifact
under the address that definitions have; then models (`S3Uri`, `SageMakerJobArn`) and bulk input (`InputFileUri`) find
it. The three ways to write the address of one object are one name.
"""

from __future__ import annotations

import re

from ggfast.cloud.store.interface import Body, Transaction

OBJECTS = "object"

_HOST = r"s3(?:[.-](?:dualstack\.)?[a-z0-9-]+)?\.amazonaws\.com(?:\.cn)?"
_WRITTEN = (
    re.compile(rf"https://{_HOST}/(?P<bucket>[a-z0-9][a-z0-9.-]{{1,61}}[a-z0-9])/(?P<key>.+)"),
    re.compile(rf"https://(?P<bucket>[a-z0-9][a-z0-9.-]{{1,61}}[a-z0-9])\.{_HOST}/(?P<key>.+)"),
)


def register_object(tx: Transaction, home: str, address: str, digest: str, size: int) -> None:
    """Let `address` mean the artifact `digest` of `size` bytes, which is kept already."""
    tx.put(OBJECTS, home, object_name(address), {"digest": digest, "size": size})


def find_object(tx: Transaction, home: str, address: str) -> Body | None:
    """`digest` and `size` of what `address` means, None if nothing was registered."""
    return tx.get(OBJECTS, home, object_name(address))


def object_name(address: str) -> str:
    """`s3://<bucket>/<key>` for the address of an object in whatever form; anything else as it is."""
    for form in _WRITTEN:
        match = form.fullmatch(address)
        if match is not None:
            return f"s3://{match['bucket']}/{match['key']}"
    return address
