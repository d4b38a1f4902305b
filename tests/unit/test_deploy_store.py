"""From a folder to the live group on disk: staging, activation, rollback, recovery."""

from __future__ import annotations

import json
import os
import ssl
from pathlib import Path
from typing import Any

import pytest
from deploy_support import CERTIFICATE_ID, DER, OTHER, PEM, THIRD, Folder, deploy, live
from group_support import FUNCTION

from ggfast import limits
from ggfast.arns import STREAM_MANAGER_ARN
from ggfast.core.deploy.folder import stage_empty, stage_folder
from ggfast.core.deploy.store import Recovery, Store, load_active, load_certificates, missing_packages
from ggfast.errors import ConfigError, CorruptRecord, DeploymentFailed, LimitReached, StorageFailed
from ggfast.group.diff import DeviceAdded, FunctionAdded, FunctionChanged, FunctionRemoved, Reason
from ggfast.group.document import Group
from ggfast.layout import Layout


@pytest.fixture
def layout(tmp_path: Path) -> Layout:
    return Layout.of(tmp_path / "greengrass")


@pytest.fixture
def store(layout: Layout) -> Store:
    return Store(layout, fsync=False)


@pytest.fixture
def folder(tmp_path: Path) -> Folder:
    made = Folder(tmp_path / "folder")
    made.function(FUNCTION)
    made.function(OTHER)
    return made


def problems_of(folder: Folder, layout: Layout, **more: Any) -> list[str]:
    before = live(layout)
    with pytest.raises(ConfigError) as error:
        stage_folder(folder.write(), layout, **more)
    assert live(layout) == before
    assert not list(layout.staging.iterdir()) if layout.staging.exists() else True
    return [problem.path for problem in error.value.problems]


# --- staging ---


def test_first_deployment(folder: Folder, layout: Layout, store: Store) -> None:
    folder.device()
    (folder.path / "certificates").mkdir()
    (folder.path / "certificates" / "d.crt").write_text("key first\n" + PEM)
    assert load_active(layout) == Group()
    staged = stage_folder(folder.write(), layout)
    assert live(layout) == {}
    assert {type(change) for change in staged.changes} >= {FunctionAdded, DeviceAdded}
    group = store.activate(staged.directory)
    store.confirm()
    assert group == staged.group == store.load_active()
    assert group.version_id
    assert (layout.function(FUNCTION) / "main.py").read_text() == "def handler(e, c): pass\n"
    assert load_certificates(group.devices, layout) == {CERTIFICATE_ID: DER}
    assert missing_packages(group, layout) == []
    assert json.loads(layout.group_file.read_text())["Arn"] == group.arn
    assert sorted(path.name for path in layout.deployment.iterdir()) == ["group", "lambda", "models", "staging"]
    assert list(layout.staging.iterdir()) == []


def test_the_same_folder_again_changes_nothing(folder: Folder, layout: Layout, store: Store) -> None:
    first = deploy(folder, layout, store)
    before = {path: path.stat().st_ino for path in layout.functions.rglob("*")}
    staged = stage_folder(folder.write(), layout)
    assert staged.changes == ()
    assert staged.group.version_id == first.version_id
    store.activate(staged.directory)
    store.confirm()
    assert {path: path.stat().st_ino for path in layout.functions.rglob("*")} == before


def test_only_what_changed_is_replaced(folder: Folder, layout: Layout, store: Store) -> None:
    first = deploy(folder, layout, store)
    kept = (layout.function(OTHER) / "main.py").stat().st_ino
    folder.function(FUNCTION, "def handler(e, c): return 2\n")
    folder.function(THIRD)
    staged = stage_folder(folder.write(), layout)
    changed = [change for change in staged.changes if isinstance(change, FunctionChanged)]
    assert [(change.new.arn, change.reasons) for change in changed] == [(FUNCTION, (Reason.CODE,))]
    second = store.activate(staged.directory)
    store.confirm()
    assert second.version_id != first.version_id
    assert (layout.function(OTHER) / "main.py").stat().st_ino == kept
    assert "return 2" in (layout.function(FUNCTION) / "main.py").read_text()
    folder.remove(OTHER)
    staged = stage_folder(folder.write(), layout)
    assert [type(change) for change in staged.changes if isinstance(change, FunctionRemoved)] == [FunctionRemoved]
    store.activate(staged.directory)
    store.confirm()
    assert sorted(os.listdir(layout.functions)) == sorted([FUNCTION, THIRD])


def test_a_lost_package_comes_back(folder: Folder, layout: Layout, store: Store) -> None:
    group = deploy(folder, layout, store)
    (layout.function(OTHER) / "main.py").unlink()
    os.rename(layout.function(OTHER), layout.root / "gone")
    assert [problem.path for problem in missing_packages(group, layout)] == [OTHER]
    deploy(folder, layout, store)
    assert (layout.function(OTHER) / "main.py").is_file()


