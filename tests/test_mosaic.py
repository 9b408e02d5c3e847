"""Mosaic: slabs of numbers or of reflectance give what the whole array gives, without a seam."""

from __future__ import annotations

import threading
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from cloudnet.mosaic import READ_ROWS, ArrayPixels, mirror, pad_mirrored
from cloudnet.runtime import CloudModel, load_model
from cloudnet.tiles import Window
from tests.helpers import cloudy_scene

SCALE, OFFSET = np.float32(1e-4), np.float32(-1000)


class StoredScene:
    """Digital numbers, bands first, as a scene of a file gives them; notes what was read."""

    def __init__(self, numbers: NDArray[Any], block_rows: int = 10) -> None:
        self.numbers = numbers
        self.dtype = numbers.dtype
        self.block_rows = block_rows
        self.windows: list[Window] = []

    @property
    def size(self) -> tuple[int, int]:
        return self.numbers.shape[1], self.numbers.shape[2]

    def read_numbers(self, window: Window) -> tuple[NDArray[Any], NDArray[np.bool_]]:
        self.windows.append(window)
        part = self.numbers[(slice(None), *window.slices)]
        return part, part.any(axis=0)

    def to_reflectance(self, numbers: NDArray[Any]) -> NDArray[np.float32]:
        with np.errstate(over="ignore"):
            bands = (numbers.astype(np.float32) + OFFSET) * SCALE
        return np.ascontiguousarray(bands.transpose(1, 2, 0))

    def whole(self) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
        valid = self.numbers.any(axis=0)
        reflectance = self.to_reflectance(self.numbers)
        reflectance[~valid] = 0.0
        return reflectance, valid


@pytest.fixture(scope="module")
def model(tiny_onnx: Path) -> CloudModel:
    """The tiny net: stride 4, a halo of 12 px."""
    return load_model(tiny_onnx, threads=2)


