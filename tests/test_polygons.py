"""Polygons: outlines, holes and areas of clouds, as two vector formats."""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import pytest
import rasterio
from numpy.typing import NDArray
from rasterio.features import rasterize
from rasterio.transform import Affine

from cloudnet import polygons
from cloudnet.errors import OutputError
from cloudnet.layer import MASK, open_layer, reading
from cloudnet.map_grid import MapGrid
from cloudnet.polygons import check_vector, polygons_of, write_polygons
from cloudnet.tiles import Window
from tests.helpers import LOCAL_CRS, UTM_10M

UTM = rasterio.CRS.from_epsg(32633)


def ragged() -> NDArray[np.uint8]:
    """Return a mask with holes, corners that touch, and no data."""
    rng = np.random.default_rng(5)
    coarse = rng.random((12, 15)).repeat(5, 0).repeat(5, 1)
    mask = (coarse + 0.3 * rng.random((60, 75)) > 0.7).astype(np.uint8)
    mask[:, 30:33] = 255
    return mask


def write_mask(folder: Path, mask: NDArray[np.uint8], grid: MapGrid) -> Path:
    with open_layer(folder / "mask.tif", grid, MASK, {}) as target:
        target.write(Window(0, 0, *mask.shape), mask)
    return folder / "mask.tif"


@pytest.mark.parametrize("transform", [UTM_10M, UTM_10M @ Affine.rotation(25)])
def test_polygons_cover_the_clouds_and_nothing_else(tmp_path: Path, transform: Affine) -> None:
    mask = ragged()
    grid = MapGrid(*mask.shape, UTM, transform)
    with reading(write_mask(tmp_path, mask, grid)) as file:
        found = list(polygons_of(file, grid))
    shapes = [
        {"type": "Polygon", "coordinates": [ring.tolist() for ring in polygon.rings]}
        for polygon in found
    ]
    drawn = rasterize(shapes, out_shape=mask.shape, transform=transform)
    np.testing.assert_array_equal(drawn, mask == 1)
    assert any(len(polygon.rings) > 1 for polygon in found)
    areas = sum(polygon.area_m2 for polygon in found)
    assert areas == pytest.approx(100.0 * (mask == 1).sum())


def test_the_area_in_degrees_is_that_on_a_sphere(tmp_path: Path) -> None:
    mask = np.zeros((20, 30), dtype=np.uint8)
    mask[5:15, 10:20] = 1
    mask[8, 12] = 0
    grid = MapGrid(20, 30, rasterio.CRS.from_epsg(4326), Affine(1e-3, 0, 179.99, 0, -1e-3, 60.0))
    with reading(write_mask(tmp_path, mask, grid)) as file:
        (polygon,) = polygons_of(file, grid)
    side = 111_320.0 * 1e-3
    assert polygon.area_m2 == pytest.approx(99 * side**2 * math.cos(math.radians(59.99)), rel=1e-4)


def test_a_geopackage_is_read_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pyogrio = pytest.importorskip("pyogrio", reason="the vector extra is not installed")
    monkeypatch.setattr(polygons, "BATCH", 7)
    mask = ragged()
    path = write_mask(tmp_path, mask, MapGrid(*mask.shape, UTM, UTM_10M))
    count = write_polygons(path, tmp_path / "c.gpkg", "scene")
    assert count > 14
    assert sorted(file.name for file in tmp_path.iterdir()) == ["c.gpkg", "mask.tif"]
    meta, _, geometry, (areas,) = pyogrio.raw.read(tmp_path / "c.gpkg")
    assert pyogrio.list_layers(tmp_path / "c.gpkg").tolist() == [["scene_clouds", "Polygon"]]
    assert meta["crs"] == "EPSG:32633"
    assert meta["fields"].tolist() == ["area_m2"]
    assert len(geometry) == count
    assert areas.sum() == pytest.approx(100.0 * (mask == 1).sum())


def test_geojson_is_in_wgs84_and_wound_as_rfc_7946_asks(tmp_path: Path) -> None:
    mask = ragged()
    path = write_mask(tmp_path, mask, MapGrid(*mask.shape, UTM, UTM_10M))
    count = write_polygons(path, tmp_path / "c.geojson", "scene")
    content = json.loads((tmp_path / "c.geojson").read_text())
    assert len(content["features"]) == count
    for feature in content["features"]:
        for index, ring in enumerate(feature["geometry"]["coordinates"]):
            assert ring[0] == ring[-1]
            xs, ys = np.array(ring).T
            assert (xs > 13.6).all() and (xs < 13.7).all() and (ys > 47.8).all()
            xs, ys = xs - xs[0], ys - ys[0]
            assert ((xs[:-1] * ys[1:] - xs[1:] * ys[:-1]).sum() > 0) == (index == 0)
    areas = sum(feature["properties"]["area_m2"] for feature in content["features"])
    assert areas == pytest.approx(100.0 * (mask == 1).sum())


@pytest.mark.parametrize("suffix", ["gpkg", "geojson"])
def test_a_mask_without_cloud_is_a_file_without_polygons(tmp_path: Path, suffix: str) -> None:
    if suffix == "gpkg":
        pytest.importorskip("pyogrio", reason="the vector extra is not installed")
    path = write_mask(tmp_path, np.zeros((9, 8), np.uint8), MapGrid(9, 8, UTM, UTM_10M))
    assert write_polygons(path, tmp_path / f"c.{suffix}", "scene") == 0
    assert (tmp_path / f"c.{suffix}").stat().st_size > 0


def test_a_scene_without_crs_has_no_polygons() -> None:
    with pytest.raises(OutputError, match=r"a\.npy has no CRS, which --vector needs"):
        check_vector(Path("c.geojson"), MapGrid(3, 4), "a.npy")
    local = MapGrid(3, 4, rasterio.CRS.from_user_input(LOCAL_CRS), UTM_10M)
    with pytest.raises(OutputError, match=r"a\.tif lies where .* give --vector gpkg"):
        check_vector(Path("c.geojson"), local, "a.tif")