def test_problems_of_code(folder: Folder, layout: Layout, tmp_path: Path) -> None:
    (tmp_path / "outside").mkdir()
    (folder.path / "not.zip").write_bytes(b"no archive")
    functions = folder.document["Functions"]
    for code in ("missing", "../outside", "/etc", str(tmp_path / "outside"), ".", "not.zip", "a\0b"):
        functions[0]["Code"] = code
        assert set(problems_of(folder, layout)) == {"Functions[0].Code"}, code
    functions[0]["Code"] = "counter"
    functions[0]["Handler"] = "other.handler"
    functions[1]["Handler"] = "sub.main.handler"
    assert problems_of(folder, layout) == ["Functions[0].Handler", "Functions[1].Handler"]
    os.symlink("/etc/passwd", folder.path / "counter" / "link")
    functions[1]["Handler"] = "main.handler"
    assert problems_of(folder, layout) == ["Functions[0].Code"]


def test_a_pipe_in_the_folder_stops_nothing(folder: Folder, layout: Layout) -> None:
    folder.write()
    (folder.path / "group.json").unlink()
    os.mkfifo(folder.path / "group.json")
    with pytest.raises(ConfigError, match="no regular file"):
        stage_folder(folder.path, layout)
    (folder.path / "group.json").unlink()
    folder.write()
    (folder.path / "certificates").mkdir(exist_ok=True)
    os.mkfifo(folder.path / "certificates" / "device.pem")
    with pytest.raises(StorageFailed, match="no regular file"):
        stage_folder(folder.path, layout)


def test_document_and_package_problems_come_together(folder: Folder, layout: Layout) -> None:
    folder.document["Functions"][0]["Code"] = "missing"
    folder.document["Functions"][1]["Timeout"] = 5
    folder.document["Cores"][0]["Id"] = ""
    folder.device()
    assert problems_of(folder, layout) == ["Cores[0].Id", "Devices[0].CertificateArn", "Functions[0].Code"]


def test_certificates(folder: Folder, layout: Layout, store: Store, tmp_path: Path) -> None:
    folder.device(Certificate="keys/d.pem")
    assert problems_of(folder, layout) == ["Devices[0].Certificate", "Devices[0].CertificateArn"]
    (tmp_path / "d.pem").write_text(PEM)
    folder.device(Certificate="../d.pem")
    assert problems_of(folder, layout) == ["Devices[0].Certificate", "Devices[0].CertificateArn"]
    (folder.path / "keys").mkdir()
    (folder.path / "keys" / "d.pem").write_text(PEM)
    folder.device(Certificate="keys/d.pem")
    deploy(folder, layout, store)
    (folder.path / "keys" / "d.pem").unlink()
    folder.device()
    deploy(folder, layout, store)
    assert layout.certificate(CERTIFICATE_ID).read_text() == PEM
    (folder.path / "certificates").mkdir()
    (folder.path / "certificates" / "x.pem").write_text(ssl.DER_cert_to_PEM_cert(b"other"))
    (folder.path / "certificates" / "y.pem").write_text("-----BEGIN CERTIFICATE-----\n====\n-----END CERTIFICATE-----")
    (folder.path / "certificates" / "z.pem").write_bytes(os.urandom(100))
    assert any("belong to no device" in note for note in stage_folder(folder.write(), layout).notes)


def test_notes(folder: Folder, layout: Layout) -> None:
    folder.document["Later"] = 1
    folder.function(OTHER, "print 'two'\ndef handler(e, c): pass\n")
    entry = {"Id": "st", "FunctionArn": STREAM_MANAGER_ARN, "FunctionConfiguration": {"Pinned": True}}
    folder.document["Functions"].append(entry)
    notes = "\n".join(stage_folder(folder.write(), layout).notes)
    for words in ("Later: unknown member", f"{OTHER}: main.py is not compiled", "serves no streams"):
        assert words in notes


def test_folders_that_hold_no_group(tmp_path: Path, layout: Layout) -> None:
    with pytest.raises(ConfigError, match="holds no group"):
        stage_folder(tmp_path / "missing", layout)
    (tmp_path / "group.json").write_text("{")
    with pytest.raises(ConfigError, match="not JSON"):
        stage_folder(tmp_path, layout)
    (tmp_path / "group.json").write_bytes(b" " * (limits.GROUP_FILE_BYTES_MAX + 1))
    with pytest.raises(ConfigError, match="at most"):
        stage_folder(tmp_path, layout)


