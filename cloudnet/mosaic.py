"""Mosaic: the tiles of a scene filled with reflectance, run, and put together, without a seam."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Generator, Iterator
from contextlib import closing
from dataclasses import dataclass
from typing import Any, Protocol, TypeAlias

import numpy as np
from numpy.typing import NDArray

from cloudnet.ahead import run_ahead
from cloudnet.tiles import Tile, Window

Reflectance: TypeAlias = NDArray[np.float32]
Valid: TypeAlias = NDArray[np.bool_]
Probability: TypeAlias = NDArray[np.float32]
Reader: TypeAlias = Callable[[Window], tuple[Reflectance, Valid]]
Net: TypeAlias = Callable[[Reflectance], NDArray[Any]]

BLOCK_PX = 65_536
"""A tile is filled in blocks of about as many pixels, 1 MB, which stay in a core's cache."""

READ_ROWS = 128
"""Rows that are read at once where a source does not say how high its blocks are."""


class Numbers(Protocol):
    """A scene that gives its numbers as they are stored, as `scene.Scene` does."""

    def read_numbers(self, window: Window) -> tuple[NDArray[Any], Valid]:
        """Return (bands, rows, cols) and what of it is valid."""

    def to_reflectance(self, numbers: NDArray[Any]) -> Reflectance:
        """Return numbers (bands, rows, cols) as reflectance (rows, cols, bands)."""


class Pixels(Protocol):
    """What tiles are filled from."""

    def fill(self, window: Window, out: Reflectance) -> Valid | None:
        """Write the reflectance of a window, finite and 0 where not valid, into `out`.

        Returns what is valid (rows, cols), None where all is.
        """


class ArrayPixels:
    """A whole scene in memory.

    Parameters
    ----------
    scene
        (rows, cols, bands) of reflectance, not finite or 0 in all bands where there is no data.
    known
        (rows, cols): False where there is no data either; None: True everywhere.
    """

    def __init__(self, scene: NDArray[Any], known: Valid | None) -> None:
        self._scene = scene
        self._known = known

    def fill(self, window: Window, out: Reflectance) -> Valid | None:
        """Copy a window as float32, once, and find what is valid in it."""
        with np.errstate(over="ignore", invalid="ignore"):  # too large for 32 bits: no data
            np.copyto(out, self._scene[window.slices], casting="unsafe")
            known = None if self._known is None else self._known[window.slices]
            if (known is None or known.all()) and _all_usable(out):
                return None
            usable = np.asarray(np.isfinite(out).all(axis=2))
            usable &= out.any(axis=2)
            if known is not None:
                usable &= known
        out[~usable] = 0.0
        return usable


@dataclass(frozen=True)
class _Slab:
    """Full rows of a scene as they were read: reflectance, or numbers with their bands first."""

    row: int
    pixels: NDArray[Any]
    valid: Valid

    @property
    def end(self) -> int:
        """The first row below."""
        return self.row + len(self.valid)


class SlabPixels:
    """A scene that is read once, from top to bottom, and held as far as tiles still need it.

    Windows are asked for row by row of tiles, so what lies above the last one is let go.

    Parameters
    ----------
    slabs
        Full rows, in order.
    to_reflectance
        Turns numbers (bands, rows, cols) into reflectance; None: the slabs hold reflectance.
    """

    def __init__(
        self,
        slabs: Iterator[_Slab],
        to_reflectance: Callable[[NDArray[Any]], Reflectance] | None = None,
    ) -> None:
        self._slabs = slabs
        self._held: deque[_Slab] = deque()
        self._to_reflectance = to_reflectance

    def advance(self, window: Window) -> None:
        """Let go the rows above a window and read on to its end."""
        while self._held and self._held[0].end <= window.row:
            self._held.popleft()
        while not self._held or self._held[-1].end < window.row + window.rows:
            self._held.append(next(self._slabs))

    def fill(self, window: Window, out: Reflectance) -> Valid | None:
        """Convert a window that the rows at hand hold."""
        whole, parts = True, []
        for slab in self._held:
            top, end = max(slab.row, window.row), min(slab.end, window.row + window.rows)
            if top < end:
                rows = slice(top - slab.row, end - slab.row)
                cols = slice(window.col, window.col + window.cols)
                part = out[top - window.row : end - window.row]
                parts.append(self._convert(slab, rows, cols, part))
                whole &= bool(parts[-1].all())
        return None if whole else np.concatenate(parts)

    def _convert(self, slab: _Slab, rows: slice, cols: slice, out: Reflectance) -> Valid:
        valid = slab.valid[rows, cols]
        if self._to_reflectance is None:
            out[...] = slab.pixels[rows, cols]
            return valid
        out[...] = self._to_reflectance(slab.pixels[:, rows, cols])
        if slab.pixels.dtype.kind == "f" and not _all_finite(out):
            valid = valid & np.isfinite(out).all(axis=2)
        if not valid.all():
            out[~valid] = 0.0
        return valid


