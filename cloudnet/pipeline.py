"""The input pipeline: tiles cut from scenes on the fly by tf.data. Scenes are held as far as memory
set aside for it goes."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field, replace
from functools import lru_cache
from typing import Any, TypeAlias

import numpy as np
import tensorflow as tf
from numpy.typing import NDArray

from cloudnet.augment import Augmentation, apply, block_px, draw
from cloudnet.dataset import LabelledScene
from cloudnet.errors import CloudnetError
from cloudnet.fields import log_uniform
from cloudnet.ground import GROUNDS
from cloudnet.light import LANDSAT8, LANDSAT8_BANDS, SENTINEL2
from cloudnet.mixture import (
    COMPOSED,
    PASTED,
    REAL,
    SIMULATED,
    SIMULATIONS_AT_ONCE,
    Mixture,
    SceneFacts,
    paste_clouds,
    plan_tiles,
    scene_weights,
)
from cloudnet.scene import Scene, Valid
from cloudnet.simulate import compose_clouds
from cloudnet.simulated_set import Plan, planned_scene
from cloudnet.spec import BANDS, CLOUD, LEVELS, NO_DATA
from cloudnet.tiles import Window, grid, round_up

Block: TypeAlias = tuple[NDArray[np.float32], NDArray[np.uint8]]
Tensor: TypeAlias = Any
TileData: TypeAlias = Any
Soften: TypeAlias = Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]

TARGETS = np.array([[value == CLOUD, value != NO_DATA] for value in range(256)], dtype=np.float32)
"""The target of each value of a mask: cloud, weight. One look-up is faster than two comparisons."""

VALIDATION_HALO_PX = 16

LARGEST_KEPT_PX = 2048
"""Side of the largest scene that is kept in memory, a square; it is read whole for that."""

SNOWY = (*("plateau", "snow") * 3, "ice", "glacier")
"""Grounds added to simulated tiles: in even shares flat overcast is so much commoner than flat snow
that a net took both for cloud."""

WOODED = ("taiga",) * 7
"""Wood in snow is as even as thin cloud, and takes a net longest to tell from it."""

SIMULATION_PLAN = Plan(grounds=(*GROUNDS, *SNOWY, "salt", "urban", "urban", "tundra", *WOODED))
"""More than an even share of the grounds that are taken for cloud."""

INSTRUMENTS = ((BANDS, SENTINEL2), (LANDSAT8_BANDS, LANDSAT8))
"""Bands and optics of simulated tiles, in even shares. Landsat's see snow and cloud a little
otherwise; a net that knows both leans less on what is one instrument's own."""

SIMULATIONS_KEPT = SIMULATIONS_AT_ONCE + 40
"""Simulated blocks in memory: those that take turns, and some more, as tiles are made side by side.
Were there fewer than take turns, each would be thrown out just before it comes again."""

SIMULATED_BRIGHTNESS = 2 / 3
"""How far simulated tiles are made brighter or darker, of what real ones are. Some products reckon
with the sun in the middle of the scene, and half a degree beside it is a tenth of the light at 85.
Single bands get their gains too, as calibration is no better than that; ozone, which is simulated,
stays."""

SIMULATION_ATTEMPTS = 2
"""Draws of a simulated tile at most, to come near the cloud cover that it should have."""

HIDING_THICKNESS = 3.0
"""Optical thickness of cloud that hides the ground well enough to be cloud whatever lies below."""

SIMULATED_PIXEL_M = (10.0, 40.0)
"""Pixels of simulated tiles, in metres."""


@dataclass(frozen=True)
class KeptScene:
    """A window of a labelled scene in memory, as its files have it: integers take half of what
    reflectance does.

    Attributes
    ----------
    source
        The scene, closed.
    numbers, valid
        As from its `read_numbers`.
    mask
        (rows, cols) uint8.
    """

    source: Scene
    numbers: NDArray[Any]
    valid: Valid
    mask: NDArray[np.uint8]

    def cut(self, window: Window) -> Block:
        """Return reflectance (rows, cols, 4) float32 and mask (rows, cols) of a part, what has no
        data unlabelled."""
        numbers = self.numbers[(slice(None), *window.slices)]
        image, valid = self.source.convert(numbers, self.valid[window.slices].copy())
        mask = self.mask[window.slices].copy()
        if not valid.all():
            mask[~valid] = NO_DATA
        return image, mask