def stored(rows: int, cols: int, seed: int, block_rows: int = 10) -> StoredScene:
    """Return a cloudy scene as numbers, an odd corner and a pixel in it without data."""
    rng = np.random.default_rng(seed)
    scene = cloudy_scene(rng, rows, cols)[0]
    numbers = (scene / SCALE - OFFSET).astype(np.uint16).transpose(2, 0, 1).copy()
    numbers[:, : rows // 3, cols // 2 :] = 0
    numbers[:, rng.integers(rows), rng.integers(cols)] = 0
    return StoredScene(numbers, block_rows)


def put_together(
    model: CloudModel, source: Any, size: tuple[int, int], **options: Any
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Return probability and reflectance of a stream that covers each pixel once."""
    covered = np.zeros(size, dtype=int)
    probability = np.zeros(size, dtype=np.float32)
    reflectance = np.zeros((*size, 4), dtype=np.float32)
    for window, part, pixels in model.stream(source, size, **options):
        covered[window.slices] += 1
        probability[window.slices] = part
        reflectance[window.slices] = pixels
    assert (covered == 1).all()
    return probability, reflectance


@given(
    rows=st.integers(1, 90),
    cols=st.integers(1, 90),
    tile_px=st.one_of(st.none(), st.integers(1, 90)),
    block_rows=st.integers(1, 40),
    seed=st.integers(0, 99),
)
def test_a_stream_of_numbers_equals_the_whole_array(
    model: CloudModel, rows: int, cols: int, tile_px: int | None, block_rows: int, seed: int
) -> None:
    scene = stored(rows, cols, seed, block_rows)
    expected, valid = scene.whole()
    whole = model.predict(expected, valid)
    np.testing.assert_array_equal(np.isnan(whole), ~valid)
    probability, reflectance = put_together(model, scene, (rows, cols), tile_px=tile_px, exact=True)
    np.testing.assert_array_equal(reflectance, expected)
    np.testing.assert_allclose(probability, whole, rtol=0, atol=1e-5)
    tiled = model.predict(expected, valid, tile_px=tile_px, exact=True)
    np.testing.assert_allclose(tiled, whole, rtol=0, atol=1e-5)


def test_every_row_is_read_once_and_in_order(model: CloudModel) -> None:
    scene = stored(95, 60, 1, block_rows=16)
    put_together(model, scene, scene.size, tile_px=40)
    assert scene.windows == [Window(row, 0, min(16, 95 - row), 60) for row in range(0, 95, 16)]


def test_a_function_is_read_in_slabs_of_full_rows(model: CloudModel) -> None:
    windows = []

    def read(window: Window) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
        windows.append(window)
        part = np.full((window.rows, window.cols, 4), 0.1, dtype=np.float32)
        return part, np.ones((window.rows, window.cols), dtype=bool)

    put_together(model, read, (READ_ROWS + 3, 30))
    assert windows == [Window(0, 0, READ_ROWS, 30), Window(READ_ROWS, 0, 3, 30)]


def test_what_is_held_depends_on_the_width_alone(model: CloudModel) -> None:
    """Rows read and not yet given out: the tile's, and at most a slab or two ahead."""
    for rows in (200, 1200):
        scene = stored(rows, 16, 2, block_rows=8)
        most, given = 0, 0
        for window, _, _ in model.stream(scene, scene.size, tile_px=40):
            given = window.row
            most = max(most, max(w.row + w.rows for w in scene.windows) - given)
        assert most <= 40 + 3 * 16 + 4 * 8


def test_numbers_too_large_for_reflectance_are_no_data(model: CloudModel) -> None:
    numbers = np.full((4, 20, 30), 3000.0, dtype=np.float32)
    numbers[2, 5, 6] = np.finfo(np.float32).max

    class Overflowing(StoredScene):
        def to_reflectance(self, numbers: NDArray[Any]) -> NDArray[np.float32]:
            with np.errstate(over="ignore"):
                return np.ascontiguousarray((numbers * np.float32(2)).transpose(1, 2, 0))

    probability, _ = put_together(model, Overflowing(numbers), (20, 30))
    np.testing.assert_array_equal(np.argwhere(np.isnan(probability)), [(5, 6)])


class FailingScene(StoredScene):
    """A scene whose file is cut short."""

    def read_numbers(self, window: Window) -> tuple[NDArray[Any], NDArray[np.bool_]]:
        if window.row >= 60:
            raise OSError("cut short")
        return super().read_numbers(window)


def test_an_error_of_reading_arrives_after_the_tiles_before(model: CloudModel) -> None:
    scene = FailingScene(stored(95, 60, 3).numbers, block_rows=10)
    seen = []
    with pytest.raises(OSError, match="cut short"):
        for window, _, _ in model.stream(scene, scene.size, tile_px=40):
            seen.append(window)
    assert seen
    assert all(window.row + window.rows <= 60 for window in seen)


def test_an_error_of_the_net_arrives(model: CloudModel, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(_: object) -> None:
        raise MemoryError("of the net")

    monkeypatch.setattr(model, "run", fail)
    scene = stored(95, 60, 3)
    with pytest.raises(MemoryError, match="of the net"):
        put_together(model, scene, scene.size)


def test_a_stream_that_is_closed_early_leaves_no_thread(model: CloudModel) -> None:
    scene = stored(1200, 16, 4, block_rows=8)
    with closing(model.stream(scene, scene.size, tile_px=40)) as stream:
        next(stream)
    read = len(scene.windows)
    assert read < 60  # of 150
    names = {thread.name for thread in threading.enumerate()}
    assert "cloudnet-ahead" not in names
    assert len(scene.windows) == read


SMALLEST = np.finfo(np.float32).smallest_subnormal
PIXELS: dict[str, tuple[list[float], bool]] = {
    "dark in the first band": ([0.0, 0.0, 0.0, 0.1], True),
    "the smallest number": ([0.0, 0.0, 0.0, float(SMALLEST)], True),
    "nothing": ([0.0, 0.0, 0.0, 0.0], False),
    "minus nothing": ([-0.0, -0.0, -0.0, -0.0], False),
    "below nothing": ([-0.1, -0.1, -0.1, -0.1], True),
    "infinite": ([0.1, 0.1, np.inf, 0.1], False),
    "infinite twice": ([np.inf, -np.inf, 0.1, 0.1], False),
    "no number": ([0.1, 0.1, 0.1, np.nan], False),
    "its square too large": ([1e30, 1e30, 0.1, 0.1], True),
    "too large for 32 bits": ([1e300, 0.1, 0.1, 0.1], False),
}


@pytest.mark.parametrize("what", PIXELS)
@pytest.mark.parametrize("kind", [np.float32, np.float64])
def test_what_is_valid(what: str, kind: type) -> None:
    numbers, wanted = PIXELS[what]
    if kind is np.float32 and max(numbers) == 1e300:
        pytest.skip("there is no such number")
    scene = np.full((6, 7, 4), 0.2, dtype=kind)
    scene[4, 3] = numbers
    out = np.empty((6, 8, 4), dtype=np.float32)[:, :7]
    valid = ArrayPixels(scene, None).fill(Window(0, 0, 6, 7), out)
    assert (valid is None) == wanted
    if valid is not None:
        np.testing.assert_array_equal(np.argwhere(~valid), [(4, 3)])
        assert (out[4, 3] == 0.0).all()


@given(rows=st.integers(1, 9), cols=st.integers(1, 9), more=st.integers(0, 20))
def test_mirrored_in_place_is_numpys_symmetric(rows: int, cols: int, more: int) -> None:
    inside = np.arange(rows * cols * 2, dtype=np.float32).reshape(rows, cols, 2)
    buffer = np.full((rows + more, cols + more // 2, 2), np.nan, dtype=np.float32)
    buffer[:rows, :cols] = inside
    mirror(buffer, rows, cols)
    np.testing.assert_array_equal(buffer, pad_mirrored(inside, *buffer.shape[:2]))
