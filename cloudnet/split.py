"""Splits by place: no place on both sides, the same mixture of cloud on each, from a seed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from cloudnet.dataset import LabelledScene
from cloudnet.errors import DatasetError
from cloudnet.mixture import SceneFacts

STRATA = (0.02, 0.35, 0.95)
"""Bounds of the cloud share between clear, mostly clear, cloudy and overcast scenes."""

MOST_TRUSTED = "human"
"""Kind of label whose scenes are spread over the folds, too: scores are reported on them."""

VALIDATION_FOLDS = 5
"""A plain split sets one fold of this many aside."""


@dataclass(frozen=True)
class Split:
    """Scenes to train on and scenes to validate on."""

    train: tuple[LabelledScene, ...]
    validation: tuple[LabelledScene, ...]


def split_folds(
    scenes: Sequence[LabelledScene], facts: Sequence[SceneFacts], folds: int, seed: int
) -> list[Split]:
    """Split scenes into `folds` parts by place, each the validation side of one split.

    Places are dealt out one by one, those with most scenes first and those alike in a random order
    drawn from the seed; each goes to the fold that it leaves most even in number of scenes, in
    cloud strata, in scenes of bright ground and in scenes labelled by humans (the greedy rule of
    scikit-learn's StratifiedGroupKFold).

    Parameters
    ----------
    scenes
        Labelled scenes.
    facts
        What each scene shows.
    folds
        Number of parts, 2 or more.
    seed
        Of the order in which places are dealt out.

    Raises
    ------
    DatasetError
        When there are fewer places than folds, or less than 2 folds.
    """
    groups = sorted({scene.group for scene in scenes})
    if folds < 2:
        raise DatasetError(f"{folds} folds leave nothing to validate on; give 2 or more")
    if len(groups) < folds:
        raise DatasetError(
            f"scenes of {len(groups)} place{'s' * (len(groups) != 1)} cannot be split into {folds} "
            "parts by place; add scenes of other places"
        )
    numbers = {group: index for index, group in enumerate(groups)}
    covers, bright, trusted = len(STRATA) + 1, -2, -1
    counts = np.zeros((len(groups), covers + 2))
    for scene, fact in zip(scenes, facts, strict=True):
        place = counts[numbers[scene.group]]
        place[np.searchsorted(STRATA, fact.cloud_share)] += 1
        place[bright] += fact.bright
        place[trusted] += scene.labels == MOST_TRUSTED
    fold_of = _deal(counts, folds, np.random.default_rng(seed))
    return [
        Split(
            train=tuple(s for s in scenes if fold_of[numbers[s.group]] != fold),
            validation=tuple(s for s in scenes if fold_of[numbers[s.group]] == fold),
        )
        for fold in range(folds)
    ]


def split_once(scenes: Sequence[LabelledScene], facts: Sequence[SceneFacts], seed: int) -> Split:
    """Set about a fifth of the scenes aside for validation, by place.

    With fewer than five places it is one place.

    Raises
    ------
    DatasetError
        When all scenes are of one place.
    """
    places = len({scene.group for scene in scenes})
    folds = max(2, min(VALIDATION_FOLDS, places))
    return split_folds(scenes, facts, folds, seed)[-1]


def _deal(
    counts: np.ndarray[tuple[int, int], np.dtype[np.float64]],
    folds: int,
    rng: np.random.Generator,
) -> np.ndarray[tuple[int], np.dtype[np.int64]]:
    """Give each place (rows of `counts`: scenes by cover, bright ones, trusted ones) a fold.

    An empty fold is left more even by any place than a fold that has some: with as many places as
    folds none stays empty.
    """
    totals = np.maximum(counts.sum(axis=0), 1)
    load = np.zeros((folds, counts.shape[1]))
    fold_of = np.zeros(len(counts), dtype=np.int64)
    order = rng.permutation(len(counts))
    order = order[np.argsort(-counts[order].sum(axis=1), kind="stable")]
    for group in order:
        unevenness = []
        for fold in range(folds):
            load[fold] += counts[group]
            spread = (load / totals).std(axis=0).mean() + load.sum(axis=1).std() / totals.sum()
            unevenness.append(spread)
            load[fold] -= counts[group]
        fold_of[group] = int(np.argmin(unevenness))
        load[fold_of[group]] += counts[group]
    return fold_of
