"""Cloud-optimised GeoTIFFs: a finished layer becomes a product with overviews."""

from __future__ import annotations

from pathlib import Path
from typing import TypeAlias

import numpy as np
import rasterio.shutil
from numpy.typing import NDArray
from rasterio.errors import NotGeoreferencedWarning

from cloudnet.cores import usable_cores
from cloudnet.files import quiet
from cloudnet.layer import MASK, read_slabs, reading
from cloudnet.reading import gdal_errors

Counts: TypeAlias = NDArray[np.int64]

DEFLATE_LEVEL = 6
"""Of a full tile's mask, 9 takes six times as long as 6 and saves a fifth; 1 doubles the size."""


def publish_layer(source: Path, path: Path) -> Counts:
    """Turn a layer into a COG and read it back: GDAL closes a cut-off file in silence.

    Overviews are made by nearest for a mask and by average for a probability; description, tags,
    colours, scale and nodata stay.

    Parameters
    ----------
    source
        A layer that `layer.open_layer` wrote.
    path
        The COG, written in place; the driver's own scratch files lie beside it.

    Returns
    -------
    (256,) int64: pixels of the COG by value.

    Raises
    ------
    OSError
        When it cannot be written.
    """
    with reading(source) as file:
        resampling = "nearest" if file.descriptions[0] == MASK else "average"
    with gdal_errors(), quiet(NotGeoreferencedWarning):
        rasterio.shutil.copy(
            source,
            path,
            driver="COG",
            compress="deflate",
            level=DEFLATE_LEVEL,
            num_threads=usable_cores(),
            overview_resampling=resampling,
            bigtiff="if_safer",
        )
    return _read_back(path)


def _read_back(path: Path) -> Counts:
    counts = np.zeros(256, dtype=np.int64)
    for _, values in read_slabs(path):
        counts += np.bincount(values.ravel(), minlength=256)
    with reading(path) as file:
        for factor in file.overviews(1)[1:]:
            file.read(1, out_shape=(-(-file.height // factor), -(-file.width // factor)))
    return counts
