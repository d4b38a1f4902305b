"""Paths from others: as text, and walked on a real directory tree."""

from __future__ import annotations

import errno
import os
import stat
from pathlib import Path

import pytest

from ggfast.errors import SandboxFailed
from ggfast.sandbox import paths


@pytest.mark.parametrize(
    "path",
    [
        "",
        "relative",
        "/a/../b",
        "/a/./b",
        "/a//b",
        "/a/",
        "//",
        "/.",
        "/..",
        "/a\0b",
        "/a\nb",
        "/" + "x" * 4096,
        None,
        7,
        b"/a",
    ],
)
def test_text_that_is_no_plain_absolute_path(path: object) -> None:
    assert paths.text_problem(path) is not None


@pytest.mark.parametrize("path", ["/", "/a", "/a/b c/.hidden", "/..x/y..", "/ä"])
def test_plain_paths(path: str) -> None:
    assert paths.text_problem(path) is None


def test_below_means_whole_components() -> None:
    assert paths.is_below("/a/b", "/a")
    assert paths.is_below("/a", "/a")
    assert paths.is_below("/a", "/")
    assert not paths.is_below("/ab", "/a")
    assert not paths.is_below("/a", "/a/b")
    assert paths.below_any("/x/y", ("/a", "/x")) == "/x"


def test_walk_finds_files_directories_and_nodes(tmp_path: Path) -> None:
    (tmp_path / "d" / "e").mkdir(parents=True)
    (tmp_path / "d" / "f").write_text("x")
    assert paths.inspect(str(tmp_path / "d" / "e")).kind == stat.S_IFDIR
    assert paths.inspect(str(tmp_path / "d" / "f")).kind == stat.S_IFREG
    null = paths.inspect("/dev/null")
    assert (null.kind, null.node) == (stat.S_IFCHR, os.makedev(1, 3))
    assert paths.inspect("/").kind == stat.S_IFDIR


@pytest.mark.parametrize("name", ["link", "link/inside", "d/last", "d/magic"])
def test_walk_refuses_every_link(tmp_path: Path, name: str) -> None:
    (tmp_path / "d").mkdir()
    (tmp_path / "real").mkdir()
    (tmp_path / "real" / "inside").touch()
    (tmp_path / "link").symlink_to("real")
    (tmp_path / "d" / "last").symlink_to("/etc/passwd")
    (tmp_path / "d" / "magic").symlink_to("/proc/self/root")
    with pytest.raises(SandboxFailed, match="without links") as caught:
        paths.inspect(str(tmp_path / name))
    assert caught.value.errno == errno.ELOOP


def test_walk_refuses_magic_links() -> None:
    with pytest.raises(SandboxFailed) as caught:
        paths.inspect(f"/proc/{os.getpid()}/root/etc")
    assert caught.value.errno == errno.ELOOP


def test_walk_says_what_is_missing(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    for name, number in (("gone/x", errno.ENOENT), ("file/x", errno.ENOTDIR), ("y" * 300, errno.ENAMETOOLONG)):
        with pytest.raises(SandboxFailed) as caught:
            paths.inspect(str(tmp_path / name))
        assert caught.value.errno == number


def test_walk_keeps_no_descriptor(tmp_path: Path) -> None:
    before = os.listdir("/proc/self/fd")
    for name in (".", "gone", "a" * 300):
        with pytest.raises(SandboxFailed):
            paths.inspect(f"{tmp_path}/{name}")
    paths.inspect(str(tmp_path))
    assert len(os.listdir("/proc/self/fd")) == len(before)
