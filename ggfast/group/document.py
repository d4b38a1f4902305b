"""The nouns: a Greengrass group and everything in it, as immutable values.

Sources: greengrass-core 4.2 (every field and default), 2.4 (the file on a core). A `Group` comes from
`group/folder.py` or `group/ondisk.py`, is judged by `group/validate.py`, compared by `group/diff.py`, and is
never changed. No input or output here, and no rules beyond what a name means.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum

from ggfast import arns
from ggfast.log import Level


class Isolation(StrEnum):
    """How a function is held (greengrass-core 17.1)."""

    CONTAINER = "GreengrassContainer"
    NO_CONTAINER = "NoContainer"


class Permission(StrEnum):
    """What a function may do with a resource."""

    RO = "ro"
    RW = "rw"


class Encoding(StrEnum):
    """What a handler gets: a decoded JSON value, or the bytes (greengrass-core 6.3)."""

    JSON = "json"
    BINARY = "binary"


class LogTarget(StrEnum):
    """Where a logger writes."""

    FILE_SYSTEM = "FileSystem"
    CLOUD_WATCH = "AWSCloudWatch"


class LogComponent(StrEnum):
    """Whose lines a logger is about."""

    SYSTEM = "GreengrassSystem"
    FUNCTIONS = "Lambda"


@dataclass(frozen=True, slots=True)
class RunAs:
    """Numeric identity of a function's process; None falls back to the group's, then to ggc_user/ggc_group."""

    uid: int | None = None
    gid: int | None = None


@dataclass(frozen=True, slots=True)
class Execution:
    """Isolation and identity; None means "as the level above says"."""

    isolation: Isolation | None = None
    run_as: RunAs = RunAs()


@dataclass(frozen=True, slots=True)
class Core:
    """The one core of a group."""

    id: str
    thing_arn: str
    certificate_arn: str
    sync_shadow: bool = False

    @property
    def thing_name(self) -> str:
        """The part of the ARN behind `thing/`."""
        return self.thing_arn.partition(":thing/")[2]


@dataclass(frozen=True, slots=True)
class Device:
    """A client device: a thing whose certificate the local broker accepts."""

    id: str
    thing_arn: str
    certificate_arn: str
    sync_shadow: bool = False

    @property
    def thing_name(self) -> str:
        """The part of the ARN behind `thing/`; also the only client id the device may use."""
        return self.thing_arn.partition(":thing/")[2]

    @property
    def certificate_id(self) -> str:
        """SHA-256 of the certificate's DER form in hex."""
        return arns.certificate_id(self.certificate_arn)


@dataclass(frozen=True, slots=True)
class ResourceAccessPolicy:
    """One resource a function is attached to; `permission` None leaves it to the resource's owner setting."""

    resource_id: str
    permission: Permission | None = None


@dataclass(frozen=True, slots=True)
class FunctionConfiguration:
    """How a function runs in this group. `memory_kb` None: not given (see group/functions.py for what counts)."""

    pinned: bool = False
    memory_kb: int | None = None
    timeout_s: int = 3
    encoding: Encoding = Encoding.JSON
    exec_args: str = ""
    executable: str = ""
    runtime_override: str = ""
    variables: Mapping[str, str] = field(default_factory=dict)
    access_sysfs: bool = False
    resources: tuple[ResourceAccessPolicy, ...] = ()
    execution: Execution = Execution()


@dataclass(frozen=True, slots=True)
class Function:
    """A Lambda function placed in the group, or a system entry (greengrass-core 4.4: no code, no handler).

    `code` is the folder form's path of the package, relative to the folder, and empty once deployed;
    `code_digest` and `code_bytes` describe the unpacked package and are empty before staging.
    """

    id: str
    arn: str
    handler: str = ""
    runtime: str = ""
    code: str = ""
    code_digest: str = ""
    code_bytes: int = 0
    configuration: FunctionConfiguration = field(default_factory=FunctionConfiguration)

    @property
    def is_system(self) -> bool:
        """Whether this is a system entry rather than a user's function."""
        return self.arn.startswith("arn:aws:lambda:::function:")

    @property
    def name(self) -> str:
        """The function's name; all versions of a function share it and their log file."""
        return arns.FunctionArn.parse(self.arn).name


