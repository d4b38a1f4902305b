"""Groups as values: nothing written by anybody crashes the readers, writing loses nothing, differences lead there."""

from __future__ import annotations

import copy
import json
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from ggfast.config import parse_config
from ggfast.errors import ConfigError
from ggfast.fields import Problems
from ggfast.group.diff import FunctionAdded, FunctionChanged, FunctionRemoved, TableChanged, apply, diff
from ggfast.group.document import (
    Core,
    Device,
    Encoding,
    Execution,
    Function,
    FunctionConfiguration,
    Group,
    GroupOwnerSetting,
    Isolation,
    LocalDevice,
    LocalVolume,
    LogComponent,
    Logger,
    LogTarget,
    ModelOwner,
    Permission,
    Resource,
    ResourceAccessPolicy,
    RunAs,
    S3Model,
    SageMakerModel,
    Secret,
    Subscription,
)
from ggfast.group.folder import parse_folder
from ggfast.group.ondisk import read_deployed, write_deployed
from ggfast.group.subscriptions import rules, subject_fault
from ggfast.group.validate import GroupRules, validate
from ggfast.log import Level

ROOT = Path("/greengrass")
PATHS = {
    kind: kind for kind in ("Cores", "Devices", "Functions", "Subscriptions", "Resources", "Loggers", "DefaultConfig")
}

# --- groups that are valid on disk ---

ids = st.text("abcXYZ019:_-", min_size=1, max_size=12)
names = st.text("abcXYZ019_-", min_size=1, max_size=8)
texts = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), max_size=20)
paths = st.lists(
    st.text("abc.-_é ", min_size=1, max_size=6).filter(lambda part: part not in (".", "..")), min_size=1, max_size=3
)
thing_arns = names.map(lambda name: f"arn:aws:iot:eu-west-1:123456789012:thing/{name}")
certificates = st.text("0123456789abcdef", min_size=64, max_size=64).map(
    lambda digits: f"arn:aws:iot:eu-west-1:123456789012:cert/{digits}"
)
function_arns = st.builds(
    lambda name, version: f"arn:aws:lambda:eu-west-1:123456789012:function:{name}:{version}",
    names,
    st.integers(1, 3),
)
executions = st.builds(
    Execution,
    st.sampled_from([None, *Isolation]),
    st.builds(RunAs, st.none() | st.integers(0, 70_000), st.none() | st.integers(0, 70_000)),
)
configurations = st.builds(
    FunctionConfiguration,
    pinned=st.booleans(),
    memory_kb=st.none() | st.integers(2_048, 2**31 - 1),
    timeout_s=st.integers(1, 2**31 - 1),
    encoding=st.sampled_from(Encoding),
    exec_args=texts,
    executable=texts,
    runtime_override=st.sampled_from(["", "python3.8"]),
    variables=st.dictionaries(st.text("ABC_", min_size=1, max_size=5), texts, max_size=3),
    access_sysfs=st.booleans(),
    resources=st.lists(st.builds(ResourceAccessPolicy, ids, st.sampled_from([None, *Permission])), max_size=3).map(
        tuple
    ),
    execution=executions,
)
functions = st.builds(
    Function,
    id=ids,
    arn=function_arns,
    handler=st.sampled_from(["main.handler", "a/b.c", "x.y.z"]),
    runtime=st.sampled_from(["python2.7", "python3.8"]),
    code_digest=st.sampled_from(["", "0" * 64, "f" * 64]),
    code_bytes=st.integers(0, 10**9),
    configuration=configurations,
)
owners = st.builds(GroupOwnerSetting, st.booleans(), texts)
model_owners = st.none() | st.builds(ModelOwner, texts.filter(bool), st.sampled_from(Permission))
destinations = paths.map(lambda parts: "/data/" + "/".join(parts))
resources = st.builds(
    Resource,
    ids,
    ids,
    st.one_of(
        st.builds(LocalDevice, paths.map(lambda parts: "/dev/x" + "/".join(parts)), owners),
        st.builds(LocalVolume, paths.map(lambda parts: "/srv/" + "/".join(parts)), destinations, owners),
        st.builds(S3Model, destinations, names.map(lambda name: f"s3://bucket/{name}"), model_owners),
        st.builds(
            SageMakerModel,
            destinations,
            st.just("arn:aws:sagemaker:eu-west-1:123456789012:training-job/j"),
            model_owners,
        ),
        st.builds(
            Secret,
            st.just("arn:aws:secretsmanager:eu-west-1:123456789012:secret:greengrass-x"),
            st.lists(names, max_size=2).map(tuple),
        ),
    ),
)
parties = st.one_of(thing_arns, function_arns, st.sampled_from(["cloud", "GGShadowService"]))
subscriptions = st.builds(Subscription, ids, parties, texts.filter(bool), parties)
loggers = st.builds(
    Logger,
    ids,
    st.sampled_from(LogTarget),
    st.sampled_from(LogComponent),
    st.sampled_from(Level),
    st.integers(0, 9_999),
)


