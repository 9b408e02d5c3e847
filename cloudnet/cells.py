"""One band of a raster file, decoded in cells of its own blocks, each of them once."""

from __future__ import annotations

from collections import OrderedDict
from typing import Any, TypeAlias

import numpy as np
import rasterio
from numpy.typing import NDArray
from rasterio.windows import Window as RasterioWindow

from cloudnet.tiles import Window, round_up

Numbers: TypeAlias = NDArray[Any]
Place: TypeAlias = tuple[int, int]

CELL_PX = 512
"""Smaller blocks are decoded several at a time, up to this side."""


class CellReader:
    """Reads windows of one band; what it has decoded stays for the next window, within bounds.

    GDAL's own cache would do the same, were it not one for the whole process, of a size that others
    set. For one thread at a time.

    Parameters
    ----------
    file
        An open rasterio dataset.
    threads
        That GDAL may use for decoding, where its driver can.
    kept_rows
        Rows of cells that are kept. A reader who goes down a scene in slabs that cut cells decodes
        none a second time with 1, and with 2 also where each slab returns by a halo.
    """

    def __init__(self, file: Any, threads: int = 1, kept_rows: int = 1) -> None:
        self._file = file
        self._threads = threads
        rows, cols = (
            min(round_up(block, block * -(-CELL_PX // block)), side)
            for block, side in zip(file.block_shapes[0], file.shape)
        )
        self._cell = (max(rows, 1), max(cols, 1))
        self._most = kept_rows * -(-file.width // self._cell[1])
        self._cells: OrderedDict[Place, Numbers] = OrderedDict()

    @property
    def kept_bytes(self) -> int:
        """The most that decoded cells take."""
        rows, cols = self._cell
        return int(self._most * rows * cols * np.dtype(self._file.dtypes[0]).itemsize)

    def read(self, window: Window, out: Numbers) -> None:
        """Read a window inside the file into an array (rows, cols)."""
        rows, cols = self._cell
        columns = range(window.col // cols, -(-(window.col + window.cols) // cols))
        for row in range(window.row // rows, -(-(window.row + window.rows) // rows)):
            self._load(row, [col for col in columns if (row, col) not in self._cells])
            for col in columns:
                self._paste((row, col), window, out)
            self.forget(self._most)

    def _load(self, row: int, columns: list[int]) -> None:
        """Decode cells of one row, as many neighbours at a time as there are threads."""
        rows, cols = self._cell
        while columns:
            run = [columns.pop(0)]
            while columns and columns[0] == run[-1] + 1 and len(run) < self._threads:
                run.append(columns.pop(0))
            part = Window(row * rows, run[0] * cols, rows, cols * len(run)).clip(*self._file.shape)
            place = RasterioWindow(part.col, part.row, part.cols, part.rows)
            with rasterio.Env(GDAL_NUM_THREADS=str(self._threads)):
                numbers = self._file.read(1, window=place)
            for index, col in enumerate(run):
                cell = numbers[:, index * cols : (index + 1) * cols]
                self._cells[row, col] = cell if len(run) == 1 else cell.copy()

    def _paste(self, place: Place, window: Window, out: Numbers) -> None:
        rows, cols = self._cell
        cell = self._cells[place]
        self._cells.move_to_end(place)
        whole = Window(place[0] * rows, place[1] * cols, *cell.shape)
        shared = window.intersection(whole)
        out[shared.within(window).slices] = cell[shared.within(whole).slices]

    def forget(self, most: int = 0) -> None:
        """Give back all cells but the `most` that were used last."""
        while len(self._cells) > most:
            self._cells.popitem(last=False)
