"""Certificate authorities of groups: their cores' server certificates are signed by them, devices trust them.

A group gets one when it is first deployed or when asked for one; asking again is rotation (greengrass-core 10.3).
Discovery gives the newest `GROUP_CAS_MAX`. Keys are sealed. Making one takes long, so it happens before the
transaction; one that turns out not to be needed waits for the next group.
"""

from __future__ import annotations

import secrets
from collections import deque
from dataclasses import dataclass
from typing import Any

from ggfast.cloud.authority import CA_LIFE
from ggfast.cloud.greengrass.groups import found_group
from ggfast.cloud.greengrass.service import GREENGRASS, arn_of, client_token, unknown
from ggfast.cloud.iot.relying import group_changed
from ggfast.cloud.limits import (
    GROUP_CA_SPARES_MAX,
    GROUP_CAS_MAX,
    SERVER_CERTIFICATE_MS_MAX,
    SERVER_CERTIFICATE_MS_MIN,
)
from ggfast.cloud.operations import Call, Reply
from ggfast.cloud.shapes import Shape, need
from ggfast.cloud.store.interface import Transaction
from ggfast.cloud.surroundings import Surroundings

_CA = "group-ca"
_CONFIGURATION = "group-ca-configuration"
_DELEGATION = "group-delegation"

_GROUP = "/greengrass/groups/{GroupId}"
_PATH = f"{_GROUP}/certificateauthorities"
_ONE = f"{_PATH}/{{CertificateAuthorityId}}"
_EXPIRY = f"{_PATH}/configuration/expiry"


@dataclass(frozen=True, slots=True)
class NewCa:
    """A CA that belongs to no group yet."""

    id: str
    pem: str
    key_pem: str
    not_after: float  # seconds since 1970


_spares: deque[NewCa] = deque(maxlen=GROUP_CA_SPARES_MAX)


def prepare_group_ca(cloud: Surroundings, _params: dict[str, Any]) -> NewCa:
    """A CA for the transaction that follows: fits as an operation's `before`. Blocks for up to a second."""
    try:
        return _spares.pop()
    except IndexError:
        # Two CAs of a group must not have one name: clients that look issuers up by name would take the wrong key.
        pem, key = cloud.authority.new_group_ca(f"ggfast group CA {secrets.token_hex(8)}")
        identifier, _, not_after = cloud.authority.check(pem)
        return NewCa(identifier, pem, key, not_after)


def group_cas(tx: Transaction, home: str, group_id: str) -> list[dict[str, Any]]:
    """The group's CAs, newest first: `id`, `arn`, `pem`, `not_after` (seconds since 1970), `sealed_key`;
    `delegates` for those that may sign CAs."""
    page = tx.list(_CA, f"{home}/{group_id}", limit=GROUP_CAS_MAX, newest_first=True)
    return [{"id": found.name, "arn": _arn(home, group_id, found.name), **found.body} for found in page.documents]


def ensure_group_ca(tx: Transaction, cloud: Surroundings, home: str, group_id: str, prepared: NewCa) -> dict[str, Any]:
    """The group's newest CA, as in `group_cas`; `prepared` becomes it if there is none."""
    known = group_cas(tx, home, group_id)
    if known:
        give_back(prepared)
        return known[0]
    return _add(tx, cloud, home, group_id, prepared)


def give_back(prepared: NewCa) -> None:
    """A prepared CA was not needed: another group may have it."""
    _spares.append(prepared)


def group_ca_key(cloud: Surroundings, ca: dict[str, Any]) -> str:
    """The private key, in PEM, of a CA from `group_cas`. Raises CorruptRecord."""
    return cloud.sealer.unseal(ca["sealed_key"], _purpose(ca["id"])).decode()


def certificate_expiry(tx: Transaction, home: str, group_id: str) -> int:
    """How long server certificates of the group's core live, in milliseconds."""
    found = tx.get(_CONFIGURATION, home, group_id)
    return SERVER_CERTIFICATE_MS_MIN if found is None else int(found["CertificateExpiryInMilliseconds"])


def certificate_seconds(tx: Transaction, cloud: Surroundings, home: str, group_id: str) -> int:
    """How long server certificates of the group's core live that are made now, in seconds: the group's setting unless
    the control plane's stands in its place."""
    own = certificate_expiry(tx, home, group_id) // 1_000
    return cloud.server_certificate_s or own


def delegation_of(tx: Transaction, cloud: Surroundings, home: str, group_id: str) -> dict[str, int]:
    """What cores may know of delegated CAs: `seconds`, the life of one made now, 0 if the group's core gets none;
    `revokedBefore`, in seconds since 1970: those whose validity begins before it are no longer to be used, 0 for none.

    None is given where it is switched off or forbidden, and by a CA made before CAs could delegate.
    """
    own = _delegation(tx, home, group_id)
    cas = group_cas(tx, home, group_id)
    given = bool(cas) and cas[0].get("delegates", False) and not own["forbidden"]
    return {"seconds": cloud.delegated_authority_s if given else 0, "revokedBefore": own["revoked_before"]}


def is_delegation_forbidden(tx: Transaction, home: str, group_id: str) -> bool:
    """Whether an operator keeps the group's core from getting a CA of its own."""
    return bool(_delegation(tx, home, group_id)["forbidden"])


def forbid_delegation(tx: Transaction, home: str, group_id: str, forbidden: bool) -> None:
    """The group's core gets no delegated CA from now on, or may have one again. Those it has stay good."""
    tx.put(_DELEGATION, home, group_id, _delegation(tx, home, group_id) | {"forbidden": forbidden})
    group_changed(tx, home, group_id)


