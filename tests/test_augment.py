"""Augmentation: one draw for image, mask and weight, within the range that was asked for."""

from __future__ import annotations

from dataclasses import replace
from math import inf, log, nan
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

pytest.importorskip("tensorflow", reason="the train extra is not installed")

from cloudnet.augment import (
    NO_AUGMENTATION,
    OZONE,
    Augmentation,
    Draw,
    apply,
    draw,
)
from cloudnet.errors import ModelError

BANDS = 4
RED, GREEN, BLUE, NIR = range(BANDS)
TILE_PX = 8


def coordinates(side: int) -> tuple[NDArray[np.float32], NDArray[np.uint8]]:
    """A block that says where each pixel was: row and column, from 1, in the image, and in the mask
    both, from 0."""
    row, col = np.mgrid[:side, :side]
    image = np.stack([row + 1, col + 1, np.ones_like(row), np.ones_like(row)], axis=2)
    return image.astype(np.float32), (row * side + col).astype(np.uint8)[..., np.newaxis]


def only(**changes: Any) -> Augmentation:
    """An augmentation that does nothing but what is named."""
    return replace(NO_AUGMENTATION, **changes)


def draws(augmentation: Augmentation, count: int) -> list[Draw]:
    return [draw(np.array([17, number]), augmentation, BANDS) for number in range(count)]


def augmented(
    augmentation: Augmentation, drawn: Draw, side: int | None = None
) -> tuple[NDArray[np.float32], NDArray[np.uint8]]:
    """What becomes of the block of coordinates, read at the size that the zoom asks for."""
    side = side or round(TILE_PX / float(drawn.zoom))
    image, mask = apply(*coordinates(side), drawn, TILE_PX)
    return np.asarray(image), np.asarray(mask)


def test_flips_and_transposes_move_image_and_mask_together() -> None:
    augmentation = only(flips=True)
    for drawn in draws(augmentation, 30):
        image, mask = augmented(augmentation, drawn)
        row, col = np.divmod(mask[..., 0], TILE_PX)
        np.testing.assert_array_equal(image[..., 0], row + 1)
        np.testing.assert_array_equal(image[..., 1], col + 1)


def test_all_eight_symmetries_occur_and_nothing_else() -> None:
    block = coordinates(TILE_PX)[1][..., 0]
    wanted = {
        np.rot90(turned, quarter).tobytes() for turned in (block, block.T) for quarter in range(4)
    }
    augmentation = only(flips=True)
    found = {
        augmented(augmentation, drawn)[1][..., 0].tobytes() for drawn in draws(augmentation, 80)
    }
    assert len(wanted) == 8
    assert found == wanted


def test_zoom_brings_image_and_mask_of_one_place_to_one_place() -> None:
    augmentation = only(flips=True, zoom=2.0, zoom_share=1.0)
    sides = set()
    for drawn in draws(augmentation, 40):
        side = round(TILE_PX / float(drawn.zoom))
        sides.add(side)
        image, mask = augmented(augmentation, drawn)
        assert image.shape == (TILE_PX, TILE_PX, BANDS) and image.dtype == np.float32
        assert mask.shape == (TILE_PX, TILE_PX, 1) and mask.dtype == np.uint8
        row, col = np.divmod(mask[..., 0], side)
        # The mask takes the nearest pixel, the image the mean of its neighbours.
        assert np.abs(image[..., 0] - 1 - row).max() <= 0.75
        assert np.abs(image[..., 1] - 1 - col).max() <= 0.75
        assert {0, side - 1} <= set(row.ravel()), "the block's edges are in the tile"
    assert {4, 5, 8} < sides and max(sides) >= 14


def test_a_class_boundary_is_not_blended() -> None:
    image, mask = coordinates(16)
    mask[:] = 1
    mask[:, 5:9] = 255
    drawn = draws(NO_AUGMENTATION, 1)[0]
    assert set(np.unique(apply(image, mask, drawn, TILE_PX)[1])) == {1, 255}


def test_resolution_is_halved_by_the_mean_of_four_pixels() -> None:
    image, mask = coordinates(16)
    small = np.asarray(apply(image, mask, draws(NO_AUGMENTATION, 1)[0], TILE_PX)[0])
    means = image.reshape(TILE_PX, 2, TILE_PX, 2, BANDS).mean(axis=(1, 3))
    np.testing.assert_allclose(small, means, atol=1e-5)


def test_gains_change_the_image_alone_and_no_pixel_more_than_another() -> None:
    augmentation = only(brightness=0.3, band_gain=0.1)
    image, mask = coordinates(TILE_PX)
    logs = []
    for drawn in draws(augmentation, 100):
        changed, same = (np.asarray(part) for part in apply(image, mask, drawn, TILE_PX))
        np.testing.assert_array_equal(same, mask)
        gain = changed / image
        np.testing.assert_allclose(gain, np.broadcast_to(gain[0, 0], gain.shape), rtol=1e-6)
        logs.append(np.log(gain[0, 0]))
    found = np.array(logs)
    assert 0.3 < np.abs(found).max() <= 0.4
    assert (found < -0.2).any() and (found > 0.2).any()
    spread = np.ptp(found, axis=1)
    assert 0.1 < spread.max() <= 0.2 + 1e-6, "bands differ, and by no more than twice their gain"


