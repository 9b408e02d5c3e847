"""Map grids: sizes on the ground, and the grid of another file."""

from __future__ import annotations

from math import cos, radians
from pathlib import Path

import pytest
import rasterio
from rasterio.transform import Affine

from cloudnet.errors import OutputError, SceneError
from cloudnet.map_grid import MapGrid, grid_like
from tests.helpers import LOCAL_CRS, UTM_10M, lopsided_scene, write_scene_tif

UTM = rasterio.CRS.from_epsg(32633)
DEGREES = rasterio.CRS.from_epsg(4326)
SCENE = MapGrid(30, 40, UTM, UTM_10M)


def test_pixels_of_a_projected_grid() -> None:
    grid = MapGrid(30, 40, UTM, Affine(20, 0, 4e5, 0, -10, 5e6))
    assert grid.pixel_m == (20.0, 10.0)
    assert grid.pixel_area_m2() == 200.0
    assert grid.bounds == (4e5, 5e6 - 300, 4e5 + 800, 5e6)
    turned = MapGrid(30, 40, UTM, Affine.rotation(30) @ Affine.scale(20, 10))
    assert turned.pixel_m == pytest.approx((20.0, 10.0))
    assert turned.pixel_area_m2() == pytest.approx(200.0)
    assert turned.require_pixel_m("--buffer-m", "a") == pytest.approx((20.0, 10.0))


def test_pixels_of_a_grid_in_feet() -> None:
    feet = rasterio.CRS.from_epsg(2263)
    grid = MapGrid(30, 40, feet, Affine(100, 0, 1e6, 0, -100, 2e5))
    assert grid.pixel_m == pytest.approx((30.48, 30.48), rel=1e-3)


def test_pixels_of_a_grid_in_degrees() -> None:
    grid = MapGrid(1000, 40, DEGREES, Affine(1e-3, 0, 11.0, 0, -1e-3, 60.5))
    across, down = grid.pixel_m or (0.0, 0.0)
    assert down == pytest.approx(111.3, abs=0.3)
    assert across == pytest.approx(down * cos(radians(60.0)))


@pytest.mark.parametrize("grid", [MapGrid(3, 4), MapGrid(3, 4, None, UTM_10M)])
def test_a_grid_without_crs_has_no_size(grid: MapGrid) -> None:
    assert grid.pixel_m is None
    assert grid.pixel_area_m2() is None
    with pytest.raises(OutputError, match=r"a\.npy has no georeference.*leave out --buffer-m"):
        grid.require_pixel_m("--buffer-m", "a.npy")


def test_the_grid_of_another_file(tmp_path: Path) -> None:
    path = write_scene_tif(
        tmp_path / "like.tif",
        lopsided_scene(20, 10),
        crs="EPSG:4326",
        transform=Affine(1e-3, 0, 13.66, 0, -1e-3, 47.86),
    )
    grid = grid_like(path, SCENE, "scene.tif")
    assert (grid.rows, grid.cols, grid.crs) == (20, 10, DEGREES)
    assert grid.transform.c == 13.66


def test_another_file_that_does_not_fit(tmp_path: Path) -> None:
    far = write_scene_tif(
        tmp_path / "far.tif", lopsided_scene(20, 10), transform=Affine(10, 0, 5e5, 0, -10, 5e6)
    )
    with pytest.raises(OutputError, match=r"far\.tif shows none of the ground of s\.tif"):
        grid_like(far, SCENE, "s.tif")
    bare = write_scene_tif(tmp_path / "bare.tif", lopsided_scene(20, 10), crs=None)
    with pytest.raises(OutputError, match=r"bare\.tif has no CRS"):
        grid_like(bare, SCENE, "s.tif")
    with pytest.raises(OutputError, match=r"s\.npy has no CRS"):
        grid_like(far, MapGrid(3, 4), "s.npy")
    local = MapGrid(3, 4, rasterio.CRS.from_user_input(LOCAL_CRS), UTM_10M)
    with pytest.raises(
        OutputError, match=r"far\.tif has a CRS to which that of s\.tif cannot"
    ) as it:
        grid_like(far, local, "s.tif")
    assert "\n" not in str(it.value)
    (tmp_path / "text.tif").write_text("no raster")
    with pytest.raises(SceneError, match=r"text\.tif is no raster file"):
        grid_like(tmp_path / "text.tif", SCENE, "s.tif")
    with pytest.raises(SceneError, match=r"gone\.tif does not exist"):
        grid_like(tmp_path / "gone.tif", SCENE, "s.tif")


@pytest.mark.parametrize(("west", "shared"), [(179.0, True), (-180.0, True), (177.0, False)])
def test_grids_meet_across_the_antimeridian(west: float, shared: bool) -> None:
    """The scene reaches from 179.5 degrees east to 178.3 degrees west."""
    zone_60 = rasterio.CRS.from_epsg(32660)
    scene = MapGrid(60, 70, zone_60, Affine(1000, 0, 585_000, 0, -1000, 8.1e6))
    other = MapGrid(50, 50, DEGREES, Affine(0.02, 0, west, 0, -0.02, 72.99))
    assert other.overlaps(scene) is scene.overlaps(other) is shared


def test_a_frame_that_reaches_past_the_earth_is_not_refused() -> None:
    """What such a frame spans on another grid cannot be told from its corners."""
    whole = rasterio.CRS.from_user_input("+proj=geos +h=35785831 +lon_0=0 +sweep=y")
    disc = MapGrid(1200, 1200, whole, Affine(1e4, 0, -6e6, 0, -1e4, 6e6))
    africa = MapGrid(60, 60, UTM, Affine(1e4, 0, 399_960, 0, -1e4, 1.3e6))
    assert africa.overlaps(disc)
    assert disc.overlaps(africa)
