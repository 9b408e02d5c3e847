"""Evaluation: masks compared with labels pixel by pixel, pooled over scenes."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

import numpy as np

from cloudnet.dataset import (
    SLAB_ROWS,
    DataSet,
    LabelledScene,
    Mask,
    mask_size,
    read_mask,
)
from cloudnet.errors import DatasetError
from cloudnet.runtime import CloudModel
from cloudnet.spec import CLEAR, CLOUD, NO_DATA
from cloudnet.tiles import Window

PREDICTION_NAMES = ("{}_cloudmask.tif", "{}.tif", "{}.npy")
"""What the mask of a scene may be called, the first that is there: as `cloudnet predict` names it,
or as the scene."""

Progress: TypeAlias = Callable[[int, int], None]
"""Called with the number of scenes done and of all scenes."""

Parts: TypeAlias = Iterator[tuple[Mask, Mask]]
"""The parts of a scene that together cover it once: truth and what was found there."""


@dataclass(frozen=True)
class Confusion:
    """Pixels of two masks, truth and found, counted by what both say; cloud is the positive.

    Scores follow Congalton (1991, doi:10.1016/0034-4257(91)90048-B) and Foody (2002,
    doi:10.1016/S0034-4257(01)00295-4). Each is a share in [0, 1], or None where it is undefined:
    where nothing is there to take a share of.

    Attributes
    ----------
    tp, fp, fn, tn
        Pixels that are cloud and found so; clear but found cloud; cloud but found clear; clear and
        found so.
    """

    tp: int = 0
    fp: int = 0
    fn: int = 0
    tn: int = 0

    @classmethod
    def of(cls, truth: Mask, found: Mask) -> Confusion:
        """Count the pixels of two masks (rows, cols) uint8; 255 in either counts for nothing.

        Raises
        ------
        ValueError
            When their shapes differ, or one holds a value that is not 0, 1 or 255.
        """
        if truth.shape != found.shape:
            raise ValueError(f"masks of shape {truth.shape} and {found.shape} do not match")
        for mask in (truth, found):
            if ((mask > CLOUD) & (mask != NO_DATA)).any():
                raise ValueError("a mask holds a value other than 0, 1 and 255")
        true_cloud, true_clear = truth == CLOUD, truth == CLEAR
        found_cloud, found_clear = found == CLOUD, found == CLEAR
        return cls(
            tp=int(np.count_nonzero(true_cloud & found_cloud)),
            fp=int(np.count_nonzero(true_clear & found_cloud)),
            fn=int(np.count_nonzero(true_cloud & found_clear)),
            tn=int(np.count_nonzero(true_clear & found_clear)),
        )

    def __add__(self, other: Confusion) -> Confusion:
        return Confusion(
            self.tp + other.tp, self.fp + other.fp, self.fn + other.fn, self.tn + other.tn
        )

    @property
    def pixels(self) -> int:
        """Number of pixels counted."""
        return self.tp + self.fp + self.fn + self.tn

    @property
    def iou(self) -> float | None:
        """Intersection over union, tp / (tp + fp + fn) (Jaccard 1912, New Phytologist 11, 37)."""
        return _share(self.tp, self.tp + self.fp + self.fn)

    @property
    def f1(self) -> float | None:
        """F1 = 2 tp / (2 tp + fp + fn), the harmonic mean of precision and recall.

        Dice (1945, Ecology 26, 297). Undefined where there is no cloud and none was found.
        """
        return _share(2 * self.tp, 2 * self.tp + self.fp + self.fn)

    @property
    def precision(self) -> float | None:
        """Precision = user's accuracy, tp / (tp + fp): how much of the found cloud is cloud."""
        return _share(self.tp, self.tp + self.fp)

    @property
    def recall(self) -> float | None:
        """Recall = producer's accuracy, tp / (tp + fn): how much of the cloud was found."""
        return _share(self.tp, self.tp + self.fn)

    @property
    def accuracy(self) -> float | None:
        """Overall accuracy, (tp + tn) / all."""
        return _share(self.tp + self.tn, self.pixels)

    @property
    def balanced_accuracy(self) -> float | None:
        """Mean of the recalls of both classes, (tp / (tp + fn) + tn / (tn + fp)) / 2.

        Brodersen et al. (2010, doi:10.1109/ICPR.2010.764). Undefined unless both are in truth.
        """
        cloud, clear = self.recall, _share(self.tn, self.tn + self.fp)
        return None if cloud is None or clear is None else (cloud + clear) / 2

    @property
    def false_cloud(self) -> float | None:
        """Share of the clear pixels that was called cloud, fp / (fp + tn) (false positive rate)."""
        return _share(self.fp, self.fp + self.tn)

    @property
    def cloud_share_truth(self) -> float | None:
        """Share of cloud in truth, (tp + fn) / all."""
        return _share(self.tp + self.fn, self.pixels)

    @property
    def cloud_share_found(self) -> float | None:
        """Share of cloud as found, (tp + fp) / all."""
        return _share(self.tp + self.fp, self.pixels)


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
    """

    name: str
    group: str
    labels: str
    confusion: Confusion
    unpredicted: int = 0


@dataclass(frozen=True)
class Evaluation:
    """Scores of the scenes of a data set.

    Attributes
    ----------
    scenes
        In the order of the data set.
    threshold
        Probability from which a pixel was cloud; None where masks were evaluated.
    model
        What made the masks, in words.
    """

    scenes: tuple[SceneScore, ...]
    threshold: float | None
    model: str

    @property
    def pooled(self) -> Confusion:
        """The pixels of all scenes in one: a large scene weighs more than a small one."""
        return sum((scene.confusion for scene in self.scenes), start=Confusion())

    @property
    def unpredicted(self) -> int:
        """Number of pixels of all scenes that have a label and no prediction."""
        return sum(scene.unpredicted for scene in self.scenes)

    def only(self, labels: str) -> Evaluation:
        """Return the scenes with one kind of label."""
        chosen = tuple(scene for scene in self.scenes if scene.labels == labels)
        return Evaluation(chosen, self.threshold, self.model)

    def by_labels(self) -> dict[str, Confusion]:
        """Return the pooled pixels by kind of label, sorted; an unknown kind is "", and last."""
        kinds = sorted({scene.labels for scene in self.scenes}, key=lambda kind: (not kind, kind))
        return {kind: self.only(kind).pooled for kind in kinds}


def evaluate_model(
    dataset: DataSet,
    model: CloudModel,
    *,
    threshold: float | None = None,
    on_scene: Progress | None = None,
) -> Evaluation:
    """Run a model over every scene and compare its masks with the labels.

    Scenes and labels are read tile by tile, so memory grows neither with the scenes nor with their
    number.

    Parameters
    ----------
    dataset
        The labelled scenes.
    model
        A model that takes scenes.
    threshold
        Probability from which a pixel is cloud; the spec's by default.
    on_scene
        Called after each scene.

    Raises
    ------
    ModelError
        When the model takes single tiles only, or the threshold is not between 0 and 1.
    SceneError, DatasetError
        When a scene or its mask cannot be read.
    """
    spec = model.spec if threshold is None else model.spec.with_threshold(threshold)

    def parts(labelled: LabelledScene) -> Parts:
        with labelled.open() as scene:
            for window, probability, _ in model.stream(scene.read, (scene.rows, scene.cols)):
                yield labelled.read_mask(window), model.mask(probability, spec.threshold)

    name = f"{spec.name} {spec.version} ({model.path}, sha256 {model.sha256[:12]})"
    return Evaluation(_score(dataset, parts, on_scene), spec.threshold, name)


def evaluate_predictions(
    dataset: DataSet, folder: str | Path, *, on_scene: Progress | None = None
) -> Evaluation:
    """Compare masks in a folder with the labels, whatever made them.

    Parameters
    ----------
    dataset
        The labelled scenes.
    folder
        Holds for each scene NAME a mask NAME_cloudmask.tif, as `cloudnet predict` writes it,
        NAME.tif or NAME.npy; the first that is there is taken. 0 clear, 1 cloud, 255 no data.
    on_scene
        Called after each scene.

    Raises
    ------
    DatasetError
        When the folder or a mask is missing, a mask has another size than its scene or holds other
        values, or two scenes of the data set bear one name.
    SceneError
        When a mask cannot be read.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise DatasetError(f"{folder} is no folder; give the one with the predicted masks")
    paths = _find_predictions(dataset, folder)

    def parts(labelled: LabelledScene) -> Parts:
        for row in range(0, labelled.rows, SLAB_ROWS):
            window = Window(row, 0, SLAB_ROWS, labelled.cols).clip(labelled.rows, labelled.cols)
            yield labelled.read_mask(window), read_mask(paths[labelled.name], window)

    return Evaluation(_score(dataset, parts, on_scene), None, f"masks in {folder}")


