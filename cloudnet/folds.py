"""Folds: each scene scored by the net that has not seen its place. Needs TensorFlow to run nets."""

from __future__ import annotations

import csv
import hashlib
import re
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cloudnet.compare import keras_answer
from cloudnet.dataset import DataSet, LabelledScene
from cloudnet.errors import DatasetError, RunError, require
from cloudnet.evaluate import ModelMasks, Part
from cloudnet.run import Run
from cloudnet.runtime import CloudModel

FOLD_NAME = re.compile(r"fold([1-9]\d*)")
SIDES = ("train", "validation")


@dataclass(frozen=True)
class Fold:
    """A run of `cloudnet train --folds`.

    Attributes
    ----------
    number
        From 1.
    run
        Its folder.
    train, validation
        The scenes on either side by name, with the place of each.
    """

    number: int
    run: Run
    train: Mapping[str, str]
    validation: Mapping[str, str]


def read_folds(folder: Path) -> tuple[Fold, ...]:
    """Read the folds that `cloudnet train --folds` wrote, proven to be finished and a partition.

    Raises
    ------
    RunError
        When the folder holds no folds, one is missing, unfinished or damaged, a place is on both
        sides of one, or a scene is validated by no fold or by several.
    """
    found = (FOLD_NAME.fullmatch(path.name) for path in folder.glob("fold*") if path.is_dir())
    numbers = sorted(int(match[1]) for match in found if match)
    if not numbers:
        raise RunError(f"{folder} holds no fold1; make folds with: cloudnet train --folds")
    for number in range(1, numbers[-1] + 1):
        if number not in numbers:
            raise RunError(f"{folder / f'fold{number}'} is missing; {_go_on()}")
    folds = tuple(_read_fold(number, Run(folder / f"fold{number}")) for number in numbers)
    _check_partition(folder, folds)
    return folds


def assign(scenes: Sequence[LabelledScene], folds: Sequence[Fold]) -> dict[str, Fold]:
    """Return the fold whose net has not seen a scene's place, by the name of the scene.

    Raises
    ------
    DatasetError
        When a scene is unknown to the folds, or has another place than in their splits.
    """
    fold_of = {name: fold for fold in folds for name in fold.validation}
    for scene in scenes:
        fold = fold_of.get(scene.name)
        if fold is None:
            raise DatasetError(
                f"{scene.scene_path} is on no validation side in {folds[0].run.folder.parent}; "
                "give the data that the folds were trained on, or a part of them"
            )
        if (place := fold.validation[scene.name]) != scene.group:
            raise DatasetError(
                f"{scene.scene_path} is of place {scene.group}, in {fold.run.split_file} of "
                f"{place}; give the data that the folds were trained on"
            )
    return {scene.name: fold_of[scene.name] for scene in scenes}


class FoldMasks:
    """Masks of the nets of folds, each for the scenes on its validation side.

    Scenes are run as the runtime runs them, by Keras: one that fits into a tile whole, padded by
    its mirror image, a larger one tile by tile with a halo. A net is loaded when it is first asked.

    Parameters
    ----------
    dataset
        The scenes, of those that the folds were trained on.
    folder
        What `cloudnet train --folds` wrote.
    threshold
        Probability from which a pixel is cloud; that of the nets' specs by default.

    Raises
    ------
    MissingExtraError
        When TensorFlow is not installed.
    RunError
        As `read_folds` does, and where the nets' thresholds differ and none is given.
    DatasetError
        As `assign` does.
    """

    def __init__(self, dataset: DataSet, folder: Path, threshold: float | None = None) -> None:
        folds = read_folds(folder)
        self._folds = assign(dataset.scenes, folds)
        self._masks: dict[int, ModelMasks] = {}
        self.threshold = _common_threshold(folds) if threshold is None else threshold
        self.model = f"{len(folds)} folds in {folder}, each scene by the net that it was kept from"

    @property
    def untold_l2a(self) -> set[str]:
        """As of `ModelMasks`."""
        return {name for masks in self._masks.values() for name in masks.untold_l2a}

    def fold_of(self, labelled: LabelledScene) -> int | None:
        """Return the number of the fold on whose validation side a scene is."""
        return self._folds[labelled.name].number

    def parts(self, labelled: LabelledScene) -> Iterator[Part]:
        """Yield the parts of a scene."""
        fold = self._folds[labelled.name]
        if fold.number not in self._masks:
            model = keras_model(fold.run.model)
            self._masks[fold.number] = ModelMasks(model, self.threshold)
        return self._masks[fold.number].parts(labelled)


