"""Products: what another program reads back from a mask, a probability and a summary."""

from __future__ import annotations

import json
import resource
from collections.abc import Iterator
from contextlib import contextmanager
from math import nan
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from rasterio.enums import ColorInterp, Compression
from rasterio.errors import NotGeoreferencedWarning
from rasterio.transform import Affine

from cloudnet import product
from cloudnet.files import quiet
from cloudnet.product import (
    MASK_COLOURS,
    Outputs,
    open_layer,
    overview_factors,
    to_percent,
    write_summary,
)
from cloudnet.scene import open_scene
from cloudnet.tiles import Window
from tests.helpers import UTM_10M, lopsided_scene, write_scene_npy, write_scene_tif

TAGS = {"MODEL": "some 1", "THRESHOLD": "0.5"}
ROTATED = Affine(8.6, 5.0, 399960.0, 5.0, -8.6, 5300040.0)


def noise(rows: int, cols: int, values: int) -> NDArray[np.uint8]:
    return np.random.default_rng(4).integers(0, values, (rows, cols)).astype(np.uint8)


def write_layer(
    path: Path, scene_path: Path, kind: str, values: NDArray[np.uint8], rows: int = 100
) -> Path:
    """Write a layer on a scene's grid, some rows at a time."""
    with open_scene(scene_path) as scene, open_layer(path, scene, kind, TAGS) as layer:
        for row in range(0, scene.rows, rows):
            part = values[row : row + rows]
            layer.write(Window(row, 0, *part.shape), part)
    return path