@dataclass(frozen=True, slots=True)
class GroupOwnerSetting:
    """Which Linux group a function gets with a local resource (greengrass-core 7.2)."""

    auto_add: bool = False
    group_owner: str = ""


@dataclass(frozen=True, slots=True)
class LocalDevice:
    """A character or block device under /dev; appears at the same path."""

    source_path: str
    owner: GroupOwnerSetting = GroupOwnerSetting()
    type: str = field(default="Local.Device", init=False)


@dataclass(frozen=True, slots=True)
class LocalVolume:
    """A file or directory of the host, mounted at `destination_path`."""

    source_path: str
    destination_path: str
    owner: GroupOwnerSetting = GroupOwnerSetting()
    type: str = field(default="Local.Volume", init=False)


@dataclass(frozen=True, slots=True)
class ModelOwner:
    """Linux group (name or number) that owns a model's files, and the most it may do."""

    group_owner: str
    permission: Permission


@dataclass(frozen=True, slots=True)
class S3Model:
    """A machine-learning model in a bucket. `archive` is the folder form's path of the .zip or .tar.gz that stands for
    the download, empty once deployed; `digest`, the archive's SHA-256 in hex, is empty before staging."""

    destination_path: str
    s3_uri: str
    owner: ModelOwner | None = None
    archive: str = ""
    digest: str = ""
    type: str = field(default="ML_Model.S3_Object", init=False)


@dataclass(frozen=True, slots=True)
class SageMakerModel:
    """A machine-learning model made by a training job; `archive` and `digest` as in S3Model."""

    destination_path: str
    job_arn: str
    owner: ModelOwner | None = None
    archive: str = ""
    digest: str = ""
    type: str = field(default="ML_Model.SageMaker.Job", init=False)


@dataclass(frozen=True, slots=True)
class Secret:
    """A secret of the Secrets Manager, by ARN, with the labels wanted beside AWSCURRENT."""

    arn: str
    labels: tuple[str, ...] = ()
    type: str = field(default="Secrets.SecretsManager", init=False)


ResourceData = LocalDevice | LocalVolume | S3Model | SageMakerModel | Secret


@dataclass(frozen=True, slots=True)
class Resource:
    """Something functions may be attached to."""

    id: str
    name: str
    data: ResourceData


@dataclass(frozen=True, slots=True)
class Subscription:
    """One line of the table: messages of `source` whose topic matches `subject` go to `target`."""

    id: str
    source: str
    subject: str
    target: str


@dataclass(frozen=True, slots=True)
class Logger:
    """Where lines of a component go, from which level, in how much space (KB, file system only)."""

    id: str
    target: LogTarget
    component: LogComponent
    level: Level
    space_kb: int = 0


@dataclass(frozen=True, slots=True)
class Group:
    """A deployable group version. `Group()` is the empty one: nothing deployed, only system parts run."""

    name: str = ""
    group_id: str = ""
    version_id: str = ""
    region: str = ""
    account: str = ""
    core: Core | None = None
    devices: tuple[Device, ...] = ()
    functions: tuple[Function, ...] = ()
    subscriptions: tuple[Subscription, ...] = ()
    resources: tuple[Resource, ...] = ()
    loggers: tuple[Logger, ...] = ()
    default_execution: Execution = Execution()

    @property
    def is_empty(self) -> bool:
        """Whether nothing is deployed."""
        return self.core is None

    @property
    def arn(self) -> str:
        """The group version's ARN, empty for the empty group."""
        if self.core is None:
            return ""
        partition = self.core.thing_arn.split(":")[1]
        return str(arns.GroupArn(partition, self.region, self.account, self.group_id, self.version_id))

    @property
    def user_functions(self) -> tuple[Function, ...]:
        """The functions that run as workers."""
        return tuple(function for function in self.functions if not function.is_system)

    def function(self, arn: str) -> Function | None:
        """The function with this qualified ARN."""
        return next((function for function in self.functions if function.arn == arn), None)

    def resource(self, resource_id: str) -> Resource | None:
        """The resource with this id."""
        return next((resource for resource in self.resources if resource.id == resource_id), None)
