"""Intervals come from drawing places, not pixels and not scenes, and from a seed."""

from __future__ import annotations

import numpy as np
import pytest

from cloudnet.confusion import Confusion
from cloudnet.intervals import bootstrap
from cloudnet.scores import Evaluation, SceneScore


def evaluation(*scores: tuple[str, Confusion]) -> Evaluation:
    scenes = (SceneScore(f"s{n}", place, "", counts) for n, (place, counts) in enumerate(scores))
    return Evaluation(tuple(scenes), 0.5, "m")


def test_places_that_are_alike_leave_no_doubt() -> None:
    same = Confusion(tp=6, fp=2, fn=2, tn=9)
    intervals = bootstrap(evaluation(("A", same), ("B", same), ("C", same)))
    assert intervals.places == 3
    assert intervals.scores == {
        "iou": (0.6, 0.6),
        "precision": (0.75, 0.75),
        "recall": (0.75, 0.75),
    }


def test_two_places_by_hand() -> None:
    """A quarter of the resamples holds one place twice, a quarter the other."""
    good, bad = Confusion(tp=10), Confusion(tp=2, fp=8)
    assert bootstrap(evaluation(("A", good), ("B", bad))).scores["iou"] == (0.2, 1.0)


def test_scenes_of_one_place_are_drawn_together() -> None:
    good, bad = Confusion(tp=10), Confusion(fn=10)
    apart = bootstrap(evaluation(("A", good), ("A", bad), ("B", good), ("B", bad)))
    assert apart.places == 2
    assert apart.scores["recall"] == (0.5, 0.5)


def test_the_ends_are_those_of_a_bootstrap_place_by_place() -> None:
    rng = np.random.default_rng(4)
    counts = [Confusion(*map(int, row)) for row in rng.integers(1, 100, (12, 4))]
    found = bootstrap(evaluation(*((f"p{n}", c) for n, c in enumerate(counts))), resamples=4000)
    values = []
    for _ in range(4000):
        drawn = [counts[index] for index in rng.integers(0, 12, 12)]
        values.append(sum(drawn, start=Confusion()).iou or 0.0)
    assert found.scores["iou"] == pytest.approx(np.percentile(values, [2.5, 97.5]), abs=0.01)


def test_the_seed_decides() -> None:
    rng = np.random.default_rng(4)
    counts = [
        (f"p{n}", Confusion(*map(int, row))) for n, row in enumerate(rng.integers(1, 9, (9, 4)))
    ]
    assert bootstrap(evaluation(*counts)) == bootstrap(evaluation(*counts), seed=0)
    assert bootstrap(evaluation(*counts)) != bootstrap(evaluation(*counts), seed=1)


def test_what_cannot_be_told_is_none() -> None:
    one = bootstrap(evaluation(("A", Confusion(tp=5, fp=1))))
    assert (one.places, one.scores["iou"]) == (1, None)
    clear = bootstrap(evaluation(("A", Confusion(tn=5)), ("B", Confusion(tn=5, fp=1))))
    assert clear.scores == {"iou": None, "precision": None, "recall": None}
    assert bootstrap(evaluation()).places == 0
