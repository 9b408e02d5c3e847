"""DataArrays go in and come out with their coordinates, lazily, and equal to arrays."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from cloudnet.dataarray import open_dataarray, predict_dataarray
from cloudnet.errors import ModelError, SceneError
from cloudnet.runtime import CloudModel, load_model
from cloudnet.scene import open_scene
from tests.helpers import UTM_10M, lopsided_scene, write_scene_tif
from tests.products import lopsided_numbers, write_safe

xarray = pytest.importorskip("xarray", reason="the xarray extra is not installed")
pytest.importorskip("dask.array", reason="the xarray extra is not installed")


@pytest.fixture(scope="module")
def model() -> CloudModel:
    return load_model("s2-rgbn")


def noisy(rows: int = 300, cols: int = 420) -> Any:
    values = lopsided_scene(rows, cols)
    values += np.random.default_rng(2).normal(0, 0.05, values.shape).astype(np.float32)
    return np.abs(values) + np.float32(0.01)


def test_a_product_becomes_a_lazy_array_with_coordinates(tmp_path: Path) -> None:
    numbers = lopsided_numbers(40, 50)
    numbers[3, 7] = 0
    product = write_safe(tmp_path, numbers)
    array = open_dataarray(product, chunk_px=16)
    assert array.dims == ("y", "x", "band")
    assert array.chunks == ((16, 16, 8), (16, 16, 16, 2), (4,))
    with open_scene(product) as scene:
        reflectance, valid = scene.read()
        assert array.name == scene.name
    reflectance[~valid] = np.nan
    np.testing.assert_array_equal(array.values, reflectance)
    assert float(array.x[0]) == UTM_10M.c + 5 and float(array.y[2]) == UTM_10M.f - 25
    assert list(array.band.values) == ["B04", "B03", "B02", "B08"]
    assert array.attrs["level"] == "L2A" and array.attrs["transform"] == tuple(UTM_10M)[:6]


def test_a_scene_without_a_place_has_no_coordinates_but_bands(tmp_path: Path) -> None:
    path = write_scene_tif(tmp_path / "a.tif", lopsided_scene(9, 8), crs=None, transform=None)
    assert list(open_dataarray(path).coords) == ["band"]


def test_an_array_is_predicted_and_keeps_its_coordinates(model: CloudModel) -> None:
    values = noisy(90, 70)
    values[5, 6, 2] = np.nan
    given = xarray.DataArray(
        values[..., [3, 0, 1, 2]].transpose(2, 0, 1),
        {"band": ["nir", "red", "green", "blue"], "x": np.arange(70) * 2.0, "time": 5},
        ("band", "y", "x"),
        attrs={"crs": "somewhere"},
    )
    probability = predict_dataarray(given, model)
    np.testing.assert_array_equal(probability.values, model.predict(values))
    assert probability.dims == ("y", "x") and np.isnan(probability.values[5, 6])
    assert sorted(probability.coords) == ["time", "x"]
    assert probability.attrs == {"crs": "somewhere"}
    np.testing.assert_array_equal(probability.x, given.x)


@pytest.mark.parametrize("sides", [(300, 420), (256, 300)])
def test_a_lazy_array_is_predicted_lazily_and_alike(
    model: CloudModel, monkeypatch: pytest.MonkeyPatch, sides: tuple[int, int]
) -> None:
    monkeypatch.setattr("cloudnet.dataarray.CHUNK_PX", 128)
    values = noisy(*sides)
    lazy = xarray.DataArray(values, dims=("y", "x", "band")).chunk({"y": 50, "x": 70})
    probability = predict_dataarray(lazy, model)
    assert probability.chunks is not None and len(probability.chunks[0]) > 1
    assert np.abs(probability.values - model.predict(values)).max() < 1e-3


def test_a_lazy_array_is_predicted_by_other_processes(model: CloudModel) -> None:
    values = noisy()
    lazy = xarray.DataArray(values, dims=("y", "x", "band")).chunk({"y": 150})
    probability = predict_dataarray(lazy, model).compute(scheduler="processes", num_workers=1)
    np.testing.assert_allclose(probability.values, model.predict(values), rtol=0, atol=1e-3)


@pytest.mark.parametrize("sides", [(7, 9), (300, 9), (0, 9)])
def test_a_lazy_array_below_the_halo_is_predicted(
    model: CloudModel, monkeypatch: pytest.MonkeyPatch, sides: tuple[int, int]
) -> None:
    monkeypatch.setattr("cloudnet.dataarray.CHUNK_PX", 128)
    values = noisy(*sides)
    lazy = xarray.DataArray(values, dims=("y", "x", "band")).chunk({"y": 50})
    expected = model.predict(values)
    np.testing.assert_allclose(predict_dataarray(lazy, model).values, expected, rtol=0, atol=1e-3)


def test_a_chunk_without_pixels_is_refused(tmp_path: Path) -> None:
    path = write_scene_tif(tmp_path / "a.tif", lopsided_scene(9, 8))
    with pytest.raises(SceneError, match="a chunk has a side of 1 px or more, not 0"):
        open_dataarray(path, chunk_px=0)


def test_arrays_that_are_no_scene(model: CloudModel) -> None:
    with pytest.raises(SceneError, match="dimensions lat, lon"):
        predict_dataarray(xarray.DataArray(np.zeros((3, 4)), dims=("lat", "lon")), model)
    six = xarray.DataArray(np.zeros((3, 4, 6)), dims=("y", "x", "band"))
    with pytest.raises(SceneError, match="the DataArray has 6 bands"):
        predict_dataarray(six, model)
    numbered = xarray.DataArray(np.zeros((3, 4, 4)), {"band": range(1, 5)}, ("y", "x", "band"))
    with pytest.raises(SceneError, match=r"4 bands \(1, 2, 3, 4\); call .* B04, B03, B02, B08"):
        predict_dataarray(numbered, model)
    numbers = xarray.DataArray(np.full((3, 4, 4), 3000), dims=("y", "x", "band"))
    with pytest.raises(ModelError, match="digital numbers"):
        predict_dataarray(numbers, model)
