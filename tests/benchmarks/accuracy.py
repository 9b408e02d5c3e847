"""Nets beside simple and published baselines, over the same scenes and the same pixels.

    python -m tests.benchmarks.accuracy DATA… [--folds RUNS] [--model FILE.onnx]
        [--ukis-python PATH]

PATH is the interpreter of an environment with ukis-csmask 1.0.0, from
`pip install "ukis-csmask[cpu]==1.0.0"`. Labels of kind `teacher` are predictions of its six-band
model, so the rows of labels by people alone tell which method is better.
"""

from __future__ import annotations

import argparse
import subprocess
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import replace
from fnmatch import fnmatch
from pathlib import Path

import numpy as np

from cloudnet.dataset import DataSet, LabelledScene, open_dataset
from cloudnet.evaluate import Part, StoredMasks, evaluate, evaluate_model
from cloudnet.folds import FoldMasks, assign, read_folds
from cloudnet.intervals import bootstrap
from cloudnet.report import percent, text_table
from cloudnet.runtime import load_model, to_mask
from cloudnet.scores import Evaluation, fit_thresholds
from cloudnet.spec import NO_DATA
from cloudnet.tiles import Window

FITTED_TO = "human"
HARD = ("l8_SnowIce_*", "*_26_p100", "*_26_p500")
"""Scenes of snow and bright ground; the cloudy ones of the last two places show little of it."""

UKIS = """
import sys
from pathlib import Path
import numpy as np
from ukis_csmask.mask import CSmask
for path in sorted(Path(sys.argv[1]).glob("*.npz")):
    stored = np.load(path)
    found = CSmask(
        img=stored["reflectance"],
        band_order=["red", "green", "blue", "nir"],
        product_level=str(stored["level"]),
        intra_op_num_threads=2,
        providers=["CPUExecutionProvider"],
    )
    np.save(path.with_suffix(".classes.npy"), found.csm[..., 0])
"""
"""Classes: 0 other, 1 cloud, 2 cloud shadow; thin cloud is in 1."""


class Brightness:
    """The mean of red, green and blue, clipped to [0, 1], in place of a probability."""

    model = "brightness"
    threshold = 0.5

    def __init__(self, folds: dict[str, int]) -> None:
        self._folds = folds

    def fold_of(self, labelled: LabelledScene) -> int | None:
        """Return the fold of a scene, None where there are none."""
        return self._folds.get(labelled.name)

    def parts(self, labelled: LabelledScene) -> Iterator[Part]:
        """Yield the scene in one part."""
        window = Window(0, 0, labelled.rows, labelled.cols)
        with labelled.open() as scene:
            reflectance, valid = scene.read(window)
        mean = np.clip(reflectance[..., :3].mean(axis=2), 0.0, 1.0)
        brightness = np.where(valid, mean, np.float32(np.nan)).astype(np.float32)
        found = to_mask(brightness, self.threshold)
        yield Part(window, labelled.read_mask(window), found, brightness)


def score_brightness(dataset: DataSet, folds: dict[str, int]) -> tuple[str, Evaluation]:
    """Score the brightness threshold: fitted to the other folds, or, without folds, to all."""
    evaluation = evaluate(dataset, Brightness(folds))
    if folds:
        fitted = fit_thresholds(evaluation, FITTED_TO)
        assert fitted.fit is not None
        shown = ", ".join(f"{value:g}" for value in fitted.fit.by_fold.values())
        return f"brightness, fitted to other folds ({shown})", fitted
    histogram = evaluation.only(FITTED_TO).histogram
    threshold = None if histogram is None else histogram.best_threshold()
    assert threshold is not None
    scores = (
        replace(score, confusion=score.histogram.confusion(threshold))
        for score in evaluation.scenes
        if score.histogram is not None
    )
    return f"brightness ≥ {threshold:g}, fitted to these labels", evaluation.part(scores)


