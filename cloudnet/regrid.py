"""Regrid: a layer is brought to another map grid, window by window."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from rasterio.enums import Resampling
from rasterio.errors import RasterioError
from rasterio.vrt import WarpedVRT

from cloudnet.layer import MASK, Slabs, as_rasterio, read_slabs, reading, slabs, write_slabs
from cloudnet.map_grid import MapGrid
from cloudnet.spec import NO_DATA

WARP_MB = 32
"""Memory of GDAL's warper; it works on a part of the layer that fits."""


def regrid(source: Path, target: Path, grid: MapGrid, mask: Path | None = None) -> None:
    """Bring a layer to another grid.

    A mask takes the nearest pixel. A probability is averaged where the new pixels are larger, and
    interpolated where they are not. What the layer does not cover is 255.

    Parameters
    ----------
    source, target
        The layer, and the one to be written.
    grid
        The new grid.
    mask
        Already on that grid: where it is 255, so is the layer. GDAL's average reaches a hair too
        far, so a probability would show a row more than its mask.

    Raises
    ------
    OSError
        When a file cannot be read or written, or the layer not be brought there.
    """
    parts = _warped(source, grid)
    write_slabs(target, grid, source, parts if mask is None else _within(parts, mask))


def _within(parts: Slabs, mask: Path) -> Slabs:
    for (window, values), (_, known) in zip(parts, read_slabs(mask)):
        values[known == NO_DATA] = NO_DATA
        yield window, values


def _warped(source: Path, grid: MapGrid) -> Slabs:
    with reading(source) as file:
        settings = {
            "crs": grid.crs,
            "transform": grid.transform,
            "width": grid.cols,
            "height": grid.rows,
            "src_nodata": NO_DATA,
            "nodata": NO_DATA,
            "resampling": _resampling(file, grid),
            "warp_mem_limit": WARP_MB,
        }
        try:
            with WarpedVRT(file, **settings) as warped:
                for window in slabs(grid.rows, grid.cols):
                    yield window, warped.read(1, window=as_rasterio(window))
        except RasterioError as error:
            raise OSError(f"the layer cannot be brought to the other grid: {error}") from error


def _resampling(file: Any, grid: MapGrid) -> Resampling:
    if file.descriptions[0] == MASK:
        return Resampling.nearest
    old = MapGrid(file.height, file.width, file.crs, file.transform).pixel_area_m2()
    new = grid.pixel_area_m2()
    coarser = old is not None and new is not None and new > old
    return Resampling.average if coarser else Resampling.bilinear
