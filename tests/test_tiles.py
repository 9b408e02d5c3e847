"""The geometry of tiles, at any size of scene, tile, halo and stride."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import FrozenInstanceError, dataclass
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from cloudnet.tiles import Tile, Window, check_tile, choose_tile, grid, round_up


@dataclass(frozen=True)
class Case:
    """Arguments of `grid` that fit together."""

    rows: int
    cols: int
    tile_px: int
    halo_px: int
    stride: int


@st.composite
def cases(draw: st.DrawFn) -> Case:
    stride = draw(st.sampled_from([1, 2, 3, 8, 16]))
    halo_px = draw(st.integers(0, 40))
    least = round_up(2 * halo_px + stride, stride) // stride
    tile_px = draw(st.integers(least, least + 6)) * stride
    size = st.integers(1, 400)
    return Case(draw(size), draw(size), tile_px, halo_px, stride)


EDGE_CASES = (
    Case(1, 1, 16, 0, 16),
    Case(1, 300, 16, 7, 1),
    Case(17, 16, 16, 0, 16),
    Case(400, 333, 48, 16, 16),
    Case(256, 256, 224, 64, 16),
    Case(7, 9, 5, 2, 1),
)


def for_any_case(test: Callable[[Case], None]) -> Callable[[], None]:
    """Run a test on drawn cases and on those that were once, or may be, trouble."""
    for case in EDGE_CASES:
        test = example(case)(test)
    return given(cases())(test)


def tiles_of(case: Case) -> list[Tile]:
    return grid(case.rows, case.cols, case.tile_px, case.halo_px, case.stride)


@for_any_case
def test_every_pixel_is_kept_exactly_once(case: Case) -> None:
    times = np.zeros((case.rows, case.cols), dtype=int)
    for tile in tiles_of(case):
        assert tile.write.clip(case.rows, case.cols) == tile.write
        assert tile.write.rows > 0 and tile.write.cols > 0
        times[tile.write.slices] += 1
    assert (times == 1).all()


@for_any_case
def test_a_kept_pixel_has_the_halo_around_it_but_for_the_scenes_edge(case: Case) -> None:
    halo_px = case.halo_px // case.stride * case.stride
    for tile in tiles_of(case):
        read, write = tile.read, tile.write
        assert read.row == 0 or write.row - read.row >= halo_px
        assert read.col == 0 or write.col - read.col >= halo_px
        below = read.row + read.rows - (write.row + write.rows)
        right = read.col + read.cols - (write.col + write.cols)
        assert read.row + read.rows >= case.rows or below >= halo_px
        assert read.col + read.cols >= case.cols or right >= halo_px


@for_any_case
def test_kept_parts_meet_at_multiples_of_the_stride(case: Case) -> None:
    # A coarse cell of a net that two tiles shared would show as a step between them.
    for tile in tiles_of(case):
        assert tile.write.row % case.stride == 0
        assert tile.write.col % case.stride == 0


@for_any_case
def test_reads_are_aligned_to_the_stride_of_one_size_and_barely_past_the_edge(case: Case) -> None:
    tiles = tiles_of(case)
    assert len({(tile.read.rows, tile.read.cols) for tile in tiles}) == 1
    for read in (tile.read for tile in tiles):
        assert read.row >= 0 and read.col >= 0
        assert [value % case.stride for value in (read.row, read.col, read.rows, read.cols)] == [
            0
        ] * 4
        assert read.rows <= case.tile_px and read.cols <= case.tile_px
        assert read.row + read.rows < case.rows + case.stride
        assert read.col + read.cols < case.cols + case.stride


@for_any_case
def test_tiles_are_placed_evenly_and_none_too_many(case: Case) -> None:
    tiles = tiles_of(case)
    for starts, length in (
        (sorted({tile.read.row for tile in tiles}), case.rows),
        (sorted({tile.read.col for tile in tiles}), case.cols),
    ):
        steps = [after - before for before, after in pairwise(starts)]
        assert not steps or max(steps) - min(steps) <= case.stride
        padded = round_up(length, case.stride)
        if padded <= case.tile_px:
            assert starts == [0]
            continue
        assert starts[-1] == padded - case.tile_px
        # One tile fewer could not reach without a step too wide for the halo.
        widest = (case.tile_px - 2 * case.halo_px) // case.stride * case.stride
        assert (len(starts) - 2) * widest < starts[-1]


def test_tiles_come_row_by_row() -> None:
    corners = [(tile.write.row, tile.write.col) for tile in grid(100, 90, 32, 4, 4)]
    assert corners == sorted(corners)
    assert corners[0] == (0, 0)
    assert corners[1][0] == 0


def test_rows_and_columns_are_not_exchanged() -> None:
    tiles = grid(10, 40, 20, 0)
    assert [(tile.read.row, tile.read.col) for tile in tiles] == [(0, 0), (0, 20)]
    assert [(tile.read.rows, tile.read.cols) for tile in tiles] == [(10, 20), (10, 20)]


def test_a_known_grid() -> None:
    tiles = grid(20, 8, 16, 2, 4)
    assert [(tile.read, tile.write) for tile in tiles] == [
        (Window(0, 0, 16, 8), Window(0, 0, 8, 8)),
        (Window(4, 0, 16, 8), Window(8, 0, 12, 8)),
    ]


@pytest.mark.parametrize("rows", range(1, 60))
def test_tiles_rebuild_an_array(rows: int) -> None:
    whole = np.arange(rows * 41).reshape(rows, 41)
    padded = np.pad(whole, ((0, 8), (0, 8)), constant_values=-1)
    rebuilt = np.full_like(whole, -2)
    for tile in grid(rows, 41, 16, 3, 8):
        rebuilt[tile.write.slices] = padded[tile.read.slices][tile.write.within(tile.read).slices]
    assert (rebuilt == whole).all()


def test_a_scene_without_pixels_has_no_tiles() -> None:
    assert grid(0, 5, 16, 0) == []
    assert grid(5, 0, 16, 0) == []


def test_a_scene_that_fits_one_tile_needs_no_fitting_tile() -> None:
    # No edge of the tile lies within the scene, so that the halo is not used.
    assert [tile.read for tile in grid(30, 20, 100, 64, 16)] == [Window(0, 0, 32, 32)]


@pytest.mark.parametrize(
    ("tile_px", "halo_px", "stride", "reason"),
    [
        (100, 0, 16, "not a multiple of the stride"),
        (0, 0, 16, "not a multiple of the stride"),
        (-16, 0, 16, "not a multiple of the stride"),
        (64, 32, 16, "the smallest is 80 px"),
        (64, 25, 16, "the smallest is 80 px"),
        (64, 0, 0, "below 1"),
        (64, 0, -16, "below 1"),
        (64, -1, 16, "below 0"),
    ],
)
def test_a_tile_that_cannot_work_is_refused(
    tile_px: int, halo_px: int, stride: int, reason: str
) -> None:
    with pytest.raises(ValueError, match=reason):
        check_tile(tile_px, halo_px, stride)
    with pytest.raises(ValueError, match=reason):
        grid(500, 10, tile_px, halo_px, stride)
    with pytest.raises(ValueError, match=reason):
        grid(10, 500, tile_px, halo_px, stride)


def test_the_smallest_tile_that_is_named_works() -> None:
    check_tile(80, 32, 16)
    assert len(grid(500, 10, 80, 32, 16)) == 28


@given(st.integers(0, 10_000), st.integers(1, 300))
def test_round_up(length: int, step: int) -> None:
    rounded = round_up(length, step)
    assert rounded % step == 0
    assert length <= rounded < length + step


def test_windows_are_values() -> None:
    assert {Window(1, 2, 3, 4), Window(1, 2, 3, 4)} == {Window(1, 2, 3, 4)}
    with pytest.raises(FrozenInstanceError):
        Window(1, 2, 3, 4).row = 5  # type: ignore[misc]


def test_slices_of_a_window() -> None:
    array = np.arange(30).reshape(5, 6)
    assert array[Window(1, 2, 2, 3).slices].tolist() == [[8, 9, 10], [14, 15, 16]]


@given(st.integers(-9, 9), st.integers(-9, 9), st.integers(0, 12), st.integers(0, 12))
def test_a_clipped_window_is_the_part_inside_the_scene(
    row: int, col: int, rows: int, cols: int
) -> None:
    size = (6, 4)
    inside = {
        (r, c)
        for r in range(row, row + rows)
        for c in range(col, col + cols)
        if 0 <= r < size[0] and 0 <= c < size[1]
    }
    clipped = Window(row, col, rows, cols).clip(*size)
    assert clipped.rows >= 0 and clipped.cols >= 0
    assert inside == {
        (r, c)
        for r in range(clipped.row, clipped.row + clipped.rows)
        for c in range(clipped.col, clipped.col + clipped.cols)
    }


def test_a_window_in_the_coordinates_of_another() -> None:
    assert Window(10, 20, 3, 4).within(Window(8, 15, 9, 9)) == Window(2, 5, 3, 4)


@given(
    rows=st.integers(1, 900),
    cols=st.integers(1, 900),
    halo=st.integers(0, 5),
    stride=st.sampled_from([1, 4, 16]),
    area_px=st.integers(1, 200_000),
    most_rows=st.one_of(st.none(), st.integers(1, 400)),
)
def test_chosen_tiles_keep_to_their_bounds_and_cover_the_scene(
    rows: int, cols: int, halo: int, stride: int, area_px: int, most_rows: int | None
) -> None:
    halo_px = halo * stride
    tile = choose_tile((rows, cols), halo_px, stride, area_px=area_px, most_rows=most_rows)
    tiles = grid(rows, cols, tile, halo_px, stride)
    covered = np.zeros((rows, cols), dtype=int)
    for each in tiles:
        covered[each.write.slices] += 1
    assert (covered == 1).all()
    least = (
        min(2 * halo_px + stride, round_up(rows, stride)),
        min(2 * halo_px + stride, round_up(cols, stride)),
    )
    read = {(each.read.rows, each.read.cols) for each in tiles}
    assert len(read) == 1
    for read_rows, read_cols in read:
        assert read_rows <= max(most_rows or read_rows, least[0], stride)
        smallest = least[0] * least[1]
        assert read_rows * read_cols <= max(area_px, smallest)


def test_a_scene_that_fits_is_one_tile() -> None:
    assert choose_tile((1022, 1022), 80, 16, area_px=1_100_000) == (1024, 1024)
    assert choose_tile((5, 40), 80, 16, area_px=1_100_000) == (16, 48)
    assert choose_tile((0, 40), 80, 16, area_px=1_100_000) == (16, 48)


@pytest.mark.parametrize("size", [(1100, 1100), (4088, 4088), (10980, 10980), (300, 9000)])
def test_chosen_tiles_read_less_than_square_ones_of_their_area(size: tuple[int, int]) -> None:
    def read(tile: int | tuple[int, int]) -> int:
        return sum(each.read.rows * each.read.cols for each in grid(*size, tile, 80, 16))

    chosen = choose_tile(size, 80, 16, area_px=1024 * 1024)
    assert read(chosen) <= read(1024)


def test_a_large_scene_reads_little_more_than_it_has() -> None:
    size = (4088, 4088)
    tile = choose_tile(size, 80, 16, area_px=2_250_000)
    read = sum(each.read.rows * each.read.cols for each in grid(*size, tile, 80, 16))
    assert read < 1.17 * size[0] * size[1]