def revoke_delegation(tx: Transaction, home: str, group_id: str, now: float) -> int:
    """Every delegated CA given until `now` is to be thrown away by its core; the new `revokedBefore`, in seconds since
    1970. It always grows: one given since the last time in the same second must not slip through."""
    own = _delegation(tx, home, group_id)
    since: int = max(int(now), own["revoked_before"] + 1)
    tx.put(_DELEGATION, home, group_id, own | {"revoked_before": since})
    group_changed(tx, home, group_id)
    return since


class _Milliseconds(Shape):
    """The life of server certificates; a text by the model, a number in published requests: both are taken."""

    expected = f"a whole number of milliseconds from {SERVER_CERTIFICATE_MS_MIN} (7 days) to "
    expected += f"{SERVER_CERTIFICATE_MS_MAX} (30 days)"

    def read(self, value: object, path: str) -> int:
        if isinstance(value, str) and value.isascii() and value.isdigit() and len(value) <= 18:
            value = int(value)
        if isinstance(value, bool) or not isinstance(value, int):
            raise self.wrong(value, path)
        if not SERVER_CERTIFICATE_MS_MIN <= value <= SERVER_CERTIFICATE_MS_MAX:
            raise self.wrong(value, path)
        return value


@GREENGRASS.operation(
    "CreateGroupCertificateAuthority",
    f"POST {_PATH}",
    client_token(),
    writes=True,
    resource=_GROUP,
    before=prepare_group_ca,
)
def create_ca(call: Call) -> Reply:
    """The group's first CA, or a new one beside the old."""
    prepared: NewCa = call.prepared
    try:
        group_id, _ = found_group(call)
    except Exception:
        give_back(prepared)
        raise
    ca = _add(call.tx, call.cloud, call.home, group_id, prepared)
    return Reply({"GroupCertificateAuthorityArn": ca["arn"]})


@GREENGRASS.operation("ListGroupCertificateAuthorities", f"GET {_PATH}", resource=_GROUP)
def list_cas(call: Call) -> Reply:
    """The group's CAs, newest first."""
    group_id, _ = found_group(call)
    return Reply({"GroupCertificateAuthorities": [_form(ca) for ca in group_cas(call.tx, call.home, group_id)]})


@GREENGRASS.operation("GetGroupCertificateAuthority", f"GET {_ONE}", resource=_ONE)
def get_ca(call: Call) -> Reply:
    """One CA with its certificate."""
    group_id, _ = found_group(call)
    identifier = call.params["CertificateAuthorityId"]
    for ca in group_cas(call.tx, call.home, group_id):
        if ca["id"] == identifier:
            return Reply(_form(ca) | {"PemEncodedCertificate": ca["pem"]})
    raise unknown(f"Certificate authority {identifier} of Group Definition {group_id} does not exist.")


@GREENGRASS.operation("GetGroupCertificateConfiguration", f"GET {_EXPIRY}", resource=_GROUP)
def get_configuration(call: Call) -> Reply:
    """How long the group's certificates live."""
    return _configuration(call, found_group(call)[0])


@GREENGRASS.operation(
    "UpdateGroupCertificateConfiguration",
    f"PUT {_EXPIRY}",
    {"CertificateExpiryInMilliseconds": need(_Milliseconds())},
    writes=True,
    resource=_GROUP,
)
def update_configuration(call: Call) -> Reply:
    """Server certificates made from now on live that long."""
    group_id, _ = found_group(call)
    member = "CertificateExpiryInMilliseconds"
    call.tx.put(_CONFIGURATION, call.home, group_id, {member: call.params[member]})
    group_changed(call.tx, call.home, group_id)
    return _configuration(call, group_id)


def _add(tx: Transaction, cloud: Surroundings, home: str, group_id: str, new: NewCa) -> dict[str, Any]:
    body = {
        "pem": new.pem,
        "not_after": new.not_after,
        "sealed_key": cloud.sealer.seal(new.key_pem.encode(), _purpose(new.id)),
        "delegates": True,
    }
    tx.put(_CA, f"{home}/{group_id}", new.id, body)
    newest = tx.list(_CA, f"{home}/{group_id}", limit=GROUP_CAS_MAX, newest_first=True)
    if newest.token is not None:
        rest = tx.list(_CA, f"{home}/{group_id}", limit=GROUP_CAS_MAX, token=newest.token, newest_first=True)
        for old in rest.documents:
            tx.delete(_CA, f"{home}/{group_id}", old.name)
    group_changed(tx, home, group_id)
    return {"id": new.id, "arn": _arn(home, group_id, new.id), **body}


def _delegation(tx: Transaction, home: str, group_id: str) -> dict[str, Any]:
    return tx.get(_DELEGATION, home, group_id) or {"forbidden": False, "revoked_before": 0}


def _configuration(call: Call, group_id: str) -> Reply:
    """Published answers have numbers here, and the CA's expiry as a time (cloud-api 6)."""
    cas = group_cas(call.tx, call.home, group_id)
    # Without a CA: when one made now would end.
    expiry = cas[0]["not_after"] if cas else call.cloud.clock.wall() + CA_LIFE.total_seconds()
    return Reply(
        {
            "CertificateAuthorityExpiryInMilliseconds": int(expiry) * 1_000,
            "CertificateExpiryInMilliseconds": certificate_expiry(call.tx, call.home, group_id),
            "GroupId": group_id,
        }
    )


def _form(ca: dict[str, Any]) -> dict[str, Any]:
    return {"GroupCertificateAuthorityArn": ca["arn"], "GroupCertificateAuthorityId": ca["id"]}


def _arn(home: str, group_id: str, identifier: str) -> str:
    return arn_of(home, f"/greengrass/groups/{group_id}/certificateauthorities/{identifier}")


def _purpose(identifier: str) -> str:
    return f"group-ca/{identifier}"
