"""Scenes come out as reflectance and validity, whatever file they are in; bad ones are told."""

from __future__ import annotations

import io
import zipfile
from math import inf, nan
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from rasterio.enums import ColorInterp
from rasterio.transform import Affine

from cloudnet.errors import SceneError
from cloudnet.npy import NpyScene
from cloudnet.reading import Reading
from cloudnet.scene import find_scene_files, open_scene
from cloudnet.spec import CATALOGUE_BANDS
from cloudnet.tiles import Window
from tests.helpers import lopsided_scene, write_scene_npy, write_scene_tif

ROWS, COLS = 7, 11
TOLERANCE = 0.6e-4  # half a digital number at a scale of 1e-4, and rounding


def dn(rows: int = ROWS, cols: int = COLS) -> NDArray[np.uint16]:
    """Digital numbers of the lopsided scene."""
    return np.rint(lopsided_scene(rows, cols) * 10_000).astype(np.uint16)


def read(path: Path, reading: Reading | None = None) -> tuple[NDArray[Any], NDArray[Any]]:
    with open_scene(path, reading) as scene:
        reflectance, valid = scene.read()
        assert reflectance.shape == (scene.rows, scene.cols, 4)
    assert reflectance.dtype == np.float32
    assert valid.shape == reflectance.shape[:2]
    assert valid.dtype == bool
    return reflectance, valid


def refused(path: Path, *words: str, reading: Reading | None = None) -> None:
    """A scene is refused in one sentence that holds its path and all the words."""
    with pytest.raises(SceneError) as caught:
        read(path, reading)
    message = str(caught.value)
    assert "\n" not in message
    for word in (str(path), *words):
        assert word in message


# Arrays


def test_thirteen_bands_are_those_of_the_catalogue(tmp_path: Path) -> None:
    stack = lopsided_scene(ROWS, COLS, 13)
    reflectance, valid = read(write_scene_npy(tmp_path / "a.npy", stack))
    assert (reflectance == stack[..., [3, 2, 1, 7]]).all()
    assert valid.all()


def test_four_bands_are_red_green_blue_nir(tmp_path: Path) -> None:
    stack = lopsided_scene(ROWS, COLS)
    reflectance, _ = read(write_scene_npy(tmp_path / "a.npy", stack))
    assert (reflectance == stack).all()


@pytest.mark.parametrize(
    ("bands", "count", "indices"),
    [
        (("4", "3", "2", "8"), 13, [3, 2, 1, 7]),
        (("8", "4", "3", "1"), 13, [7, 3, 2, 0]),
        (("B8A", "B04", "b11", "nir"), 13, [8, 3, 11, 7]),
        (("nir", "red", "2", "blue"), 4, [3, 0, 1, 2]),
        (("3", "2", "1", "6"), 6, [2, 1, 0, 5]),
        ((" 3", "2 ", "1", "6"), 6, [2, 1, 0, 5]),
    ],
)
def test_bands_of_an_array_by_number_and_name(
    tmp_path: Path, bands: tuple[str, ...], count: int, indices: list[int]
) -> None:
    stack = lopsided_scene(ROWS, COLS, count)
    reflectance, _ = read(write_scene_npy(tmp_path / "a.npy", stack), Reading(bands=bands))
    assert (reflectance == stack[..., indices]).all()


@pytest.mark.parametrize("order", ["C", "F"])
@pytest.mark.parametrize("dtype", ["<f4", ">f4", "f2", "f8"])
def test_arrays_of_any_float_and_memory_order(tmp_path: Path, dtype: str, order: Any) -> None:
    stack = lopsided_scene(ROWS, COLS)
    np.save(tmp_path / "a.npy", stack.astype(dtype, order=order))
    reflectance, _ = read(tmp_path / "a.npy")
    assert np.allclose(reflectance, stack, atol=1e-3 if dtype == "f2" else 1e-7)


def test_an_array_is_mapped_and_not_loaded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write_scene_npy(tmp_path / "a.npy", lopsided_scene(ROWS, COLS, 13))
    asked: list[str] = []
    original = np.lib.format.open_memmap

    def spy(*args: Any, **kwargs: Any) -> Any:
        asked.append(kwargs["mode"])
        return original(*args, **kwargs)

    monkeypatch.setattr(np.lib.format, "open_memmap", spy)
    monkeypatch.setattr(np, "load", None)
    monkeypatch.setattr(np, "fromfile", None)
    read(path)
    assert set(asked) == {"r"}


@pytest.mark.parametrize("shape", [(4, 60, 50), (13, 60, 50), (60, 50, 3), (60, 50, 12)])
def test_another_number_of_bands_or_their_axis_first_is_refused(
    tmp_path: Path, shape: tuple[int, ...]
) -> None:
    path = write_scene_npy(tmp_path / "a.npy", np.full(shape, 0.3, dtype=np.float32))
    refused(path, str(shape), "(rows, cols, bands)", "--bands")


