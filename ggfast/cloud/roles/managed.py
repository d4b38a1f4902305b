"""Policies under `arn:aws:iam::aws:policy/`: every name may be attached; these grant something.

They grant what their names promise of the operations that exist here. Any other name grants nothing.
"""

from __future__ import annotations

from collections.abc import Mapping

import orjson

PREFIX = "arn:aws:iam::aws:policy/"

_READ_IOT = ("iot:Describe*", "iot:Get*", "iot:List*", "iot:Search*")
_READ_LAMBDA = ("lambda:Get*", "lambda:List*")
_READ_IAM = ("iam:Get*", "iam:List*")
_READ_GREENGRASS = ("greengrass:Get*", "greengrass:List*")
_READ_SECRETS = ("secretsmanager:Describe*", "secretsmanager:Get*", "secretsmanager:List*")
_IOT_DATA = (
    "iot:Connect",
    "iot:Publish",
    "iot:Receive",
    "iot:Subscribe",
    "iot:RetainPublish",
    "iot:GetRetainedMessage",
    "iot:ListRetainedMessages",
    "iot:GetThingShadow",
    "iot:UpdateThingShadow",
    "iot:DeleteThingShadow",
    "iot:ListNamedShadowsForThing",
)
_LOGS = ("logs:CreateLogGroup", "logs:CreateLogStream", "logs:PutLogEvents")

# What each grants: actions and the resources they are granted on.
_GRANTS: Mapping[str, tuple[tuple[tuple[str, ...], str], ...]] = {
    "AdministratorAccess": ((("*",), "*"),),
    "ReadOnlyAccess": (((*_READ_IOT, *_READ_LAMBDA, *_READ_IAM, *_READ_GREENGRASS), "*"),),
    "AWSGreengrassFullAccess": ((("greengrass:*",), "*"),),
    "AWSGreengrassReadOnlyAccess": ((_READ_GREENGRASS, "*"),),
    "AWSIoTFullAccess": ((("iot:*", "iotjobsdata:*"), "*"),),
    "AWSIoTConfigAccess": ((("iot:*",), "*"),),
    "AWSIoTConfigReadOnlyAccess": ((_READ_IOT, "*"),),
    "AWSIoTDataAccess": ((_IOT_DATA, "*"),),
    "AWSLambda_FullAccess": ((("lambda:*", *_READ_IAM), "*"),),
    "AWSLambdaFullAccess": ((("lambda:*", *_READ_IAM), "*"),),
    "AWSLambda_ReadOnlyAccess": (((*_READ_LAMBDA, *_READ_IAM), "*"),),
    "AWSLambdaReadOnlyAccess": (((*_READ_LAMBDA, *_READ_IAM), "*"),),
    "IAMFullAccess": ((("iam:*",), "*"),),
    "IAMReadOnlyAccess": ((_READ_IAM, "*"),),
    "SecretsManagerReadWrite": ((("secretsmanager:*",), "*"),),
    "service-role/AWSLambdaBasicExecutionRole": ((_LOGS, "*"),),
    "service-role/AWSGreengrassResourceAccessRolePolicy": (
        (("iot:DeleteThingShadow", "iot:GetThingShadow", "iot:UpdateThingShadow"), "arn:aws:iot:*:*:thing/GG_*"),
        (("iot:DeleteThingShadow", "iot:GetThingShadow", "iot:UpdateThingShadow"), "arn:aws:iot:*:*:thing/*-gda"),
        (("iot:DeleteThingShadow", "iot:GetThingShadow", "iot:UpdateThingShadow"), "arn:aws:iot:*:*:thing/*-gcm"),
        (("iot:DescribeThing", "iot:DescribeCertificate"), "*"),
        (("greengrass:*",), "*"),
        (("lambda:GetFunction", "lambda:GetFunctionConfiguration"), "*"),
        (_READ_SECRETS, "arn:aws:secretsmanager:*:*:secret:greengrass-*"),
    ),
}


def managed_document(policy_arn: str) -> str:
    """The document of a managed policy, "" for one that grants nothing here."""
    grants = _GRANTS.get(policy_arn.removeprefix(PREFIX)) if policy_arn.startswith(PREFIX) else None
    if grants is None:
        return ""
    statements = [{"Effect": "Allow", "Action": list(actions), "Resource": resource} for actions, resource in grants]
    return orjson.dumps({"Version": "2012-10-17", "Statement": statements}).decode()
