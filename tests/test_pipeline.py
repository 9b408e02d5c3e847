"""The input pipeline, on scenes whose pixels say where they are."""

from __future__ import annotations

import itertools
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

pytest.importorskip("tensorflow", reason="the train extra is not installed")

import tensorflow as tf

from cloudnet.augment import NO_AUGMENTATION, Augmentation
from cloudnet.dataset import LabelledScene, open_dataset
from cloudnet.errors import CloudnetError, DatasetError, SceneError
from cloudnet.mixture import COMPOSED, PASTED, REAL, SIMULATED, Mixture, survey
from cloudnet.pipeline import (
    SIMULATED_BRIGHTNESS,
    BlockReader,
    TrainingTiles,
    training_dataset,
    validation_dataset,
)
from cloudnet.scene import Scene
from cloudnet.spec import CLEAR, CLOUD, NO_DATA
from cloudnet.tiles import Window
from tests.helpers import (
    product_name,
    to_catalogue_bands,
    write_labelled_scene,
    write_mask_npy,
    write_mask_tif,
    write_scene_npy,
    write_scene_tif,
)

TILE_PX = 16
SIZES = [(70, 33), (20, 30), (7, 50), (16, 16), (3, 2)]
"""Larger than a tile, smaller on one side or both, and just a tile."""

LAYOUTS = ["geotiff", "catalogue"]
FIRST, STEP = 0.01, 1 / 500
FLIPS = replace(NO_AUGMENTATION, flips=True)

Tile = tuple[NDArray[np.float32], NDArray[np.float32]]


def marked_scene(number: int, rows: int, cols: int) -> NDArray[np.float32]:
    """Row in red, column in green, the scene's number in blue; a few pixels without data."""
    row, col = np.mgrid[:rows, :cols]
    bands = [FIRST + STEP * row, FIRST + STEP * col, np.full_like(row, 0.1 * (number + 1), float)]
    scene = np.stack([*bands, np.full((rows, cols), 0.3)], axis=2).astype(np.float32)
    scene[(row * 5 + col) % 23 == 22] = np.nan
    return scene


def marked_mask(rows: int, cols: int) -> NDArray[np.uint8]:
    """Cloud, clear and unlabelled in a pattern without symmetry."""
    row, col = np.mgrid[:rows, :cols]
    mask = ((row * 7 + col * 3) % 5 < 2).astype(np.uint8)
    mask[(row * 3 + col * 2) % 11 > 8] = 255
    return mask


def counted(rows: int, cols: int) -> NDArray[np.bool_]:
    """Where a pixel is labelled and has data."""
    data = np.isfinite(marked_scene(0, rows, cols)).all(axis=2)
    return data & (marked_mask(rows, cols) != 255)


def write_marked(folder: Path, layout: str, sizes: list[tuple[int, int]]) -> list[LabelledScene]:
    for number, size in enumerate(sizes):
        scene, mask = marked_scene(number, *size), marked_mask(*size)
        if layout == "geotiff":
            write_scene_tif(folder / "scenes" / f"scene{number}.tif", scene, scale=None)
            write_mask_tif(folder / "masks" / f"scene{number}.tif", mask)
        else:
            name = product_name(number, 1)
            write_scene_npy(folder / "subscenes" / f"{name}.npy", to_catalogue_bands(scene))
            write_mask_npy(folder / "masks" / f"{name}.npy", mask)
    return list(open_dataset([folder]).scenes)


