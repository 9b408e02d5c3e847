"""Labelled scenes are paired by name, placed and counted; what is wrong with one is told."""

from __future__ import annotations

import csv
import shutil
from collections.abc import Callable
from dataclasses import FrozenInstanceError
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from cloudnet import dataset as dataset_module
from cloudnet.dataset import (
    LabelCounts,
    LabelledScene,
    mask_size,
    open_dataset,
    place_of,
    read_mask,
    total_counts,
)
from cloudnet.errors import DatasetError, SceneError
from cloudnet.scene import Reading
from cloudnet.tiles import Window
from tests.helpers import (
    lopsided_scene,
    make_dataset,
    to_catalogue_bands,
    write_mask_npy,
    write_mask_tif,
    write_scene_npy,
    write_scene_tif,
)

PRODUCT = "S2A_MSIL1C_20180126T032011_N0206_R118_T49TGK_20180126T083810"
ROWS, COLS = 9, 14


def lopsided_mask() -> NDArray[np.uint8]:
    """A mask without symmetry: 27 cloud, 4 unlabelled, 95 clear."""
    mask = np.zeros((ROWS, COLS), dtype=np.uint8)
    mask[1:4, 2:11] = 1
    mask[6, 10:] = 255
    return mask


def add_pair(folder: Path, name: str, mask: NDArray[np.uint8] | None = None) -> Path:
    """Add a scene with its mask to a data set of GeoTIFFs."""
    write_scene_tif(folder / "scenes" / f"{name}.tif", lopsided_scene(ROWS, COLS))
    write_mask_tif(folder / "masks" / f"{name}.tif", lopsided_mask() if mask is None else mask)
    return folder


def refused(folder: Path, *words: str) -> str:
    """A data set is refused in one sentence that holds all the words."""
    with pytest.raises(DatasetError) as caught:
        open_dataset([folder])
    assert "\n" not in str(caught.value)
    for word in words:
        assert word in str(caught.value)
    return str(caught.value)


# Layouts and pairs


@pytest.mark.parametrize("layout", ["geotiff", "catalogue"])
def test_both_layouts_are_read(tmp_path: Path, layout: str) -> None:
    folder = make_dataset(tmp_path / "data", layout, scenes=5, size=(20, 31))
    data = open_dataset([folder])
    assert len(data.scenes) == 5
    assert data.problems == ()
    assert len(data.places) == 3
    for labelled in data.scenes:
        assert (labelled.rows, labelled.cols) == (20, 31)
        assert labelled.scene_path.stem == labelled.mask_path.stem == labelled.name
        with labelled.open() as scene:
            reflectance, valid = scene.read()
        mask = labelled.read_mask()
        assert valid.all()
        # Cloud is what shines in the picture: image and mask lie the same way round.
        assert reflectance[mask == 1].min() > reflectance[mask == 0].max()


def test_a_scene_and_its_mask_may_be_of_different_formats(tmp_path: Path) -> None:
    write_scene_npy(tmp_path / "scenes" / "a.npy", to_catalogue_bands(lopsided_scene(ROWS, COLS)))
    write_mask_tif(tmp_path / "masks" / "a.tif", lopsided_mask())
    write_scene_tif(tmp_path / "scenes" / "b.tiff", lopsided_scene(ROWS, COLS))
    write_mask_npy(tmp_path / "masks" / "b.NPY.npy", lopsided_mask()).rename(
        tmp_path / "masks" / "b.NPY"
    )
    data = open_dataset([tmp_path])
    assert [(scene.name, scene.mask_path.name) for scene in data.scenes] == [
        ("a", "a.tif"),
        ("b", "b.NPY"),
    ]
    for scene in data.scenes:
        assert (scene.read_mask() == lopsided_mask()).all()


def test_scenes_come_by_folder_as_given_and_then_by_name(tmp_path: Path) -> None:
    for name in ("s2", "s10", "s1"):
        add_pair(tmp_path / "second", name)
    for name in ("zz", "aa"):
        add_pair(tmp_path / "first", name)
    data = open_dataset([tmp_path / "second", str(tmp_path / "first")])
    assert [scene.name for scene in data.scenes] == ["s1", "s10", "s2", "aa", "zz"]
    assert all(scene.mask_path.stem == scene.name for scene in data.scenes)


def test_several_folders_of_different_layouts(
    geotiff_dataset: Path, catalogue_dataset: Path
) -> None:
    data = open_dataset([catalogue_dataset, geotiff_dataset])
    assert len(data.scenes) == 12
    assert len(data.places) == 6


