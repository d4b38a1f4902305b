"""Links to artifacts that work without a key and end by themselves: `GET /artifacts/<digest>?token=...`.

The token is the link's end in seconds since 1970, sealed for that digest: nobody else can make or change one, and
nothing about it is stored.
"""

from __future__ import annotations

from urllib.parse import quote

from ggfast.cloud.limits import ARTIFACT_LINK_S
from ggfast.cloud.surroundings import Surroundings
from ggfast.errors import CorruptRecord

PATH = "/artifacts/"


def artifact_link(cloud: Surroundings, digest: str, seconds: float = ARTIFACT_LINK_S) -> str:
    """The URL of an artifact on the API's port, good for `seconds`. Never blocks."""
    end = f"{cloud.clock.wall() + seconds:.0f}"
    token = cloud.sealer.seal(end.encode(), _purpose(digest))
    return f"{cloud.endpoints.api_url}{PATH}{digest}?token={quote(token, safe='')}"


def link_is_good(cloud: Surroundings, digest: str, token: str) -> bool:
    """Whether `token` is of a link to `digest` that has not ended. Never blocks."""
    try:
        end = float(cloud.sealer.unseal(token, _purpose(digest)))
    except (CorruptRecord, ValueError):
        return False
    return cloud.clock.wall() <= end


def _purpose(digest: str) -> str:
    return f"artifact-link/{digest}"