def test_folders_that_cannot_be_read(folder: Folder, layout: Layout) -> None:
    (folder.path / "certificates" / "x.pem").mkdir(parents=True)
    with pytest.raises(StorageFailed, match="must be able to read"):
        stage_folder(folder.write(), layout)


def test_a_live_group_that_cannot_be_read_is_replaced(folder: Folder, layout: Layout, store: Store) -> None:
    deploy(folder, layout, store)
    layout.group_file.write_text('{"Cores": 5}')
    staged = stage_folder(folder.write(), layout)
    assert any("is replaced as a whole" in note for note in staged.notes)
    assert any("is replaced as a whole" in note for note in stage_empty(layout).notes)
    store.activate(staged.directory)
    store.confirm()
    assert len(load_active(layout).functions) == 2


def test_owner_of_everything_staged(folder: Folder, layout: Layout) -> None:
    directory = stage_folder(folder.write(), layout, owner=(4321, 4322)).directory
    for path in (directory, *directory.rglob("*")):
        assert (path.stat().st_uid, path.stat().st_gid) == (4321, 4322), path


def test_no_room_leaves_nothing(folder: Folder, layout: Layout, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "PACKAGE_SPARE_BYTES", 1 << 62)
    with pytest.raises(LimitReached):
        stage_folder(folder.write(), layout)
    assert list(layout.staging.iterdir()) == []


# --- activation ---


def test_rollback_brings_everything_back(folder: Folder, layout: Layout, store: Store) -> None:
    group = deploy(folder, layout, store)
    before = live(layout)
    folder.function(FUNCTION, "def handler(e, c): return 2\n")
    folder.remove(OTHER)
    folder.function(THIRD)
    store.activate(stage_folder(folder.write(), layout).directory)
    assert live(layout) != before
    assert store.rollback()
    assert live(layout) == before
    assert store.load_active() == group
    assert not store.rollback()
    assert live(layout) == before


def test_rollback_of_the_first_deployment(folder: Folder, layout: Layout, store: Store) -> None:
    store.activate(stage_folder(folder.write(), layout).directory)
    assert store.rollback()
    assert live(layout) == {}
    assert load_active(layout).is_empty


def test_reset(folder: Folder, layout: Layout, store: Store) -> None:
    deploy(folder, layout, store)
    staged = stage_empty(layout)
    assert {type(change) for change in staged.changes} >= {FunctionRemoved}
    store.activate(staged.directory)
    store.confirm()
    assert os.listdir(layout.functions) == []
    assert layout.group_file.read_text().strip() == "{}"
    assert load_active(layout).is_empty


def test_emptied_by_hand(folder: Folder, layout: Layout, store: Store) -> None:
    deploy(folder, layout, store)
    layout.group_file.write_text("{}")
    assert load_active(layout).is_empty
    deploy(folder, layout, store)
    assert len(load_active(layout).functions) == 2


def test_a_second_activation_waits_for_the_first(folder: Folder, layout: Layout, store: Store) -> None:
    store.activate(stage_folder(folder.write(), layout).directory)
    with pytest.raises(DeploymentFailed, match="neither confirmed nor rolled back") as error:
        store.activate(stage_folder(folder.write(), layout).directory)
    assert not error.value.rolled_back
    store.confirm()


def test_nothing_staged(layout: Layout, store: Store) -> None:
    layout.staging.mkdir(parents=True)
    with pytest.raises(DeploymentFailed, match="no group is staged"):
        store.activate(layout.staging / "nothing")


