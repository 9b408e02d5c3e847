"""Scores: how masks of scenes compare with labels, scene by scene and pooled. Numbers only."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace

from cloudnet.confusion import Confusion
from cloudnet.errors import DatasetError
from cloudnet.histogram import Histogram


@dataclass(frozen=True)
class SceneScore:
    """How a mask of one scene compares with its labels.

    Attributes
    ----------
    name, group, labels
        Of the scene: its name, its place, its kind of label.
    confusion
        Counted over the pixels that have a label and a prediction.
    unpredicted
        Number of pixels that have a label and no prediction, because the scene has no data there.
    ground
        Kind of ground; empty where unknown.
    fold
        Number of the fold whose net made the mask, from 1; None where one model made all masks.
    histogram
        The same pixels by probability; None where only a mask is known.
    """

    name: str
    group: str
    labels: str
    confusion: Confusion
    unpredicted: int = 0
    ground: str = ""
    fold: int | None = None
    histogram: Histogram | None = field(default=None, compare=False, repr=False)


@dataclass(frozen=True)
class ThresholdFit:
    """Thresholds that were fitted to labels.

    Attributes
    ----------
    labels
        The kind of label that they were fitted to.
    by_fold
        By number of the fold: the threshold fitted to the scenes of all other folds, at which the
        scenes of this one are scored.
    final
        The threshold fitted to the scenes of all folds: what a net trained on all of them would
        use. Nothing is scored at it.
    """

    labels: str
    by_fold: Mapping[int, float]
    final: float


@dataclass(frozen=True)
class Evaluation:
    """Scores of the scenes of a data set.

    Attributes
    ----------
    scenes
        In the order of the data set.
    threshold
        Probability from which a pixel was cloud; None where masks were evaluated, or where each
        fold has a threshold of its own.
    model
        What made the masks, in words.
    fit
        The thresholds of the folds, where they were fitted.
    """

    scenes: tuple[SceneScore, ...]
    threshold: float | None
    model: str
    fit: ThresholdFit | None = None

    @property
    def pooled(self) -> Confusion:
        """The pixels of all scenes in one: a large scene weighs more than a small one."""
        return sum((scene.confusion for scene in self.scenes), start=Confusion())

    @property
    def unpredicted(self) -> int:
        """Number of pixels of all scenes that have a label and no prediction."""
        return sum(scene.unpredicted for scene in self.scenes)

    @property
    def histogram(self) -> Histogram | None:
        """The pixels of all scenes by probability; None where that is unknown of any scene."""
        pooled = Histogram.empty()
        for scene in self.scenes:
            if scene.histogram is None:
                return None
            pooled += scene.histogram
        return pooled if self.scenes else None

    @property
    def places(self) -> tuple[str, ...]:
        """The places of the scenes, sorted."""
        return tuple(sorted({scene.group for scene in self.scenes}))

    def threshold_of(self, scene: SceneScore) -> float | None:
        """Return the threshold at which a scene was scored; None where it was a mask already."""
        if self.fit is not None and scene.fold is not None:
            return self.fit.by_fold[scene.fold]
        return self.threshold

    def part(self, scenes: Iterable[SceneScore]) -> Evaluation:
        """Return an evaluation of some of the scenes."""
        return replace(self, scenes=tuple(scenes))

    def only(self, labels: str) -> Evaluation:
        """Return the scenes with one kind of label."""
        return self.part(scene for scene in self.scenes if scene.labels == labels)

    @property
    def kinds(self) -> tuple[str, ...]:
        """The kinds of label, sorted; an unknown kind is "", and last."""
        return tuple(
            sorted({scene.labels for scene in self.scenes}, key=lambda kind: (not kind, kind))
        )

    def by_labels(self) -> dict[str, Confusion]:
        """Return the pooled pixels by kind of label, in the order of `kinds`."""
        return {kind: self.only(kind).pooled for kind in self.kinds}

    def by_ground(self) -> dict[tuple[str, str], Evaluation]:
        """Return the scenes by kind of ground and kind of label, sorted."""
        parts: dict[tuple[str, str], list[SceneScore]] = defaultdict(list)
        for scene in self.scenes:
            parts[(scene.ground, scene.labels)].append(scene)
        return {pair: self.part(parts[pair]) for pair in sorted(parts)}


def fit_thresholds(evaluation: Evaluation, labels: str) -> Evaluation:
    """Score the scenes of each fold anew, at a threshold fitted to the scenes of the other folds.

    The threshold is the one that makes the pooled IoU of cloud largest over the scenes with one
    kind of label. No scene takes part in the choice of the threshold that it is scored at.

    Parameters
    ----------
    evaluation
        Of folds, with histograms.
    labels
        The kind of label to fit to, such as "human".

    Raises
    ------
    DatasetError
        When no scene has such labels, or no cloud is labelled in the folds that one is fitted to.
    ValueError
        When the evaluation is not one of folds with histograms.
    """
    if any(scene.fold is None or scene.histogram is None for scene in evaluation.scenes):
        raise ValueError("thresholds are fitted to the probabilities of folds")
    chosen = evaluation.only(labels)
    if not chosen.scenes:
        known = ", ".join(kind or "(none told)" for kind in evaluation.kinds)
        raise DatasetError(
            f'no scene has labels of the kind "{labels}" to fit a threshold to; there are: {known}'
        )
    folds = sorted({scene.fold for scene in evaluation.scenes if scene.fold is not None})
    by_fold = {
        fold: _fit(chosen.part(scene for scene in chosen.scenes if scene.fold != fold), fold)
        for fold in folds
    }
    fit = ThresholdFit(labels, by_fold, _fit(chosen, None))
    return replace(
        evaluation,
        scenes=tuple(_at(scene, by_fold) for scene in evaluation.scenes),
        threshold=None,
        fit=fit,
    )


def _fit(evaluation: Evaluation, left_out: int | None) -> float:
    """Return the best threshold over all scenes; DatasetError where none of them has cloud."""
    histogram = evaluation.histogram
    threshold = None if histogram is None else histogram.best_threshold()
    if threshold is None:
        beside = "" if left_out is None else f" beside those of fold {left_out}"
        raise DatasetError(
            f"no scene{beside} has cloud to fit a threshold to; fit it to another kind of label"
        )
    return threshold


def _at(scene: SceneScore, by_fold: Mapping[int, float]) -> SceneScore:
    """Return a scene's score at the threshold of its fold."""
    if scene.fold is None or scene.histogram is None:
        return scene
    return replace(scene, confusion=scene.histogram.confusion(by_fold[scene.fold]))
