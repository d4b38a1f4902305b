"""Hostile functions against files: what they can read, change, fill and leave behind."""

from __future__ import annotations

import hashlib
import os
import shutil
import socket
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from tests.sandbox.hostile import PLACES, PYTHON, WHO, Cage, cage, cage_with, row

__all__ = ["cage"]
pytestmark = pytest.mark.root


def _digest(path: str | Path) -> str:
    return hashlib.sha256(Path(path).read_bytes()).hexdigest()


@row(14, "read the core's keys by every name they have", by="whiteout, pivot_root", result="ENOENT")
@WHO
def test_row_14_hidden_tree(cage: Cage, who: str) -> None:
    """Anybody may read the file on the host, and the one beside its directory is seen inside."""
    control = cage.outside("files.hidden", who, hidden=str(cage.hidden), visible=str(cage.visible))
    os.unlink("/tmp/link")
    assert (control["plain"], control["the file beside it"], control["listed"]) == ("OK", "OK", True)
    found = cage.run("files.hidden", who, hidden=str(cage.hidden), visible=str(cage.visible))
    assert (found.pop("the file beside it"), found.pop("listed")) == ("OK", False)
    # /lambda is no longer below /, and /tmp/../.. ends at /: every way is the plain one in the end.
    assert set(found.values()) == {"ENOENT"}, found


@row(14, "the same on a partition of its own below a shown tree", by="covering mount", result="ENOENT or EACCES")
@WHO
def test_row_14_hidden_on_a_partition(cage: Cage, who: str) -> None:
    """No whiteout works in a bind: an empty directory that nobody may enter lies over the tree."""
    for name, expected in (("visible", {"OK"}), ("hidden/key", {"EACCES", "ENOENT"})):
        path = str(cage.shared / name)
        assert cage.outside("files.readable", who, path=path) == "OK"
        found = cage.run("files.readable", who, path=path)
        assert found in expected, (name, found)


@row(14, "put something in the place of the hidden tree and look through it", by="whiteout", result="empty; EACCES")
@WHO
def test_row_14_replace_the_whiteout(cage: Cage, who: str) -> None:
    """uid 0 may create a directory there: it is a new one, not the host's. Renaming a directory of the host over it
    is refused (EXDEV: overlay does not rename directories of the lower tree)."""
    found = cage.run("files.replace_hidden", who, hidden=str(cage.hidden), visible=str(cage.visible))
    if who == "root":
        assert (found["mkdir"], found["listed"]) == ("OK", [])
        assert found["rename"] in ("OK", "EXDEV")
    else:
        assert (found["mkdir"], found["rename"]) == ("EACCES", "EACCES")
    assert found["after mkdir"] == found["after rename"] == "ENOENT"
    assert cage.hidden.read_text() == "sentinel" and (cage.place / "empty").is_dir()


@row(15, "read /etc/shadow", by="mode; whiteout for uid 0", result="EACCES; ENOENT")
@WHO
def test_row_15_shadow(cage: Cage, who: str) -> None:
    """uid 0 owns the files, so they are hidden from it. Backups that do not exist are ENOENT to everybody."""
    assert cage.outside("files.shadow", "root")["/etc/shadow"][1] > 0
    found = cage.run("files.shadow", who)
    assert found["/etc/shadow"] == (["EACCES", 0] if who == "user" else ["ENOENT", 0])
    assert {answer[1] for answer in found.values()} == {0}


@row(16, "write /etc/passwd, /usr/bin, /boot", by="overlay, mode", result="EACCES; uid 0: its own copy, host unchanged")
@WHO
def test_row_16_host_files(cage: Cage, who: str) -> None:
    """System files are opened for append only; a sentinel is really written to and another one deleted."""
    sentinel, second = cage.place / "visible", cage.place / "second"
    paths = ["/etc/passwd", PYTHON, sentinel, second]
    before = [_digest(path) for path in paths]
    found = cage.run("files.host_files", who, sentinel=str(sentinel), second=str(second), program=PYTHON)
    assert [_digest(path) for path in paths] == before
    if who == "user":
        assert found.pop("/boot") is False
        assert set(found.values()) == {"EACCES"}, found
    else:
        assert found.pop("/boot") is True  # of the copy
        assert set(found.values()) == {"OK"}, found


