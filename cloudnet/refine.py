"""Refine: small cloud patches leave a mask, and clouds grow by a margin, a slab at a time."""

from __future__ import annotations

from dataclasses import dataclass
from math import sqrt
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from cloudnet.errors import OutputError
from cloudnet.layer import Layer, Slabs, as_rasterio, read_slabs, reading, slabs, write_slabs
from cloudnet.map_grid import MapGrid
from cloudnet.patches import open_patches, patches_of
from cloudnet.spec import CLEAR, CLOUD
from cloudnet.tiles import Window

WIDEST_BUFFER_PX = 500
"""A wider margin would need hundreds of megabytes a slab."""


@dataclass(frozen=True)
class Refinement:
    """What is done to a mask on the scene's own grid: small patches first, then the margin.

    Attributes
    ----------
    min_area_m2
        Patches of cloud below this become clear. Pixels of a patch share edges; those that only
        touch at a corner belong to two. Holes in clouds stay.
    buffer_m
        Clear pixels whose centre is within this distance of a cloud pixel's become cloud.
    """

    min_area_m2: float = 0.0
    buffer_m: float = 0.0

    def check(self, grid: MapGrid, name: str) -> None:
        """Raise OutputError where a grid does not tell what is needed."""
        if self.min_area_m2:
            grid.require_pixel_m("--min-area-m2", name)
        if self.buffer_m:
            across, down = grid.require_pixel_m("--buffer-m", name)
            if self.buffer_m > WIDEST_BUFFER_PX * min(across, down):
                raise OutputError(
                    f"--buffer-m {self.buffer_m:g} is {self.buffer_m / min(across, down):.0f} "
                    f"pixels of {name}; it goes up to {WIDEST_BUFFER_PX}"
                )


def refine_mask(source: Path, grid: MapGrid, refinement: Refinement) -> Path:
    """Refine a mask; return the refined layer, which lies beside it and takes its place.

    Raises
    ------
    OSError
        When a file cannot be read or written.
    """
    area, pixel = grid.pixel_area_m2(), grid.pixel_m
    if refinement.min_area_m2 and area is not None:
        least_px = refinement.min_area_m2 / area
        source = _replace(source, "sieved", grid, _sieved(source, least_px))
    if refinement.buffer_m and pixel is not None:
        source = _replace(source, "grown", grid, _grown(source, refinement.buffer_m, pixel))
    return source


def _replace(source: Path, name: str, grid: MapGrid, parts: Slabs) -> Path:
    target = source.with_name(f"{name}.tif")
    write_slabs(target, grid, source, parts)
    source.unlink()
    return target


def _sieved(source: Path, least_px: float) -> Slabs:
    """Turn patches of fewer pixels than `least_px` clear."""
    wholes = open_patches(mask == CLOUD for _, mask in read_slabs(source))
    for (window, mask), whole in zip(read_slabs(source), wholes):
        cloud = mask == CLOUD
        patches = patches_of(cloud)
        sizes = patches.sizes()
        sizes[whole.labels] = whole.sizes
        small = (sizes < least_px)[patches.labels]
        mask[cloud] = np.where(np.repeat(small, patches.lengths), CLEAR, CLOUD)
        yield window, mask


def _grown(source: Path, buffer_m: float, pixel_m: tuple[float, float]) -> Slabs:
    halo = _whole_steps(buffer_m, pixel_m[1])
    with reading(source) as file:
        for window in slabs(file.height, file.width):
            top = Window(window.row - halo, 0, window.rows + 2 * halo, window.cols)
            read = top.clip(file.height, file.width)
            mask = file.read(1, window=as_rasterio(read))
            kept = window.within(read).slices
            near = within_reach(mask == CLOUD, buffer_m, pixel_m)[kept]
            values: Layer = mask[kept]
            values[(values == CLEAR) & near] = CLOUD
            yield window, values


def within_reach(
    cloud: NDArray[np.bool_], reach_m: float, pixel_m: tuple[float, float]
) -> NDArray[np.bool_]:
    """Return the pixels (rows, cols) whose centre is within a distance of a cloud pixel's.

    First the distance along the columns, then, for each step across, whether that distance is
    within the disc there (exact, as in Saito and Toriwaki 1994, cut off at the reach).

    Parameters
    ----------
    cloud
        (rows, cols).
    reach_m
        The distance in metres.
    pixel_m
        Length of a pixel along its row and along its column, in metres.
    """
    across, down = pixel_m
    steps = _whole_steps(reach_m, down)
    along = _column_distance(cloud, steps)
    near = along <= steps
    cols = cloud.shape[1]
    for step in range(1, min(_whole_steps(reach_m, across), cols - 1) + 1):
        left_m = sqrt(max(reach_m**2 - (step * across) ** 2, 0.0))
        allowed = _whole_steps(left_m, down)
        inside = along <= allowed
        near[:, step:] |= inside[:, : cols - step]
        near[:, : cols - step] |= inside[:, step:]
    return near


def _whole_steps(length_m: float, step_m: float) -> int:
    """Return how many steps fit; a length that falls a hair short of them counts as whole."""
    return int(length_m / step_m + 1e-9)


def _column_distance(cloud: NDArray[np.bool_], most: int) -> NDArray[np.uint16]:
    """Return rows to the nearest cloud pixel of the same column, at most `most` + 1."""
    distance = np.where(cloud, np.uint16(0), np.uint16(most + 1))
    for row in range(1, len(distance)):
        np.minimum(distance[row], distance[row - 1] + np.uint16(1), out=distance[row])
    for row in range(len(distance) - 2, -1, -1):
        np.minimum(distance[row], distance[row + 1] + np.uint16(1), out=distance[row])
    return distance
