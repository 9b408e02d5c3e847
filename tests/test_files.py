"""Files appear whole or not at all; a folder that cannot be written to is told at once."""

from __future__ import annotations

import errno
import os
import shutil
import threading
import warnings
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from cloudnet.errors import OutputError, SceneError
from cloudnet.files import quiet, refuse_existing, whole_file, writable_folder, write_text


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_a_file_is_written_with_the_folders_it_needs(tmp_path: Path) -> None:
    path = tmp_path / "a" / "b" / "text.json"
    write_text(path, "über\n")
    assert path.read_bytes() == "über\n".encode()
    assert names(path.parent) == ["text.json"]


def test_nothing_stands_at_the_path_before_the_block_ends(tmp_path: Path) -> None:
    path = tmp_path / "net.keras"
    with whole_file(path) as scratch:
        scratch.write_text("half")
        assert not path.exists()
        assert scratch.parent == path.parent  # a rename must not cross file systems
        assert scratch.suffix == ".keras"
        assert scratch.name.startswith(".")
    assert path.read_text() == "half"


@pytest.mark.parametrize("end", [ValueError("no"), KeyboardInterrupt(), SystemExit(3)])
def test_a_block_that_ends_early_leaves_the_old_file_and_no_other(
    tmp_path: Path, end: BaseException
) -> None:
    path = tmp_path / "mask.tif"
    path.write_text("old")
    with pytest.raises(type(end)), whole_file(path) as scratch:
        scratch.write_text("half of the n")
        raise end
    assert names(tmp_path) == ["mask.tif"]
    assert path.read_text() == "old"


def test_a_block_that_ends_early_leaves_nothing_where_nothing_was(tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt), whole_file(tmp_path / "mask.tif") as scratch:
        scratch.write_text("half of the n")
        raise KeyboardInterrupt
    assert names(tmp_path) == []


def test_our_own_errors_pass_unchanged(tmp_path: Path) -> None:
    with pytest.raises(SceneError, match="the reason"), whole_file(tmp_path / "a.tif"):
        raise SceneError("the reason")


def test_two_writers_of_one_file_do_not_share_a_scratch_file(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    with whole_file(path) as first, whole_file(path) as second:
        first.write_text("1")
        second.write_text("2")
    assert path.read_text() == "1"
    assert names(tmp_path) == ["a.txt"]


def fail_with(number: int) -> Any:
    def fail(*_: object, **__: object) -> None:
        raise OSError(number, os.strerror(number))

    return fail


def test_a_full_disk_is_told_and_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "replace", fail_with(errno.ENOSPC))
    with pytest.raises(OutputError) as caught:
        write_text(tmp_path / "a.txt", "text")
    assert str(caught.value) == f"{tmp_path / 'a.txt'} cannot be written: No space left on device"
    assert names(tmp_path) == []


def test_a_disk_that_fills_up_in_the_block_is_told(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    path.write_text("old")
    with pytest.raises(OutputError, match="No space left"), whole_file(path) as scratch:
        scratch.write_text("half")
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    assert names(tmp_path) == ["a.txt"]
    assert path.read_text() == "old"


def test_an_error_without_a_number_tells_its_text(tmp_path: Path) -> None:
    with pytest.raises(OutputError, match="Write error at scanline 3"), whole_file(tmp_path / "a"):
        raise OSError("Write error at\n scanline 3")


@pytest.mark.parametrize(("free", "reason"), [(0, "No space left on device"), (10**9, "at row 3")])
def test_an_error_of_gdals_on_a_full_disk_is_told_as_such(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, free: int, reason: str
) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=free))
    with pytest.raises(OutputError, match=reason), whole_file(tmp_path / "a.tif"):
        raise OSError("an error at row 3")


def test_a_folder_without_leave_to_write_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Path, "mkdir", fail_with(errno.EACCES))
    with pytest.raises(OutputError, match=r"out/a\.txt cannot be written: Permission denied"):
        write_text(tmp_path / "out" / "a.txt", "text")
    with pytest.raises(OutputError, match=r"out cannot be written to: Permission denied"):
        writable_folder(tmp_path / "out")


def test_a_folder_that_cannot_be_looked_into_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Path, "stat", fail_with(errno.EACCES))
    for act in (
        lambda: write_text(tmp_path / "a.txt", "text"),
        lambda: refuse_existing([tmp_path / "a.txt"], overwrite=True),
        lambda: writable_folder(tmp_path / "out"),
    ):
        with pytest.raises(OutputError, match="Permission denied"):
            act()


