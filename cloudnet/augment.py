"""Augmentation: one draw a tile, the same for image, mask and weight. TensorFlow throughout."""

from __future__ import annotations

from dataclasses import dataclass
from math import inf, log
from typing import Any, TypeAlias

import tensorflow as tf

from cloudnet.errors import ModelError

Tensor: TypeAlias = Any


@dataclass(frozen=True)
class Augmentation:
    """How far tiles are changed in training.

    Attributes
    ----------
    flips
        Flip and transpose: the eight symmetries of the square.
    brightness
        Largest natural logarithm of a gain of all bands at once, 0.2 for about ± 20 %.
    band_gain
        The same, band by band.
    zoom
        Largest change of resolution, as a factor: 2 gives pixels of half to double the size.
    zoom_share
        Share of tiles whose resolution is changed.
    """

    flips: bool = True
    brightness: float = 0.15
    band_gain: float = 0.05
    zoom: float = 2.0
    zoom_share: float = 0.5

    def __post_init__(self) -> None:
        if not (self.brightness >= 0 and self.band_gain >= 0 and 1 <= self.zoom < inf):
            raise ModelError(f"gains are 0 or more and zoom is 1 or more, not {self}")
        if not 0 <= self.zoom_share <= 1:
            raise ModelError(f"the share of zoomed tiles is from 0 to 1, not {self.zoom_share}")


NO_AUGMENTATION = Augmentation(flips=False, brightness=0.0, band_gain=0.0, zoom=1.0, zoom_share=0.0)


@dataclass(frozen=True)
class Draw:
    """What is drawn for one tile, as scalar tensors, and (bands,) for the gain."""

    zoom: Tensor
    row_share: Tensor
    col_share: Tensor
    flip_rows: Tensor
    flip_cols: Tensor
    transpose: Tensor
    gain: Tensor


def draw(seed: Tensor, augmentation: Augmentation, bands: int) -> Draw:
    """Draw the augmentation of a tile.

    Parameters
    ----------
    seed
        (2,) int64: the same seed gives the same draw.
    augmentation
        How far to go.
    bands
        Number of bands.
    """
    uniform = tf.random.stateless_uniform([7 + bands], seed)
    signed = 2.0 * uniform - 1.0
    zoomed = tf.exp(signed[0] * log(augmentation.zoom))
    coin = uniform[3:6] < 0.5 if augmentation.flips else tf.constant([False] * 3)
    log_gain = signed[6] * augmentation.brightness + signed[7:] * augmentation.band_gain
    # The share of zoomed tiles needs a number of its own, or it would clip the zoom's range.
    lot = tf.random.stateless_uniform([], seed + 1)
    return Draw(
        zoom=tf.where(lot < augmentation.zoom_share, zoomed, 1.0),
        row_share=uniform[1],
        col_share=uniform[2],
        flip_rows=coin[0],
        flip_cols=coin[1],
        transpose=coin[2],
        gain=tf.exp(log_gain),
    )


def apply(image: Tensor, mask: Tensor, drawn: Draw, tile_px: int) -> tuple[Tensor, Tensor]:
    """Bring a square block that was read to the size of a tile, as drawn.

    Parameters
    ----------
    image
        (n, n, bands) float32 reflectance.
    mask
        (n, n, 1) uint8: 0, 1, 255.
    drawn
        The draw; the block was read at the size that its zoom asks for.
    tile_px
        Side of the tile.

    Returns
    -------
    image (tile_px, tile_px, bands) float32, mask (tile_px, tile_px, 1) uint8.
    """
    size = [tile_px, tile_px]
    same = tf.equal(tf.shape(image)[0], tile_px)
    image = tf.cond(same, lambda: image, lambda: tf.image.resize(image, size, "bilinear"))
    mask = tf.cond(same, lambda: mask, lambda: tf.image.resize(mask, size, "nearest"))
    image = image * drawn.gain
    turns = [
        (drawn.flip_rows, lambda x: tf.reverse(x, [0])),
        (drawn.flip_cols, lambda x: tf.reverse(x, [1])),
        (drawn.transpose, lambda x: tf.transpose(x, [1, 0, 2])),
    ]
    for wanted, turn in turns:
        image, mask = tf.cond(
            wanted, lambda i=image, m=mask, t=turn: (t(i), t(m)), lambda i=image, m=mask: (i, m)
        )
    return tf.ensure_shape(image, [tile_px, tile_px, None]), tf.ensure_shape(mask, [*size, 1])
