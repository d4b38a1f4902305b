"""What differs between two groups, as an ordered list of changes (promise P4: a deployment does what its diff says).

The order is the one a running core applies them in, so that no message is lost and none passes without an entry:
what is new comes first, then the table is swapped, then what nobody refers to any more goes.

    header, resources, loggers → functions added, devices added → functions changed → devices changed → table
    → functions removed → devices removed

Functions that change start beside their predecessors before the table is swapped; they take over, and certificates of
changed devices end, in the turn in which it is (core/deploy/apply.py).

Functions are told apart by ARN, devices by thing ARN. Pure.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum

from ggfast.group.document import Core, Device, Execution, Function, Group, Logger, Resource, Subscription
from ggfast.group.functions import isolation_of, memory_kb_of, run_as_of


class Reason(StrEnum):
    """Why a function is not what it was."""

    CODE = "code"
    CONFIGURATION = "configuration"
    RESOURCES = "resources"
    DEFAULTS = "group defaults"
    ID = "id"


@dataclass(frozen=True, slots=True)
class HeaderChanged:
    """Name, ids, core or default execution of the group; what it means for functions is in their own changes."""

    group: Group


@dataclass(frozen=True, slots=True)
class ResourcesChanged:
    """The resources from now on."""

    resources: tuple[Resource, ...]


@dataclass(frozen=True, slots=True)
class LoggersChanged:
    """The loggers from now on."""

    loggers: tuple[Logger, ...]


@dataclass(frozen=True, slots=True)
class FunctionAdded:
    """A function that was not there."""

    function: Function


@dataclass(frozen=True, slots=True)
class FunctionChanged:
    """A function that runs differently from now on, and why."""

    old: Function
    new: Function
    reasons: tuple[Reason, ...]

    @property
    def needs_restart(self) -> bool:
        """Whether its workers must be replaced."""
        return any(reason is not Reason.ID for reason in self.reasons)


@dataclass(frozen=True, slots=True)
class FunctionRemoved:
    """A function that goes."""

    function: Function


@dataclass(frozen=True, slots=True)
class DeviceAdded:
    """A device that may connect from now on."""

    device: Device


@dataclass(frozen=True, slots=True)
class DeviceChanged:
    """A device with another certificate or another setting."""

    old: Device
    new: Device

    @property
    def must_reconnect(self) -> bool:
        """Whether a connection made with the old certificate has to end."""
        return self.old.certificate_arn != self.new.certificate_arn


@dataclass(frozen=True, slots=True)
class DeviceRemoved:
    """A device that may not connect any more."""

    device: Device


@dataclass(frozen=True, slots=True)
class TableChanged:
    """The subscriptions from now on."""

    subscriptions: tuple[Subscription, ...]


Change = (
    HeaderChanged
    | ResourcesChanged
    | LoggersChanged
    | FunctionAdded
    | FunctionChanged
    | FunctionRemoved
    | DeviceAdded
    | DeviceChanged
    | DeviceRemoved
    | TableChanged
)


def diff(old: Group, new: Group) -> tuple[Change, ...]:
    """The changes that lead from `old` to `new`, in the order to apply them; empty if nothing differs."""
    changes: list[Change] = []
    if _header(old) != _header(new):
        changes.append(HeaderChanged(_only_header(new)))
    if old.resources != new.resources:
        changes.append(ResourcesChanged(new.resources))
    if old.loggers != new.loggers:
        changes.append(LoggersChanged(new.loggers))
    functions_before = {function.arn: function for function in old.functions}
    functions_after = {function.arn: function for function in new.functions}
    devices_before = {device.thing_arn: device for device in old.devices}
    devices_after = {device.thing_arn: device for device in new.devices}
    changes += [FunctionAdded(item) for arn, item in functions_after.items() if arn not in functions_before]
    changes += [DeviceAdded(item) for arn, item in devices_after.items() if arn not in devices_before]
    for arn, function in functions_after.items():
        before = functions_before.get(arn)
        reasons = _reasons(old, before, new, function) if before else ()
        if before and reasons:
            changes.append(FunctionChanged(before, function, reasons))
    changes += [
        DeviceChanged(devices_before[arn], device)
        for arn, device in devices_after.items()
        if arn in devices_before and devices_before[arn] != device
    ]
    if old.subscriptions != new.subscriptions:
        changes.append(TableChanged(new.subscriptions))
    changes += [FunctionRemoved(item) for arn, item in functions_before.items() if arn not in functions_after]
    changes += [DeviceRemoved(item) for arn, item in devices_before.items() if arn not in devices_after]
    return tuple(changes)


def apply(group: Group, changes: Sequence[Change]) -> Group:
    """`group` after `changes`; functions and devices keep their place, new ones come last."""
    for change in changes:
        group = _apply_one(group, change)
    return group


def _apply_one(group: Group, change: Change) -> Group:
    match change:
        case HeaderChanged(header):
            name, group_id, version_id, region, account, core, execution = _header(header)
            return replace(
                group,
                name=name,
                group_id=group_id,
                version_id=version_id,
                region=region,
                account=account,
                core=core,
                default_execution=execution,
            )
        case ResourcesChanged(resources):
            return replace(group, resources=resources)
        case LoggersChanged(loggers):
            return replace(group, loggers=loggers)
        case TableChanged(subscriptions):
            return replace(group, subscriptions=subscriptions)
        case FunctionAdded(function):
            return replace(group, functions=(*group.functions, function))
        case FunctionChanged(old, new):
            return replace(group, functions=tuple(new if item == old else item for item in group.functions))
        case FunctionRemoved(function):
            return replace(group, functions=tuple(item for item in group.functions if item != function))
        case DeviceAdded(device):
            return replace(group, devices=(*group.devices, device))
        case DeviceChanged(old_device, new_device):
            return replace(group, devices=tuple(new_device if item == old_device else item for item in group.devices))
        case DeviceRemoved(device):
            return replace(group, devices=tuple(item for item in group.devices if item != device))


Header = tuple[str, str, str, str, str, Core | None, Execution]


def _header(group: Group) -> Header:
    return (
        group.name,
        group.group_id,
        group.version_id,
        group.region,
        group.account,
        group.core,
        group.default_execution,
    )


def _only_header(group: Group) -> Group:
    return replace(group, devices=(), functions=(), subscriptions=(), resources=(), loggers=())


def _reasons(old_group: Group, old: Function, new_group: Group, new: Function) -> tuple[Reason, ...]:
    if old.is_system and new.is_system:
        return () if old == new else (Reason.CONFIGURATION,)
    found = {
        Reason.CODE: old.code_digest != new.code_digest or old.code_bytes != new.code_bytes,
        Reason.CONFIGURATION: (old.handler, old.runtime, old.configuration)
        != (new.handler, new.runtime, new.configuration),
        Reason.RESOURCES: list(_resources(old_group, old)) != list(_resources(new_group, new)),
        Reason.DEFAULTS: _inherited(old_group, old) != _inherited(new_group, new),
        Reason.ID: (old.id, old.code) != (new.id, new.code),
    }
    return tuple(reason for reason, is_so in found.items() if is_so)


def _resources(group: Group, function: Function) -> Iterable[Resource | None]:
    return (group.resource(policy.resource_id) for policy in function.configuration.resources)


def _inherited(group: Group, function: Function) -> tuple[object, ...]:
    return (isolation_of(group, function), run_as_of(group, function), memory_kb_of(group, function))