class Mosaic:
    """Runs tiles through a net and keeps of each what is its own.

    Parameters
    ----------
    run
        The net: (1, rows, cols, bands) to (1, rows, cols, 1).
    bands
        Their number.
    """

    def __init__(self, run: Net, bands: int) -> None:
        self._run = run
        self._bands = bands

    def run_tile(
        self, pixels: Pixels, tile: Tile, window: Window, buffer: Reflectance, out: Probability
    ) -> None:
        """Write the probability of a tile's kept part into `out`; NaN where there is no data.

        Parameters
        ----------
        pixels
            What the tile is filled from.
        tile, window
            The tile, and the part of what it reads that lies inside the scene.
        buffer
            (rows, cols, bands) of what it reads; overwritten with its reflectance, mirrored past
            the scene's edge.
        out
            (rows, cols) of what it keeps.
        """
        valid = fill_in_blocks(pixels, window, buffer)
        kept = tile.write.within(tile.read).slices
        known = None if valid is None else valid[kept]
        if known is not None and not known.any():
            out[...] = np.nan
            return
        mirror(buffer, window.rows, window.cols)
        out[...] = self._run(buffer[np.newaxis])[0, ..., 0][kept]
        if known is not None:
            out[~known] = np.nan

    def stream(
        self, source: Reader | Numbers, size: tuple[int, int], tiles: list[Tile]
    ) -> Generator[tuple[Window, Probability, Reflectance], None, None]:
        """Yield the tiles of a scene that is read, run and used at the same time.

        One thread reads, another runs the net, the caller uses what comes out; each is at most one
        slab or tile ahead of the next.
        """
        with closing(run_ahead(self._run_rows(source, size, tiles))) as results:
            yield from results

    def _run_rows(
        self, source: Reader | Numbers, size: tuple[int, int], tiles: list[Tile]
    ) -> Generator[tuple[Window, Probability, Reflectance], None, None]:
        with closing(run_ahead(read_slabs(source, size))) as slabs:
            pixels = SlabPixels(slabs, getattr(source, "to_reflectance", None))
            for tile in tiles:
                window = tile.read.clip(*size)
                pixels.advance(window)
                buffer = np.empty((tile.read.rows, tile.read.cols, self._bands), dtype=np.float32)
                probability = np.empty((tile.write.rows, tile.write.cols), dtype=np.float32)
                self.run_tile(pixels, tile, window, buffer, probability)
                yield tile.write, probability, buffer[tile.write.within(tile.read).slices]


def fill_in_blocks(pixels: Pixels, window: Window, buffer: Reflectance) -> Valid | None:
    """Fill a buffer's upper left with a window; return what is valid of it, None where all is."""
    step = max(BLOCK_PX // max(window.cols, 1), 1)
    valid: Valid | None = None
    for top in range(0, window.rows, step):
        part = Window(window.row + top, window.col, min(step, window.rows - top), window.cols)
        place = slice(top, top + part.rows)
        found = pixels.fill(part, buffer[place, : window.cols])
        if found is not None:
            if valid is None:
                valid = np.ones((window.rows, window.cols), dtype=bool)
            valid[place] = found
    return valid


def read_slabs(source: Reader | Numbers, size: tuple[int, int]) -> Iterator[_Slab]:
    """Yield a scene in slabs of full rows, as high as the blocks that it is stored in."""
    read: Any = getattr(source, "read_numbers", source)
    step = max(getattr(source, "block_rows", READ_ROWS), 1)
    for row in range(0, size[0], step):
        yield _Slab(row, *read(Window(row, 0, step, size[1]).clip(*size)))


def pad_mirrored(reflectance: Reflectance, rows: int, cols: int) -> Reflectance:
    """Extend (r, c, bands) to the right and below by its mirror image, which adds no edge."""
    missing = (rows - reflectance.shape[0], cols - reflectance.shape[1])
    if missing == (0, 0):
        return reflectance
    return np.pad(reflectance, ((0, missing[0]), (0, missing[1]), (0, 0)), mode="symmetric")


def mirror(buffer: Reflectance, rows: int, cols: int) -> None:
    """Fill a buffer past its first rows and cols with their mirror image, which adds no edge."""
    buffer[rows:, :cols] = buffer[_mirrored(rows, len(buffer)), :cols]
    buffer[:, cols:] = buffer[:, _mirrored(cols, buffer.shape[1])]


def _mirrored(length: int, end: int) -> NDArray[np.intp]:
    """Return, for each place from `length` to `end`, the place inside that it mirrors."""
    place = np.arange(length, end) % (2 * length)
    return np.where(place < length, place, 2 * length - 1 - place)


def _all_usable(block: Reflectance) -> bool:
    """Tell, mostly without looking at every number alone, whether all pixels are usable."""
    if not _all_finite(block):
        return False
    dark = block[..., 0] == 0.0
    return not dark.any() or bool(block[dark].any(axis=1).all())


def _all_finite(block: Reflectance) -> bool:
    """Tell whether all is finite: then its sum of squares is, unless that is too large for it."""
    rows = block.reshape(len(block), -1)
    return bool(np.isfinite(np.einsum("ij,ij->", rows, rows)) or np.isfinite(rows).all())
