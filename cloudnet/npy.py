"""Scenes in `.npy` arrays."""

from __future__ import annotations

from pathlib import Path
from threading import Lock
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cloudnet.bands import Valid, find_bands, nodata_values, not_nodata
from cloudnet.errors import SceneError
from cloudnet.reading import Reading, readable
from cloudnet.scene import Scene
from cloudnet.spec import BANDS, CATALOGUE_BANDS
from cloudnet.tiles import Window

NPY_BANDS = {len(names): names for names in (CATALOGUE_BANDS, BANDS)}
"""Names of the bands of an array, by their number."""


class NpyScene(Scene):
    """A numpy array (rows, cols, bands) on disk, mapped anew for each window.

    Thirteen bands are those of the catalogue, of Level-1C (Level-2A has no B10), four are red,
    green, blue, NIR.
    """

    def __init__(self, path: Path, reading: Reading) -> None:
        self.path = self._file = path
        if reading.resolution_m is not None:
            raise SceneError(
                f"{path} does not tell how large its pixels are; leave --resolution out"
            )
        array = map_npy(path)
        if array.ndim != 3 or array.dtype.kind not in "fiu":
            raise SceneError(
                f"{path} holds {array.dtype} of shape {array.shape}; "
                "a scene is an array of numbers (rows, cols, bands)"
            )
        self.rows, self.cols, count = array.shape
        self.dtype = array.dtype
        if count not in NPY_BANDS and reading.bands is None:
            raise SceneError(
                f"{path} has shape {array.shape}; a scene is (rows, cols, bands) with 13 bands "
                "(the catalogue's) or 4 (red, green, blue, NIR), and others need --bands"
            )
        names = NPY_BANDS.get(count, ())
        self.band_numbers = find_bands(path, names, count, reading.bands)
        self.band_names = tuple(names[number - 1] for number in self.band_numbers if names)
        self.level = "L1C" if names == CATALOGUE_BANDS else None
        self._nodata = nodata_values([None] * len(BANDS), reading.nodata)
        self._set_scaling(reading, np.ones(len(BANDS)), np.zeros(len(BANDS)))

    def _numbers(self, window: Window) -> tuple[NDArray[Any], Valid]:
        part = map_npy(self._file)[window.slices]
        numbers = np.stack([part[..., number - 1] for number in self.band_numbers])
        return numbers, not_nodata(numbers, self._nodata)


_header_lock = Lock()


def map_npy(path: Path) -> NDArray[Any]:
    """Map the array of a `.npy` file, read-only; raises SceneError when it is none.

    `numpy.load` would also open an archive or a pickle that bears the suffix.
    """
    # Python 3.11 parses the header wrongly, now and then, when threads do so at once.
    with readable(path), _header_lock:
        array: NDArray[Any] = np.lib.format.open_memmap(path, mode="r")
    return array
