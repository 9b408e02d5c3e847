"""Training: what a run holds, that it resumes to the last bit, and what stops it."""

from __future__ import annotations

import csv
import io
import json
import os
import shutil
import signal
import subprocess
import sys
import time
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import replace
from math import inf, nan
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

pytest.importorskip("tensorflow", reason="the train extra is not installed")

import h5py
from tensorflow.python.framework.config import disable_op_determinism

from cloudnet.dataset import DataSet, open_dataset
from cloudnet.errors import (
    DatasetError,
    ModelError,
    OutputError,
    RunError,
    SceneError,
    TrainingError,
)
from cloudnet.losses import CloudIoU
from cloudnet.mixture import Mixture, SceneFacts
from cloudnet.model import (
    UNetConfig,
    load_net,
    make_spec,
    read_keras_spec,
    settle_normalisation,
)
from cloudnet.pipeline import (
    BlockReader,
    TrainingTiles,
    training_dataset,
    validation_dataset,
)
from cloudnet.probe import read_probe_tiles
from cloudnet.run import Run
from cloudnet.scene import Reading
from cloudnet.spec import LEVELS, Spec
from cloudnet.split import split_once
from cloudnet.train import (
    LAST,
    Progress,
    TrainConfig,
    draw_curves,
    scene_facts,
    train,
    train_all,
    train_folds,
)
from tests.helpers import make_dataset, tiny_config, write_labelled_scene, write_mask_tif

Numbers = dict[str, NDArray[Any]]

QUICK = {"net": UNetConfig((4,), blocks=1, stem=0), "epoch_tiles": 16}
"""The smallest net, two steps an epoch."""

STEADY = {**QUICK, "deterministic": True}
"""The same bits each time."""


def numbers(path: Path) -> Numbers:
    """Every number in a `.keras` file by its name: weights, and the optimizer's state if kept."""
    with zipfile.ZipFile(path) as archive:
        content = io.BytesIO(archive.read("model.weights.h5"))
    found: Numbers = {}

    def keep(name: str, item: Any) -> None:
        if isinstance(item, h5py.Dataset):
            found[name] = item[()]

    with h5py.File(content) as file:
        file.visititems(keep)
    return found


def assert_same(one: Path, other: Path) -> None:
    """Assert that two `.keras` files hold the same numbers to the last bit."""
    found, wanted = numbers(one), numbers(other)
    assert found.keys() == wanted.keys() and len(wanted) > 20
    for name, value in wanted.items():
        np.testing.assert_array_equal(found[name], value, err_msg=name)


def differ(one: Path, other: Path) -> bool:
    found, wanted = numbers(one), numbers(other)
    return any((found[name] != value).any() for name, value in wanted.items())


def timeless(run: Run) -> list[dict[str, float]]:
    """The history without what the clock says."""
    return [{**row, "seconds": 0.0} for row in run.read_history()]


def contents(folder: Path) -> dict[str, bytes]:
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file()
    }


def leftovers(folder: Path) -> list[Path]:
    return [path for path in folder.rglob("*") if ".part" in path.name]


@pytest.fixture(scope="module")
def dataset(geotiff_dataset: Path) -> DataSet:
    return open_dataset([geotiff_dataset])


@pytest.fixture
def copied_run(tiny_run: Path, tmp_path: Path) -> Run:
    """A finished run of `tiny_config` that may be changed."""
    shutil.copytree(tiny_run, tmp_path / "run")
    return Run(tmp_path / "run")


@pytest.fixture(scope="module")
def steady() -> Iterator[None]:
    """Give back TensorFlow's setting, which a deterministic run changes for the process."""
    yield
    disable_op_determinism()


@pytest.fixture(scope="module")
def steady_run(
    steady: None, dataset: DataSet, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[Run, Path]]:
    """A run of two epochs without interruption, and its checkpoint after the first."""
    folder = tmp_path_factory.mktemp("runs")
    first = folder / "first.keras"

    def keep(progress: Progress) -> None:
        if progress.epoch_ended and progress.epoch == 1:
            shutil.copy(folder / "run" / "last.keras", first)

    yield train(dataset, folder / "run", tiny_config(**STEADY), on_progress=keep), first


class Stop:
    """Presses Ctrl-C when an epoch has ended, or after a step of one."""

    def __init__(self, epoch: int, *, step: int | None = None) -> None:
        self.epoch = epoch
        self.step = step

    def __call__(self, progress: Progress) -> None:
        here = progress.epoch_ended if self.step is None else progress.step == self.step
        if here and progress.epoch == self.epoch:
            raise KeyboardInterrupt


