"""What a function's worker is told: its container, its environment, its configuration frame.

Sources: greengrass-core 6.4 and sdk-contract 3 (environment), 6.5 (container), 14.5 (log group). Pure: reads nothing
but its arguments. A `WorkerPlan` is a value; two equal plans mean that a running worker needs no change.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

import orjson

from ggfast import limits
from ggfast.arns import ROUTER_ARN, SECRETS_ARN, SHADOW_ARN, FunctionArn
from ggfast.core.functions.resources import Attachments
from ggfast.core.functions.runtimes import RUNTIME_FILES, RUNTIME_MOUNT, Launch, launch_of
from ggfast.group.document import Encoding, Function
from ggfast.group.functions import runtime_of
from ggfast.group.runtimes import Language, language_of
from ggfast.log import Level

CODE_MOUNT: Final = "/lambda"
INTERFACE_VERSION: Final = "1.5"  # accepts every published SDK (sdk-contract 3)
TOKEN_VARIABLE: Final = "AWS_CONTAINER_AUTHORIZATION_TOKEN"
GROUP_NAME_VARIABLE: Final = "AWS_GREENGRASS_GROUP_NAME"
# What a worker without a container has none of.
_CONTAINER_FIELDS: Final = ("memory_kb", "sysfs", "mounts", "devices", "hostname")
_PATH: Final = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


@dataclass(frozen=True, slots=True)
class CoreFacts:
    """What functions learn about the core and its group."""

    thing_name: str = ""
    thing_arn: str = ""
    region: str = ""
    account: str = ""
    group_name: str = ""
    group_id: str = ""
    daemon_port: int = 8000
    mqtt_endpoint: str = ""
    http_endpoint: str = ""
    mqtt_port: int = 8883
    keep_alive_s: int = 600
    stream_manager_port: int = 8088
    proxies: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Identity:
    """Numeric identity of a worker."""

    uid: int
    gid: int
    groups: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True)
class WorkerPlan:
    """Everything that makes one function's workers; `digest` is equal exactly when two plans ask for no restart.

    The group's name is told to a function and left out of the digest: a group may be renamed while its functions run.
    """

    arn: str
    name: str
    pinned: bool
    timeout_s: float
    memory_kb: int
    spec: Mapping[str, Any]
    config: Mapping[str, Any]
    code_digest: str = ""
    digest: str = ""
    adoptable: bool = True  # whether its workers can go on with another daemon

    def __post_init__(self) -> None:
        told = self.config.get("environment", {})
        lasting = {name: value for name, value in told.items() if name != GROUP_NAME_VARIABLE}
        config = {**self.config, "environment": lasting}
        content = [self.pinned, self.timeout_s, self.memory_kb, self.spec, config, self.code_digest]
        text = orjson.dumps(content, option=orjson.OPT_SORT_KEYS)
        object.__setattr__(self, "digest", hashlib.sha256(text).hexdigest())

    @property
    def key(self) -> str:
        """Function version and plan in 17 characters, as they stand in an instance's name."""
        return f"{hashlib.sha256(self.arn.encode()).hexdigest()[:8]}-{self.digest[:8]}"

    @property
    def is_launch(self) -> bool:
        """Whether workers become another program: then the frame is a launch frame."""
        return "argv" in self.config

    def config_frame(self, token: str) -> bytes:
        """The body of the configuration or launch frame for the worker that gets `token`."""
        environment = {**self.config["environment"], TOKEN_VARIABLE: token}
        return orjson.dumps({**self.config, "environment": environment})


