"""Intervals: how far scores would move, had other places been labelled."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cloudnet.confusion import Confusion
from cloudnet.scores import Evaluation

RESAMPLES, SEED, LEVEL = 1000, 0, 0.95
"""Of the bootstrap. A thousand resamples fix the ends of an interval to some 2 % of its width."""

UNDEFINED = 0.05
"""A score that is undefined in more of the resamples than this has no interval."""

SCORES = ("iou", "precision", "recall")


@dataclass(frozen=True)
class Intervals:
    """Where pooled scores lie with 95 % confidence.

    Attributes
    ----------
    places
        Number of places that were drawn from.
    scores
        For `iou`, `precision` and `recall`: lower and upper end; None where fewer than two places
        are there, or too many resamples leave the score undefined.
    """

    places: int
    scores: dict[str, tuple[float, float] | None]


def bootstrap(evaluation: Evaluation, *, resamples: int = RESAMPLES, seed: int = SEED) -> Intervals:
    """Return percentile intervals of pooled scores from a bootstrap over places.

    Pixels of one scene, and scenes of one place, are alike, so places are what is drawn, with
    replacement, as many as there are (the cluster bootstrap: Davison and Hinkley 1997, section
    3.8; percentiles: Efron 1979, doi:10.1214/aos/1176344552). Thresholds stay as they were.

    Parameters
    ----------
    evaluation
        The scores.
    resamples
        Number of drawings.
    seed
        Of the drawings: the same gives the same intervals.
    """
    counts = _by_place(evaluation)
    places = len(counts)
    if places < 2:
        return Intervals(places, dict.fromkeys(SCORES))
    rng = np.random.default_rng(seed)
    times = rng.multinomial(places, np.full(places, 1 / places), size=resamples)
    drawn = [Confusion(*row) for row in (times @ counts).tolist()]
    return Intervals(places, {name: _percentiles(drawn, name) for name in SCORES})


def _by_place(evaluation: Evaluation) -> NDArray[Any]:
    """Return tp, fp, fn, tn of each place, (places, 4)."""
    rows = []
    for place in evaluation.places:
        pooled = evaluation.part(s for s in evaluation.scenes if s.group == place).pooled
        rows.append((pooled.tp, pooled.fp, pooled.fn, pooled.tn))
    return np.array(rows, dtype=np.int64).reshape(-1, 4)


def _percentiles(drawn: list[Confusion], score: str) -> tuple[float, float] | None:
    """Return both ends of the interval of a score, over the resamples that define it."""
    values = [value for confusion in drawn if (value := getattr(confusion, score)) is not None]
    if len(values) < (1 - UNDEFINED) * len(drawn):
        return None
    low, high = np.quantile(values, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return float(low), float(high)
