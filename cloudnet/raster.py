"""Scenes in one file that GDAL reads: GeoTIFF in the first place, also cloud-optimised ones."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import rasterio
from numpy.typing import NDArray
from rasterio.enums import ColorInterp, MaskFlags, Resampling
from rasterio.errors import NotGeoreferencedWarning
from rasterio.transform import Affine
from rasterio.vrt import WarpedVRT
from rasterio.windows import Window as RasterioWindow

from cloudnet.bands import Valid, find_bands, nodata_values, not_nodata
from cloudnet.errors import SceneError
from cloudnet.files import quiet
from cloudnet.georeference import FILE_ITSELF, overview_level
from cloudnet.reading import Reading, readable
from cloudnet.scene import Scene
from cloudnet.spec import LEVELS
from cloudnet.tiles import Window

IMAGES = ("GTiff", "JP2", "JPEG2000")
"""GDAL's drivers of files that hold all their pixels; JPEG 2000 has several, JP2OpenJPEG first."""


TOLD_LEVELS = {f"Level-{level[1:]}": level for level in LEVELS} | {level: level for level in LEVELS}
"""By what GDAL's driver of Sentinel-2 products, and our own layers, call them in a file's tags."""


class RasterScene(Scene):
    """A raster file that GDAL reads, open until closed; for one thread at a time.

    Parameters
    ----------
    path
        The file or the address.
    reading
        What it does not tell.
    gdal_path
        What GDAL calls it, where it lies elsewhere; None: a path, which is of any kind of GDAL's.
    """

    def __init__(self, path: str | Path, reading: Reading, gdal_path: str | None = None) -> None:
        self.path = path
        file, self._file = open_raster(
            path, gdal_path or path, reading.resolution_m, images_only=gdal_path is not None
        )
        try:
            with readable(path):
                self._describe(file, reading)
        except BaseException:
            self.close()
            raise
        finally:
            if file is not self._file:
                file.close()

    def _describe(self, source: Any, reading: Reading) -> None:
        self.rows, self.cols = self._file.shape
        self.crs = source.crs
        placed = source.crs is not None or not source.transform.is_identity
        self.transform = self._file.transform if placed else None
        self.level = TOLD_LEVELS.get(source.tags().get("PROCESSING_LEVEL", ""))
        names = [name or "" for name in source.descriptions]
        self.band_numbers = find_bands(self.path, names, source.count, reading.bands)
        chosen = [number - 1 for number in self.band_numbers]
        self.band_names = tuple(names[index] for index in chosen)
        kinds = {source.dtypes[index] for index in chosen}
        if any("complex" in kind for kind in kinds):
            raise SceneError(f"{self.path} holds complex numbers; a scene holds real ones")
        self.dtype = np.result_type(*kinds)
        self._nodata = nodata_values([source.nodatavals[index] for index in chosen], reading.nodata)
        self._mask_band = find_mask(source, chosen)
        scales = np.array([source.scales[index] for index in chosen])
        offsets = np.array([source.offsets[index] for index in chosen])
        self._set_scaling(reading, scales, offsets)

    def _numbers(self, window: Window) -> tuple[NDArray[Any], Valid]:
        part = RasterioWindow(window.col, window.row, window.cols, window.rows)
        numbers = self._file.read(self.band_numbers, window=part)
        valid = not_nodata(numbers, self._nodata)
        if self._mask_band == 0:
            valid &= self._file.read_masks(self.band_numbers[0], window=part) != 0
        elif self._mask_band is not None:
            valid &= self._file.read(self._mask_band, window=part) != 0
        return numbers, valid

    def close(self) -> None:
        self._file.close()


def find_mask(source: Any, chosen: Sequence[int]) -> int | None:
    """Return the number of the alpha band, 0 for a mask beside the bands, None for neither.

    GDAL's own masks would not do: it gives one of nodata, mask and alpha and drops the others,
    sees no alpha band among five, and takes the fourth of four uint8 bands, our NIR, for one.
    """
    for index, meaning in enumerate(source.colorinterp):
        if meaning == ColorInterp.alpha and index not in chosen:
            return index + 1
    flags = source.mask_flag_enums[chosen[0]]
    return 0 if MaskFlags.per_dataset in flags and MaskFlags.alpha not in flags else None


def open_raster(
    name: str | Path,
    gdal_path: str | Path,
    resolution_m: int | None,
    *,
    halve: bool = False,
    images_only: bool = False,
) -> tuple[Any, Any]:
    """Open a raster file, and what has its pixels at a resolution, which may be the file itself.

    Else it is an overview, or, with `halve` and where there is none, a view that takes the mean of
    four pixels. Both have pixels and a grid; what else there is to know of them, the file tells.

    With `images_only` it is a GeoTIFF or JPEG 2000: what comes from elsewhere may not be of a kind,
    such as GDAL's VRT, that takes its pixels from any other file of this machine.

    Raises
    ------
    SceneError
        When it is none, or cannot be read at this resolution.
    """
    with readable(name), quiet(NotGeoreferencedWarning):
        file = rasterio.open(gdal_path)
        try:
            if images_only and not file.driver.startswith(IMAGES):
                raise SceneError(
                    f"{name} is of GDAL's kind {file.driver}; a GeoTIFF or JPEG 2000 is due there"
                )
            level = overview_level(name, file, resolution_m, halve=halve)
            if level is None:
                return file, _halved(file)
            if level == FILE_ITSELF:
                return file, file
            return file, rasterio.open(gdal_path, OVERVIEW_LEVEL=level)
        except BaseException:
            file.close()
            raise


def _halved(file: Any) -> Any:
    """Return a view of a file on a grid half as fine, each pixel the mean of four."""
    rows, cols = (-(-side // 2) for side in file.shape)
    a, b, c, d, e, f = file.transform[:6]
    grid = Affine(2 * a, 2 * b, c, 2 * d, 2 * e, f)
    return WarpedVRT(file, transform=grid, height=rows, width=cols, resampling=Resampling.average)
