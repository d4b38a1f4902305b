"""The hostile rows about files where overlay cannot be had: a root of read-only binds.

Where the result is the same the tests are those of test_hostile_files, run in this module's cage. Where an overlay
gives uid 0 a copy of its own to write to, or hides a name, there is a test here: writing is EROFS, and what is hidden
keeps its name but nothing else.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.sandbox.hostile import PYTHON, WHO, Cage, cage_with
from tests.sandbox.test_hostile_files import (  # noqa: F401 (collected here once more)
    test_row_14_hidden_on_a_partition,
    test_row_18_interpreter,
    test_row_19_proc,
    test_row_21_sysfs,
    test_row_33_setuid_file,
    test_row_45_link_swap,
    test_row_46_destinations,
    test_row_46_sources,
    test_row_47_later_mount,
    test_row_47_nested_mount,
    test_row_48_hard_links,
    test_row_55_other_functions,
)

pytestmark = pytest.mark.root


@pytest.fixture(scope="module")
def cage() -> Iterator[Cage]:
    """The cage of the other rows, without overlay."""
    with cage_with(without=("overlay root",)) as made:
        yield made
        assert "roots are made of read-only binds" in made.box.crash_log()


@WHO
def test_row_14_what_is_hidden_cannot_be_opened(cage: Cage, who: str) -> None:
    found = cage.run("files.hidden", who, hidden=str(cage.hidden), visible=str(cage.visible))
    assert found.pop("the file beside it") == "OK"
    found.pop("listed")  # its name stays, below a bind
    assert set(found.values()) <= {"ENOENT", "EACCES"}, found


@WHO
def test_row_15_password_hashes_are_not_there(cage: Cage, who: str) -> None:
    found = cage.run("files.shadow", who)
    assert {size for _, size in found.values()} == {0}, found


@WHO
def test_row_16_host_files_stay(cage: Cage, who: str) -> None:
    paths = [Path("/etc/passwd"), Path(PYTHON), cage.place / "visible", cage.place / "second"]
    before = [path.read_bytes() for path in paths]
    found = cage.run("files.host_files", who, sentinel=str(paths[2]), second=str(paths[3]), program=PYTHON)
    assert [path.read_bytes() for path in paths] == before
    assert found.pop("/boot") is False
    assert set(found.values()) <= {"EROFS", "EACCES", "ETXTBSY"}, found


@WHO
def test_row_17_own_code_stays(cage: Cage, who: str) -> None:
    assert set(cage.run("files.own_code", who).values()) <= {"EROFS", "EACCES", "EBUSY"}


def test_row_24_one_limit_for_all_writing(cage: Cage) -> None:
    places = ["/tmp", "/var/tmp", "/dev/shm"]
    found = cage.run("files.fill", "user", {"tmpfs_kb": 4096}, places=places, bytes=64 << 20)
    assert {found[place][0] for place in places} == {"ENOSPC"}, found
    assert 2 << 20 < found["total"] <= 4 << 20


def test_where_volumes_can_lie(cage: Cage) -> None:
    """Directories of the container's own take mount points; those of the host do not, and the step says so."""
    (cage.box.data / "seen").touch()
    source = "def attempt():\n    import os\n    return os.listdir(%r)\n"
    for destination in ("/mnt/a/b", "/media/a", "/tmp/a", "/volume"):
        mounts = [{"source": str(cage.box.data), "destination": destination, "writable": False}]
        assert "seen" in cage.box.run(source % destination, mounts=mounts)
    mounts = [{"source": str(cage.box.data), "destination": "/usr/new", "writable": False}]
    spec = cage.box.request_spec(cage.box.write_code(""), mounts=mounts)
    answer = cage.box.request(verb="spawn", instance="nowhere", spec=spec)
    assert (answer["step"], answer["errno"]) == (f"volume {cage.box.data} at /usr/new", 30)
