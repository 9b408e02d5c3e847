"""The input pipeline: tiles cut from scenes on the fly by tf.data. No scene is held whole."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
import tensorflow as tf
from numpy.typing import NDArray

from cloudnet.augment import Augmentation, apply, block_px, draw
from cloudnet.dataset import LabelledScene
from cloudnet.errors import CloudnetError
from cloudnet.spec import BANDS, CLOUD, NO_DATA
from cloudnet.tiles import Window, grid, round_up

Block: TypeAlias = tuple[NDArray[np.float32], NDArray[np.uint8]]
Tensor: TypeAlias = Any
TileData: TypeAlias = Any

TARGETS = np.array([[value == CLOUD, value != NO_DATA] for value in range(256)], dtype=np.float32)
"""The target of each value of a mask: cloud, weight. One look-up is faster than two comparisons."""

VALIDATION_HALO_PX = 16


class BlockReader:
    """Reads square blocks of labelled scenes; called by the pipeline's threads.

    Attributes
    ----------
    error
        The first error of ours that a read ended in: TensorFlow passes on only its text.
    """

    def __init__(self, scenes: Sequence[LabelledScene]) -> None:
        self.scenes = tuple(scenes)
        self.error: CloudnetError | None = None

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
            return self._read(self.scenes[index], window, keep)
        except CloudnetError as error:
            self.error = self.error or error
            raise

    def _read(self, scene: LabelledScene, window: Window, keep: Window) -> Block:
        inside = window.clip(scene.rows, scene.cols)
        with scene.open() as source:
            image, valid = source.read(inside)
        mask = scene.read_mask(inside)
        if not valid.all():
            mask[~valid] = NO_DATA
        if inside == window == keep:
            return image, mask[..., np.newaxis]
        whole = np.zeros((window.rows, window.cols, len(BANDS)), dtype=np.float32)
        whole[inside.within(window).slices] = image
        labels = np.full((window.rows, window.cols, 1), NO_DATA, dtype=np.uint8)
        kept = keep.intersection(inside)
        labels[(*kept.within(window).slices, 0)] = mask[kept.within(inside).slices]
        return whole, labels


@dataclass(frozen=True)
class TrainingTiles:
    """The tiles of training: for each epoch an order of scenes and a seed for each tile.

    A scene has as many tiles as it takes to cover its area, times the rounds over all scenes that
    it takes to make an epoch; each falls at a random place each time. All of it follows from
    `seed`, so that a run can be resumed exactly.

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
    """

    scenes: tuple[LabelledScene, ...]
    tile_px: int
    least: int
    seed: int

    @property
    def index(self) -> NDArray[np.int64]:
        """The number of the scene of each tile, unshuffled."""
        area = self.tile_px**2
        counts = [-(-scene.rows * scene.cols // area) for scene in self.scenes]
        once = np.repeat(np.arange(len(self.scenes)), counts)
        return np.tile(once, max(-(-self.least // len(once)), 1))

    def epoch(self, epoch: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Return the scene numbers (n,) and seeds (n, 2) of one epoch's tiles in their order."""
        rng = np.random.default_rng((self.seed, epoch))
        order = rng.permutation(self.index)
        return order, rng.integers(0, 2**31, size=(len(order), 2))


def training_dataset(
    tiles: TrainingTiles,
    reader: BlockReader,
    augmentation: Augmentation,
    batch: int,
    epochs: range,
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

    Returns
    -------
    tf.data.Dataset of image (batch, tile_px, tile_px, 4) float32 and target
    (batch, tile_px, tile_px, 2) float32: cloud, and weight 0 where unlabelled.
    """
    sizes = tf.constant([[scene.rows, scene.cols] for scene in tiles.scenes], dtype=tf.int32)

    def load(index: Tensor, seed: Tensor) -> tuple[Tensor, Tensor]:
        drawn = draw(seed, augmentation, len(BANDS))
        size = tf.minimum(sizes[index], block_px(drawn, tiles.tile_px))
        free = tf.cast(sizes[index] - size, tf.float32)
        corner = tf.minimum(tf.floor([drawn.row_share, drawn.col_share] * (free + 1.0)), free)
        window = tf.cast(tf.concat([tf.cast(corner, tf.int32), size], axis=0), tf.int64)
        image, mask = _read_block(reader, index, window, window)
        return _to_target(*apply(image, mask, drawn, tiles.tile_px))

    def one_epoch(epoch: Tensor) -> TileData:
        order, seeds = tf.numpy_function(
            lambda number: tiles.epoch(int(number)), [epoch], (tf.int64, tf.int64), stateful=False
        )
        order, seeds = tf.ensure_shape(order, [None]), tf.ensure_shape(seeds, [None, 2])
        return _batches(tf.data.Dataset.from_tensor_slices((order, seeds)), load, batch)

    return _finish(tf.data.Dataset.range(epochs.start, epochs.stop).flat_map(one_epoch))


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


def _to_target(image: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
    """Return the image and the target that `losses` describes, of a mask (n, n, 1)."""
    return image, tf.gather(TARGETS, tf.cast(mask[..., 0], tf.int32))


def _as_list(window: Window) -> list[int]:
    return [window.row, window.col, window.rows, window.cols]
