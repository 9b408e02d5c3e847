"""Tiles: windows of a scene, what is read and what of it is kept. Geometry only, no pixels."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise


@dataclass(frozen=True)
class Window:
    """A rectangle of pixels: upper left corner (row, col) and size (rows, cols)."""

    row: int
    col: int
    rows: int
    cols: int

    @property
    def slices(self) -> tuple[slice, slice]:
        """The window as an index into an array (rows, cols, …)."""
        return (
            slice(self.row, self.row + self.rows),
            slice(self.col, self.col + self.cols),
        )

    def clip(self, rows: int, cols: int) -> Window:
        """Return the part inside a scene of `rows` x `cols` pixels; it may be empty."""
        top, left = min(max(self.row, 0), rows), min(max(self.col, 0), cols)
        bottom = min(max(self.row + self.rows, top), rows)
        right = min(max(self.col + self.cols, left), cols)
        return Window(top, left, bottom - top, right - left)

    def intersection(self, other: Window) -> Window:
        """Return the part that both windows share; it may be empty."""
        row, col = max(self.row, other.row), max(self.col, other.col)
        bottom = min(self.row + self.rows, other.row + other.rows)
        right = min(self.col + self.cols, other.col + other.cols)
        return Window(row, col, max(bottom - row, 0), max(right - col, 0))

    def within(self, outer: Window) -> Window:
        """Return this window in the coordinates of `outer`."""
        return Window(self.row - outer.row, self.col - outer.col, self.rows, self.cols)


@dataclass(frozen=True)
class Tile:
    """A window that is read and the part of it that is kept.

    `read` starts at a multiple of the stride and may reach past the scene's right and lower edge by
    less than a stride.
    """

    read: Window
    write: Window


@dataclass(frozen=True)
class _Span:
    """A tile along one axis: first pixel read, first pixel kept, end of the pixels kept."""

    start: int
    keep_from: int
    keep_to: int


def round_up(length: int, step: int) -> int:
    """Return the smallest multiple of `step` that is not below `length`."""
    return -(-length // step) * step


def _spans(length: int, tile_px: int, halo_px: int, stride: int) -> list[_Span]:
    """Place tiles evenly along an axis so that each kept pixel has `halo_px` around it.

    Where one tile's kept part ends and the next begins is a multiple of the stride too, so that no
    coarse cell of a net is shared between them.
    """
    padded = round_up(length, stride)
    if padded <= tile_px:
        return [_Span(0, 0, length)]
    free = (padded - tile_px) // stride
    largest_step = (tile_px - 2 * halo_px) // stride
    gaps = -(-free // largest_step)
    starts = [free * index // gaps * stride for index in range(gaps + 1)]
    cuts = [
        following + (start + tile_px - following) // 2 // stride * stride
        for start, following in pairwise(starts)
    ]
    edges = [0, *cuts, length]
    return [_Span(start, *edge) for start, edge in zip(starts, pairwise(edges))]


def _check_steps(halo_px: int, stride: int) -> None:
    """Raise ValueError where the halo or the stride is none."""
    if stride < 1 or halo_px < 0:
        raise ValueError(f"a stride of {stride} px is below 1, or a halo of {halo_px} px below 0")


def check_tile(tile_px: int, halo_px: int, stride: int) -> None:
    """Raise ValueError unless a tile is a multiple of the stride with pixels left to keep."""
    _check_steps(halo_px, stride)
    if tile_px % stride or tile_px <= 0:
        raise ValueError(f"a tile of {tile_px} px is not a multiple of the stride, {stride} px")
    if tile_px < 2 * halo_px + stride:
        least = round_up(2 * halo_px + stride, stride)
        raise ValueError(
            f"a tile of {tile_px} px keeps nothing within a halo of {halo_px} px; "
            f"the smallest is {least} px"
        )


def fit_tile(tile_px: int, halo_px: int, stride: int) -> int:
    """Return the tile, at least `tile_px`, that is a multiple of the stride and holds the halo."""
    fitted = max(round_up(tile_px, stride), round_up(2 * halo_px + stride, stride))
    check_tile(fitted, halo_px, stride)
    return fitted


def choose_tile(
    size: tuple[int, int],
    halo_px: int,
    stride: int,
    *,
    area_px: int,
    most_rows: int | None = None,
) -> tuple[int, int]:
    """Return the (rows, cols) of tiles with which the fewest pixels are read, halos included.

    A scene that fits is one tile.

    Parameters
    ----------
    size
        (rows, cols) of the scene.
    halo_px, stride
        As in `grid`.
    area_px
        Pixels of a tile at most, as long as halo and stride leave something to keep.
    most_rows
        Rows of a tile at most, likewise; what is held of a scene is as many full rows.
    """
    rows, cols = (max(round_up(length, stride), stride) for length in size)
    least = fit_tile(1, halo_px, stride)
    tallest = max(min(rows, most_rows or rows) // stride * stride, least)
    if rows <= tallest and rows * cols <= area_px:
        return rows, cols
    choices = []
    for across in range(1, -(-cols // stride) + 1):
        width = _balanced(cols, across, halo_px, stride)
        height = min(tallest, area_px // width // stride * stride)
        if across > 1 and width < least:
            break
        if height >= min(least, rows):
            down = _pieces(rows, height, halo_px)
            height = _balanced(rows, down, halo_px, stride)
            choices.append((down * height * across * width, across, height, width))
    if not choices:
        return min(least, rows), min(least, cols)
    *_, height, width = min(choices)
    return height, width


def _pieces(length: int, tile_px: int, halo_px: int) -> int:
    """Return how many tiles an axis takes."""
    return 1 if length <= tile_px else 1 + -(-(length - tile_px) // (tile_px - 2 * halo_px))


def _balanced(length: int, pieces: int, halo_px: int, stride: int) -> int:
    """Return the side of `pieces` equal tiles that cover an axis."""
    return round_up(-(-(length + 2 * halo_px * (pieces - 1)) // pieces), stride)


def grid(
    rows: int, cols: int, tile_px: int | tuple[int, int], halo_px: int, stride: int = 1
) -> list[Tile]:
    """Cover a scene with tiles, row by row; every pixel is kept exactly once.

    Tiles of one grid read windows of one size (`tile_px`, or the padded scene where that is
    smaller), placed evenly; a kept pixel lies at least `halo_px` from its tile's edge unless that
    edge is also the scene's.

    Parameters
    ----------
    rows, cols
        Size of the scene in pixels.
    tile_px
        Side of a tile as read, or its (rows, cols); multiples of `stride`.
    halo_px
        Width of the border that is read and not kept; if no multiple of `stride`, at least the
        next one below.
    stride
        All reads start at, and are as long as, multiples of this.

    Raises
    ------
    ValueError
        When the stride is below 1 or the halo negative; and, along an axis that needs more than
        one tile, when the tile is no multiple of the stride or the halo leaves nothing of it.
    """
    if rows < 1 or cols < 1:
        return []
    _check_steps(halo_px, stride)
    sides = (tile_px, tile_px) if isinstance(tile_px, int) else tile_px
    for length, side in zip((rows, cols), sides):
        if round_up(length, stride) > side:
            check_tile(side, halo_px, stride)
    read_rows, read_cols = (
        min(side, round_up(length, stride)) for length, side in zip((rows, cols), sides)
    )
    return [
        Tile(
            read=Window(down.start, across.start, read_rows, read_cols),
            write=Window(
                down.keep_from,
                across.keep_from,
                down.keep_to - down.keep_from,
                across.keep_to - across.keep_from,
            ),
        )
        for down in _spans(rows, sides[0], halo_px, stride)
        for across in _spans(cols, sides[1], halo_px, stride)
    ]
