"""The command line: its help, and the main path of each command."""

from __future__ import annotations

import csv
import io
import json
import re
import shutil
import subprocess
import sys
from dataclasses import replace
from math import nan
from pathlib import Path
from typing import Any

import click
import numpy as np
import pytest
import rasterio
from click.testing import CliRunner, Result
from numpy.typing import NDArray

from cloudnet._version import __version__
from cloudnet.commands import main
from cloudnet.commands.options import count_bar, share_bar
from cloudnet.commands.train import ProgressBar, _describe_result
from cloudnet.compare import DEFAULT_ATOL, Comparison, replay_probe
from cloudnet.run import Run
from cloudnet.runtime import FACTS_KEY, load_model
from cloudnet.scene import open_scene
from cloudnet.session import PROVIDERS
from tests.helpers import lopsided_scene, make_dataset, write_scene_npy, write_scene_tif
from tests.test_compare import tampered

ROOT = Path(__file__).parents[1]
COMMANDS = list(main.commands.items())
OPTIONS = [
    pytest.param(option, id=f"{name} {option.name}")
    for name, command in COMMANDS
    for option in command.params
    if isinstance(option, click.Option)
]


def invoke(*arguments: str | Path) -> Result:
    """Run a command in this process; its exceptions, exits aside, are this test's."""
    return CliRunner().invoke(main, [*map(str, arguments)], catch_exceptions=False)


def run(*arguments: str | Path, cwd: Path) -> subprocess.CompletedProcess[str]:
    """Run a command as a user does, from another folder."""
    command = [sys.executable, str(ROOT / "cli.py"), *map(str, arguments)]
    return subprocess.run(
        command, capture_output=True, text=True, cwd=cwd, timeout=120, check=False
    )


def read_layer(path: Path) -> NDArray[np.uint8]:
    with rasterio.open(path) as file:
        return np.asarray(file.read(1))


def shown(output: str) -> dict[str, str]:
    """Return the lines of `info` by name."""
    return dict(re.split(r"  +", line, maxsplit=1) for line in output.splitlines())


@pytest.mark.parametrize(("name", "command"), COMMANDS)
def test_every_command_says_what_it_does(name: str, command: click.Command) -> None:
    assert command.help and command.help.split()[0].istitle()
    short = command.get_short_help_str(limit=60)
    assert short.endswith(".") and not short.endswith("...")
    result = invoke(name, "--help")
    assert (result.exit_code, result.stderr) == (0, "")
    assert f"main {name} " in result.stdout


@pytest.mark.parametrize("option", OPTIONS)
def test_every_option_says_what_it_does(option: click.Option) -> None:
    assert option.help and option.help.endswith(".")


@pytest.mark.parametrize("option", OPTIONS)
def test_every_default_that_matters_is_shown(option: click.Option) -> None:
    has_default = isinstance(option.default, (str, int, float, Path))
    assert option.is_flag or option.show_default or not has_default


@pytest.mark.parametrize("name", ["predict", "bench"])
def test_the_providers_are_those_of_the_library(name: str) -> None:
    (option,) = (option for option in main.commands[name].params if option.name == "provider")
    assert isinstance(option.type, click.Choice)
    assert list(option.type.choices) == list(PROVIDERS)


def test_defaults_are_those_of_the_library() -> None:
    defaults = {
        f"{name} {option.name}": option.default
        for name, command in COMMANDS
        for option in command.params
    }
    assert {defaults[f"{name} atol"] for name in ("predict", "compare", "evaluate", "export")} == {
        DEFAULT_ATOL
    }


def test_help_and_version() -> None:
    for flag in ("-h", "--help"):
        assert "predict" in invoke(flag).stdout
    assert invoke("--version").stdout == f"cloudnet, version {__version__}\n"
    nothing = CliRunner().invoke(main, [])
    assert "Commands:" in nothing.output


def test_an_unknown_command_is_a_wrong_use() -> None:
    result = invoke("predcit")
    assert result.exit_code == 2
    assert "No such command 'predcit'" in result.stderr


