"""Lambda function ARNs, taken apart and put together the way published SDKs expect."""

import re

_ARN = re.compile(
    r"arn:(aws|aws-cn|aws-us-gov):lambda:([a-z0-9-]*):(\d{12})?:function:"
    r"([a-zA-Z0-9_-]+)(?::(\$LATEST|[a-zA-Z0-9_-]+))?\Z"
)


class FunctionArnFields(object):
    """The fields of a function ARN; ValueError for any other text. `qualifier` is None when there is none."""

    def __init__(self, function_arn_string):
        match = _ARN.match(function_arn_string) if isinstance(function_arn_string, str) else None
        if match is None:
            raise ValueError("ARN %r is not the ARN of a Lambda function" % (function_arn_string,))
        self.partition, self.region, account_id, self.name, self.qualifier = match.groups()
        self.account_id = account_id or ""
        self.unqualified_arn = "arn:%s:lambda:%s:%s:function:%s" % (
            self.partition,
            self.region,
            self.account_id,
            self.name,
        )

    def to_arn_string(self):
        return self.build_function_arn(self.unqualified_arn, self.qualifier)

    @staticmethod
    def build_function_arn(unqualified_arn, qualifier):
        """SDK 1.4 and later."""
        return "%s:%s" % (unqualified_arn, qualifier) if qualifier else unqualified_arn

    @staticmethod
    def build_arn_string(region, account_id, name, qualifier):
        """SDK 1.3 and earlier, which do not know partitions: the region tells."""
        region = region or ""
        partition = "aws-cn" if region.startswith("cn-") else "aws-us-gov" if region.startswith("us-gov-") else "aws"
        arn = "arn:%s:lambda:%s:%s:function:%s" % (partition, region, account_id or "", name)
        return FunctionArnFields.build_function_arn(arn, qualifier)