@pytest.fixture(scope="module")
def layers(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A mask and a probability of 300 x 700 pixels."""
    folder = tmp_path_factory.mktemp("layers")
    scene = write_scene_tif(folder / "scene.tif", lopsided_scene(300, 700))
    mask = np.where(noise(300, 700, 9) == 8, 255, noise(300, 700, 2)).astype(np.uint8)
    return {
        "mask": write_layer(folder / "mask.tif", scene, "cloud mask", mask),
        "probability": write_layer(
            folder / "probability.tif", scene, "cloud probability", noise(300, 700, 101)
        ),
    }


@pytest.mark.parametrize("kind", ["mask", "probability"])
def test_a_layer_is_a_tiled_compressed_geotiff_on_the_scenes_grid(
    layers: dict[str, Path], kind: str
) -> None:
    with rasterio.open(layers[kind]) as file:
        assert (file.driver, file.count, file.dtypes) == ("GTiff", 1, ("uint8",))
        assert file.shape == (300, 700)
        assert file.crs == rasterio.CRS.from_epsg(32633)
        assert file.transform == UTM_10M
        assert file.nodata == 255
        assert file.compression == Compression.deflate
        assert file.profile["tiled"]
        assert file.block_shapes == [(256, 256)]
        assert file.overviews(1) == [2, 4]
        assert file.descriptions == (f"cloud {kind}",)
        assert TAGS.items() <= file.tags().items()
    assert [path.name for path in layers[kind].parent.glob(f"{kind}.*")] == [f"{kind}.tif"]


def test_a_mask_holds_what_was_written_and_its_colours(layers: dict[str, Path]) -> None:
    with rasterio.open(layers["mask"]) as file:
        expected = np.where(noise(300, 700, 9) == 8, 255, noise(300, 700, 2))
        np.testing.assert_array_equal(file.read(1), expected)
        assert file.colorinterp == (ColorInterp.palette,)
        colours = file.colormap(1)
        assert {value: colours[value][:3] for value in MASK_COLOURS} == {
            0: (0, 0, 0),
            1: (255, 255, 255),
            255: (128, 128, 128),
        }
        overview = file.read(1, out_shape=(150, 350))
        assert set(np.unique(overview)) <= {0, 1, 255}
        assert file.scales == (1.0,)


def test_a_probability_says_its_scale_and_its_overviews_are_means(
    layers: dict[str, Path],
) -> None:
    with rasterio.open(layers["probability"]) as file:
        np.testing.assert_array_equal(file.read(1), noise(300, 700, 101))
        assert file.scales == (0.01,)
        assert file.offsets == (0.0,)
        with pytest.raises(ValueError, match="color"):
            file.colormap(1)
        overview = file.read(1, out_shape=(150, 350)).astype(float)
    means = noise(300, 700, 101).reshape(150, 2, 350, 2).mean(axis=(1, 3))
    assert np.abs(overview - means).max() <= 1.0


@pytest.mark.parametrize(
    ("crs", "transform"),
    [
        ("EPSG:4326", Affine(1e-4, 0, 11.0, 0, -1e-4, 47.0)),
        ("EPSG:32633", ROTATED),
        (None, UTM_10M),
    ],
)
def test_georeferencing_is_kept(tmp_path: Path, crs: str | None, transform: Affine) -> None:
    scene = write_scene_tif(
        tmp_path / "scene.tif", lopsided_scene(30, 20), crs=crs, transform=transform
    )
    path = write_layer(tmp_path / "mask.tif", scene, "cloud mask", noise(30, 20, 2))
    with rasterio.open(path) as file, rasterio.open(scene) as source:
        assert file.crs == source.crs
        assert file.transform == source.transform == transform


def test_a_scene_without_georeferencing_has_layers_without(tmp_path: Path) -> None:
    scene = write_scene_npy(tmp_path / "scene.npy", lopsided_scene(30, 20))
    path = write_layer(tmp_path / "mask.tif", scene, "cloud mask", noise(30, 20, 2))
    with quiet(NotGeoreferencedWarning), rasterio.open(path) as file:
        assert file.crs is None
        assert file.transform == Affine.identity()
        np.testing.assert_array_equal(file.read(1), noise(30, 20, 2))


def test_a_layer_of_one_pixel_has_no_overview(tmp_path: Path) -> None:
    scene = write_scene_npy(tmp_path / "scene.npy", lopsided_scene(1, 1))
    path = write_layer(tmp_path / "mask.tif", scene, "cloud mask", np.ones((1, 1), np.uint8))
    with quiet(NotGeoreferencedWarning), rasterio.open(path) as file:
        assert file.read(1).tolist() == [[1]]
        assert file.overviews(1) == []


@contextmanager
def files_limited_to(size: int) -> Iterator[None]:
    """Let no file of this process grow beyond `size` bytes: what a full disk does to GDAL."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


@pytest.mark.parametrize(
    ("rows", "cols", "size"),
    [
        # Room for nothing, a part of the header, of the pixels, of the overviews; of 260 kB in all.
        *((400, 600, size) for size in (0, 100, 20_000, 205_000, 240_000)),
        # A layer without overviews, 43 kB: GDAL closes it without a word.
        *((200, 250, size) for size in (1_000, 30_000)),
    ],
)
def test_a_layer_that_does_not_fit_on_the_disk_is_an_os_error(
    tmp_path: Path, rows: int, cols: int, size: int
) -> None:
    scene = write_scene_npy(tmp_path / "scene.npy", lopsided_scene(rows, cols))
    with pytest.raises(OSError), files_limited_to(size):
        write_layer(tmp_path / "p.tif", scene, "cloud probability", noise(rows, cols, 101))


@given(rows=st.integers(1, 20_000), cols=st.integers(1, 20_000))
def test_overviews_end_where_the_layer_fits_one_block(rows: int, cols: int) -> None:
    factors = overview_factors(rows, cols)
    assert factors == [2 ** (index + 1) for index in range(len(factors))]
    smallest = max(rows, cols) / (factors[-1] if factors else 1)
    assert smallest <= 256
    assert not factors or smallest > 128


def test_probability_in_per_cent() -> None:
    probability = np.array([[0.0, 0.004, 0.006, 0.5], [0.996, 1.0, nan, 0.29]], dtype=np.float32)
    percent = to_percent(probability)
    assert percent.dtype == np.uint8
    np.testing.assert_array_equal(percent, [[0, 0, 1, 50], [100, 100, 255, 29]])


def test_products_lie_side_by_side_under_the_scenes_name() -> None:
    outputs = Outputs(Path("out"), "S2A_scene.v1")
    everything = outputs.wanted(probability=True, quicklook=True)
    assert {kind: path.name for kind, path in everything.items()} == {
        "mask": "S2A_scene.v1_cloudmask.tif",
        "probability": "S2A_scene.v1_cloudprobability.tif",
        "quicklook": "S2A_scene.v1_quicklook.png",
        "summary": "S2A_scene.v1_cloudmask.json",
    }
    assert list(everything) == ["mask", "probability", "quicklook", "summary"]
    assert list(outputs.wanted(probability=False, quicklook=False)) == ["mask", "summary"]
    assert {path.parent for path in everything.values()} == {Path("out")}


def test_a_summary_is_json_that_every_reader_takes(tmp_path: Path) -> None:
    content: dict[str, Any] = {"scene": "Köln", "cloud_share": None, "threshold": 0.5}
    write_summary(tmp_path / "s.json", content)
    text = (tmp_path / "s.json").read_text(encoding="utf-8")
    assert json.loads(text) == content
    assert text.endswith("}\n")
    with pytest.raises(ValueError, match="JSON compliant"):
        write_summary(tmp_path / "s.json", {"cloud_share": nan})


def test_a_fault_of_the_block_is_not_hidden(tmp_path: Path) -> None:
    scene = write_scene_npy(tmp_path / "scene.npy", lopsided_scene(3, 4))

    with (
        pytest.raises(KeyError, match="mine"),
        open_scene(scene) as source,
        open_layer(tmp_path / "mask.tif", source, "cloud mask", {}),
    ):
        raise KeyError("mine")


def test_the_colours_are_those_of_the_mask_values() -> None:
    assert set(product.MASK_COLOURS) == {0, 1, 255}
