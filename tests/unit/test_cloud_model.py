"""The Greengrass API is the one in the published service model: 92 operations, their paths, members and answers."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from botocore.model import OperationModel, Shape
from cloud_desk import ACCOUNT
from cloud_fleet import Fleet, desk_for
from cloud_shapes_check import conforms, model
from cloud_walk import walk

from ggfast.cloud import shapes
from ggfast.cloud.faults import Fault
from ggfast.cloud.greengrass import GREENGRASS

MODEL = model("greengrass")
OPERATIONS = list(MODEL.operation_names)
LOCATIONS = {"uri": "path", "querystring": "query", "header": "header", None: "body"}

# What the model calls optional, and without which the operation has no meaning: the real service refuses that too.
NEEDED = {
    "TagResource": {"tags"},
    "UpdateConnectivityInfo": {"ConnectivityInfo"},
    "UpdateGroupCertificateConfiguration": {"CertificateExpiryInMilliseconds"},
    "UpdateThingRuntimeConfiguration": {"TelemetryConfiguration"},
}
# Required by the model; the handler refuses their absence, in the words of cloud-api 6.
LATER = {"CreateDeployment": {"DeploymentType"}}
# Strings by the model, numbers in published answers (cloud-api 6).
NUMBERS = {"CertificateAuthorityExpiryInMilliseconds", "CertificateExpiryInMilliseconds"}


def operation_of(name: str) -> OperationModel:
    return MODEL.operation_model(name)


def test_all_operations_and_no_other() -> None:
    """92 of them."""
    assert len(OPERATIONS) == 92
    assert sorted(GREENGRASS.operations) == sorted(OPERATIONS)
    assert MODEL.signing_name == GREENGRASS.name and MODEL.api_version == GREENGRASS.api_version


@pytest.mark.parametrize("name", OPERATIONS)
def test_requests_are_the_models(name: str) -> None:
    """Method, path, and every member with its place, its name there and its type; the status is the one really sent."""
    ours, theirs = GREENGRASS.operations[name], operation_of(name)
    assert ours.method == theirs.http["method"]
    given = theirs.input_shape
    members = dict(given.members) if given is not None else {}
    wires = {member.serialization.get("name"): key for key, member in members.items()}
    path = "/".join(
        f"{{{wires[segment[1:-1]]}}}" if segment.startswith("{") else segment
        for segment in theirs.http["requestUri"].strip("/").split("/")
    )
    assert "/".join(ours.segments) == path
    assert sorted(ours.takes.members) == sorted(members)
    for key, member in members.items():
        mine = ours.takes.members[key]
        assert mine.where == LOCATIONS[member.serialization.get("location")], key
        if mine.where in ("query", "header"):
            assert (mine.wire or key).lower() == member.serialization["name"].lower()
        same(mine.shape, member, f"{name}.{key}")
    required = {key for key, mine in ours.takes.members.items() if mine.required}
    by_model = set(given.required_members) if given is not None else set()
    assert required | LATER.get(name, set()) == by_model | NEEDED.get(name, set())
    creates = name.startswith("Create") and ("Definition" in name or name in ("CreateGroup", "CreateGroupVersion"))
    assert ours.status == (201 if creates else theirs.http["responseCode"])
    assert ours.writes == (not name.startswith(("Get", "List")))


def same(mine: shapes.Shape, theirs: Shape, path: str) -> None:
    """Both describe the same JSON."""
    kind = theirs.type_name
    if kind == "structure":
        assert isinstance(mine, shapes.Record), path
        assert sorted(mine.members) == sorted(theirs.members), path
        for key, member in theirs.members.items():
            same(mine.members[key].shape, member, f"{path}.{key}")
    elif kind == "list":
        assert isinstance(mine, shapes.Items), path
        same(mine.of, theirs.member, f"{path}[]")
    elif kind == "map":
        assert isinstance(mine, shapes.Table), path
        same(mine.of, theirs.value, f"{path}.*")
    elif kind == "integer":
        assert isinstance(mine, shapes.Whole), path
    elif kind == "boolean":
        assert isinstance(mine, shapes.Flag), path
    else:
        assert kind == "string", path
        assert not isinstance(mine, shapes.Record | shapes.Items | shapes.Table | shapes.Whole | shapes.Flag), path
        if theirs.enum and not path.startswith("CreateDeployment."):  # refuses in words of its own
            assert isinstance(mine, shapes.Choice) and mine.words == set(theirs.enum), path


def test_every_operation_answers_as_the_model_has_it(tmp_path: Path) -> None:
    """One life of a group through all 92, each answer checked member by member."""
    desk = desk_for(tmp_path)
    seen: set[str] = set()

    def call(operation: str, **members: Any) -> dict[str, Any]:
        answer = desk.call(operation, service="greengrass", **members)
        conforms("greengrass", operation, {key: str(answer[key]) if key in NUMBERS else answer[key] for key in answer})
        seen.add(operation)
        return answer

    try:
        walk(call, Fleet(desk).core, ACCOUNT)
    finally:
        desk.close()
    assert seen == set(OPERATIONS)


@pytest.mark.parametrize("name", OPERATIONS)
def test_unknown_members_are_refused(name: str) -> None:
    """Nothing that is not in the model is taken."""
    with pytest.raises(shapes.Wrong, match="Colour: found an unknown member"):
        GREENGRASS.operations[name].takes.read({"Colour": "red"}, "")


def test_paths_lead_to_their_operations() -> None:
    """Also where a literal and an id could both be meant; an empty id leads nowhere (cloud-api 6)."""
    for name in OPERATIONS:
        operation = GREENGRASS.operations[name]
        path = "/" + "/".join("a%2Fb" if segment.startswith("{") else segment for segment in operation.segments)
        found, members = GREENGRASS.route(operation.method, path)
        assert found is operation and set(members.values()) <= {"a/b"}
    for method, path in (("DELETE", "/greengrass/definition/devices/"), ("GET", "/greengrass/groups//versions")):
        with pytest.raises(Fault) as refused:
            GREENGRASS.route(method, path)
        assert refused.value.status == 404