@pytest.mark.parametrize(
    "array", [np.float32(1), np.ones(5), np.ones((5, 4)), np.ones((1, 5, 4, 4))]
)
def test_an_array_that_is_no_image_is_refused(tmp_path: Path, array: NDArray[Any]) -> None:
    np.save(tmp_path / "a.npy", array)
    refused(tmp_path / "a.npy", "(rows, cols, bands)")


@pytest.mark.parametrize("dtype", ["bool", "complex64", "U3", "i4,f4"])
def test_an_array_that_holds_no_numbers_is_refused(tmp_path: Path, dtype: str) -> None:
    np.save(tmp_path / "a.npy", np.zeros((5, 6, 4), dtype=dtype))
    refused(tmp_path / "a.npy", "array of numbers")


@pytest.mark.parametrize("shape", [(0, 5, 4), (5, 0, 4), (0, 0, 13)])
def test_an_array_without_pixels_is_refused(tmp_path: Path, shape: tuple[int, ...]) -> None:
    np.save(tmp_path / "a.npy", np.zeros(shape, dtype=np.float32))
    refused(tmp_path / "a.npy", "is empty")


def test_npy_files_that_are_cut_short_are_refused_wherever_the_cut_is(tmp_path: Path) -> None:
    whole = io.BytesIO()
    np.save(whole, lopsided_scene(20, 20))
    path = tmp_path / "a.npy"
    for length in (0, 3, 6, 9, 10, 30, 100, 127, 128, 129, 4000, len(whole.getvalue()) - 1):
        path.write_bytes(whole.getvalue()[:length])
        refused(path, "no readable image", "get the file again")


@given(st.lists(st.tuples(st.integers(0, 127), st.integers(0, 255)), min_size=1, max_size=4))
def test_a_damaged_npy_header_ends_in_no_other_error(
    tmp_path_factory: pytest.TempPathFactory, damage: list[tuple[int, int]]
) -> None:
    whole = io.BytesIO()
    np.save(whole, lopsided_scene(5, 6))
    data = bytearray(whole.getvalue())
    for place, value in damage:
        data[place] = value
    path = tmp_path_factory.getbasetemp() / "damaged.npy"
    path.write_bytes(data)
    try:
        read(path)
    except SceneError as error:
        assert str(path) in str(error)


def test_a_header_with_an_open_bracket_is_refused(tmp_path: Path) -> None:
    # numpy falls back on the tokenizer of Python 2's headers, which has errors of its own.
    np.save(tmp_path / "a.npy", lopsided_scene(5, 6))
    data = (tmp_path / "a.npy").read_bytes().replace(b"}", b"(", 1)
    (tmp_path / "a.npy").write_bytes(data)
    refused(tmp_path / "a.npy", "no readable image")


def test_other_files_named_npy_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.npy"
    path.write_text("This is a text that somebody gave the wrong name.")
    refused(path, "no readable image")
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("arr_0.npy", b"")
    refused(path, "no readable image")
    path.write_bytes(b"PK\x03\x04 and nothing that a zip file needs")
    refused(path, "no readable image")
    np.save(path, np.array([{}, None], dtype=object))
    refused(path, "no readable image")


# GeoTIFF: bands


def test_bands_are_found_by_description_in_any_order(tmp_path: Path) -> None:
    stack = lopsided_scene(ROWS, COLS, 6)
    order = ("B11", "B02", "B08", "B01", "B04", "B03")
    reflectance, valid = read(write_scene_tif(tmp_path / "a.tif", stack, descriptions=order))
    assert np.allclose(reflectance, stack[..., [4, 5, 1, 2]], atol=TOLERANCE)
    assert valid.all()


@pytest.mark.parametrize(
    "names",
    [
        ("nir", "blue", "green", "red"),
        ("NIR", "Blue", "Green", "Red"),
        ("B8", "B2", "B3", "B4"),
        ("b08", " b02 ", "b03", "b04"),
    ],
)
def test_bands_are_found_by_common_names(tmp_path: Path, names: tuple[str, ...]) -> None:
    stack = lopsided_scene(ROWS, COLS)
    reflectance, _ = read(write_scene_tif(tmp_path / "a.tif", stack, descriptions=names))
    assert np.allclose(reflectance, stack[..., [3, 2, 1, 0]], atol=TOLERANCE)


@pytest.mark.parametrize("bands", [("3", "2", "1", "4"), ("swir", "b8", "pan", "4")])
def test_bands_are_taken_as_the_user_says(tmp_path: Path, bands: tuple[str, ...]) -> None:
    stack = lopsided_scene(ROWS, COLS)
    path = write_scene_tif(
        tmp_path / "a.tif", stack, descriptions=("pan", "B08", "SWIR", "unknown")
    )
    reflectance, _ = read(path, Reading(bands=bands))
    assert np.allclose(reflectance, stack[..., [2, 1, 0, 3]], atol=TOLERANCE)


