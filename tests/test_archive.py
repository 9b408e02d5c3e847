"""Archives: unpacked whole or not at all, and nothing is written outside the folder."""

from __future__ import annotations

import shutil
import stat
import struct
import zipfile
from collections import namedtuple
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cloudnet.archive import (
    ArchiveError,
    is_unpacked,
    remove_leftovers,
    require_room,
    unpack,
    unpacked_bytes,
)
from cloudnet.errors import CloudnetError, OutputError

LARGE = 1 << 30
FILES = {"a.npy": b"first" * 1000, "b.npy": b"second"}


def write_zip(path: Path, files: dict[str, bytes], mode: int | None = None) -> Path:
    """Write a zip whose members are named just so; `mode` is that of the last, as Unix has it."""
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in files.items():
            info = zipfile.ZipInfo("x")
            info.filename = name
            info.compress_type = zipfile.ZIP_DEFLATED
            if mode is not None and name == list(files)[-1]:
                info.create_system, info.external_attr = 3, mode << 16
            archive.writestr(info, content)
    return path


def contents(folder: Path) -> dict[str, bytes]:
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file()
    }


@pytest.mark.parametrize("top", ["", "masks/"])
def test_files_come_out_the_same_with_and_without_a_top_folder(tmp_path: Path, top: str) -> None:
    archive = tmp_path / "masks.zip"
    with zipfile.ZipFile(archive, "w") as file:
        if top:
            file.mkdir("masks")
        for name, content in FILES.items():
            file.writestr(top + name, content)
    told: list[tuple[int, int]] = []
    found = unpack(
        archive,
        tmp_path / "masks",
        max_bytes=LARGE,
        on_bytes=lambda done, total: told.append((done, total)),
    )
    assert contents(tmp_path / "masks") == FILES
    assert found == {".npy": 2}
    assert told[-1] == (5006, 5006)
    assert unpacked_bytes(archive) == 5006
    assert is_unpacked(archive, tmp_path / "masks")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["masks", "masks.zip"]


def test_another_top_folder_and_deeper_folders_are_kept(tmp_path: Path) -> None:
    files = {"shapes/T49TGK/a.shp": b"1", "shapes/T49TGK/a.dbf": b"2", "masks/b.npy": b"3"}
    unpack(write_zip(tmp_path / "x.zip", files), tmp_path / "masks", max_bytes=LARGE)
    assert contents(tmp_path / "masks") == files


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("../evil.npy", "leads out"),
        ("masks/../../evil.npy", "leads out"),
        ("a/../b.npy", "leads out"),
        ("/evil.npy", "leads out"),
        ("//host/evil.npy", "leads out"),
        ("C:/evil.npy", "no plain path"),
        ("C:evil.npy", "no plain path"),
        ("..\\evil.npy", "no plain path"),
        ("\\\\host\\evil.npy", "no plain path"),
        ("evil.npy:stream", "no plain path"),
        ("ev\x00il.npy", "no plain path"),
        ("ev\nil.npy", "no plain path"),
        ("A.NPY", "twice"),
        ("a.npy/c.npy", "twice"),
    ],
)
def test_a_path_that_may_lead_elsewhere_is_refused(tmp_path: Path, name: str, words: str) -> None:
    home = tmp_path / "deep" / "home"
    home.mkdir(parents=True)
    archive = write_zip(home / "masks.zip", {**FILES, name: b"evil"})
    with pytest.raises(ArchiveError, match=words) as caught:
        unpack(archive, home / "masks", max_bytes=LARGE)
    assert str(archive) in str(caught.value)
    assert "\n" not in str(caught.value)
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == [archive]
    assert not (home / "masks").exists()


@pytest.mark.parametrize("kind", [stat.S_IFLNK, stat.S_IFIFO, stat.S_IFCHR, stat.S_IFSOCK])
def test_links_and_devices_are_refused(tmp_path: Path, kind: int) -> None:
    archive = write_zip(tmp_path / "masks.zip", {**FILES, "link": b"/etc"}, kind | 0o777)
    with pytest.raises(ArchiveError, match="link or a device"):
        unpack(archive, tmp_path / "masks", max_bytes=LARGE)
    assert not (tmp_path / "masks").exists()


@pytest.mark.parametrize("change", [-7, 7])
def test_a_member_of_another_size_than_its_header_says_is_refused(
    tmp_path: Path, change: int
) -> None:
    archive = write_zip(tmp_path / "masks.zip", FILES)
    lied = archive.read_bytes().replace(struct.pack("<L", 5000), struct.pack("<L", 5000 + change))
    archive.write_bytes(lied)
    with pytest.raises(ArchiveError):
        unpack(archive, tmp_path / "masks", max_bytes=LARGE)
    assert list(tmp_path.iterdir()) == [archive]


def test_more_than_the_sane_total_is_refused_before_anything_is_written(tmp_path: Path) -> None:
    archive = write_zip(tmp_path / "masks.zip", {"bomb.npy": bytes(5_000_000)})
    assert archive.stat().st_size < 10_000
    with pytest.raises(ArchiveError, match="more than the"):
        unpack(archive, tmp_path / "masks", max_bytes=4_999_999)
    assert list(tmp_path.iterdir()) == [archive]
    unpack(archive, tmp_path / "masks", max_bytes=5_000_000)