@pytest.fixture(scope="module", params=LAYOUTS)
def scenes(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> list[LabelledScene]:
    """Marked scenes of `SIZES` in each layout; not to be changed."""
    return write_marked(tmp_path_factory.mktemp("marked") / "data", request.param, SIZES)


@pytest.fixture(scope="module")
def array_scenes(tmp_path_factory: pytest.TempPathFactory) -> list[LabelledScene]:
    """Marked scenes of `SIZES` as arrays, where the layout does not matter; not to be changed."""
    return write_marked(tmp_path_factory.mktemp("marked") / "data", "catalogue", SIZES)


def training_tiles(
    scenes: list[LabelledScene], least: int = 1, seed: int = 0, tile_px: int = TILE_PX
) -> TrainingTiles:
    return TrainingTiles(tuple(scenes), tile_px, least, seed)


def batches(
    tiles: TrainingTiles,
    augmentation: Augmentation = FLIPS,
    epochs: range = range(1),
    batch: int = 8,
    reader: BlockReader | None = None,
) -> list[Tile]:
    dataset = training_dataset(
        tiles, reader or BlockReader(tiles.scenes), augmentation, batch, epochs
    )
    return [(image.numpy(), target.numpy()) for image, target in dataset]


def single(found: list[Tile]) -> Iterator[Tile]:
    """The tiles of batches, one by one."""
    for images, targets in found:
        yield from zip(images, targets, strict=True)


def decode(image: NDArray[np.float32]) -> tuple[NDArray[np.bool_], NDArray[np.int64], int]:
    """Where a tile shows data, row and column (2, pixels) of those pixels, and their scene."""
    shown = image[..., 3] > 0
    row, col = (np.rint((image[..., band][shown] - FIRST) / STEP).astype(int) for band in (0, 1))
    numbers = set(np.rint(image[..., 2][shown] * 10).astype(int) - 1)
    assert len(numbers) == 1, "a tile shows one scene"
    return shown, np.stack([row, col]), numbers.pop()


def assert_one_place(image: NDArray[np.float32], target: NDArray[np.float32]) -> int:
    """Assert that image, label and weight of a tile are of the same pixels; return its scene."""
    shown, places, number = decode(image)
    assert not image[~shown].any() and not target[..., 1][~shown].any()
    mask = marked_mask(*SIZES[number])[tuple(places)]
    np.testing.assert_array_equal(target[..., 1][shown], mask != 255)
    np.testing.assert_array_equal(target[..., 0][shown], mask == 1)
    return number


# Training.


def test_image_label_and_weight_of_a_training_tile_are_of_one_place(
    scenes: list[LabelledScene],
) -> None:
    numbers = Counter()
    for image, target in single(batches(training_tiles(scenes, least=60))):
        assert image.shape == (TILE_PX, TILE_PX, 4) and target.shape == (TILE_PX, TILE_PX, 2)
        number = assert_one_place(image, target)
        rows, cols = SIZES[number]
        shown, places, _ = decode(image)
        # As much of the scene as goes into a tile, and each pixel once.
        inside = min(rows, TILE_PX) * min(cols, TILE_PX)
        assert 0.85 * inside <= shown.sum() <= inside
        assert len({tuple(place) for place in places.T}) == places.shape[1]
        numbers[number] += 1
    assert set(numbers) == set(range(len(SIZES)))


def test_tiles_are_turned(array_scenes: list[LabelledScene]) -> None:
    turns = set()
    for image, _ in single(batches(training_tiles(array_scenes[:1], least=120))):
        _, places, _ = decode(image)
        # The first two pixels with data, and the first of the next rows, tell the turn.
        along = tuple(np.sign(places[:, 1] - places[:, 0]))
        down = tuple(np.sign(places[:, -1] - places[:, 0]))
        turns.add((along, down))
    assert len({along for along, _ in turns}) == 4 and len(turns) >= 8


def test_training_tiles_fall_on_every_offset_and_nowhere_else(
    array_scenes: list[LabelledScene], tmp_path: Path
) -> None:
    rows, cols = TILE_PX + 3, TILE_PX + 2
    (scene,) = write_marked(tmp_path / "data", "catalogue", [(rows, cols)])
    read: Counter[tuple[int, int]] = Counter()

    class Spy(BlockReader):
        def read(self, index: int, window: Window, keep: Window) -> Any:
            read[window.row, window.col] += 1
            assert (window.rows, window.cols) == (TILE_PX, TILE_PX) and keep == window
            return super().read(index, window, keep)

    tiles = training_tiles([scene], least=300)
    batches(tiles, NO_AUGMENTATION, reader=Spy(tiles.scenes), batch=100)
    assert set(read) == {(row, col) for row in range(4) for col in range(3)}
    assert max(read.values()) < 3 * min(read.values()), "each about as often"


def test_an_epoch_covers_each_scene_by_its_area_and_has_the_tiles_asked_for(
    array_scenes: list[LabelledScene],
) -> None:
    # 70 x 33 pixels are 9.02 tiles' worth, 20 x 30 2.3, 7 x 50 1.4, 16 x 16 one, 3 x 2 a bit.
    once = Counter({0: 10, 1: 3, 2: 2, 3: 1, 4: 1})
    assert Counter(training_tiles(array_scenes).index.tolist()) == once
    for least, rounds in ((17, 1), (18, 2), (51, 3), (52, 4)):
        tiles = training_tiles(array_scenes, least=least)
        wanted = {number: count * rounds for number, count in once.items()}
        assert Counter(tiles.index.tolist()) == wanted
        for epoch in (0, 5):
            plan, seeds = tiles.epoch(epoch)
            assert plan.dtype == np.int64 and plan.shape == (tiles.count, 3)
            assert Counter(plan[:, 0].tolist()) == wanted
            assert (plan[:, 1] == REAL).all() and (plan[:, 2] == plan[:, 0]).all()
            assert seeds.shape == (len(plan), 2) and len(np.unique(seeds, axis=0)) == len(plan)


def test_the_index_is_shuffled_as_a_whole_and_anew_each_epoch(
    array_scenes: list[LabelledScene],
) -> None:
    tiles = training_tiles(array_scenes, least=340)
    orders = [tiles.epoch(epoch)[0][:, 0] for epoch in range(3)]
    for one, other in ((0, 1), (1, 2), (0, 2)):
        assert (orders[one] != orders[other]).any()
    for order in orders:
        # Tiles of one scene are spread over the epoch, those of the index' end too.
        places = np.flatnonzero(order == 0) / len(order)
        assert places.min() < 0.05 and places.max() > 0.95 and abs(places.mean() - 0.5) < 0.1
        first, second = order[: len(order) // 2], order[len(order) // 2 :]
        assert 0.7 < (first == 0).sum() / (second == 0).sum() < 1.4
    other = training_tiles(array_scenes, least=340, seed=1).epoch(0)[0][:, 0]
    assert (other != orders[0]).any()


class SlowAtTimes(BlockReader):
    """A reader that takes long for one block in nine, so that tiles are ready out of order."""

    def __init__(self, scenes: Sequence[LabelledScene]) -> None:
        super().__init__(scenes)
        self.count = itertools.count()

    def read(self, index: int, window: Window, keep: Window) -> Any:
        time.sleep(0.15 * (next(self.count) % 9 == 0))
        return super().read(index, window, keep)


def test_batches_come_in_the_order_of_the_epoch(array_scenes: list[LabelledScene]) -> None:
    tiles = training_tiles(array_scenes, least=30)
    reader = SlowAtTimes(tiles.scenes)
    found = batches(tiles, epochs=range(2), batch=8, reader=reader)
    count = len(tiles.index)
    assert [len(image) for image, _ in found] == 2 * [*[8] * (count // 8), count % 8]
    shown = [decode(image)[2] for image, _ in single(found)]
    assert shown == [*tiles.epoch(0)[0][:, 0], *tiles.epoch(1)[0][:, 0]]


def test_a_resumed_pipeline_gives_the_batches_that_were_left(
    array_scenes: list[LabelledScene],
) -> None:
    tiles, everything = training_tiles(array_scenes), Augmentation()
    whole = batches(tiles, everything, range(3))
    steps = len(whole) // 3
    tail = batches(tiles, everything, range(1, 3))
    assert len(tail) == 2 * steps
    for (image, target), (wanted_image, wanted_target) in zip(tail, whole[steps:], strict=True):
        np.testing.assert_array_equal(image, wanted_image)
        np.testing.assert_array_equal(target, wanted_target)
    # Nor is it the same epoch again and again, or the same whatever the seed.
    assert all((whole[0][0] != whole[epoch * steps][0]).any() for epoch in (1, 2))
    other = batches(training_tiles(array_scenes, seed=1), everything, range(1))
    assert (other[0][0] != whole[0][0]).any()


def test_gains_and_zoom_leave_labels_in_order(array_scenes: list[LabelledScene]) -> None:
    zoomed = Augmentation(zoom=2.0, zoom_share=1.0)
    for image, target in single(batches(training_tiles(array_scenes[:1], least=40), zoomed)):
        assert image.shape == (TILE_PX, TILE_PX, 4) and np.isfinite(image).all()
        assert set(np.unique(target)) == {0.0, 1.0}
        assert not target[..., 0][target[..., 1] == 0].any()
        assert not target[..., 1][image[..., 3] == 0].any()


def test_without_memory_no_scene_is_read_whole(
    array_scenes: list[LabelledScene], monkeypatch: pytest.MonkeyPatch
) -> None:
    read: dict[str, list[Window]] = {"scene": [], "mask": []}
    read_scene, read_mask = Scene.read_numbers, LabelledScene.read_mask

    def spy_scene(self: Scene, window: Window | None = None) -> Any:
        assert window is not None
        read["scene"].append(window)
        return read_scene(self, window)

    def spy_mask(self: LabelledScene, window: Window | None = None) -> Any:
        assert window is not None
        read["mask"].append(window)
        return read_mask(self, window)

    monkeypatch.setattr(Scene, "read_numbers", spy_scene)
    monkeypatch.setattr(LabelledScene, "read_mask", spy_mask)
    scene = array_scenes[0]
    zoomed = Augmentation(zoom=2.0, zoom_share=1.0)
    batches(training_tiles([scene], least=60), zoomed)
    assert len(read["scene"]) >= 60 and read["scene"] != [] and len(read["mask"]) >= 60
    sides = {window.rows for window in read["scene"]}
    assert min(sides) < 10 and 28 < max(sides) <= 2 * TILE_PX
    for window in (*read["scene"], *read["mask"]):
        assert window.rows * window.cols < scene.rows * scene.cols / 2
        assert window == window.clip(scene.rows, scene.cols)
    read["scene"].clear()
    list(validation_dataset([scene], BlockReader([scene]), TILE_PX, 4, 8))
    assert read["scene"] and all(window.rows <= TILE_PX for window in read["scene"])


# Validation.

VALIDATION_SIZES = [*SIZES, (1, 1), (5, 40), (40, 5), (64, 64), (47, 31), (17, 33)]


@pytest.fixture(scope="module", params=LAYOUTS)
def validation_scenes(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> list[LabelledScene]:
    """Marked scenes of `VALIDATION_SIZES` in each layout; not to be changed."""
    folder = tmp_path_factory.mktemp("validation") / "data"
    return write_marked(folder, request.param, VALIDATION_SIZES)


@pytest.mark.parametrize(("tile_px", "stride"), [(16, 16), (32, 4), (48, 16), (64, 32)])
def test_validation_counts_every_labelled_pixel_exactly_once(
    validation_scenes: list[LabelledScene], tile_px: int, stride: int
) -> None:
    dataset = validation_dataset(
        validation_scenes, BlockReader(validation_scenes), tile_px, stride, batch=7
    )
    weight = [np.zeros(size) for size in VALIDATION_SIZES]
    cloud = [np.zeros(size) for size in VALIDATION_SIZES]
    for images, targets in dataset:
        assert images.shape[1:] == (tile_px, tile_px, 4)
        for image, target in single([(images.numpy(), targets.numpy())]):
            counts = target[..., 1] > 0
            if not counts.any():
                continue
            shown, places, number = decode(image)
            assert not (counts & ~shown).any()
            place = tuple(places[:, counts[shown]])
            np.add.at(weight[number], place, target[..., 1][counts])
            np.add.at(cloud[number], place, target[..., 0][counts])
    for size, found_weight, found_cloud in zip(VALIDATION_SIZES, weight, cloud, strict=True):
        np.testing.assert_array_equal(found_weight, counted(*size))
        np.testing.assert_array_equal(found_cloud, counted(*size) & (marked_mask(*size) == 1))


@pytest.mark.parametrize(("tile_px", "stride", "halo_px"), [(64, 4, 16), (32, 4, 12), (96, 32, 32)])
def test_validation_counts_pixels_away_from_a_tile_edge_that_is_not_the_scene_s(
    tmp_path: Path, tile_px: int, stride: int, halo_px: int
) -> None:
    size = (150, 131)
    scenes = write_marked(tmp_path / "data", "catalogue", [size])
    tiles = list(
        single(
            [
                (image.numpy(), target.numpy())
                for image, target in validation_dataset(
                    scenes, BlockReader(scenes), tile_px, stride, 4
                )
            ]
        )
    )
    assert len(tiles) > 3
    for image, target in tiles:
        shown, places, _ = decode(image)
        within = np.argwhere(shown).T
        corner = (places - within)[:, 0]
        counts = np.argwhere(target[..., 1] > 0)
        for axis in (0, 1):
            if corner[axis] > 0:
                assert counts[:, axis].min() >= halo_px
            if corner[axis] + tile_px < size[axis]:
                assert counts[:, axis].max() < tile_px - halo_px


# Reading.


def test_a_block_outside_the_scene_is_0_and_unlabelled(array_scenes: list[LabelledScene]) -> None:
    rows, cols = SIZES[1]
    image, mask = BlockReader(array_scenes).read(1, Window(-3, 25, 30, 9), Window(-3, 25, 30, 9))
    assert image.shape == (30, 9, 4) and image.dtype == np.float32
    assert mask.shape == (30, 9, 1) and mask.dtype == np.uint8
    outside = np.ones((30, 9), dtype=bool)
    outside[3:23, :5] = False
    assert not image[outside].any() and (mask[outside] == 255).all()
    scene = np.nan_to_num(marked_scene(1, rows, cols))
    np.testing.assert_array_equal(image[3:23, :5], scene[:, 25:])
    labels = np.where(counted(rows, cols), marked_mask(rows, cols), 255)
    np.testing.assert_array_equal(mask[3:23, :5, 0], labels[:, 25:])


@pytest.mark.parametrize(
    "keep",
    [
        Window(4, 5, 6, 7),
        Window(0, 0, 70, 33),
        Window(4, 5, 1, 1),
        Window(40, 5, 6, 7),
        Window(0, 0, 4, 33),
    ],
)
def test_labels_outside_what_is_kept_do_not_count(
    array_scenes: list[LabelledScene], keep: Window
) -> None:
    window = Window(2, 3, 16, 16)
    image, mask = BlockReader(array_scenes).read(0, window, keep)
    labels = np.full(SIZES[0], 255, dtype=np.uint8)
    labels[keep.slices] = np.where(counted(*SIZES[0]), marked_mask(*SIZES[0]), 255)[keep.slices]
    np.testing.assert_array_equal(mask[..., 0], labels[window.slices])
    np.testing.assert_array_equal(image, np.nan_to_num(marked_scene(0, *SIZES[0]))[window.slices])


def cut_short(scene: LabelledScene) -> Path:
    content = scene.scene_path.read_bytes()
    scene.scene_path.write_bytes(content[: len(content) // 3])
    return scene.scene_path


def unfit_mask(scene: LabelledScene) -> Path:
    np.save(scene.mask_path, np.full((scene.rows, scene.cols), 7, dtype=np.uint8))
    return scene.mask_path


@pytest.mark.parametrize(("damage", "kind"), [(cut_short, SceneError), (unfit_mask, DatasetError)])
def test_what_a_read_ended_in_is_kept_with_its_file(
    tmp_path: Path, damage: Any, kind: type[CloudnetError]
) -> None:
    scenes = write_marked(tmp_path / "data", "catalogue", [(40, 40), (40, 40)])
    path = damage(scenes[1])
    reader = BlockReader(scenes)
    tiles = training_tiles(scenes, least=20)
    with pytest.raises(tf.errors.OpError):
        list(training_dataset(tiles, reader, FLIPS, 4, range(1)))
    assert isinstance(reader.error, kind) and str(path) in str(reader.error)
    checker = BlockReader(scenes)
    with pytest.raises(tf.errors.OpError):
        list(validation_dataset(scenes, checker, TILE_PX, 4, 4))
    assert isinstance(checker.error, kind) and str(path) in str(checker.error)


# Small scenes are kept.


def test_what_is_kept_reads_as_what_is_not(scenes: list[LabelledScene]) -> None:
    kept, plain = BlockReader(scenes, cache_mb=1.0), BlockReader(scenes)
    for _ in range(2):
        for index, (rows, cols) in enumerate(SIZES):
            for window in (
                Window(0, 0, rows, cols),
                Window(-2, 1, rows, cols),
                Window(rows // 2, cols // 2, 16, 16),
            ):
                found, wanted = (reader.read(index, window, window) for reader in (kept, plain))
                for part, other in zip(found, wanted, strict=True):
                    np.testing.assert_array_equal(part, other)
                    assert part.dtype == other.dtype
                    part[:] = 7  # the caller's own


def opened(scenes: Sequence[LabelledScene], reader: BlockReader, rounds: int = 3) -> Counter[str]:
    """How often each scene's file is opened in reads of a corner of each."""
    counts: Counter[str] = Counter()
    open_scene = LabelledScene.open

    def spy(self: LabelledScene) -> Scene:
        counts[self.name] += 1
        return open_scene(self)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(LabelledScene, "open", spy)
        for _ in range(rounds):
            for index in range(len(scenes)):
                reader.read(index, Window(0, 0, 2, 2), Window(0, 0, 2, 2))
    return counts


def test_scenes_are_read_once_as_far_as_memory_goes(
    array_scenes: list[LabelledScene], monkeypatch: pytest.MonkeyPatch
) -> None:
    names = [scene.name for scene in array_scenes]
    assert opened(array_scenes, BlockReader(array_scenes, 1.0)) == dict.fromkeys(names, 1)
    assert opened(array_scenes, BlockReader(array_scenes)) == dict.fromkeys(names, 3)
    # Memory for the first of them, at 18 bytes a pixel of floats, and for the last, of 6 pixels.
    room = (70 * 33 + 6) * 18 / 1e6
    some = opened(array_scenes, BlockReader(array_scenes, room))
    assert some == dict(zip(names, (1, 3, 3, 3, 1), strict=True))
    # A large one is not read whole, whatever the memory.
    monkeypatch.setattr("cloudnet.pipeline.LARGEST_KEPT_PX", 30)
    large = opened(array_scenes, BlockReader(array_scenes, 1.0))
    assert large == dict(zip(names, (3, 1, 1, 1, 1), strict=True))


def test_integers_are_kept_as_integers(tmp_path: Path) -> None:
    numbers = (10_000 * np.nan_to_num(marked_scene(0, 70, 33))).astype(np.uint16)
    write_scene_tif(tmp_path / "scenes" / "a.tif", numbers, nodata=0)
    write_mask_tif(tmp_path / "masks" / "a.tif", marked_mask(70, 33))
    scenes = open_dataset([tmp_path]).scenes
    room = 70 * 33 * 10 / 1e6
    assert opened(scenes, BlockReader(scenes, room)) == {"a": 1}
    assert opened(scenes, BlockReader(scenes, room - 1e-5)) == {"a": 3}
    window = Window(-3, 5, 40, 20)
    kept, plain = (BlockReader(scenes, mb).read(0, window, window) for mb in (room, 0.0))
    for part, other in zip(kept, plain, strict=True):
        np.testing.assert_array_equal(part, other)


# Mixtures.

PALE = Window(0, 0, 6, 8)
"""Where the mixed scene is cloud."""


def write_sorts(folder: Path, sizes: Sequence[tuple[int, int]]) -> list[LabelledScene]:
    """A clear, a mixed and an overcast scene of dark ground; each has pixels without data, and the
    clear one unlabelled and, in its corner, cloudy ones."""
    rng = np.random.default_rng(3)
    scenes = []
    for name, (rows, cols) in zip(("clear", "mixed", "overcast"), sizes, strict=True):
        values = rng.uniform(0.03, 0.1, (rows, cols, 4)).astype(np.float32)
        mask = np.zeros((rows, cols), np.uint8)
        if name == "clear":
            mask[2, 5:9] = NO_DATA
            mask[0, 0] = CLOUD
        elif name == "mixed":
            mask[PALE.slices] = CLOUD
            values[PALE.slices] += 0.6
        else:
            mask[:] = CLOUD
            values += 0.6
        values[rows - 2, 1:5] = np.nan
        scenes.append(write_labelled_scene(folder, name, values, mask))
    return scenes


@pytest.fixture(scope="module")
def sorts(tmp_path_factory: pytest.TempPathFactory) -> list[LabelledScene]:
    """A clear, a mixed and an overcast scene; not to be changed."""
    folder = tmp_path_factory.mktemp("sorts")
    return write_sorts(folder, [(40, 30), (25, 36), (20, 20)])


def mixed_tiles(
    scenes: Sequence[LabelledScene], mixture: Mixture, least: int = 24, seed: int = 0
) -> TrainingTiles:
    facts = tuple(survey(scenes))
    return TrainingTiles(tuple(scenes), TILE_PX, least, seed, mixture, facts)


EVERYTHING = Mixture(simulated=0.25, composed=0.25, pasted=0.25, balanced=True)
KINDS = {
    REAL: Mixture(balanced=True),
    COMPOSED: Mixture(composed=1.0),
    PASTED: Mixture(pasted=1.0),
    SIMULATED: Mixture(simulated=1.0),
}


def assert_usable(image: NDArray[np.float32], target: NDArray[np.float32]) -> None:
    """Assert what holds for every tile, however it was made."""
    assert image.shape == (TILE_PX, TILE_PX, 4) and image.dtype == np.float32
    assert target.shape == (TILE_PX, TILE_PX, 2) and target.dtype == np.float32
    assert np.isfinite(image).all() and image.min() >= 0 and image.max() < 2.5
    assert set(np.unique(target)) <= {0.0, 1.0}
    cloud, weight = target[..., 0] == 1, target[..., 1] == 1
    assert not (cloud & ~weight).any(), "what is unlabelled is no cloud"
    assert (image[weight] > 0).any(axis=-1).all(), "what counts has data"


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("augmentation", [NO_AUGMENTATION, Augmentation(zoom_share=1.0)])
def test_each_kind_of_tile_comes_out_whole(
    sorts: list[LabelledScene], kind: int, augmentation: Augmentation
) -> None:
    tiles = mixed_tiles(sorts, KINDS[kind])
    assert tiles.count == 24 and (tiles.epoch(0)[0][:, 1] == kind).all()
    found = list(single(batches(tiles, augmentation)))
    assert len(found) == 24
    for image, target in found:
        assert_usable(image, target)
    labels = np.stack([target for _, target in found])
    assert {0.0, 1.0} == set(np.unique(labels[labels[..., 1] == 1][:, 0])), "clear and cloud"
    assert (labels[..., 1] == 0).any()


def test_kinds_come_in_the_shares_asked_for_and_differ(sorts: list[LabelledScene]) -> None:
    tiles = mixed_tiles(sorts, EVERYTHING, least=40)
    made: list[int] = []

    class Spy(BlockReader):
        def make(self, plan: Sequence[int], seed: Sequence[int], window: Window) -> Any:
            made.append(plan[1])
            return super().make(plan, seed, window)

    batches(tiles, reader=Spy(tiles.scenes))
    assert Counter(made) == dict.fromkeys(KINDS, 10)
    assert sorted(made) == sorted(tiles.epoch(0)[0][:, 1].tolist())


def test_a_mixed_epoch_has_just_the_tiles_asked_for(sorts: list[LabelledScene]) -> None:
    tiles = mixed_tiles(sorts, EVERYTHING, least=21)
    assert [len(image) for image, _ in batches(tiles, epochs=range(2))] == 2 * [8, 8, 5]


def test_a_resumed_mixture_gives_the_batches_that_were_left(sorts: list[LabelledScene]) -> None:
    tiles = mixed_tiles(sorts, EVERYTHING)
    whole = batches(tiles, Augmentation(), range(2))
    assert len(whole) == 6
    for found, wanted in (
        (batches(tiles, Augmentation(), range(2)), whole),
        (batches(tiles, Augmentation(), range(1, 2)), whole[3:]),
    ):
        for (image, target), (wanted_image, wanted_target) in zip(found, wanted, strict=True):
            np.testing.assert_array_equal(image, wanted_image)
            np.testing.assert_array_equal(target, wanted_target)
    assert (whole[0][0] != whole[3][0]).any(), "the next epoch is another"
    other = batches(mixed_tiles(sorts, EVERYTHING, seed=1), Augmentation(), range(1))
    assert (other[0][0] != whole[0][0]).any()


def make(
    scenes: Sequence[LabelledScene], plan: Sequence[int], window: Window, seed: int = 7
) -> Any:
    image, mask = BlockReader(scenes).make(plan, (seed, 11), window)
    assert image.dtype == np.float32 and mask.dtype == np.uint8
    assert mask.shape == (*image.shape[:2], 1)
    return image, mask


def test_under_simulated_clouds_labels_of_the_scene_are_kept(sorts: list[LabelledScene]) -> None:
    whole = Window(0, 0, 40, 30)
    image, mask = BlockReader(sorts).read(0, whole, whole)
    data = (image > 0).any(axis=2)
    label, cloudy, seen = mask[..., 0], 0, 0
    for seed in range(12):
        composed, found = make(sorts, (0, COMPOSED, 0), whole, seed)
        found = found[..., 0]
        assert not composed[~data].any() and (found[~data] == NO_DATA).all()
        assert np.isfinite(composed).all()
        # Unlabelled ground is labelled only where thick cloud hides it; cloud stays cloud.
        assert (found[label == NO_DATA] != CLEAR).all()
        assert (found[label == CLOUD] == CLOUD).all()
        cloudy += int((found == CLOUD).sum())
        seen += int((np.abs(composed - image).max(axis=2) < 0.01)[found == CLEAR].sum())
    assert cloudy > 1000 and seen > 300


def test_under_clouds_of_another_scene_a_tile_is_a_square(tmp_path: Path) -> None:
    # Ground and donor are both narrower than the window on another side.
    scenes = write_sorts(tmp_path, [(40, 30), (14, 36), (20, 20)])
    ground, _ = BlockReader(scenes).read(0, *[Window(3, 0, 30, 30)] * 2)
    pasted = []
    for seed in range(6):
        image, mask = make(scenes, (0, PASTED, 1), Window(3, 0, 36, 30), seed)
        assert image.shape == (30, 30, 4)
        pale = (image[..., 0] > 0.3) & (mask[..., 0] == CLOUD)
        same = (image == ground).all(axis=2)
        assert same.mean() > 0.8 and not (same & pale).any()
        assert set(np.unique(mask)) == {CLEAR, CLOUD, NO_DATA}
        pasted.append(int(pale.sum()))
    assert 20 < max(pasted) <= PALE.rows * PALE.cols
    assert len(set(pasted)) > 1, "from different parts of the donor"


def test_mixtures_take_scenes_that_are_smaller_than_a_tile(tmp_path: Path) -> None:
    scenes = write_sorts(tmp_path, [(15, 40), (9, 12), (40, 7)])
    for mixture in (EVERYTHING, KINDS[PASTED], KINDS[COMPOSED]):
        found = list(single(batches(mixed_tiles(scenes, mixture), Augmentation(zoom_share=1.0))))
        for image, target in found:
            assert_usable(image, target)
        assert sum(float(target[..., 1].sum()) for _, target in found) > 0


def test_simulated_tiles_have_the_resolution_they_were_made_in(sorts: list[LabelledScene]) -> None:
    windows = set()

    class Spy(BlockReader):
        def make(self, plan: Sequence[int], seed: Sequence[int], window: Window) -> Any:
            windows.add(window)
            return super().make(plan, seed, window)

    # The smallest scene is smaller than a tile: a simulated tile does not hang on it.
    scenes = sorts[:1]
    tiles = mixed_tiles(scenes, KINDS[SIMULATED])
    found = batches(tiles, Augmentation(zoom_share=1.0), reader=Spy(scenes))
    assert windows == {Window(0, 0, TILE_PX, TILE_PX)}
    assert all((image > 0).all() for image, _ in found), "no part is missing"


STEADY = Augmentation(flips=False, brightness=0.0, band_gain=0.0, ozone=0.0)
"""What is left of simulated tiles then is as they were made."""


def test_simulated_tiles_keep_the_air_they_were_made_in(sorts: list[LabelledScene]) -> None:
    tiles = mixed_tiles(sorts[:1], KINDS[SIMULATED])
    more_ozone = batches(tiles, replace(STEADY, ozone=3.0))
    for (image, _), (same, _) in zip(batches(tiles, STEADY), more_ozone, strict=True):
        np.testing.assert_array_equal(image, same)


def log_gains(tiles: TrainingTiles, augmentation: Augmentation) -> NDArray[np.float64]:
    """What became of each tile's bands, (tiles, bands): one gain all over the tile."""
    logs = []
    changed = batches(tiles, augmentation)
    for (image, _), (other, _) in zip(batches(tiles, STEADY), changed, strict=True):
        gain = other / image
        np.testing.assert_allclose(gain, np.broadcast_to(gain[:, :1, :1], gain.shape), rtol=1e-5)
        logs.append(np.log(gain[:, 0, 0]))
    return np.concatenate(logs)


def test_simulated_tiles_are_brightened_less_and_their_bands_as_those_of_real_ones(
    sorts: list[LabelledScene],
) -> None:
    tiles = mixed_tiles(sorts[:1], KINDS[SIMULATED])
    brighter = log_gains(tiles, replace(STEADY, brightness=0.3))
    largest = SIMULATED_BRIGHTNESS * 0.3
    assert np.ptp(brighter, axis=1).max() < 1e-5, "all bands alike"
    assert -largest - 1e-5 <= brighter.min() < -largest / 3
    assert largest / 3 < brighter.max() <= largest + 1e-5
    band = log_gains(tiles, replace(STEADY, band_gain=0.2))
    assert -0.2 - 1e-5 <= band.min() < -0.1 and 0.1 < band.max() <= 0.2 + 1e-5
    assert np.ptp(band, axis=1).max() > 0.1, "bands differ"


def test_the_catalogue_s_scenes_of_thirteen_bands_are_mixed(tmp_path: Path) -> None:
    scenes = write_sorts(tmp_path, [(40, 30), (25, 36), (20, 20)])
    four = batches(mixed_tiles(scenes, EVERYTHING))
    for scene in scenes:
        write_scene_npy(scene.scene_path, to_catalogue_bands(np.load(scene.scene_path)))
    thirteen = batches(mixed_tiles(scenes, EVERYTHING))
    for (image, target), (wanted_image, wanted_target) in zip(thirteen, four, strict=True):
        np.testing.assert_array_equal(image, wanted_image)
        np.testing.assert_array_equal(target, wanted_target)


def test_a_simulation_is_the_same_each_time_and_is_turned_anew(
    sorts: list[LabelledScene],
) -> None:
    whole = Window(0, 0, TILE_PX, TILE_PX)
    one, again = (make(sorts, (0, SIMULATED, 5), whole, seed) for seed in (1, 2))
    other = make(sorts, (0, SIMULATED, 6), whole)
    for part, same, another in zip(one, again, other, strict=True):
        np.testing.assert_array_equal(part, same)
        assert part.shape == another.shape
    assert (one[0] != other[0]).any()
    # Tiles of one simulation are turned each in its way, and that leaves the kept block as it is.
    tiles, reader = mixed_tiles(sorts, KINDS[SIMULATED], least=30), BlockReader(sorts)
    plan, _ = tiles.epoch(0)
    before = {n: [part.copy() for part in reader.make((0, SIMULATED, n), (1, 2), whole)]
              for n in plan[:, 2].tolist()}  # fmt: skip
    images = [image for image, _ in single(batches(tiles, Augmentation(), reader=reader))]
    assert len({image.tobytes() for image in images}) > 2 * len(before)
    for number, parts in before.items():
        for part, was in zip(
            reader.make((0, SIMULATED, number), (1, 2), whole), parts, strict=True
        ):
            np.testing.assert_array_equal(part, was)


@pytest.mark.parametrize(("number", "mixture"), [(1, KINDS[PASTED]), (0, KINDS[COMPOSED])])
@pytest.mark.parametrize(("damage", "kind"), [(cut_short, SceneError), (unfit_mask, DatasetError)])
def test_an_error_in_a_scene_that_is_put_together_is_kept(
    tmp_path: Path, number: int, mixture: Mixture, damage: Any, kind: type[CloudnetError]
) -> None:
    scenes = write_sorts(tmp_path, [(40, 30), (25, 36), (20, 20)])
    tiles, reader = mixed_tiles(scenes, mixture), BlockReader(scenes)
    path = damage(scenes[number])
    with pytest.raises(tf.errors.OpError):
        list(training_dataset(tiles, reader, FLIPS, 4, range(1)))
    assert isinstance(reader.error, kind) and str(path) in str(reader.error)
