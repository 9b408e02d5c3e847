"""Data sets of simulated scenes: the files, their layouts, whole or not at all."""

from __future__ import annotations

import csv
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
import rasterio
from numpy.typing import NDArray

from cloudnet import simulated_set
from cloudnet.dataset import open_dataset
from cloudnet.errors import DatasetError, OutputError
from cloudnet.ground import GROUNDS
from cloudnet.simulate import (
    simulate_scene,
)
from cloudnet.simulated_set import (
    EASY,
    Plan,
    Turn,
    planned_scene,
    remove_simulated,
    write_dataset,
)
from cloudnet.spec import BANDS, CATALOGUE_BANDS, CLEAR, CLOUD, NO_DATA


def read_rows(folder: Path) -> list[dict[str, str]]:
    with (folder / "scenes.csv").open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


@pytest.fixture(scope="module")
def geotiffs(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[Path]]:
    folder = tmp_path_factory.mktemp("simulated") / "geotiff"
    return folder, write_dataset(folder, len(GROUNDS), 3, size=(48, 64))


def test_geotiffs_carry_bands_scales_and_place(geotiffs: tuple[Path, list[Path]]) -> None:
    folder, paths = geotiffs
    assert paths == [folder / "scenes" / f"{row['scene']}.tif" for row in read_rows(folder)]
    assert sorted(paths) == sorted((folder / "scenes").iterdir())
    for path in paths:
        with rasterio.open(path) as image, rasterio.open(folder / "masks" / path.name) as mask:
            assert image.descriptions == BANDS
            assert image.scales == (1e-4,) * 4
            assert image.offsets == (0.0,) * 4
            assert image.dtypes == ("uint16",) * 4
            assert image.profile["compress"] == "deflate"
            assert image.tags(ns="IMAGE_STRUCTURE")["PREDICTOR"] == "2"
            assert image.crs.is_projected
            assert image.res == (20.0, 20.0)
            assert image.shape == mask.shape == (48, 64)
            assert image.read().min() > 0
            assert (mask.transform, mask.crs) == (image.transform, image.crs)
            assert mask.dtypes == ("uint8",)
            assert mask.nodata == NO_DATA
            assert set(np.unique(mask.read(1))) <= {CLEAR, CLOUD, NO_DATA}


def test_numbers_in_a_geotiff_are_the_reflectance(geotiffs: tuple[Path, list[Path]]) -> None:
    folder, paths = geotiffs
    scene = planned_scene((3, 4), (48, 64))
    with rasterio.open(paths[4]) as image:
        found = image.read().transpose(1, 2, 0) * 1e-4
    np.testing.assert_allclose(found, scene.reflectance, atol=5.1e-5)
    with rasterio.open(folder / "masks" / paths[4].name) as mask:
        np.testing.assert_array_equal(mask.read(1), scene.label)


def test_a_set_is_clear_mixed_and_overcast_in_equal_parts(
    geotiffs: tuple[Path, list[Path]],
) -> None:
    rows = read_rows(geotiffs[0])
    cloud = np.array([float(row["cloud_fraction"]) for row in rows])
    labelled = 1 - np.array([float(row["unlabelled_fraction"]) for row in rows])
    share = cloud / np.maximum(labelled, 1e-6)
    clear = np.array([row["scene"].endswith("_none") for row in rows[0::3]])
    assert clear.any() and not cloud[0::3][clear].any()
    # What is to be nearly clear has haze, which at most leaves pixels unlabelled, or a contrail: up
    # to half a kilometre wide, and of these pictures none is wider than 1.3 km.
    contrail = np.array([row["scene"].endswith("_contrail") for row in rows[0::3]])
    assert (share[0::3][~contrail] <= 0.02).all()
    assert contrail.sum() == 1 and 0.02 < share[0::3][contrail] < 0.5
    # Haze over snow goes unseen: such a scene is clear, or has no labels.
    seen = cloud[2::3] > 0
    assert seen.sum() >= 4 and (share[2::3][seen] > 0.8).all()
    assert 0.05 < share[1::3].mean() < 0.9
    assert len({path.stem.split("_")[3] for path in geotiffs[1]}) == len(GROUNDS)
    assert len({row["group"] for row in rows}) == len(rows) == len(GROUNDS)
    assert {row["labels"] for row in rows} == {"simulated"}


def test_tiled_only_where_large(tmp_path: Path) -> None:
    scene = simulate_scene(0, (520, 513), ground="water", cloud="none")
    path = simulated_set._write_geotiff(tmp_path, "large", scene, 0)
    with rasterio.open(path) as image:
        assert image.block_shapes[0] == (256, 256)


def test_the_catalogue_layout(tmp_path: Path) -> None:
    paths = write_dataset(tmp_path, 6, 5, size=(40, 56), layout="catalogue")
    shadows = 0
    planned = planned_scene((5, 0), (40, 56), CATALOGUE_BANDS)
    np.testing.assert_array_equal(np.load(paths[0]), planned.reflectance)
    for path in paths:
        image, mask = np.load(path), np.load(tmp_path / "masks" / path.name)
        assert path.parent.name == "subscenes"
        assert image.shape == (40, 56, 13)
        assert image.dtype == np.float32
        assert mask.shape == (40, 56, 3)
        assert mask.dtype == np.bool_
        assert mask.sum(axis=2).max() <= 1
        shadows += int(mask[..., 2].sum())
        row = next(row for row in read_rows(tmp_path) if row["scene"] == path.stem)
        assert float(row["cloud_fraction"]) == pytest.approx(mask[..., 1].mean(), abs=1e-4)
        assert float(row["unlabelled_fraction"]) == pytest.approx((~mask.any(2)).mean(), abs=1e-4)
    assert shadows > 0