def worker_plan(
    function: Function,
    facts: CoreFacts,
    identity: Identity,
    code_dir: str,
    *,
    code_digest: str = "",
    attachments: Attachments | None = None,
    interpreter: str = "",
    java_archive: str = "",
    variables: Mapping[str, str] | None = None,
    log_level: Level = Level.INFO,
    contained: bool = True,
    pids_max: int = limits.WORKER_PIDS_MAX,
    sys_path: Sequence[str] = (),
) -> WorkerPlan:
    """The plan for a function whose package is unpacked in `code_dir` (absolute).

    `interpreter` runs it (runtimes.find_interpreter); empty: the core's own Python. `variables` are the group's
    environment for all functions, under the function's own. With `contained` False the worker sees its code where
    it lies instead of at /lambda, and has no memory limit. `code_digest` tells packages of one ARN apart.
    """
    given = function.configuration
    parts = FunctionArn.parse(function.arn)
    attached = attachments or Attachments()
    memory_kb = (given.memory_kb or limits.FUNCTION_MEMORY_KB_DEFAULT) if contained else 0
    code = CODE_MOUNT if contained else code_dir
    prefix = "/" if contained else attached.resource_prefix
    config: dict[str, Any] = {
        "arn": function.arn,
        "name": parts.name,
        "version": parts.qualifier,
        "handler": function.handler,
        "encoding": str(encoding_of(function)),
        "timeout_s": given.timeout_s,
        "memory_kb": memory_kb,
        "log_level": Level(log_level).name,
        "log_group": f"/aws/greengrass/Lambda/{parts.region}/{parts.account}/{parts.name}",
        "log_stream": f"{facts.account}/{facts.group_id}/{facts.thing_name}",
        "code_dir": code,
        "sys_path": list(sys_path),
        "environment": function_environment(
            function, facts, {**(variables or {}), **given.variables}, resource_prefix=prefix
        ),
    }
    runtime = RUNTIME_MOUNT if contained else str(RUNTIME_FILES)
    launch = launch_of(function, interpreter, memory_kb, code, runtime, java_archive)
    if launch is not None:
        config = launch_config(config, launch)
    spec: dict[str, Any] = {
        "code_dir": code_dir,
        "uid": identity.uid,
        "gid": identity.gid,
        "groups": sorted({*identity.groups, *attached.groups}),
        "memory_kb": memory_kb,
        "pids_max": pids_max,
        "sysfs": given.access_sysfs,
        "mounts": [mount.request for mount in attached.mounts],
        "devices": [{"path": device.path, "access": device.access} for device in attached.devices],
        "hostname": _hostname(parts.name),
    }
    if not contained:
        spec = {key: value for key, value in spec.items() if key not in _CONTAINER_FIELDS} | {"contained": False}
    return WorkerPlan(
        function.arn,
        parts.name,
        given.pinned,
        float(given.timeout_s),
        memory_kb,
        spec,
        config,
        code_digest,
        adoptable=launch is None or launch.adoptable,
    )


def encoding_of(function: Function) -> Encoding:
    """What the handler gets; executables know bytes only (greengrass-core 17.2)."""
    is_executable = language_of(runtime_of(function)) is Language.EXECUTABLE
    return Encoding.BINARY if is_executable else function.configuration.encoding


def launch_config(config: Mapping[str, Any], launch: Launch) -> dict[str, Any]:
    """The launch document of a program: its words, and all that it must know as environment."""
    environment: dict[str, str] = {**launch.environment, **config["environment"]}
    for name in launch.environment:
        if name in config["environment"]:  # the function's own folders come behind ours
            environment[name] = f"{launch.environment[name]}:{config['environment'][name]}"
    if launch.python:
        own = {key: value for key, value in config.items() if key != "environment"}
        environment["GGFAST_CONFIG"] = orjson.dumps(own).decode()
    else:
        environment |= {
            f"GGFAST_{key.upper()}": str(config[key])
            for key in ("handler", "timeout_s", "memory_kb", "log_level", "log_group", "log_stream", "code_dir")
        }
    return {"argv": list(launch.argv), "environment": environment, "cwd": config["code_dir"], "stdio": launch.stdio}


def function_environment(
    function: Function, facts: CoreFacts, variables: Mapping[str, str], *, resource_prefix: str
) -> dict[str, str]:
    """The environment without the worker's token. A user's value never replaces a reserved name, except a proxy."""
    reserved = {
        "MY_FUNCTION_ARN": function.arn,
        "ENCODING_TYPE": str(encoding_of(function)),
        "ROUTER_FUNCTION_ARN": ROUTER_ARN,
        "SHADOW_FUNCTION_ARN": SHADOW_ARN,
        "SECRETS_MANAGER_FUNCTION_ARN": SECRETS_ARN,
        "GGC_MAX_INTERFACE_VERSION": INTERFACE_VERSION,
        "GG_DAEMON_PORT": str(facts.daemon_port),
        "AWS_CONTAINER_CREDENTIALS_FULL_URI": (f"http://localhost:{facts.daemon_port}/2016-11-01/credentialprovider/"),
        "STREAM_MANAGER_SERVER_PORT": str(facts.stream_manager_port),
        "AWS_IOT_THING_NAME": facts.thing_name,
        "AWS_IOT_THING_ARN": facts.thing_arn,
        GROUP_NAME_VARIABLE: facts.group_name,
        "GROUP_ID": facts.group_id,
        "AWS_REGION": facts.region,
        "AWS_DEFAULT_REGION": facts.region,
        "AWS_GG_MQTT_ENDPOINT": facts.mqtt_endpoint,
        "AWS_IOT_MQTT_ENDPOINT": facts.mqtt_endpoint,
        "AWS_GG_HTTP_ENDPOINT": facts.http_endpoint,
        "AWS_IOT_HTTP_ENDPOINT": facts.http_endpoint,
        "AWS_GG_MQTT_PORT": str(facts.mqtt_port),
        "GG_MQTT_KEEP_ALIVE": str(facts.keep_alive_s),
        "AWS_GG_RESOURCE_PREFIX": resource_prefix,
    }
    defaults = {"PATH": _PATH, "HOME": "/tmp", "LANG": "C.UTF-8", **facts.proxies}
    return {**defaults, **variables, **reserved}


def _hostname(name: str) -> str:
    """A host name may not hold an underscore and not exceed 63 characters."""
    return name.replace("_", "-")[:63].strip("-") or "function"
