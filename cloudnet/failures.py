"""Failures: the scenes with most wrong pixels, true colour beside a map of the errors."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from math import ceil
from pathlib import Path
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from cloudnet.dataset import DataSet, LabelledScene
from cloudnet.evaluate import Masks, Part
from cloudnet.quicklook import NO_DATA_COLOR, Picture, true_color
from cloudnet.runtime import to_mask
from cloudnet.scores import Evaluation, SceneScore
from cloudnet.sheet import Pair, write_sheet
from cloudnet.spec import CLEAR, CLOUD, NO_DATA

Errors: TypeAlias = NDArray[np.uint8]

MOST_SCENES = 12
PICTURE_PX = 512

HIT, RIGHT_CLEAR, FALSE_CLOUD, MISSED, UNSCORED = range(5)
"""Values of a map of errors."""

COLORS = np.array(
    [(255, 255, 255), (28, 32, 40), (226, 40, 40), (60, 130, 255), NO_DATA_COLOR], dtype=np.uint8
)
KEY = (
    ("cloud found", (255, 255, 255)),
    ("clear found", (28, 32, 40)),
    ("false cloud", (226, 40, 40)),
    ("missed cloud", (60, 130, 255)),
    ("not scored", NO_DATA_COLOR),
)

WHITE_RANGE = (0.4, 1.0)
"""Reflectance shown white: what a hundredth of a scene's pixels exceeds, within this."""


def worst_scenes(
    dataset: DataSet, evaluation: Evaluation, most: int = MOST_SCENES
) -> list[tuple[LabelledScene, SceneScore]]:
    """Return the scenes with most wrong labelled pixels, the worst first; none without any."""
    pairs = zip(dataset.scenes, evaluation.scenes, strict=True)
    wrong = [pair for pair in pairs if _wrong(pair[1])]
    return sorted(wrong, key=lambda pair: -_wrong(pair[1]))[:most]


def draw_failures(
    dataset: DataSet,
    evaluation: Evaluation,
    masks: Masks,
    path: Path,
    *,
    most: int = MOST_SCENES,
    on_scene: Callable[[int, int], None] | None = None,
) -> None:
    """Draw the worst scenes as PNG: each in true colour beside the map of its errors.

    Parameters
    ----------
    dataset, evaluation, masks
        The scenes, their scores, and what made the masks; it makes those of the worst again.
    path
        The file, a .png; written whole or not at all.
    most
        Scenes to draw.
    on_scene
        Called with the number of scenes drawn and of all that will be.

    Raises
    ------
    MissingExtraError
        When matplotlib is not installed.
    OutputError
        When the file cannot be written or is no .png.
    SceneError, DatasetError
        When a scene or its mask cannot be read.
    """
    worst = worst_scenes(dataset, evaluation, most)

    def pairs() -> Iterator[Pair]:
        for labelled, score in worst:
            colors, errors = failure(labelled, masks, evaluation.threshold_of(score))
            yield Pair(colors, COLORS[errors], labelled.name, _facts(score))

    title = f"{len(worst)} of {len(dataset.scenes)} scenes, most wrong pixels first"
    write_sheet(path, pairs(), len(worst), title, KEY, on_scene=on_scene)


def failure(
    labelled: LabelledScene, masks: Masks, threshold: float | None
) -> tuple[Picture, Errors]:
    """Return a scene in true colour, (rows, cols, 3), and the map of its errors, (rows, cols).

    A scene with a side above `PICTURE_PX` is thinned. The stretch is the scene's own: white is a
    reflectance of 0.4 where all is dark and 1.0 where snow or cloud is bright.
    """
    step = ceil(max(labelled.rows, labelled.cols) / PICTURE_PX)
    size = (ceil(labelled.rows / step), ceil(labelled.cols / step))
    reflectance = np.zeros((*size, 3), dtype=np.float32)
    valid = np.zeros(size, dtype=bool)
    errors = np.full(size, UNSCORED, dtype=np.uint8)
    with labelled.open() as scene:
        for part in masks.parts(labelled):
            read, known = scene.read(part.window)
            first_row, first_col = -part.window.row % step, -part.window.col % step
            chosen = np.s_[first_row::step, first_col::step]
            thinned = error_map(part, threshold)[chosen]
            row, col = ceil(part.window.row / step), ceil(part.window.col / step)
            target = np.s_[row : row + thinned.shape[0], col : col + thinned.shape[1]]
            reflectance[target], valid[target] = read[chosen][..., :3], known[chosen]
            errors[target] = thinned
    white = np.quantile(reflectance[valid], 0.99) if valid.any() else WHITE_RANGE[0]
    colors = true_color(reflectance, float(np.clip(white, *WHITE_RANGE)))
    colors[~valid] = NO_DATA_COLOR
    return colors, errors


def error_map(part: Part, threshold: float | None) -> Errors:
    """Return what is right and wrong in a part of a scene, (rows, cols).

    The mask is that of the threshold where probabilities are known and one is given.
    """
    found = part.found
    if part.probability is not None and threshold is not None:
        found = to_mask(part.probability, threshold)
    scored = (part.truth != NO_DATA) & (found != NO_DATA)
    errors = np.full(found.shape, UNSCORED, dtype=np.uint8)
    for value, truth, said in (
        (HIT, CLOUD, CLOUD),
        (RIGHT_CLEAR, CLEAR, CLEAR),
        (FALSE_CLOUD, CLEAR, CLOUD),
        (MISSED, CLOUD, CLEAR),
    ):
        errors[scored & (part.truth == truth) & (found == said)] = value
    return errors


def _wrong(score: SceneScore) -> int:
    return score.confusion.fp + score.confusion.fn


def _facts(score: SceneScore) -> tuple[str, ...]:
    """Return what stands below a scene, the most telling first."""
    confusion = score.confusion
    share = f"{_wrong(score) / confusion.pixels:.0%} wrong"
    parts = (("false", confusion.fp), ("missed", confusion.fn))
    kinds = (f"{name} {count / confusion.pixels:.0%}" for name, count in parts if count)
    return (share, *kinds, score.labels, score.ground)