def many(items: st.SearchStrategy[Any], key: str, maximum: int = 4) -> st.SearchStrategy[tuple[Any, ...]]:
    return st.lists(items, max_size=maximum, unique_by=lambda item: getattr(item, key)).map(tuple)


groups = st.builds(
    Group,
    name=texts,
    group_id=st.text("abc-019", min_size=1, max_size=12),
    version_id=st.text("abc-019", min_size=1, max_size=12),
    region=st.just("eu-west-1"),
    account=st.just("123456789012"),
    core=st.builds(Core, ids, thing_arns, certificates, st.booleans()),
    devices=many(st.builds(Device, ids, thing_arns, certificates, st.booleans()), "thing_arn"),
    functions=many(functions, "arn"),
    subscriptions=many(subscriptions, "id"),
    resources=many(resources, "id"),
    loggers=many(loggers, "id"),
    default_execution=executions,
)
any_group = groups | st.just(Group())

# --- anything ---

json_values: st.SearchStrategy[Any] = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=10), inner, max_size=4),
    max_leaves=12,
)
KEYS = re.findall(
    r"\w+",
    """
    Name GroupId Region Account Cores Devices Functions DefaultConfig Subscriptions Resources Loggers Connectors Id
    ThingArn CertificateArn SyncShadow FunctionArn Code Handler Runtime FunctionConfiguration Pinned MemorySize Timeout
    EncodingType Environment Variables AccessSysfs ResourceAccessPolicies ResourceId Permission Execution IsolationMode
    RunAs Uid Gid Source Subject Target ResourceDataContainer LocalVolumeResourceData LocalDeviceResourceData SourcePath
    DestinationPath GroupOwnerSetting S3MachineLearningModelResourceData OwnerSetting GroupPermission Type Component
    Level Space Arn GroupDefinitions Lambdas Content Logging Data thingArn certificateArn DeploymentConfiguration
    CodeSize coreThing runtime system ggfast crypto principals IoTCertificate networkProxy proxy url cgroup useSystemd
    keepAlive caPath
    """,
)
WORDS = ["arn:aws:lambda:::function:GGCloudSpooler:1", "cloud", "/dev/x", "NoContainer", "ro"]
# Objects whose members are called like ours, so that arbitrary values get behind the first check.
known_keys: st.SearchStrategy[Any] = st.recursive(
    json_values
    | st.sampled_from(["arn:aws:lambda:::function:GGCloudSpooler:1", "cloud", "/dev/x", "NoContainer", "ro"]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(KEYS), inner, max_size=8),
    max_leaves=25,
)


def encoded(value: object) -> bytes:
    return json.dumps(value).encode()


@settings(max_examples=200, deadline=None)
@given(st.binary(max_size=200) | (json_values | known_keys).map(encoded))
def test_P7_any_document_gives_a_value_or_a_config_error(data: bytes) -> None:
    for read in (parse_folder, read_deployed, lambda text: parse_config(text, ROOT)):
        try:
            read(data)
        except ConfigError as error:
            assert error.problems
            assert all(problem.path and problem.expected for problem in error.problems)
            assert len(str(error)) < 100_000


def places(value: Any) -> list[tuple[Any, Any]]:
    """(container, key) of everything inside `value`."""
    found: list[tuple[Any, Any]] = []
    pairs = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, member in list(pairs):
        found.append((value, key))
        found += places(member)
    return found


