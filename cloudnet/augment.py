"""Augmentation: one draw a tile, the same for image, mask and weight. TensorFlow throughout."""

from __future__ import annotations

from dataclasses import dataclass
from math import inf, log
from typing import Any, TypeAlias

import tensorflow as tf

from cloudnet.errors import ModelError
from cloudnet.light import SENTINEL2
from cloudnet.spec import BANDS, NO_DATA

Tensor: TypeAlias = Any

OZONE = tuple(SENTINEL2[band].ozone for band in BANDS)
"""Optical thickness, straight down, of 300 DU of ozone in each band."""


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
        The same, band by band. A few per cent of NIR over red are all that tells snow from cloud in
        four bands, so this is small.
    ozone
        Largest number of vertical columns of 300 DU that the light's way through ozone is made
        longer or shorter by.
    zoom
        Largest change of resolution, as a factor: 2 gives pixels of half to double the size.
    zoom_share
        Share of tiles whose resolution is changed.
    """

    flips: bool = True
    brightness: float = 0.15
    band_gain: float = 0.012
    ozone: float = 0.7
    zoom: float = 2.0
    zoom_share: float = 0.5

    def __post_init__(self) -> None:
        gains = (self.brightness, self.band_gain, self.ozone)
        # One by one: min() passes over NaN.
        if not (all(gain >= 0 for gain in gains) and 1 <= self.zoom < inf):
            raise ModelError(f"gains are 0 or more and zoom is 1 or more, not {self}")
        if not 0 <= self.zoom_share <= 1:
            raise ModelError(f"the share of zoomed tiles is from 0 to 1, not {self.zoom_share}")


NO_AUGMENTATION = Augmentation(
    flips=False, brightness=0.0, band_gain=0.0, ozone=0.0, zoom=1.0, zoom_share=0.0
)


@dataclass(frozen=True)
class Draw:
    """What is drawn for one tile, as scalar tensors, and (bands,) for the gain, whose parts are
    `log_brightness`, which all bands share, `band_gain`, and ozone."""

    zoom: Tensor
    row_share: Tensor
    col_share: Tensor
    flip_rows: Tensor
    flip_cols: Tensor
    transpose: Tensor
    gain: Tensor
    log_brightness: Tensor
    band_gain: Tensor


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
    log_brightness = signed[6] * augmentation.brightness
    log_band_gain = signed[7:] * augmentation.band_gain
    # The share of zoomed tiles needs a number of its own, or it would clip the zoom's range.
    lot, ozone_lot, ozone = tf.unstack(tf.random.stateless_uniform([3], seed + 1))
    # Half of the tiles keep their air: the real one is the likeliest.
    columns = tf.where(ozone_lot < 0.5, (2.0 * ozone - 1.0) * augmentation.ozone, 0.0)
    log_gain = log_brightness + log_band_gain - columns * tf.constant(OZONE)
    return Draw(
        zoom=tf.where(lot < augmentation.zoom_share, zoomed, 1.0),
        row_share=uniform[1],
        col_share=uniform[2],
        flip_rows=coin[0],
        flip_cols=coin[1],
        transpose=coin[2],
        gain=tf.exp(log_gain),
        log_brightness=log_brightness,
        band_gain=tf.exp(log_band_gain),
    )


def apply(image: Tensor, mask: Tensor, drawn: Draw, tile_px: int) -> tuple[Tensor, Tensor]:
    """Bring a block that was read to the size of a tile, as drawn.

    Parameters
    ----------
    image
        (rows, cols, bands) float32 reflectance: `block_px` of the draw a side, or as many as the
        scene has; what is missing to the right and below becomes 0, unlabelled.
    mask
        (rows, cols, 1) uint8: 0, 1, 255.
    drawn
        The draw.
    tile_px
        Side of the tile.

    Returns
    -------
    image (tile_px, tile_px, bands) float32, mask (tile_px, tile_px, 1) uint8.
    """
    size = tf.shape(image)[:2]
    scaled = tf.cast(tf.round(tf.cast(size, tf.float32) * drawn.zoom), tf.int32)
    wanted = tf.where(
        size < block_px(drawn, tile_px), tf.clip_by_value(scaled, 1, tile_px), tile_px
    )
    same = tf.reduce_all(tf.equal(size, wanted))
    image = tf.cond(same, lambda: image, lambda: tf.image.resize(image, wanted, "bilinear"))
    mask = tf.cond(same, lambda: mask, lambda: tf.image.resize(mask, wanted, "nearest"))
    missing = [[0, tile_px - wanted[0]], [0, tile_px - wanted[1]], [0, 0]]
    image = tf.pad(image * drawn.gain, missing)
    mask = tf.pad(mask, missing, constant_values=NO_DATA)
    image, mask = (_turn(pixels, drawn) for pixels in (image, mask))
    return (
        tf.ensure_shape(image, [tile_px, tile_px, None]),
        tf.ensure_shape(mask, [tile_px, tile_px, 1]),
    )


def block_px(drawn: Draw, tile_px: int) -> Tensor:
    """Return the side of the square block, int32, that a tile of this draw is made of."""
    return tf.cast(tf.round(tile_px / drawn.zoom), tf.int32)


def _turn(pixels: Tensor, drawn: Draw) -> Tensor:
    """Flip and transpose (n, n, channels) as drawn: two operations, whatever was drawn."""
    flips = tf.stack([drawn.flip_rows, drawn.flip_cols, tf.constant(False)])
    # tf.reverse takes axes, whose number must be known; the operation behind takes a flag an axis.
    flipped = tf.raw_ops.Reverse(tensor=pixels, dims=flips)
    return tf.transpose(flipped, tf.where(drawn.transpose, [1, 0, 2], [0, 1, 2]))
