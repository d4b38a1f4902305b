"""What a core's local server and its devices depend on without a deployment, whoever changes it."""

from __future__ import annotations

import hashlib
from typing import Any

import orjson

from ggfast.cloud.devices.discovery import addresses_of
from ggfast.cloud.greengrass.authorities import certificate_seconds, delegation_of, group_cas
from ggfast.cloud.iot.relying import relied_by_core
from ggfast.cloud.store.interface import Transaction
from ggfast.cloud.surroundings import Surroundings


def trust_of(tx: Transaction, cloud: Surroundings, home: str, core: str) -> dict[str, Any]:
    """What a core (a thing's name) is told:

    `groupId` ("" if it runs none), `endedCertificates` (ids of devices' certificates that are not good any more,
    sorted), `authorities` (PEM, newest first), `certificateSeconds` (life of server certificates), `connectivity` (in
    the order in which devices try them), `delegation` (see `authorities.delegation_of`); `version`: a hash of the rest.
    """
    relied = relied_by_core(tx, home, core)
    found = {
        "groupId": relied.group,
        "endedCertificates": list(relied.ended),
        "authorities": [ca["pem"] for ca in group_cas(tx, home, relied.group)],
        "certificateSeconds": certificate_seconds(tx, cloud, home, relied.group),
        "connectivity": addresses_of(tx, home, core),
        "delegation": delegation_of(tx, cloud, home, relied.group),
    }
    return {"version": hashlib.sha256(orjson.dumps(found)).hexdigest(), **found}
