"""Patches: sizes of connected pixels, whole and in slabs."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from cloudnet.patches import join, open_patches, patches_of


def flooded(pixels: NDArray[np.bool_]) -> NDArray[np.int64]:
    """Return the size of each pixel's patch, by filling; 0 where there is none."""
    sizes = np.zeros(pixels.shape, dtype=np.int64)
    for start in zip(*np.nonzero(pixels)):
        if sizes[start]:
            continue
        found, queue = {start}, [start]
        while queue:
            row, col = queue.pop()
            for place in ((row - 1, col), (row + 1, col), (row, col - 1), (row, col + 1)):
                inside = 0 <= place[0] < pixels.shape[0] and 0 <= place[1] < pixels.shape[1]
                if inside and pixels[place] and place not in found:
                    found.add(place)
                    queue.append(place)
        for place in found:
            sizes[place] = len(found)
    return sizes


def sizes_in_slabs(pixels: NDArray[np.bool_], height: int) -> NDArray[np.int64]:
    slabs = [pixels[row : row + height] for row in range(0, len(pixels), height)]
    parts = []
    for slab, whole in zip(slabs, open_patches(slabs)):
        patches = patches_of(slab)
        sizes = patches.sizes()
        sizes[whole.labels] = whole.sizes
        part = np.zeros(slab.shape, dtype=np.int64)
        part[slab] = np.repeat(sizes[patches.labels], patches.lengths)
        parts.append(part)
    return np.concatenate(parts)


@settings(deadline=None, max_examples=60)
@given(
    rows=st.integers(1, 17),
    cols=st.integers(1, 14),
    height=st.integers(1, 8),
    share=st.sampled_from([0.0, 0.3, 0.55, 0.7, 1.0]),
    seed=st.integers(0, 99),
)
def test_sizes_in_slabs_are_those_of_the_whole(
    rows: int, cols: int, height: int, share: float, seed: int
) -> None:
    pixels = np.random.default_rng(seed).random((rows, cols)) < share
    np.testing.assert_array_equal(sizes_in_slabs(pixels, height), flooded(pixels))


@pytest.mark.parametrize("height", [1, 2, 5])
def test_a_snake_through_all_slabs_is_one_patch(height: int) -> None:
    pixels = np.ones((21, 9), dtype=bool)
    pixels[1::4, :-1] = False
    pixels[3::4, 1:] = False
    assert set(np.unique(sizes_in_slabs(pixels, height))) == {0, pixels.sum()}


def test_corners_do_not_join() -> None:
    assert sizes_in_slabs(np.eye(6, dtype=bool), 4).max() == 1


def test_nodes_are_joined_by_edges() -> None:
    first, second = np.array([5, 4, 3, 9]), np.array([4, 3, 2, 8])
    assert join(10, first, second).tolist() == [0, 1, 2, 2, 2, 2, 6, 7, 8, 8]
