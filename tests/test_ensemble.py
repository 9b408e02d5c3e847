"""What an ensemble adds to a batch, by numbers, and how its members are trained."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("tensorflow", reason="the train extra is not installed")

import tensorflow as tf
from tensorflow.python.framework.config import disable_op_determinism

from cloudnet.dataset import DataSet, open_dataset
from cloudnet.ensemble import soft_targets
from cloudnet.errors import ModelError, RunError
from cloudnet.model import UNetConfig, build_unet, load_net, make_spec
from cloudnet.run import Run
from cloudnet.split import split_once
from cloudnet.train import (
    Progress,
    TrainConfig,
    scene_facts,
    train,
    train_folds,
    train_split,
)
from tests.helpers import tiny_config

NET = UNetConfig((4,), blocks=1, stem=0)
TAUGHT = {"net": NET, "epoch_tiles": 16, "ensemble": 2, "deterministic": True}


@pytest.fixture(scope="module")
def dataset(geotiff_dataset: Path) -> DataSet:
    return open_dataset([geotiff_dataset])


@pytest.fixture(scope="module")
def members(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Two nets that differ."""
    folder = tmp_path_factory.mktemp("nets")
    for name in ("one", "other"):
        spec = make_spec(NET, name=name, version="0", threshold=0.5)
        build_unet(NET, spec).save(folder / f"{name}.keras")
    return [folder / "one.keras", folder / "other.keras"]


@pytest.fixture(scope="module")
def taught_run(dataset: DataSet, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Run]:
    """A run of two epochs after two members; not to be changed."""
    yield train(dataset, tmp_path_factory.mktemp("runs") / "run", tiny_config(**TAUGHT))
    disable_op_determinism()


def test_a_soft_label_is_the_members_geometric_mean_beside_the_label(members: list[Path]) -> None:
    rng = np.random.default_rng(3)
    image = rng.uniform(0, 1, (2, 32, 32, 4)).astype(np.float32)
    target = rng.integers(0, 2, (2, 32, 32, 2)).astype(np.float32)
    one, other = (load_net(path).predict(image, verbose=0)[..., 0] for path in members)
    assert np.abs(one - other).max() > 0.01
    odds = np.sqrt(one / (1 - one) * other / (1 - other))
    data = tf.data.Dataset.from_tensors((image, target))
    for share in (0.25, 1.0):
        ((same, softened),) = data.map(soft_targets(members, share)).as_numpy_iterator()
        np.testing.assert_array_equal(same, image)
        np.testing.assert_array_equal(softened[..., :2], target)
        wanted = (1 - share) * target[..., 0] + share * odds / (1 + odds)
        np.testing.assert_allclose(softened[..., 2], wanted, atol=1e-5)


def test_a_file_that_is_no_net_is_refused(members: list[Path], tmp_path: Path) -> None:
    (tmp_path / "net.keras").write_bytes(b"no net")
    with pytest.raises(ModelError, match=r"net\.keras"):
        soft_targets([members[0], tmp_path / "net.keras"], 0.5)


def test_members_are_trained_first_with_seeds_of_their_own(
    taught_run: Run, dataset: DataSet
) -> None:
    runs = [taught_run, *taught_run.members(2)]
    assert [run.read_config()["training"]["seed"] for run in runs] == [0, 0, 1]
    assert [run.read_config()["training"]["ensemble"] for run in runs] == [2, 0, 0]
    assert len({run.split_file.read_text("utf-8") for run in runs}) == 1
    assert all(len(run.read_history()) == 2 for run in runs)
    weights = [load_net(run.model).get_weights()[0] for run in runs]
    assert (weights[1] != weights[2]).any()


def test_an_ensemble_changes_what_a_net_learns(
    taught_run: Run, dataset: DataSet, tmp_path: Path
) -> None:
    facts = scene_facts(dataset.scenes)
    split = split_once(dataset.scenes, list(facts.values()), 0)
    # The net of the run begins with the same weights and sees the same tiles.
    config = tiny_config(**{**TAUGHT, "ensemble": 0}, seed=tiny_config(**TAUGHT).seeds[-1])
    alone = train_split(split, facts, tmp_path / "run", config)
    assert not list(alone.folder.glob("member*"))
    losses = [run.read_history()[0]["loss"] for run in (alone, taught_run)]
    assert abs(losses[0] - losses[1]) > 1e-3


