"""Terrain: the kind of ground of a scene, as told or as its clear pixels show it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from cloudnet.dataset import SLAB_ROWS, DataSet, LabelledScene
from cloudnet.spec import BANDS, CLEAR, CLOUD
from cloudnet.tiles import Window

OVERCAST, SNOW, WATER = "overcast", "snow or ice", "water"
BRIGHT, VEGETATION, BARE = "bright ground", "vegetation", "bare or sparse"
UNLABELLED = "unlabelled"

LEAST_CLEAR = 0.02
"""Share of the labelled pixels that is clear in a scene that shows ground."""

SNOW_BLUE, SNOW_BLUE_TO_RED = 0.35, 0.95
"""Snow is bright in blue, and hardly less so than in red, which sand and salt pans are not."""

WATER_NIR, BRIGHT_RED, GREEN_NDVI = 0.15, 0.25, 0.4

STEPS_PER_UNIT, BRIGHTEST = 1000, 2.0
"""A median is taken from a histogram in steps of 0.001 of reflectance, up to 2."""


def tell_ground(dataset: DataSet) -> DataSet:
    """Return a data set with the kind of ground of each scene, measured where it is not told.

    Raises
    ------
    SceneError, DatasetError
        When a scene or its mask cannot be read.
    """
    scenes = (s if s.ground else replace(s, ground=measure_ground(s)) for s in dataset.scenes)
    return replace(dataset, scenes=tuple(scenes))


def measure_ground(labelled: LabelledScene) -> str:
    """Return the kind of ground by the medians of a scene's clear pixels, read in slabs.

    A scene with less than 2 % clear among its labelled pixels is "overcast"; one with no labelled
    pixel "unlabelled".
    """
    counts = np.zeros((len(BANDS), round(STEPS_PER_UNIT * BRIGHTEST) + 1), dtype=np.int64)
    clear_px = labelled_px = 0
    with labelled.open() as scene:
        for row in range(0, labelled.rows, SLAB_ROWS):
            window = Window(row, 0, SLAB_ROWS, labelled.cols).clip(labelled.rows, labelled.cols)
            reflectance, valid = scene.read(window)
            mask = labelled.read_mask(window)
            clear = valid & (mask == CLEAR)
            clear_px += int(np.count_nonzero(clear))
            labelled_px += int(np.count_nonzero(clear | (valid & (mask == CLOUD))))
            counts += _count(reflectance[clear], counts.shape[1])
    if not labelled_px:
        return UNLABELLED
    return classify(_medians(counts)) if clear_px >= LEAST_CLEAR * labelled_px else OVERCAST


def classify(reflectance: Sequence[float]) -> str:
    """Return the kind of ground of a reflectance in red, green, blue, NIR, 1.0 = 100 %.

    Of top-of-atmosphere or surface reflectance alike, so a coarse sorting and no land cover map.
    Water has a positive NDWI = (green - NIR) / (green + NIR) (McFeeters 1996,
    doi:10.1080/01431169608948714) and is dark in NIR, which snow is not; vegetation has a high
    NDVI = (NIR - red) / (NIR + red) (Rouse et al. 1974, NASA SP-351, 309-317).
    """
    red, green, blue, nir = reflectance
    if blue > SNOW_BLUE and blue >= SNOW_BLUE_TO_RED * red:
        return SNOW
    if green > nir and nir < WATER_NIR:
        return WATER
    if red > BRIGHT_RED:
        return BRIGHT
    return VEGETATION if nir - red > GREEN_NDVI * (nir + red) else BARE


def _count(pixels: NDArray[np.float32], steps: int) -> NDArray[np.int64]:
    """Return how many pixels (n, bands) are in each step of reflectance, (bands, steps)."""
    numbers = np.clip(np.rint(pixels * STEPS_PER_UNIT), 0, steps - 1).astype(np.int64)
    return np.stack([np.bincount(band, minlength=steps) for band in numbers.T])


def _medians(counts: NDArray[np.int64]) -> list[float]:
    """Return the median reflectance of each band."""
    sums = counts.cumsum(axis=1)
    return [float(np.searchsorted(band, band[-1] / 2)) / STEPS_PER_UNIT for band in sums]