def test_brightness_alone_is_one_gain_for_all_bands() -> None:
    drawn = draws(only(brightness=0.2), 50)
    logs = np.array([np.log(one.gain) for one in drawn])
    assert np.ptp(logs, axis=1).max() < 1e-6
    shared = np.array([one.log_brightness for one in drawn])
    np.testing.assert_allclose(logs, np.tile(shared[:, np.newaxis], BANDS), atol=1e-6)
    assert 0.15 < np.abs(logs).max() <= 0.2 + 1e-6


def test_more_ozone_darkens_green_most_and_leaves_the_near_infrared() -> None:
    augmentation = only(ozone=1.5)
    logs = np.array([np.log(drawn.gain) for drawn in draws(augmentation, 200)])
    assert 0.3 < (logs == 0).all(axis=1).mean() < 0.7, "about half keep their air"
    some = logs[np.abs(logs).max(axis=1) > 0]
    # Every draw is one column of ozone, by which each band changes as its thickness tells.
    columns = -some[:, GREEN] / OZONE[GREEN]
    np.testing.assert_allclose(some, -columns[:, np.newaxis] * np.array(OZONE), atol=1e-6)
    assert 1.3 < np.abs(columns).max() <= 1.5 + 1e-5
    assert (columns > 0.5).any() and (columns < -0.5).any(), "longer ways and shorter ones"
    more = some[columns > 0]
    assert (more[:, GREEN] < more[:, RED]).all() and (more[:, RED] < more[:, BLUE]).all()
    assert not some[:, NIR].any()


def test_pixels_without_data_stay_so() -> None:
    image, mask = coordinates(TILE_PX)
    image[2:4, 3:7] = 0.0
    mask[2:4, 3:7] = 255
    nothing = (image == 0).all(axis=2)
    for drawn in draws(Augmentation(flips=False, zoom=1.0), 20):
        changed, same = (np.asarray(part) for part in apply(image, mask, drawn, TILE_PX))
        np.testing.assert_array_equal((changed == 0).all(axis=2), nothing)
        np.testing.assert_array_equal(same, mask)


def test_zoom_goes_from_half_to_double_and_to_the_share_that_was_asked_for() -> None:
    zooms = np.array([float(drawn.zoom) for drawn in draws(Augmentation(), 250)])
    assert 0.5 <= zooms.min() < 0.53
    assert 1.9 < zooms.max() <= 2.0
    changed = zooms[zooms != 1.0]
    assert 0.4 < len(changed) / len(zooms) < 0.6
    assert 0.35 < (changed < 1).mean() < 0.65, "as often smaller as larger"
    for share, wanted in ((0.0, 0), (1.0, 60)):
        drawn = draws(only(zoom=2.0, zoom_share=share), 60)
        assert sum(float(one.zoom) != 1.0 for one in drawn) == wanted


def test_shares_fill_the_range_and_are_drawn_apart() -> None:
    places = np.array([(d.row_share, d.col_share) for d in draws(Augmentation(), 200)])
    assert places.min() >= 0 and places.max() < 1
    assert (places.min(axis=0) < 0.05).all() and (places.max(axis=0) > 0.95).all()
    assert abs(np.corrcoef(places.T)[0, 1]) < 0.2


def test_no_augmentation_changes_nothing() -> None:
    image, mask = coordinates(TILE_PX)
    for drawn in draws(NO_AUGMENTATION, 20):
        same_image, same_mask = apply(image, mask, drawn, TILE_PX)
        np.testing.assert_array_equal(same_image, image)
        np.testing.assert_array_equal(same_mask, mask)


def test_the_same_seed_gives_the_same_draw_and_another_seed_another() -> None:
    def numbers(seed: tuple[int, int]) -> list[float]:
        drawn = draw(np.array(seed), Augmentation(zoom_share=1.0), BANDS)
        return [
            float(number)
            for part in vars(drawn).values()
            for number in np.ravel(np.asarray(part, dtype=float))
        ]

    assert numbers((3, 4)) == numbers((3, 4))
    for other in ((4, 3), (3, 5), (4, 4)):
        assert numbers(other)[:3] != numbers((3, 4))[:3]


@pytest.mark.parametrize(
    "wrong",
    [
        {"brightness": -0.1},
        {"band_gain": nan},
        {"ozone": -0.5},
        {"ozone": nan},
        {"zoom": 0.5},
        {"zoom": nan},
        {"zoom": inf},
        {"zoom_share": 1.5},
        {"zoom_share": -0.1},
    ],
)
def test_settings_out_of_range_are_refused(wrong: dict[str, float]) -> None:
    with pytest.raises(ModelError, match=str(next(iter(wrong.values())))):
        Augmentation(**wrong)  # type: ignore[arg-type]


def test_zoom_is_a_factor() -> None:
    zooms = np.array([float(d.zoom) for d in draws(only(zoom=4.0, zoom_share=1.0), 200)])
    assert np.abs(np.log(zooms)).max() <= log(4.0) + 1e-6
    assert zooms.min() < 0.35 and zooms.max() > 2.9