@pytest.fixture(scope="module")
def stopped_run(
    steady_run: Any, dataset: DataSet, tmp_path_factory: pytest.TempPathFactory
) -> Path:
    """A run of the same settings that was stopped after its first epoch; not to be changed."""
    folder = tmp_path_factory.mktemp("runs") / "stopped"
    with pytest.raises(KeyboardInterrupt):
        train(dataset, folder, tiny_config(**STEADY), on_progress=Stop(1))
    return folder


# What a run holds.


def test_a_run_holds_all_that_belongs_to_it(tiny_run: Path, dataset: DataSet) -> None:
    run = Run(tiny_run)
    names = {path.name for path in tiny_run.iterdir()}
    assert names == {
        "model.keras",
        "last.keras",
        "spec.json",
        "config.json",
        "split.csv",
        "history.csv",
        "curves.png",
        "probe_tiles.npz",
        "logs",
    }
    assert not leftovers(tiny_run)
    assert run.curves_file.read_bytes().startswith(b"\x89PNG") and any(run.logs.rglob("*tfevents*"))
    spec = make_spec(tiny_config().net)
    assert Spec.from_json(run.spec_file.read_text(), "spec.json") == spec
    assert read_keras_spec(run.model) == read_keras_spec(run.last) == spec
    config = run.read_config()
    assert config["training"] == replace(tiny_config(), levels=LEVELS).to_dict()
    assert (config["train_scenes"], config["validation_scenes"]) == (4, 2)
    assert config["keras"] and config["tensorflow"]
    tiles = read_probe_tiles(run.probe_tiles_file)
    assert tiles.shape == (2, 64, 64, 4) and tiles.min() >= 0 and tiles.max() > 0.3


def test_the_history_has_a_row_an_epoch_and_the_net_has_learnt(tiny_run: Path) -> None:
    history = Run(tiny_run).read_history()
    assert [row["epoch"] for row in history] == [1, 2]
    assert history[1]["loss"] < history[0]["loss"]
    assert all(0 <= row["val_iou"] <= 1 and row["val_loss"] > 0 for row in history)
    assert all(row["seconds"] > 0 for row in history)
    # The cosine has come down to nothing at the end.
    assert history[0]["learning_rate"] > 1e-3 and history[1]["learning_rate"] < 1e-9


def test_the_split_on_disk_is_by_place_and_the_one_that_was_trained_on(
    tiny_run: Path, dataset: DataSet
) -> None:
    with Run(tiny_run).split_file.open(newline="", encoding="utf-8") as file:
        table = list(csv.DictReader(file))
    sides = {
        side: {r["group"] for r in table if r["side"] == side} for side in ("train", "validation")
    }
    assert sides["train"] and sides["validation"] and not sides["train"] & sides["validation"]
    assert {row["path"] for row in table} == {s.scene_path.as_posix() for s in dataset.scenes}
    groups = {scene.name: scene.group for scene in dataset.scenes}
    assert all(row["group"] == groups[row["scene"]] for row in table)
    facts = scene_facts(dataset.scenes)
    assert all(
        float(row["cloud_share"]) == pytest.approx(facts[Path(row["path"])].cloud_share, abs=1e-4)
        for row in table
    )
    split = split_once(dataset.scenes, list(facts.values()), tiny_config().seed)
    assert [row["scene"] for row in table if row["side"] == "validation"] == [
        scene.name for scene in split.validation
    ]


def test_the_score_of_the_best_net_is_the_one_in_the_history(
    tiny_run: Path, dataset: DataSet
) -> None:
    run = Run(tiny_run)
    split = split_once(dataset.scenes, list(scene_facts(dataset.scenes).values()), 0)
    net, score = load_net(run.model), CloudIoU()
    for image, target in validation_dataset(
        split.validation, BlockReader(split.validation), 256, 4, 8
    ):
        score.update_state(target, net(image, training=False))
    best = max(row["val_iou"] for row in run.read_history())
    assert float(score.result()) == pytest.approx(best, abs=1e-5)


def test_curves_are_drawn_of_a_history(tiny_run: Path, tmp_path: Path) -> None:
    history = Run(tiny_run).read_history()
    draw_curves(history[:1], tmp_path / "one.png")
    draw_curves(history, tmp_path / "two.png")
    one, two = ((tmp_path / name).read_bytes() for name in ("one.png", "two.png"))
    assert one.startswith(b"\x89PNG") and two.startswith(b"\x89PNG") and one != two
    unknown = [{**row, "val_loss": nan, "val_iou": nan} for row in history]
    draw_curves(unknown, tmp_path / "unknown.png")
    other = (tmp_path / "unknown.png").read_bytes()
    assert other.startswith(b"\x89PNG") and other != two


# The same again, and interruptions.