def test_predict_compare_and_evaluate_as_processes(
    tiny_onnx: Path, geotiff_dataset: Path, tmp_path: Path
) -> None:
    scenes = sorted((geotiff_dataset / "scenes").glob("*.tif"))
    predicted = run("predict", *scenes, "-m", tiny_onnx, "-o", "out", cwd=tmp_path)
    assert (predicted.returncode, predicted.stderr) == (0, "")
    assert predicted.stdout.splitlines()[0].startswith("compared with probe")
    assert len(list((tmp_path / "out").iterdir())) == 3 * len(scenes) + 1
    compared = run("compare", tiny_onnx, cwd=tmp_path)
    assert (compared.returncode, compared.stderr) == (0, "")
    scored = {}
    for by in (["-m", tiny_onnx], ["--predictions", "out"]):
        evaluated = run("evaluate", geotiff_dataset, *by, "--json", cwd=tmp_path)
        assert (evaluated.returncode, evaluated.stderr) == (0, "")
        scored[by[0]] = json.loads(evaluated.stdout)
    for level in ("pooled", "by_labels", "per_scene"):
        assert scored["-m"][level] == scored["--predictions"][level]
    assert scored["-m"]["pooled"]["tp"] > 0


def test_a_failed_check_is_exit_code_1_of_the_process(tiny_onnx: Path, tmp_path: Path) -> None:
    bad = tampered(tiny_onnx, tmp_path / "bad.onnx", weights=lambda array: array * 1.1)
    result = run("compare", bad, cwd=tmp_path)
    assert result.returncode == 1
    assert result.stderr.startswith(f"Error: {bad} does not say what Keras says")


def test_predict_takes_bands_and_units_from_the_options(tiny_onnx: Path, tmp_path: Path) -> None:
    values = lopsided_scene(40, 50)
    numbers = np.rint(values * 5000 + 500).astype(np.uint16)[..., ::-1]
    told = write_scene_tif(tmp_path / "told.tif", values)
    bare = write_scene_tif(tmp_path / "bare.tif", numbers, scale=None, descriptions=None)
    settings = ["--bands", "4,3,2,1", "--scale", "0.0002", "--offset", "-0.1"]
    assert invoke("predict", told, "-m", tiny_onnx, "-o", tmp_path).exit_code == 0
    result = invoke("predict", bare, "-m", tiny_onnx, "-o", tmp_path, *settings)
    assert result.exit_code == 0, result.stderr
    masks = [read_layer(tmp_path / f"{name}_cloudmask.tif") for name in ("told", "bare")]
    assert np.mean(masks[0] != masks[1]) < 0.01
    nodata = int(numbers[7, 9, 3])
    other = invoke(
        "predict", bare, "-m", tiny_onnx, "-o", tmp_path, *settings, "--overwrite",
        "--nodata", str(nodata),
    )  # fmt: skip
    assert other.exit_code == 0, other.stderr
    assert read_layer(tmp_path / "bare_cloudmask.tif")[7, 9] == 255


def test_predict_reports_a_scene_without_data(tiny_onnx: Path, tmp_path: Path) -> None:
    path = write_scene_npy(tmp_path / "void.npy", np.zeros((5, 6, 4), dtype=np.float32))
    result = invoke("predict", path, "-m", tiny_onnx, "-o", tmp_path)
    assert result.exit_code == 0
    mask = tmp_path / "void_cloudmask.tif"
    assert result.stdout.splitlines()[-1] == f"{mask}: no pixel with data"


def test_predict_options_reach_the_products(
    tiny_onnx: Path, geotiff_dataset: Path, tmp_path: Path
) -> None:
    scene = geotiff_dataset / "scenes" / "scene00.tif"
    shares = []
    for threshold in ("0.001", "0.5", "0.999"):
        result = invoke(
            "predict", scene, "-m", tiny_onnx, "-o", tmp_path, "--threshold", threshold,
            "--overwrite", "--no-quicklook", "--probability", "--exact", "--tile-px", "1",
        )  # fmt: skip
        assert result.exit_code == 0, result.stderr
        summary = json.loads((tmp_path / "scene00_cloudmask.json").read_text())
        assert summary["threshold"] == float(threshold)
        shares.append(summary["cloud_share"])
    assert shares[0] > shares[1] > shares[2]
    assert not list(tmp_path.glob("*.png"))


