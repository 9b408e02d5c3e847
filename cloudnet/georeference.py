"""Where a scene lies and how large its pixels are."""

from __future__ import annotations

from math import cos, hypot, radians
from typing import Any

from cloudnet.errors import SceneError

METRES_PER_DEGREE = 111_320.0
"""Length of a degree of latitude on a sphere of the Earth's mean radius."""

SAME_SIZE = 0.01
"""Pixels whose sides differ by a smaller share are of one size."""


def pixel_size_m(crs: Any, transform: Any, rows: int, cols: int) -> float | None:
    """Return the side of a pixel in metres, the mean of both axes; None without georeferencing.

    Parameters
    ----------
    crs, transform
        As rasterio gives them; None where there are none.
    rows, cols
        Size of the scene: in degrees, a pixel is as wide as it is at the scene's middle.
    """
    sides = pixel_sides_m(crs, transform, rows, cols)
    return None if sides is None else sum(sides) / 2


def pixel_sides_m(crs: Any, transform: Any, rows: int, cols: int) -> tuple[float, float] | None:
    """Return the length of a pixel along its row and along its column, as `pixel_size_m`."""
    unit = unit_m(crs, transform, rows, cols)
    if unit is None:
        return None
    (east, north), t = unit, transform
    return hypot(t.a * east, t.d * north), hypot(t.b * east, t.e * north)


def unit_m(crs: Any, transform: Any, rows: int, cols: int) -> tuple[float, float] | None:
    """Return the length of a unit of x and of y in metres, of degrees at the scene's middle."""
    if crs is None or transform is None:
        return None
    if crs.is_geographic:
        latitude = transform.f + (transform.d * cols + transform.e * rows) / 2
        return METRES_PER_DEGREE * cos(radians(latitude)), METRES_PER_DEGREE
    if crs.is_projected:
        metres = float(crs.linear_units_factor[1])
        return metres, metres
    return None


FILE_ITSELF = -1
"""The level of a file that is read as it is."""


def overview_level(name: object, file: Any, resolution_m: int | None, *, halve: bool) -> int | None:
    """Return the overview of an open raster file to be read for a resolution.

    `FILE_ITSELF` where it has the resolution; None, with `halve`, where its pixels are half as
    large and it has no such overview, as JPEG 2000 files of less than 256 pixels.

    Of a JPEG 2000 file an overview is what its wavelets give at half the resolution, at a quarter
    of the decoding.

    Raises
    ------
    SceneError
        When its pixels are of another size, or of one that is not known.
    """
    if resolution_m is None:
        return FILE_ITSELF
    pixel_m = pixel_size_m(file.crs, file.transform, file.height, file.width)
    if pixel_m is None:
        raise SceneError(f"{name} does not tell how large its pixels are; leave --resolution out")
    factors = [1, *file.overviews(1)]
    for level, factor in enumerate(factors):
        if abs(pixel_m * factor / resolution_m - 1) < SAME_SIZE:
            return level - 1
    if halve and abs(2 * pixel_m / resolution_m - 1) < SAME_SIZE:
        return None
    sizes = ", ".join(f"{pixel_m * factor:.4g}" for factor in factors)
    raise SceneError(
        f"{name} can be decoded at {sizes} m, not at {resolution_m} m; give another --resolution "
        "or none"
    )
