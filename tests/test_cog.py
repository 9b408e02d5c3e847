"""COGs: what another program reads back from a mask and a probability."""

from __future__ import annotations

import resource
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
import rasterio
from numpy.typing import NDArray
from rasterio.enums import ColorInterp, Compression
from rasterio.errors import NotGeoreferencedWarning
from rasterio.transform import Affine

from cloudnet.cog import publish_layer
from cloudnet.files import quiet
from cloudnet.layer import MASK_COLOURS, open_layer
from cloudnet.map_grid import MapGrid
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
    """Write a COG on a scene's grid, some rows at a time."""
    scratch = path.with_name(f"scratch_{path.name}")
    with open_scene(scene_path) as scene:
        grid = MapGrid.of(scene)
    with open_layer(scratch, grid, kind, TAGS) as layer:
        for row in range(0, grid.rows, rows):
            part = values[row : row + rows]
            layer.write(Window(row, 0, *part.shape), part)
    counts = publish_layer(scratch, path)
    np.testing.assert_array_equal(counts, np.bincount(values.ravel(), minlength=256))
    scratch.unlink()
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
        assert file.block_shapes == [(512, 512)]
        assert file.overviews(1) == [2]
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


@pytest.mark.parametrize("kind", ["mask", "probability"])
def test_rio_cogeo_takes_it_for_a_cog(layers: dict[str, Path], kind: str) -> None:
    cogeo = pytest.importorskip("rio_cogeo.cogeo")
    assert cogeo.cog_validate(layers[kind], strict=True) == (True, [], [])


def test_overviews_of_a_mask_are_nearest(layers: dict[str, Path]) -> None:
    with rasterio.open(layers["mask"]) as file:
        whole, overview = file.read(1), file.read(1, out_shape=(150, 350))
    choices = whole.reshape(150, 2, 350, 2).transpose(0, 2, 1, 3).reshape(150, 350, 4)
    assert (choices == overview[..., np.newaxis]).any(axis=2).all()


def test_a_fault_of_the_block_is_not_hidden(tmp_path: Path) -> None:
    with (
        pytest.raises(KeyError, match="mine"),
        open_layer(tmp_path / "mask.tif", MapGrid(3, 4), "cloud mask", {}),
    ):
        raise KeyError("mine")


def test_the_colours_are_those_of_the_mask_values() -> None:
    assert set(MASK_COLOURS) == {0, 1, 255}
