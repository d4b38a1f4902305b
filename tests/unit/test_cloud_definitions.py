"""Definitions of the seven kinds: what comes back, what is refused and in which words (cloud-api 4 to 6)."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from cloud_desk import ACCOUNT, REGION, Desk
from cloud_greengrass import CONTENTS, FUNCTION, NOWHERE, PATHS, create, member, thing
from cloud_shapes_check import conforms

from ggfast import limits
from ggfast.cloud.faults import Fault
from ggfast.cloud.greengrass import GREENGRASS
from ggfast.cloud.greengrass.definitions import get_definition_version
from ggfast.cloud.limits import DEFINITION_BYTES_MAX, PAGE_MAX

UUID = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-4[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}")
TIME = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z")
KINDS = list(PATHS)


@pytest.fixture
def desk(tmp_path: Path) -> Iterator[Desk]:
    desk = Desk(tmp_path, GREENGRASS)
    yield desk
    desk.close()


def said(fault: Fault) -> tuple[int, str, str]:
    return fault.status, fault.code, fault.message


@pytest.mark.parametrize("kind", KINDS)
def test_row_12_a_definition_is_what_was_given_and_stays_so(desk: Desk, kind: str) -> None:
    """All eight operations of a kind, each answer as the model has it."""
    path = f"arn:aws:greengrass:{REGION}:{ACCOUNT}:/greengrass/definition/{PATHS[kind]}"
    name = f"{kind}Definition"
    made = create(desk, kind, Name="n", tags={"a": "b"})
    conforms("greengrass", f"Create{name}", made)
    assert desk.reply(f"Create{name}").status == 0
    assert GREENGRASS.operations[f"Create{name}"].status == 201
    identifier, version = made["Id"], made["LatestVersion"]
    assert UUID.fullmatch(identifier) and UUID.fullmatch(version) and TIME.fullmatch(made["CreationTimestamp"])
    assert made == {
        "Arn": f"{path}/{identifier}",
        "CreationTimestamp": made["CreationTimestamp"],
        "Id": identifier,
        "LastUpdatedTimestamp": made["CreationTimestamp"],
        "LatestVersion": version,
        "LatestVersionArn": f"{path}/{identifier}/versions/{version}",
        "Name": "n",
    }
    one = {f"{name}Id": identifier}
    assert desk.call(f"Get{name}", **one) == made | {"tags": {"a": "b"}}
    found = desk.call(f"Get{name}Version", **one, **{f"{name}VersionId": version})
    conforms("greengrass", f"Get{name}Version", found)
    assert found == {
        "Arn": made["LatestVersionArn"],
        "CreationTimestamp": made["CreationTimestamp"],
        "Id": identifier,
        "Version": version,
        "Definition": CONTENTS[kind],
    }
    assert json.dumps(found["Definition"]) == json.dumps(CONTENTS[kind])  # also in the order it was given
    listed = [entry for entry in desk.all(f"List{name}s", "Definitions") if entry["Id"] == identifier]
    assert listed == [made | {"tags": {"a": "b"}}]

    desk.clock.now += 1.5
    newer = desk.call(f"Create{name}Version", **one)
    conforms("greengrass", f"Create{name}Version", newer)
    assert newer["Arn"] == f"{path}/{identifier}/versions/{newer['Version']}"
    assert desk.call(f"Get{name}Version", **one, **{f"{name}VersionId": newer["Version"]})["Definition"] == {}
    assert desk.call(f"Get{name}Version", **one, **{f"{name}VersionId": version}) == found
    versions = desk.call(f"List{name}Versions", **one)
    conforms("greengrass", f"List{name}Versions", versions)
    assert [entry["Version"] for entry in versions["Versions"]] == [newer["Version"], version]
    after = desk.call(f"Get{name}", **one)
    assert after["LatestVersion"] == newer["Version"] and after["LastUpdatedTimestamp"] == newer["CreationTimestamp"]
    assert after["CreationTimestamp"] == made["CreationTimestamp"] < after["LastUpdatedTimestamp"]

    assert desk.call(f"Update{name}", **one, Name="ü\n") == {}
    assert desk.call(f"Get{name}", **one)["Name"] == "ü\n"
    assert desk.call(f"Get{name}Version", **one, **{f"{name}VersionId": version}) == found
    assert desk.call(f"Delete{name}", **one) == {}
    assert desk.refused(f"Get{name}", **one).status == 404
    assert desk.look(lambda tx: get_definition_version(tx, f"{ACCOUNT}/{REGION}", made["LatestVersionArn"])) is None
    assert desk.look(lambda tx: tx.get("tags", f"{ACCOUNT}/{REGION}", made["Arn"])) is None


@pytest.mark.parametrize("kind", KINDS)
def test_a_definition_needs_neither_name_nor_version(desk: Desk, kind: str) -> None:
    """Members that it has not are left out of every answer (cloud-api 6, further rules)."""
    bare = desk.call(f"Create{kind}Definition")
    assert sorted(bare) == ["Arn", "CreationTimestamp", "Id", "LastUpdatedTimestamp"]
    one = {f"{kind}DefinitionId": bare["Id"]}
    assert desk.call(f"Get{kind}Definition", **one) == bare | {"tags": {}}
    assert desk.call(f"List{kind}DefinitionVersions", **one) == {"Versions": []}
    assert bare in desk.all(f"List{kind}Definitions", "Definitions")
    named = desk.call(f"Create{kind}Definition", Name="only a name")
    assert sorted(named) == ["Arn", "CreationTimestamp", "Id", "LastUpdatedTimestamp", "Name"]
    versioned = create(desk, kind)
    assert "Name" not in versioned and versioned["LatestVersion"]
    version = desk.call(f"Create{kind}DefinitionVersion", **one, **CONTENTS[kind])
    assert desk.call(f"Get{kind}Definition", **one)["LatestVersionArn"] == version["Arn"]


LIST_WORDS = {"Function": "Lambda"}
WORDS = PATHS | {"Function": "lambdas"}
UNKNOWN_FOR_VERSION = {
    "Function": "That lambdas does not exist.",
    "Resource": "That resource definition does not exist.",
    "Subscription": "That subscriptions does not exist.",
}


@pytest.mark.parametrize("kind", KINDS)
def test_unknown_ids_have_the_services_words(desk: Desk, kind: str) -> None:
    """Letter by letter (cloud-api 6)."""
    name, word = f"{kind}Definition", LIST_WORDS.get(kind, kind)
    one = {f"{name}Id": NOWHERE}
    get_text = f"That {word} List Definition does not exist" + ("" if kind == "Core" else ".")
    assert said(desk.refused(f"Get{name}", **one)) == (404, "IdNotFoundException", get_text)
    usual = (404, "IdNotFoundException", f"That {WORDS[kind]} definition does not exist.")
    assert said(desk.refused(f"Delete{name}", **one)) == usual
    assert said(desk.refused(f"Update{name}", **one, Name="a")) == usual
    assert said(desk.refused(f"List{name}Versions", **one)) == usual
    assert said(desk.refused(f"Get{name}Version", **one, **{f"{name}VersionId": NOWHERE})) == usual
    for_version = UNKNOWN_FOR_VERSION.get(kind, usual[2])
    assert said(desk.refused(f"Create{name}Version", **one, **CONTENTS[kind])) == (404, usual[1], for_version)

    known = create(desk, kind)["Id"]
    code = "IdNotFoundException" if kind == "Function" else "VersionNotFoundException"
    text = f"Version {NOWHERE} of {word} List Definition {known} does not exist."
    fault = desk.refused(f"Get{name}Version", **{f"{name}Id": known, f"{name}VersionId": NOWHERE})
    assert said(fault) == (404, code, text)


@pytest.mark.parametrize("kind", KINDS)
def test_an_update_needs_a_name(desk: Desk, kind: str) -> None:
    """Empty and absent names are one (cloud-api 6)."""
    identifier = create(desk, kind, Name="stays")["Id"]
    expected = (
        (400, "InvalidInputException", "Invalid resource name.")
        if kind == "Resource"
        else (400, "InvalidContainerDefinitionException", "Input does not contain any attributes to be updated")
    )
    one = {f"{kind}DefinitionId": identifier}
    assert said(desk.refused(f"Update{kind}Definition", **one)) == expected
    assert said(desk.refused(f"Update{kind}Definition", **one, Name="")) == expected
    assert desk.call(f"Get{kind}Definition", **one)["Name"] == "stays"


def resource(data: dict[str, Any], identifier: str = "r", name: str = "") -> dict[str, Any]:
    return {"Id": identifier, "Name": name or identifier, "ResourceDataContainer": data}


def volume(path: str) -> dict[str, Any]:
    return {"LocalVolumeResourceData": {"SourcePath": path, "DestinationPath": "/x", "GroupOwnerSetting": {}}}


def device(path: str) -> dict[str, Any]:
    return {"LocalDeviceResourceData": {"SourcePath": path, "GroupOwnerSetting": {}}}


RESOURCES_INVALID = "The resources definition is invalid. (ErrorDetails: [{}])"
SYS = RESOURCES_INVALID.format("Accessing /sys is prohibited")


@pytest.mark.parametrize("path", ["/sys", "/sys/", "/sys/class/gpio", "//sys", "/srv/../sys/x", "/sys/./x"])
def test_volumes_on_sys_are_refused(desk: Desk, path: str) -> None:
    """As a first version and as a later one, in the same words, with nothing left behind."""
    before = len(desk.all("ListResourceDefinitions", "Definitions"))
    content = {"Resources": [resource(volume(path))]}
    fault = desk.refused("CreateResourceDefinition", InitialVersion=content)
    assert said(fault) == (400, "", SYS)
    assert fault.members["ErrorDetails"] == [
        {"DetailedErrorCode": "InvalidDefinition", "DetailedErrorMessage": "Accessing /sys is prohibited"}
    ]
    assert len(desk.all("ListResourceDefinitions", "Definitions")) == before
    one = {"ResourceDefinitionId": desk.call("CreateResourceDefinition")["Id"]}
    assert said(desk.refused("CreateResourceDefinitionVersion", **one, **content)) == (400, "", SYS)
    assert desk.call("ListResourceDefinitionVersions", **one) == {"Versions": []}


@pytest.mark.parametrize("path", ["/system", "/srv/sys", "/", "sys"])
def test_other_volumes_are_left_to_the_deployment(desk: Desk, path: str) -> None:
    """Only what the real service refuses here is refused here."""
    assert create(desk, "Resource", InitialVersion={"Resources": [resource(volume(path))]})["LatestVersion"]


@pytest.mark.parametrize("path", ["/srv/tty", "/device", "/dev/../etc/passwd", "dev/tty", ""])
def test_devices_lie_under_dev(desk: Desk, path: str) -> None:
    """The text shows the path as it was given."""
    text = RESOURCES_INVALID.format(f"Device resource path should begin with /dev, but got: {path}")
    fault = desk.refused("CreateResourceDefinition", InitialVersion={"Resources": [resource(device(path))]})
    assert said(fault) == (400, "", text)
    assert create(desk, "Resource", InitialVersion={"Resources": [resource(device("/dev/null"))]})["Id"]


def test_every_fault_of_a_content_is_listed(desk: Desk) -> None:
    """In the order of the entries; past ten only counted."""
    both = {"Resources": [resource(device("/x"), "a"), resource(volume("/sys"), "b")]}
    expected = "Device resource path should begin with /dev, but got: /x, Accessing /sys is prohibited"
    assert desk.refused("CreateResourceDefinition", InitialVersion=both).message == RESOURCES_INVALID.format(expected)
    many = {"Resources": [resource(volume("/sys"), str(number)) for number in range(13)]}
    fault = desk.refused("CreateResourceDefinition", InitialVersion=many)
    assert fault.message.endswith(f"{', '.join(['Accessing /sys is prohibited'] * 10)}, and 3 more])")
    assert isinstance(fault.members["ErrorDetails"], list) and len(fault.members["ErrorDetails"]) == 10


@pytest.mark.parametrize("data", [{}, {**volume("/srv"), **device("/dev/null")}])
def test_a_resource_is_of_one_kind(desk: Desk, data: dict[str, Any]) -> None:
    """None and two are refused."""
    fault = desk.refused("CreateResourceDefinition", InitialVersion={"Resources": [resource(data)]})
    assert fault.status == 400 and fault.code == ""
    assert f"Resource 'r' has {len(data)} kinds of data, expected one of LocalDeviceResourceData, " in fault.message


def subscription(source: str, target: str, identifier: str = "7") -> dict[str, Any]:
    return {"Id": identifier, "Source": source, "Subject": "a", "Target": target}


BAD_ENDS = (
    "",
    "Cloud",
    "ggshadowservice",
    "lambda",
    FUNCTION.removesuffix(":prod"),
    f"{FUNCTION}:more",
    thing("a/b"),
    thing("lamp").replace(ACCOUNT, "12"),
    f"arn:aws:greengrass:{REGION}::/connectors/SNS",
    "arn:aws:s3:::bucket",
    "cloud\n",
    ":" * 500,
)


@pytest.mark.parametrize("end", BAD_ENDS)
def test_ends_of_subscriptions(desk: Desk, end: str) -> None:
    """Letter by letter (cloud-api 6), for sources and targets."""
    frame = "The subscriptions definition is invalid or corrupted. (ErrorDetails: [{}])"
    source, target = (
        f"Subscription source is invalid. ID is '7' and Source is '{end}'",
        f"Subscription target is invalid. ID is '7' and Target is '{end}'",
    )
    for entry, text in (
        (subscription(end, "cloud"), source),
        (subscription("cloud", end), target),
        (subscription(end, end), f"{source}, {target}"),
    ):
        fault = desk.refused("CreateSubscriptionDefinition", InitialVersion={"Subscriptions": [entry]})
        assert said(fault) == (400, "", frame.format(text))
    one = {"SubscriptionDefinitionId": desk.call("CreateSubscriptionDefinition")["Id"]}
    fault = desk.refused("CreateSubscriptionDefinitionVersion", **one, Subscriptions=[subscription(end, "cloud")])
    assert said(fault) == (400, "", frame.format(source))


@pytest.mark.parametrize("end", ["arn:aws:lambda:::function:GGIPDetector:1", f"{FUNCTION[:-4]}$LATEST", thing("a:b_c")])
def test_unusual_ends_of_subscriptions(desk: Desk, end: str) -> None:
    """What a deployment may still refuse is no reason to refuse a definition."""
    assert create(desk, "Subscription", InitialVersion={"Subscriptions": [subscription(end, end)]})["LatestVersion"]


@pytest.mark.parametrize("kind", KINDS)
def test_ids_are_unique_in_a_version(desk: Desk, kind: str) -> None:
    """Whatever else differs (greengrass-core 4.1). A version has one core anyway."""
    key = next(key for key in CONTENTS[kind] if key != "DefaultConfig")
    entry = CONTENTS[kind][key][0]
    fault = desk.refused(f"Create{kind}Definition", InitialVersion={key: [entry, entry]})
    if kind == "Core":
        assert said(fault) == (
            400,
            "InvalidInputException",
            "InitialVersion.Cores: found 2 entries, expected a list of 0 to 1 entries.",
        )
    else:
        assert (fault.status, fault.code) == (400, "")
        assert f"{key} have the Id '{entry['Id']}' 2 times" in fault.message


def test_names_of_resources_are_unique(desk: Desk) -> None:
    """As their ids are (greengrass-core 4.1)."""
    content = {"Resources": [resource(volume("/a"), "a", "n"), resource(volume("/b"), "b", "n")]}
    fault = desk.refused("CreateResourceDefinition", InitialVersion=content)
    assert said(fault) == (400, "", RESOURCES_INVALID.format("Resources have the Name 'n' 2 times"))


REQUIRED = {
    "Connector": ["ConnectorArn", "Id"],
    "Core": ["CertificateArn", "Id", "ThingArn"],
    "Device": ["CertificateArn", "Id", "ThingArn"],
    "Function": ["Id"],
    "Logger": ["Component", "Id", "Level", "Type"],
    "Resource": ["Id", "Name", "ResourceDataContainer"],
    "Subscription": ["Id", "Source", "Subject", "Target"],
}


@pytest.mark.parametrize(("kind", "needed"), [(kind, needed) for kind in KINDS for needed in REQUIRED[kind]])
def test_required_members(desk: Desk, kind: str, needed: str) -> None:
    """Absent and null are one; the refusal names the place."""
    key = next(key for key in CONTENTS[kind] if key != "DefaultConfig")
    entry = CONTENTS[kind][key][0]
    for broken in ({name: entry[name] for name in entry if name != needed}, entry | {needed: None}):
        fault = desk.refused(f"Create{kind}Definition", InitialVersion={key: [broken]})
        assert (fault.status, fault.code) == (400, "InvalidInputException")
        assert fault.message.startswith(f"InitialVersion.{key}[0].{needed}: found nothing, expected ")


WRONG: list[tuple[str, dict[str, Any]]] = [
    ("Core", {"Cores": {}}),
    ("Core", {"Devices": []}),
    ("Core", {"Cores": [member("a", "ä")]}),
    ("Core", {"Cores": [member("a", "x" * 129)]}),
    ("Core", {"Cores": [member("a", "")]}),
    ("Core", {"Cores": [member("a", "1\n")]}),
    ("Core", {"Cores": [member("a", "1", SyncShadow="true")]}),
    ("Core", {"Cores": [member("a", "1", Unknown=1)]}),
    ("Core", {"Cores": ["a"]}),
    ("Device", {"Devices": [member("a", str(number)) for number in range(limits.GROUP_DEVICES_MAX + 1)]}),
    ("Function", {"Functions": [{"Id": str(number)} for number in range(limits.GROUP_FUNCTIONS_MAX + 1)]}),
    ("Function", {"Functions": [{"Id": "a", "FunctionConfiguration": {"MemorySize": -1}}]}),
    ("Function", {"Functions": [{"Id": "a", "FunctionConfiguration": {"MemorySize": 2**31}}]}),
    ("Function", {"Functions": [{"Id": "a", "FunctionConfiguration": {"Timeout": 1.5}}]}),
    ("Function", {"Functions": [{"Id": "a", "FunctionConfiguration": {"Timeout": True}}]}),
    ("Function", {"Functions": [{"Id": "a", "FunctionConfiguration": {"EncodingType": "JSON"}}]}),
    ("Function", {"Functions": [{"Id": "a", "FunctionConfiguration": {"Environment": {"Variables": {"a": 1}}}}]}),
    ("Function", {"DefaultConfig": {"Execution": {"IsolationMode": "None"}}}),
    ("Function", {"DefaultConfig": {"Execution": {"RunAs": {"Uid": -1}}}}),
    ("Function", {"DefaultConfig": {"Execution": {"RunAs": {"Uid": "0"}}}}),
    ("Logger", {"Loggers": [CONTENTS["Logger"]["Loggers"][0] | {"Level": "info"}]}),
    ("Logger", {"Loggers": [CONTENTS["Logger"]["Loggers"][0] | {"Space": "10"}]}),
    ("Logger", {"Loggers": [CONTENTS["Logger"]["Loggers"][0] | {"Component": "Core"}]}),
    ("Logger", {"Loggers": [CONTENTS["Logger"]["Loggers"][0] | {"Type": "S3"}]}),
    ("Resource", {"Resources": [resource({"LocalVolumeResourceData": {"SourcePath": 1}})]}),
    ("Resource", {"Resources": [resource({"Other": {}})]}),
    ("Resource", {"Resources": [resource(volume("/a"), "a b")]}),
    ("Resource", {"Resources": [resource(volume("/a"), str(at)) for at in range(limits.GROUP_RESOURCES_MAX + 1)]}),
    ("Resource", {"Resources": [resource({"S3MachineLearningModelResourceData": {"OwnerSetting": {}}})]}),
    ("Subscription", {"Subscriptions": [subscription("cloud", "cloud") | {"Subject": None}]}),
    ("Connector", {"Connectors": [{"Id": "a", "ConnectorArn": "b", "Parameters": []}]}),
]


@pytest.mark.parametrize(("kind", "content"), WRONG)
def test_what_has_not_the_shape_is_refused(desk: Desk, kind: str, content: dict[str, Any]) -> None:
    """Both ways in, always as a 400 that says what was found and what was expected."""
    fault = desk.refused(f"Create{kind}Definition", InitialVersion=content)
    assert (fault.status, fault.code) == (400, "InvalidInputException")
    assert re.search(r": found .+, expected .+\.$", fault.message, re.DOTALL)
    one = {f"{kind}DefinitionId": desk.call(f"Create{kind}Definition")["Id"]}
    assert desk.refused(f"Create{kind}DefinitionVersion", **one, **content).code == "InvalidInputException"


def test_a_function_has_so_many_resources(desk: Desk) -> None:
    """The late number of greengrass-core 16."""

    def content(many: int) -> dict[str, Any]:
        policies = [{"ResourceId": str(number)} for number in range(many)]
        configuration = {"Environment": {"ResourceAccessPolicies": policies}}
        return {"Functions": [{"Id": "a", "FunctionConfiguration": configuration}]}

    assert create(desk, "Function", InitialVersion=content(limits.FUNCTION_RESOURCES_MAX))["Id"]
    fault = desk.refused("CreateFunctionDefinition", InitialVersion=content(limits.FUNCTION_RESOURCES_MAX + 1))
    assert "found 21 entries, expected a list of 0 to 20 entries" in fault.message


def test_the_largest_table_fits(desk: Desk) -> None:
    """10,000 subscriptions with long ARNs are taken, come back and fit into a request."""
    entries = [
        subscription(FUNCTION, thing("d" * 128), f"{number:0>64}") | {"Subject": "s" * 64}
        for number in range(limits.GROUP_SUBSCRIPTIONS_MAX)
    ]
    assert len(json.dumps({"InitialVersion": {"Subscriptions": entries}})) < DEFINITION_BYTES_MAX
    made = create(desk, "Subscription", InitialVersion={"Subscriptions": entries})
    found = desk.call(
        "GetSubscriptionDefinitionVersion",
        SubscriptionDefinitionId=made["Id"],
        SubscriptionDefinitionVersionId=made["LatestVersion"],
    )
    assert found["Definition"] == {"Subscriptions": entries}
    desk.call("DeleteSubscriptionDefinition", SubscriptionDefinitionId=made["Id"])
    over = [*entries, subscription("cloud", "cloud", "more")]
    fault = desk.refused("CreateSubscriptionDefinition", InitialVersion={"Subscriptions": over})
    assert fault.message == (
        "InitialVersion.Subscriptions: found 10001 entries, expected a list of 0 to 10000 entries."
    )


def test_lists_come_in_pages(tmp_path: Path) -> None:
    """Sizes are texts; no entry twice, none missing, no token at the end, wrong tokens refused."""
    desk = Desk(tmp_path, GREENGRASS)
    try:
        made = [desk.call("CreateCoreDefinition")["Id"] for _ in range(5)]
        first = desk.call("ListCoreDefinitions", MaxResults="2")
        conforms("greengrass", "ListCoreDefinitions", first)
        assert [entry["Id"] for entry in first["Definitions"]] == made[:2]
        pages = desk.all("ListCoreDefinitions", "Definitions", MaxResults="2")
        assert [entry["Id"] for entry in pages] == made
        assert "NextToken" not in desk.call("ListCoreDefinitions", MaxResults="5")
        assert desk.call("ListDeviceDefinitions") == {"Definitions": []}
        one = {"CoreDefinitionId": made[0]}
        versions = [desk.call("CreateCoreDefinitionVersion", **one)["Version"] for _ in range(5)]
        found = desk.all("ListCoreDefinitionVersions", "Versions", MaxResults=2, **one)
        assert [entry["Version"] for entry in found] == versions[::-1]
        assert desk.refused("ListCoreDefinitions", NextToken="x").code == "InvalidInputException"
        assert desk.refused("ListCoreDefinitionVersions", **one, MaxResults="0").code == "InvalidInputException"
        assert PAGE_MAX >= 100 and len(desk.call("ListCoreDefinitions", MaxResults="999999")["Definitions"]) == 5
    finally:
        desk.close()


@pytest.mark.parametrize("kind", ["Connector", "Device", "Function", "Logger", "Subscription"])
def test_a_content_comes_at_once(desk: Desk, kind: str) -> None:
    """There is never a token for the rest of a version, so a given one is wrong."""
    made = create(desk, kind)
    one = {f"{kind}DefinitionId": made["Id"], f"{kind}DefinitionVersionId": made["LatestVersion"]}
    fault = desk.refused(f"Get{kind}DefinitionVersion", **one, NextToken="1")
    assert said(fault)[:2] == (400, "InvalidInputException")


def test_one_client_token_makes_one_definition(desk: Desk) -> None:
    """Row 18: the same token twice gives the same ids; another request with it is refused."""
    first = create(desk, "Core", Name="once", AmznClientToken="t1")
    assert create(desk, "Core", Name="once", AmznClientToken="t1") == first
    found = [entry for entry in desk.all("ListCoreDefinitions", "Definitions") if entry.get("Name") == "once"]
    assert len(found) == 1
    assert desk.refused("CreateCoreDefinition", Name="other", AmznClientToken="t1").code == "InvalidInputException"
    one = {"CoreDefinitionId": first["Id"], "AmznClientToken": "t2", **CONTENTS["Core"]}
    version = desk.call("CreateCoreDefinitionVersion", **one)
    assert desk.call("CreateCoreDefinitionVersion", **one) == version
    assert len(desk.call("ListCoreDefinitionVersions", CoreDefinitionId=first["Id"])["Versions"]) == 2
    assert desk.refused("CreateCoreDefinition", AmznClientToken="x" * 65).code == "InvalidInputException"


@pytest.mark.parametrize("name", ["../cores", "a/b", "..", "'; DROP TABLE documents", "ü𝄞", "*", "x" * 2_048])
def test_odd_ids_are_unknown_ids(desk: Desk, name: str) -> None:
    """Nothing but a UUID we gave is found."""
    assert desk.refused("GetCoreDefinition", CoreDefinitionId=name).status == 404
    known = create(desk, "Core")
    one = {"CoreDefinitionId": known["Id"], "CoreDefinitionVersionId": name}
    assert desk.refused("GetCoreDefinitionVersion", **one).status == 404
    swapped = {"CoreDefinitionId": f"{known['Id']}/", "CoreDefinitionVersionId": known["LatestVersion"]}
    assert desk.refused("GetCoreDefinitionVersion", **swapped).status == 404
    assert desk.refused("GetCoreDefinition", CoreDefinitionId=known["Id"].upper()).status == 404


def test_names_are_bounded(desk: Desk) -> None:
    """Texts, not numbers, of 256 characters at most."""
    assert desk.call("CreateCoreDefinition", Name="")["Name"] == ""
    assert desk.call("CreateCoreDefinition", Name="ü" * 256)["Name"] == "ü" * 256
    for wrong in ("x" * 257, 1, ["a"], "a\0"):
        assert desk.refused("CreateCoreDefinition", Name=wrong).code == "InvalidInputException"


def test_regions_are_apart(desk: Desk) -> None:
    """What one region has, another does not know."""
    made = create(desk, "Core")
    assert desk.refused("GetCoreDefinition", region="us-east-1", CoreDefinitionId=made["Id"]).status == 404
    assert desk.call("ListCoreDefinitions", region="us-east-1") == {"Definitions": []}
    elsewhere = desk.call("CreateCoreDefinition", region="us-east-1")
    assert elsewhere["Arn"].startswith(f"arn:aws:greengrass:us-east-1:{ACCOUNT}:/greengrass/definition/cores/")


def test_versions_are_found_by_their_arns(desk: Desk) -> None:
    """With and without the slash, of the asked kind alone, in their own region alone."""
    home, made = f"{ACCOUNT}/{REGION}", create(desk, "Core")
    arn = made["LatestVersionArn"]

    def look(given: str, kind: str = "", where: str = home) -> object:
        return desk.look(lambda tx: get_definition_version(tx, where, given, kind))

    for given in (arn, arn.replace(":/greengrass", ":greengrass")):
        assert look(given) == look(given, "cores") == CONTENTS["Core"]
    assert look(arn, "devices") is None and look(arn, where=f"{ACCOUNT}/us-east-1") is None
    for given in ("", "cloud", made["Arn"], f"{arn}/", f"{arn}\n", arn.replace("cores", "devices"), f"x{arn}"):
        assert look(given) is None
