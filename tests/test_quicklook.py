"""Quicklooks do not depend on tiling, keep directions, and show cloud, clear and no data."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from cloudnet import quicklook
from cloudnet.files import quiet
from cloudnet.quicklook import NO_DATA_COLOR, OUTLINE_COLOR, Quicklook, outline, png, true_color
from cloudnet.tiles import Window

Array = NDArray[Any]


def any_scene(rows: int, cols: int, seed: int = 5) -> tuple[Array, Array]:
    """Return reflectance and mask without any symmetry."""
    rng = np.random.default_rng(seed)
    reflectance = rng.random((rows, cols, 4), dtype=np.float32)
    mask = rng.choice(np.array([0, 1, 255], dtype=np.uint8), (rows, cols), p=[0.5, 0.4, 0.1])
    return reflectance, mask


def flat(rows: int, cols: int, value: float) -> Array:
    return np.full((rows, cols, 4), value, dtype=np.float32)


def whole(reflectance: Array, mask: Array, max_px: int = 1024) -> Quicklook:
    rows, cols = mask.shape
    made = Quicklook(rows, cols, max_px)
    made.add(Window(0, 0, rows, cols), reflectance, mask)
    return made


def test_the_stretch_by_hand() -> None:
    # From 0.02 (black) to 0.8 (white), then the square root: a quarter of the way is half bright.
    reflectance = np.array([[[0.02, 0.8, 0.215, 9.0], [-1.0, 5.0, np.nan, 9.0]]], dtype=np.float32)
    assert true_color(reflectance).tolist() == [[[0, 255, 128], [0, 255, 0]]]


def test_the_stretch_is_the_same_in_every_scene() -> None:
    reflectance, _ = any_scene(9, 7)
    shown = true_color(reflectance)
    assert np.array_equal(true_color(reflectance[2:3, 3:4]), shown[2:3, 3:4])
    assert (true_color(flat(3, 3, 0.9)) == 255).all()
    assert true_color(flat(3, 3, 0.04)).max() < 60


def test_a_small_scene_keeps_its_pixels_and_its_directions() -> None:
    reflectance, _ = any_scene(5, 8)
    made = whole(reflectance, np.zeros((5, 8), dtype=np.uint8))
    assert np.array_equal(made.image(), true_color(reflectance))


@given(data=st.data(), rows=st.integers(1, 40), cols=st.integers(1, 40), max_px=st.integers(1, 45))
def test_any_tiling_gives_the_same_picture(
    data: st.DataObject, rows: int, cols: int, max_px: int
) -> None:
    reflectance, mask = any_scene(rows, cols)
    down = sorted(data.draw(st.sets(st.integers(0, rows), max_size=4)) | {0, rows})
    across = sorted(data.draw(st.sets(st.integers(0, cols), max_size=4)) | {0, cols})
    windows = [
        Window(top, left, bottom - top, right - left)
        for top, bottom in pairwise(down)
        for left, right in pairwise(across)
    ]
    tiled = Quicklook(rows, cols, max_px)
    for window in data.draw(st.permutations(windows)):
        tiled.add(window, reflectance[window.slices], mask[window.slices])
    once = whole(reflectance, mask, max_px)
    assert np.array_equal(tiled.image(), once.image())
    assert np.array_equal(tiled.mask(), once.mask())
    assert max(tiled.image().shape[:2]) == min(max(rows, cols), max_px)


def test_pixels_are_averaged_where_there_is_data() -> None:
    shown = true_color(np.array([[[0.1] * 4, [0.32] * 4, [0.7] * 4]], dtype=np.float32))[0, :, 0]
    reflectance = np.array([[0.1, 0.32, 0.7, 0.7], [0.1, 0.32, 0.7, 0.7]], dtype=np.float32)
    mask = np.array([[0, 0, 255, 255], [255, 0, 255, 255]], dtype=np.uint8)
    made = whole(np.repeat(reflectance[..., np.newaxis], 4, axis=2), mask, 2)
    # Two thirds of a unit above a whole number: rounded, not cut off.
    mean = round((int(shown[0]) + 2 * int(shown[1])) / 3)
    assert made.image().tolist() == [[[mean] * 3, list(NO_DATA_COLOR)]]
    assert made.mask().tolist() == [[0, 255]]


def test_a_thinned_mask_says_what_most_pixels_say() -> None:
    blocks = np.array(
        [[[1, 1, 0, 0]], [[1, 0, 0, 0]], [[1, 255, 255, 255]], [[1, 0, 1, 255]]], dtype=np.uint8
    )
    mask = blocks.reshape(4, 2, 2).transpose(1, 0, 2).reshape(2, 8)
    assert whole(flat(2, 8, 0.3), mask, 4).mask().tolist() == [[1, 0, 255, 1]]


@pytest.mark.parametrize(
    ("size", "shown"),
    [((1, 1), (1, 1)), ((4000, 1), (16, 1)), ((64, 32), (16, 8)), ((3, 16), (3, 16))],
)
def test_sizes(size: tuple[int, int], shown: tuple[int, int]) -> None:
    made = whole(flat(*size, 0.5), np.zeros(size, dtype=np.uint8), 16)
    assert made.image().shape == (*shown, 3)


def test_the_outline_is_the_cloud_s_own_edge_to_clear() -> None:
    mask = np.array(
        [
            [0, 0, 0, 0, 0, 0],
            [0, 1, 1, 1, 1, 1],
            [0, 1, 1, 1, 1, 1],
            [0, 1, 1, 1, 1, 255],
            [0, 1, 1, 1, 0, 255],
        ],
        dtype=np.uint8,
    )
    edge = [
        [0, 0, 0, 0, 0, 0],
        [0, 1, 1, 1, 1, 1],
        [0, 1, 0, 0, 0, 0],
        [0, 1, 0, 0, 1, 0],
        [0, 1, 0, 1, 0, 0],
    ]
    assert outline(mask).astype(int).tolist() == edge
    reflectance = flat(5, 6, 0.5)
    image = whole(reflectance, mask).image()
    assert (image == OUTLINE_COLOR).all(axis=2).astype(int).tolist() == edge
    assert np.array_equal(image[2, 2], true_color(reflectance)[2, 2])


@pytest.mark.parametrize("value", [0, 1, 255])
def test_a_scene_of_one_kind_has_no_outline(value: int) -> None:
    assert not outline(np.full((4, 5), value, dtype=np.uint8)).any()


@pytest.mark.parametrize("ground", [0.02, 0.08, 0.2, 0.5, 0.9])
def test_the_outline_shows_on_any_ground(ground: float) -> None:
    shown = true_color(flat(1, 1, ground))[0, 0].astype(int)
    assert np.abs(shown - OUTLINE_COLOR).max() > 100


def test_no_data_is_grey_and_so_is_what_was_never_added() -> None:
    made = Quicklook(3, 4)
    mask = np.array([[255, 0, 1, 0]], dtype=np.uint8)
    made.add(Window(0, 0, 1, 4), flat(1, 4, 0.6), mask)
    grey = (made.image() == NO_DATA_COLOR).all(axis=2)
    assert grey.tolist() == [[True, False, False, False], [True] * 4, [True] * 4]


def test_colour_may_be_known_where_the_mask_says_nothing() -> None:
    made = Quicklook(1, 2)
    valid = np.array([[True, False]])
    made.add(Window(0, 0, 1, 2), flat(1, 2, 0.8), np.array([[255, 0]], dtype=np.uint8), valid)
    assert made.picture().tolist() == [[[255] * 3, list(NO_DATA_COLOR)]]
    assert made.mask().tolist() == [[255, 0]]


def test_arrays_that_do_not_fit_are_refused() -> None:
    made = Quicklook(6, 6)
    mask = np.zeros((2, 3), dtype=np.uint8)
    with pytest.raises(ValueError, match="do not fit"):
        made.add(Window(0, 0, 3, 2), flat(2, 3, 0.5), mask)
    with pytest.raises(ValueError, match="do not fit"):
        made.add(Window(0, 0, 2, 3), flat(2, 3, 0.5), mask.T)
    with pytest.raises(ValueError, match="reaches out"):
        made.add(Window(5, 0, 2, 3), flat(2, 3, 0.5), mask)
    made.add(Window(6, 0, 0, 6), flat(0, 6, 0.5), np.zeros((0, 6), dtype=np.uint8))
    assert (made.image() == NO_DATA_COLOR).all()


def test_the_encoded_file_holds_the_picture(tmp_path: Path) -> None:
    made = whole(*any_scene(21, 34))
    path = tmp_path / "look.png"
    path.write_bytes(made.encode())
    with quiet(rasterio.errors.NotGeoreferencedWarning), rasterio.open(path) as source:
        assert source.driver == "PNG"
        assert np.array_equal(source.read().transpose(1, 2, 0), made.image(times=15))


def test_an_enlarged_picture_keeps_a_thin_outline() -> None:
    mask = np.zeros((2, 3), dtype=np.uint8)
    mask[0, 0] = 1
    made = whole(flat(2, 3, 0.5), mask)
    drawn = (made.image(times=4) == OUTLINE_COLOR).all(axis=2)
    assert drawn.shape == (8, 12)
    assert drawn[3, :4].all() and drawn[:4, 3].all()
    assert drawn.sum() == 7


def test_png_of_one_pixel() -> None:
    assert png(np.array([[[1, 2, 3]]], dtype=np.uint8)).startswith(b"\x89PNG")


def test_bins_leave_no_pixel_of_the_picture_empty() -> None:
    for total in range(1, 30):
        for bins in range(1, total + 1):
            shared = quicklook._share_out(np.arange(total), total, bins)
            assert shared.place == slice(0, bins)
            assert (shared.starts[0], len(shared.starts)) == (0, bins)


def test_sums_of_bins_are_those_that_numpy_reduces() -> None:
    layer = np.random.default_rng(3).integers(0, 200, (23, 17, 3)).astype(np.uint16)
    for bins in (1, 2, 5, 16, 17):
        shared = quicklook._share_out(np.arange(17), 17, bins)
        wanted = np.add.reduceat(layer, shared.starts, axis=1)
        np.testing.assert_array_equal(quicklook._sum_bins(layer, shared, 1), wanted)


@pytest.mark.parametrize("rows", [799, 11])
def test_the_brightest_scene_does_not_overflow_the_sums(rows: int) -> None:
    """Some 7.99 pixels of the scene a side of the picture's; of a slender one half as many more."""
    cols = 799
    made = Quicklook(rows, cols, 100)
    assert made.step == 1 and made.height == (100 if rows == cols else 1)
    white = np.ones((rows, cols, 4), dtype=np.float32)
    made.add(Window(0, 0, rows, cols), white, np.ones((rows, cols), dtype=np.uint8))
    assert (made.picture() == 255).all() and (made.mask() == 1).all()


def test_a_large_scene_is_looked_at_in_steps_that_leave_no_pixel_empty() -> None:
    """In windows that begin anywhere, some of them narrower than a step."""
    rows, cols = 131, 97
    reflectance = np.random.default_rng(2).uniform(0.02, 0.3, (rows, cols, 4)).astype(np.float32)
    mask = (np.add.outer(np.arange(rows), np.arange(cols)) > 110).astype(np.uint8)
    made, once = Quicklook(rows, cols, 10), Quicklook(rows, cols, 10)
    assert made.step == 3
    for row, end in ((0, 1), (1, 3), (3, 50), (50, 52), (52, 131)):
        for col, last in ((0, 2), (2, 40), (40, 97)):
            window = Window(row, col, end - row, last - col)
            made.add(window, reflectance[window.slices], mask[window.slices])
    once.add(Window(0, 0, rows, cols), reflectance, mask)
    np.testing.assert_array_equal(made.image(), once.image())
    assert not (made.mask() == 255).any() and set(np.unique(made.mask())) == {0, 1}
    made.replace_mask([(Window(0, 0, rows, cols), 1 - mask)])
    np.testing.assert_array_equal(made.mask()[0, 0], 1 - once.mask()[0, 0])