@pytest.mark.parametrize("layout", ["geotiff", "catalogue"])
def test_the_project_reads_what_is_written(tmp_path: Path, layout: str) -> None:
    paths = write_dataset(tmp_path, 3, 8, size=(32, 40), layout=layout)
    dataset = open_dataset([tmp_path])
    assert [scene.name for scene in dataset.scenes] == sorted(path.stem for path in paths)
    assert not dataset.problems
    assert {(scene.rows, scene.cols, scene.labels) for scene in dataset.scenes} == {
        (32, 40, "simulated")
    }
    overcast = next(scene for scene in dataset.scenes if scene.name == paths[2].stem)
    assert overcast.count_labels().cloud_share > 0.9


def test_the_draw_nearest_to_the_cover_wanted_is_taken() -> None:
    def miss(attempts: int) -> list[float]:
        plan = Plan(("fields",), (Turn(("cumulus",), 0.45, 0.55),))
        scenes = [planned_scene((4, n), (48, 48), plan=plan, attempts=attempts) for n in range(12)]
        return [max(0.45 - s.cloud_fraction, s.cloud_fraction - 0.55, 0.0) for s in scenes]

    one, some = miss(1), miss(6)
    assert all(more <= few for few, more in zip(one, some, strict=True))
    assert np.mean(some) < 0.5 * np.mean(one)


def test_larger_pixels_show_more_of_the_same_kind_of_scene() -> None:
    plan = Plan(("fields",), (Turn(("none",), 0.0, 0.0),))

    def roughness(pixel_m: float) -> float:
        """How far pixels differ from the next: parcels take fewer pixels where those are large."""
        scenes = [planned_scene((1, n), (64, 64), plan=plan, pixel_m=pixel_m) for n in range(12)]
        return float(np.mean([np.abs(np.diff(s.reflectance[..., 3], axis=0)) for s in scenes]))

    assert roughness(40.0) > 1.1 * roughness(10.0)
    one, same = (planned_scene((1, 2), (16, 16), pixel_m=15.0).reflectance for _ in range(2))
    np.testing.assert_array_equal(one, same)


def test_the_same_seed_writes_the_same_files(tmp_path: Path) -> None:
    for name in ("one", "two"):
        write_dataset(tmp_path / name, 3, 4, size=(32, 32), layout="catalogue")
    for path in (tmp_path / "one").rglob("*.*"):
        assert (
            path.read_bytes()
            == (tmp_path / "two" / path.relative_to(tmp_path / "one")).read_bytes()
        )


@pytest.mark.parametrize("layout", ["geotiff", "catalogue"])
def test_a_failure_leaves_no_partial_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, layout: str
) -> None:
    calls, save, dataset_open = 0, np.save, rasterio.open

    def fail_at_the_fourth() -> None:
        nonlocal calls
        calls += 1
        if calls == 4:
            raise OSError(28, "No space left on device")

    def failing_save(path: Path, array: NDArray[np.generic]) -> None:
        save(path, array)
        fail_at_the_fourth()

    @contextmanager
    def failing_open(*args: object, **profile: object) -> Iterator[object]:
        with dataset_open(*args, **profile) as file:
            yield file
            fail_at_the_fourth()

    monkeypatch.setattr(np, "save", failing_save)
    monkeypatch.setattr(rasterio, "open", failing_open)
    with pytest.raises(OutputError, match="No space left"):
        write_dataset(tmp_path, 5, 1, size=(16, 16), layout=layout)
    monkeypatch.undo()
    image_folder = "scenes" if layout == "geotiff" else "subscenes"
    images, masks = (sorted((tmp_path / name).iterdir()) for name in (image_folder, "masks"))
    assert not (tmp_path / "scenes.csv").exists()
    assert len(images) == 1
    assert {path.name for path in images} <= {path.name for path in masks}
    assert not [path for path in images + masks if path.name.startswith(".")]


def test_a_wrong_layout_or_number_writes_nothing(tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match="catalogue"):
        write_dataset(tmp_path / "a", 3, 0, layout="zarr")
    with pytest.raises(DatasetError):
        write_dataset(tmp_path / "a", 0, 0)
    assert not (tmp_path / "a").exists()


def test_a_plan_chooses_ground_and_cloud(tmp_path: Path) -> None:
    write_dataset(tmp_path, 6, 0, size=(32, 32), plan=EASY)
    kinds = [row["scene"].split("_")[3:] for row in read_rows(tmp_path)]
    assert [ground for ground, _ in kinds] == list(EASY.grounds)
    assert [cloud for _, cloud in kinds] == [
        "none", "cumulus", "stratus", "none", "stratocumulus", "stratocumulus",
    ]  # fmt: skip


def test_simulated_scenes_are_removed_and_nothing_else(tmp_path: Path) -> None:
    write_dataset(tmp_path, 2, 1, size=(16, 16))
    write_dataset(tmp_path, 1, 12345, size=(16, 16), layout="catalogue")
    others = [tmp_path / "scenes" / "lake.tif", tmp_path / "masks" / "sim_1_lake.tif"]
    for path in others:
        path.touch()
    remove_simulated(tmp_path)
    assert sorted(path for path in tmp_path.rglob("*") if path.is_file()) == sorted(others)
    assert not (tmp_path / "subscenes").exists()
    remove_simulated(tmp_path / "absent")
