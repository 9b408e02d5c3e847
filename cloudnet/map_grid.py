"""Map grids: where the pixels of a product lie, and how large they are on the ground."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import rasterio
from numpy.typing import NDArray
from rasterio.errors import CRSError, NotGeoreferencedWarning, RasterioError
from rasterio.warp import transform, transform_bounds

from cloudnet.errors import OutputError, SceneError
from cloudnet.files import quiet
from cloudnet.georeference import pixel_sides_m, unit_m
from cloudnet.reading import gdal_errors
from cloudnet.scene import Scene

WGS84 = "EPSG:4326"

TURN = 360.0
"""Degrees around the Earth."""

SQUARE = 1e-6
"""Axes count as perpendicular where the cosine between them is at most this."""


@dataclass(frozen=True)
class MapGrid:
    """The grid of a raster.

    Attributes
    ----------
    rows, cols
        Size in pixels.
    crs, transform
        As rasterio gives them; None where the raster has none.
    """

    rows: int
    cols: int
    crs: Any = None
    transform: Any = None

    @classmethod
    def of(cls, scene: Scene) -> MapGrid:
        """Return the grid of a scene."""
        return cls(scene.rows, scene.cols, scene.crs, scene.transform)

    @property
    def unit_m(self) -> tuple[float, float] | None:
        """Length of a unit of x and of y in metres; None where the CRS does not tell.

        Of degrees at the grid's middle, on a sphere.
        """
        return unit_m(self.crs, self.transform, self.rows, self.cols)

    @property
    def pixel_m(self) -> tuple[float, float] | None:
        """Length of a pixel along its row, and along its column, in metres."""
        return pixel_sides_m(self.crs, self.transform, self.rows, self.cols)

    def require_pixel_m(self, option: str, name: str) -> tuple[float, float]:
        """Return `pixel_m` for an option that measures on the ground.

        Raises
        ------
        OutputError
            When the size is not known, or the grid is sheared.
        """
        if self.pixel_m is None or self.unit_m is None:
            raise OutputError(
                f"{name} has no georeference, so the size of its pixels is unknown; leave out "
                f"{option}, or give a scene with a CRS"
            )
        (east, north), t = self.unit_m, self.transform
        across, down = self.pixel_m
        if abs(t.a * t.b * east**2 + t.d * t.e * north**2) > SQUARE * across * down:
            raise OutputError(f"{name} has a sheared grid; warp it to a straight one for {option}")
        return across, down

    def pixel_area_m2(self) -> float | None:
        """Area of a pixel in square metres; None where it is unknown."""
        if self.unit_m is None:
            return None
        return abs(float(self.transform.determinant)) * self.unit_m[0] * self.unit_m[1]

    def overlaps(self, other: MapGrid) -> bool:
        """Tell whether the frames of two grids may share a part of the Earth.

        A frame that reaches past the Earth's edge, as those of geostationary pictures, may.
        """
        with gdal_errors():
            left, bottom, right, top = transform_bounds(other.crs, self.crs, *other.bounds)
        if not np.isfinite([left, bottom, right, top]).all():
            return True
        west, south, east, north = self.bounds
        turns = (-TURN, 0.0, TURN) if self.crs.is_geographic else (0.0,)
        right += TURN if right < left else 0.0  # it crosses the antimeridian
        beside = any(left + turn < east and right + turn > west for turn in turns)
        return bool(beside and bottom < north and top > south)

    def to_degrees(
        self, cols: Sequence[float], rows: Sequence[float]
    ) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Return longitudes and latitudes in WGS 84 of places in pixels.

        Raises
        ------
        OSError
            When the CRS does not tell them, or a place lies past the Earth's edge.
        """
        xs, ys = zip(*(self.at(col, row) for col, row in zip(cols, rows)))
        try:
            with gdal_errors():
                longitudes, latitudes = np.asarray(transform(self.crs, WGS84, xs, ys), dtype=float)
        except RasterioError as error:
            raise OSError(str(error)) from error
        if not (np.isfinite(longitudes).all() and np.isfinite(latitudes).all()):
            raise OSError("a place lies past the edge of the Earth")
        return longitudes, latitudes

    def at(self, col: float, row: float) -> tuple[float, float]:
        """Return x and y of a place in pixels; (0, 0) is the upper left corner of the grid."""
        t = self.transform
        return t.a * col + t.b * row + t.c, t.d * col + t.e * row + t.f

    @property
    def bounds(self) -> tuple[float, float, float, float]:
        """Left, bottom, right, top in units of the CRS."""
        xs, ys = zip(*(self.at(col, row) for col in (0, self.cols) for row in (0, self.rows)))
        return min(xs), min(ys), max(xs), max(ys)


def grid_like(path: Path, scene: MapGrid, name: str) -> MapGrid:
    """Return the grid of another file, for the products of a scene.

    Parameters
    ----------
    path
        A raster file with a CRS.
    scene, name
        The scene's grid, and the name by which errors call it.

    Raises
    ------
    OutputError
        When one of the two has no CRS, or they share no ground.
    SceneError
        When the file is no raster.
    """
    if not path.exists():
        raise SceneError(f"{path} does not exist; --like takes a raster file")
    try:
        with quiet(NotGeoreferencedWarning), rasterio.open(path) as file:
            grid = MapGrid(file.height, file.width, file.crs, file.transform)
    except RasterioError as error:
        raise SceneError(f"{path} is no raster file ({error}); --like takes one") from error
    for crs, file_name in ((grid.crs, str(path)), (scene.crs, name)):
        if crs is None:
            raise OutputError(f"{file_name} has no CRS; --like takes a scene and a file with one")
    try:
        overlap = grid.overlaps(scene)
    except (CRSError, RasterioError, OSError) as error:
        raise OutputError(f"{path} has a CRS to which that of {name} cannot be brought") from error
    if not overlap:
        raise OutputError(f"{path} shows none of the ground of {name}; give --like another file")
    return grid
