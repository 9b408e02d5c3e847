"""Histograms give the confusion of any threshold exactly, and tell what a probability is worth."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from cloudnet.confusion import Confusion
from cloudnet.histogram import BINS, Histogram
from cloudnet.runtime import to_mask

Array = NDArray[Any]

EDGES = [np.float32(number / BINS) for number in range(BINS + 1)]


def random_pixels(seed: int, count: int = 400) -> tuple[Array, Array]:
    """Labels of all three kinds and probabilities, many on the edges of bins, some unknown."""
    rng = np.random.default_rng(seed)
    truth = rng.choice(np.array([0, 1, 255], dtype=np.uint8), count)
    probability = rng.random(count, dtype=np.float32)
    on_edge = rng.random(count) < 0.5
    probability[on_edge] = rng.choice(EDGES, np.count_nonzero(on_edge))
    probability[rng.random(count) < 0.1] = np.nan
    return truth, probability


@given(seed=st.integers(0, 99), number=st.integers(1, BINS - 1))
def test_a_threshold_on_an_edge_says_what_the_mask_says(seed: int, number: int) -> None:
    truth, probability = random_pixels(seed)
    threshold = number / BINS
    found = to_mask(probability, threshold)
    assert Histogram.of(truth, probability).confusion(threshold) == Confusion.of(truth, found)


def test_a_threshold_within_a_bin_is_refused() -> None:
    with pytest.raises(ValueError, match=r"0\.5025 is no multiple"):
        Histogram.empty().confusion(0.5025)


def test_arrays_that_do_not_fit_are_refused() -> None:
    with pytest.raises(ValueError, match="do not match"):
        Histogram.of(np.zeros((2, 3), np.uint8), np.zeros((3, 2), np.float32))


def test_parts_add_up_to_the_whole() -> None:
    truth, probability = random_pixels(7)
    whole = Histogram.of(truth, probability)
    parts = Histogram.of(truth[:90], probability[:90]) + Histogram.of(truth[90:], probability[90:])
    assert parts.cloud.tolist() == whole.cloud.tolist()
    assert parts.clear.tolist() == whole.clear.tolist()
    assert whole.pixels == np.count_nonzero((truth != 255) & ~np.isnan(probability))


@pytest.mark.parametrize("seed", range(5))
def test_no_threshold_does_better_than_the_best(seed: int) -> None:
    truth, noise = random_pixels(seed)
    skilled = np.clip(0.3 * noise + 0.25 * (truth == 1) + 0.2, 0, 1)
    histogram = Histogram.of(truth, skilled)
    best = histogram.best_threshold()
    scores = {n / BINS: histogram.confusion(n / BINS).iou for n in range(1, BINS)}
    assert best is not None
    assert scores[best] == max(score for score in scores.values() if score is not None)


def test_of_equal_thresholds_the_one_nearest_a_half_is_taken() -> None:
    truth = np.array([0, 1], dtype=np.uint8)
    for low, high, best in ((0.2, 0.9, 0.5), (0.2, 0.4, 0.4), (0.7, 0.9, 0.705)):
        probability = np.array([low, high], dtype=np.float32)
        assert Histogram.of(truth, probability).best_threshold() == best


def test_without_cloud_there_is_no_best_threshold() -> None:
    clear = Histogram.of(np.zeros(4, np.uint8), np.full(4, 0.9, np.float32))
    assert clear.best_threshold() is None


def test_reliability_by_hand() -> None:
    """Four pixels near 0.05, one of them cloud; two at 0.95 and beyond, both cloud."""
    truth = np.array([0, 0, 1, 0, 1, 1, 255], dtype=np.uint8)
    probability = np.array([0.051, 0.051, 0.052, 0.053, 0.951, 1.0, 0.5], dtype=np.float32)
    histogram = Histogram.of(truth, probability)
    bins = histogram.reliability()
    assert [(part.low, part.high) for part in bins] == [(n / 10, (n + 1) / 10) for n in range(10)]
    assert [part.pixels for part in bins] == [4, 0, 0, 0, 0, 0, 0, 0, 0, 2]
    first, *empty, last = bins
    assert (first.cloud_share, first.probability) == (0.25, pytest.approx(0.0525))
    assert (last.cloud_share, last.probability) == (1.0, pytest.approx((0.9525 + 0.9975) / 2))
    assert {(part.cloud_share, part.probability) for part in empty} == {(None, None)}
    error = (4 * (0.25 - 0.0525) + 2 * (1 - 0.975)) / 6
    assert histogram.calibration_error() == pytest.approx(error)
    assert Histogram.empty().calibration_error() is None


def test_honest_probabilities_have_no_calibration_error() -> None:
    rng = np.random.default_rng(1)
    probability = rng.random(200_000, dtype=np.float32)
    truth = (rng.random(probability.shape) < probability).astype(np.uint8)
    honest, overdone = (
        Histogram.of(truth, shown).calibration_error()
        for shown in (probability, np.round(probability))
    )
    assert honest is not None and honest < 0.01
    assert overdone == pytest.approx(0.25, abs=0.01)
