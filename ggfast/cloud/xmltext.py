"""Replies of the query protocol as XML text."""

from __future__ import annotations

import re
from collections.abc import Mapping
from xml.sax.saxutils import escape

_NOT_XML = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")


def element(name: str, value: object) -> str:
    """One element: a mapping's members lie in it by name, a list's entries as `member`; None gives nothing.

    Characters that XML cannot hold become U+FFFD."""
    if value is None:
        return ""
    if isinstance(value, Mapping):
        inner = "".join(element(key, entry) for key, entry in value.items())
    elif isinstance(value, list | tuple):
        inner = "".join(element("member", entry) for entry in value)
    elif isinstance(value, bool):
        inner = "true" if value else "false"
    else:
        inner = escape(_NOT_XML.sub("�", str(value)), {"\r": "&#13;"})
    return f"<{name}>{inner}</{name}>"