@pytest.mark.parametrize(
    "damage",
    [
        lambda data: data[: len(data) // 2],
        lambda data: b"not a zip at all",
        lambda data: b"",
        lambda data: data.replace(data[45:50], b"\xff\xfe\xfd\xfc\xfb", 1),
        lambda data: data.replace(
            b"PK\x01\x02\x14\x03\x14\x00\x00", b"PK\x01\x02\x14\x03\x14\x00\x01"
        ),
        lambda data: data.replace(b"\x08\x00\x00\x00!\x00", b"\x63\x00\x00\x00!\x00"),
    ],
    ids=["cut", "text", "empty", "bits", "encrypted", "unknown compression"],
)
def test_a_damaged_archive_is_one_sentence(tmp_path: Path, damage: object) -> None:
    archive = write_zip(tmp_path / "masks.zip", FILES)
    before = archive.read_bytes()
    archive.write_bytes(damage(before))  # type: ignore[operator]
    assert archive.read_bytes() != before
    with pytest.raises(ArchiveError) as caught:
        unpack(archive, tmp_path / "masks", max_bytes=LARGE)
    assert str(archive) in str(caught.value)
    assert list(tmp_path.iterdir()) == [archive]


def test_a_missing_archive_is_one_sentence(tmp_path: Path) -> None:
    with pytest.raises(ArchiveError, match="cannot be read"):
        unpack(tmp_path / "none.zip", tmp_path / "none", max_bytes=LARGE)


@given(
    cuts=st.lists(st.tuples(st.floats(0, 1), st.binary(min_size=1, max_size=4)), max_size=6),
)
def test_whatever_an_archive_holds_nothing_leaves_the_folder(
    tmp_path_factory: pytest.TempPathFactory, cuts: list[tuple[float, bytes]]
) -> None:
    home = tmp_path_factory.mktemp("home")
    archive = write_zip(home / "masks.zip", {"masks/a": b"abc", "masks/b/c": b"x" * 300})
    data = bytearray(archive.read_bytes())
    for place, piece in cuts:
        start = int(place * (len(data) - len(piece)))
        data[start : start + len(piece)] = piece
    archive.write_bytes(data)
    try:
        unpack(archive, home / "masks", max_bytes=10_000)
    except CloudnetError:
        assert list(home.iterdir()) == [archive]
    else:
        assert sorted(path.name for path in home.iterdir()) == ["masks", "masks.zip"]
    shutil.rmtree(home)


class Killed(BaseException):
    """Ends a call at once, as Ctrl-C does."""


def kill(done: int, total: int) -> None:
    raise Killed


def test_a_broken_off_unpack_leaves_nothing(tmp_path: Path) -> None:
    archive = write_zip(tmp_path / "masks.zip", FILES)
    with pytest.raises(Killed):
        unpack(archive, tmp_path / "masks", max_bytes=LARGE, on_bytes=kill)
    assert list(tmp_path.iterdir()) == [archive]
    assert not is_unpacked(archive, tmp_path / "masks")


def test_what_a_killed_unpack_left_is_replaced(tmp_path: Path) -> None:
    archive = write_zip(tmp_path / "masks.zip", FILES)
    (tmp_path / "masks.part").mkdir()
    (tmp_path / "masks.part" / "half.npy").write_bytes(b"half")
    assert not is_unpacked(archive, tmp_path / "masks")
    unpack(archive, tmp_path / "masks", max_bytes=LARGE)
    assert contents(tmp_path / "masks") == FILES
    assert not (tmp_path / "masks.part").exists()
    (tmp_path / "masks.part").symlink_to(tmp_path / "masks")
    remove_leftovers(tmp_path / "masks")
    assert contents(tmp_path / "masks") == FILES


def test_a_folder_in_the_way_is_left_alone_and_an_empty_one_is_used(tmp_path: Path) -> None:
    archive = write_zip(tmp_path / "masks.zip", FILES)
    target = tmp_path / "masks"
    target.mkdir()
    unpack(archive, target, max_bytes=LARGE)
    (target / "a.npy").write_bytes(b"mine")
    assert not is_unpacked(archive, target)
    with pytest.raises(OutputError, match="in the way"):
        unpack(archive, target, max_bytes=LARGE)
    assert (target / "a.npy").read_bytes() == b"mine"


def test_a_link_in_place_of_the_folder_is_not_followed(tmp_path: Path) -> None:
    archive = write_zip(tmp_path / "masks.zip", FILES)
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "masks").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(OutputError, match="in the way"):
        unpack(archive, tmp_path / "masks", max_bytes=LARGE)
    assert not any((tmp_path / "elsewhere").iterdir())


def test_a_file_that_is_missing_or_of_another_size_is_not_unpacked(tmp_path: Path) -> None:
    archive = write_zip(tmp_path / "masks.zip", FILES)
    unpack(archive, tmp_path / "masks", max_bytes=LARGE)
    (tmp_path / "masks" / "mine.txt").write_text("more is no harm")
    assert is_unpacked(archive, tmp_path / "masks")
    (tmp_path / "masks" / "b.npy").write_bytes(b"secon")
    assert not is_unpacked(archive, tmp_path / "masks")


def test_room_is_asked_for_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage(10_000, 5_000, 5_000))
    archive = write_zip(tmp_path / "masks.zip", FILES)
    with pytest.raises(OutputError, match="GB free"):
        unpack(archive, tmp_path / "masks", max_bytes=LARGE)
    assert list(tmp_path.iterdir()) == [archive]
    require_room(tmp_path, 5_000, "for this")
    with pytest.raises(OutputError, match="for this"):
        require_room(tmp_path, 5_001, "for this")
