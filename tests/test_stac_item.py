"""STAC items: valid, with the geometry, the share and the sums that are true."""

from __future__ import annotations

import hashlib
import json
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
from rasterio.transform import Affine

from cloudnet.errors import OutputError
from cloudnet.map_grid import MapGrid
from cloudnet.stac_item import EXTENSIONS, footprint, in_utc, make_item
from tests.helpers import LOCAL_CRS, UTM_10M

GRID = MapGrid(10980, 10980, rasterio.CRS.from_epsg(32633), UTM_10M)
SUMMARY = {
    "cloud_share": 0.25,
    "level": "L2A",
    "threshold": 0.5,
    "model": {"name": "s2-rgbn", "version": "1.0.0", "sha256": "ab"},
}
GEOSTATIONARY = "+proj=geos +h=35785831 +lon_0=0 +sweep=y"
TAKEN = datetime(2024, 5, 1, 12, 30, tzinfo=timezone(timedelta(hours=2)))


@pytest.fixture
def item(tmp_path: Path) -> dict[str, Any]:
    names = {
        "mask": "a_cloudmask.tif",
        "probability": "a_cloudprobability.tif",
        "quicklook": "a_quicklook.png",
        "vector": "a_clouds.gpkg",
        "summary": "a_cloudmask.json",
    }
    files = {}
    for kind, name in names.items():
        scratch = tmp_path / f".{name}.part"
        scratch.write_text(kind)
        files[kind] = (tmp_path / name, scratch)
    return make_item("a", GRID, TAKEN, files, SUMMARY, tmp_path)


def test_pystac_takes_it(item: dict[str, Any]) -> None:
    """With the core's schemas, which pystac has on disk; those of extensions it would fetch."""
    pystac = pytest.importorskip("pystac", reason="the test extra is not installed")
    pytest.importorskip("jsonschema", reason="the test extra is not installed")
    item = json.loads(json.dumps(item))
    pystac.Item.from_dict({**item, "stac_extensions": []}).validate()
    bad = {**item, "stac_extensions": []}
    bad["properties"] = {**item["properties"], "gsd": "wide"}
    with pytest.raises(pystac.STACValidationError):
        pystac.Item.from_dict(bad).validate()


def test_its_fields_are_those_of_the_extensions(item: dict[str, Any]) -> None:
    properties, mask = item["properties"], item["assets"]["mask"]
    assert item["stac_extensions"] == list(EXTENSIONS)
    assert properties["datetime"] == "2024-05-01T10:30:00Z"
    assert properties["eo:cloud_cover"] == 25.0
    assert properties["proj:code"] == "EPSG:32633"
    assert properties["proj:shape"] == [10980, 10980]
    assert properties["proj:transform"] == [10.0, 0.0, 399960.0, 0.0, -10.0, 5300040.0]
    assert properties["processing:level"] == "L2A"
    assert properties["processing:software"]["s2-rgbn"] == "1.0.0"
    assert mask["href"] == "./a_cloudmask.tif"
    assert mask["file:checksum"] == "1220" + hashlib.sha256(b"mask").hexdigest()
    assert mask["file:size"] == 4
    assert (mask["data_type"], mask["nodata"]) == ("uint8", 255)
    assert mask["raster:spatial_resolution"] == 10.0
    assert [one["value"] for one in mask["classification:classes"]] == [0, 1, 255]
    assert mask["classification:classes"][2]["nodata"] is True
    assert item["assets"]["probability"]["raster:scale"] == 0.01


def test_no_valid_pixel_is_no_cloud_cover() -> None:
    summary = {**SUMMARY, "cloud_share": None, "level": None}
    item = make_item("a", GRID, TAKEN, {}, summary, Path())
    assert "eo:cloud_cover" not in item["properties"]
    assert "processing:level" not in item["properties"]


def test_the_footprint_is_closed_counterclockwise_and_follows_the_edge() -> None:
    ring = np.array(footprint(GRID, "a"))
    assert ring[0].tolist() == ring[-1].tolist()
    x, y = (ring - ring[0]).T
    assert (x[:-1] * y[1:] - x[1:] * y[:-1]).sum() > 0
    assert len(ring) > 30
    back = rasterio.warp.transform("EPSG:4326", GRID.crs, *ring.T)
    off = np.min(
        [np.abs(np.array(back[0]) - at) for at in (GRID.bounds[0], GRID.bounds[2])]
        + [np.abs(np.array(back[1]) - at) for at in (GRID.bounds[1], GRID.bounds[3])],
        axis=0,
    )
    assert off.max() < 0.05


def test_a_footprint_over_the_antimeridian_does_not_girdle_the_earth() -> None:
    grid = MapGrid(1000, 3000, rasterio.CRS.from_epsg(32701), Affine(10, 0, 2e5, 0, -10, 8e6))
    ring = np.array(footprint(grid, "a"))
    assert np.ptp(ring[:, 0]) < 1.0


def test_a_rotated_grid_has_a_rotated_footprint() -> None:
    grid = MapGrid(100, 100, rasterio.CRS.from_epsg(4326), Affine.rotation(45) @ Affine.scale(0.1))
    ring = np.array(footprint(grid, "a"))
    assert np.ptp(ring[:, 0]) == pytest.approx(10 * 2**0.5)


def test_times_are_in_utc() -> None:
    assert in_utc(datetime(2024, 5, 1, 10, 30)) == "2024-05-01T10:30:00Z"
    assert in_utc(datetime(2024, 5, 1, 10, 30, 1, 250_000, UTC)) == "2024-05-01T10:30:01.250000Z"


def test_a_scene_without_crs_has_no_item() -> None:
    with pytest.raises(OutputError, match=r"a\.npy has no CRS, which --stac needs"):
        footprint(MapGrid(3, 4, None, UTM_10M), "a.npy")


@pytest.mark.parametrize("crs", [LOCAL_CRS, GEOSTATIONARY])
def test_an_outline_that_degrees_cannot_tell_is_one_sentence(crs: str) -> None:
    grid = MapGrid(60, 70, rasterio.CRS.from_user_input(crs), Affine(2e5, 0, -6e6, 0, -2e5, 6e6))
    with pytest.raises(OutputError, match=r"a\.tif has an outline .* --stac needs; leave it out"):
        footprint(grid, "a.tif")


def test_a_file_elsewhere_is_found_from_the_item(tmp_path: Path) -> None:
    file = tmp_path / "else" / "c.geojson"
    file.parent.mkdir()
    file.touch()
    item = make_item("a", GRID, TAKEN, {"vector": (file, file)}, SUMMARY, tmp_path / "out")
    assert item["assets"]["vector"]["href"] == "../else/c.geojson"
