"""A function's ARN in its parts."""

import re

_ARN = re.compile(r"^arn:aws:lambda:([a-z0-9-]*):([0-9]*):function:([A-Za-z0-9_-]+)(?::(\$LATEST|[A-Za-z0-9_-]+))?$")


class FunctionArnFields:
    """Region, account, name and qualifier of an ARN."""

    def __init__(self, arn):
        match = _ARN.match(arn)
        if match is None:
            raise ValueError("not a function ARN: " + arn)
        self.region, self.account_id, self.name, self.qualifier = match.groups()

    @staticmethod
    def build_arn_string(region, account_id, name, qualifier):
        """The ARN of these parts."""
        arn = f"arn:aws:lambda:{region}:{account_id}:function:{name}"
        return arn + ":" + qualifier if qualifier else arn
