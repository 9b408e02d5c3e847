"""Refinement: margins in metres, patches by area, in slabs as in one piece."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import rasterio
from numpy.typing import NDArray
from rasterio.transform import Affine

from cloudnet import layer
from cloudnet.errors import OutputError
from cloudnet.layer import MASK, open_layer, read_slabs
from cloudnet.map_grid import MapGrid
from cloudnet.refine import Refinement, refine_mask, within_reach
from cloudnet.tiles import Window
from tests.helpers import UTM_10M

UTM = rasterio.CRS.from_epsg(32633)


def refined(
    folder: Path, mask: NDArray[np.uint8], refinement: Refinement, transform: Affine = UTM_10M
) -> NDArray[np.uint8]:
    """Write a mask, refine it, read it."""
    grid = MapGrid(*mask.shape, UTM, transform)
    with open_layer(folder / "mask.tif", grid, MASK, {"MODEL": "some 1"}) as target:
        target.write(Window(0, 0, *mask.shape), mask)
    path = refine_mask(folder / "mask.tif", grid, refinement)
    assert [file.name for file in folder.iterdir()] == [path.name]
    return np.concatenate([values for _, values in read_slabs(path)])


def speckled(rows: int, cols: int) -> NDArray[np.uint8]:
    """Return a mask with clouds of all sizes and no data."""
    rng = np.random.default_rng(3)
    coarse = rng.random((rows // 20 + 1, cols // 20 + 1)).repeat(20, 0).repeat(20, 1)[:rows, :cols]
    mask = (coarse + rng.random((rows, cols)) > 1.5).astype(np.uint8)
    mask[:, 40:45] = 255
    return mask


def brute_reach(
    cloud: NDArray[np.bool_], reach_m: float, pixel_m: tuple[float, float]
) -> NDArray[np.bool_]:
    rows, cols = np.indices(cloud.shape)
    near = np.zeros(cloud.shape, dtype=bool)
    for row, col in zip(*np.nonzero(cloud)):
        distance = np.hypot((cols - col) * pixel_m[0], (rows - row) * pixel_m[1])
        near |= distance <= reach_m + 1e-6
    return near


@pytest.mark.parametrize("pixel_m", [(10.0, 10.0), (12.1, 6.7), (3.0, 31.0)])
@pytest.mark.parametrize("reach_m", [5.0, 10.0, 30.0, 50.0, 77.7, 900.0])
def test_reach_is_a_disc_in_metres(reach_m: float, pixel_m: tuple[float, float]) -> None:
    cloud = np.random.default_rng(1).random((40, 50)) < 0.01
    expected = brute_reach(cloud, reach_m, pixel_m)
    np.testing.assert_array_equal(within_reach(cloud, reach_m, pixel_m), expected)


@pytest.mark.parametrize("shape", [(1, 1), (1, 9), (9, 1)])
def test_reach_goes_beyond_small_masks(shape: tuple[int, int]) -> None:
    cloud = np.zeros(shape, dtype=bool)
    cloud[0, 0] = True
    assert within_reach(cloud, 1000.0, (10.0, 10.0)).all()
    assert not within_reach(~cloud & False, 1000.0, (10.0, 10.0)).any()


@pytest.mark.parametrize("rotated", [False, True])
def test_slabs_equal_the_whole(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, rotated: bool
) -> None:
    mask = speckled(600, 90)
    transform = UTM_10M @ Affine.rotation(30) if rotated else UTM_10M
    found = []
    for name, slab_px in (("whole", 2**22), ("slabs", 1)):
        monkeypatch.setattr(layer, "SLAB_PX", slab_px)
        (tmp_path / name).mkdir()
        found.append(refined(tmp_path / name, mask, Refinement(500.0, 45.0), transform))
    np.testing.assert_array_equal(found[0], found[1])
    assert (found[0] != mask).mean() > 0.05


def test_no_data_neither_grows_nor_shrinks(tmp_path: Path) -> None:
    mask = np.zeros((9, 20), dtype=np.uint8)
    mask[:, 10] = 255
    mask[4, 8] = 1
    found = refined(tmp_path, mask, Refinement(buffer_m=30.0))
    np.testing.assert_array_equal(found == 255, mask == 255)
    expected = brute_reach(mask == 1, 30.0, (10.0, 10.0)) & (mask != 255)
    np.testing.assert_array_equal(found == 1, expected)
    assert found[4, 11] == 1  # a margin is not stopped by a gap in the data


def test_small_patches_leave_before_the_margin(tmp_path: Path) -> None:
    mask = np.zeros((20, 40), dtype=np.uint8)
    mask[2, 2:5] = 1  # 300 m2
    mask[10:14, 10:14] = 1  # with a hole: 1500 m2
    mask[11, 11] = 0
    mask[10, 30:34] = 1  # 400 m2
    found = refined(tmp_path, mask, Refinement(min_area_m2=400.0))
    expected = mask.copy()
    expected[2, 2:5] = 0
    np.testing.assert_array_equal(found, expected)
    (tmp_path / "both").mkdir()
    both = refined(tmp_path / "both", mask, Refinement(min_area_m2=400.0, buffer_m=20.0))
    assert not both[:6].any()
    assert both[10, 36] == 0 and both[10, 35] == 1


def test_what_a_grid_cannot_give_is_one_sentence() -> None:
    square = MapGrid(9, 9, UTM, UTM_10M)
    Refinement(1e9, 5000.0).check(square, "a.tif")
    with pytest.raises(OutputError, match=r"600 pixels of a\.tif; it goes up to 500"):
        Refinement(buffer_m=6000.0).check(square, "a.tif")
    with pytest.raises(OutputError, match=r"a\.tif has a sheared grid.*--buffer-m"):
        Refinement(buffer_m=60.0).check(MapGrid(9, 9, UTM, Affine(10, 4, 0, 0, -10, 0)), "a.tif")