def test_the_same_seed_gives_the_same_weights(
    steady_run: tuple[Run, Path], stopped_run: Path
) -> None:
    whole, first = steady_run
    assert_same(stopped_run / "last.keras", first)
    assert differ(first, whole.last), "the second epoch changed them"
    assert timeless(Run(stopped_run)) == timeless(whole)[:1]
    assert Run(stopped_run).split_file.read_bytes() == whole.split_file.read_bytes()
    assert not leftovers(stopped_run)


def test_a_stopped_run_goes_on_as_if_nothing_had_been(
    steady_run: tuple[Run, Path], stopped_run: Path, dataset: DataSet, tmp_path: Path
) -> None:
    whole, _ = steady_run
    told: list[Progress] = []
    shutil.copytree(stopped_run, tmp_path / "run")
    run = train(
        dataset, tmp_path / "run", tiny_config(**STEADY), resume=True, on_progress=told.append
    )
    assert_same(run.last, whole.last)
    assert_same(run.model, whole.model)
    assert timeless(run) == timeless(whole)
    assert [progress.step for progress in told] == [3, 4, 4]
    assert {(progress.epoch, progress.epochs, progress.steps) for progress in told} == {(2, 2, 4)}
    assert told[0].validation_iou == run.read_history()[0]["val_iou"]
    assert [progress.epoch_ended for progress in told] == [False, False, True]


class StopAtFile:
    """Presses Ctrl-C where a file is about to get its name, or just has got it."""

    def __init__(self, name: str, moment: str, *, count: int = 1) -> None:
        self.name = name
        self.moment = moment
        self.left = count
        self.replace = Path.replace

    def __call__(self, source: Path, target: Path) -> None:
        self.left -= target.name == self.name
        stop = target.name == self.name and self.left == 0
        if not stop or self.moment == "after":
            self.replace(source, target)
        if stop:
            raise KeyboardInterrupt