@pytest.mark.parametrize("layout", ["geotiff_dataset", "catalogue_dataset"])
def test_inspect_lists_scenes_places_and_shares(
    layout: str, request: pytest.FixtureRequest
) -> None:
    folder = request.getfixturevalue(layout)
    result = invoke("inspect", folder)
    assert (result.exit_code, result.stderr) == (0, "")
    names = sorted(path.stem for path in (folder / "masks").iterdir())
    assert [line.split()[0] for line in result.stdout.splitlines()[2:8]] == names
    assert "48 x 72 (6)" in result.stdout
    totals = invoke("inspect", folder, "--totals")
    assert totals.exit_code == 0
    assert not any(name in totals.stdout for name in names)
    assert totals.stdout in result.stdout


@pytest.mark.parametrize(
    "options",
    [
        ("predict", "scene.tif", "--threshold"),
        ("predict", "scene.tif", "--buffer-m"),
        ("predict", "scene.tif", "--min-area-m2"),
        ("export", "run", "-o", "net.onnx", "--max-mb"),
        ("compare", "net.onnx", "--atol"),
        ("quantise", "net.onnx", "data", "-o", "int8.onnx", "--min-iou"),
    ],
    ids=lambda options: options[-1],
)
@pytest.mark.parametrize("value", ["nan", "inf"])
def test_a_number_that_is_none_is_refused(options: tuple[str, ...], value: str) -> None:
    result = invoke(*options, value)
    assert (result.exit_code, result.stdout) == (2, "")
    assert "is no finite number" in result.stderr or "is not in the range" in result.stderr


def test_inspect_draws_a_sheet(geotiff_dataset: Path, tmp_path: Path) -> None:
    pytest.importorskip("matplotlib", reason="sheets need the train extra")
    path = tmp_path / "sheet.png"
    result = invoke("inspect", geotiff_dataset, "--sheet", path)
    assert (result.exit_code, result.stderr) == (0, "")
    assert result.stdout.splitlines()[-1] == f"contact sheet: {path}"
    drawn = path.read_bytes()
    assert drawn.startswith(b"\x89PNG")
    path.write_bytes(b"mine")
    again = invoke("inspect", geotiff_dataset, "--sheet", path)
    assert (again.exit_code, again.stdout) == (2, "")
    assert "sheet.png exists; give --overwrite to replace it" in again.stderr
    assert path.read_bytes() == b"mine"
    assert invoke("inspect", geotiff_dataset, "--sheet", path, "--overwrite").exit_code == 0
    assert path.read_bytes() == drawn


