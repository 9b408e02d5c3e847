"""Regrid: values where they belong on another grid, 255 where the layer does not reach."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import rasterio
from numpy.typing import NDArray
from rasterio.transform import Affine
from rasterio.warp import transform as transform_points

from cloudnet import layer
from cloudnet.layer import MASK, PROBABILITY, open_layer
from cloudnet.map_grid import MapGrid
from cloudnet.regrid import regrid
from cloudnet.tiles import Window
from tests.helpers import UTM_10M

UTM = rasterio.CRS.from_epsg(32633)


def regridded(
    folder: Path, kind: str, values: NDArray[np.uint8], old: MapGrid, new: MapGrid
) -> NDArray[np.uint8]:
    with open_layer(folder / "old.tif", old, kind, {"MODEL": "some 1"}) as target:
        target.write(Window(0, 0, *values.shape), values)
    regrid(folder / "old.tif", folder / "new.tif", new)
    with rasterio.open(folder / "new.tif") as file:
        assert (file.shape, file.crs) == ((new.rows, new.cols), new.crs)
        assert file.transform.almost_equals(new.transform)
        assert file.descriptions == (kind,)
        assert file.tags()["MODEL"] == "some 1"
        return np.asarray(file.read(1))


def test_a_coarser_mask_is_nearest_and_a_coarser_probability_a_mean(tmp_path: Path) -> None:
    old = MapGrid(40, 60, UTM, UTM_10M)
    new = MapGrid(20, 30, UTM, UTM_10M @ Affine.scale(2))
    values = np.random.default_rng(1).integers(0, 101, (40, 60)).astype(np.uint8)
    means = values.reshape(20, 2, 30, 2).mean(axis=(1, 3))
    found = regridded(tmp_path, PROBABILITY, values, old, new)
    assert np.abs(found - means).max() <= 0.51
    mask = (values > 50).astype(np.uint8)
    choices = mask.reshape(20, 2, 30, 2).transpose(0, 2, 1, 3).reshape(20, 30, 4)
    found = regridded(tmp_path, MASK, mask, old, new)
    assert (choices == found[..., np.newaxis]).any(axis=2).all()


def test_no_data_takes_no_part_in_a_mean_and_lies_outside(tmp_path: Path) -> None:
    """GDAL alone takes a hair's width of the layer for an overlap."""
    old = MapGrid(40, 60, UTM, UTM_10M)
    new = MapGrid(30, 30, UTM, UTM_10M @ Affine.scale(2) @ Affine.translation(-2, -3))
    values = np.full((40, 60), 80, dtype=np.uint8)
    values[1::2, 1::2] = 255
    with open_layer(tmp_path / "old.tif", old, MASK, {}) as target:
        target.write(Window(0, 0, 40, 60), np.zeros((40, 60), np.uint8))
    regrid(tmp_path / "old.tif", tmp_path / "valid.tif", new)
    with open_layer(tmp_path / "old.tif", old, PROBABILITY, {}) as target:
        target.write(Window(0, 0, 40, 60), values)
    regrid(tmp_path / "old.tif", tmp_path / "new.tif", new, tmp_path / "valid.tif")
    with rasterio.open(tmp_path / "new.tif") as file:
        found = file.read(1)
    expected = np.full((30, 30), 255)
    expected[3:23, 2:] = 80
    np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize("slab_px", [2**22, 1])
@pytest.mark.parametrize(
    ("old", "new"),
    [
        (
            MapGrid(300, 280, UTM, UTM_10M),
            MapGrid(
                300, 350, rasterio.CRS.from_epsg(4326), Affine(1.2e-4, 0, 13.652, 0, -1e-4, 47.846)
            ),
        ),
        (
            MapGrid(300, 280, UTM, UTM_10M @ Affine.rotation(30)),
            MapGrid(340, 350, UTM, Affine(10, 0, 398500.0, 0, -10, 5300040.0)),
        ),
        (
            MapGrid(300, 280, UTM, UTM_10M),
            MapGrid(340, 350, UTM, UTM_10M @ Affine.rotation(-20) @ Affine.scale(1.2)),
        ),
    ],
    ids=["degrees", "from rotated", "to rotated"],
)
def test_each_pixel_shows_what_lies_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, slab_px: int, old: MapGrid, new: MapGrid
) -> None:
    """Every new pixel, against the old one under its centre, a pixel's play at their edges."""
    monkeypatch.setattr(layer, "SLAB_PX", slab_px)
    mask = np.random.default_rng(2).integers(0, 2, (30, 28)).astype(np.uint8)
    mask = mask.repeat(10, axis=0).repeat(10, axis=1)
    found = regridded(tmp_path, MASK, mask, old, new)
    rows, cols = np.indices(found.shape).reshape(2, -1) + 0.5
    t = new.transform
    xs, ys = transform_points(
        new.crs, old.crs, t.a * cols + t.b * rows + t.c, t.d * cols + t.e * rows + t.f
    )
    inverse = ~old.transform
    col = inverse.a * np.asarray(xs) + inverse.b * np.asarray(ys) + inverse.c
    row = inverse.d * np.asarray(xs) + inverse.e * np.asarray(ys) + inverse.f
    padded = np.pad(mask, 1, constant_values=255)
    place = [
        np.clip(np.floor(at).astype(int) + 1, 0, side - 1)
        for at, side in zip((row, col), padded.shape)
    ]
    expected = padded[place[0], place[1]].reshape(found.shape)
    inner = np.abs(np.stack([row, col]) / 10 - np.round(np.stack([row, col]) / 10)) > 0.02
    sure = inner.all(axis=0).reshape(found.shape)
    assert {0, 1, 255} == set(np.unique(found))
    np.testing.assert_array_equal(found[sure], expected[sure])
