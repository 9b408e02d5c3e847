"""Each scene is scored by the net that did not see its place, or the folds are refused."""

from __future__ import annotations

import csv
import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner

from cloudnet.commands import main
from cloudnet.confusion import Confusion
from cloudnet.dataset import open_dataset
from cloudnet.errors import CloudnetError, DatasetError, RunError
from cloudnet.evaluate import evaluate
from cloudnet.folds import FoldMasks, assign, keras_model, read_folds
from tests.helpers import make_dataset, tiny_config

PLACES = {"s0": "p0", "s1": "p0", "s2": "p1", "s3": "p2"}
KEPT = (("s0", "s1"), ("s2",), ("s3",))


def write_fold(run: Path, validation: tuple[str, ...], places: dict[str, str] = PLACES) -> None:
    """Write what `read_folds` reads of a finished fold; its net is no net."""
    run.mkdir(parents=True)
    with (run / "split.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(("scene", "side", "group", "labels", "cloud_share", "path"))
        for name, place in places.items():
            side = "validation" if name in validation else "train"
            writer.writerow((name, side, place, "human", "0.5", f"scenes/{name}.tif"))
    (run / "config.json").write_text(json.dumps({"training": {"epochs": 9, "patience": 2}}))
    write_history(run, [0.5, 0.4, 0.3])
    (run / "model.keras").write_bytes(b"")


def write_history(run: Path, scores: list[float]) -> None:
    rows = [f"{n},1,1,1,{score},0.1,1" for n, score in enumerate(scores, start=1)]
    header = "epoch,loss,iou,val_loss,val_iou,learning_rate,seconds"
    (run / "history.csv").write_text("\n".join([header, *rows]) + "\n")


@pytest.fixture
def runs(tmp_path: Path) -> Path:
    for number, validation in enumerate(KEPT, start=1):
        write_fold(tmp_path / "runs" / f"fold{number}", validation)
    (tmp_path / "runs" / "fold1.bak").mkdir()
    return tmp_path / "runs"


def test_folds_are_read_with_their_sides(runs: Path) -> None:
    folds = read_folds(runs)
    assert [fold.number for fold in folds] == [1, 2, 3]
    assert [tuple(fold.validation) for fold in folds] == list(KEPT)
    assert folds[1].train == {"s0": "p0", "s1": "p0", "s3": "p2"}


def test_ten_folds_are_read_in_their_order(tmp_path: Path) -> None:
    places = {f"s{n}": f"p{n}" for n in range(1, 12)}
    for number in range(1, 12):
        write_fold(tmp_path / f"fold{number}", (f"s{number}",), places)
    assert [fold.number for fold in read_folds(tmp_path)] == list(range(1, 12))


def unfinished(runs: Path) -> None:
    write_history(runs / "fold2", [0.5, 0.4])


def stale_and_kept(runs: Path) -> None:
    training = {"epochs": 9, "patience": 2, "keep": "last"}
    (runs / "fold2" / "config.json").write_text(json.dumps({"training": training}))


def not_begun(runs: Path) -> None:
    (runs / "fold2" / "history.csv").unlink()


def no_net(runs: Path) -> None:
    (runs / "fold2" / "model.keras").unlink()


def first_lost(runs: Path) -> None:
    shutil.rmtree(runs / "fold1")


def last_lost(runs: Path) -> None:
    shutil.rmtree(runs / "fold3")


def no_split(runs: Path) -> None:
    (runs / "fold2" / "split.csv").unlink()


def split_cut_short(runs: Path) -> None:
    (runs / "fold2" / "split.csv").write_text("scene,side\ns0,train\n")


def other_side(runs: Path) -> None:
    path = runs / "fold2" / "split.csv"
    path.write_text(path.read_text().replace("validation", "test"))


def of_another_split(runs: Path) -> None:
    shutil.rmtree(runs / "fold2")
    write_fold(runs / "fold2", ("s2", "s3"))


def place_on_both_sides(runs: Path) -> None:
    shutil.rmtree(runs / "fold2")
    write_fold(runs / "fold2", ("s2",), {**PLACES, "s3": "p1"})


def config_damaged(runs: Path) -> None:
    (runs / "fold2" / "config.json").write_text('{"training": {"epochs": "many"}}')


@pytest.mark.parametrize(
    ("harm", "sentence"),
    [
        (shutil.rmtree, "holds no fold1; make folds with"),
        (unfinished, "fold2 is not trained to its end; go on with .*--resume"),
        (stale_and_kept, "fold2 is not trained to its end"),
        (not_begun, "fold2 is not trained to its end"),
        (no_net, "fold2 is not trained to its end"),
        (first_lost, "fold1 is missing"),
        (last_lost, "lacks the fold that s3 was kept for"),
        (no_split, "fold2.split.csv is missing"),
        (split_cut_short, "split.csv is damaged"),
        (other_side, "split.csv is damaged"),
        (of_another_split, "s3 is on the validation sides of fold2 and fold3"),
        (place_on_both_sides, "has the place p1 on both sides"),
        (config_damaged, "config.json is damaged"),
    ],
)
def test_folds_that_prove_nothing_are_refused(runs: Path, harm: Any, sentence: str) -> None:
    harm(runs)
    with pytest.raises(RunError, match=sentence):
        read_folds(runs)


@pytest.fixture
def data(tmp_path: Path) -> Path:
    return make_dataset(tmp_path / "data", scenes=2)


def test_other_data_are_refused(runs: Path, data: Path) -> None:
    with pytest.raises(DatasetError, match=r"scene00\.tif is on no validation side in .*runs;"):
        assign(open_dataset([data]).scenes, read_folds(runs))


def test_a_scene_of_another_place_is_refused(tmp_path: Path, data: Path) -> None:
    for number, name in enumerate(("scene00", "scene01"), start=1):
        places = {"scene00": "place00", "scene01": "place07"}
        write_fold(tmp_path / "runs" / f"fold{number}", (name,), places)
    with pytest.raises(DatasetError, match=r"scene01\.tif is of place place00, .* of place07"):
        assign(open_dataset([data]).scenes, read_folds(tmp_path / "runs"))


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A data set whose scenes fit no stride, and three folds of it; not to be changed.

    Their nets are of random weights: what folds make of nets does not depend on what these learnt,
    and how folds are trained, `test_train` and the README's commands show.
    """
    pytest.importorskip("tensorflow", reason="the train extra is not installed")
    import keras

    from cloudnet.model import build_unet, make_spec

    folder = tmp_path_factory.mktemp("folds")
    data = make_dataset(folder / "data", size=(45, 71))
    places = {scene.name: scene.group for scene in open_dataset([data]).scenes}
    config = tiny_config().net
    for number, place in enumerate(sorted(set(places.values())), start=1):
        run = folder / "runs" / f"fold{number}"
        write_fold(run, tuple(name for name in places if places[name] == place), places)
        keras.utils.set_random_seed(number)
        build_unet(config, make_spec(config)).save(run / "model.keras")
    return data, folder / "runs"


def test_each_scene_is_scored_by_the_net_that_it_was_kept_from(trained: tuple[Path, Path]) -> None:
    data, runs = open_dataset([trained[0]]), trained[1]
    from cloudnet.model import load_net

    folds = read_folds(runs)
    evaluation = evaluate(data, FoldMasks(data, runs))
    assert evaluation.threshold == 0.5
    nets = {fold.number: load_net(fold.run.model) for fold in folds}
    for scene, score in zip(data.scenes, evaluation.scenes, strict=True):
        (fold,) = (fold for fold in folds if scene.name in fold.validation)
        assert score.fold == fold.number
        with scene.open() as opened:
            reflectance, valid = opened.read()
        whole = np.pad(reflectance, ((0, 3), (0, 1), (0, 0)), mode="symmetric")
        answer = np.asarray(nets[fold.number](whole[np.newaxis]))[0, :45, :71, 0]
        found = np.where(valid, answer >= 0.5, 255).astype(np.uint8)
        assert score.confusion == Confusion.of(scene.read_mask(), found)
    assert len({score.fold for score in evaluation.scenes}) == 3


def test_keras_streams_a_scene_as_the_runtime_does(trained: tuple[Path, Path]) -> None:
    model = keras_model(trained[1] / "fold1" / "model.keras")
    rng = np.random.default_rng(0)
    reflectance = rng.random((75, 90, 4), dtype=np.float32)
    whole, tiled = (model.predict(reflectance, tile_px=px) for px in (96, 48))
    np.testing.assert_allclose(tiled, whole, atol=1e-5)


def command(trained: tuple[Path, Path], *options: str | Path) -> Any:
    words = ["evaluate", trained[0], "--folds", trained[1], *options]
    return CliRunner().invoke(main, [*map(str, words)], catch_exceptions=False)


def test_evaluate_folds_at_a_fitted_threshold(trained: tuple[Path, Path], tmp_path: Path) -> None:
    outputs = ["--csv", tmp_path / "scores.csv", "--worst", tmp_path / "worst.png"]
    more = ["--fit-threshold", "human", "--by", "ground", "--intervals"]
    result = command(trained, "--json", *more, *outputs)
    assert (result.exit_code, result.stderr) == (0, "")
    content = json.loads(result.stdout)
    assert content["threshold"] is None
    assert content["fit"]["labels"] == "human"
    assert set(content["fit"]["by_fold"]) == {"1", "2", "3"}
    assert [part["scenes"] for part in content["by_labels"].values()] == [3, 3]
    assert {(part["ground"], part["labels"]) for part in content["by_ground"]} == {
        ("vegetation", "human"),
        ("vegetation", "teacher"),
    }
    assert content["intervals"]["by_labels"]["human"]["places"] == 3
    low, high = content["intervals"]["pooled"]["recall"]
    assert low <= content["pooled"]["recall"] <= high
    bins = content["reliability"]["pooled"]["bins"]
    assert sum(part["pixels"] for part in bins) == sum(
        content["pooled"][key] for key in ("tp", "fp", "fn", "tn")
    )
    rows = list(csv.DictReader((tmp_path / "scores.csv").read_text().splitlines()))
    scenes = [row for row in rows if row["level"] == "scene"]
    assert {row["fold"] for row in scenes} == {"1", "2", "3"}
    assert {row["ground"] for row in scenes} == {"vegetation"}
    # At the fitted threshold of each fold, and not at the nets' own.
    data = open_dataset([trained[0]])
    for entry in content["per_scene"]:
        threshold = content["fit"]["by_fold"][str(entry["fold"])]
        at = evaluate(data, FoldMasks(data, trained[1], threshold))
        (score,) = (score for score in at.scenes if score.name == entry["name"])
        counts = Confusion(*(entry[key] for key in ("tp", "fp", "fn", "tn")))
        assert counts == score.confusion
    assert (tmp_path / "worst.png").stat().st_size > 1000


def test_the_tables_of_folds(trained: tuple[Path, Path]) -> None:
    text = command(trained, "--reliability", "--intervals", "--fit-threshold", "human").stdout
    assert "3 folds in" in text
    assert "threshold of each fold fitted to human labels of the others:" in text
    assert "human: pixels" in text and "calibration error" in text
    assert "1,000 resamples of the places" in text


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        (["--folds", "runs", "-m", "a.onnx"], "give one of --model, --predictions and --folds"),
        (["-m", "a.onnx", "--fit-threshold", "human"], "--fit-threshold goes with --folds"),
        (
            ["--folds", "runs", "--fit-threshold", "human", "--threshold", "0.4"],
            "give either --threshold or --fit-threshold",
        ),
        (["--predictions", "out", "--reliability"], "--predictions have no probability"),
    ],
)
def test_options_that_do_not_go_together(options: list[str], sentence: str) -> None:
    result = CliRunner().invoke(main, ["evaluate", "data", *options])
    assert result.exit_code == 2
    assert sentence in result.stderr


def test_thresholds_that_differ_are_asked_for(
    trained: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    from cloudnet import model

    read = model.read_keras_spec

    def other(path: Path) -> Any:
        return read(path).with_threshold(0.4 if path.parent.name == "fold2" else 0.5)

    monkeypatch.setattr(model, "read_keras_spec", other)
    data = open_dataset([trained[0]])
    with pytest.raises(CloudnetError, match=r"thresholds 0\.4, 0\.5; give one with --threshold"):
        FoldMasks(data, trained[1])
    assert FoldMasks(data, trained[1], 0.3).threshold == 0.3
