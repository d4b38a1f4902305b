"""Roles and policies as documents. IAM knows no regions: everything lies under the account.

roles                 <account>                 <role name, lower case>   see iam.py
role-policies         <account>/<role name, lower case>   <policy name>   {document}
role-attachments      <account>/<role name, lower case>   <policy ARN>    {}; label policy
customer-policies     <account>                 <policy ARN>              {name, path, document, ...}; label name
"""

from __future__ import annotations

from collections.abc import Iterator

from ggfast.cloud.limits import PAGE_MAX
from ggfast.cloud.roles.managed import managed_document
from ggfast.cloud.store.interface import Body, Document, Transaction

ROLES = "roles"
INLINE = "role-policies"
ATTACHMENTS = "role-attachments"
CUSTOMER = "customer-policies"


def find_role(tx: Transaction, account: str, name: str) -> Body | None:
    """A role by its name, in its own spelling: names differ by more than case."""
    body = tx.get(ROLES, account, name.lower())
    return body if body is not None and body["name"] == name else None


def get_role(tx: Transaction, account: str, role_arn: str) -> Body | None:
    """A role by its ARN: at least `name`, `id`, `arn`, `created` (seconds since 1970), `trust` (its policy)."""
    body = find_role(tx, account, role_arn.rpartition("/")[2])
    return body if body is not None and body["arn"] == role_arn else None


def role_policies(tx: Transaction, account: str, role_arn: str) -> list[str]:
    """The policy documents of a role, inline and attached; none for a role that is not there."""
    role = get_role(tx, account, role_arn)
    if role is None:
        return []
    inline = [document.body["document"] for document in everything(tx, INLINE, under(account, role["name"]))]
    arns = [document.name for document in everything(tx, ATTACHMENTS, under(account, role["name"]))]
    attached = [policy_document(tx, account, arn) for arn in arns]
    return inline + [text for text in attached if text]


def policy_document(tx: Transaction, account: str, policy_arn: str) -> str:
    """The document of a policy; "" for one that grants nothing or is not there."""
    body = tx.get(CUSTOMER, account, policy_arn)
    return str(body["document"]) if body is not None else managed_document(policy_arn)


def under(account: str, role_name: str) -> str:
    """The parent of a role's policies and attachments."""
    return f"{account}/{role_name.lower()}"


def everything(tx: Transaction, collection: str, parent: str) -> Iterator[Document]:
    """All documents of a parent. Few: roles have bounds."""
    token: str | None = None
    while True:
        page = tx.list(collection, parent, limit=PAGE_MAX, token=token)
        yield from page.documents
        if page.token is None:
            return
        token = page.token