@row(17, "change its own code in /lambda, the runtime in /runtime", by="read-only bind", result="EROFS or EACCES")
@WHO
def test_row_17_own_code(cage: Cage, who: str) -> None:
    """For uid 0, who owns the code, the mount alone refuses. For a user opening a file of root's is refused by its
    mode before the mount is asked. Moving the mount itself away is EBUSY (uid 0) or EACCES."""
    found = cage.run("files.own_code", who)
    if who == "root":
        assert found.pop("move") == "EBUSY"
        assert set(found.values()) == {"EROFS"}, found
    else:
        assert set(found.values()) <= {"EROFS", "EACCES"}, found


@row(18, "keep what /proc/self/exe leads to until nobody runs it", by="read-only view of the zygote", result="EROFS")
@WHO
def test_row_18_interpreter_nobody_runs(who: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A core started from a private copy of the interpreter, whose file a real attack could harm. When the core is
    gone so is ETXTBSY: only the mount behind the kept descriptor stands between root, here the test, and the file."""
    with tempfile.TemporaryDirectory(prefix="ggfast-hostile-", dir=PLACES) as name:
        os.chmod(name, 0o755)
        copy = shutil.copy(PYTHON, name)
        monkeypatch.setattr(sys, "executable", copy)
        with cage_with() as own:
            worker = own.start("files.send_interpreter", who)
            kept = socket.recv_fds(worker.ipc, 1, 1)[1][0]
            with pytest.raises(OSError, match="Text file busy"):
                os.open(copy, os.O_WRONLY)
            own.box.end(worker)
        try:
            fd = os.open(copy, os.O_WRONLY)  # by its name it could be written to now
            assert os.path.sameopenfile(kept, fd)
            os.close(fd)
            with pytest.raises(OSError, match="Read-only file system"):
                os.open(f"/proc/self/fd/{kept}", os.O_WRONLY)
        finally:
            os.close(kept)


@row(
    18,
    "overwrite the host's interpreter through /proc/self/exe",
    by="read-only view of the zygote",
    result="EACCES; EROFS",
)
@WHO
def test_row_18_interpreter(cage: Cage, who: str) -> None:
    """The file is not a user's. uid 0 gets ETXTBSY as long as anybody runs it, which hides the mount's answer: so the
    mount is asked whether it is read-only. Outside it is not."""
    before = _digest(PYTHON)
    control = cage.outside("files.interpreter", "root")
    assert control["mount is read-only"] is False
    found = cage.run("files.interpreter", who)
    assert found["mapped libraries"] in (["EACCES"], ["EPERM"], []), found
    if who == "user":
        assert found["open"] == "EACCES"
    else:
        assert found["open"] in ("ETXTBSY", "EROFS")
        assert found["reopen"] in ("ETXTBSY", "EROFS")
    assert found["read"] != "OK" or found["mount is read-only"] is True
    assert _digest(PYTHON) == before


@row(
    19,
    "core_pattern, sysrq-trigger, drop_caches, anything writable in /proc",
    by="read-only binds",
    result="EROFS, EACCES",
)
@WHO
def test_row_19_proc(cage: Cage, who: str) -> None:
    """Nothing outside its own processes opens for writing, whatever this kernel's /proc contains, except the null
    device that masks, and pressure files (a trigger there belongs to the descriptor and changes nothing)."""
    assert cage.outside("files.proc_files", "root")["sys/kernel/core_pattern"] == "OK"
    found = cage.run("files.proc_files", who)
    writable = [path for path in found.pop("writable") if not path.startswith("/proc/pressure/")]
    assert writable == []
    expected = {"EROFS", "ENOENT"} if who == "root" else {"EROFS", "EACCES", "ENOENT"}
    assert set(found.values()) <= expected, found
    assert found["sys/kernel/core_pattern"] == ("EROFS" if who == "root" else "EACCES")


@row(21, "/sys without AccessSysfs; writing with it", by="mount view, read-only mount", result="empty; EROFS")
@WHO
def test_row_21_sysfs(cage: Cage, who: str) -> None:
    """With AccessSysfs root's files answer EROFS to uid 0; to a user their mode says EACCES first."""
    assert cage.outside("files.sysfs", "root")["answers"].get("OK", 0) > 0
    assert cage.run("files.sysfs", who)["listed"] == []
    found = cage.run("files.sysfs", who, {"sysfs": True})
    assert "kernel" in found["listed"]
    assert set(found["answers"]) <= {"EROFS", "EACCES"} and found["answers"]
    if who == "root":
        assert "EROFS" in found["answers"]
    assert found["create"] in ("EROFS", "EPERM", "EACCES")


@row(24, "fill /tmp, /var/tmp, /dev/shm and the root", by="one sized tmpfs", result="ENOSPC at one common limit")
@WHO
def test_row_24_fill_the_disk(cage: Cage, who: str) -> None:
    """4 MB in all, wherever it writes; and entries are counted too. uid 0 can write beside the sentinel as well."""
    places = ["/tmp", "/var/tmp", "/dev/shm"] + ([str(cage.place)] if who == "root" else [])
    found = cage.run("files.fill", who, {"tmpfs_kb": 4096}, places=places, bytes=64 << 20)
    assert {found[place][0] for place in places} == {"ENOSPC"}, found
    assert 2 << 20 < found["total"] <= 4 << 20
    answer, number = found["directories"]
    assert answer == "ENOSPC" and number < 5000
    assert not (cage.place / "ggfast-fill").exists()


@row(25, "fill a writable volume", by="the volume's own file system", result="ENOSPC there, as on V1")
@WHO
def test_row_25_fill_a_volume(cage: Cage, who: str) -> None:
    """A volume is the host's: its size or quota is what ends the filling. The container's own places still work."""
    volume, spec = cage.volume(shared=True)  # so that the supervisor sees what is mounted on it
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=2m,mode=777", "volume", volume], check=True)
    try:
        spec["memory_kb"] = 65_536
        found = cage.run("files.fill_volume", who, spec, volume="/mnt/volume", bytes=16 << 20)
        assert (volume / "fill").stat().st_size == found["written"]
    finally:
        subprocess.run(["umount", volume], check=True)
    assert found == {"answer": "ENOSPC", "written": 2 << 20, "elsewhere": 65_536}


@row(
    33,
    "leave a setuid or setgid file, or one with capabilities, in a volume",
    by="seccomp, capabilities",
    result="EPERM",
)
@WHO
def test_row_33_setuid_file(cage: Cage, who: str) -> None:
    """Every call that takes a mode. openat2 hides its mode behind a pointer and does not exist for functions."""
    volume, spec = cage.volume()
    found = cage.run("files.setuid_files", who, spec, volume="/mnt/volume")
    assert found.pop("plain") == "OK"
    openat2 = {found.pop(name) for name in list(found) if name.startswith("openat2")}
    assert openat2 == {"ENOSYS"}
    assert set(found.values()) - {"none"} == {"EPERM"}, found
    assert [entry.name for entry in volume.iterdir()] == ["plain"]
    assert (volume / "plain").stat().st_mode & 0o7777 == 0o755


def _refused(cage: Cage, source: str, destination: str = "/mnt/volume", *, writable: bool = True) -> dict[str, object]:
    """The answer to a spawn with this mount; a worker that starts all the same is ended."""
    mount = {"source": source, "destination": destination, "writable": writable}
    code = cage.box.write_code("def attempt():\n    return 0\n")
    spec = cage.box.request_spec(code, mounts=[mount])
    answer = cage.box.request(verb="spawn", instance="mounting", spec=spec)
    if answer["ok"]:
        cage.box.request(verb="kill", instance="mounting", signal=9)
        cage.box.wait_event(event="exited", instance="mounting")
    return answer


@row(45, "swap a directory of a volume for a link, used as a later source", by="walk without links", result="ELOOP")
@WHO
def test_row_45_link_swap(cage: Cage, who: str) -> None:
    """The function makes the link itself. As source, as part of one, and as part of a code directory."""
    volume, spec = cage.volume()
    cage.run("files.links", who, spec, volume="/mnt/volume", target=str(cage.place / "hidden"))
    assert os.readlink(volume / "swapped") == str(cage.place / "hidden")
    for source in (volume / "swapped", volume / "swapped" / "key"):
        answer = _refused(cage, str(source))
        assert (answer["ok"], answer["errno"]) == (False, 40), answer
    (cage.box.code / f"link-{who}").symlink_to(cage.place / "hidden")
    answer = cage.box.request(
        verb="spawn", instance="code", spec=cage.box.request_spec(cage.box.code / f"link-{who}" / "x")
    )
    assert (answer["ok"], answer["errno"]) == (False, 40), answer


@row(46, "destinations through links, dots, over the container's own places", by="validation, walk", result="refused")
def test_row_46_destinations(cage: Cage) -> None:
    """Most are refused by the policy as text; a link inside the new root only shows when it is walked."""
    volume, _ = cage.volume()
    assert _refused(cage, str(volume))["ok"] is True
    texts = ["/", "/proc", "/proc/self", "/sys", "/dev", "/dev/sub", "/lambda", "/lambda/x", "/runtime", "/mnt/../etc",
             "/mnt/./x", "//mnt", "/mnt/", "mnt", "", "/mnt/a\0b", "/mnt/\n", "/mnt/\ud800"]  # fmt: skip
    for destination in texts:
        answer = _refused(cage, str(volume), destination)
        assert (answer["ok"], answer["step"]) == (False, "policy"), (destination, answer)
    answer = _refused(cage, str(volume), "/bin/volume" if os.path.islink("/bin") else "/dev/fd/volume")
    assert answer["ok"] is False
    assert cage.box.request(verb="list")["ok"] is True


@row(46, "sources of the system's own: /, /proc, /dev, /var, hidden trees", by="policy", result="refused")
def test_row_46_sources(cage: Cage) -> None:
    """What the policy names, what lies below it and, for hidden trees, what lies above."""
    sources = ["/", "/proc", "/proc/1", "/proc/self", "/sys", "/sys/kernel", "/dev", "/dev/null", "/var/lib", "/run",
               "/root", "/boot", str(cage.place / "hidden"), str(cage.hidden), str(cage.place), "/etc", "/usr/bin",
               "/tmp/..", "relative", "/\ud800"]  # fmt: skip
    for source in sources:
        answer = _refused(cage, source)
        assert (answer["ok"], answer["step"]) == (False, "policy"), (source, answer)
    assert cage.box.request(verb="list")["ok"] is True


@row(47, "write through a mount nested in a read-only volume", by="bind without submounts", result="EROFS")
@WHO
def test_row_47_nested_mount(cage: Cage, who: str) -> None:
    """The nested file system is not there at all: what it covers is, read-only."""
    volume, spec = cage.volume(writable=False)
    (volume / "nested").mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "mode=777", "nested", volume / "nested"], check=True)
    try:
        found = cage.run("files.write_at", who, spec, paths=["/mnt/volume/x", "/mnt/volume/nested/x"])
        assert list((volume / "nested").iterdir()) == []
    finally:
        subprocess.run(["umount", volume / "nested"], check=True)
    assert set(found.values()) == {"EROFS"}, found