def test_a_run_stopped_between_two_files_goes_on_as_if_nothing_had_been(
    steady_run: tuple[Run, Path], dataset: DataSet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole, _ = steady_run
    run = Run(tmp_path / "run")

    def go_on(stop: StopAtFile) -> None:
        with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
            patch.setattr(Path, "replace", lambda source, target: stop(source, target))
            train(dataset, run.folder, tiny_config(**STEADY), resume=run.config_file.exists())
        assert not leftovers(run.folder)

    go_on(StopAtFile("split.csv", "after"))
    assert not run.config_file.exists(), "what was hardly begun is no run"
    go_on(StopAtFile("history.csv", "after"))
    assert len(run.read_history()) == 1
    go_on(StopAtFile("history.csv", "before", count=2))
    go_on(StopAtFile("history.csv", "after"))
    train(dataset, run.folder, tiny_config(**STEADY), resume=True)
    assert_same(run.last, whole.last)
    assert_same(run.model, whole.model)
    assert timeless(run) == timeless(whole)


SMALL_TRAIN = """
import functools, signal
# A job in the background of a shell is born deaf to SIGINT, and hands that on.
signal.signal(signal.SIGINT, signal.default_int_handler)
import cloudnet.train
from cloudnet.model import UNetConfig
small = functools.partial(cloudnet.train.TrainConfig, net=UNetConfig((4,), blocks=1, stem=0))
cloudnet.train.TrainConfig = small
from cloudnet.commands import main
main()
"""


@pytest.mark.skipif(os.name == "nt", reason="Windows sends no SIGINT to one process")
def test_ctrl_c_leaves_a_run_that_resumes(
    geotiff_dataset: Path, dataset: DataSet, tmp_path: Path
) -> None:
    run = Run(tmp_path / "run")
    command = [sys.executable, "-c", SMALL_TRAIN, "train", geotiff_dataset, "--out", run.folder]
    command += ["--epochs", "400", "--epoch-tiles", "16", "--tile-px", "32", "--batch", "8"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    try:
        deadline = time.monotonic() + 60
        while not run.last.exists() and process.poll() is None and time.monotonic() < deadline:
            time.sleep(0.05)
        process.send_signal(signal.SIGINT)
        _, stderr = process.communicate(timeout=30)
    finally:
        process.kill()
    assert process.returncode == 130, stderr
    assert "Traceback" not in stderr
    assert "--resume" in stderr and str(run.folder) in stderr
    assert not leftovers(run.folder)
    done = len(run.read_history())
    assert 1 <= done < 400
    config = TrainConfig(epochs=done + 1, tile_px=32, batch=8, **QUICK)
    train(dataset, run.folder, config, resume=True)
    assert [row["epoch"] for row in run.read_history()] == [*range(1, done + 2)]


def test_two_do_not_train_in_one_folder(dataset: DataSet, tmp_path: Path) -> None:
    refusals: list[str] = []

    def train_too(_: Progress) -> None:
        if not refusals:
            with pytest.raises(OutputError) as caught:
                train(dataset, tmp_path / "run", tiny_config(), resume=True)
            refusals.append(str(caught.value))

    run = train(dataset, tmp_path / "run", tiny_config(epochs=1), on_progress=train_too)
    assert "config.json is being written by another process" in refusals[0]
    assert run.read_config()["training"]["epochs"] == 1
    assert not list(run.folder.glob(".*"))


def test_resuming_a_finished_run_changes_nothing(copied_run: Run, dataset: DataSet) -> None:
    before = contents(copied_run.folder)
    told: list[Progress] = []
    train(dataset, copied_run.folder, tiny_config(), resume=True, on_progress=told.append)
    assert contents(copied_run.folder) == before
    assert told == []


def test_a_finished_run_learns_on_with_more_epochs(copied_run: Run, dataset: DataSet) -> None:
    before = [weight.numpy() for weight in load_net(copied_run.last).trainable_weights]
    history = copied_run.read_history()
    with pytest.raises(KeyboardInterrupt):
        train(
            dataset,
            copied_run.folder,
            tiny_config(epochs=5, patience=9),
            resume=True,
            on_progress=Stop(3),
        )
    assert copied_run.read_history()[:2] == history
    assert copied_run.read_history()[2]["learning_rate"] > 5e-4
    after = [weight.numpy() for weight in load_net(copied_run.last).trainable_weights]
    assert all((now != then).any() for now, then in zip(after, before, strict=True))
    assert copied_run.read_config()["training"]["epochs"] == 5


def test_only_kernels_are_decayed(dataset: DataSet, tmp_path: Path) -> None:
    # A step at the full rate takes the decayed weights down to what the gradient adds.
    config = tiny_config(
        **QUICK, epochs=1, learning_rate=1e-3, weight_decay=900.0, warmup_share=0.0
    )
    net = load_net(train(dataset, tmp_path / "run", config).model)
    gamma = net.get_layer("stem_norm").get_weights()[0]
    (kernel,) = net.get_layer("stem_convolution").get_weights()
    assert np.abs(gamma - 1).max() < 0.01
    assert np.abs(kernel).max() < 0.02


# The best is kept, and no more epochs are spent than are of use.


def test_training_ends_without_a_better_score_and_keeps_the_best(tmp_path: Path) -> None:
    folder = make_dataset(tmp_path / "data", size=(40, 40), scenes=4)
    for path in sorted((folder / "masks").iterdir()):
        write_mask_tif(path, np.zeros((40, 40), dtype=np.uint8))
    dataset = open_dataset([folder])
    first = tmp_path / "first.keras"
    told: list[Progress] = []

    def keep(progress: Progress) -> None:
        told.append(progress)
        if progress.epoch_ended and progress.epoch == 1:
            shutil.copy(tmp_path / "run" / "last.keras", first)

    config = tiny_config(**QUICK, epochs=9, patience=2)
    run = train(dataset, tmp_path / "run", config, on_progress=keep)
    history = run.read_history()
    # Where nothing is cloud the score stays 0: the first epoch is not bettered by two more.
    assert [row["val_iou"] for row in history] == [0.0, 0.0, 0.0]
    assert_same(run.model, first)
    assert differ(run.last, first)
    assert [progress.epoch for progress in told if progress.epoch_ended] == [1, 2, 3]
    before = contents(run.folder)
    train(dataset, run.folder, config, resume=True)
    assert contents(run.folder) == before


# The last is kept, with or without validation.

MIXED = {
    **STEADY,
    "keep": LAST,
    "mixture": Mixture(simulated=0.25, composed=0.25, pasted=0.25, balanced=True),
}


def test_a_run_that_keeps_its_last_net_has_no_patience(tmp_path: Path) -> None:
    folder = make_dataset(tmp_path / "data", size=(40, 40), scenes=4)
    for path in sorted((folder / "masks").iterdir()):
        write_mask_tif(path, np.zeros((40, 40), dtype=np.uint8))
    # As in the test of patience the score stays 0, and now all epochs are gone through.
    config = tiny_config(**QUICK, epochs=4, patience=1, keep=LAST)
    run = train(open_dataset([folder]), tmp_path / "run", config)
    assert [row["val_iou"] for row in run.read_history()] == [0.0] * 4
    assert_same(run.model, run.last)


@pytest.fixture(scope="module")
def whole_run(steady: None, dataset: DataSet, tmp_path_factory: pytest.TempPathFactory) -> Run:
    """Two epochs of a mixture on all scenes, without validation; not to be changed."""
    return train_all(dataset, tmp_path_factory.mktemp("runs") / "all", tiny_config(**MIXED))


def test_without_validation_all_scenes_are_trained_on(whole_run: Run, dataset: DataSet) -> None:
    with whole_run.split_file.open(newline="", encoding="utf-8") as file:
        table = list(csv.DictReader(file))
    assert [row["side"] for row in table] == ["train"] * len(dataset.scenes)
    assert [row["scene"] for row in table] == [scene.name for scene in dataset.scenes]
    config = whole_run.read_config()
    assert (config["train_scenes"], config["validation_scenes"]) == (len(dataset.scenes), 0)
    assert config["training"] == replace(tiny_config(**MIXED), levels=LEVELS).to_dict()
    history = whole_run.read_history()
    assert [row["epoch"] for row in history] == [1, 2]
    for row in history:
        assert np.isnan([row["val_loss"], row["val_iou"]]).all()
        assert np.isfinite([row["loss"], row["iou"]]).all()
    assert_same(whole_run.model, whole_run.last)
    assert read_probe_tiles(whole_run.probe_tiles_file).shape[1:] == (64, 64, 4)
    assert whole_run.curves_file.read_bytes().startswith(b"\x89PNG")
    assert not leftovers(whole_run.folder)


def test_a_stopped_run_without_validation_goes_on_as_if_nothing_had_been(
    whole_run: Run, dataset: DataSet, tmp_path: Path
) -> None:
    config, folder = tiny_config(**MIXED), tmp_path / "run"
    with pytest.raises(KeyboardInterrupt):
        train_all(dataset, folder, config, on_progress=Stop(1))
    assert differ(Run(folder).model, whole_run.model)
    run = train_all(dataset, folder, config, resume=True)
    assert_same(run.last, whole_run.last)
    assert_same(run.model, whole_run.model)
    for row, wanted in zip(timeless(run), timeless(whole_run), strict=True):
        np.testing.assert_equal(row, wanted)
    before = contents(folder)
    train_all(dataset, folder, config, resume=True)
    assert contents(folder) == before, "what is finished stays as it is"


def test_without_validation_a_run_does_not_go_on_with_one_and_the_other_way_round(
    whole_run: Run, dataset: DataSet, tmp_path: Path
) -> None:
    shutil.copytree(whole_run.folder, tmp_path / "run")
    with pytest.raises(RunError, match=r"split\.csv"):
        train(dataset, tmp_path / "run", tiny_config(**MIXED), resume=True)


@pytest.mark.parametrize(
    ("told", "levels"),
    [
        ((None, None), ("L1C", "L2A")),
        (("L1C", None), ("L1C",)),
        (("L2A", "L2A"), ("L2A",)),
        (("L2A", "L1C"), ("L1C", "L2A")),
    ],
)
def test_a_net_is_for_the_levels_that_its_training_scenes_tell(
    told: tuple[str | None, ...], levels: tuple[str, ...]
) -> None:
    facts = [SceneFacts(0.1, 1.0, 0.0, level) for level in told]
    assert tiny_config().for_scenes(facts).make_spec().levels == levels
    settled = tiny_config(levels=("L1C",))
    assert settled.for_scenes(facts) == settled


def test_a_run_keeps_the_levels_of_its_scenes(dataset: DataSet, tmp_path: Path) -> None:
    scenes = tuple(replace(scene, reading=Reading(level="L1C")) for scene in dataset.scenes)
    data = replace(dataset, scenes=scenes)
    config = tiny_config(**QUICK, epochs=1)
    run = train(data, tmp_path / "run", config)
    assert read_keras_spec(run.model).levels == ("L1C",)
    train(data, tmp_path / "run", replace(config, epochs=2), resume=True)
    assert read_keras_spec(run.last).levels == ("L1C",)


def test_a_model_tells_its_name_version_and_threshold(dataset: DataSet, tmp_path: Path) -> None:
    config = tiny_config(**QUICK, epochs=1, name="mine", version="2.1", threshold=0.375)
    run = train(dataset, tmp_path / "run", config)
    spec = read_keras_spec(run.model)
    assert (spec.name, spec.version, spec.threshold) == ("mine", "2.1", 0.375)
    assert Spec.from_json(run.spec_file.read_text(), "spec.json") == spec == config.make_spec()


def test_the_last_net_s_normalisation_is_settled(whole_run: Run, dataset: DataSet) -> None:
    config = tiny_config(**MIXED)
    facts = tuple(scene_facts(dataset.scenes).values())
    tiles = TrainingTiles(
        dataset.scenes, config.tile_px, config.epoch_tiles, config.seed, config.mixture, facts
    )
    reader = BlockReader(dataset.scenes)
    one_more = training_dataset(tiles, reader, config.augmentation, config.batch, range(2, 3))
    net = load_net(whole_run.model)
    kept = net.get_weights()
    settle_normalisation(net, (image for image, _ in one_more))
    for number, again in zip(kept, net.get_weights(), strict=True):
        np.testing.assert_allclose(again, number, rtol=1e-4, atol=1e-6)


def test_without_validation_one_place_is_enough(dataset: DataSet, tmp_path: Path) -> None:
    config = tiny_config(**QUICK, epochs=1, keep=LAST)
    run = train_all(DataSet(dataset.scenes[:1]), tmp_path / "run", config)
    assert len(run.read_history()) == 1 and load_net(run.model)


def test_without_validation_there_is_no_best_net(dataset: DataSet, tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="keep the last"):
        train_all(dataset, tmp_path / "run", tiny_config(**QUICK))
    assert not (tmp_path / "run").exists()


def test_folds_may_be_of_a_mixture(dataset: DataSet, tmp_path: Path) -> None:
    # No scene of these is clear, so that what was to be pasted and composed is real.
    runs = train_folds(dataset, tmp_path / "folds", tiny_config(**{**MIXED, "epochs": 1}), 2)
    for run in runs:
        (row,) = run.read_history()
        assert 0 <= row["val_iou"] <= 1
        assert_same(run.model, run.last)


# Folds.


def test_folds_validate_each_place_once_and_resume_one_by_one(
    dataset: DataSet, tmp_path: Path
) -> None:
    config = tiny_config(**QUICK, epochs=1)
    folder = tmp_path / "folds"

    with pytest.raises(KeyboardInterrupt):
        train_folds(dataset, folder, config, 2, on_progress=Stop(1))
    assert (folder / "fold2").is_dir(), "a folder alone is no run that was begun"
    first = contents(folder / "fold1")
    runs = train_folds(dataset, folder, config, 2, resume=True)
    assert [run.folder for run in runs] == [folder / "fold1", folder / "fold2"]
    assert contents(folder / "fold1") == first
    assert all(run.model.exists() and len(run.read_history()) == 1 for run in runs)
    validated = []
    for run in runs:
        with run.split_file.open(newline="", encoding="utf-8") as file:
            table = list(csv.DictReader(file))
        sides = {
            side: {row["group"] for row in table if row["side"] == side}
            for side in ("train", "validation")
        }
        assert not sides["train"] & sides["validation"]
        validated += [row["scene"] for row in table if row["side"] == "validation"]
    assert sorted(validated) == sorted(scene.name for scene in dataset.scenes)


def test_folds_in_the_way_are_found_before_the_first_is_trained(
    copied_run: Run, dataset: DataSet
) -> None:
    folder = copied_run.folder.parent / "folds"
    copied_run.folder.rename(copied_run.folder.parent / "fold2")
    folder.mkdir()
    (folder.parent / "fold2").rename(folder / "fold2")
    with pytest.raises(RunError, match="fold2 holds a run"):
        train_folds(dataset, folder, tiny_config(), 2)
    assert not (folder / "fold1" / "config.json").exists()


@pytest.mark.parametrize("folds", [1, 4])
def test_folds_that_cannot_be_are_refused(dataset: DataSet, tmp_path: Path, folds: int) -> None:
    with pytest.raises(DatasetError):
        train_folds(dataset, tmp_path / "folds", tiny_config(), folds)
    assert not (tmp_path / "folds").exists()


# What is refused.


def test_a_folder_with_a_run_is_not_overwritten(copied_run: Run, dataset: DataSet) -> None:
    before = contents(copied_run.folder)
    with pytest.raises(RunError, match="holds a run; give --resume") as caught:
        train(dataset, copied_run.folder, tiny_config())
    assert str(copied_run.folder) in str(caught.value)
    assert contents(copied_run.folder) == before


def test_a_file_in_the_way_is_named(dataset: DataSet, tmp_path: Path) -> None:
    path = tmp_path / "run"
    path.write_text("mine")
    for folder in (path, path / "first"):
        with pytest.raises(OutputError) as caught:
            train(dataset, folder, tiny_config())
        assert str(path) in str(caught.value)
    assert path.read_text() == "mine"


def test_what_was_never_begun_is_not_resumed(dataset: DataSet, tmp_path: Path) -> None:
    with pytest.raises(RunError, match="is no run"):
        train(dataset, tmp_path / "run", tiny_config(), resume=True)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("change", "word"),
    [
        ({"batch": 4}, "batch 8, not 4"),
        ({"learning_rate": 1e-3}, "learning_rate 0.003, not 0.001"),
        ({"tile_px": 64}, "tile_px"),
        ({"deterministic": True}, "deterministic"),
        ({"net": replace(tiny_config().net, blocks=2)}, "net"),
        ({"augmentation": replace(tiny_config().augmentation, zoom=1.5)}, "augmentation"),
        ({"mixture": Mixture(simulated=0.5)}, "mixture"),
        ({"keep": LAST}, "keep best, not last"),
    ],
)
def test_a_run_does_not_go_on_with_other_settings(
    copied_run: Run, dataset: DataSet, change: dict[str, Any], word: str
) -> None:
    before = contents(copied_run.folder)
    with pytest.raises(RunError) as caught:
        train(dataset, copied_run.folder, tiny_config(**change), resume=True)
    assert word in str(caught.value) and str(copied_run.folder) in str(caught.value)
    assert contents(copied_run.folder) == before


def fewer(dataset: DataSet) -> DataSet:
    return DataSet(dataset.scenes[1:])


def relabelled(dataset: DataSet) -> DataSet:
    one, other, *rest = dataset.scenes
    return DataSet((replace(one, mask_path=other.mask_path), other, *rest))


def regrouped(dataset: DataSet) -> DataSet:
    return DataSet(tuple(replace(scene, group=scene.name) for scene in dataset.scenes))


def rescaled(dataset: DataSet) -> DataSet:
    reading = Reading(scale=2e-4, nodata=nan)
    return DataSet(tuple(replace(scene, reading=reading) for scene in dataset.scenes))


@pytest.mark.parametrize(
    ("change", "word"),
    [
        (fewer, "split.csv"),
        (relabelled, "split.csv"),
        (regrouped, "split.csv"),
        (rescaled, "--scale"),
    ],
)
def test_a_run_does_not_go_on_with_other_data(
    copied_run: Run, dataset: DataSet, change: Callable[[DataSet], DataSet], word: str
) -> None:
    before = contents(copied_run.folder)
    with pytest.raises(RunError) as caught:
        train(change(dataset), copied_run.folder, tiny_config(), resume=True)
    assert word in str(caught.value) and str(copied_run.folder) in str(caught.value)
    assert contents(copied_run.folder) == before


def without_settings(run: Run) -> None:
    config = run.read_config()
    del config["training"]
    run.write_config(config)


@pytest.mark.parametrize(
    ("damage", "word"),
    [
        (lambda run: run.config_file.write_text("{"), "config.json"),
        (without_settings, "config.json"),
        (lambda run: run.split_file.unlink(), "split.csv"),
        (lambda run: run.history_file.write_text("epoch,loss\n1,soon\n"), "history.csv"),
        (lambda run: run.last.unlink(), "last.keras"),
        (lambda run: run.last.write_bytes(run.last.read_bytes()[:5000]), "last.keras"),
        (lambda run: run.last.write_bytes(b""), "last.keras"),
        (lambda run: run.write_history(run.read_history()[:1]), "last.keras and history.csv"),
    ],
)
def test_a_damaged_run_is_not_resumed(
    copied_run: Run, dataset: DataSet, damage: Callable[[Run], Any], word: str
) -> None:
    damage(copied_run)
    with pytest.raises(RunError, match="start a new run") as caught:
        train(dataset, copied_run.folder, tiny_config(epochs=3), resume=True)
    assert word in str(caught.value) and "\n" not in str(caught.value)
    assert str(copied_run.folder) in str(caught.value)


@pytest.mark.parametrize(
    "wrong",
    [
        {"epochs": 0},
        {"batch": 0},
        {"epoch_tiles": 0},
        {"patience": 0},
        {"tile_px": 30},
        {"tile_px": 0},
        {"learning_rate": 0.0},
        {"learning_rate": nan},
        {"learning_rate": inf},
        {"warmup_share": 1.0},
        {"weight_decay": -1.0},
        {"dice_share": 1.5},
        {"keep": "first"},
        {"seed": -1},
        {"seed": 2**32},
    ],
)
def test_settings_out_of_range_are_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(ModelError):
        tiny_config(**wrong)


# What stops it.


def test_a_loss_that_is_no_number_names_the_scenes_of_its_step(
    dataset: DataSet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    read = BlockReader.read
    split = split_once(dataset.scenes, list(scene_facts(dataset.scenes).values()), 0)
    culprit = split.train[2]

    def poisoned(self: BlockReader, index: int, *windows: Any) -> Any:
        image, mask = read(self, index, *windows)
        return (image * np.float32(nan) if self.scenes[index] == culprit else image), mask

    monkeypatch.setattr(BlockReader, "read", poisoned)
    with pytest.raises(TrainingError, match="the loss is no number in epoch 1, step") as caught:
        train(dataset, tmp_path / "run", tiny_config(**QUICK, batch=1))
    assert f"on tiles of {culprit.name};" in str(caught.value)
    assert caught.value.exit_code == 1
    assert not (tmp_path / "run" / "last.keras").exists()


def test_a_loss_that_is_no_number_names_donors_and_no_scenes_for_what_is_simulated(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ground = np.full((40, 40, 4), 0.1, np.float32)
    mask = np.zeros((40, 40), np.uint8)
    cloudy = mask.copy()
    cloudy[:20] = 1
    dataset = DataSet(
        (
            write_labelled_scene(tmp_path, "clear", ground, mask),
            write_labelled_scene(tmp_path, "mixed", ground, cloudy),
        )
    )
    make = BlockReader.make

    def poisoned(self: BlockReader, *arguments: Any) -> Any:
        image, labels = make(self, *arguments)
        return image * np.float32(nan), labels

    monkeypatch.setattr(BlockReader, "make", poisoned)
    for mixture, words in (
        (Mixture(pasted=1.0), "on tiles of clear, mixed; look at them"),
        (Mixture(composed=1.0), "on tiles of clear; look at them"),
        (Mixture(simulated=1.0), "on simulated tiles; lower --learning-rate"),
    ):
        config = tiny_config(**QUICK, keep=LAST, mixture=mixture)
        with pytest.raises(TrainingError, match="is no number in epoch 1, step 1") as caught:
            train_all(dataset, tmp_path / "run", config)
        assert words in str(caught.value)
        shutil.rmtree(tmp_path / "run")


def test_without_validation_weights_that_are_no_numbers_are_not_kept(
    dataset: DataSet, tmp_path: Path
) -> None:
    # A step whose weight decay is beyond any number, after a loss that is one.
    config = tiny_config(
        **QUICK, batch=16, learning_rate=1e20, weight_decay=1e30, warmup_share=0.0, keep=LAST
    )
    with pytest.raises(TrainingError, match="lower --learning-rate"):
        train_all(dataset, tmp_path / "run", config)
    assert not (tmp_path / "run" / "last.keras").exists()
    assert not (tmp_path / "run" / "model.keras").exists()


def test_weights_that_run_away_are_not_kept(dataset: DataSet, tmp_path: Path) -> None:
    # One step an epoch: its loss is a number still, and the weights after it are none.
    config = tiny_config(**QUICK, batch=16, learning_rate=1e36, warmup_share=0.0)
    with pytest.raises(TrainingError, match="lower --learning-rate"):
        train(dataset, tmp_path / "run", config)
    assert not (tmp_path / "run" / "last.keras").exists()
    assert not (tmp_path / "run" / "model.keras").exists()


@pytest.mark.parametrize("side", ["train", "validation"])
def test_a_scene_that_cannot_be_read_any_more_is_named(
    tmp_path: Path, side: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    dataset = open_dataset([make_dataset(tmp_path / "data", scenes=4, size=(32, 32))])
    split = split_once(dataset.scenes, list(scene_facts(dataset.scenes).values()), 0)
    path = getattr(split, side)[0].scene_path
    content = path.read_bytes()
    seen = scene_facts(dataset.scenes)
    # The scenes were looked at while they were whole.
    monkeypatch.setattr("cloudnet.train.scene_facts", lambda _: seen)

    def cut_short(_: Progress) -> None:
        path.write_bytes(content[:300])

    if side == "train":
        path.write_bytes(content[:300])
    # A validation scene is whole until the probe's tiles are cut out of it.
    with pytest.raises(SceneError) as caught:
        train(dataset, tmp_path / "run", tiny_config(**QUICK), on_progress=cut_short)
    assert str(path) in str(caught.value) and "\n" not in str(caught.value)


def test_a_data_set_of_one_place_is_refused(dataset: DataSet, tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match="1 place"):
        train(DataSet(dataset.scenes[:2]), tmp_path / "run", tiny_config())
    assert not (tmp_path / "run").exists()


def test_scenes_whose_labels_have_no_trust_are_refused(dataset: DataSet, tmp_path: Path) -> None:
    untrusted = tuple((labels, 0.0) for labels in {scene.labels for scene in dataset.scenes})
    settings = tiny_config(mixture=Mixture(simulated=0.5, trust=untrusted))
    with pytest.raises(ModelError, match="train without --recipe"):
        train(dataset, tmp_path / "run", settings)
    assert not (tmp_path / "run").exists()


def test_settings_are_json(tmp_path: Path) -> None:
    mixture = Mixture(simulated=0.5, trust=(("human", 2.0),))
    settings = tiny_config(deterministic=True, mixture=mixture).to_dict()
    assert json.loads(json.dumps(settings)) == settings
