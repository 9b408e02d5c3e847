"""Scenes whose bands lie in files of their own, as Sentinel-2 products and STAC items have them."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rasterio.windows import Window as RasterioWindow

from cloudnet.bands import Valid, as_number, nodata_values, not_nodata
from cloudnet.cells import CellReader
from cloudnet.cores import usable_cores
from cloudnet.errors import SceneError
from cloudnet.raster import find_mask, open_raster
from cloudnet.reading import SCALE_HINT, Reading, readable
from cloudnet.scene import Scene
from cloudnet.spec import BANDS
from cloudnet.tiles import Window

HAIR = 1e-6
"""A share of a pixel that is rounding: overviews of odd sizes have sides of 2.01 pixels or so."""

VOID_PX, SPREAD_PX = 1, 2
"""At half resolution: what no data is at least, around a pixel, and how far it reaches out."""


@dataclass(frozen=True)
class BandFile:
    """The file of one band and what is known of its numbers.

    Attributes
    ----------
    band
        Its name.
    label
        What the user knows it by: a path or an address.
    gdal_path
        What GDAL calls it.
    scale, offset
        reflectance = number x scale + offset; None: the file tells, or nobody.
    nodata
        The number that stands for no data; None: the file tells, or nobody.
    """

    band: str
    label: str
    gdal_path: str
    scale: float | None = None
    offset: float | None = None
    nodata: float | None = None


class BandFilesScene(Scene):
    """Four band files on one grid, read and decoded side by side; for one thread at a time.

    Parameters
    ----------
    path
        What the scene is known by.
    files
        Of red, green, blue and NIR.
    reading
        What they do not tell.
    level, baseline
        As in `Scene`.
    """

    def __init__(
        self,
        path: str | Path,
        files: Sequence[BandFile],
        reading: Reading,
        level: str | None = None,
        baseline: str | None = None,
    ) -> None:
        self.path = path
        self.level, self.baseline = level, baseline
        self.band_names = tuple(file.band for file in files)
        self.band_numbers = tuple(range(1, len(BANDS) + 1))
        self._files = files
        with ExitStack() as opened:
            rasters, overviews = [], []
            for file in files:
                raster, overview = open_raster(
                    file.label, file.gdal_path, reading.resolution_m, halve=True, images_only=True
                )
                rasters.append(opened.enter_context(raster))
                overviews.append(opened.enter_context(overview))
            self._describe(rasters, overviews[0], reading)
            self._smoothed = overviews[0] is not rasters[0]
            self._rasters = rasters
            self._masks = [find_mask(raster, [0]) for raster in rasters]
            pixel = ~rasters[0].transform @ overviews[0].transform
            self._steps = (pixel.a, pixel.e)
            self._opened = opened.pop_all()
        threads = max(usable_cores() // len(BANDS), 1)
        # What is smoothed is read with a halo, see `_numbers`.
        kept_rows = 2 if self._smoothed else 1
        self._readers = [CellReader(overview, threads, kept_rows) for overview in overviews]
        self._workers = ThreadPoolExecutor(len(BANDS), thread_name_prefix="band")

    def _describe(self, rasters: Sequence[Any], overview: Any, reading: Reading) -> None:
        first = rasters[0]
        for band_file, raster in zip(self._files, rasters):
            _check_grid(self._files[0], first, band_file, raster)
        self.rows, self.cols = overview.shape
        self.crs = first.crs
        placed = first.crs is not None or not first.transform.is_identity
        self.transform = overview.transform if placed else None
        self.dtype = np.result_type(*(raster.dtypes[0] for raster in rasters))
        nodata = [
            raster.nodata if file.nodata is None else file.nodata
            for file, raster in zip(self._files, rasters)
        ]
        self._nodata = nodata_values(nodata, reading.nodata)
        told = [_scaling(file, raster, reading) for file, raster in zip(self._files, rasters)]
        scale, offset = np.array(told, dtype=float).T
        self._set_scaling(reading, scale, offset)

    def _numbers(self, window: Window) -> tuple[NDArray[Any], Valid]:
        if not self._smoothed or self._nodata is None:
            numbers, known = self._decode(window)
            return numbers, known & not_nodata(numbers, self._nodata)
        outer = grown(window, 2 * VOID_PX + SPREAD_PX).clip(self.rows, self.cols)
        numbers, known = self._decode(outer)
        valid = known & not_smoothed(numbers, self._nodata)
        inner = window.within(outer).slices
        return np.ascontiguousarray(numbers[(slice(None), *inner)]), valid[inner].copy()

    def _decode(self, window: Window) -> tuple[NDArray[Any], Valid]:
        """Return the numbers (4, rows, cols) of a window, each band in a thread of its own.

        With them, what the files' masks leave in all bands.
        """
        numbers = np.empty((len(BANDS), window.rows, window.cols), dtype=self.dtype)
        known = np.ones(numbers.shape[1:], dtype=bool)
        jobs = [self._workers.submit(self._decode_band, i, window, numbers[i]) for i in range(4)]
        for job in jobs:
            if (left := job.result()) is not None:
                known &= left
        return numbers, known

    def _decode_band(self, index: int, window: Window, out: NDArray[Any]) -> Valid | None:
        with readable(self._files[index].label):
            self._readers[index].read(window, out)
            return self._unmasked(index, window)

    def _unmasked(self, index: int, window: Window) -> Valid | None:
        """Return where the mask of a band's file leaves a window; None where it has none.

        At half resolution: where it leaves all the pixels that one is made of.
        """
        raster, band = self._rasters[index], self._masks[index]
        if band is None:
            return None
        across, down = self._steps
        rows = _cells(window.row, window.rows, down, raster.height)
        cols = _cells(window.col, window.cols, across, raster.width)
        place = RasterioWindow.from_slices((rows[0][0], rows[1][-1]), (cols[0][0], cols[1][-1]))
        mask = raster.read(band, window=place) if band else raster.read_masks(1, window=place)
        masked = mask == 0
        for axis, (starts, ends) in enumerate((rows, cols)):
            counts = np.insert(masked.cumsum(axis=axis, dtype=np.int32), 0, 0, axis=axis)
            begins, stops = starts - starts[0], ends - starts[0]
            masked = counts.take(stops, axis) > counts.take(begins, axis)
        return np.asarray(~masked)

    @property
    def kept_bytes(self) -> int:
        """The most that is kept of what was decoded, of the four bands together."""
        return sum(reader.kept_bytes for reader in self._readers)

    def close(self) -> None:
        self._workers.shutdown()
        for reader in self._readers:
            reader.forget()
        self._opened.close()


def not_smoothed(numbers: NDArray[Any], nodata: NDArray[np.float64]) -> Valid:
    """Return where numbers (bands, rows, cols) decoded at half resolution are of valid pixels only.

    The low-pass filter of JPEG 2000 (ISO/IEC 15444-1, annex F) reaches two pixels out, and an
    overview of a file that does not name its no data takes means over it, so that
    numbers beside no data are mixed with it, and a dark number beside a bright one may come out
    as 0. No data in earnest is therefore told by 3 x 3 pixels of a band that all have its value,
    and its surroundings are left out with it.
    """
    void = np.zeros(numbers.shape[1:], dtype=bool)
    for band, value in zip(numbers, nodata):
        same = as_number(value, numbers.dtype)
        if same is not None and (here := band == same).any():
            void |= ~spread(~here, VOID_PX)
    return ~spread(void, VOID_PX + SPREAD_PX) if void.any() else ~void


def spread(mask: NDArray[np.bool_], px: int) -> NDArray[np.bool_]:
    """Return a mask (rows, cols) grown by a square of `px` pixels to each side."""
    for axis in (0, 1):
        source = np.moveaxis(mask, axis, 0)
        mask = mask.copy()
        target = np.moveaxis(mask, axis, 0)
        for step in range(1, px + 1):
            target[step:] |= source[:-step]
            target[:-step] |= source[step:]
    return mask


def grown(window: Window, px: int) -> Window:
    """Return a window with `px` more pixels on each side."""
    return Window(window.row - px, window.col - px, window.rows + 2 * px, window.cols + 2 * px)


def _cells(
    first: int, count: int, step: float, length: int
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return starts and ends, in pixels of a file, of pixels that are `step` as large."""
    edges = np.arange(first, first + count + 1) * step
    starts = np.floor(edges[:-1] + HAIR).astype(np.int64)
    ends = np.ceil(edges[1:] - HAIR).astype(np.int64)
    return starts, np.minimum(ends, length)