@settings(max_examples=150, deadline=None)
@given(groups, st.integers(0, 10**6), json_values)
def test_P7_a_deployed_document_broken_in_one_place(group: Group, where: int, value: Any) -> None:
    document = copy.deepcopy(json.loads(write_deployed(group)))
    spots = places(document)
    container, key = spots[where % len(spots)]
    container[key] = value
    try:
        read_deployed(encoded(document))
    except ConfigError as error:
        assert error.problems


@settings(max_examples=150, deadline=None)
@given(any_group)
def test_writing_and_reading_give_the_same_group(group: Group) -> None:
    assert read_deployed(write_deployed(group)) == group


@settings(max_examples=100, deadline=None)
@given(groups)
def test_any_group_can_be_judged(group: Group) -> None:
    problems = Problems()
    validate(group, GroupRules(denied_paths=("/greengrass",)), problems, PATHS)
    assert len({source for source, _, _ in rules(group)}) <= len(group.subscriptions)
    for problem in problems:
        assert str(problem)


def related(group: Group, other: Group, chance: Any) -> Group:
    """`other`, with some of its parts taken from `group`, so that the two have something in common."""
    taken = {
        name: getattr(group, name)
        for name in ("core", "devices", "functions", "subscriptions", "resources", "loggers", "default_execution")
        if chance.random() < 0.5
    }
    mixed = replace(other, **taken)
    if group.functions and chance.random() < 0.5:
        changed = replace(group.functions[0], code_digest="a" * 64)
        mixed = replace(mixed, functions=(changed, *group.functions[2:]))
    return mixed


def sets(group: Group) -> Group:
    """`group` with functions and devices in one order: their order means nothing."""
    return replace(
        group,
        functions=tuple(sorted(group.functions, key=lambda function: function.arn)),
        devices=tuple(sorted(group.devices, key=lambda device: device.thing_arn)),
    )


@settings(max_examples=120, deadline=None)
@given(any_group, any_group, st.randoms(use_true_random=False))
def test_changes_lead_from_one_group_to_the_other(old: Group, new: Group, chance: Any) -> None:
    new = related(old, new, chance)
    changes = diff(old, new)
    assert sets(apply(old, changes)) == sets(new)
    assert diff(new, new) == ()
    assert (changes == ()) == (sets(old) == sets(new))


@settings(max_examples=120, deadline=None)
@given(any_group, any_group, st.randoms(use_true_random=False))
def test_what_is_new_comes_before_the_table_and_what_goes_after(old: Group, new: Group, chance: Any) -> None:
    kinds = [type(change) for change in diff(old, related(old, new, chance))]
    if TableChanged in kinds:
        table = kinds.index(TableChanged)
        assert all(kinds.index(kind) < table for kind in (FunctionAdded, FunctionChanged) if kind in kinds)
        assert FunctionRemoved not in kinds[:table]


@settings(max_examples=80, deadline=None)
@given(groups, groups)
def test_a_function_restarts_exactly_if_what_it_runs_with_changed(old: Group, new: Group) -> None:
    if not old.functions:
        return
    function = old.functions[0]
    quiet = replace(new, functions=old.functions, resources=old.resources, default_execution=old.default_execution)
    assert not [change for change in diff(old, quiet) if isinstance(change, FunctionChanged)]
    renamed = replace(old, functions=(replace(function, id="another-id-than-before"), *old.functions[1:]))
    assert [change.needs_restart for change in diff(old, renamed) if isinstance(change, FunctionChanged)] == [False]
    policy = ResourceAccessPolicy("the-resource", Permission.RO)
    attached = replace(function, configuration=replace(function.configuration, resources=(policy,)))
    before = replace(old, functions=(attached,), resources=(Resource("the-resource", "n", LocalVolume("/a", "/b")),))
    after = replace(before, resources=(Resource("the-resource", "n", LocalVolume("/c", "/b")),))
    assert [change.needs_restart for change in diff(before, after) if isinstance(change, FunctionChanged)] == [True]


@settings(max_examples=150, deadline=None)
@given(st.text("a+#/$é", max_size=12))
def test_subject_rules_agree_with_the_slow_reading(subject: str) -> None:
    levels = subject.split("/")
    good = all(level == "+" or "+" not in level for level in levels)
    good &= all("#" not in level or (level == "#" and place == len(levels) - 1) for place, level in enumerate(levels))
    good &= len(subject.encode()) <= 10 and subject.count("/") <= 3
    assert (subject_fault(subject, 10, 3) == "") == good
