"""Amazon resource names as values: parsing, building, and the names of the system functions.

Sources: greengrass-core 1.3 (system ARNs), 4.1 (shapes), sdk-contract 4 (what the SDK's parser accepts).
"""

from __future__ import annotations

import re
from dataclasses import dataclass

CLOUD = "cloud"
SHADOW_SERVICE = "GGShadowService"

ROUTER_ARN = "arn:aws:lambda:::function:GGRouter"
SHADOW_ARN = "arn:aws:lambda:::function:GGShadowService"
SECRETS_ARN = "arn:aws:lambda:::function:GGSecretManager:1"
IP_DETECTOR_ARN = "arn:aws:lambda:::function:GGIPDetector:1"
SPOOLER_ARN = "arn:aws:lambda:::function:GGCloudSpooler:1"
STREAM_MANAGER_ARN = "arn:aws:lambda:::function:GGStreamManager:1"

_PARTITION = r"(?P<partition>aws|aws-cn|aws-us-gov)"
_REGION = r"(?P<region>[a-z]{2}(?:-[a-z]+)+-[0-9]{1,2})"
_ACCOUNT = r"(?P<account>[0-9]{12})"
_THING = re.compile(rf"arn:{_PARTITION}:iot:{_REGION}:{_ACCOUNT}:thing/(?P<name>[a-zA-Z0-9:_-]{{1,128}})")
_CERTIFICATE = re.compile(rf"arn:{_PARTITION}:iot:{_REGION}:{_ACCOUNT}:cert/(?P<id>[0-9a-f]{{64}})")
_FUNCTION = re.compile(
    rf"arn:{_PARTITION}:lambda:(?:{_REGION})?:(?:{_ACCOUNT})?:function:"
    r"(?P<name>[a-zA-Z0-9_-]{1,140})(?::(?P<qualifier>\$LATEST|[a-zA-Z0-9_-]{1,128}))?"
)
_GROUP = re.compile(
    rf"arn:{_PARTITION}:greengrass:{_REGION}:{_ACCOUNT}:/greengrass/groups/(?P<group>[a-zA-Z0-9-]{{1,64}})"
    r"(?:/versions/(?P<version>[a-zA-Z0-9-]{1,64}))?"
)


@dataclass(frozen=True, slots=True)
class ThingArn:
    """`arn:aws:iot:<region>:<account>:thing/<name>`."""

    partition: str
    region: str
    account: str
    name: str

    def __str__(self) -> str:
        return f"arn:{self.partition}:iot:{self.region}:{self.account}:thing/{self.name}"

    @classmethod
    def parse(cls, text: str) -> ThingArn:
        """Raise ValueError, naming the text, unless it is a thing ARN."""
        match = _THING.fullmatch(text)
        if match is None:
            raise ValueError(f"not a thing ARN: {text!r}")
        return cls(match["partition"], match["region"], match["account"], match["name"])


@dataclass(frozen=True, slots=True)
class FunctionArn:
    """`arn:aws:lambda:<region>:<account>:function:<name>[:<qualifier>]`; system functions have neither
    region nor account."""

    partition: str
    region: str
    account: str
    name: str
    qualifier: str

    def __str__(self) -> str:
        return self.unqualified + (f":{self.qualifier}" if self.qualifier else "")

    @property
    def unqualified(self) -> str:
        return f"arn:{self.partition}:lambda:{self.region}:{self.account}:function:{self.name}"

    @property
    def is_system(self) -> bool:
        return not self.region and not self.account

    @classmethod
    def parse(cls, text: str) -> FunctionArn:
        """Raise ValueError, naming the text, unless it is a function ARN."""
        match = _FUNCTION.fullmatch(text)
        if match is None or bool(match["region"]) != bool(match["account"]):
            raise ValueError(f"not a function ARN: {text!r}")
        return cls(
            match["partition"],
            match["region"] or "",
            match["account"] or "",
            match["name"],
            match["qualifier"] or "",
        )


@dataclass(frozen=True, slots=True)
class GroupArn:
    """`arn:aws:greengrass:<region>:<account>:/greengrass/groups/<id>[/versions/<id>]`."""

    partition: str
    region: str
    account: str
    group_id: str
    version_id: str

    def __str__(self) -> str:
        base = f"arn:{self.partition}:greengrass:{self.region}:{self.account}:/greengrass/groups/{self.group_id}"
        return base + (f"/versions/{self.version_id}" if self.version_id else "")

    @classmethod
    def parse(cls, text: str) -> GroupArn:
        """Raise ValueError, naming the text, unless it is a group or group version ARN."""
        match = _GROUP.fullmatch(text)
        if match is None:
            raise ValueError(f"not a Greengrass group ARN: {text!r}")
        return cls(match["partition"], match["region"], match["account"], match["group"], match["version"] or "")


def certificate_id(arn: str) -> str:
    """The certificate id in a certificate ARN: SHA-256 of the DER form, in hex (greengrass-core 10.2).

    Raises ValueError unless `arn` is `arn:aws:iot:<region>:<account>:cert/<64 hex digits>`.
    """
    match = _CERTIFICATE.fullmatch(arn)
    if match is None:
        raise ValueError(f"not a certificate ARN: {arn!r}")
    return match["id"]