class BlockReader:
    """Reads square blocks of labelled scenes; called by the pipeline's threads.

    Parameters
    ----------
    scenes
        Labelled scenes.
    cache_mb
        Memory for scenes that are kept once they were read: opening and decoding one takes half as
        long as the training step on a tile of it. What is full stays as it is; scenes come in
        random order, so throwing out would not help.
    levels
        Of products that the net is trained for; scenes of Level-2A are brought to the top of the
        atmosphere where that is none of them.

    Attributes
    ----------
    error
        The first error of ours that a read ended in: TensorFlow passes on only its text.
    """

    def __init__(
        self,
        scenes: Sequence[LabelledScene],
        cache_mb: float = 0.0,
        levels: Collection[str] = LEVELS,
    ) -> None:
        self.scenes = tuple(scenes)
        self.error: CloudnetError | None = None
        self._levels = levels
        self._kept: dict[int, KeptScene] = {}
        self._free = int(cache_mb * 1e6)
        self._simulate = lru_cache(SIMULATIONS_KEPT)(_simulate)

    def make(self, plan: Sequence[int], seed: Sequence[int], window: Window) -> Block:
        """Make a block as planned: read it, put clouds over what was read, or simulate it.

        Parameters
        ----------
        plan
            A row of `plan_tiles`: scene, kind of tile, scene that gives clouds.
        seed
            Of what is drawn: the same seed, the same block.
        window
            What to read of the scene; of a simulated block, its size.

        Returns
        -------
        As `read`.
        """
        scene, kind, donor = plan
        rng = np.random.default_rng(seed)
        if kind == SIMULATED:
            return self._simulate(donor, (window.rows, window.cols))
        block = self.read(scene, window, window)
        if kind == COMPOSED:
            return _under_clouds(block, rng)
        if kind == PASTED:
            side = min(window.rows, window.cols)
            free = (self.scenes[donor].rows - side, self.scenes[donor].cols - side)
            row, col = (int(rng.integers(max(n, 0) + 1)) for n in free)
            place = Window(row, col, side, side)
            square = (block[0][:side, :side], block[1][:side, :side])
            return paste_clouds(square, self.read(donor, place, place), rng)
        return block

    def read(self, index: int, window: Window, keep: Window) -> Block:
        """Read a block.

        Parameters
        ----------
        index
            Of the scene.
        window
            What to read; what of it lies outside the scene is 0, unlabelled.
        keep
            The part of the scene whose labels count.

        Returns
        -------
        reflectance (rows, cols, 4) float32, 0 where there is no data, and mask (rows, cols, 1)
        uint8, 255 where unlabelled, without data, or not to be kept.
        """
        try:
            return self._read(index, window, keep)
        except CloudnetError as error:
            self.error = self.error or error
            raise

    def _read(self, index: int, window: Window, keep: Window) -> Block:
        scene = self.scenes[index]
        inside = window.clip(scene.rows, scene.cols)
        image, mask = self._read_inside(index, inside)
        if inside == window == keep:
            return image, mask[..., np.newaxis]
        whole = np.zeros((window.rows, window.cols, len(BANDS)), dtype=np.float32)
        whole[inside.within(window).slices] = image
        labels = np.full((window.rows, window.cols, 1), NO_DATA, dtype=np.uint8)
        kept = keep.intersection(inside)
        labels[(*kept.within(window).slices, 0)] = mask[kept.within(inside).slices]
        return whole, labels

    def _read_inside(self, index: int, inside: Window) -> Block:
        """Read a window that lies in the scene, from the kept scenes where it is there."""
        scene = self.scenes[index]
        if index not in self._kept:
            with scene.open() as opened:
                source = opened.for_levels(self._levels)
                size = scene.rows * scene.cols * _bytes_px(source)
                if scene.rows * scene.cols > LARGEST_KEPT_PX**2 or size > self._free:
                    return _keep(scene, source, inside).cut(inside.within(inside))
                self._free -= size
                whole = Window(0, 0, scene.rows, scene.cols)
                self._kept[index] = _keep(scene, source, whole)
        return self._kept[index].cut(inside)


def _bytes_px(source: Scene) -> int:
    """Return what a pixel of a scene takes where it is kept: numbers, validity and mask."""
    return len(BANDS) * min(source.dtype.itemsize, np.dtype(np.float32).itemsize) + 2


def _keep(scene: LabelledScene, source: Scene, window: Window) -> KeptScene:
    return KeptScene(source, *source.read_numbers(window), scene.read_mask(window))


def _simulate(number: int, size: tuple[int, int]) -> Block:
    """Return a simulated block; the same number, the same block."""
    rng = np.random.default_rng(number)
    pixel_m = log_uniform(rng, *SIMULATED_PIXEL_M)
    turn = (number, int(rng.integers(2**31)))
    bands, optics = INSTRUMENTS[int(rng.integers(len(INSTRUMENTS)))]
    scene = planned_scene(
        turn,
        size,
        bands,
        SIMULATION_PLAN,
        attempts=SIMULATION_ATTEMPTS,
        pixel_m=pixel_m,
        optics=optics,
    )
    return scene.reflectance, scene.label[..., np.newaxis]


