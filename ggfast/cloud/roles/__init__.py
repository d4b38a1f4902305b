"""IAM and STS as far as tools and cores need them: roles, their policies, short-lived keys (cloud-api 10)."""

from ggfast.cloud.roles import attachments, customer, iam, inline, sts
from ggfast.cloud.roles.service import IAM, STS

__all__ = ["IAM", "STS", "attachments", "customer", "iam", "inline", "sts"]
