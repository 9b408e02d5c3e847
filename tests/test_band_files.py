"""Band files are decoded once, at the resolution asked for; the footprint's edges are known."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
from hypothesis import given, settings
from hypothesis import strategies as st
from rasterio.transform import Affine

from cloudnet import band_files
from cloudnet.band_files import not_smoothed, spread
from cloudnet.cells import CellReader
from cloudnet.errors import SceneError
from cloudnet.scene import Reading, open_scene
from cloudnet.spec import BANDS
from cloudnet.tiles import Window
from tests.helpers import write_scene_npy, write_scene_tif
from tests.products import L2A_AFTER, Numbers, write_jp2, write_safe

ROWS, COLS = 420, 530


def noise(rows: int = ROWS, cols: int = COLS) -> Numbers:
    rng = np.random.default_rng(3)
    return rng.integers(1001, 9000, (rows, cols, 4)).astype(np.uint16)


def smooth(rows: int = ROWS, cols: int = COLS) -> Numbers:
    row, col, band = np.ogrid[:rows, :cols, :4]
    return np.asarray(2000 + 3 * row + 5 * col + 500 * band, dtype=np.uint16)


@pytest.fixture(scope="module")
def product(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_safe(tmp_path_factory.mktemp("noise"), noise(), block_px=256)


@given(
    st.lists(st.tuples(st.integers(0, 419), st.integers(0, 529), st.integers(1, 420)), min_size=1)
)
@settings(max_examples=5, deadline=None)
def test_any_windows_in_any_order_are_those_of_the_file(
    product: Path, places: list[tuple[int, int, int]]
) -> None:
    whole = noise().transpose(2, 0, 1)
    with open_scene(product) as scene:
        for row, col, side in places:
            window = Window(row, col, side, side).clip(ROWS, COLS)
            numbers, valid = scene.read_numbers(window)
            np.testing.assert_array_equal(numbers, whole[(slice(None), *window.slices)])
            assert numbers.flags.c_contiguous and valid.all()


def decoded(file: Any) -> tuple[Any, list[Any]]:
    """Return a stand-in for an open file that notes what it reads."""
    asked: list[Any] = []

    class Spy:
        def __getattr__(self, name: str) -> Any:
            return getattr(file, name)

        def read(self, band: int, window: Any) -> Any:
            asked.append(window)
            return file.read(band, window=window)

    return Spy(), asked


def slabs(step: int, halo: int) -> Iterator[Window]:
    for row in range(0, ROWS, step):
        yield Window(row - halo, 0, step + 2 * halo, COLS).clip(ROWS, COLS)


@pytest.mark.parametrize("threads", [1, 3])
@pytest.mark.parametrize(("kept_rows", "halo"), [(1, 0), (2, 20)])
@pytest.mark.parametrize("step", [50, 100, 128, 300])
def test_slabs_that_cut_blocks_decode_each_once_and_keep_few(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    step: int,
    kept_rows: int,
    halo: int,
    threads: int,
) -> None:
    monkeypatch.setattr("cloudnet.cells.CELL_PX", 128)
    path = write_jp2(tmp_path / "a.jp2", noise()[..., 0], block_px=128)
    with rasterio.open(path) as file:
        spy, asked = decoded(file)
        reader = CellReader(spy, threads, kept_rows)
        for window in slabs(step, halo):
            out = np.empty((window.rows, window.cols), dtype=np.uint16)
            reader.read(window, out)
            np.testing.assert_array_equal(out, noise()[(*window.slices, 0)])
            assert len(reader._cells) <= kept_rows * 5
        assert reader.kept_bytes <= kept_rows * 5 * 128 * 128 * 2
    assert sum(part.width * part.height for part in asked) == ROWS * COLS
    assert max(part.width for part in asked) <= 128 * threads


def test_bands_are_decoded_side_by_side_and_a_bad_one_is_named(product: Path) -> None:
    with open_scene(product) as scene:
        scene._readers[2]._file.close()  # type: ignore[attr-defined]
        with pytest.raises(SceneError, match=r"_B02_10m\.jp2"):
            scene.read_numbers()


@pytest.mark.parametrize("numbers", [noise(), smooth()], ids=["noise", "smooth"])
def test_at_20_m_a_product_is_decoded_at_half_resolution(tmp_path: Path, numbers: Numbers) -> None:
    product = write_safe(tmp_path, numbers, block_px=256)
    with open_scene(product, Reading(resolution_m=20)) as scene:
        half, valid = scene.read_numbers()
        assert (scene.rows, scene.cols, scene.pixel_m) == (210, 265, 20.0)
        assert scene.transform == Affine(20.0, 0.0, 399960.0, 0.0, -20.0, 5300040.0)
        assert valid.all()
    with rasterio.open(product / f"{L2A_AFTER.image('B04')}.jp2", OVERVIEW_LEVEL=0) as file:
        np.testing.assert_array_equal(half[0], file.read(1))
    thinned = numbers[::2, ::2].transpose(2, 0, 1).astype(float)
    difference = np.abs(half - thinned).mean()
    assert difference < 20 if numbers[0, 0, 0] == 2000 else difference > 500


@pytest.mark.parametrize("sides", [(90, 70), (91, 71)])
def test_at_20_m_a_product_too_small_for_overviews_is_averaged(
    tmp_path: Path, sides: tuple[int, int]
) -> None:
    numbers = smooth(*sides)
    with open_scene(write_safe(tmp_path, numbers), Reading(resolution_m=20)) as scene:
        half, valid = scene.read_numbers()
        assert (scene.rows, scene.cols, scene.pixel_m) == (*(-(-n // 2) for n in sides), 20.0)
    means = numbers[:90, :70].reshape(45, 2, 35, 2, 4).mean(axis=(1, 3)).transpose(2, 0, 1)
    np.testing.assert_allclose(half[:, :45, :35], means, atol=1)
    assert valid.all()


def test_at_20_m_windows_are_those_of_the_whole(product: Path) -> None:
    with open_scene(product, Reading(resolution_m=20)) as scene:
        whole, _ = scene.read_numbers()
        for window in (Window(0, 0, 9, 9), Window(101, 13, 60, 200), Window(200, 250, 10, 15)):
            part, _ = scene.read_numbers(window)
            np.testing.assert_array_equal(part, whole[(slice(None), *window.slices)])


def test_at_20_m_pixels_that_no_data_was_mixed_into_are_left_out(tmp_path: Path) -> None:
    numbers = np.full((ROWS, COLS, 4), 5000, dtype=np.uint16)
    row, col = np.ogrid[:ROWS, :COLS]
    numbers[col < 100 + row // 7] = 0
    numbers[300:, :, 3][col[0] > 200 + np.zeros(120, dtype=int)[:, np.newaxis]] = 0
    product = write_safe(tmp_path, numbers, block_px=256)
    with open_scene(product, Reading(resolution_m=20)) as scene:
        half, valid = scene.read_numbers()
        parts = [scene.read_numbers(Window(row, 0, 30, 265))[1] for row in range(0, 210, 30)]
    assert (half[:, valid] == 5000).all()
    missing = (numbers == 0).any(axis=2)[::2, ::2]
    assert not valid[missing].any()
    assert (~valid).sum() < missing.sum() + 8 * 600
    np.testing.assert_array_equal(np.concatenate(parts), valid)


def test_a_dark_line_beside_bright_ground_is_no_edge_of_the_footprint() -> None:
    numbers = np.full((4, 30, 40), 500, dtype=np.uint16)
    numbers[3, :, 17:19] = 0
    assert not_smoothed(numbers, np.zeros(4)).all()
    numbers[3, :, 17:20] = 0
    assert not not_smoothed(numbers, np.zeros(4))[:, 15:22].any()


def test_spread_is_square() -> None:
    mask = np.zeros((9, 11), dtype=bool)
    mask[3, 4] = mask[8, 0] = True
    grown = spread(mask, 2)
    expected = np.zeros_like(mask)
    expected[1:6, 2:7] = expected[6:, :3] = True
    np.testing.assert_array_equal(grown, expected)
    assert mask.sum() == 2


def test_resolutions_that_a_file_does_not_have(tmp_path: Path, product: Path) -> None:
    with pytest.raises(SceneError, match="--resolution is 10 or 20"):
        Reading(resolution_m=60)
    with open_scene(product, Reading(resolution_m=10)) as scene:
        assert scene.pixel_m == 10.0
    tif = write_scene_tif(tmp_path / "a.tif", noise(20, 30))
    with pytest.raises(SceneError, match="decoded at 10 m, not at 20 m"):
        open_scene(tif, Reading(resolution_m=20))
    nowhere = write_scene_tif(tmp_path / "b.tif", noise(20, 30), crs=None, transform=None)
    array = write_scene_npy(tmp_path / "c.npy", np.full((5, 6, 4), 0.1, dtype=np.float32))
    for path in (nowhere, array):
        with pytest.raises(SceneError, match="leave --resolution out"):
            open_scene(path, Reading(resolution_m=20))


def test_a_geotiff_at_20_m_is_its_overview(tmp_path: Path) -> None:
    path = write_scene_tif(tmp_path / "a.tif", smooth(), tiled=True, blockxsize=128, blockysize=128)
    with rasterio.open(path, "r+") as file:
        file.build_overviews([2, 4], rasterio.enums.Resampling.average)
    with open_scene(path, Reading(resolution_m=20)) as scene:
        assert (scene.rows, scene.cols, scene.pixel_m) == (210, 265, 20.0)
        reflectance, _ = scene.read()
    whole = smooth() * 1e-4
    means = (whole[::2, ::2] + whole[1::2, ::2] + whole[::2, 1::2] + whole[1::2, 1::2]) / 4
    np.testing.assert_allclose(reflectance, means, atol=1e-4)


def test_files_are_closed_when_a_scene_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    product = write_safe(tmp_path, smooth(8, 9))
    write_jp2(product / f"{L2A_AFTER.image('B08')}.jp2", smooth(4, 4)[..., 0])
    opened = []
    original = band_files.open_raster

    def spy(*arguments: Any, **settings: Any) -> Any:
        opened.append(original(*arguments, **settings))
        return opened[-1]

    monkeypatch.setattr(band_files, "open_raster", spy)
    with pytest.raises(SceneError, match="4 x 4 pixels"):
        open_scene(product)
    assert len(opened) == len(BANDS)
    assert all(file.closed for file, _ in opened)