def _under_clouds(block: Block, rng: np.random.Generator) -> Block:
    """Put simulated clouds over a clear block; what was unlabelled stays so but under thick cloud,
    and what was cloud stays so. No data stays 0."""
    image, mask = block
    data = (image > 0).any(axis=2, keepdims=True)
    scene = compose_clouds(np.where(data, image, np.nan), rng)
    label = scene.label[..., np.newaxis].copy()
    hidden = scene.optical_thickness[..., np.newaxis] >= HIDING_THICKNESS
    label[(mask == NO_DATA) & ~hidden] = NO_DATA
    label[mask == CLOUD] = CLOUD
    return np.nan_to_num(scene.reflectance), label


@dataclass(frozen=True)
class TrainingTiles:
    """The tiles of training: for each epoch a plan of what each tile shows, and a seed for each.

    By the plain mixture a scene has as many tiles as it takes to cover its area, times the rounds
    over all scenes that it takes to make an epoch. Each falls at a random place each time. All of
    it follows from `seed`, so that a run can be resumed exactly.

    Attributes
    ----------
    scenes
        Labelled scenes.
    tile_px
        Side of a tile in pixels.
    least
        An epoch has at least this many tiles.
    seed
        Of order, places and augmentation.
    mixture
        What the tiles are made of.
    facts
        What each scene shows, as `survey` tells; of no use to the plain mixture.
    """

    scenes: tuple[LabelledScene, ...]
    tile_px: int
    least: int
    seed: int
    mixture: Mixture = field(default=Mixture())
    facts: tuple[SceneFacts, ...] = ()

    @property
    def index(self) -> NDArray[np.int64]:
        """The number of the scene of each tile of the plain mixture, unshuffled."""
        area = self.tile_px**2
        counts = [-(-scene.rows * scene.cols // area) for scene in self.scenes]
        once = np.repeat(np.arange(len(self.scenes)), counts)
        return np.tile(once, max(-(-self.least // len(once)), 1))

    @property
    def count(self) -> int:
        """Tiles of an epoch."""
        return len(self.index) if self.mixture.plain else self.least

    def epoch(self, epoch: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Return the plan (n, 3), as of `plan_tiles`, and seeds (n, 2) of an epoch's tiles."""
        rng = np.random.default_rng((self.seed, epoch))
        if self.mixture.plain:
            order = rng.permutation(self.index)
            plan = np.stack([order, np.full_like(order, REAL), order], axis=1)
        else:
            weights = scene_weights(self.scenes, self.facts, self.mixture)
            plan = plan_tiles(weights, self.facts, self.mixture, self.least, rng)
        return plan, rng.integers(0, 2**31, size=(len(plan), 2))


def training_dataset(
    tiles: TrainingTiles,
    reader: BlockReader,
    augmentation: Augmentation,
    batch: int,
    epochs: range,
    soften: Soften | None = None,
) -> TileData:
    """Return batches of augmented training tiles, epoch after epoch.

    Parameters
    ----------
    tiles
        Which tiles, in which order.
    reader
        Reads their blocks.
    augmentation
        How far they are changed.
    batch
        Tiles a step; an epoch's last step may have fewer.
    epochs
        Epochs to go through.
    soften
        Adds soft labels to a batch.

    Returns
    -------
    tf.data.Dataset of image (batch, tile_px, tile_px, 4) float32 and target
    (batch, tile_px, tile_px, 2) float32: cloud, and weight 0 where unlabelled; or what `soften`
    makes of it.
    """
    sizes = tf.constant([[scene.rows, scene.cols] for scene in tiles.scenes], dtype=tf.int32)

    def load(plan: Tensor, seed: Tensor) -> tuple[Tensor, Tensor]:
        drawn = draw(seed, augmentation, len(BANDS))
        simulated = tf.equal(plan[1], SIMULATED)
        # What is simulated has a resolution and an air of its own already.
        brightness = tf.exp(SIMULATED_BRIGHTNESS * drawn.log_brightness)
        drawn = replace(
            drawn,
            zoom=tf.where(simulated, 1.0, drawn.zoom),
            gain=tf.where(simulated, brightness * drawn.band_gain, drawn.gain),
        )
        whole = tf.where(simulated, tiles.tile_px, sizes[plan[0]])
        size = tf.minimum(whole, block_px(drawn, tiles.tile_px))
        free = tf.cast(whole - size, tf.float32)
        corner = tf.minimum(tf.floor([drawn.row_share, drawn.col_share] * (free + 1.0)), free)
        window = tf.cast(tf.concat([tf.cast(corner, tf.int32), size], axis=0), tf.int64)
        image, mask = _make_block(reader, plan, seed, window)
        return _to_target(*apply(image, mask, drawn, tiles.tile_px))

    def one_epoch(epoch: Tensor) -> TileData:
        plan, seeds = tf.numpy_function(
            lambda number: tiles.epoch(int(number)), [epoch], (tf.int64, tf.int64), stateful=False
        )
        plan, seeds = tf.ensure_shape(plan, [None, 3]), tf.ensure_shape(seeds, [None, 2])
        return _batches(tf.data.Dataset.from_tensor_slices((plan, seeds)), load, batch)

    batches = tf.data.Dataset.range(epochs.start, epochs.stop).flat_map(one_epoch)
    if soften is not None:
        batches = batches.map(soften, num_parallel_calls=tf.data.AUTOTUNE, deterministic=True)
    return _finish(batches)


def validation_dataset(
    scenes: Sequence[LabelledScene], reader: BlockReader, tile_px: int, stride: int, batch: int
) -> TileData:
    """Return batches of tiles that cover each scene; every labelled pixel has weight 1 once.

    Parameters
    ----------
    scenes, reader
        Labelled scenes, and the reader made of the same.
    tile_px, stride
        Side of a tile, a multiple of the stride; scenes that are smaller are padded.
    batch
        Tiles a step.

    Returns
    -------
    tf.data.Dataset as `training_dataset` gives, unchanged by augmentation.
    """
    largest_halo_px = (tile_px - stride) // 2 // stride * stride
    halo_px = min(round_up(VALIDATION_HALO_PX, stride), largest_halo_px)
    rows = [
        (index, tile.read.row, tile.read.col, tile_px, tile_px, *_as_list(tile.write))
        for index, scene in enumerate(scenes)
        for tile in grid(scene.rows, scene.cols, tile_px, halo_px, stride)
    ]

    def load(row: Tensor) -> tuple[Tensor, Tensor]:
        image, mask = _read_block(reader, row[0], row[1:5], row[5:9])
        image = tf.ensure_shape(image, [tile_px, tile_px, None])
        return _to_target(image, tf.ensure_shape(mask, [tile_px, tile_px, 1]))

    plan = tf.data.Dataset.from_tensor_slices(np.array(rows, dtype=np.int64))
    return _finish(_batches(plan, load, batch))


def _batches(plan: TileData, load: Callable[..., tuple[Tensor, Tensor]], batch: int) -> TileData:
    """Load tiles in parallel, in the plan's order, and batch them."""
    return plan.map(load, num_parallel_calls=tf.data.AUTOTUNE, deterministic=True).batch(batch)


def _finish(batches: TileData) -> TileData:
    """Prefetch batches, and keep loading and batching apart.

    TensorFlow 2.21 fuses the two by default, and the fused one was seen to wait for ever for calls
    that had ended when its iterator was given back.
    """
    options = tf.data.Options()
    options.experimental_optimization.map_and_batch_fusion = False
    return batches.prefetch(tf.data.AUTOTUNE).with_options(options)


def _read_block(
    reader: BlockReader, index: Tensor, window: Tensor, keep: Tensor
) -> tuple[Tensor, Tensor]:
    """Call the reader from within the graph; windows are (4,) int64: row, col, rows, cols."""

    def read(number: np.int64, place: NDArray[np.int64], kept: NDArray[np.int64]) -> Block:
        return reader.read(int(number), Window(*place.tolist()), Window(*kept.tolist()))

    image, mask = tf.numpy_function(read, [index, window, keep], (tf.float32, tf.uint8))
    return tf.ensure_shape(image, [None, None, len(BANDS)]), tf.ensure_shape(mask, [None, None, 1])


def _make_block(
    reader: BlockReader, plan: Tensor, seed: Tensor, window: Tensor
) -> tuple[Tensor, Tensor]:
    """Call the reader's `make` from within the graph."""

    def make(entry: NDArray[np.int64], state: NDArray[np.int64], place: NDArray[np.int64]) -> Block:
        return reader.make(entry.tolist(), state.tolist(), Window(*place.tolist()))

    image, mask = tf.numpy_function(make, [plan, seed, window], (tf.float32, tf.uint8))
    return tf.ensure_shape(image, [None, None, len(BANDS)]), tf.ensure_shape(mask, [None, None, 1])


def _to_target(image: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
    """Return the image and the target that `losses` describes, of a mask (n, n, 1)."""
    return image, tf.gather(TARGETS, tf.cast(mask[..., 0], tf.int32))


def _as_list(window: Window) -> list[int]:
    return [window.row, window.col, window.rows, window.cols]