def score_ukis(dataset: DataSet, python: Path) -> tuple[str, Evaluation]:
    """Score the four-band model of ukis-csmask: its class 1 is cloud, shadow is not."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        valids = {}
        for labelled in dataset.scenes:
            with labelled.open() as scene:
                reflectance, valids[labelled.name] = scene.read()
            level = "l2a" if "l2a" in labelled.name.lower() else "l1c"
            np.savez(folder / f"{labelled.name}.npz", reflectance=reflectance, level=level)
        subprocess.run([python, "-c", UKIS, folder], check=True)
        for labelled in dataset.scenes:
            cloud = np.load(folder / f"{labelled.name}.classes.npy") == 1
            mask = np.where(valids[labelled.name], cloud, NO_DATA).astype(np.uint8)
            np.save(folder / f"{labelled.name}.npy", mask)
        return "ukis-csmask 1.0.0, four bands", evaluate(dataset, StoredMasks(dataset, folder))


def score_nets(
    dataset: DataSet, runs: Path | None, models: Sequence[Path]
) -> Iterator[tuple[str, Evaluation]]:
    """Score the nets of folds, at their own and at fitted thresholds, and single models."""
    if runs is not None:
        folds = evaluate(dataset, FoldMasks(dataset, runs))
        yield f"folds in {runs.name}, threshold {folds.threshold:g}", folds
        fitted = fit_thresholds(folds, FITTED_TO)
        assert fitted.fit is not None
        yield f"folds in {runs.name}, fitted (all: {fitted.fit.final:g})", fitted
    for path in models:
        yield f"{path.name}, seen or not", evaluate_model(dataset, load_model(path))


def accuracy_table(evaluations: dict[str, Evaluation]) -> str:
    """Return a row for each method and kind of label."""
    rows: list[Sequence[str | int]] = []
    kinds = next(iter(evaluations.values())).kinds
    for kind in kinds:
        for title, evaluation in evaluations.items():
            part = evaluation.only(kind)
            pooled, ends = part.pooled, bootstrap(part).scores["iou"]
            scores = (pooled.iou, pooled.f1, pooled.precision, pooled.recall, pooled.false_cloud)
            interval = "–" if ends is None else f"{ends[0]:.3f} to {ends[1]:.3f}"
            cells = ["–" if score is None else f"{score:.3f}" for score in scores]
            rows.append(
                [kind, title, len(part.scenes), pooled.pixels, cells[0], interval, *cells[1:]]
            )
        rows.append([])
    header = ["labels", "method", "scenes", "pixels", "IoU", "95 %", "F1", "precision", "recall"]
    return text_table([*header, "false cloud"], rows[:-1])


def hard_table(evaluations: dict[str, Evaluation]) -> str:
    """Return the share of clear ground called cloud in the hard scenes, a column a method."""
    rows = []
    for index, score in enumerate(next(iter(evaluations.values())).scenes):
        if any(fnmatch(score.name, pattern) for pattern in HARD):
            shares = [e.scenes[index].confusion.false_cloud for e in evaluations.values()]
            rows.append((score.name, score.labels, *map(percent, shares)))
    return text_table(["false cloud in", "labels", *evaluations], rows)


def main() -> None:
    """Print both tables."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("data", nargs="+", type=Path)
    parser.add_argument("--folds", type=Path)
    parser.add_argument("--model", type=Path, action="append", default=[])
    parser.add_argument("--ukis-python", type=Path)
    options = parser.parse_args()
    dataset = open_dataset(options.data)
    folds: dict[str, int] = {}
    if options.folds is not None:
        assigned = assign(dataset.scenes, read_folds(options.folds))
        folds = {name: fold.number for name, fold in assigned.items()}
    evaluations = dict([score_brightness(dataset, folds)])
    if options.ukis_python is not None:
        evaluations |= dict([score_ukis(dataset, options.ukis_python)])
    evaluations |= dict(score_nets(dataset, options.folds, options.model))
    print(accuracy_table(evaluations), hard_table(evaluations), sep="\n\n", flush=True)


if __name__ == "__main__":
    main()