@pytest.mark.parametrize("inner", ["a.txt", "deeper/a.txt"])
def test_a_file_in_the_place_of_the_folder_is_told(tmp_path: Path, inner: str) -> None:
    (tmp_path / "out").write_text("a file")
    with pytest.raises(OutputError, match=r"out/.*a\.txt cannot be written"):
        write_text(tmp_path / "out" / inner, "text")
    assert (tmp_path / "out").read_text() == "a file"


@pytest.mark.parametrize("overwrite", [False, True])
def test_a_folder_in_the_place_of_the_file_is_told_before_the_work(
    tmp_path: Path, overwrite: bool
) -> None:
    (tmp_path / "a.tif").mkdir()
    with pytest.raises(OutputError, match=r"a\.tif is a folder"):
        refuse_existing([tmp_path / "a.tif"], overwrite)
    with pytest.raises(OutputError, match=r"a\.tif is a folder"), whole_file(tmp_path / "a.tif"):
        pytest.fail("the block ran")
    with pytest.raises(OutputError, match="is a folder"):
        write_text(Path(), "text")


def test_a_device_is_not_replaced_by_a_file(tmp_path: Path) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    with pytest.raises(OutputError, match="pipe is a device"):
        write_text(pipe, "text")
    with pytest.raises(OutputError, match="pipe is a device"):
        refuse_existing([pipe], overwrite=True)
    assert pipe.is_fifo()


def test_an_output_in_the_way_is_refused_unless_it_may_be_replaced(tmp_path: Path) -> None:
    there = tmp_path / "there.tif"
    there.write_text("old")
    refuse_existing([tmp_path / "new.tif"], overwrite=False)
    refuse_existing([there], overwrite=True)
    with pytest.raises(OutputError, match=r"there\.tif exists; give --overwrite"):
        refuse_existing([tmp_path / "new.tif", there], overwrite=False)
    assert there.read_text() == "old"


def test_a_writable_folder_is_made_and_left_empty(tmp_path: Path) -> None:
    folder = tmp_path / "a" / "b"
    assert writable_folder(folder) == folder
    assert writable_folder(folder) == folder
    assert names(folder) == []


def test_a_file_is_no_output_folder(tmp_path: Path) -> None:
    (tmp_path / "out").write_text("a file")
    with pytest.raises(OutputError, match="out is a file where an output folder is needed"):
        writable_folder(tmp_path / "out")
    with pytest.raises(OutputError, match="inner cannot be written to"):
        writable_folder(tmp_path / "out" / "inner")


def test_a_folder_on_a_read_only_disk_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Path, "write_bytes", fail_with(errno.EROFS))
    with pytest.raises(OutputError, match="cannot be written to: Read-only file system"):
        writable_folder(tmp_path)


def test_quiet_silences_only_what_it_names() -> None:
    with warnings.catch_warnings(record=True) as heard:
        warnings.simplefilter("always")
        with quiet(UserWarning):
            warnings.warn("not heard", UserWarning, stacklevel=1)
            warnings.warn("heard", RuntimeWarning, stacklevel=1)
        warnings.warn("heard again", UserWarning, stacklevel=1)
    assert [str(item.message) for item in heard] == ["heard", "heard again"]


def test_quiet_in_threads_that_overlap_leaves_the_filters_as_they_were() -> None:
    before = list(warnings.filters)
    first_in, second_in, first_out = threading.Event(), threading.Event(), threading.Event()
    heard: list[BaseException] = []

    def first() -> None:
        with quiet(UserWarning):
            first_in.set()
            second_in.wait(10)
        first_out.set()

    def second() -> None:
        first_in.wait(10)
        with quiet(UserWarning):
            second_in.set()
            first_out.wait(10)
            try:
                warnings.warn("the other thread took the filter away", UserWarning, stacklevel=1)
            except UserWarning as error:
                heard.append(error)

    threads = [threading.Thread(target=first), threading.Thread(target=second)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert heard == []
    assert warnings.filters == before


def test_quiet_gives_the_filters_back_after_an_error() -> None:
    before = list(warnings.filters)
    with pytest.raises(ValueError, match="in the block"), quiet(UserWarning):
        raise ValueError("in the block")
    assert warnings.filters == before
