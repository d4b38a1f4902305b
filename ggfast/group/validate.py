"""Judging a group as a whole: everything that needs more than one entry, or the core's settings, to decide.

`validate` adds a problem for each fault, with the path of the entry in the document the group came from. Texts
that V1 had are kept (greengrass-core 4.3, Appendix B). Pure.
"""

from __future__ import annotations

import pwd
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from ggfast import arns
from ggfast.config import Config, MessageLimits, Profile
from ggfast.fields import Problems, shown
from ggfast.group.document import (
    Function,
    Group,
    Isolation,
    LocalDevice,
    LocalVolume,
    Permission,
    Resource,
    ResourceAccessPolicy,
    S3Model,
    SageMakerModel,
    Secret,
)
from ggfast.group.functions import isolation_of, run_as_of, runtime_of
from ggfast.group.owners import group_id
from ggfast.group.resources import under
from ggfast.group.runtimes import Language, has_words, language_of
from ggfast.group.subscriptions import subject_fault
from ggfast.sandbox.accounts import powerful_accounts
from ggfast.sandbox.groups import denied_groups
from ggfast.sandbox.paths import below_any
from ggfast.sandbox.policy import SOURCES_READ_ONLY


@dataclass(frozen=True, slots=True)
class GroupRules:
    """What the core allows. `core_thing_arn` empty: any core; `denied_paths` may not be reached by a volume;
    `function_gid` is the group of functions without RunAs; before 1.6 there were no volumes below /proc. `at_core`
    False: another machine judges, and leaves to the core what only that knows."""

    messages: MessageLimits = field(default_factory=lambda: MessageLimits.of(Profile.V1))
    allow_root: bool = False
    core_thing_arn: str = ""
    denied_paths: tuple[str, ...] = ()
    run_as_uids: frozenset[int] | None = None  # None: any but the denied
    denied_uids: frozenset[int] = frozenset()
    denied_gids: frozenset[int] = frozenset()
    function_gid: int | None = None
    proc_volumes: bool = True
    runtimes: tuple[tuple[str, str], ...] = ()  # interpreters by runtime id, as config.json names them
    at_core: bool = True

    @classmethod
    def of(cls, config: Config) -> GroupRules:
        """The rules of a configured core: its own directories are never given to functions."""
        layout, listed = config.layout, config.ggfast.run_as_uids
        function, daemon = _uid(config.ggfast.function_user), _uid(config.ggfast.daemon_user)
        denied = set(powerful_accounts() if listed is None else ()) - {*function} | {*daemon}
        return cls(
            messages=config.message_limits,
            allow_root=config.runtime.allow_functions_to_run_as_root,
            core_thing_arn=str(config.core_thing.thing_arn),
            denied_paths=tuple(sorted({str(layout.root), str(layout.written), *config.ggfast.hidden_paths})),
            run_as_uids=None if listed is None else frozenset({0, *function, *listed}),
            denied_uids=frozenset(denied),
            denied_gids=frozenset(denied_groups()),
            function_gid=group_id(config.ggfast.function_group),
            runtimes=config.ggfast.runtimes,
            proc_volumes=config.version_profile.minor >= 6,
        )


def validate(group: Group, rules: GroupRules, problems: Problems, paths: Mapping[str, str]) -> None:
    """Add every fault of `group` to `problems`; `paths` gives the path of each list (`Functions`, `Devices`, …)."""
    _Judge(group, rules, problems, paths).judge()


def _uid(name: str) -> tuple[int, ...]:
    try:
        return (pwd.getpwnam(name).pw_uid,)
    except KeyError:
        return ()