@row(47, "write through a mount that the host nests in it later", by="private mounts", result="EROFS")
@WHO
def test_row_47_later_mount(cage: Cage, who: str) -> None:
    """The volume lies in a shared mount, like everything on a machine with systemd: what is mounted on the host
    afterwards must not come in with its own flags."""
    volume, spec = cage.volume(writable=False, shared=True)
    (volume / "nested").mkdir()
    (volume / "nested").chmod(0o777)
    text = (
        "def attempt():\n    import os\n    os.write(3, b'x'); os.read(3, 1)\n    try:\n"
        "        os.close(os.open('/mnt/volume/nested/x', os.O_WRONLY | os.O_CREAT))\n        return 'OK'\n"
        "    except OSError as problem:\n        return problem.errno\n"
    )
    worker = cage.box.spawn(text, **cage.identity(who), **spec)
    assert worker.ipc.recv(1) == b"x"
    subprocess.run(["mount", "-t", "tmpfs", "-o", "mode=777", "later", volume / "nested"], check=True)
    try:
        worker.ipc.sendall(b"x")
        answer = worker.result()
        inside = list((volume / "nested").iterdir())
        cage.box.end(worker)
    finally:
        subprocess.run(["umount", "-l", volume / "nested"], check=True)
    assert (answer["value"], inside) == (30, [])


