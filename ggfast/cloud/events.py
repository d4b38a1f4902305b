"""What handlers tell the rest of the cloud; delivered on the loop once their transaction is on disk."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Publish:
    """Hand a message to the broker for whoever subscribed, as the cloud itself.

    `home` is the account and region whose devices it is for: topics of regions know nothing of each other. "": of all.
    """

    topic: str
    payload: bytes
    qos: int = 0
    retain: bool = False
    home: str = ""


@dataclass(frozen=True, slots=True)
class PermissionsChanged:
    """Policies or attachments are different: look up again what was remembered. `certificate_id` "": all of them."""

    certificate_id: str = ""


@dataclass(frozen=True, slots=True)
class CertificateEnded:
    """A certificate is no longer active: its connections end."""

    certificate_id: str


@dataclass(frozen=True, slots=True)
class CertificateTrusted:
    """A certificate that our CA did not sign became a trust anchor of its own."""

    certificate_pem: str


@dataclass(frozen=True, slots=True)
class DeploymentReady:
    """A core has a new deployment to fetch."""

    region: str
    thing_name: str
    deployment_id: str


@dataclass(frozen=True, slots=True)
class CoreChanged:
    """What a core depends on without a deployment is different: its devices' certificates, its group's authorities,
    its addresses. `iot.relying.group_changed` tells it to the core of a group."""

    region: str
    thing_name: str


@dataclass(frozen=True, slots=True)
class DeploymentEventsWaiting:
    """Deployments changed their state: `deploy.outbox` has events to deliver."""


@dataclass(frozen=True, slots=True)
class KeysChanged:
    """Access keys were made, removed or switched: opened ones are forgotten."""


@dataclass(frozen=True, slots=True)
class BulkDeploymentWaiting:
    """A bulk deployment has work: `deploy.bulk_steps.run_bulk_deployments` goes on with it."""
