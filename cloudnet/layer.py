"""Layers: masks and probabilities while they are made, a slab of rows at a time."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import rasterio
from numpy.typing import NDArray
from rasterio.errors import NotGeoreferencedWarning
from rasterio.windows import Window as RasterioWindow

from cloudnet.files import quiet
from cloudnet.map_grid import MapGrid
from cloudnet.reading import gdal_errors
from cloudnet.spec import CLEAR, CLOUD, NO_DATA
from cloudnet.tiles import Window

Layer: TypeAlias = NDArray[np.uint8]
Slabs: TypeAlias = Iterator[tuple[Window, Layer]]

MASK, PROBABILITY = "cloud mask", "cloud probability"
"""The two kinds of layer, as their bands are described."""

BLOCK_PX = 256
SLAB_PX = 2**22
"""Pixels that are worked on at a time: the memory of a layer does not grow with its rows."""

PERCENT = 100
"""Probability is kept as whole per cent; the file's scale says 0.01."""

MASK_COLOURS = {
    CLEAR: (0, 0, 0, 0),
    CLOUD: (255, 255, 255, 255),
    NO_DATA: (128, 128, 128, 0),
}

SCRATCH = {
    "driver": "GTiff",
    "dtype": "uint8",
    "count": 1,
    "nodata": NO_DATA,
    "compress": "deflate",
    "zlevel": 1,
    "tiled": True,
    "blockxsize": BLOCK_PX,
    "blockysize": BLOCK_PX,
    "bigtiff": "if_safer",
}
"""Layers on their way are compressed as fast as can be, which costs less than a larger file."""


class LayerWriter:
    """Writes one layer of a grid window by window. Made by `open_layer`."""

    def __init__(self, file: Any) -> None:
        self._file = file

    def write(self, window: Window, values: Layer) -> None:
        """Write (rows, cols) uint8 to a window."""
        self._file.write(values, 1, window=as_rasterio(window))


@contextmanager
def open_layer(
    path: Path, grid: MapGrid, kind: str, tags: Mapping[str, str]
) -> Iterator[LayerWriter]:
    """Open a layer for writing; `cog.publish_layer` makes a product of it.

    Parameters
    ----------
    path
        A GeoTIFF, written in place.
    grid
        Gives size, CRS and transform.
    kind
        `MASK` or `PROBABILITY`.
    tags
        Written into the file.

    Raises
    ------
    OSError
        When it cannot be written.
    """
    placed = {"crs": grid.crs, "transform": grid.transform}
    profile = SCRATCH | {key: value for key, value in placed.items() if value is not None}
    with (
        gdal_errors(),
        quiet(NotGeoreferencedWarning),
        rasterio.open(path, "w", width=grid.cols, height=grid.rows, **profile) as file,
    ):
        file.set_band_description(1, kind)
        file.update_tags(**tags)
        if kind == MASK:
            file.write_colormap(1, MASK_COLOURS)
        else:
            file.scales = (1.0 / PERCENT,)
            file.units = ("1",)
        yield LayerWriter(file)


@contextmanager
def reading(path: Path) -> Iterator[Any]:
    """Open a layer for reading with rasterio."""
    with gdal_errors(), quiet(NotGeoreferencedWarning), rasterio.open(path) as file:
        yield file


def slabs(rows: int, cols: int) -> Iterator[Window]:
    """Cut a layer into slabs of whole rows, and of whole blocks where there are several."""
    height = max(SLAB_PX // cols // BLOCK_PX, 1) * BLOCK_PX
    for row in range(0, rows, height):
        yield Window(row, 0, min(height, rows - row), cols)


def read_slabs(path: Path) -> Slabs:
    """Read a layer slab by slab."""
    with reading(path) as file:
        for window in slabs(file.height, file.width):
            yield window, file.read(1, window=as_rasterio(window))


def write_slabs(
    path: Path, grid: MapGrid, source: Path, parts: Iterable[tuple[Window, Layer]]
) -> None:
    """Write a layer of the kind, and with the tags, of `source`."""
    with reading(source) as file:
        kind, tags = file.descriptions[0], file.tags()
    tags.pop("AREA_OR_POINT", None)
    with open_layer(path, grid, kind, tags) as layer:
        for window, values in parts:
            layer.write(window, values)


def as_rasterio(window: Window) -> RasterioWindow:
    """Return a window as rasterio writes it."""
    return RasterioWindow(window.col, window.row, window.cols, window.rows)