@row(48, "hard-link host files to where it may write", by="separate mounts", result="EXDEV")
@WHO
def test_row_48_hard_links(cage: Cage, who: str) -> None:
    """Into its tmpfs, out of a volume and into one. For a user the hard-link protection may say EPERM first."""
    volume, spec = cage.volume()
    (volume / "file").write_text("x")
    found = cage.run("files.hard_links", who, spec, volume="/mnt/volume", sentinel=str(cage.visible))
    assert set(found.values()) <= ({"EXDEV"} if who == "root" else {"EXDEV", "EPERM"}), found
    assert os.stat("/etc/passwd").st_nlink == os.stat(cage.visible).st_nlink == 1


@row(
    55,
    "find another function's files, shared memory, semaphores, queues",
    by="mount and IPC namespaces",
    result="ENOENT",
)
@WHO
def test_row_55_other_functions(cage: Cage, who: str) -> None:
    """Both live at the same time, under one uid; keys and names are known."""
    key = 0x67670000 | os.getpid() & 0xFFFF
    first = cage.start("files.leave_traces", who, key=key)
    left = first.result()["value"]
    assert set(left.values()) == {"OK"}, left
    found = cage.run("files.find_traces", who, key=key)
    cage.box.end(first)
    assert {found.pop(name) for name in ("shm", "msg", "sem", "mq")} == {"ENOENT"}
    assert set(found.values()) == {False}, found