def _check_grid(one: BandFile, first: Any, other: BandFile, raster: Any) -> None:
    """Raise SceneError unless a band has one layer, or an alpha band too, and the first's grid."""
    if raster.count - bool(find_mask(raster, [0])) != 1:
        raise SceneError(
            f"{other.label} holds {raster.count} bands where {other.band} alone is due"
        )
    if "complex" in raster.dtypes[0]:
        raise SceneError(f"{other.label} holds complex numbers; a scene holds real ones")
    if raster.shape != first.shape:
        sizes = [f"{rows} x {cols} pixels" for rows, cols in (raster.shape, first.shape)]
        raise SceneError(
            f"{other.label} has {sizes[0]} where {one.band} has {sizes[1]}; "
            "get the product again, or give files of one size"
        )
    if raster.crs != first.crs or not np.allclose(raster.transform, first.transform, rtol=1e-9):
        raise SceneError(f"{other.label} lies elsewhere than {one.label}; give bands of one place")


def _scaling(file: BandFile, raster: Any, reading: Reading) -> tuple[float, float]:
    """Return scale and offset, of which two sources may not tell different things."""
    own = (raster.scales[0], raster.offsets[0])
    told = (
        own[0] if file.scale is None else file.scale,
        own[1] if file.offset is None else file.offset,
    )
    asked = reading.scale is None or reading.offset is None
    if asked and own != (1.0, 0.0) and not np.allclose(own, told, rtol=1e-6, atol=1e-9):
        raise SceneError(
            f"{file.label} says scale {own[0]:g}, offset {own[1]:g}, and its metadata say scale "
            f"{told[0]:g}, offset {told[1]:g}; {SCALE_HINT}"
        )
    return told