def test_runs_of_other_seeds_have_nets_of_other_seeds() -> None:
    drawn = [seed for number in range(3) for seed in TrainConfig(seed=number, ensemble=2).seeds]
    assert len(set(drawn)) == 9
    assert TrainConfig(seed=7).seeds == (7,)
    assert max(TrainConfig(seed=2**32 - 1, ensemble=2).seeds) < 2**32


@pytest.mark.parametrize(("member", "epoch"), [(1, 1), (2, 1), (2, 2), (0, 1)])
def test_a_run_that_was_stopped_goes_on_with_the_member_or_net_it_was_at(
    taught_run: Run, dataset: DataSet, tmp_path: Path, member: int, epoch: int
) -> None:
    def stop(progress: Progress) -> None:
        if progress.epoch_ended and (progress.member, progress.epoch) == (member, epoch):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train(dataset, tmp_path / "run", tiny_config(**TAUGHT), on_progress=stop)
    told: list[tuple[int, int]] = []

    def note(progress: Progress) -> None:
        assert progress.members == (2 if progress.member else 0)
        if progress.epoch_ended:
            told.append((progress.member, progress.epoch))

    run = train(dataset, tmp_path / "run", tiny_config(**TAUGHT), resume=True, on_progress=note)
    weights = [load_net(one.last).get_weights() for one in (run, taught_run)]
    for now, wanted in zip(*weights, strict=True):
        np.testing.assert_array_equal(now, wanted)
    every = [(1, 1), (1, 2), (2, 1), (2, 2), (0, 1), (0, 2)]
    assert told == every[every.index((member, epoch)) + 1 :]


def test_a_finished_run_needs_its_members_no_more(
    taught_run: Run, dataset: DataSet, tmp_path: Path
) -> None:
    run = Run(shutil.copytree(taught_run.folder, tmp_path / "run"))
    for member in run.members(2):
        shutil.rmtree(member.folder)
    told: list[Progress] = []
    train(dataset, run.folder, tiny_config(**TAUGHT), resume=True, on_progress=told.append)
    assert told == []
    assert not run.members(1)[0].folder.exists()
    longer = tiny_config(**TAUGHT, epochs=3, patience=9)
    with pytest.raises(ModelError, match=r"member1"):
        train(dataset, run.folder, longer, resume=True)


def test_a_run_that_is_older_than_ensembles_goes_on(
    dataset: DataSet, tiny_run: Path, tmp_path: Path
) -> None:
    run = Run(shutil.copytree(tiny_run, tmp_path / "run"))
    config = run.read_config()
    for key in ("ensemble", "ensemble_share"):
        del config["training"][key]
    run.write_config(config)
    with pytest.raises(RunError, match="was begun with ensemble 0, not 1"):
        train(dataset, run.folder, tiny_config(ensemble=1), resume=True)
    train(dataset, run.folder, tiny_config(), resume=True)
    assert run.read_config()["training"]["ensemble"] == 0


def test_a_member_in_the_way_is_found_before_anything_is_written(
    taught_run: Run, dataset: DataSet, tmp_path: Path
) -> None:
    shutil.copytree(taught_run.members(2)[1].folder, tmp_path / "run" / "member2")
    with pytest.raises(RunError, match="member2 holds a run"):
        train(dataset, tmp_path / "run", tiny_config(**TAUGHT))
    assert [path.name for path in (tmp_path / "run").iterdir()] == ["member2"]


def test_each_fold_has_members_that_saw_its_places_alone(dataset: DataSet, tmp_path: Path) -> None:
    config = tiny_config(**{**TAUGHT, "ensemble": 1}, epochs=1)
    for run in train_folds(dataset, tmp_path / "folds", config, 2):
        (member,) = run.members(1)
        assert member.split_file.read_bytes() == run.split_file.read_bytes()


@pytest.mark.parametrize(
    "wrong", [{"ensemble": -1}, {"ensemble_share": 0.0}, {"ensemble_share": 1.1}]
)
def test_ensembles_that_cannot_be_are_refused(wrong: dict[str, float]) -> None:
    with pytest.raises(ModelError, match="an ensemble has"):
        TrainConfig(**wrong)