class _KerasSession:
    """Stands where onnxruntime's session does, with Keras behind it."""

    def __init__(self, answer: Any) -> None:
        self._answer = answer

    def get_inputs(self) -> list[SimpleNamespace]:
        return [SimpleNamespace(name="reflectance")]

    def run(self, _: None, feeds: Mapping[str, NDArray[np.float32]]) -> list[NDArray[Any]]:
        return [self._answer(feeds["reflectance"])]

    def get_modelmeta(self) -> SimpleNamespace:
        """Return that there is no metadata: a net that Keras runs computes in floats."""
        return SimpleNamespace(custom_metadata_map={})


def keras_model(net: Path) -> CloudModel:
    """Return a `.keras` file as a model that takes scenes.

    Raises
    ------
    MissingExtraError
        When TensorFlow is not installed.
    ModelError
        When the file is no net of ours.
    """
    require("tensorflow", "train")
    from cloudnet.model import read_keras_spec

    spec = read_keras_spec(net)
    digest = hashlib.sha256(net.read_bytes()).hexdigest()
    return CloudModel(net, spec, _KerasSession(keras_answer(net, spec)), digest)


def _common_threshold(folds: Sequence[Fold]) -> float:
    """Return the threshold that the nets' specs share."""
    require("tensorflow", "train")
    from cloudnet.model import read_keras_spec

    thresholds = {read_keras_spec(fold.run.model).threshold for fold in folds}
    if len(thresholds) > 1:
        raise RunError(
            f"the folds in {folds[0].run.folder.parent} have the thresholds "
            f"{', '.join(f'{value:g}' for value in sorted(thresholds))}; give one with --threshold"
        )
    return thresholds.pop()


def _read_fold(number: int, run: Run) -> Fold:
    """Read a fold that is finished."""
    sides: dict[str, dict[str, str]] = {side: {} for side in SIDES}
    for row in _read_split(run.split_file):
        sides[row["side"]][row["scene"]] = row["group"]
    if not run.model.exists() or not _is_finished(run):
        raise RunError(f"{run.folder} is not trained to its end; {_go_on()}")
    if shared := {*sides["train"].values()} & {*sides["validation"].values()}:
        raise RunError(
            f"{run.split_file} has the place {min(shared)} on both sides, so its net saw what it "
            "would be scored on; train the folds anew"
        )
    return Fold(number, run, sides["train"], sides["validation"])


def _read_split(path: Path) -> list[dict[str, str]]:
    """Return the rows of a split that was written down."""
    try:
        with path.open(newline="", encoding="utf-8") as file:
            rows = list(csv.DictReader(file))
        known = all(row["side"] in SIDES and row["scene"] and row["group"] for row in rows)
    except FileNotFoundError as error:
        raise RunError(f"{path} is missing; {_go_on()}") from error
    except (OSError, ValueError, KeyError, csv.Error) as error:
        raise RunError(f"{path} is damaged ({error}); train the folds anew") from error
    if not rows or not known:
        raise RunError(f"{path} is damaged (no scenes with sides); train the folds anew")
    return rows


def _is_finished(run: Run) -> bool:
    """Tell whether training ended: all epochs are done, or none was better for long enough.

    A run that keeps its last net, and not its best, goes on whatever comes out.
    """
    training, scores = run.read_config().get("training"), _validation_scores(run)
    if not isinstance(training, dict) or not scores:
        return False
    epochs, patience = training.get("epochs"), training.get("patience")
    if not isinstance(epochs, int) or not isinstance(patience, int):
        raise RunError(f"{run.config_file} is damaged; train the folds anew")
    stale = len(scores) - 1 - int(np.argmax(scores))
    return len(scores) >= epochs or (training.get("keep") != "last" and stale >= patience)


def _validation_scores(run: Run) -> list[float]:
    return [row["val_iou"] for row in run.read_history()]


def _check_partition(folder: Path, folds: Sequence[Fold]) -> None:
    """Raise RunError unless each scene of the splits is on one validation side."""
    sides: dict[str, Counter[int]] = defaultdict(Counter)
    for fold in folds:
        for name in (*fold.train, *fold.validation):
            sides[name][fold.number] += name in fold.validation
    for name, counts in sides.items():
        validated = [f"fold{number}" for number, count in counts.items() if count]
        if not validated:
            raise RunError(f"{folder} lacks the fold that {name} was kept for; {_go_on()}")
        if len(validated) > 1:
            raise RunError(
                f"{name} is on the validation sides of {' and '.join(validated)} in {folder}, so "
                "they are not folds of one split; train them anew, scenes of one name apart"
            )


def _go_on() -> str:
    return "go on with the same cloudnet train --folds and --resume"
