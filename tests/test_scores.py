"""Scores are pooled, and thresholds are fitted to other folds than the one they serve."""

from __future__ import annotations

import numpy as np
import pytest

from cloudnet.confusion import Confusion
from cloudnet.errors import DatasetError
from cloudnet.histogram import Histogram
from cloudnet.scores import Evaluation, SceneScore, fit_thresholds


def test_scenes_are_pooled_and_not_averaged() -> None:
    small, large = Confusion(tp=1, fn=1), Confusion(tp=90, fp=10, tn=100)
    evaluation = Evaluation(
        (SceneScore("a", "A", "human", small, 2), SceneScore("b", "B", "teacher", large, 3)),
        0.5,
        "m",
    )
    assert evaluation.pooled == Confusion(tp=91, fp=10, fn=1, tn=100)
    assert evaluation.pooled.iou == 91 / 102
    assert evaluation.unpredicted == 5


def test_kinds_of_label_are_pooled_apart() -> None:
    evaluation = Evaluation(
        (
            SceneScore("a", "A", "teacher", Confusion(tp=1)),
            SceneScore("b", "B", "", Confusion(tn=4), 7),
            SceneScore("c", "C", "teacher", Confusion(fp=2)),
        ),
        0.5,
        "m",
    )
    assert list(evaluation.by_labels().items()) == [
        ("teacher", Confusion(tp=1, fp=2)),
        ("", Confusion(tn=4)),
    ]
    assert [score.name for score in evaluation.only("teacher").scenes] == ["a", "c"]
    assert evaluation.only("").unpredicted == 7


def test_kinds_of_ground_are_pooled_by_kind_of_label() -> None:
    evaluation = Evaluation(
        (
            SceneScore("a", "A", "teacher", Confusion(tp=1), ground="water"),
            SceneScore("b", "B", "human", Confusion(tn=4), ground="water"),
            SceneScore("c", "C", "teacher", Confusion(fp=2), ground="water"),
            SceneScore("d", "D", "human", Confusion(fn=8), ground="snow or ice"),
        ),
        0.5,
        "m",
    )
    pooled = {pair: part.pooled for pair, part in evaluation.by_ground().items()}
    assert list(pooled.items()) == [
        (("snow or ice", "human"), Confusion(fn=8)),
        (("water", "human"), Confusion(tn=4)),
        (("water", "teacher"), Confusion(tp=1, fp=2)),
    ]


def separable(name: str, fold: int, low: float, labels: str = "human") -> SceneScore:
    """A scene whose clear pixels lie at `low` and whose cloud lies right above it."""
    truth = np.array([0] * 10 + [1] * 10, dtype=np.uint8)
    probability = np.array([low] * 10 + [low + 0.01] * 10, dtype=np.float32)
    histogram = Histogram.of(truth, probability)
    return SceneScore(name, name, labels, histogram.confusion(0.5), fold=fold, histogram=histogram)


def test_a_fold_is_scored_at_the_threshold_of_the_others() -> None:
    """Fold 1 is perfect at 0.305 and 0.31, fold 2 at 0.605 and 0.61; each takes the other's."""
    scores = (separable("a", 1, 0.3025), separable("b", 2, 0.6025))
    fitted = fit_thresholds(Evaluation(scores, 0.5, "m"), "human")
    assert fitted.fit is not None
    assert fitted.fit.by_fold == {1: 0.605, 2: 0.31}
    assert [score.confusion for score in fitted.scenes] == [
        Confusion(fn=10, tn=10),
        Confusion(tp=10, fp=10),
    ]
    assert fitted.threshold is None
    assert [fitted.threshold_of(score) for score in fitted.scenes] == [0.605, 0.31]
    # Over both: at 0.31 the IoU is 20 / 30, at 0.605 it is 10 / 20.
    assert fitted.fit.final == 0.31


def test_other_kinds_of_label_have_no_say_and_are_scored_at_the_same_threshold() -> None:
    scores = (
        separable("a", 1, 0.3025),
        separable("b", 2, 0.3025),
        separable("c", 1, 0.9025, "teacher"),
    )
    fitted = fit_thresholds(Evaluation(scores, 0.5, "m"), "human")
    assert fitted.fit is not None
    assert fitted.fit.by_fold == {1: 0.31, 2: 0.31}
    assert fitted.scenes[2].confusion == Confusion(tp=10, fp=10)
    assert fitted.only("human").pooled.iou == 1.0


def test_what_no_threshold_can_be_fitted_to_is_named() -> None:
    scores = (separable("a", 1, 0.3), separable("b", 2, 0.3, "teacher"))
    evaluation = Evaluation(scores, 0.5, "m")
    with pytest.raises(DatasetError, match=r'kind "SCL" .* there are: human, teacher'):
        fit_thresholds(evaluation, "SCL")
    with pytest.raises(DatasetError, match="no scene beside those of fold 1 has cloud"):
        fit_thresholds(evaluation, "human")
    with pytest.raises(ValueError, match="of folds"):
        fit_thresholds(Evaluation((SceneScore("a", "A", "", Confusion()),), 0.5, "m"), "")


def test_a_histogram_of_all_needs_one_of_each() -> None:
    known, unknown = separable("a", 1, 0.3), SceneScore("b", "B", "", Confusion(tn=1))
    assert Evaluation((known, unknown), 0.5, "m").histogram is None
    both = Evaluation((known, known), 0.5, "m").histogram
    assert both is not None and both.pixels == 40