def test_a_refusing_disk_rolls_back(
    folder: Folder, layout: Layout, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    deploy(folder, layout, store)
    before = live(layout)
    folder.function(FUNCTION, "x = 2\n")
    folder.function(THIRD)
    rename, left = os.rename, 0

    def failing(source: Any, target: Any) -> None:
        nonlocal left
        left -= 1
        if left == 0:
            raise OSError(5, "Input/output error")
        rename(source, target)

    monkeypatch.setattr(os, "rename", failing)
    for step in range(1, 6):
        left = step
        with pytest.raises(DeploymentFailed, match="Input/output error") as error:
            store.activate(stage_folder(folder.write(), layout).directory)
        assert error.value.rolled_back
        assert live(layout) == before
    deploy(folder, layout, store)


def test_a_damaged_journal(layout: Layout, store: Store) -> None:
    layout.deployment.mkdir(parents=True)
    for content in (
        b"",
        b"{}",
        b'{"staged": 1',
        b"[]",
        b'{"staged":"x","added":5,"replaced":[],"removed":[],"had_group":1}',
    ):
        layout.journal.write_bytes(content)
        with pytest.raises(CorruptRecord, match="damaged"):
            store.recover()


def test_a_damaged_group(layout: Layout) -> None:
    layout.group.mkdir(parents=True)
    for content in (b"", b"{", b"[]", b'{"Cores": [{}]}', b'{"Cores": 5}', b"\xff" * 100):
        layout.group_file.write_bytes(content)
        with pytest.raises(ConfigError, match="failed to load group"):
            load_active(layout)
    layout.group_file.unlink()
    layout.group_file.mkdir()
    with pytest.raises(StorageFailed):
        load_active(layout)


def test_recovery_cleans_up(folder: Folder, layout: Layout, store: Store) -> None:
    deploy(folder, layout, store)
    stage_folder(folder.write(), layout)
    (layout.previous / "lambda").mkdir(parents=True)
    layout.journal.with_suffix(".new").write_text("half")
    assert store.recover() is Recovery.CLEAN
    assert list(layout.staging.iterdir()) == []
    assert not layout.previous.exists()
    assert store.recover() is Recovery.CLEAN
    deploy(folder, layout, store)


def test_what_is_staged_is_discarded_unless_a_journal_may_need_it(folder: Folder, layout: Layout, store: Store) -> None:
    one, two = (stage_folder(folder.write(), layout).directory for _ in range(2))
    store.activate(one)
    store.discard(two)
    assert two.is_dir()
    store.confirm()
    store.discard(two)
    store.discard(layout.group)
    assert not two.exists()
    assert layout.group.is_dir()


# --- models ---


def model_files(layout: Layout) -> dict[str, tuple[int, int]]:
    """Name below models → inode and time of change of each file."""
    files = [path for path in layout.models.rglob("*") if path.is_file()]
    return {str(path.relative_to(layout.models)): (path.stat().st_ino, path.stat().st_mtime_ns) for path in files}


def test_models_come_stay_and_go_with_their_last_user(folder: Folder, layout: Layout, store: Store) -> None:
    folder.model("a", "one")
    folder.model("b", "two")
    folder.model("twin", "two")
    assert len(deploy(folder, layout, store).resources) == 3
    before = model_files(layout)
    assert len(before) == 2, "the same archive is unpacked once"
    staged = stage_folder(folder.write(), layout)
    assert list((staged.directory / "models").iterdir()) == []
    store.discard(staged.directory)
    folder.model("a", "three")
    folder.forget_model("b")
    group = deploy(folder, layout, store)
    after = model_files(layout)
    assert len(after) == 2
    assert len(before.items() & after.items()) == 1, "what did not change was not touched"
    assert load_active(layout) == group
    folder.forget_model("twin")
    deploy(folder, layout, store)
    assert len(model_files(layout)) == 1
    staged = stage_empty(layout)
    store.activate(staged.directory)
    store.confirm()
    assert os.listdir(layout.models) == []


def test_a_changed_model_is_a_changed_function(folder: Folder, layout: Layout, store: Store) -> None:
    folder.model("a", "one")
    deploy(folder, layout, store)
    folder.model("a", "two")
    changes = [c for c in stage_folder(folder.write(), layout).changes if isinstance(c, FunctionChanged)]
    assert [change.reasons for change in changes] == [(Reason.RESOURCES,)]
    assert changes[0].needs_restart


def test_a_damaged_model_is_unpacked_again(folder: Folder, layout: Layout, store: Store) -> None:
    folder.model("a", "one")
    deploy(folder, layout, store)
    before = live(layout)
    (gate,) = layout.models.iterdir()
    (gate / "content" / "weights").unlink()
    (gate / "content").rmdir()
    (gate / "rest").write_text("of the damage")
    damaged = live(layout)
    store.activate(stage_folder(folder.write(), layout).directory)
    assert live(layout) == before
    assert store.rollback()
    assert live(layout) == damaged
    deploy(folder, layout, store)
    assert live(layout) == before


@pytest.mark.parametrize("archive", ["missing.zip", "../outside.zip", "counter", "bad.zip"])
def test_archives_that_are_none_are_named(archive: str, folder: Folder, layout: Layout, tmp_path: Path) -> None:
    folder.model("a", "one")
    (tmp_path / "outside.zip").write_bytes((folder.path / "a.zip").read_bytes())
    (folder.path / "bad.zip").write_text("text")
    folder.document["Resources"][0]["Archive"] = archive
    assert problems_of(folder, layout) == ["Resources[0].Archive"]


def test_the_journal_of_a_release_without_models(folder: Folder, layout: Layout, store: Store) -> None:
    deploy(folder, layout, store)
    before = live(layout)
    folder.function(FUNCTION, "x = 2\n")
    store.activate(stage_folder(folder.write(), layout).directory)
    journal = json.loads(layout.journal.read_text())
    layout.journal.write_text(json.dumps({key: value for key, value in journal.items() if "models" not in key}))
    assert store.rollback()
    assert live(layout) == before
