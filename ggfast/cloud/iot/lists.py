"""Lists that show only some of what lies in the store, and lists that are put together."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

from ggfast.cloud.limits import LIST_LOOKS_MAX, PAGE_DEFAULT
from ggfast.cloud.operations import Call, Reply
from ggfast.cloud.store.interface import Document, Page


def sifted(call: Call, fits: Callable[[Document], bool], fetch: Callable[[Call], Page]) -> Page:
    """The request's page of those documents that fit. It may be short, with a token, when few of many do: a
    request looks at a bounded part of the store. `fetch` gets a call with the paging members of each look."""
    left = int(call.params.get("maxResults", PAGE_DEFAULT))
    params = dict(call.params)
    kept: list[Document] = []
    token: str | None = None
    for _ in range(LIST_LOOKS_MAX):
        page = fetch(replace(call, params=params | {"maxResults": left}))
        found = [document for document in page.documents if fits(document)]
        kept += found
        left -= len(found)
        token = page.token
        if token is None or left < 1:
            break
        params["nextToken"] = token
    return Page(kept, token)


def portion(call: Call, found: Sequence[Any], member: str, token_in: str, token_out: str, size: str) -> Reply:
    """The request's page of a short list that lies in memory; tokens are positions in it."""
    token = call.params.get(token_in, "0")
    if not (token.isascii() and token.isdigit() and len(token) <= 9):
        raise call.invalid(token_in, token, "the token of an earlier page")
    begin = int(token)
    end = begin + int(call.params.get(size, PAGE_DEFAULT))
    more: dict[str, Any] = {token_out: str(end)} if end < len(found) else {}
    return Reply({member: list(found[begin:end]), **more})
