"""Patches: connected pixels of a mask and their sizes, also across slabs of rows."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

Numbers: TypeAlias = NDArray[np.int64]


@dataclass(frozen=True)
class Patches:
    """Patches of a slab, as runs: pixels side by side in one row. Pixels that share an edge join.

    Attributes
    ----------
    starts, ends
        (runs,): first pixel, and the one after the last, counted row by row in rows of `stride`
        pixels; in the order of the pixels.
    labels
        (runs,): number of the patch, from 0 without gaps.
    stride
        Columns of the slab and one more.
    rows
        Of the slab.
    """

    starts: Numbers
    ends: Numbers
    labels: Numbers
    stride: int
    rows: int

    @property
    def lengths(self) -> Numbers:
        """Pixels of each run."""
        return self.ends - self.starts

    def sizes(self) -> NDArray[np.float64]:
        """Return the pixels of each patch."""
        return np.bincount(self.labels, weights=self.lengths).astype(np.float64)

    def row(self, row: int) -> slice:
        """Return the runs of a row."""
        edges = np.searchsorted(self.starts, [row * self.stride, (row + 1) * self.stride])
        return slice(int(edges[0]), int(edges[1]))


@dataclass(frozen=True)
class OpenPatches:
    """The patches of a slab that reach its first or last row.

    Attributes
    ----------
    labels
        Their numbers in the slab.
    sizes
        Pixels of the whole patch, over all slabs.
    """

    labels: Numbers
    sizes: NDArray[np.float64]


def patches_of(pixels: NDArray[np.bool_]) -> Patches:
    """Find the patches of a slab (rows, cols)."""
    rows, cols = pixels.shape
    framed = np.zeros((rows, cols + 2), dtype=np.int8)
    framed[:, 1:-1] = pixels
    steps = np.diff(framed, axis=1).ravel()
    starts, ends = np.flatnonzero(steps == 1), np.flatnonzero(steps == -1)
    above, below = _touching((starts + cols + 1, ends + cols + 1), (starts, ends))
    labels = np.unique(join(len(starts), above, below), return_inverse=True)[1]
    return Patches(starts, ends, labels, cols + 1, rows)


def join(count: int, first: Numbers, second: Numbers) -> Numbers:
    """Return, for each of `count` nodes, the smallest node that edges join it to.

    Parameters
    ----------
    count
        Nodes 0 to count - 1.
    first, second
        Ends of the edges.
    """
    lowest = np.arange(count)
    while True:
        ends = np.sort(np.stack([lowest[first], lowest[second]]), axis=0)
        apart = ends[0] != ends[1]
        if not apart.any():
            return lowest
        first, second = first[apart], second[apart]
        np.minimum.at(lowest, ends[1, apart], ends[0, apart])
        while (lowest[lowest] != lowest).any():
            lowest = lowest[lowest]


def open_patches(slabs: Iterable[NDArray[np.bool_]]) -> list[OpenPatches]:
    """Measure the patches that reach from slab to slab.

    What is kept grows with the patches on the slabs' edges, not with their pixels.
    """
    labels: list[Numbers] = []
    sizes: list[NDArray[np.float64]] = [np.empty(0)]
    edges: list[tuple[Numbers, Numbers]] = [(np.empty(0, np.int64), np.empty(0, np.int64))]
    last = (np.empty(0, np.int64),) * 3
    count = 0
    for pixels in slabs:
        patches = patches_of(pixels)
        first_row, last_row = patches.row(0), patches.row(patches.rows - 1)
        reach = np.unique(np.r_[patches.labels[first_row], patches.labels[last_row]])
        numbers = count + np.searchsorted(reach, patches.labels)
        upper, lower = _touching(last[:2], (patches.starts[first_row], patches.ends[first_row]))
        edges.append((last[2][upper], numbers[first_row][lower]))
        labels.append(reach)
        sizes.append(patches.sizes()[reach] if len(reach) else np.empty(0))
        shift = (patches.rows - 1) * patches.stride
        last = (
            patches.starts[last_row] - shift,
            patches.ends[last_row] - shift,
            numbers[last_row],
        )
        count += len(reach)
    roots = join(count, *(np.concatenate(ends) for ends in zip(*edges)))
    wholes = np.bincount(roots, weights=np.concatenate(sizes), minlength=count)
    cuts = np.cumsum([len(part) for part in labels])[:-1]
    parts = np.split(wholes.astype(np.float64)[roots], cuts)
    return [OpenPatches(*pair) for pair in zip(labels, parts)]


def _touching(
    above: tuple[Numbers, Numbers], below: tuple[Numbers, Numbers]
) -> tuple[Numbers, Numbers]:
    """Return the pairs of runs (starts, ends) that share a column, both counted alike."""
    first = np.searchsorted(below[1], above[0], side="right")
    counts = np.maximum(np.searchsorted(below[0], above[1], side="left") - first, 0)
    upper = np.repeat(np.arange(len(counts)), counts)
    start = np.repeat(np.cumsum(counts) - counts, counts)
    return upper, np.repeat(first, counts) + np.arange(len(upper)) - start
