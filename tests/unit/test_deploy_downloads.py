"""Downloads: resumed, checked, tried again, given up; and a disk that fills up meanwhile."""

from __future__ import annotations

import asyncio
import errno
import fcntl
import os
from pathlib import Path

import pytest
from offer_support import Shop, Step, fill, small_disk, wanted

from ggfast import limits
from ggfast.core.deploy.downloads import DOWNLOAD_FAILED, Downloads, Sink
from ggfast.errors import DeploymentFailed, GgfastError, LinkDown, Malformed, Rejected

CONTENT = bytes(range(40))
ARTIFACT = wanted(CONTENT)


@pytest.fixture
def place(tmp_path: Path) -> Path:
    return tmp_path / "downloads"


def fetch(place: Path, shop: Shop, content: bytes = CONTENT) -> Path:
    async def run() -> Path:
        with Downloads(place, shop, shop.pause) as downloads:
            downloads.prepare([wanted(content)])
            return await downloads.fetch(wanted(content))

    return asyncio.run(run())


def part(place: Path, data: bytes) -> Path:
    place.mkdir(exist_ok=True)
    path = place / f"{ARTIFACT.digest}.part"
    path.write_bytes(data)
    return path


def failure(place: Path, shop: Shop) -> str:
    with pytest.raises(DeploymentFailed) as error:
        fetch(place, shop)
    assert (error.value.phase, error.value.rolled_back) == ("download", True)
    assert error.value.detail.startswith(DOWNLOAD_FAILED)
    return error.value.detail.removeprefix(DOWNLOAD_FAILED)


def raising(error: GgfastError, after: int = 0) -> Step:
    """The connection breaks, or the answer is a refusal, after some bytes."""

    def step(content: bytes, offset: int, sink: Sink) -> None:
        if after:
            sink(content[offset : offset + after])
        raise error

    return step


def answering(data: bytes) -> Step:
    """Whatever is asked for, this is the answer."""
    return lambda _content, _offset, sink: sink(data) if data else None


def test_what_is_downloaded_is_private_whole_and_alone(place: Path) -> None:
    found = fetch(place, Shop(CONTENT))
    assert found == place / ARTIFACT.digest and found.read_bytes() == CONTENT
    assert [path.name for path in place.iterdir()] == [ARTIFACT.digest]
    assert (found.stat().st_mode & 0o777, place.stat().st_mode & 0o777) == (0o600, 0o700)


@pytest.mark.parametrize("there", range(len(CONTENT) + 1))
def test_a_download_goes_on_from_the_last_byte(place: Path, there: int) -> None:
    part(place, CONTENT[:there])
    shop = Shop(CONTENT)
    assert fetch(place, shop).read_bytes() == CONTENT
    assert shop.asked == ([(ARTIFACT.digest, there)] if there < len(CONTENT) else [])


@pytest.mark.parametrize("broken_at", range(1, len(CONTENT)))
def test_a_connection_that_breaks_costs_nothing_that_has_arrived(place: Path, broken_at: int) -> None:
    shop = Shop(CONTENT)
    shop.script = [raising(LinkDown("reset"), broken_at)]
    assert fetch(place, shop).read_bytes() == CONTENT
    assert [offset for _, offset in shop.asked] == [0, broken_at]
    assert shop.pauses == [limits.FETCH_PAUSE_FIRST_S]


def test_a_break_after_the_last_byte_does_not_matter(place: Path) -> None:
    shop = Shop(CONTENT)
    shop.script = [raising(LinkDown("reset"), len(CONTENT))]
    assert fetch(place, shop).read_bytes() == CONTENT
    assert len(shop.asked) == 1


def test_a_short_answer_is_asked_on_from_its_end(place: Path) -> None:
    shop = Shop(CONTENT)
    shop.script = [answering(CONTENT[:13])]
    assert fetch(place, shop).read_bytes() == CONTENT
    assert [offset for _, offset in shop.asked] == [0, 13]


@pytest.mark.parametrize("rubbish", [b"\0" * 20, b"\0" * 40, b"\0" * 60], ids=["shorter", "as long", "longer"])
def test_what_a_power_cut_left_is_replaced(place: Path, rubbish: bytes) -> None:
    part(place, rubbish)
    assert fetch(place, Shop(CONTENT)).read_bytes() == CONTENT


def test_a_whole_file_is_believed_only_for_its_content(place: Path) -> None:
    place.mkdir()
    (place / ARTIFACT.digest).write_bytes(CONTENT)
    shop = Shop(CONTENT)
    assert fetch(place, shop).read_bytes() == CONTENT and shop.asked == []
    (place / ARTIFACT.digest).write_bytes(CONTENT[:-1] + b"x")
    assert fetch(place, shop).read_bytes() == CONTENT and len(shop.asked) == 1


def test_wrong_content_is_fetched_again_from_the_beginning(place: Path) -> None:
    shop = Shop(CONTENT)
    shop.script = [answering(bytes(40)), answering(bytes(41))]
    assert fetch(place, shop).read_bytes() == CONTENT
    assert [offset for _, offset in shop.asked] == [0, 0, 0]


@pytest.mark.parametrize(
    ("answer", "text"),
    [
        (bytes(40), f"arn:one: its SHA-256 is {wanted(bytes(40)).digest} instead of {ARTIFACT.digest}"),
        (bytes(41), "arn:one: it is larger than 40 bytes"),
        (b"", "arn:one: it ends after 0 bytes instead of 40"),
    ],
)
def test_wrong_content_again_and_again_is_final(place: Path, answer: bytes, text: str) -> None:
    shop = Shop(CONTENT)
    shop.script = [answering(answer)] * limits.FETCH_WRONG_MAX
    assert failure(place, shop) == text
    assert [offset for _, offset in shop.asked] == [0] * limits.FETCH_WRONG_MAX
    assert list(place.iterdir()) == []