def test_inspect_refuses_a_sheet_that_is_no_png_before_it_reads(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib", reason="sheets need the train extra")
    result = invoke("inspect", make_dataset(tmp_path), "--sheet", tmp_path / "sheet.jpg")
    assert (result.exit_code, result.stdout) == (2, "")
    assert "sheet.jpg: a contact sheet is a PNG" in result.stderr


def test_inspect_exits_with_1_where_there_are_problems(tmp_path: Path) -> None:
    folder = make_dataset(tmp_path / "data", scenes=3)
    (folder / "masks" / "scene01.tif").unlink()
    result = invoke("inspect", folder)
    assert result.exit_code == 1
    assert "1 problem:" in result.stdout
    assert "scene01.tif has no mask" in result.stdout
    assert "scene02" in result.stdout


def test_info_on_a_scene(tmp_path: Path) -> None:
    values = lopsided_scene(30, 40)
    values[:3] = 0.0
    path = write_scene_tif(
        tmp_path / "scene.tif", values, offset=-0.1, descriptions=("nir", "B02", "green", "Red")
    )
    with open_scene(path) as scene:
        _, valid = scene.read()
    result = invoke("info", path)
    assert (result.exit_code, result.stderr) == (0, "")
    assert shown(result.stdout) == {
        "scene": f"scene ({path})",
        "size": "30 x 40 pixels",
        "numbers": "uint16",
        "red, green, blue, NIR": "Red, green, B02, nir",
        "scale": "0.0001, 0.0001, 0.0001, 0.0001",
        "offset": "-0.1, -0.1, -0.1, -0.1",
        "pixel": "10.00 m",
        "upper left corner": "399960, 5300040",
        "CRS": "EPSG:32633",
        "without data": f"{1 - valid.mean():.2%}",
    }


def test_info_on_an_array_counts_what_is_missing_over_all_of_it(tmp_path: Path) -> None:
    values = lopsided_scene(1100, 40)
    values[1030:, 3] = values[:20, 5] = np.nan
    result = invoke("info", write_scene_npy(tmp_path / "scene.npy", values))
    rows = shown(result.stdout)
    assert rows["without data"] == f"{90 / 44000:.2%}"
    assert (rows["pixel"], rows["CRS"], rows["numbers"]) == ("unknown", "none", "float32")


def test_info_on_a_model_and_its_run(tiny_onnx: Path, tiny_run: Path) -> None:
    model = load_model(tiny_onnx)
    facts = json.loads(model.metadata[FACTS_KEY])
    of_onnx, of_run, of_keras = (
        shown(invoke("info", path).stdout)
        for path in (tiny_onnx, tiny_run, tiny_run / "model.keras")
    )
    assert of_onnx["parameters"] == f"{facts['parameters']:,}"
    assert of_onnx["multiply-adds"] == f"{facts['macs_per_pixel']:,.0f} per pixel"
    assert of_onnx["receptive field"] == f"{facts['receptive_field_px']} px"
    assert of_onnx["file size"] == f"{tiny_onnx.stat().st_size / 1e6:.3f} MB"
    assert of_onnx["sha256"] == model.sha256
    assert of_onnx["spec: bands"] == "B04, B03, B02, B08"
    assert of_onnx["spec: halo_px"] == str(model.spec.halo_px)
    assert of_run == of_keras
    for name in ("parameters", "multiply-adds", "receptive field", "spec: stride"):
        assert of_run[name] == of_onnx[name]


def test_info_on_a_model_without_facts(tiny_onnx: Path, tmp_path: Path) -> None:
    bare = tampered(tiny_onnx, tmp_path / "bare.onnx", metadata={FACTS_KEY: None})
    assert "parameters" not in shown(invoke("info", bare).stdout)
    damaged = tampered(tiny_onnx, tmp_path / "damaged.onnx", metadata={FACTS_KEY: "[1, 2]"})
    result = invoke("info", damaged)
    assert (result.exit_code, result.stdout) == (2, "")
    assert result.stderr == f"Error: {damaged}: its {FACTS_KEY} are damaged; export it again\n"


def test_evaluate_prints_a_table(tiny_onnx: Path, geotiff_dataset: Path) -> None:
    result = invoke("evaluate", geotiff_dataset, "-m", tiny_onnx)
    assert (result.exit_code, result.stderr) == (0, "")
    first = result.stdout.splitlines()[0]
    assert str(tiny_onnx) in first and first.endswith("threshold 0.5")
    assert "scene00" not in result.stdout
    listed = invoke("evaluate", geotiff_dataset, "-m", tiny_onnx, "--scenes").stdout
    assert all(f"scene0{index}" in listed for index in range(6))


def test_evaluate_writes_the_scores_as_csv(
    tiny_onnx: Path, geotiff_dataset: Path, tmp_path: Path
) -> None:
    path = tmp_path / "scores.csv"
    arguments: list[str | Path] = ["evaluate", geotiff_dataset, "-m", tiny_onnx]
    result = invoke(*arguments, "--csv", path, "--json", "--threshold", "0.52")
    assert result.exit_code == 0, result.stderr
    scores: dict[str, Any] = json.loads(result.stdout)
    assert scores["threshold"] == 0.52
    rows = list(csv.DictReader(io.StringIO(path.read_text(encoding="utf-8"))))
    by_scene = {row["name"]: row for row in rows if row["level"] == "scene"}
    assert len(by_scene) == 6
    for entry in scores["per_scene"]:
        assert int(by_scene[entry["name"]]["tp"]) == entry["tp"]
    kept = path.read_text()
    again = invoke(*arguments, "--csv", path)
    assert again.exit_code == 2
    assert again.stderr == f"Error: {path} exists; give --overwrite to replace it\n"
    assert path.read_text() == kept
    assert invoke(*arguments, "--csv", path, "--overwrite").exit_code == 0
    assert path.read_text() != kept  # at another threshold


@pytest.mark.parametrize(
    "options",
    [
        ["-m", "a.onnx", "--predictions", "out"],
        ["--predictions", "out", "--threshold", "0.4"],
    ],
)
def test_evaluate_scores_either_a_model_or_masks(options: list[str], tmp_path: Path) -> None:
    result = invoke("evaluate", tmp_path, *options)
    assert result.exit_code == 2
    assert "--model" in result.stderr and "--predictions" in result.stderr


def test_evaluate_shows_every_option_under_a_title() -> None:
    text = invoke("evaluate", "--help").stdout
    options = [option for option in main.commands["evaluate"].params if option.name != "data"]
    for option in options:
        assert text.count(f"{option.opts[-1]} ") >= 1
    sections = re.split(r"^(\S.*):$", text, flags=re.MULTILINE)
    assert sections[1::2] == [
        "What is scored",
        "What is shown",
        "What is written",
        "How scenes are read",
        "Options",
    ]
    assert sections[-1].split() == ["-h,", "--help", "Show", "this", "message", "and", "exit."]


@pytest.mark.parametrize("scored", ["model", "masks"])
def test_evaluate_draws_the_worst(
    tiny_onnx: Path, geotiff_dataset: Path, tmp_path: Path, scored: str
) -> None:
    path = tmp_path / "worst.png"
    by: list[str | Path] = ["-m", tiny_onnx]
    if scored == "masks":
        by = ["--predictions", geotiff_dataset / "masks"]
    result = invoke("evaluate", geotiff_dataset, *by, "--worst", path)
    assert (result.exit_code, result.stderr) == (0, "")
    assert path.read_bytes().startswith(b"\x89PNG")
    again = invoke("evaluate", geotiff_dataset, *by, "--worst", path)
    assert (again.exit_code, again.stdout) == (2, "")
    assert again.stderr == f"Error: {path} exists; give --overwrite to replace it\n"
    named = invoke("evaluate", geotiff_dataset, *by, "--worst", tmp_path / "worst.jpg")
    assert (named.exit_code, named.stdout) == (2, "")
    assert "ends in .png" in named.stderr


def test_evaluate_shows_scores_that_cannot_be_written(tmp_path: Path) -> None:
    data = make_dataset(tmp_path / "data")
    (tmp_path / "file").touch()
    result = invoke(
        "evaluate", data, "--predictions", data / "masks", "--csv", tmp_path / "file" / "scores.csv"
    )
    assert result.exit_code == 2
    assert "scores.csv cannot be written" in result.stderr
    assert "precision" in result.stdout


def test_evaluate_writes_no_two_files_of_one_name(tmp_path: Path) -> None:
    files = ["--csv", tmp_path / "a.png", "--worst", tmp_path / "a.png"]
    result = invoke("evaluate", make_dataset(tmp_path / "data"), *files)
    assert result.exit_code == 2
    assert "--csv and --worst are one file" in result.stderr
    assert not (tmp_path / "a.png").exists()


def test_evaluate_leaves_out_what_is_bad_and_says_so(tiny_onnx: Path, tmp_path: Path) -> None:
    folder = make_dataset(tmp_path / "data", scenes=3)
    (folder / "masks" / "scene01.tif").unlink()
    result = invoke("evaluate", folder, "-m", tiny_onnx, "--skip-bad", "--json")
    assert result.exit_code == 0
    assert len(json.loads(result.stdout)["per_scene"]) == 2
    assert result.stderr.startswith("left out: ") and "scene01.tif" in result.stderr


def test_simulate_writes_a_data_set(tmp_path: Path) -> None:
    folder = tmp_path / "sim"
    arguments: list[str | Path] = ["simulate", folder, "--size-px", "24"]
    result = invoke(*arguments, "--scenes", "3", "--seed", "5")
    assert (result.exit_code, result.stdout) == (0, f"{folder}: 3 scenes\n")
    inspected = invoke("inspect", folder)
    assert inspected.exit_code == 0, inspected.stdout
    assert "24 x 24 (3)" in inspected.stdout
    again = invoke(*arguments, "--scenes", "1")
    assert again.exit_code == 2
    assert again.stderr.startswith(f"Error: {folder / 'scenes.csv'} exists; give --overwrite")
    assert "24 x 24 (3)" in invoke("inspect", folder).stdout
    one = invoke(*arguments, "--scenes", "1", "--overwrite")
    assert (one.exit_code, one.stdout) == (0, f"{folder}: 1 scene\n")
    assert "24 x 24 (1)" in invoke("inspect", folder).stdout
    other = invoke(*arguments, "--scenes", "2", "--layout", "catalogue", "--overwrite")
    assert other.exit_code == 0
    assert "24 x 24 (2)" in invoke("inspect", folder).stdout


def test_simulate_in_the_catalogues_layout(tmp_path: Path) -> None:
    result = invoke(
        "simulate", tmp_path / "sim", "--scenes", "1", "--size-px", "20", "--layout", "catalogue"
    )
    assert result.exit_code == 0
    (path,) = (tmp_path / "sim" / "subscenes").iterdir()
    assert np.load(path).shape == (20, 20, 13)


def test_train_passes_its_options_on_and_names_the_best_epoch(
    geotiff_dataset: Path, tiny_run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The README's test trains for real."""
    train = pytest.importorskip("cloudnet.train", reason="training needs the train extra")
    called: dict[str, Any] = {}

    def note(dataset: Any, folder: Path, config: Any, **settings: Any) -> Run:
        called.update(settings, dataset=dataset, folder=folder, config=config)
        return Run(tiny_run)

    def note_folds(dataset: Any, folder: Path, config: Any, folds: int, **more: Any) -> list[Run]:
        return [note(dataset, folder, config, folds=folds, **more)] * folds

    monkeypatch.setattr(train, "train", note)
    monkeypatch.setattr(train, "train_folds", note_folds)
    arguments: list[str | Path] = ["train", geotiff_dataset, "--out", tmp_path / "run"]
    result = invoke(*arguments)
    best = max(Run(tiny_run).read_history(), key=lambda row: row["val_iou"])
    line = (
        f"{tiny_run / 'model.keras'}: validation IoU {best['val_iou']:.3f} "
        f"after epoch {best['epoch']:.0f}\n"
    )
    assert (result.exit_code, result.stdout, result.stderr) == (0, line, "")
    assert called["config"] == train.TrainConfig()  # the defaults of command and library agree
    assert (called["folder"], called["resume"]) == (tmp_path / "run", False)
    assert len(called["dataset"].scenes) == 6
    result = invoke(
        *arguments, "--epochs", "7", "--batch", "3", "--tile-px", "64", "--epoch-tiles", "9",
        "--learning-rate", "0.01", "--patience", "2", "--seed", "5", "--deterministic",
        "--resume", "--folds", "2", "--nodata", "3",
    )  # fmt: skip
    assert (result.exit_code, result.stdout) == (0, 2 * line)
    assert called["config"] == train.TrainConfig(
        epochs=7, batch=3, tile_px=64, epoch_tiles=9, learning_rate=0.01, patience=2, seed=5,
        deterministic=True,
    )  # fmt: skip
    assert (called["folds"], called["resume"]) == (2, True)
    assert called["dataset"].scenes[0].reading.nodata == 3


def test_a_recipe_is_trained_with_the_options_given_instead_of_its_own(
    geotiff_dataset: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    train = pytest.importorskip("cloudnet.train", reason="training needs the train extra")
    from cloudnet.model import UNetConfig
    from cloudnet.recipe import RECIPES

    small = replace(RECIPES["s2-rgbn"], ensemble=0, net=UNetConfig((4, 6), blocks=1, stem=0))
    monkeypatch.setattr("cloudnet.recipe.RECIPES", {"s2-rgbn": small})
    folder = tmp_path / "run"
    arguments: list[str | Path] = [
        "train", geotiff_dataset, "--out", folder, "--recipe", "s2-rgbn", "--epochs", "1",
        "--epoch-tiles", "16", "--batch", "8", "--tile-px", "32",
    ]  # fmt: skip
    result = invoke(*arguments)
    assert (result.exit_code, result.stderr) == (0, "")
    given = {"epochs": 1, "epoch_tiles": 16, "batch": 8, "tile_px": 32}
    assert Run(folder).read_config()["training"] == replace(small, **given).to_dict()
    (row,) = Run(folder).read_history()
    line = f"{folder / 'model.keras'}: validation IoU {row['val_iou']:.3f} after epoch 1"
    assert result.stdout.splitlines()[-1] == line
    # A default of the command's that is given all the same counts, too.
    default = train.TrainConfig().batch
    config: list[Any] = []

    def note(*arguments: Any, **_: Any) -> Run:
        config.append(arguments[2])
        return Run(folder)

    monkeypatch.setattr(train, "train", note)
    invoke(*arguments[:6], "--batch", str(default), "--seed", "0")
    assert config == [replace(small, batch=default, seed=0)]


def test_a_recipe_takes_no_patience(tmp_path: Path) -> None:
    result = invoke(
        "train", tmp_path, "--out", tmp_path / "run", "--recipe", "s2-rgbn", "--patience", "3"
    )
    assert result.exit_code == 2
    assert "--patience chooses the best net, and a --recipe keeps the last" in result.stderr


def test_a_recipe_is_trained_on_all_scenes_and_goes_on(
    geotiff_dataset: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("cloudnet.train", reason="training needs the train extra")
    from cloudnet.model import UNetConfig
    from cloudnet.recipe import RECIPES

    small = replace(
        RECIPES["s2-rgbn"],
        ensemble=1,
        net=UNetConfig((4,), blocks=1, stem=0),
        epoch_tiles=16,
        batch=8,
        tile_px=32,
    )
    monkeypatch.setattr("cloudnet.recipe.RECIPES", {"s2-rgbn": small})
    arguments: list[str | Path] = [
        "train", geotiff_dataset, "--out", tmp_path / "run", "--recipe", "s2-rgbn",
        "--no-validation",
    ]  # fmt: skip
    for epochs, more in ((1, ()), (2, ("--resume",))):
        result = invoke(*arguments, "--epochs", str(epochs), *more)
        assert (result.exit_code, result.stderr) == (0, "")
        row = Run(tmp_path / "run").read_history()[-1]
        *members, told, last = result.stdout.splitlines()
        assert [line.split(":")[0] for line in members] == ["member 1/1, epoch 1/1"][: 2 - epochs]
        assert told == f"epoch {epochs}/{epochs}: loss {row['loss']:.3f}"
        assert last == (
            f"{tmp_path / 'run' / 'model.keras'}: loss {row['loss']:.3f} after epoch {epochs}, "
            "no validation"
        )


def test_the_last_epoch_is_named_where_the_last_net_is_kept(tiny_run: Path, tmp_path: Path) -> None:
    shutil.copytree(tiny_run, tmp_path / "run")
    run = Run(tmp_path / "run")
    first, second = run.read_history()
    run.write_history([{**first, "val_iou": 0.75}, {**second, "val_iou": 0.5}])
    assert _describe_result(run) == "validation IoU 0.750 after epoch 1"
    config = run.read_config()
    run.write_config({**config, "training": {**config["training"], "keep": "last"}})
    assert _describe_result(run) == "validation IoU 0.500 after epoch 2"


def test_export_passes_its_options_on_and_tells_the_size(
    tiny_onnx: Path, tiny_run: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The README's test exports for real."""
    called: dict[str, Any] = {}

    def note(run_folder: Path, output: Path, **settings: Any) -> Comparison:
        called.update(settings, run_folder=run_folder, output=output)
        return replay_probe(load_model(output))

    monkeypatch.setattr("cloudnet.export.export_onnx", note)
    arguments: list[str | Path] = ["export", tiny_run, "-o", tiny_onnx]
    result = invoke(*arguments)
    assert (result.exit_code, result.stderr) == (0, "")
    first, second = result.stdout.splitlines()
    assert first.startswith("compared with probe: largest difference")
    assert second == f"{tiny_onnx}: {tiny_onnx.stat().st_size / 1e6:.3f} MB, contract nhwc"
    defaults = {"contract": "nhwc", "max_mb": 250.0, "atol": 1e-5, "overwrite": False}
    assert called == {**defaults, "run_folder": tiny_run, "output": tiny_onnx}
    result = invoke(
        *arguments, "--contract", "nchw-224", "--max-mb", "1.5", "--atol", "0.1", "--overwrite"
    )
    assert result.stdout.endswith(", contract nchw-224\n")
    changed = {"contract": "nchw-224", "max_mb": 1.5, "atol": 0.1, "overwrite": True}
    assert called.items() >= changed.items()


def test_ctrl_c_leaves_a_run_and_says_how_to_go_on(
    geotiff_dataset: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    train = pytest.importorskip("cloudnet.train", reason="training needs the train extra")

    def stop(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(train, "train", stop)
    result = invoke("train", geotiff_dataset, "--out", tmp_path / "run")
    assert result.exit_code == 130
    assert f"--resume: {tmp_path / 'run'}" in result.stderr


@pytest.mark.parametrize("command", ["evaluate", "inspect", "train"])
def test_ctrl_c_is_130_before_the_work_begins_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, command: str
) -> None:
    def stop(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("cloudnet.dataset.open_dataset", stop)
    out: list[str | Path] = ["--out", tmp_path / "run"] if command == "train" else []
    result = invoke(command, tmp_path, *out)
    assert (result.exit_code, result.stderr.strip()) == (130, "Aborted!")


def test_the_demo_tells_each_step(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    demo = pytest.importorskip("cloudnet.demo", reason="the demo needs the train extra")

    def steps(folder: Path, on_progress: object) -> list[str]:
        return [f"data: in {folder}", "train: done"]

    monkeypatch.setattr(demo, "run_demo", steps)
    result = invoke("demo", "--out", tmp_path)
    assert (result.exit_code, result.stdout) == (0, f"data: in {tmp_path}\ntrain: done\n")


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_a_bar_is_drawn_on_a_terminal_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    terminal, pipe = Terminal(), io.StringIO()
    for stderr in (terminal, pipe):
        monkeypatch.setattr(sys, "stderr", stderr)
        with share_bar("scene.tif") as advance:
            advance(0.25)
            advance(1.0)
    assert "scene.tif" in terminal.getvalue() and "100%" in terminal.getvalue()
    assert pipe.getvalue() == ""


def progress(step: int, **settings: Any) -> Any:
    train = pytest.importorskip("cloudnet.train", reason="training needs the train extra")
    values = {"step": step, "steps": 4, "epoch": 1, "epochs": 2, "loss": 0.5}
    return train.Progress(**{**values, "validation_iou": None, **settings})


@pytest.mark.parametrize("stdout", [Terminal(), io.StringIO()])
def test_training_is_shown_with_a_bar_on_a_terminal_and_in_lines_elsewhere(
    stdout: io.StringIO, monkeypatch: pytest.MonkeyPatch
) -> None:
    steps = [
        progress(1),
        progress(2),
        progress(2, validation_iou=0.25, epoch_ended=True),
        progress(1),  # another fold, after an early stop
        progress(4, epoch=2, validation_iou=0.25),
        progress(4, epoch=2, validation_iou=0.75, epoch_ended=True),
        progress(2),  # without validation
        progress(2, validation_iou=nan, epoch_ended=True),
    ]
    monkeypatch.setattr(sys, "stdout", stdout)
    with ProgressBar() as bar:
        for step in steps:
            bar.show(step)
    lines = [
        "epoch 1/2: loss 0.500, validation IoU 0.250",
        "epoch 2/2: loss 0.500, validation IoU 0.750",
        "epoch 1/2: loss 0.500",
    ]
    if stdout.isatty():
        assert all(f"{line}\x1b[K\n" in stdout.getvalue() for line in lines)
        assert "4/4" in stdout.getvalue()
    else:
        assert stdout.getvalue().splitlines() == lines


def test_training_goes_on_where_stdout_is_closed(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    steps = [progress(1), progress(2, validation_iou=0.25, epoch_ended=True)]
    monkeypatch.setattr(sys, "stdout", None)
    with ProgressBar() as bar:
        for step in steps:
            bar.show(step)
    assert capsys.readouterr() == ("", "")


def test_lines_go_nowhere_where_stdout_is_closed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stderr", Terminal())
    monkeypatch.setattr(sys, "stdout", None)
    with count_bar("scenes", 1) as (advance, say, _):
        say("a.tif: cloud 10 %")
        advance(1)


def test_copies_of_a_run_are_found_by_folder_or_file(
    tiny_onnx: Path, tiny_run: Path, tmp_path: Path
) -> None:
    shutil.copytree(tiny_run, tmp_path / "moved")
    for net in (tmp_path / "moved", tmp_path / "moved" / "model.keras"):
        result = invoke("compare", tiny_onnx, "--keras", net)
        assert result.exit_code == 0, result.stderr
