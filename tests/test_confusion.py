"""Confusions count labelled pixels; scores are right by hand, and undefined where they are."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from numpy.typing import NDArray

from cloudnet.confusion import Confusion

Array = NDArray[Any]

TRUTH = np.array([[1, 1, 1, 0], [1, 0, 0, 0], [255, 255, 1, 0]], dtype=np.uint8)
FOUND = np.array([[1, 1, 0, 0], [1, 1, 0, 255], [1, 255, 255, 0]], dtype=np.uint8)
BY_HAND = Confusion(tp=3, fp=1, fn=1, tn=3)

masks = arrays.arrays(np.uint8, (7, 5), elements=st.sampled_from([0, 1, 255]))


def test_pixels_are_counted_where_both_masks_say_something() -> None:
    assert Confusion.of(TRUTH, FOUND) == BY_HAND


def test_scores_by_hand() -> None:
    confusion = Confusion(tp=6, fp=2, fn=1, tn=11)
    assert confusion.iou == 6 / 9
    assert confusion.f1 == 12 / 15
    assert confusion.precision == 6 / 8
    assert confusion.recall == 6 / 7
    assert confusion.accuracy == 17 / 20
    assert confusion.balanced_accuracy == pytest.approx((6 / 7 + 11 / 13) / 2)
    assert confusion.false_cloud == 2 / 13
    assert confusion.cloud_share_truth == 7 / 20
    assert confusion.cloud_share_found == 8 / 20


@pytest.mark.parametrize(
    ("confusion", "undefined"),
    [
        (Confusion(tn=9), {"iou", "f1", "precision", "recall", "balanced_accuracy"}),
        (Confusion(fp=2, tn=7), {"recall", "balanced_accuracy"}),
        (Confusion(fn=2, tn=7), {"precision"}),
        (Confusion(tp=9), {"balanced_accuracy", "false_cloud"}),
        (Confusion(fn=9), {"precision", "balanced_accuracy", "false_cloud"}),
    ],
)
def test_a_share_of_nothing_is_undefined(confusion: Confusion, undefined: set[str]) -> None:
    names = {
        "iou", "f1", "precision", "recall", "accuracy", "balanced_accuracy", "false_cloud",
        "cloud_share_truth", "cloud_share_found",
    }  # fmt: skip
    assert {name for name in names if getattr(confusion, name) is None} == undefined
    assert all(getattr(Confusion(), name) is None for name in names)


def test_missed_cloud_scores_zero_and_not_undefined() -> None:
    missed, invented = Confusion(fn=2, tn=7), Confusion(fp=2, tn=7)
    assert (missed.iou, missed.f1, missed.recall) == (0, 0, 0)
    assert (invented.iou, invented.f1, invented.precision) == (0, 0, 0)


def test_masks_that_do_not_fit_are_refused() -> None:
    with pytest.raises(ValueError, match="do not match"):
        Confusion.of(TRUTH, FOUND.T)
    with pytest.raises(ValueError, match="value other than"):
        Confusion.of(TRUTH, np.full_like(TRUTH, 2))
    with pytest.raises(ValueError, match="value other than"):
        Confusion.of(np.full_like(TRUTH, 254), FOUND)


@given(truth=masks, found=masks, cut=st.integers(0, 7))
def test_parts_add_up_to_the_whole(truth: Array, found: Array, cut: int) -> None:
    parts = Confusion.of(truth[:cut], found[:cut]) + Confusion.of(truth[cut:], found[cut:])
    assert parts == Confusion.of(truth, found)


@given(truth=masks, found=masks)
def test_laws_of_the_scores(truth: Array, found: Array) -> None:
    there, back = Confusion.of(truth, found), Confusion.of(found, truth)
    assert there.pixels == np.count_nonzero((truth != 255) & (found != 255))
    assert (there.iou, there.precision) == (back.iou, back.recall)
    if there.iou is not None and there.f1 is not None:
        assert there.iou == pytest.approx(there.f1 / (2 - there.f1))
    if there.precision and there.recall and there.f1:
        assert 2 / there.f1 == pytest.approx(1 / there.precision + 1 / there.recall)
