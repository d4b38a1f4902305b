"""Names of functions as clients write them: a name, a partial or full ARN, each with or without a qualifier."""

from __future__ import annotations

import re

from ggfast.cloud.shapes import Shape

LATEST = "$LATEST"
REGION = r"[a-z]{2}(?:-[a-z]+)+-[0-9]"
_NAME = re.compile(
    r"(?:arn:aws[a-zA-Z-]*:lambda:)?"
    rf"(?:({REGION}):)?"
    r"(?:([0-9]{12}):)?(?:function:)?"
    r"([a-zA-Z0-9_-]{1,64})"
    r"(?::(\$LATEST|[a-zA-Z0-9_-]{1,128}))?"
)


class FunctionRef(str):
    """A function's bare name, with what else was written; "" for what was not."""

    region: str
    account: str
    qualifier: str

    __slots__ = ("account", "qualifier", "region")


class FunctionName(Shape):
    """A member that names a function. Policies of keys are asked about the bare name, however it was written."""

    expected = "a function's name (1 to 64 letters, digits, - and _), a partial or a full ARN, ':' and a qualifier"

    def read(self, value: object, path: str) -> FunctionRef:
        if isinstance(value, FunctionRef):
            return value
        found = parse_name(value) if isinstance(value, str) else None
        if found is None:
            raise self.wrong(value, path)
        return found


def parse_name(text: str) -> FunctionRef | None:
    """What a text names, None if it is no function's name or ARN."""
    match = _NAME.fullmatch(text) if len(text) <= 400 else None
    if match is None or (text.startswith("arn:") and (match[1] is None or match[2] is None)):
        return None
    found = FunctionRef(match[3])
    found.region, found.account, found.qualifier = match[1] or "", match[2] or "", match[4] or ""
    return found


def function_arn(home: str, name: str, qualifier: str = "") -> str:
    """The ARN of a function of `home` ("<account>/<region>"), with a qualifier if one is given."""
    account, _, region = home.partition("/")
    return f"arn:aws:lambda:{region}:{account}:function:{name}" + (f":{qualifier}" if qualifier else "")