@pytest.mark.parametrize(
    "descriptions",
    [None, ("B04", "B03", "B02", None), ("B04", "B03", "B02", "B8A"), ("B04", "B03", "B04", "B08")],
)
def test_bands_that_are_not_told_clearly_are_asked_for(
    tmp_path: Path, descriptions: tuple[str | None, ...] | None
) -> None:
    path = write_scene_tif(
        tmp_path / "a.tif", lopsided_scene(ROWS, COLS), descriptions=descriptions
    )
    refused(path, "has 4 bands", "--bands 3,2,1,4")
    read(path, Reading(bands=("1", "2", "3", "4")))


@pytest.mark.parametrize("count", [1, 3])
def test_too_few_bands_are_refused(tmp_path: Path, count: int) -> None:
    path = write_scene_tif(tmp_path / "a.tif", lopsided_scene(ROWS, COLS, count), descriptions=None)
    refused(path, f"has {count} bands", "--bands")


@pytest.mark.parametrize("entry", ["0", "5", "-1", "", " ", "²", "3.0", "purple"])
def test_a_band_that_is_not_there_is_refused(tmp_path: Path, entry: str) -> None:
    path = write_scene_tif(
        tmp_path / "a.tif", lopsided_scene(ROWS, COLS), descriptions=("B04", "B03", "B02", None)
    )
    refused(path, "has 4 bands (B04, B03, B02)", reading=Reading(bands=("1", "2", "3", entry)))


def test_a_band_named_twice_is_refused(tmp_path: Path) -> None:
    path = write_scene_tif(tmp_path / "a.tif", lopsided_scene(ROWS, COLS))
    refused(path, "names a band twice", reading=Reading(bands=("1", "2", "3", "red")))
    path = write_scene_npy(tmp_path / "a.npy", lopsided_scene(ROWS, COLS, 13))
    refused(path, "names a band twice", reading=Reading(bands=("nir", "red", "4", "green")))


# Scale and offset


def test_scale_and_offset_come_from_the_file(tmp_path: Path) -> None:
    stack = lopsided_scene(ROWS, COLS)
    path = write_scene_tif(tmp_path / "a.tif", stack, scale=2e-5, offset=-0.1)
    with rasterio.open(path) as source:
        assert source.read().min() > 5000  # the offset is in the numbers
    reflectance, _ = read(path)
    assert np.allclose(reflectance, stack, atol=2e-5)


def test_scale_and_offset_may_differ_by_band_and_follow_it(tmp_path: Path) -> None:
    stack = lopsided_scene(ROWS, COLS)
    path = write_scene_tif(
        tmp_path / "a.tif",
        stack,
        scale=(1e-4, 2e-4, 4e-5, 5e-5),
        offset=(0.0, -0.2, -0.1, 0.01),
        descriptions=("B08", "B02", "B03", "B04"),
    )
    reflectance, _ = read(path)
    assert np.allclose(reflectance, stack[..., [3, 2, 1, 0]], atol=1.1e-4)


@pytest.mark.parametrize(
    ("scale", "offset"),
    [(0.0, 0.0), (-1e-4, 0.0), (nan, 0.0), (inf, 0.0), (1e-4, inf), (1e-4, nan)],
)
def test_a_scale_or_an_offset_of_which_no_reflectance_comes_is_refused(
    tmp_path: Path, scale: float, offset: float
) -> None:
    path = write_scene_tif(tmp_path / "a.tif", dn(), scale=1e-4)
    with rasterio.open(path, "r+") as file:
        file.scales, file.offsets = (1e-4, 1e-4, scale, 1e-4), (0.0, 0.0, offset, 0.0)
    refused(path, f"scale {scale:g}, offset {offset:g}", "--scale")
    assert read(path, Reading(scale=1e-4, offset=0.0))[1].all()


def test_the_offset_of_baseline_0400_is_subtracted(tmp_path: Path) -> None:
    numbers = np.full((2, 3, 4), 1000, dtype=np.uint16)
    numbers[0, 0] = (1001, 2000, 11000, 500)
    reflectance, valid = read(write_scene_tif(tmp_path / "a.tif", numbers, offset=-0.1))
    assert np.allclose(reflectance[0, 0], (0.0001, 0.1, 1.0, -0.05), atol=1e-7)
    assert np.allclose(reflectance[1, 2], 0.0, atol=1e-7)
    assert valid.all()  # a reflectance of 0 is dark, not missing


