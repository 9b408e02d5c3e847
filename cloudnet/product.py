"""Map products: masks and probabilities as GeoTIFF, written slab by slab, and their JSON."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import rasterio
from numpy.typing import NDArray
from rasterio._err import CPLE_BaseError  # the base of what build_overviews raises, nowhere public
from rasterio.enums import Resampling
from rasterio.errors import NotGeoreferencedWarning
from rasterio.windows import Window as RasterioWindow

from cloudnet.files import quiet
from cloudnet.scene import Scene
from cloudnet.spec import CLEAR, CLOUD, NO_DATA
from cloudnet.tiles import Window

Layer: TypeAlias = NDArray[np.uint8]

BLOCK_PX = 256
SMALLEST_OVERVIEW_PX = 256
PERCENT = 100
"""Probability is kept as whole per cent; the file's scale says 0.01."""

MASK_COLOURS = {
    CLEAR: (0, 0, 0, 0),
    CLOUD: (255, 255, 255, 255),
    NO_DATA: (128, 128, 128, 0),
}


@dataclass(frozen=True)
class Outputs:
    """Where the products of one scene go.

    Attributes
    ----------
    folder, name
        The files are `folder/name_cloudmask.tif` and so on.
    """

    folder: Path
    name: str

    @property
    def mask(self) -> Path:
        """GeoTIFF, uint8: 0 clear, 1 cloud, 255 no data."""
        return self.folder / f"{self.name}_cloudmask.tif"

    @property
    def probability(self) -> Path:
        """GeoTIFF, uint8: 0 to 100 per cent, 255 no data."""
        return self.folder / f"{self.name}_cloudprobability.tif"

    @property
    def quicklook(self) -> Path:
        """PNG: true colour with the mask's outline."""
        return self.folder / f"{self.name}_quicklook.png"

    @property
    def summary(self) -> Path:
        """JSON: cloud share, model, threshold, comparison."""
        return self.folder / f"{self.name}_cloudmask.json"

    def wanted(self, *, probability: bool, quicklook: bool) -> dict[str, Path]:
        """Return the files to be made by what they are: mask first, summary last."""
        files = {"mask": self.mask}
        files |= {"probability": self.probability} if probability else {}
        files |= {"quicklook": self.quicklook} if quicklook else {}
        return {**files, "summary": self.summary}


class LayerWriter:
    """Writes one layer of a scene's grid window by window. Made by `open_layer`."""

    def __init__(self, file: Any) -> None:
        self._file = file

    def write(self, window: Window, values: Layer) -> None:
        """Write (rows, cols) uint8 to a window."""
        place = RasterioWindow(window.col, window.row, window.cols, window.rows)
        self._file.write(values, 1, window=place)


@contextmanager
def open_layer(path: Path, scene: Scene, kind: str, tags: dict[str, str]) -> Iterator[LayerWriter]:
    """Open a layer on a scene's grid for writing; it is finished and read back as the block ends.

    Parameters
    ----------
    path
        The GeoTIFF: deflate, tiled, with overviews (nearest for a mask, average for probability).
        It is written in place, so give the temporary path of `files.whole_file`.
    scene
        Gives size, CRS and transform.
    kind
        "cloud mask" or "cloud probability".
    tags
        Written into the file.

    Raises
    ------
    OSError
        When it cannot be written.
    """
    is_mask = kind == "cloud mask"
    profile: dict[str, Any] = {
        "driver": "GTiff",
        "dtype": "uint8",
        "count": 1,
        "width": scene.cols,
        "height": scene.rows,
        "nodata": NO_DATA,
        "compress": "deflate",
        "tiled": True,
        "blockxsize": BLOCK_PX,
        "blockysize": BLOCK_PX,
        "bigtiff": "if_safer",
    }
    if scene.crs is not None:
        profile["crs"] = scene.crs
    if scene.transform is not None:
        profile["transform"] = scene.transform
    with _gdal_errors(), quiet(NotGeoreferencedWarning):
        with rasterio.open(path, "w", **profile) as file:
            file.set_band_description(1, kind)
            file.update_tags(**tags)
            if is_mask:
                file.write_colormap(1, MASK_COLOURS)
            else:
                file.scales = (1.0 / PERCENT,)
                file.units = ("1",)
            yield LayerWriter(file)
        _add_overviews(path, Resampling.nearest if is_mask else Resampling.average)


def _add_overviews(path: Path, resampling: Resampling) -> None:
    """Add overviews to a finished layer and read it back: GDAL closes a cut-off file in silence."""
    # Told the driver, rasterio raises an OSError of a file too short to be recognised.
    with rasterio.open(path, "r+", driver="GTiff") as file:
        if factors := overview_factors(file.height, file.width):
            file.build_overviews(factors, resampling)
    with rasterio.open(path) as file:
        for row in range(0, file.height, BLOCK_PX):
            file.read(1, window=RasterioWindow(0, row, file.width, BLOCK_PX))
        for factor in factors:
            file.read(1, out_shape=(-(-file.height // factor), -(-file.width // factor)))


@contextmanager
def _gdal_errors() -> Iterator[None]:
    """Turn GDAL's errors, some of which rasterio passes on as they are, into an OSError."""
    try:
        yield
    except CPLE_BaseError as error:
        raise OSError(error.errmsg) from error


def overview_factors(rows: int, cols: int) -> list[int]:
    """Return the powers of two by which a layer is reduced until it fits one block."""
    factors = []
    factor = 2
    while max(rows, cols) * 2 > SMALLEST_OVERVIEW_PX * factor:
        factors.append(factor)
        factor *= 2
    return factors


def to_percent(probability: NDArray[np.float32]) -> Layer:
    """Return probability (rows, cols) as whole per cent, 255 where it is NaN."""
    percent = np.full(probability.shape, NO_DATA, dtype=np.uint8)
    known = ~np.isnan(probability)
    percent[known] = np.round(probability[known] * PERCENT).astype(np.uint8)
    return percent


def write_summary(path: Path, summary: dict[str, Any]) -> None:
    """Write the summary of a scene as JSON, in place."""
    path.write_text(json.dumps(summary, indent=2, allow_nan=False) + "\n", encoding="utf-8")
