"""Quicklooks: a scene in true colour with the outline of its mask, small enough to look at."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray
from rasterio.errors import NotGeoreferencedWarning
from rasterio.io import MemoryFile

from cloudnet.files import quiet
from cloudnet.spec import CLEAR, CLOUD, NO_DATA
from cloudnet.tiles import Window

Picture: TypeAlias = NDArray[np.uint8]

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
    above_black = np.nan_to_num(reflectance[..., :3]) - np.float32(BLACK_REFLECTANCE)
    share = above_black / np.float32(white - BLACK_REFLECTANCE)
    shown = np.clip(share, 0.0, 1.0) ** np.float32(1.0 / GAMMA)
    return np.asarray(np.rint(shown * np.float32(255.0)), dtype=np.uint8)


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
        # Sums of red, green, blue; numbers of pixels that are valid, cloud, clear, any.
        self._sums = np.zeros((self.height, self.width, 7), dtype=np.uint32)

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
        layers = np.empty((*mask.shape, 7), dtype=np.uint8)
        layers[..., :3] = true_color(reflectance)
        layers[~shown, :3] = 0
        layers[..., 3] = shown
        layers[..., 4] = mask == CLOUD
        layers[..., 5] = mask == CLEAR
        layers[..., 6] = 1
        sums, part = self._binned(window, layers)
        self._sums[part.slices] += sums

    def replace_mask(self, parts: Iterable[tuple[Window, NDArray[np.uint8]]]) -> None:
        """Forget the mask and take another one, window by window, for the same colours."""
        self._sums[..., 4:6] = 0
        for window, whole in parts:
            mask = whole[self._sampled(window)]
            if mask.size == 0:
                continue
            layers = np.stack([mask == CLOUD, mask == CLEAR], axis=2).astype(np.uint8)
            sums, part = self._binned(window, layers)
            self._sums[part.slices][..., 4:6] += sums

    def _sampled(self, window: Window) -> tuple[slice, slice]:
        """Return the pixels of a window that are looked at, as an index into it."""
        return (
            slice(-window.row % self.step, None, self.step),
            slice(-window.col % self.step, None, self.step),
        )

    def _binned(self, window: Window, layers: Picture) -> tuple[NDArray[np.uint32], Window]:
        """Return sums of layers (rows, cols, n), as sampled, over the picture's pixels, and their
        place."""
        rows, cols = (
            np.arange(n)[place]
            for n, place in zip((window.rows, window.cols), self._sampled(window))
        )
        down, first_row = _bins(window.row + rows, self.rows, self.height)
        across, first_col = _bins(window.col + cols, self.cols, self.width)
        sums = np.add.reduceat(layers, down, axis=0, dtype=np.uint32)
        sums = np.add.reduceat(sums, across, axis=1, dtype=np.uint32)
        return sums, Window(first_row, first_col, sums.shape[0], sums.shape[1])

    def picture(self) -> Picture:
        """Return the scene in true colour, (height, width, 3); grey where no data."""
        pixels = self._sums[..., 3:4]
        means = (self._sums[..., :3] + pixels // 2) // np.maximum(pixels, 1)
        return np.where(pixels > 0, means, NO_DATA_COLOR).astype(np.uint8)

    def mask(self) -> NDArray[np.uint8]:
        """Return the mask, (height, width): what most pixels say; 255 where most say nothing."""
        cloud, clear, pixels = (self._sums[..., layer] for layer in (4, 5, 6))
        mask = np.where(cloud >= clear, np.uint8(CLOUD), np.uint8(CLEAR))
        mask[(2 * (cloud + clear) < pixels) | (pixels == 0)] = NO_DATA
        return mask

    def image(self, times: int = 1) -> Picture:
        """Return the picture with the outline of the cloud, (times height, times width, 3).

        The outline is the cloud's own outermost pixels: cloud with clear above, below or beside it.
        Each pixel of the picture is repeated `times` across and down before the outline is drawn.
        """
        image, mask = (
            part.repeat(times, axis=0).repeat(times, axis=1)
            for part in (self.picture(), self.mask())
        )
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


def _bins(pixels: NDArray[np.intp], total: int, bins: int) -> tuple[NDArray[np.intp], int]:
    """Share pixels of an axis out to bins, where pixel p of `total` belongs to p * bins // total.

    Returns
    -------
    starts, first
        Where each bin begins among the pixels, and the number of the first bin.
    """
    numbers = pixels * bins // total
    return np.flatnonzero(np.diff(numbers, prepend=-1)), int(numbers[0])
