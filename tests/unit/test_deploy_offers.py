"""From the control plane's own offers to staged groups, and from those to live ones."""

from __future__ import annotations

import asyncio
import io
import json
import os
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import orjson
import pytest
from cloud_desk import ACCOUNT, REGION
from cloud_fleet import HOME, Fleet, certificate, desk_for
from deploy_support import live
from offer_support import Shop, fill, sha256, small_disk

from ggfast import limits
from ggfast.cloud.deploy.objects import register_object
from ggfast.config import Config, parse_config
from ggfast.core.deploy.downloads import DOWNLOAD_FAILED
from ggfast.core.deploy.offered import INVALID, stage_offer
from ggfast.core.deploy.store import StagedGroup, Store, live_deployment, load_active, load_certificates
from ggfast.errors import DeploymentFailed, GgfastError, LinkDown
from ggfast.layout import Layout

HELLO, WORLD = (f"arn:aws:lambda:{REGION}:{ACCOUNT}:function:{name}:1" for name in ("hello", "world"))
MODEL = "s3://models/m.zip"


@pytest.fixture
def fleet(tmp_path: Path) -> Iterator[Fleet]:
    desk = desk_for(tmp_path)
    yield Fleet(desk)
    desk.close()


@pytest.fixture(autouse=True)
def no_power_cuts(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing here depends on what has reached the disk itself, and the machine's other writes are not ours."""
    monkeypatch.setattr(os, "sync", lambda: None)


class Place:
    """A core that belongs to the cloud of a fleet, without a daemon."""

    def __init__(self, root: Path, fleet: Fleet, **settings: Any) -> None:
        self.fleet, self.shop = fleet, Shop()
        document = {"coreThing": {"thingArn": fleet.core["ThingArn"]}, "ggfast": {"local": True}, **settings}
        self.config: Config = parse_config(json.dumps(document).encode(), root)
        self.layout: Layout = self.config.layout
        self.store = Store(self.layout, fsync=False)

    def offer(self, **members: Any) -> dict[str, Any]:
        """What the control plane offers for a group, with its artifacts in the shop. It is told of a success at once:
        so it takes the next deployment."""
        started = self.fleet.deploy(self.fleet.group(**members))
        offer = self.fetched()
        self.fleet.core_says(started, "Success")
        return offer

    def fetched(self) -> dict[str, Any]:
        offer = self.fleet.fetched()
        for artifact in offer["artifacts"]:
            self.shop.contents[artifact["digest"]] = self.fleet.desk.cloud.artifacts.read(artifact["digest"])
        return offer

    def stage(self, offer: dict[str, Any], name: str = "new") -> StagedGroup:
        self.shop.asked.clear()
        return asyncio.run(stage_offer(orjson.dumps(offer), name, self.config, self.shop, self.shop.pause))

    def deploy(self, offer: dict[str, Any]) -> StagedGroup:
        staged = self.stage(offer)
        self.store.activate(staged.directory)
        self.store.confirm()
        return staged

    def failure(self, offer: dict[str, Any]) -> str:
        """Why it fails for good; nothing of it stays, nothing live changes."""
        before = live(self.layout)
        with pytest.raises(DeploymentFailed) as error:
            self.stage(offer)
        assert live(self.layout) == before
        assert not self.layout.staging.is_dir() or list(self.layout.staging.iterdir()) == []
        return error.value.detail

    @property
    def asked(self) -> list[str]:
        return [digest for digest, _ in self.shop.asked]


@pytest.fixture
def place(tmp_path: Path, fleet: Fleet) -> Place:
    return Place(tmp_path / "greengrass", fleet)


def digests(offer: dict[str, Any]) -> dict[str, str]:
    return {artifact["name"]: artifact["digest"] for artifact in offer["artifacts"]}


def with_package(offer: dict[str, Any], content: bytes) -> dict[str, Any]:
    """The offer with another archive for its only function."""
    offer["artifacts"][0] |= {"digest": sha256(content), "size": len(content)}
    [function] = offer["document"]["GroupDefinitions"]["Lambdas"]["Content"]
    function["DeploymentConfiguration"]["CodeSha256"] = sha256(content)
    return offer


def model_of(fleet: Fleet, text: str) -> dict[str, Any]:
    """A model resource whose archive holds `text`."""
    raw = io.BytesIO()
    with zipfile.ZipFile(raw, "w") as archive:
        archive.writestr(zipfile.ZipInfo("weights"), text)
    digest = fleet.desk.cloud.artifacts.keep(raw.getvalue())
    fleet.desk.change(lambda tx: register_object(tx, HOME, MODEL, digest, len(raw.getvalue())))
    data = {"S3Uri": MODEL, "DestinationPath": "/ml"}
    return {"Id": "m", "Name": "m", "ResourceDataContainer": {"S3MachineLearningModelResourceData": data}}


def attached(function: dict[str, Any]) -> dict[str, Any]:
    policies = [{"ResourceId": "m", "Permission": "ro"}]
    function["FunctionConfiguration"]["Environment"] = {"ResourceAccessPolicies": policies}
    return function


# --- what becomes live ---


def test_an_offer_becomes_the_live_group(place: Place) -> None:
    fleet = place.fleet
    lamp, old = fleet.thing("lamp"), fleet.thing("old-lamp")
    ended = old["CertificateArn"].rpartition("/")[2]
    fleet.desk.call("UpdateCertificate", certificateId=ended, newStatus="REVOKED")
    address = {"Id": "1", "HostAddress": "192.168.1.5", "PortNumber": 8883, "Metadata": ""}
    fleet.desk.call("UpdateConnectivityInfo", ThingName="core1", ConnectivityInfo=[address])
    offer = place.offer(Devices=[lamp, old], Functions=[fleet.function("hello")])
    staged = place.deploy(offer)
    group = load_active(place.layout)
    assert group == staged.group and group.version_id == offer["versionId"]
    assert {device.thing_arn for device in group.devices} == {lamp["ThingArn"], old["ThingArn"]}
    function = group.function(HELLO)
    assert function is not None and function.code_digest and function.code_digest != digests(offer)[HELLO]
    assert b"hello 1" in (place.layout.function(HELLO) / "main.py").read_bytes()
    assert list(load_certificates(group.devices, place.layout)) == [lamp["CertificateArn"].rpartition("/")[2]]
    assert place.layout.certificate(lamp["CertificateArn"].rpartition("/")[2]).read_text() == certificate("lamp")
    found = live_deployment(place.layout)
    assert found == {
        "id": offer["id"],
        "type": "NewDeployment",
        "groupId": offer["groupId"],
        "versionId": offer["versionId"],
        "artifacts": digests(offer),
        "trust": {
            "groupId": offer["groupId"],
            "endedCertificates": [ended],
            "authorities": offer["document"]["GroupCertificateAuthorities"],
            "certificateSeconds": offer["document"]["CertificateExpiryInMilliseconds"] // 1_000,
            "connectivity": [address],
        },
    }
    assert list(place.layout.downloads.iterdir()) == []


def test_functions_that_did_not_change_are_neither_fetched_nor_unpacked(place: Place) -> None:
    fleet = place.fleet
    functions = [fleet.function("hello"), fleet.function("world")]
    offer = place.offer(Functions=functions)
    place.deploy(offer)
    assert sorted(set(place.asked)) == sorted(digests(offer).values())
    before = live(place.layout)
    version = fleet.new_code("world", "another")
    offer = place.offer(Functions=functions)
    newer = WORLD[:-1] + version
    staged = place.stage(offer)
    assert place.asked == [digests(offer)[newer]]
    assert [path.name for path in (staged.directory / "lambda").iterdir()] == [newer]
    place.store.activate(staged.directory)
    after = live(place.layout)
    kept = [name for name in before if name.startswith(f"lambda/{HELLO}/")]
    assert kept and all(after[name] == before[name] for name in kept)
    group = load_active(place.layout)
    assert {function.arn for function in group.functions} == {HELLO, newer}
    assert place.store.rollback() and live(place.layout) == before


def test_a_package_is_fetched_again_where_it_is_not_what_it_was(place: Place) -> None:
    fleet = place.fleet
    offer = place.offer(Functions=[fleet.function("hello")])
    place.deploy(offer)
    place.deploy(offer)
    assert place.asked == []
    place.layout.deployment_file.write_text("{damaged")
    assert live_deployment(place.layout) is None
    place.deploy(offer)
    assert place.asked == [digests(offer)[HELLO]]
    (place.layout.function(HELLO) / "main.py").unlink()
    (place.layout.function(HELLO)).rename(place.layout.functions / "gone")
    place.deploy(offer)
    assert place.asked == [digests(offer)[HELLO]]
    assert (place.layout.function(HELLO) / "main.py").is_file()


def test_models_are_fetched_and_unpacked_once(place: Place) -> None:
    fleet = place.fleet
    hello = attached(fleet.function("hello"))
    offer = place.offer(Functions=[hello], Resources=[model_of(fleet, "weights 1")])
    place.deploy(offer)
    first = digests(offer)["m"]
    assert (place.layout.models / first / "content" / "weights").read_text() == "weights 1"
    place.deploy(place.offer(Functions=[hello], Resources=[model_of(fleet, "weights 1")]))
    assert place.asked == [] and (place.layout.models / first).is_dir()
    offer = place.offer(Functions=[hello], Resources=[model_of(fleet, "weights 2")])
    place.deploy(offer)
    assert place.asked == [digests(offer)["m"]]
    assert [path.name for path in place.layout.models.iterdir()] == [digests(offer)["m"]]


def test_a_redeployment_takes_what_was_frozen(place: Place) -> None:
    fleet = place.fleet
    group = fleet.group(Functions=[fleet.function("hello")])
    started = fleet.deploy(group)
    place.deploy(place.fetched())
    fleet.core_says(started, "Success")
    fleet.deploy(group, "Redeployment", DeploymentId=started["DeploymentId"])
    offer = place.fetched()
    place.deploy(offer)
    found = live_deployment(place.layout)
    assert found is not None and (found["id"], found["type"]) == (offer["id"], "Redeployment")
    assert place.asked == []


def test_what_a_killed_process_left_is_replaced_and_used(place: Place) -> None:
    offer = place.offer(Functions=[place.fleet.function("hello")])
    left = place.layout.staging / "new" / "group"
    left.mkdir(parents=True)
    (left / "rubbish").write_text("")
    place.layout.downloads.mkdir()
    [digest] = digests(offer).values()
    (place.layout.downloads / f"{digest}.part").write_bytes(place.shop.contents[digest][:10])
    place.deploy(offer)
    assert place.shop.asked == [(digest, 10)]
    assert not (place.layout.group / "rubbish").exists()


def test_recovery_leaves_downloads_and_the_agents_record_alone(place: Place) -> None:
    place.deploy(place.offer(Functions=[place.fleet.function("hello")]))
    (place.layout.downloads / "0.part").write_text("half")
    place.layout.agent_state.write_text("record")
    staged = place.stage(place.offer(Functions=[place.fleet.function("world")]))
    (place.layout.downloads / "0.part").write_text("half")
    place.store.activate(staged.directory)
    place.store.recover()
    assert (place.layout.downloads / "0.part").read_text() == "half"
    assert place.layout.agent_state.read_text() == "record"
    assert load_active(place.layout).function(HELLO) is not None


# --- what is refused, in V1's words ---


def test_what_this_core_does_not_allow_is_refused(place: Place) -> None:
    fleet = place.fleet
    root = fleet.function("hello")
    root["FunctionConfiguration"]["Environment"] = {"Execution": {"RunAs": {"Uid": 0, "Gid": 0}}}
    secret, _ = fleet.secret("s1")
    data = {"SourcePath": str(place.layout.root), "DestinationPath": "/x", "GroupOwnerSetting": {}}
    volume = {"Id": "v", "Name": "v", "ResourceDataContainer": {"LocalVolumeResourceData": data}}
    text = place.failure(place.offer(Functions=[root], Resources=[secret, volume]))
    assert text.startswith(INVALID)
    assert (
        f"[{HELLO}] are configured to run as root while Greengrass is not configured to run lambdas with root" in text
    )
    assert "Resources[0].ResourceDataContainer: found Secret" in text.replace("SecretsManager.", "")
    assert f"expected a path apart from {place.layout.root}, which is hidden" in text
    assert place.asked == []


def test_root_is_allowed_where_the_core_says_so(tmp_path: Path, fleet: Fleet) -> None:
    place = Place(tmp_path / "greengrass", fleet, runtime={"allowFunctionsToRunAsRoot": "yes"})
    root = fleet.function("hello")
    root["FunctionConfiguration"]["Environment"] = {"Execution": {"RunAs": {"Uid": 0, "Gid": 0}}}
    place.deploy(place.offer(Functions=[root]))


def test_an_offer_for_another_core_is_refused(place: Place) -> None:
    offer = place.offer()
    offer["document"]["Cores"][0]["thingArn"] += "_2"
    assert place.failure(offer).startswith(f'{INVALID}Cores[0].ThingArn: found "')


def test_a_package_that_is_none_is_refused_with_its_place(place: Place) -> None:
    offer = with_package(place.offer(Functions=[place.fleet.function("hello")]), b"no archive")
    place.shop.contents[sha256(b"no archive")] = b"no archive"
    text = place.failure(offer)
    assert text.startswith(f"{INVALID}Functions[0].Code: ") and "expected a function package" in text
    assert [path.name for path in place.layout.downloads.iterdir()] == [sha256(b"no archive")]


def test_a_handler_that_is_not_there_is_refused(place: Place) -> None:
    offer = place.offer(Functions=[place.fleet.function("hello")])
    offer["document"]["GroupDefinitions"]["Lambdas"]["Content"][0]["Handler"] = "other.handler"
    text = place.failure(offer)
    assert text.startswith(f'{INVALID}Functions[0].Handler: found "other.handler", expected ') and HELLO in text


def test_a_wrong_digest_fails_the_download_in_v1s_words(place: Place) -> None:
    offer = place.offer(Functions=[place.fleet.function("hello")])
    [digest] = digests(offer).values()
    place.shop.contents[digest] = place.shop.contents[digest][:-1] + b"x"
    assert place.failure(offer).startswith(f"{DOWNLOAD_FAILED}{HELLO}: its SHA-256 is ")
    assert len(place.asked) == limits.FETCH_WRONG_MAX


def test_a_lost_network_keeps_what_has_arrived(place: Place) -> None:
    offer = place.offer(Functions=[place.fleet.function("hello")])
    [digest] = digests(offer).values()

    def broken(content: bytes, offset: int, sink: Any) -> None:
        if offset == 0:
            sink(content[:9])
        raise LinkDown("no route")

    place.shop.script = [broken] * 100
    with pytest.raises(LinkDown, match="no route"):
        place.stage(offer)
    assert [path.name for path in place.layout.downloads.iterdir()] == [f"{digest}.part"]
    place.shop.script = []
    place.deploy(offer)
    assert place.shop.asked == [(digest, 9)]


@pytest.mark.parametrize("size", [0, limits.PACKAGE_ARCHIVE_BYTES_MAX + 1, 2**70, -1, "1", None, True])
def test_sizes_that_cannot_be_are_refused(place: Place, size: object) -> None:
    offer = place.offer(Functions=[place.fleet.function("hello")])
    data = orjson.dumps(offer).replace(
        b'"size":%d' % offer["artifacts"][0]["size"], b'"size":' + json.dumps(size).encode()
    )
    with pytest.raises(DeploymentFailed, match=r"group config is invalid: artifacts\[0\]\.size: "):
        asyncio.run(stage_offer(data, "new", place.config, place.shop, place.shop.pause))


def test_documents_and_artifacts_that_disagree_are_refused(place: Place) -> None:
    fleet = place.fleet
    offer = place.offer(Functions=[fleet.function("hello")], Devices=[fleet.thing("lamp")])
    for change, text in {
        "artifacts": f'artifacts: the function "{HELLO}": found nothing',
        "versionId": "document.Arn: found ",
        "groupId": "document.Arn: found ",
    }.items():
        assert text in place.failure(offer | {change: [] if change == "artifacts" else "other"})
    twice = offer | {"artifacts": offer["artifacts"] * 2}
    assert "artifacts[1].name: found " in place.failure(twice)
    many = offer | {"artifacts": offer["artifacts"] * 100_000}
    assert "artifacts: found a list of 100000, expected at most 400" in place.failure(many)
    [known] = offer["document"]["DeviceCertificates"]
    strange = {**offer["document"], "DeviceCertificates": [known | {"CertificatePem": certificate("stranger")}]}
    assert "DeviceCertificates[0].CertificatePem: found the certificate " in place.failure(
        offer | {"document": strange}
    )
    silent = {**offer["document"], "DeviceCertificates": []}
    assert "document.DeviceCertificates: found nothing" in place.failure(offer | {"document": silent})
    assert "Cores: found 0 cores" in place.failure(offer | {"document": {}})


# --- full disks ---


@pytest.mark.root
def test_a_disk_without_room_for_a_package_is_told(tmp_path: Path, fleet: Fleet) -> None:
    with small_disk(tmp_path / "greengrass", 6 * limits.MIB) as disk:
        place = Place(disk, fleet)
        raw = io.BytesIO()
        with zipfile.ZipFile(raw, "w", zipfile.ZIP_DEFLATED) as archive:
            archive.writestr("main.py", "def handler(event, context): pass\n")
            archive.writestr("data", bytes(3 * limits.MIB))
        offer = with_package(place.offer(Functions=[fleet.function("hello")]), raw.getvalue())
        place.shop = Shop(raw.getvalue())
        filler = fill(disk, limits.PACKAGE_SPARE_BYTES + limits.MIB)
        text = place.failure(offer)
        start = f"Error while processing. the group cannot be staged: write {place.layout.staging / 'new'}: "
        assert text.startswith(start + "no space left on device: ")
        missing = int(text.removeprefix(start).split(": ")[1].removesuffix(" bytes are missing"))
        assert 2 * limits.MIB < missing < 2 * limits.MIB + 200_000  # and the download and directories
        assert list(place.layout.downloads.iterdir()) == []
        filler.unlink()
        place.deploy(offer)


@pytest.mark.root
def test_a_disk_without_room_for_the_group_is_told(tmp_path: Path, fleet: Fleet) -> None:
    with small_disk(tmp_path / "greengrass", 6 * limits.MIB) as disk:
        place = Place(disk, fleet)
        place.deploy(place.offer(Functions=[fleet.function("hello")]))
        offer = place.offer(Devices=[fleet.thing("lamp")])
        filler = fill(disk)
        text = place.failure(offer)
        assert str(place.layout.staging / "new" / "group") in text
        assert "no space left on device: " in text and text.endswith(" bytes are missing")
        assert load_active(place.layout).function(HELLO) is not None
        filler.unlink()
        place.deploy(offer)


def test_an_unreadable_live_group_is_replaced(place: Place) -> None:
    offer = place.offer(Functions=[place.fleet.function("hello")])
    place.deploy(offer)
    place.layout.group_file.write_text("{}}")
    with pytest.raises(GgfastError):
        load_active(place.layout)
    staged = place.deploy(offer)
    assert any("is replaced as a whole" in note for note in staged.notes)
    assert load_active(place.layout) == staged.group
