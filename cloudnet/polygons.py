"""Polygons: the clouds of a mask as a vector file, GeoPackage or GeoJSON."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import islice, pairwise
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import rasterio
from numpy.typing import NDArray
from rasterio.features import shapes
from rasterio.warp import transform_geom

from cloudnet.errors import OutputError, require
from cloudnet.georeference import METRES_PER_DEGREE
from cloudnet.layer import reading
from cloudnet.map_grid import WGS84, MapGrid
from cloudnet.spec import CLOUD

Ring: TypeAlias = NDArray[np.float64]
"""(points, 2): x and y, the first point again as the last."""

BATCH = 10_000
"""Polygons that are written at a time."""

DIGITS = 7
"""Of degrees in GeoJSON: a hundredth of a metre."""

POLYGON = 3
"""Number of the type in well-known binary (OGC 06-103r4, table 7)."""


@dataclass(frozen=True)
class Polygon:
    """A patch of cloud.

    Attributes
    ----------
    rings
        The outline, then the holes, in the CRS of the mask.
    area_m2
        On the ground; without the holes.
    """

    rings: tuple[Ring, ...]
    area_m2: float

    def to_wkb(self) -> bytes:
        """Return the well-known binary, little-endian."""
        head = np.array([POLYGON, len(self.rings)], "<u4").tobytes()
        parts = [
            np.uint32(len(ring)).astype("<u4").tobytes() + ring.astype("<f8").tobytes()
            for ring in self.rings
        ]
        return b"\x01" + head + b"".join(parts)


def write_polygons(mask: Path, path: Path, name: str) -> int:
    """Write the clouds of a mask, one polygon for pixels that share edges; return how many.

    Parameters
    ----------
    mask
        A layer or COG with a CRS.
    path
        `.gpkg`: in the mask's CRS, by the vector extra. `.geojson`: in longitude and latitude of
        WGS 84, as RFC 7946 asks for. Written in place.
    name
        Of the scene: the GeoPackage's table.

    Raises
    ------
    MissingExtraError
        When a GeoPackage is asked for and pyogrio is not installed.
    OSError
        When the file cannot be written.
    """
    with reading(mask) as file:
        grid = MapGrid(file.height, file.width, file.crs, file.transform)
        found = polygons_of(file, grid)
        write = _write_gpkg if path.suffix.lower() == ".gpkg" else _write_geojson
        return write(path, found, grid.crs, name)


def check_vector(path: Path, grid: MapGrid, name: str) -> None:
    """Raise, before any work, where a vector file could not be written.

    Raises
    ------
    OutputError
        When the grid of a scene of this name has no CRS, or none that the format can do with.
    MissingExtraError
        When pyogrio is not installed.
    """
    if grid.crs is None:
        raise OutputError(f"{name} has no CRS, which --vector needs; give a georeferenced scene")
    if path.suffix.lower() == ".gpkg":
        require("pyogrio", "vector")
        return
    try:
        grid.to_degrees([grid.cols / 2], [grid.rows / 2])
    except OSError as error:
        raise OutputError(
            f"{name} lies where no longitude and latitude tell it, which --vector geojson needs; "
            "give --vector gpkg"
        ) from error


def polygons_of(file: Any, grid: MapGrid) -> Iterator[Polygon]:
    """Trace the clouds of an open mask.

    GDAL reads it row by row, and keeps outlines, not pixels, in memory.
    """
    band = rasterio.band(file, 1)
    for shape, value in shapes(band, mask=band, connectivity=4, transform=grid.transform):
        if value == CLOUD:
            rings = tuple(np.asarray(ring, dtype=np.float64) for ring in shape["coordinates"])
            yield Polygon(rings, sum(_area(ring, grid) for ring in _signed(rings)))


def _signed(rings: tuple[Ring, ...]) -> Iterator[tuple[Ring, int]]:
    """Pair rings with 1 for the outline and -1 for holes."""
    return ((ring, -1 if index else 1) for index, ring in enumerate(rings))


def _area(signed: tuple[Ring, int], grid: MapGrid) -> float:
    """Return the area of a ring in square metres, times its sign.

    In degrees: of the ring on a sphere, each edge following a straight line on the equal-area
    cylinder (exact along parallels and meridians).
    """
    ring, sign = signed
    if grid.unit_m is None:
        return float("nan")
    x, y = ring[:, 0] - ring[0, 0], ring[:, 1]
    if grid.crs.is_geographic:
        radius_m = np.degrees(METRES_PER_DEGREE)
        x, y, unit = np.radians(x), np.sin(np.radians(y)), radius_m**2
    else:
        y, unit = y - y[0], grid.unit_m[0] * grid.unit_m[1]
    doubled = (x[:-1] * y[1:] - x[1:] * y[:-1]).sum()
    return float(sign * abs(doubled) / 2 * unit)


def _write_gpkg(path: Path, polygons: Iterable[Polygon], crs: Any, name: str) -> int:
    """Write batch by batch, so that the polygons are never there twice."""
    pyogrio = require("pyogrio", "vector")
    raw = require("pyogrio.raw", "vector")
    settings = {
        "layer": f"{name}_clouds",
        "driver": "GPKG",
        "geometry_type": "Polygon",
        "crs": crs.to_wkt(),
        "fields": np.array(["area_m2"], dtype=object),
    }
    written, rest = 0, iter(polygons)
    while True:
        batch = list(islice(rest, BATCH))
        if not batch and written:
            return written
        shapes_wkb = np.array([polygon.to_wkb() for polygon in batch], dtype=object)
        areas = np.array([polygon.area_m2 for polygon in batch], dtype=np.float64)
        try:
            raw.write(path, geometry=shapes_wkb, field_data=[areas], append=written > 0, **settings)
        except (pyogrio.errors.DataSourceError, pyogrio.errors.DataLayerError) as error:
            raise OSError(str(error)) from error
        if not batch:
            return 0
        written += len(batch)


def _write_geojson(path: Path, polygons: Iterable[Polygon], crs: Any, name: str) -> int:
    """Write a feature a line, as RFC 7946 has them."""
    written = 0
    with path.open("w", encoding="utf-8") as file:
        file.write('{"type": "FeatureCollection", "features": [')
        for polygon in polygons:
            file.write(",\n" if written else "\n")
            json.dump(_feature(polygon, crs), file, allow_nan=False)
            written += 1
        file.write("\n]}\n")
    return written


def _feature(polygon: Polygon, crs: Any) -> dict[str, Any]:
    flat = {"type": "Polygon", "coordinates": [ring.tolist() for ring in polygon.rings]}
    geometry = dict(transform_geom(crs, WGS84, flat, precision=DIGITS))
    parts = (
        geometry["coordinates"] if geometry["type"] == "MultiPolygon" else [geometry["coordinates"]]
    )
    turned = [[_wound(ring, index) for index, ring in enumerate(part)] for part in parts]
    geometry["coordinates"] = turned if geometry["type"] == "MultiPolygon" else turned[0]
    known = polygon.area_m2 == polygon.area_m2
    return {
        "type": "Feature",
        "geometry": geometry,
        "properties": {"area_m2": round(polygon.area_m2, 1) if known else None},
    }


def _wound(ring: list[Any], index: int) -> list[Any]:
    """Return an outline counterclockwise and a hole clockwise (RFC 7946, 3.1.6)."""
    doubled = sum(x0 * y1 - x1 * y0 for (x0, y0), (x1, y1) in pairwise(ring))
    return ring if (doubled > 0) == (index == 0) else ring[::-1]