def test_a_file_that_ends_early_for_the_control_plane_is_final(place: Path) -> None:
    shop = Shop(CONTENT)
    short = [answering(CONTENT[:9]), raising(Rejected("range not satisfiable", reason_code=416))]
    shop.script = short * limits.FETCH_WRONG_MAX
    assert failure(place, shop) == "arn:one: it ends after 9 bytes instead of 40"
    assert [offset for _, offset in shop.asked] == [0, 9] * limits.FETCH_WRONG_MAX


@pytest.mark.parametrize("status", [403, 404, 400])
def test_a_refusal_is_final_after_some_tries(place: Path, status: int) -> None:
    shop = Shop(CONTENT)
    refusal = raising(Rejected("not for you", reason_code=status))
    shop.script = [refusal, refusal]
    assert fetch(place, shop).read_bytes() == CONTENT  # it was about to be told
    os.unlink(place / ARTIFACT.digest)
    shop.script, shop.pauses = [refusal] * limits.FETCH_REFUSALS_MAX, []
    assert failure(place, shop) == "arn:one: not for you"
    assert len(shop.pauses) == limits.FETCH_REFUSALS_MAX - 1


@pytest.mark.parametrize(
    "trouble",
    [LinkDown("no route"), Rejected("busy", reason_code=500), Rejected("slower", reason_code=429), Malformed("<html>")],
    ids=["link", "500", "429", "portal"],
)
def test_without_a_network_it_is_for_later(place: Path, trouble: GgfastError) -> None:
    shop = Shop(CONTENT)
    part(place, CONTENT[:5])
    shop.script = [raising(trouble)] * 100
    with pytest.raises(LinkDown, match=f"arn:one: {trouble}"):
        fetch(place, shop)
    assert shop.pauses[:4] == [1, 2, 4, 8] and max(shop.pauses) == limits.FETCH_PAUSE_MAX_S
    assert limits.FETCH_PAUSES_S <= sum(shop.pauses) < limits.FETCH_PAUSES_S + limits.FETCH_PAUSE_MAX_S
    assert (place / f"{ARTIFACT.digest}.part").read_bytes() == CONTENT[:5]


def test_a_line_that_carries_one_byte_at_a_time_gets_there(place: Path) -> None:
    content = os.urandom(100)
    shop = Shop(content)
    shop.script = [raising(LinkDown("again"), 1)] * 99
    assert fetch(place, shop, content).read_bytes() == content
    assert sum(shop.pauses) > limits.FETCH_PAUSES_S


def test_what_is_of_another_deployment_is_removed(place: Path, tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.write_text("kept")
    part(place, CONTENT[:3])
    (place / "0123").write_text("old")
    (place / "directory").mkdir()
    (place / "directory" / "file").write_text("old")
    (place / ARTIFACT.digest).symlink_to(outside)
    shop = Shop(CONTENT)
    assert fetch(place, shop).read_bytes() == CONTENT
    assert shop.asked == [(ARTIFACT.digest, 3)] and outside.read_text() == "kept"
    assert [path.name for path in place.iterdir()] == [ARTIFACT.digest]


def test_one_process_at_a_time(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "FETCH_LOCK_S", 0.05)
    place.mkdir()
    held = os.open(place, os.O_RDONLY)
    fcntl.flock(held, fcntl.LOCK_EX)
    with pytest.raises(LinkDown, match="another process is downloading"):
        fetch(place, Shop(CONTENT))
    os.close(held)
    assert fetch(place, Shop(CONTENT)).read_bytes() == CONTENT


# --- full disks ---


@pytest.mark.root
def test_room_is_looked_for_before_the_first_byte(tmp_path: Path) -> None:
    with small_disk(tmp_path / "disk", 4 * limits.MIB) as disk:
        place = disk / "downloads"
        content = bytes(limits.MIB)
        shop = Shop(content)
        fill(disk, limits.PACKAGE_SPARE_BYTES + limits.MIB // 2)
        with pytest.raises(DeploymentFailed) as error:
            fetch(place, shop, content)
        text, _, missing = str(error.value).rpartition("device: ")
        assert text == f"{DOWNLOAD_FAILED}write {place}: no space left on "
        number = int(missing.removesuffix(" bytes are missing"))
        assert limits.MIB // 2 <= number <= limits.MIB // 2 + 16_384  # the directory's own blocks
        assert shop.asked == []


@pytest.mark.root
def test_a_disk_that_fills_up_is_told_and_emptied_again(tmp_path: Path) -> None:
    with small_disk(tmp_path / "disk", 4 * limits.MIB) as disk:
        place = disk / "downloads"
        content = os.urandom(limits.MIB)
        shop = Shop(content)

        def filling(content: bytes, offset: int, sink: Sink) -> None:
            sink(content[: limits.MIB // 2])
            fill(disk)
            try:
                sink(content[limits.MIB // 2 :])
            except GgfastError as error:
                raise LinkDown("the sink failed") from error  # a client that hides what has happened

        shop.script = [filling]
        with pytest.raises(DeploymentFailed) as error:
            fetch(place, shop, content)
        path, missing = place / wanted(content).digest, limits.MIB // 2 + limits.PACKAGE_SPARE_BYTES
        expected = f"{DOWNLOAD_FAILED}write {path}: no space left on device: {missing} bytes are missing"
        assert str(error.value) == expected
        assert list(place.iterdir()) == []


def test_a_disk_that_refuses_is_told(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise OSError(errno.EROFS, os.strerror(errno.EROFS))

    monkeypatch.setattr(os, "replace", refuse)
    assert failure(place, Shop(CONTENT)).startswith(f"write {place / ARTIFACT.digest}: [Errno 30]")