def test_the_same_folder_twice_is_refused(geotiff_dataset: Path) -> None:
    with pytest.raises(DatasetError, match="is given twice"):
        open_dataset([geotiff_dataset, geotiff_dataset / ".." / geotiff_dataset.name])


def test_the_users_reading_reaches_the_scenes(tmp_path: Path) -> None:
    numbers = np.rint(lopsided_scene(ROWS, COLS) * 10_000).astype(np.uint16)
    write_scene_npy(tmp_path / "scenes" / "a.npy", numbers)
    write_mask_npy(tmp_path / "masks" / "a.npy", lopsided_mask())
    refused(tmp_path, "a.npy", "--scale")
    data = open_dataset([tmp_path], Reading(bands=("4", "3", "2", "1"), scale=1e-4))
    with data.scenes[0].open() as scene:
        reflectance, _ = scene.read()
    assert np.allclose(reflectance, lopsided_scene(ROWS, COLS)[..., ::-1], atol=1e-4)


def test_opening_a_data_set_reads_no_scene_whole(
    geotiff_dataset: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    windows: list[Window] = []
    original = dataset_module.read_mask

    def spy(path: Path, window: Window) -> Any:
        windows.append(window)
        return original(path, window)

    monkeypatch.setattr(dataset_module, "read_mask", spy)
    open_dataset([geotiff_dataset])
    assert len(windows) == 6
    assert all(window.rows == 1 for window in windows)


# Places and kinds of label


@pytest.mark.parametrize(
    ("name", "place"),
    [
        (PRODUCT, "T49TGK"),
        (f"{PRODUCT}.SAFE_tile_3", "T49TGK"),
        ("S2B_MSIL2A_20240704T101559_N0510_R065_T32UQD_20240704T134253", "T32UQD"),
        ("T01CCV_20200101", "T01CCV"),
        ("T49TGK", "T49TGK"),
        ("my_lake_2019", "my_lake_2019"),
        ("XT49TGK_1", "XT49TGK_1"),
        ("T49TGKX_1", "T49TGKX_1"),
        ("scene_T49IGK_1", "scene_T49IGK_1"),  # the grid has no I
        ("20180126T032011", "20180126T032011"),
    ],
)
def test_the_place_is_the_tile_in_the_product_name_else_the_scene_itself(
    name: str, place: str
) -> None:
    assert place_of(name) == place


def test_places_and_labels_come_from_the_table(tmp_path: Path) -> None:
    for name in ("a", "b", "c", PRODUCT, f"{PRODUCT}_2"):
        add_pair(tmp_path, name)
    # With a byte order mark, as spreadsheets write it; a short row, an empty group, a row too many.
    (tmp_path / "scenes.csv").write_text(
        f"group,scene,labels\nlake,a, human \nlake,b\n ,c,teacher\nwood,{PRODUCT},\nlake,gone,x\n",
        encoding="utf-8-sig",
    )
    scenes = {scene.name: scene for scene in open_dataset([tmp_path]).scenes}
    assert {name: (scene.group, scene.labels) for name, scene in scenes.items()} == {
        "a": ("lake", "human"),
        "b": ("lake", ""),
        "c": ("c", "teacher"),
        PRODUCT: ("wood", ""),
        f"{PRODUCT}_2": ("T49TGK", ""),
    }
    assert open_dataset([tmp_path]).places == ("T49TGK", "c", "lake", "wood")


def test_a_table_without_groups_leaves_the_places_to_the_names(tmp_path: Path) -> None:
    add_pair(tmp_path, PRODUCT)
    (tmp_path / "scenes.csv").write_text(f"scene,labels\n{PRODUCT},human\n")
    (scene,) = open_dataset([tmp_path]).scenes
    assert (scene.group, scene.labels) == ("T49TGK", "human")


def test_spaces_round_what_a_table_holds_are_none_of_it(tmp_path: Path) -> None:
    for name in ("a", "b"):
        add_pair(tmp_path, name)
    (tmp_path / "scenes.csv").write_text("scene, group, labels\na, lake, human\n b , lake,\n")
    scenes = open_dataset([tmp_path]).scenes
    assert [(scene.group, scene.labels) for scene in scenes] == [("lake", "human"), ("lake", "")]


@pytest.mark.parametrize("skip_bad", [False, True])
def test_a_table_of_other_scenes_is_refused(tmp_path: Path, skip_bad: bool) -> None:
    """Without its groups a place would be on both sides of a split."""
    for name in ("a", "b"):
        add_pair(tmp_path, name)
    (tmp_path / "scenes.csv").write_text("scene,group\na.tif,lake\nb.tif,lake\n")
    with pytest.raises(DatasetError, match=r"scenes\.csv names no scene .*'a\.tif'.* suffix"):
        open_dataset([tmp_path], skip_bad=skip_bad)


@pytest.mark.parametrize("content", [b"", b"name;group\na;b\n", b"scene,group\n\xff\xfe,\xff\n"])
def test_a_table_that_cannot_be_read_is_refused(tmp_path: Path, content: bytes) -> None:
    add_pair(tmp_path, "a")
    (tmp_path / "scenes.csv").write_bytes(content)
    refused(tmp_path, "scenes.csv")


# What may be wrong


def drop_mask(folder: Path) -> None:
    (folder / "masks" / "b.tif").unlink()


def drop_scene(folder: Path) -> None:
    (folder / "scenes" / "b.tif").unlink()


def other_size(folder: Path) -> None:
    write_mask_tif(folder / "masks" / "b.tif", lopsided_mask().T.copy())


def text_as_scene(folder: Path) -> None:
    (folder / "scenes" / "b.tif").write_text("no image")


def text_as_mask(folder: Path) -> None:
    (folder / "masks" / "b.tif").write_text("no image")


def cut(path: Path) -> None:
    data = path.read_bytes()
    path.write_bytes(data[: len(data) * 2 // 3])


def cut_scene(folder: Path) -> None:
    rng = np.random.default_rng(0)
    numbers = rng.integers(1, 9999, (200, 200, 4)).astype(np.uint16)
    write_scene_tif(folder / "scenes" / "b.tif", numbers, compress="deflate", tiled=True)
    write_mask_tif(folder / "masks" / "b.tif", np.zeros((200, 200), np.uint8))
    cut(folder / "scenes" / "b.tif")


def cut_mask(folder: Path) -> None:
    (folder / "masks" / "b.tif").unlink()
    cut(write_mask_npy(folder / "masks" / "b.npy", lopsided_mask()))


def two_masks(folder: Path) -> None:
    write_mask_npy(folder / "masks" / "b.npy", lopsided_mask())


def two_scenes(folder: Path) -> None:
    write_scene_npy(folder / "scenes" / "b.npy", lopsided_scene(ROWS, COLS))


def digital_numbers(folder: Path) -> None:
    (folder / "scenes" / "b.tif").unlink()
    write_scene_npy(folder / "scenes" / "b.npy", np.full((ROWS, COLS, 4), 900, np.uint16))


def three_bands(folder: Path) -> None:
    write_scene_tif(folder / "scenes" / "b.tif", lopsided_scene(ROWS, COLS, 3), descriptions=None)


def folder_as_scene(folder: Path) -> None:
    (folder / "scenes" / "b.tif").unlink()
    (folder / "scenes" / "b.tif").mkdir()


def other_values(folder: Path) -> None:
    write_mask_tif(folder / "masks" / "b.tif", np.full((ROWS, COLS), 2, np.uint8))


def fields_as_mask(folder: Path) -> None:
    (folder / "masks" / "b.tif").unlink()
    np.save(folder / "masks" / "b.npy", np.zeros((ROWS, COLS), dtype=[("cloud", "u1")]))


FAULTS: list[tuple[Callable[[Path], None], tuple[str, ...]]] = [
    (drop_mask, ("scenes/b.tif", "no mask")),
    (drop_scene, ("masks/b.tif", "no scene")),
    (other_size, ("masks/b.tif", "14 x 9", "9 x 14")),
    (text_as_scene, ("scenes/b.tif", "no readable image")),
    (text_as_mask, ("masks/b.tif", "no readable image")),
    (cut_scene, ("scenes/b.tif", "no readable image")),
    (cut_mask, ("masks/b.npy", "no readable image")),
    (two_masks, ("masks/b.npy", "b.tif", "one name")),
    (two_scenes, ("scenes/b.npy", "b.tif", "one name")),
    (digital_numbers, ("scenes/b.npy", "--scale")),
    (three_bands, ("scenes/b.tif", "3 bands")),
    (folder_as_scene, ("scenes/b.tif", "is a folder")),
    (other_values, ("masks/b.tif", "the value 2")),
    (fields_as_mask, ("masks/b.npy", "0 clear, 1 cloud")),
]


@pytest.mark.parametrize(("spoil", "words"), FAULTS, ids=[spoil.__name__ for spoil, _ in FAULTS])
def test_a_bad_scene_is_named_and_left_out_only_on_demand(
    tmp_path: Path, spoil: Callable[[Path], None], words: tuple[str, ...]
) -> None:
    for name in ("a", "b", "c"):
        add_pair(tmp_path, name)
    spoil(tmp_path)
    assert "more like it" not in refused(tmp_path, *words, "--skip-bad")
    data = open_dataset([tmp_path], skip_bad=True)
    assert [scene.name for scene in data.scenes] == ["a", "c"]
    (problem,) = data.problems
    assert all(word in problem for word in words)


def test_another_value_in_the_midst_of_a_mask_is_left_out_too(tmp_path: Path) -> None:
    for name in ("a", "b", "c"):
        add_pair(tmp_path, name)
    mask = lopsided_mask()
    mask[0, 0] = 7
    write_mask_tif(tmp_path / "masks" / "b.tif", mask)
    data = open_dataset([tmp_path], skip_bad=True)
    assert [scene.name for scene in data.scenes] == ["a", "c"]
    (problem,) = data.problems
    assert "masks/b.tif holds the value 7" in problem


def test_several_problems_are_counted_and_kept_in_order(tmp_path: Path) -> None:
    for name in ("a", "b", "c", "d"):
        add_pair(tmp_path, name)
    drop_mask(tmp_path)
    (tmp_path / "scenes" / "c.tif").write_text("no image")
    write_mask_tif(tmp_path / "masks" / "zzz.tif", lopsided_mask())
    refused(tmp_path, "scenes/b.tif", "2 more like it")
    problems = open_dataset([tmp_path], skip_bad=True).problems
    assert [
        next(name for name in ("b.tif", "c.tif", "zzz.tif") if name in text) for text in problems
    ] == [
        "b.tif",
        "c.tif",
        "zzz.tif",
    ]


def test_nothing_left_after_skipping_is_refused_with_a_reason(tmp_path: Path) -> None:
    add_pair(tmp_path, "b")
    text_as_scene(tmp_path)
    with pytest.raises(DatasetError, match=r"no scene can be used.*scenes/b\.tif"):
        open_dataset([tmp_path], skip_bad=True)


@pytest.mark.parametrize("skip_bad", [False, True])
def test_folders_that_are_no_data_sets_are_refused(tmp_path: Path, skip_bad: bool) -> None:
    def reason(folder: Path) -> str:
        with pytest.raises(DatasetError) as caught:
            open_dataset([folder], skip_bad=skip_bad)
        assert str(folder) in str(caught.value)
        return str(caught.value)

    assert "is missing" in reason(tmp_path / "none")
    (tmp_path / "file").write_text("")
    assert "is no folder" in reason(tmp_path / "file")
    (tmp_path / "empty").mkdir()
    assert "needs masks/" in reason(tmp_path / "empty")
    (tmp_path / "nomasks" / "scenes").mkdir(parents=True)
    assert "needs masks/" in reason(tmp_path / "nomasks")
    (tmp_path / "noscenes" / "masks").mkdir(parents=True)
    assert "needs masks/" in reason(tmp_path / "noscenes")
    add_pair(tmp_path / "both", "a")
    (tmp_path / "both" / "subscenes").mkdir()
    assert "one of subscenes/" in reason(tmp_path / "both")
    add_pair(tmp_path / "nothing", "a")
    (tmp_path / "nothing" / "scenes" / "a.tif").unlink()
    assert "holds no .npy or .tif scene" in reason(tmp_path / "nothing")
    with pytest.raises(DatasetError, match="no folder"):
        open_dataset([], skip_bad=skip_bad)


# Masks


def whole(mask: NDArray[Any]) -> Window:
    return Window(0, 0, mask.shape[0], mask.shape[1])


def test_shadow_is_clear_and_a_pixel_without_a_channel_is_unlabelled(tmp_path: Path) -> None:
    stack = np.zeros((2, 3, 3), dtype=bool)
    stack[0, 0, 0] = stack[0, 1, 1] = stack[0, 2, 2] = True
    stack[1, 0] = (False, True, True)
    np.save(tmp_path / "a.npy", stack)
    assert read_mask(tmp_path / "a.npy", Window(0, 0, 2, 3)).tolist() == [
        [0, 1, 0],
        [1, 255, 255],
    ]
    np.save(tmp_path / "b.npy", stack[..., :2].astype(np.uint8))  # shadow was not annotated
    assert read_mask(tmp_path / "b.npy", Window(0, 0, 2, 3)).tolist() == [
        [0, 1, 255],
        [1, 255, 255],
    ]


def test_masks_of_one_channel(tmp_path: Path) -> None:
    mask = lopsided_mask()
    np.save(tmp_path / "a.npy", mask)
    np.save(tmp_path / "b.npy", mask.astype(np.float32))
    np.save(tmp_path / "c.npy", mask == 1)
    write_mask_tif(tmp_path / "a.tif", mask, nodata=None)
    write_mask_tif(tmp_path / "b.tif", mask)
    for name in ("a.npy", "b.npy", "a.tif", "b.tif"):
        found = read_mask(tmp_path / name, whole(mask))
        assert found.dtype == np.uint8
        assert (found == mask).all()
    assert (read_mask(tmp_path / "c.npy", whole(mask)) == (mask == 1)).all()


@pytest.mark.parametrize("name", ["a.npy", "b.npy", "a.tif"])
def test_a_window_of_a_mask_is_the_part_of_the_whole(tmp_path: Path, name: str) -> None:
    mask = lopsided_mask()
    np.save(tmp_path / "a.npy", mask)
    write_mask_npy(tmp_path / "b.npy", mask)
    write_mask_tif(tmp_path / "a.tif", mask)
    window = Window(2, 5, 6, 8)
    assert (read_mask(tmp_path / name, window) == mask[window.slices]).all()
    assert mask_size(tmp_path / name) == (ROWS, COLS)


@pytest.mark.parametrize(
    ("dtype", "nodata"),
    [("uint8", 7), ("int8", -1), ("int16", -9999), ("float32", -1.0), ("float32", float("nan"))],
)
def test_the_masks_own_nodata_value_is_unlabelled(
    tmp_path: Path, dtype: str, nodata: float
) -> None:
    mask = lopsided_mask()
    numbers = np.where(mask == 255, 0, mask).astype(dtype)
    numbers[mask == 255] = nodata
    path = write_mask_tif(tmp_path / "a.tif", numbers, nodata=nodata)
    assert (read_mask(path, whole(mask)) == mask).all()


def test_255_stays_unlabelled_beside_another_nodata_value(tmp_path: Path) -> None:
    mask = lopsided_mask()
    numbers = mask.copy()
    numbers[8, 0] = 9
    path = write_mask_tif(tmp_path / "a.tif", numbers, nodata=9)
    mask[8, 0] = 255
    assert (read_mask(path, whole(mask)) == mask).all()


@pytest.mark.parametrize("value", [2, 3, 128, 254])
def test_other_values_of_a_mask_are_refused(tmp_path: Path, value: int) -> None:
    mask = lopsided_mask()
    mask[5, 6] = value
    np.save(tmp_path / "a.npy", mask)
    for path in (tmp_path / "a.npy", write_mask_tif(tmp_path / "a.tif", mask)):
        with pytest.raises(DatasetError, match=rf"{path.name} holds the value {value}"):
            read_mask(path, whole(mask))
        assert not read_mask(path, Window(0, 0, 5, COLS)).all()  # the rest can be read


@pytest.mark.parametrize("value", [0.5, -1.0, float("nan"), float("inf")])
def test_floats_between_the_values_are_refused(tmp_path: Path, value: float) -> None:
    mask = lopsided_mask().astype(np.float32)
    mask[5, 6] = value
    path = write_mask_tif(tmp_path / "a.tif", mask, nodata=None)
    with pytest.raises(DatasetError, match="holds the value"):
        read_mask(path, whole(mask))


def test_channels_that_are_no_classes_are_refused(tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", np.full((4, 5, 3), 0.3, dtype=np.float32))
    with pytest.raises(DatasetError, match=r"a\.npy holds channels of other values"):
        read_mask(tmp_path / "a.npy", Window(0, 0, 4, 5))


@pytest.mark.parametrize("shape", [(ROWS, COLS, 1), (ROWS, COLS, 4), (ROWS, COLS, 3, 1), (ROWS,)])
def test_arrays_of_another_shape_are_refused_with_their_own_shape(
    tmp_path: Path, shape: tuple[int, ...]
) -> None:
    np.save(tmp_path / "a.npy", np.zeros(shape, dtype=bool))
    with pytest.raises(DatasetError) as caught:
        read_mask(tmp_path / "a.npy", Window(0, 0, 1, 1))
    assert str(shape) in str(caught.value)


def test_a_mask_of_several_bands_is_refused_and_not_read_by_its_first(tmp_path: Path) -> None:
    one_hot = np.dstack([lopsided_mask() == 0, lopsided_mask() == 1]).astype(np.uint8)
    path = write_mask_tif(tmp_path / "a.tif", one_hot)
    with pytest.raises(DatasetError, match="has 2 bands"):
        read_mask(path, Window(0, 0, 1, 1))


def test_masks_that_cannot_be_read_are_told(tmp_path: Path) -> None:
    for name in ("a.npy", "a.tif"):
        (tmp_path / name).write_text("no mask")
        with pytest.raises(SceneError, match=name):
            read_mask(tmp_path / name, Window(0, 0, 1, 1))
        with pytest.raises(SceneError, match=name):
            mask_size(tmp_path / name)


# Counts


def labelled(path: Path) -> LabelledScene:
    return LabelledScene("a", path, path, ROWS, COLS, "a")


@pytest.mark.parametrize("slab_rows", [1, 2, 4, 512])
def test_labels_are_counted_in_slabs_of_any_height(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, slab_rows: int
) -> None:
    monkeypatch.setattr(dataset_module, "SLAB_ROWS", slab_rows)
    path = write_mask_tif(tmp_path / "a.tif", lopsided_mask())
    counts = labelled(path).count_labels()
    assert counts == LabelCounts(clear=95, cloud=27, unlabelled=4)
    assert counts.cloud_share == pytest.approx(27 / 122)
    assert counts.unlabelled_share == pytest.approx(4 / 126)


def test_shares_of_nothing_are_0() -> None:
    assert LabelCounts(0, 0, 0).cloud_share == 0
    assert LabelCounts(0, 0, 0).unlabelled_share == 0
    assert LabelCounts(0, 0, 9).cloud_share == 0
    assert LabelCounts(0, 0, 9).unlabelled_share == 1


def test_scenes_and_counts_are_values(tmp_path: Path) -> None:
    assert len({labelled(tmp_path), labelled(tmp_path)}) == 1
    with pytest.raises(FrozenInstanceError):
        labelled(tmp_path).group = "another"  # type: ignore[misc]
    with pytest.raises(FrozenInstanceError):
        LabelCounts(1, 2, 3).cloud = 0  # type: ignore[misc]


def test_counts_add_up() -> None:
    assert total_counts([]) == LabelCounts(0, 0, 0)
    assert total_counts([LabelCounts(1, 2, 3), LabelCounts(10, 20, 30)]) == LabelCounts(11, 22, 33)


# Real scenes


def test_the_real_scenes(real_scenes: Path) -> None:
    data = open_dataset([real_scenes / "catalogue", real_scenes / "rgbn"])
    assert len(data.scenes) == 197
    assert len(data.places) == 54
    assert data.problems == ()
    kinds = [scene.labels for scene in data.scenes]
    assert {kind: kinds.count(kind) for kind in kinds} == {
        "human": 16,
        "teacher": 176,
        "clear by inspection": 4,
        "SCL": 1,
    }


@pytest.mark.parametrize("layout", ["catalogue", "rgbn"])
def test_counts_agree_with_the_table_of_the_real_scenes(real_scenes: Path, layout: str) -> None:
    with (real_scenes / layout / "scenes.csv").open(newline="", encoding="utf-8") as file:
        rows = {row["scene"]: row for row in csv.DictReader(file)}
    scenes = open_dataset([real_scenes / layout]).scenes
    assert {scene.name for scene in scenes} == set(rows)
    for scene in scenes[::5]:
        counts, row = scene.count_labels(), rows[scene.name]
        assert scene.group == row["group"]
        assert (scene.rows, scene.cols) == (int(row["rows"]), int(row["cols"]))
        of_all = counts.cloud / (scene.rows * scene.cols)
        assert of_all == pytest.approx(float(row["cloud_fraction"]), abs=1e-4)
        assert counts.unlabelled_share == pytest.approx(float(row["unlabelled_fraction"]), abs=1e-4)


def test_a_catalogue_folder_keeps_working_without_its_table(
    real_scenes: Path, tmp_path: Path
) -> None:
    first = sorted((real_scenes / "catalogue" / "subscenes").glob("*.npy"))[0]
    for part in ("subscenes", "masks"):
        (tmp_path / part).mkdir()
        shutil.copy(real_scenes / "catalogue" / part / first.name, tmp_path / part)
    (scene,) = open_dataset([tmp_path]).scenes
    assert scene.group == first.stem
