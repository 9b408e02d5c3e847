"""Scene lists: paths, addresses, patterns and a list on standard input become scenes."""

from __future__ import annotations

from pathlib import Path

import pytest

from cloudnet.errors import SceneError
from cloudnet.scene_list import identity, list_scenes


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The working folder: b.tif, a.tif, deep/er/c.tif, and a file whose name is a pattern."""
    for name in ("b.tif", "a.tif", "deep/er/c.tif", "d[1].tif"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_a_pattern_is_what_fits_it_in_order(place: Path) -> None:
    assert list_scenes(["[ab].tif"]) == ["a.tif", "b.tif"]
    assert list_scenes([f"{place}/?.tif"]) == [f"{place}/a.tif", f"{place}/b.tif"]


def test_two_stars_are_folders_at_any_depth(place: Path) -> None:
    assert list_scenes(["**/*.tif"]) == ["a.tif", "b.tif", "d[1].tif", "deep/er/c.tif"]


def test_a_name_that_looks_like_a_pattern_is_a_name(place: Path) -> None:
    assert list_scenes(["d[1].tif"]) == ["d[1].tif"]


def test_a_pattern_that_fits_nothing_is_an_error(place: Path) -> None:
    with pytest.raises(SceneError, match=r"no scene fits the pattern \*\.jp2"):
        list_scenes(["a.tif", "*.jp2"])


def test_a_name_that_is_not_there_is_kept_for_the_scene_to_complain() -> None:
    assert list_scenes(["missing.tif"]) == ["missing.tif"]


def test_each_scene_comes_once_at_its_first_place(place: Path) -> None:
    assert list_scenes(["b.tif", "*.tif", "./b.tif"]) == ["b.tif", "a.tif", "d[1].tif"]


def test_addresses_stay_as_they_are() -> None:
    address = "https://somewhere.org/a/b.tif?token=*"
    assert list_scenes([address]) == [address]
    assert identity(address) == address


def test_a_list_on_standard_input(place: Path) -> None:
    lines = ["\ufeffb.tif\r\n", "\n", "# a note\n", "  https://x.org/1.tif \n", "deep/*/*.tif"]
    found = list_scenes(["a.tif", "-"], lines)
    assert found == ["a.tif", "b.tif", "https://x.org/1.tif", "deep/er/c.tif"]


def test_an_empty_list_is_an_error() -> None:
    with pytest.raises(SceneError, match="names no scene"):
        list_scenes(["-"], ["# nothing\n", "\n"])