def _score(
    dataset: DataSet, parts: Callable[[LabelledScene], Parts], on_scene: Progress | None
) -> tuple[SceneScore, ...]:
    """Count the pixels of every scene, part by part."""
    scores = []
    for labelled in dataset.scenes:
        confusion, unpredicted = Confusion(), 0
        for truth, found in parts(labelled):
            confusion += Confusion.of(truth, found)
            unpredicted += int(np.count_nonzero((truth != NO_DATA) & (found == NO_DATA)))
        scores.append(
            SceneScore(labelled.name, labelled.group, labelled.labels, confusion, unpredicted)
        )
        if on_scene is not None:
            on_scene(len(scores), len(dataset.scenes))
    return tuple(scores)


def _find_predictions(dataset: DataSet, folder: Path) -> dict[str, Path]:
    """Return the predicted mask of each scene by name, once all are there and fit."""
    names = Counter(labelled.name for labelled in dataset.scenes)
    name, times = names.most_common(1)[0] if names else ("", 0)
    if times > 1:
        raise DatasetError(
            f"{times} scenes of the data set are named {name}, so {folder} cannot tell them apart; "
            "evaluate their folders one by one"
        )
    found = {labelled.name: _find_prediction(folder, labelled.name) for labelled in dataset.scenes}
    if missing := [name for name, path in found.items() if path is None]:
        more = f" (and for {len(missing) - 1} more scenes)" if len(missing) > 1 else ""
        looked_for = " or ".join(pattern.format(missing[0]) for pattern in PREDICTION_NAMES)
        raise DatasetError(
            f"{folder} holds no {looked_for}{more}; predict the missing scenes into it, or "
            "evaluate the others alone"
        )
    paths = {name: path for name, path in found.items() if path is not None}
    for labelled in dataset.scenes:
        _check_size(paths[labelled.name], labelled)
    return paths


def _check_size(path: Path, labelled: LabelledScene) -> None:
    """Raise DatasetError where a predicted mask has another size than its scene."""
    if (size := mask_size(path)) != (labelled.rows, labelled.cols):
        raise DatasetError(
            f"{path} has {size[0]} x {size[1]} pixels, its scene {labelled.rows} x "
            f"{labelled.cols}; predict {labelled.scene_path} anew"
        )


def _find_prediction(folder: Path, name: str) -> Path | None:
    """Return the predicted mask of a scene, None where there is none."""
    paths = [folder / pattern.format(name) for pattern in PREDICTION_NAMES]
    return next((path for path in paths if path.is_file()), None)


def _share(part: int, whole: int) -> float | None:
    """Return `part` / `whole`; None where there is nothing to take a share of."""
    return part / whole if whole else None