class _Judge:
    def __init__(self, group: Group, rules: GroupRules, problems: Problems, paths: Mapping[str, str]) -> None:
        self.group = group
        self.rules = rules
        self.problems = problems
        self.paths = paths
        self.resources = {resource.id: resource for resource in group.resources}
        models = ((resource.id, resource.data) for resource in group.resources)
        self.owners = {
            resource_id: group_id(data.owner.group_owner)
            for resource_id, data in models
            if rules.at_core and isinstance(data, S3Model | SageMakerModel) and data.owner
        }

    def judge(self) -> None:
        self._things()
        self._uniqueness()
        self._table()
        for position, resource in enumerate(self.group.resources):
            self._resource(f"{self.paths['Resources']}[{position}]", resource)
        for position, function in enumerate(self.group.functions):
            if not function.is_system:
                self._function(f"{self.paths['Functions']}[{position}]", function)
        self._root()
        self._run_as()

    # --- cores, devices, ids ---

    def _things(self) -> None:
        core, expected = self.group.core, self.rules.core_thing_arn
        if core is None:
            return
        if expected and core.thing_arn and core.thing_arn != expected:
            wanted = f"the thing of this core, {expected} (coreThing.thingArn in config.json)"
            self.problems.add(f"{self.paths['Cores']}[0].ThingArn", shown(core.thing_arn), wanted)
        for position, device in enumerate(self.group.devices):
            if device.thing_arn == core.thing_arn and core.thing_arn:
                path = f"{self.paths['Devices']}[{position}].ThingArn"
                self.problems.add(path, shown(device.thing_arn), "a thing that is not the core")

    def _uniqueness(self) -> None:
        group = self.group
        self._unique("Devices", "Id", (device.id for device in group.devices))
        self._unique("Devices", "ThingArn", (device.thing_arn for device in group.devices))
        self._unique("Functions", "Id", (function.id for function in group.functions))
        self._unique("Functions", "FunctionArn", (function.arn for function in group.functions))
        self._unique("Subscriptions", "Id", (entry.id for entry in group.subscriptions))
        self._unique("Resources", "Id", (resource.id for resource in group.resources))
        self._unique("Resources", "Name", (resource.name for resource in group.resources))
        self._unique("Loggers", "Id", (logger.id for logger in group.loggers))
        pairs = (f"{logger.target}/{logger.component}" for logger in group.loggers)
        self._unique("Loggers", "Component", pairs)

    def _unique(self, kind: str, key: str, values: Iterable[str]) -> None:
        first: dict[str, int] = {}
        for position, value in enumerate(values):
            earlier = first.setdefault(value, position)
            if earlier != position and value:
                expected = f"another one: {self.paths[kind]}[{earlier}] has it already"
                self.problems.add(f"{self.paths[kind]}[{position}].{key}", shown(value), expected)

    # --- subscriptions ---

    def _table(self) -> None:
        parties = {arns.CLOUD, arns.SHADOW_SERVICE}
        parties.update(device.thing_arn for device in self.group.devices)
        parties.update(function.arn for function in self.group.user_functions)
        messages = self.rules.messages
        for position, entry in enumerate(self.group.subscriptions):
            path = f"{self.paths['Subscriptions']}[{position}]"
            for key, party in (("Source", entry.source), ("Target", entry.target)):
                if party and party not in parties:
                    text = f"Subscription {key.lower()} is invalid. ID is '{entry.id}' and {key} is '{party}'"
                    expected = 'a device or function (with the same version or alias) of this group, "cloud" or '
                    expected += '"GGShadowService"'
                    self.problems.refuse(f"{path}.{key}", text, found=shown(party), expected=expected)
            fault = subject_fault(entry.subject, messages.topic_bytes, messages.topic_slashes)
            if fault:
                self.problems.add(f"{path}.Subject", shown(entry.subject), fault)

    # --- resources ---

    def _resource(self, path: str, resource: Resource) -> None:
        data = resource.data
        if isinstance(data, Secret):
            if not self.rules.at_core:
                return
            expected = "another kind: this release keeps no secrets; give their file to functions as a volume"
            self.problems.add(f"{path}.ResourceDataContainer", data.type, expected)
        elif isinstance(data, S3Model | SageMakerModel):
            if not data.archive and not data.digest:
                expected = "the model's .zip or .tar.gz in the folder: nothing is fetched from a cloud"
                self.problems.add(f"{path}.Archive", "nothing", expected)
        elif isinstance(data, LocalVolume):
            if under(data.source_path, "/proc") and not self.rules.proc_volumes:
                where = f"{path}.ResourceDataContainer.LocalVolumeResourceData.SourcePath"
                expected = "a path outside /proc, or a ggfast.versionProfile of 1.6 or later"
                self.problems.refuse(
                    where, "Accessing /proc is prohibited", found=shown(data.source_path), expected=expected
                )
            for denied in self.rules.denied_paths:
                if data.source_path and (under(data.source_path, denied) or under(denied, data.source_path)):
                    where = f"{path}.ResourceDataContainer.LocalVolumeResourceData.SourcePath"
                    self.problems.add(where, shown(data.source_path), f"a path apart from {denied}, which is hidden")

    # --- functions ---

    def _function(self, path: str, function: Function) -> None:
        configuration = function.configuration
        where = f"{path}.FunctionConfiguration"
        if language_of(runtime_of(function)) is Language.EXECUTABLE and not has_words(configuration.exec_args):
            self.problems.add(f"{where}.ExecArgs", shown(configuration.exec_args), "words with all quotes closed")
        isolation = isolation_of(self.group, function)
        if isolation is Isolation.NO_CONTAINER:
            self._no_container(where, function)
        elif configuration.memory_kb is None and self.group.default_execution.isolation is Isolation.NO_CONTAINER:
            text = f"MemorySize configuration for function with arn {function.arn} is required in "
            text += "IsolationMode=GreengrassContainer."
            self.problems.refuse(f"{where}.MemorySize", text, found="nothing", expected="a number of KB")
        used: set[str] = set()
        destinations: list[str] = []
        for position, policy in enumerate(configuration.resources):
            at = f"{where}.Environment.ResourceAccessPolicies[{position}]"
            resource = self.resources.get(policy.resource_id)
            if policy.resource_id in used:
                self.problems.add(f"{at}.ResourceId", shown(policy.resource_id), "each resource once")
            elif resource is None and policy.resource_id:
                self.problems.add(f"{at}.ResourceId", shown(policy.resource_id), "the Id of a resource of this group")
            elif resource is not None:
                self._access(at, function, policy, resource, isolation)
                self._destination(at, function, resource, isolation, destinations)
            used.add(policy.resource_id)
        self._leaks(f"{where}.Environment.ResourceAccessPolicies", function, isolation, used)

    def _no_container(self, path: str, function: Function) -> None:
        faults = (
            (function.configuration.memory_kb is not None, "MemorySize", "MemorySize"),
            (function.configuration.access_sysfs, "Environment.AccessSysfs", "Access Sysfs"),
        )
        for is_given, key, words in faults:
            if is_given:
                text = f"{words} configuration for function with arn {function.arn} is not allowed in "
                text += "IsolationMode=NoContainer."
                self.problems.refuse(f"{path}.{key}", text, found="a value", expected="none")

    def _access(
        self, path: str, function: Function, policy: ResourceAccessPolicy, resource: Resource, isolation: Isolation
    ) -> None:
        data, permission = resource.data, policy.permission
        local = isinstance(data, (LocalDevice, LocalVolume))
        if local and isolation is Isolation.NO_CONTAINER:
            text = f"Function {function.arn} refers to resource of type {data.type} that is not allowed in "
            text += "IsolationMode=NoContainer."
            self.problems.refuse(f"{path}.ResourceId", text, found=data.type, expected="GreengrassContainer")
        elif local and permission is None:
            self.problems.add(f"{path}.Permission", "nothing", "ro or rw")
        elif isinstance(data, (S3Model, SageMakerModel)):
            self._model_access(path, function, policy, data, isolation)
        if isinstance(data, LocalVolume):
            if under(data.source_path, "/dev/shm") and permission is Permission.RO:
                self.problems.add(f"{path}.Permission", "ro", "rw: /dev/shm can only be given rw")
            if under(data.source_path, "/proc") and permission is Permission.RW:
                self.problems.add(f"{path}.Permission", "rw", "ro: paths under /proc can only be given ro")
            elif permission is Permission.RW and (fixed := below_any(data.source_path, SOURCES_READ_ONLY)):
                expected = (
                    f"ro: {data.source_path} of resource {resource.id} lies below {fixed}, which is read-only for "
                )
                self.problems.add(f"{path}.Permission", "rw", expected + f"functions such as {function.arn}")

    def _model_access(
        self,
        path: str,
        function: Function,
        policy: ResourceAccessPolicy,
        model: S3Model | SageMakerModel,
        isolation: Isolation,
    ) -> None:
        arn, resource_id, permission = function.arn, policy.resource_id, policy.permission
        text = ""
        if isolation is Isolation.NO_CONTAINER and permission is not None:
            text = "NoContainer function cannot configure permission when attaching Machine Learning resources. "
            text += f"{arn} refers to Machine Learnin resource {resource_id} with permission {permission} in "
            text += "resource access policy."
        elif permission is None and model.owner is None:
            text = f"Function {arn} refers to Machine Learning resource {resource_id} with missing permission in "
            text += "both ResourceAccessPolicy and resource OwnerSetting."
        elif permission is Permission.RW and model.owner and model.owner.permission is Permission.RO:
            text = f'Function {arn} refers to Machine Learning resource {resource_id} with permission "rw", while '
            text += 'resource owner setting GroupPermission only allows "ro".'
        if text:
            self.problems.refuse(f"{path}.Permission", text, found=shown(permission), expected="the owner's setting")

    def _leaks(self, path: str, function: Function, isolation: Isolation, attached: set[str]) -> None:
        """greengrass-core 8: whoever has the group that owns a model reaches it, so it must be attached. Without a
        container a function gets the groups of the models that it is attached to."""
        run_as = run_as_of(self.group, function)
        gid = self.rules.function_gid if run_as.gid is None else run_as.gid
        if run_as.uid == 0:
            return
        gids = {gid}
        if isolation is Isolation.NO_CONTAINER:
            gids |= {self.owners.get(resource_id) for resource_id in attached}
        for resource_id, owner in self.owners.items():
            if owner is not None and owner in gids and resource_id not in attached:
                text = (
                    f"Lambda {function.arn} gains access to resource {resource_id} by sharing the same group owner id"
                )
                expected = f"resource {resource_id} among them, or another group of function or resource"
                self.problems.refuse(path, text, found=f"group {owner}", expected=expected)

    def _destination(
        self, path: str, function: Function, resource: Resource, isolation: Isolation, taken: list[str]
    ) -> None:
        data = resource.data
        destination = data.source_path if isinstance(data, LocalDevice) else getattr(data, "destination_path", "")
        for other in taken:
            if destination and (under(destination, other) or under(other, destination)):
                expected = f"destinations apart from each other: this function already has {other}"
                if isolation is Isolation.NO_CONTAINER:
                    text = f"NoContainer Function {function.arn} refers to resources of nested destination path."
                    self.problems.refuse(f"{path}.ResourceId", text, found=shown(destination), expected=expected)
                else:
                    self.problems.add(f"{path}.ResourceId", shown(destination), expected)
        if destination:
            taken.append(destination)

    def _run_as(self) -> None:
        """Root's configuration, not the group, says as whom functions may run: see cli/launching.policy."""
        rules = self.rules
        for position, function in enumerate(self.group.functions):
            if function.is_system:
                continue
            run_as = run_as_of(self.group, function)
            path = f"{self.paths['Functions']}[{position}].FunctionConfiguration.Environment.Execution.RunAs"
            if rules.run_as_uids is not None and run_as.uid is not None and run_as.uid not in rules.run_as_uids:
                self.problems.add(f"{path}.Uid", str(run_as.uid), "an id that config.json lists in ggfast.runAsUids")
            elif run_as.uid in rules.denied_uids:
                expected = "an account that is not the core's own and in no group as good as root; if it is meant, "
                expected += "list all that functions may run as in ggfast.runAsUids in config.json"
                self.problems.add(f"{path}.Uid", str(run_as.uid), expected)
            if run_as.gid in rules.denied_gids:
                expected = "a group that does not own files of the system: this one is never given to functions"
                self.problems.add(f"{path}.Gid", str(run_as.gid), expected)

    def _root(self) -> None:
        """greengrass-core 17.1: uid or gid 0 needs the switch in config.json."""
        if self.rules.allow_root:
            return
        guilty = [
            (position, function)
            for position, function in enumerate(self.group.functions)
            if not function.is_system
            and 0 in (run_as_of(self.group, function).uid, run_as_of(self.group, function).gid)
        ]
        if not guilty:
            return
        position, function = guilty[0]
        own = function.configuration.execution.run_as
        path = f"{self.paths['Functions']}[{position}].FunctionConfiguration.Environment.Execution.RunAs"
        if 0 not in (own.uid, own.gid):
            path = f"{self.paths['DefaultConfig']}.Execution.RunAs"
        names = " ".join(function.arn for _, function in guilty)
        text = f"[{names}] are configured to run as root while Greengrass is not configured to run lambdas with root "
        text += "permissions"
        expected = 'another id, or runtime.allowFunctionsToRunAsRoot: "yes" in config.json'
        self.problems.refuse(path, text, found="id 0", expected=expected)
