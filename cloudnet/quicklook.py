"""Quicklooks: a scene in true colour with the outline of its mask, small enough to look at."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, NamedTuple, TypeAlias

import numpy as np
from numpy.typing import NDArray
from rasterio.errors import NotGeoreferencedWarning
from rasterio.io import MemoryFile

from cloudnet.files import quiet
from cloudnet.spec import CLEAR, CLOUD, NO_DATA
from cloudnet.tiles import Window

Picture: TypeAlias = NDArray[np.uint8]
Sums: TypeAlias = NDArray[np.unsignedinteger[Any]]

BLACK_REFLECTANCE, WHITE_REFLECTANCE = 0.02, 0.8
"""Reflectance of red, green and blue that is shown black, and white."""

GAMMA = 2.0
"""Shown brightness = (reflectance, from black to white as 0 to 1) ** (1 / GAMMA)."""

OUTLINE_COLOR = (255, 0, 170)
"""Pink: it occurs neither in cloud, snow and sea nor on land."""

SAMPLES = 4
"""Of a large scene: pixels looked at, at least, along a side of a pixel of the picture."""

PNG_LEVEL = 1
"""Of deflate: four times as fast as the default, and files an eighth larger."""

NO_DATA_COLOR = (104, 104, 104)

READABLE_PX = 512
"""Pictures whose longest side is half of this or less are enlarged."""


def true_color(reflectance: NDArray[np.float32], white: float = WHITE_REFLECTANCE) -> Picture:
    """Return reflectance as a picture, by one stretch for all scenes.

    The stretch is fixed, so that an overcast scene looks white and a dark one dark; the gamma
    keeps land and water, at a reflectance of 0.02 to 0.2, apart beside cloud, at 0.3 to 1.

    Parameters
    ----------
    reflectance
        (rows, cols, 3 or more) float32: red, green, blue, others; 1.0 = 100 %.
    white
        Reflectance that is shown white.

    Returns
    -------
    (rows, cols, 3) uint8; what is not a number is black.
    """
    shown = reflectance[..., :3] - np.float32(BLACK_REFLECTANCE)
    shown /= np.float32(white - BLACK_REFLECTANCE)
    np.fmax(shown, 0.0, out=shown)  # of a number and what is none, the number
    np.fmin(shown, 1.0, out=shown)
    shown **= np.float32(1.0 / GAMMA)
    shown *= np.float32(255.0)
    return np.asarray(np.rint(shown, out=shown), dtype=np.uint8)


class Quicklook:
    """A picture of a scene that grows window by window, as the scene is streamed.

    Pixels are averaged on a grid that is fixed by the scene's size alone, in whole numbers, so the
    picture does not depend on how the scene is cut into windows. Of a large scene only every
    `step`-th row and column is looked at, `SAMPLES` or more a side of the picture's pixel: all of
    a full tile took as long as the net.

    Parameters
    ----------
    rows, cols
        Size of the scene in pixels.
    max_px
        Longest side of the picture; a scene that is smaller keeps its size.
    """

    def __init__(self, rows: int, cols: int, max_px: int = 1024) -> None:
        shrink = max(max(rows, cols) / max_px, 1.0)
        self.rows, self.cols = rows, cols
        self.height, self.width = max(round(rows / shrink), 1), max(round(cols / shrink), 1)
        self.step = max(int(shrink / SAMPLES), 1)
        # A pixel of the picture takes at most 2 * SAMPLES + 1 by as many of the scene's, half as
        # many more across a slender one: sums of red, green and blue fit 16 bits, numbers of
        # pixels 8.
        self._colors = np.zeros((self.height, self.width, 3), dtype=np.uint16)
        self._valid, self._cloud, self._clear, self._any = np.zeros(
            (4, self.height, self.width), dtype=np.uint8
        )

    def add(
        self,
        window: Window,
        reflectance: NDArray[np.float32],
        mask: NDArray[np.uint8],
        valid: NDArray[np.bool_] | None = None,
    ) -> None:
        """Add a window of the scene.

        Parameters
        ----------
        window
            Inside the scene. Windows cover it once; what none covers is shown as no data.
        reflectance
            (rows, cols, 4): red, green, blue, NIR; 1.0 = 100 %.
        mask
            (rows, cols): 0 clear, 1 cloud, 255 no data.
        valid
            (rows, cols): where the colour is known; by default where the mask is not 255.

        Raises
        ------
        ValueError
            When the arrays do not fit the window, or the window not the scene.
        """
        size = (window.rows, window.cols)
        if reflectance.shape[:2] != size or mask.shape != size:
            raise ValueError(f"{reflectance.shape} and {mask.shape} do not fit {window}")
        if window != window.clip(self.rows, self.cols):
            raise ValueError(f"{window} reaches out of {self.rows} x {self.cols} pixels")
        place = self._sampled(window)
        reflectance, mask = reflectance[place], mask[place]
        valid = None if valid is None else valid[place]
        if mask.size == 0:
            return
        shown = mask != NO_DATA if valid is None else valid
        colors = true_color(reflectance)
        colors *= shown[..., np.newaxis]
        down, across = self._bins(window)
        self._colors[down.place, across.place] += _binned(colors.astype(np.uint16), down, across)
        for counts, counted in (
            (self._valid, shown),
            (self._cloud, mask == CLOUD),
            (self._clear, mask == CLEAR),
            (self._any, np.ones(mask.shape, dtype=np.bool_)),
        ):
            counts[down.place, across.place] += _binned(counted.view(np.uint8), down, across)

    def replace_mask(self, parts: Iterable[tuple[Window, NDArray[np.uint8]]]) -> None:
        """Forget the mask and take another one, window by window, for the same colours."""
        self._cloud[...] = self._clear[...] = 0
        for window, whole in parts:
            mask = whole[self._sampled(window)]
            if mask.size == 0:
                continue
            down, across = self._bins(window)
            for counts, value in ((self._cloud, CLOUD), (self._clear, CLEAR)):
                counted = (mask == value).view(np.uint8)
                counts[down.place, across.place] += _binned(counted, down, across)

    def _sampled(self, window: Window) -> tuple[slice, slice]:
        """Return the pixels of a window that are looked at, as an index into it."""
        return (
            slice(-window.row % self.step, None, self.step),
            slice(-window.col % self.step, None, self.step),
        )

    def _bins(self, window: Window) -> tuple[_Bins, _Bins]:
        """Return how a window, as sampled, is shared out to the picture's rows and columns."""
        rows, cols = (
            np.arange(n)[place]
            for n, place in zip((window.rows, window.cols), self._sampled(window))
        )
        return (
            _share_out(window.row + rows, self.rows, self.height),
            _share_out(window.col + cols, self.cols, self.width),
        )

    def picture(self) -> Picture:
        """Return the scene in true colour, (height, width, 3); grey where no data."""
        # Whole numbers of 16 bits: what float32 makes of their quotients has the right whole part.
        some, half = np.maximum(self._valid, 1).astype(np.float32), self._valid // 2
        image = np.empty((self.height, self.width, 3), dtype=np.uint8)
        for band in range(3):
            image[..., band] = (self._colors[..., band] + half) / some
        image[self._valid == 0] = NO_DATA_COLOR
        return image

    def mask(self) -> NDArray[np.uint8]:
        """Return the mask, (height, width): what most pixels say; 255 where most say nothing."""
        told = self._cloud + self._clear
        mask = np.where(self._cloud >= self._clear, np.uint8(CLOUD), np.uint8(CLEAR))
        mask[(told < self._any - told) | (self._any == 0)] = NO_DATA
        return mask

    def image(self, times: int = 1) -> Picture:
        """Return the picture with the outline of the cloud, (times height, times width, 3).

        The outline is the cloud's own outermost pixels: cloud with clear above, below or beside it.
        Each pixel of the picture is repeated `times` across and down before the outline is drawn.
        """
        image, mask = self.picture(), self.mask()
        if times > 1:
            image, mask = (part.repeat(times, 0).repeat(times, 1) for part in (image, mask))
        image[outline(mask)] = OUTLINE_COLOR
        return image

    def encode(self) -> bytes:
        """Return the image as the bytes of a PNG file.

        A scene of a few pixels is enlarged to about `READABLE_PX`, or its outline would hide it.
        """
        return png(self.image(max(READABLE_PX // max(self.height, self.width), 1)))


def outline(mask: NDArray[np.uint8]) -> NDArray[np.bool_]:
    """Return where a mask (rows, cols) is cloud and has clear above, below or beside it."""
    clear = np.pad(mask == CLEAR, 1)
    beside = clear[:-2, 1:-1] | clear[2:, 1:-1] | clear[1:-1, :-2] | clear[1:-1, 2:]
    return np.asarray((mask == CLOUD) & beside)


def png(image: Picture) -> bytes:
    """Return an image (rows, cols, 3) uint8 as the bytes of a PNG file."""
    rows, cols, count = image.shape
    with quiet(NotGeoreferencedWarning), MemoryFile(ext=".png") as memory:
        with memory.open(
            driver="PNG", width=cols, height=rows, count=count, dtype="uint8", zlevel=PNG_LEVEL
        ) as target:
            target.write(image.transpose(2, 0, 1))
        return bytes(memory.read())


class _Bins(NamedTuple):
    """Where each bin of an axis begins among its pixels, the pixels, and the bins' place."""

    starts: NDArray[np.intp]
    pixels: int
    place: slice


def _share_out(pixels: NDArray[np.intp], total: int, bins: int) -> _Bins:
    """Share pixels of an axis out to bins: pixel p of `total` belongs to p * bins // total."""
    numbers = pixels * bins // total
    starts = np.flatnonzero(np.diff(numbers, prepend=-1))
    return _Bins(starts, pixels.size, slice(int(numbers[0]), int(numbers[0]) + starts.size))


def _binned(layer: Sums, down: _Bins, across: _Bins) -> Sums:
    """Return the sums of a layer (rows, cols, ...) over bins, in the layer's own whole numbers."""
    return _sum_bins(_sum_bins(layer, down, 0), across, 1)


def _sum_bins(layer: Sums, bins: _Bins, axis: int) -> Sums:
    """Return the sums over the bins of an axis, as `np.add.reduceat` does.

    All first pixels of the bins, then all second ones: 3 to 40 times as fast.
    """
    if bins.starts.size == bins.pixels:
        return layer
    sizes = np.diff(bins.starts, append=bins.pixels)
    sums: Sums = np.take(layer, bins.starts, axis=axis)
    for nth in range(1, sizes.max()):
        longer = np.flatnonzero(sizes > nth)
        place = (slice(None),) * axis + (slice(None) if longer.size == sizes.size else longer,)
        sums[place] += np.take(layer, bins.starts[longer] + nth, axis=axis)
    return sums