def test_the_users_scale_and_offset_go_before_the_files(tmp_path: Path) -> None:
    path = write_scene_tif(tmp_path / "a.tif", dn(), scale=1e-4, offset=-0.1)
    reflectance, _ = read(path, Reading(scale=2e-4))
    assert np.allclose(reflectance, dn() * 2e-4 - 0.1, atol=1e-6)
    reflectance, _ = read(path, Reading(offset=0.05))
    assert np.allclose(reflectance, dn() * 1e-4 + 0.05, atol=1e-6)
    reflectance, _ = read(path, Reading(scale=5e-5, offset=0.0))
    assert np.allclose(reflectance, dn() * 5e-5, atol=1e-6)


@pytest.mark.parametrize("dtype", ["uint8", "uint16", "int16", "int32"])
def test_integers_without_a_scale_are_refused(tmp_path: Path, dtype: str) -> None:
    numbers = (dn() // 100).astype(dtype)
    for path in (
        write_scene_tif(tmp_path / "a.tif", numbers, scale=None),
        write_scene_npy(tmp_path / "a.npy", numbers),
    ):
        refused(path, dtype, "--scale", "--offset", "0.0001", "-0.1")
        refused(path, "--scale", reading=Reading(offset=-0.1))
        reflectance, _ = read(path, Reading(scale=0.01))
        assert np.allclose(reflectance, numbers * 0.01, atol=1e-6)


def test_integers_with_a_scale_for_some_bands_or_an_offset_alone_are_refused(
    tmp_path: Path,
) -> None:
    path = write_scene_tif(tmp_path / "a.tif", dn(), scale=(1e-4, 1e-4, 1.0, 1e-4))
    refused(path, "no scale for each band", "--scale")
    path = write_scene_tif(tmp_path / "b.tif", dn(), scale=1.0, offset=-1000.0)
    refused(path, "no scale for each band", "--scale")


@pytest.mark.parametrize("dtype", ["uint16", "int16", "uint8"])
def test_digital_numbers_with_the_users_scale(tmp_path: Path, dtype: str) -> None:
    numbers = (dn() // (100 if dtype == "uint8" else 1)).astype(dtype)
    scale = 0.01 if dtype == "uint8" else 1e-4
    for path in (
        write_scene_tif(tmp_path / "a.tif", numbers, scale=None),
        write_scene_npy(tmp_path / "a.npy", numbers),
    ):
        reflectance, _ = read(path, Reading(scale=scale, offset=-0.05))
        assert np.allclose(reflectance, numbers * scale - 0.05, atol=1e-6)


@pytest.mark.parametrize(
    ("factor", "shift"),
    [
        (100.0, 0.0),  # percent
        (10_000.0, 0.0),  # digital numbers as floats
        (1.0, -2.0),  # standardised
        (1e-4, 0.0),  # scaled twice
    ],
)
def test_floats_that_fit_no_reflectance_are_refused(
    tmp_path: Path, factor: float, shift: float
) -> None:
    numbers = (lopsided_scene(90, 120) * factor + shift).astype(np.float32)
    for path in (
        write_scene_tif(tmp_path / "a.tif", numbers, scale=None),
        write_scene_npy(tmp_path / "a.npy", numbers),
    ):
        refused(path, "fit no reflectance", "--scale", "--offset")
        with open_scene(path, checked=True) as scene:
            assert np.allclose(scene.read()[0], numbers)
    percent = write_scene_npy(tmp_path / "percent.npy", lopsided_scene(90, 120) * 100)
    assert np.allclose(read(percent, Reading(scale=0.01))[0], lopsided_scene(90, 120), atol=1e-6)


@pytest.mark.parametrize(
    ("value", "plausible"),
    [(-0.6, False), (-0.4, True), (5e-4, False), (2e-3, True), (2.9, True), (3.1, False)],
)
def test_the_bounds_of_plausible_reflectance(tmp_path: Path, value: float, plausible: bool) -> None:
    numbers = np.full((9, 9, 4), value, dtype=np.float32)
    if value < 0:
        numbers[:5] = 0.1  # no scene is below 0 all over
    path = write_scene_npy(tmp_path / "a.npy", numbers)
    if plausible:
        assert (read(path)[0] == numbers).all()
    else:
        refused(path, "fit no reflectance")


def test_a_wrong_scale_of_the_users_is_refused(tmp_path: Path) -> None:
    path = write_scene_npy(tmp_path / "a.npy", lopsided_scene(9, 9))
    refused(path, "fit no reflectance", reading=Reading(scale=1e-4))
    refused(path, "fit no reflectance", reading=Reading(scale=1e4))


def test_a_few_glints_do_not_make_a_scene_implausible(tmp_path: Path) -> None:
    stack = lopsided_scene(90, 120)
    stack[40, 50:55] = 6.5535
    reflectance, _ = read(write_scene_npy(tmp_path / "a.npy", stack))
    assert (reflectance == stack).all()


def test_a_small_valid_part_between_the_sampled_windows_is_looked_at(tmp_path: Path) -> None:
    numbers = np.zeros((600, 700, 4), dtype=np.float32)
    numbers[560:566, 180:190] = 2500.0
    refused(write_scene_npy(tmp_path / "a.npy", numbers), "fit no reflectance")


def test_the_check_reads_little_of_a_large_scene(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write_scene_npy(tmp_path / "a.npy", lopsided_scene(700, 800))
    windows: list[Window] = []
    original = NpyScene.read

    def spy(self: NpyScene, window: Window | None = None) -> Any:
        assert window is not None
        windows.append(window)
        return original(self, window)

    monkeypatch.setattr(NpyScene, "read", spy)
    with open_scene(path):
        pass
    assert sum(window.rows * window.cols for window in windows) == 25 * 32 * 32
    assert {window.row for window in windows} == {0, 167, 334, 501, 668}
    assert {window.col for window in windows} == {0, 192, 384, 576, 768}


def test_units_that_the_file_tells_are_known_as_such(tmp_path: Path) -> None:
    told = write_scene_tif(tmp_path / "a.tif", dn())
    untold = write_scene_tif(tmp_path / "b.tif", lopsided_scene(ROWS, COLS), scale=None)
    with open_scene(told) as scene, open_scene(untold) as other:
        assert scene.units_told and not other.units_told
    with open_scene(told, Reading(scale=1e-4)) as scene:
        assert not scene.units_told


@pytest.mark.parametrize(
    ("values", "word"),
    [
        ({"bands": ("1", "2", "3")}, "--bands"),
        ({"bands": ("1", "2", "3", "4", "5")}, "--bands"),
        ({"bands": ("1", "2", "3", "3")}, "--bands"),
        ({"scale": 0.0}, "--scale"),
        ({"scale": -1e-4}, "--scale"),
        ({"scale": float("nan")}, "--scale"),
        ({"scale": float("inf")}, "--scale"),
        ({"offset": float("nan")}, "--offset"),
        ({"offset": float("inf")}, "--offset"),
    ],
)
def test_options_that_cannot_be_are_refused(values: dict[str, Any], word: str) -> None:
    with pytest.raises(SceneError, match=word):
        Reading(**values)


# Windows


@given(row=st.integers(0, 22), col=st.integers(0, 30), rows=st.integers(1, 23), data=st.data())
@pytest.mark.parametrize("kind", ["npy", "tif"])
def test_windows_equal_the_whole(
    tmp_path_factory: pytest.TempPathFactory,
    kind: str,
    row: int,
    col: int,
    rows: int,
    data: st.DataObject,
) -> None:
    path = tmp_path_factory.getbasetemp() / f"windows.{kind}"
    if not path.exists():
        stack = lopsided_scene(23, 31)
        stack[3:9, 20:] = 0.0
        stack[11, 12, 2] = np.nan
        if kind == "npy":
            write_scene_npy(path, stack)
        else:
            write_scene_tif(path, stack, scale=None, tiled=True, blockxsize=16, blockysize=16)
    window = Window(row, col, rows, data.draw(st.integers(1, 31))).clip(23, 31)
    with open_scene(path) as scene:
        whole, whole_valid = scene.read()
        part, part_valid = scene.read(window)
    assert part.shape == (window.rows, window.cols, 4)
    assert (part == whole[window.slices]).all()
    assert (part_valid == whole_valid[window.slices]).all()
    assert not whole_valid.all()


def test_what_is_read_may_be_written_to_without_harm(tmp_path: Path) -> None:
    path = write_scene_npy(tmp_path / "a.npy", lopsided_scene(ROWS, COLS))
    with open_scene(path) as scene:
        first, _ = scene.read()
        kept = first.copy()
        first[:] = 7.0
        assert (scene.read()[0] == kept).all()


# Validity


def test_not_a_number_and_infinity_invalidate_their_pixel_alone(tmp_path: Path) -> None:
    stack = lopsided_scene(ROWS, COLS)
    for index, value in enumerate((np.nan, np.inf, -np.inf)):
        stack[2 * index, 3 + index, index] = value
    expected = np.ones((ROWS, COLS), dtype=bool)
    expected[[0, 2, 4], [3, 4, 5]] = False
    for path in (
        write_scene_npy(tmp_path / "a.npy", stack),
        write_scene_tif(tmp_path / "a.tif", stack, scale=None),
        write_scene_tif(tmp_path / "b.tif", stack, scale=None, nodata=float("nan")),
    ):
        reflectance, valid = read(path)
        assert (valid == expected).all()
        assert (reflectance[~expected] == 0).all()
        assert (reflectance[expected] == stack[expected]).all()


def test_doubles_too_large_for_single_precision_are_no_data(tmp_path: Path) -> None:
    stack = lopsided_scene(ROWS, COLS).astype(np.float64)
    stack[3, 4, 1] = 1e300
    stack[5, 6, 0] = -1.7976931348623157e308
    for path in (
        write_scene_npy(tmp_path / "a.npy", stack),
        write_scene_tif(tmp_path / "a.tif", stack, scale=None, nodata=-1.7976931348623157e308),
    ):
        reflectance, valid = read(path)
        assert np.argwhere(~valid).tolist() == [[3, 4], [5, 6]]
        assert np.isfinite(reflectance).all()


@pytest.mark.parametrize("offset", [0.0, -0.1])
def test_dn_0_in_all_bands_is_no_data_and_in_one_is_not(tmp_path: Path, offset: float) -> None:
    numbers = dn() + np.uint16(2000)
    numbers[2, 3] = 0
    numbers[4, 5, 1] = 0
    for path, reading in (
        (write_scene_tif(tmp_path / "a.tif", numbers, offset=offset), Reading()),
        (write_scene_npy(tmp_path / "a.npy", numbers), Reading(scale=1e-4, offset=offset)),
    ):
        reflectance, valid = read(path, reading)
        assert np.argwhere(~valid).tolist() == [[2, 3]]
        assert (reflectance[2, 3] == 0).all()
        assert reflectance[4, 5, 1] == pytest.approx(offset)


@pytest.mark.parametrize(("nodata", "value"), [(65535, 65535), (0, 0), (1234, 1234)])
def test_the_files_nodata_value_in_any_band_is_no_data(
    tmp_path: Path, nodata: int, value: int
) -> None:
    numbers = dn() | np.uint16(1)  # odd: none is 1234 by chance
    numbers[2, 3, 1] = value
    reflectance, valid = read(write_scene_tif(tmp_path / "a.tif", numbers, nodata=nodata))
    assert np.argwhere(~valid).tolist() == [[2, 3]]
    assert (reflectance[2, 3] == 0).all()


@pytest.mark.parametrize("nodata", [-9999.0, -3.4028234663852886e38, 0.1])
def test_nodata_of_floats_is_found_in_single_precision(tmp_path: Path, nodata: float) -> None:
    stack = lopsided_scene(ROWS, COLS)
    stack[stack == np.float32(nodata)] += np.float32(0.001)
    stack[2, 3, 1] = nodata
    _, valid = read(write_scene_tif(tmp_path / "a.tif", stack, scale=None, nodata=nodata))
    assert np.argwhere(~valid).tolist() == [[2, 3]]
    _, valid = read(write_scene_npy(tmp_path / "a.npy", stack), Reading(nodata=nodata))
    assert np.argwhere(~valid).tolist() == [[2, 3]]


def test_the_users_nodata_replaces_the_files(tmp_path: Path) -> None:
    numbers = dn() | np.uint16(1)
    numbers[2, 3, 1] = 65535
    numbers[4, 5, 0] = 4242
    path = write_scene_tif(tmp_path / "a.tif", numbers, nodata=65535)
    _, valid = read(path, Reading(nodata=4242))
    assert np.argwhere(~valid).tolist() == [[4, 5]]


@pytest.mark.parametrize("nodata", [-1.0, 70000.0, 0.5])
def test_a_nodata_value_that_the_type_cannot_hold_is_nowhere(tmp_path: Path, nodata: float) -> None:
    _, valid = read(write_scene_tif(tmp_path / "a.tif", dn()), Reading(nodata=nodata))
    assert valid.all()


def footprint() -> NDArray[np.bool_]:
    """A valid part without symmetry."""
    row, col = np.mgrid[:ROWS, :COLS]
    return np.asarray(2 * row + col > 6)


@pytest.mark.parametrize("user", [Reading(), Reading(nodata=1)])
def test_an_internal_mask_is_kept_also_beside_a_nodata_value(tmp_path: Path, user: Reading) -> None:
    numbers = dn()
    numbers[6, 7, 2] = 1
    path = write_scene_tif(tmp_path / "a.tif", numbers, mask=footprint())
    _, valid = read(path, user)
    expected = footprint()
    expected[6, 7] = user.nodata is None
    assert (valid == expected).all()

    path = write_scene_tif(tmp_path / "b.tif", numbers, mask=footprint(), nodata=1)
    expected[6, 7] = False
    assert (read(path)[1] == expected).all()


ALPHA = (
    ColorInterp.red,
    ColorInterp.green,
    ColorInterp.blue,
    ColorInterp.undefined,
    ColorInterp.alpha,
)


@pytest.mark.parametrize("nodata", [None, 1])
@pytest.mark.parametrize("user", [Reading(), Reading(nodata=1)])
def test_an_alpha_band_is_the_mask_also_beside_a_nodata_value(
    tmp_path: Path, nodata: int | None, user: Reading
) -> None:
    numbers = np.dstack([dn(), np.where(footprint(), 65535, 0).astype(np.uint16)])
    numbers[6, 7, 2] = 1
    path = write_scene_tif(
        tmp_path / "a.tif",
        numbers,
        nodata=nodata,
        descriptions=("B04", "B03", "B02", "B08", None),
        colorinterp=ALPHA,
    )
    _, valid = read(path, user)
    expected = footprint()
    expected[6, 7] = nodata is None and user.nodata is None
    assert (valid == expected).all()


def test_a_near_infrared_band_that_gdal_takes_for_alpha_is_no_mask(tmp_path: Path) -> None:
    numbers = np.full((ROWS, COLS, 4), 100, dtype=np.uint8)
    numbers[2, 3, 3] = 0  # deep water is black there
    path = write_scene_tif(tmp_path / "a.tif", numbers, scale=0.004)
    with rasterio.open(path) as source:
        assert source.colorinterp[3] == ColorInterp.alpha
    reflectance, valid = read(path)
    assert valid.all()
    assert reflectance[2, 3].tolist() == pytest.approx([0.4, 0.4, 0.4, 0.0])


def test_a_scene_of_one_pixel(tmp_path: Path) -> None:
    for path in (
        write_scene_npy(tmp_path / "a.npy", np.full((1, 1, 13), 0.25, dtype=np.float32)),
        write_scene_tif(tmp_path / "a.tif", np.full((1, 1, 4), 2500, dtype=np.uint16)),
    ):
        reflectance, valid = read(path)
        assert np.allclose(reflectance, np.full((1, 1, 4), 0.25))
        assert valid.tolist() == [[True]]


def test_a_scene_without_a_valid_pixel(tmp_path: Path) -> None:
    for path in (
        write_scene_npy(tmp_path / "a.npy", np.full((40, 50, 4), np.nan, dtype=np.float32)),
        write_scene_npy(tmp_path / "b.npy", np.zeros((40, 50, 13), dtype=np.float32)),
        write_scene_tif(tmp_path / "a.tif", np.zeros((40, 50, 4), dtype=np.uint16)),
        write_scene_tif(tmp_path / "b.tif", np.full((40, 50, 4), 7, np.uint16), nodata=7),
    ):
        reflectance, valid = read(path)
        assert not valid.any()
        assert (reflectance == 0).all()


# Georeferencing


@pytest.mark.parametrize(
    ("crs", "transform", "metres"),
    [
        ("EPSG:32633", Affine(10, 0, 4e5, 0, -10, 5e6), 10.0),
        ("EPSG:32633", Affine(10, 0, 4e5, 0, -20, 5e6), 15.0),
        # Turned by a third of a right angle: its sides stay 20 m.
        ("EPSG:32633", Affine(17.3205, 10, 4e5, 10, -17.3205, 5e6), 20.0),
        # Turned by a right angle, so that rows run east.
        ("EPSG:32633", Affine(0, 20, 4e5, -20, 0, 5e6), 20.0),
        # A foot of the US survey: 0.3048006 m.
        ("EPSG:2263", Affine(100, 0, 9e5, 0, -100, 2e5), 30.48006),
        # On the equator, and on 60 degrees, where a degree of longitude is half as long.
        ("EPSG:4326", Affine(1e-4, 0, 15, 0, -1e-4, ROWS * 0.5e-4), 11.132),
        ("EPSG:4326", Affine(2e-4, 0, 15, 0, -1e-4, 60 + ROWS * 0.5e-4), 11.132),
        ("EPSG:4326", Affine(0, 2e-4, 15, -1e-4, 0, 60 + COLS * 0.5e-4), 11.132),
        ('LOCAL_CS["of a town",UNIT["metre",1]]', Affine(10, 0, 0, 0, -10, 0), None),
        # Degrees wide: the scene's middle counts, on 60 degrees in both.
        ("EPSG:4326", Affine(2, 0, 5, 0, -2, 60 + ROWS), 166_980.0),
        ("EPSG:4326", Affine(0, 2, 5, -2, 0, 60 + COLS), 166_980.0),
        (None, Affine(10, 0, 4e5, 0, -10, 5e6), None),
        (None, Affine.identity(), None),
    ],
)
def test_pixel_size_in_metres(
    tmp_path: Path, crs: str | None, transform: Affine, metres: float | None
) -> None:
    path = write_scene_tif(tmp_path / "a.tif", dn(), crs=crs, transform=transform)
    with open_scene(path) as scene:
        assert scene.pixel_m == (None if metres is None else pytest.approx(metres, rel=1e-4))


def test_the_grid_is_given_as_it_is_in_the_file(tmp_path: Path) -> None:
    turned = Affine(0.5, 0.8, 4e5, 0.8, -0.5, 5e6)
    with open_scene(write_scene_tif(tmp_path / "a.tif", dn(), transform=turned)) as scene:
        assert scene.transform.almost_equals(turned)
        assert scene.crs.to_epsg() == 32633
        assert (scene.rows, scene.cols, scene.name) == (ROWS, COLS, "a")
    local = Affine(1.0, 0.0, 100.0, 0.0, -1.0, 200.0)  # metres of a local grid, without a CRS
    with open_scene(write_scene_tif(tmp_path / "b.tif", dn(), crs=None, transform=local)) as scene:
        assert scene.transform.almost_equals(local)
    with open_scene(write_scene_tif(tmp_path / "c.tif", dn(), crs=None, transform=None)) as scene:
        assert scene.transform is None and scene.crs is None
    with open_scene(write_scene_npy(tmp_path / "d.npy", lopsided_scene(3, 4))) as scene:
        assert scene.transform is None and scene.crs is None and scene.pixel_m is None


# Files that are no scenes


def test_a_missing_file_is_told(tmp_path: Path) -> None:
    refused(tmp_path / "none.tif", "does not exist")
    refused(tmp_path / "none.npy", "does not exist")


@pytest.mark.parametrize("name", ["folder", "folder.tif", "folder.npy"])
def test_a_folder_is_told(tmp_path: Path, name: str) -> None:
    (tmp_path / name).mkdir()
    refused(tmp_path / name, "is a folder")


def test_a_text_named_tif_is_told(tmp_path: Path) -> None:
    path = tmp_path / "a.tif"
    path.write_text("This is a text that somebody gave the wrong name.")
    refused(path, "no readable image")
    path.write_bytes(b"")
    refused(path, "no readable image")


@pytest.mark.parametrize("share", [0.001, 0.3, 0.6, 0.98])
@pytest.mark.parametrize("compress", [None, "deflate"])
def test_a_tiff_cut_short_is_told(tmp_path: Path, share: float, compress: str | None) -> None:
    rng = np.random.default_rng(0)
    numbers = rng.integers(1, 9999, (80, 90, 4)).astype(np.uint16)
    extra: dict[str, Any] = {} if compress is None else {"compress": compress}
    whole = write_scene_tif(tmp_path / "whole.tif", numbers, **extra).read_bytes()
    path = tmp_path / "cut.tif"
    path.write_bytes(whole[: int(share * len(whole))])
    refused(path)


def test_complex_numbers_are_told(tmp_path: Path) -> None:
    path = write_scene_tif(tmp_path / "a.tif", dn().astype(np.complex64), scale=None)
    refused(path, "complex")


def test_an_error_of_the_systems_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write_scene_npy(tmp_path / "a.npy", lopsided_scene(3, 4))

    def denied(*_: object, **__: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(np.lib.format, "open_memmap", denied)
    refused(path, "Permission denied")


def test_a_file_is_given_back_when_its_scene_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened: list[Any] = []
    original = rasterio.open

    def spy(*args: Any) -> Any:
        opened.append(original(*args))
        return opened[-1]

    write_scene_tif(tmp_path / "a.tif", lopsided_scene(5, 5) * 100, scale=None)
    write_scene_tif(tmp_path / "b.tif", dn(), descriptions=None)
    write_scene_tif(tmp_path / "c.tif", dn())
    monkeypatch.setattr("cloudnet.raster.rasterio.open", spy)
    refused(tmp_path / "a.tif", "fit no reflectance")
    refused(tmp_path / "b.tif", "--bands")
    read(tmp_path / "c.tif")
    assert [source.closed for source in opened] == [True, True, True]


# Folders


def test_scene_files_are_listed_by_name(tmp_path: Path) -> None:
    for name in ("b.tif", "a.npy", "C.TIFF", "d.txt", ".hidden.tif", "a.tif.aux.xml", "e.TIF"):
        (tmp_path / name).write_text("")
    assert [path.name for path in find_scene_files(tmp_path)] == [
        "C.TIFF",
        "a.npy",
        "b.tif",
        "e.TIF",
    ]
    with pytest.raises(SceneError, match="none cannot be listed"):
        find_scene_files(tmp_path / "none")


# Real scenes


def test_a_real_scene_of_the_catalogues_layout(real_scenes: Path) -> None:
    path = sorted((real_scenes / "catalogue" / "subscenes").glob("*.npy"))[0]
    stack = np.load(path)
    reflectance, valid = read(path)
    red, green, blue, nir = (CATALOGUE_BANDS.index(band) for band in ("B04", "B03", "B02", "B08"))
    assert (reflectance[valid] == stack[..., [red, green, blue, nir]][valid]).all()
    assert valid.any()


def test_a_real_georeferenced_scene(real_scenes: Path) -> None:
    path = real_scenes / "rgbn" / "scenes" / "alberta_20190522_l2a.tif"
    with open_scene(path) as scene:
        assert sorted((scene.rows, scene.cols)) == [1284, 1697]
        assert scene.units_told
        reflectance, valid = scene.read(Window(600, 700, 64, 80))
    with rasterio.open(path) as source:
        numbers = source.read(window=rasterio.windows.Window(700, 600, 80, 64))
    assert valid.all()
    assert np.allclose(reflectance, np.moveaxis(numbers, 0, 2) * 1e-4, atol=1e-6)
