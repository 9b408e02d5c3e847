"""Evaluation: masks of scenes compared with labels pixel by pixel, whatever made them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Iterator
from contextlib import closing
from pathlib import Path
from typing import NamedTuple, Protocol, TypeAlias

import numpy as np

from cloudnet.confusion import Confusion
from cloudnet.darkness import Darkness
from cloudnet.dataset import (
    SLAB_ROWS,
    DataSet,
    LabelledScene,
    Mask,
    mask_size,
    read_mask,
)
from cloudnet.errors import DatasetError
from cloudnet.histogram import Histogram
from cloudnet.mosaic import Probability
from cloudnet.runtime import CloudModel
from cloudnet.scores import Evaluation, SceneScore
from cloudnet.spec import NO_DATA
from cloudnet.tiles import Window

PREDICTION_NAMES = ("{}_cloudmask.tif", "{}.tif", "{}.npy")
"""What the mask of a scene may be called, the first that is there: as `cloudnet predict` names it,
or as the scene."""

Progress: TypeAlias = Callable[[int, int], None]
"""Called with the number of scenes done and of all scenes."""


class Part(NamedTuple):
    """A window of a scene: its labels and what was found there, (rows, cols) each.

    The probability is NaN where there is no data, and None where only a mask is known.
    """

    window: Window
    truth: Mask
    found: Mask
    probability: Probability | None


class Masks(Protocol):
    """What makes the masks of scenes, or has made them."""

    @property
    def model(self) -> str:
        """What it is, in words."""

    @property
    def threshold(self) -> float | None:
        """Probability from which a pixel is cloud; None where masks are all there is."""

    @property
    def untold_l2a(self) -> Collection[str]:
        """Names of scenes that look like Level-2A, do not say so, and were taken as they are."""

    def fold_of(self, labelled: LabelledScene) -> int | None:
        """Return the number of the fold whose net is asked; None where there are no folds."""

    def parts(self, labelled: LabelledScene) -> Iterator[Part]:
        """Yield the parts of a scene, which together cover it once."""


class ModelMasks:
    """Masks of a model, made tile by tile.

    Parameters
    ----------
    model
        A model that takes scenes.
    threshold
        Probability from which a pixel is cloud; the spec's by default.

    Raises
    ------
    ModelError
        When the threshold is not between 0 and 1.
    """

    def __init__(self, model: CloudModel, threshold: float | None = None) -> None:
        self.untold_l2a: set[str] = set()
        spec = model.spec if threshold is None else model.spec.with_threshold(threshold)
        self.model = f"{spec.name} {spec.version} ({model.path}, sha256 {model.sha256[:12]})"
        self.threshold = spec.threshold
        self._model = model

    def fold_of(self, labelled: LabelledScene) -> int | None:
        """Return None: one model makes all masks."""
        return None

    def parts(self, labelled: LabelledScene) -> Iterator[Part]:
        """Yield the parts of a scene; raises ModelError when the model takes single tiles only."""
        with (
            labelled.open() as scene,
            closing(self._model.stream(scene, (scene.rows, scene.cols))) as tiles,
        ):
            darkness = Darkness()
            for window, probability, reflectance in tiles:
                found = self._model.mask(probability, self.threshold)
                darkness.add(reflectance, found != NO_DATA)
                yield Part(window, labelled.read_mask(window), found, probability)
            if darkness.shows_untold_l2a(scene, self._model.spec.levels):
                self.untold_l2a.add(labelled.name)


class StoredMasks:
    """Masks in a folder, read in slabs.

    Parameters
    ----------
    dataset
        The scenes that masks are needed for.
    folder
        Holds for each scene NAME a mask NAME_cloudmask.tif, as `cloudnet predict` writes it,
        NAME.tif or NAME.npy; the first that is there is taken. 0 clear, 1 cloud, 255 no data.

    Raises
    ------
    DatasetError
        When the folder or a mask is missing, a mask has another size than its scene, or two scenes
        of the data set bear one name.
    """

    threshold = None
    untold_l2a = ()

    def __init__(self, dataset: DataSet, folder: str | Path) -> None:
        folder = Path(folder)
        if not folder.is_dir():
            raise DatasetError(f"{folder} is no folder; give the one with the predicted masks")
        self.model = f"masks in {folder}"
        self._paths = _find_predictions(dataset, folder)

    def fold_of(self, labelled: LabelledScene) -> int | None:
        """Return None: nothing is known of folds."""
        return None

    def parts(self, labelled: LabelledScene) -> Iterator[Part]:
        """Yield the parts of a scene; raises DatasetError where its mask holds other values.

        Where the scene has no data nothing counts as found, whatever the masks' maker put there.
        """
        with labelled.open() as scene:
            for row in range(0, labelled.rows, SLAB_ROWS):
                window = Window(row, 0, SLAB_ROWS, labelled.cols).clip(labelled.rows, labelled.cols)
                found = read_mask(self._paths[labelled.name], window)
                _, valid = scene.read(window)
                found[~valid] = NO_DATA
                yield Part(window, labelled.read_mask(window), found, None)


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
    return evaluate(dataset, ModelMasks(model, threshold), on_scene=on_scene)


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
    return evaluate(dataset, StoredMasks(dataset, folder), on_scene=on_scene)


def evaluate(dataset: DataSet, masks: Masks, *, on_scene: Progress | None = None) -> Evaluation:
    """Compare masks with the labels, part by part.

    Where probabilities are known, each score holds their histogram too: memory grows with the
    number of scenes, by a few kilobytes each, and not with their size.
    """
    scores = []
    for labelled in dataset.scenes:
        scores.append(_score(labelled, masks))
        if on_scene is not None:
            on_scene(len(scores), len(dataset.scenes))
    return Evaluation(tuple(scores), masks.threshold, masks.model)


def _score(labelled: LabelledScene, masks: Masks) -> SceneScore:
    """Count the pixels of a scene."""
    confusion, unpredicted = Confusion(), 0
    histogram = None if masks.threshold is None else Histogram.empty()
    for part in masks.parts(labelled):
        confusion += Confusion.of(part.truth, part.found)
        unpredicted += int(np.count_nonzero((part.truth != NO_DATA) & (part.found == NO_DATA)))
        if histogram is not None and part.probability is not None:
            histogram += Histogram.of(part.truth, part.probability)
    return SceneScore(
        labelled.name,
        labelled.group,
        labelled.labels,
        confusion,
        unpredicted,
        labelled.ground,
        masks.fold_of(labelled),
        histogram,
    )


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
