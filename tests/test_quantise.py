"""An INT8 file says what the float net says, keeps its contract, or does not appear at all."""

from __future__ import annotations

import json
import logging
import re
import shutil
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner, Result

pytest.importorskip("onnx", reason="the train extra is not installed")

import onnx

from cloudnet import quantise as module
from cloudnet import shipped
from cloudnet.calibration import Tiles, calibration_tiles
from cloudnet.commands import main
from cloudnet.compare import (
    INT8_IOU,
    OWN,
    OWN_IOU,
    Case,
    Comparison,
    compare_with_keras,
    read_probe,
    replay_probe,
)
from cloudnet.confusion import Confusion
from cloudnet.dataset import DataSet, open_dataset
from cloudnet.errors import ComparisonError, ExportError, ModelError, OutputError
from cloudnet.evaluate import evaluate_model
from cloudnet.int8_graph import prepare
from cloudnet.probe import INT8_ATOL, Probe
from cloudnet.quantise import (
    Agreement,
    Quantised,
    QuantiseOptions,
    Recipe,
    calibrate,
    compare_nets,
    quantise,
)
from cloudnet.runtime import FACTS_KEY, PROBE_KEY, load_model
from cloudnet.session import open_session
from cloudnet.spec import SPEC_KEY
from tests.helpers import cloudy_scene, lopsided_scene, teach, write_labelled_scene, write_probe


@pytest.fixture(scope="module")
def data(geotiff_dataset: Path) -> DataSet:
    return open_dataset([geotiff_dataset])


@pytest.fixture(scope="module")
def taught(tiny_onnx: Path, data: DataSet, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tiny net with a head that tells cloud from ground."""
    return teach(tiny_onnx, data, tmp_path_factory.mktemp("taught") / "taught.onnx")


@pytest.fixture(scope="module")
def made(
    taught: Path, data: DataSet, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Path, Quantised]:
    """The tiny net in INT8, and what was found when it was made."""
    path = tmp_path_factory.mktemp("int8") / "tiny_int8.onnx"
    return path, quantise(taught, data, path)


@pytest.fixture(scope="module")
def int8(made: tuple[Path, Quantised]) -> Path:
    return made[0]


@pytest.fixture(scope="module")
def recipe(taught: Path, data: DataSet) -> Recipe:
    float_net = load_model(taught)
    tiles = calibration_tiles(data, float_net.spec.stride, 4)
    return calibrate(prepare(onnx.load(taught)), float_net, tiles, lambda share: None)


def run_command(*words: object) -> Result:
    return CliRunner().invoke(main, [str(word) for word in words])


def ends(path: Path) -> list[tuple[str, list[Any]]]:
    graph = onnx.load(path).graph
    return [
        (
            value.name,
            [side.dim_param or side.dim_value for side in value.type.tensor_type.shape.dim],
        )
        for value in (*graph.input, *graph.output)
    ]


def properties(path: Path) -> dict[str, str]:
    return {entry.key: entry.value for entry in onnx.load(path).metadata_props}


def test_the_file_keeps_the_contract_and_is_smaller(taught: Path, int8: Path) -> None:
    model, source = onnx.load(int8), onnx.load(taught)
    onnx.checker.check_model(model, full_check=True)
    assert ends(int8) == ends(taught)
    assert ends(int8)[0] == ("reflectance", ["batch", "height", "width", 4])
    assert ends(int8)[1][0] == "cloud_probability"
    assert model.opset_import == source.opset_import
    assert model.ir_version == source.ir_version
    assert int8.stat().st_size < taught.stat().st_size


def test_the_metadata_are_kept_and_marked(taught: Path, int8: Path) -> None:
    before, after = properties(taught), properties(int8)
    assert after[FACTS_KEY] == before[FACTS_KEY]
    spec, marked = load_model(taught).spec, load_model(int8).spec
    assert marked == replace(spec, name=f"{spec.name}-int8", halo_px=spec.exact_halo_px)
    assert set(after) == {SPEC_KEY, FACTS_KEY, PROBE_KEY, module.QUANTISED_KEY}
    origin = json.loads(after[module.QUANTISED_KEY])
    assert origin["float_sha256"] == load_model(taught).sha256
    assert origin["calibration"] in module.CALIBRATIONS
    assert origin["float_layers"] == []


def test_the_halo_is_the_exact_one(
    taught: Path, data: DataSet, tmp_path: Path, recipe: Recipe
) -> None:
    float_net = load_model(taught)
    float_net.spec = replace(float_net.spec, halo_px=0)
    path = tmp_path / "int8.onnx"
    path.write_bytes(module.finish(recipe.make(), float_net, recipe, ()))
    assert load_model(path).spec.halo_px == float_net.spec.exact_halo_px > 0


def test_tiled_equals_whole_to_the_last_bit(int8: Path) -> None:
    model = load_model(int8)
    scene = lopsided_scene(150, 131)
    whole = model.predict(scene, tile_px=256)
    np.testing.assert_array_equal(model.predict(scene, tile_px=64), whole)


def test_its_masks_are_those_of_the_float_net(
    taught: Path, made: tuple[Path, Quantised], data: DataSet
) -> None:
    path, quantised = made
    agreement = quantised.agreement
    assert agreement.masks.iou is not None and agreement.masks.iou >= 0.97
    assert agreement.loss is not None and agreement.loss <= 0.005
    assert agreement.float_net == evaluate_model(data, load_model(taught)).pooled
    assert agreement.int8_net == evaluate_model(data, load_model(path)).pooled
    assert quantised.comparison.passed
    assert quantised.float_layers == ()


def test_nets_of_different_halo_are_compared_pixel_by_pixel(
    taught: Path, int8: Path, tmp_path: Path
) -> None:
    rng = np.random.default_rng(2)
    reflectance, mask = cloudy_scene(rng, 24, 1530)
    data = DataSet((write_labelled_scene(tmp_path, "wide", reflectance, mask),))
    float_net, int8_net = load_model(taught), load_model(int8)
    wanted = compare_nets(data, float_net, int8_net, lambda share: None)
    float_net.spec = replace(float_net.spec, halo_px=0)
    assert compare_nets(data, float_net, int8_net, lambda share: None) == wanted
    assert wanted.masks.pixels == 24 * 1530
    assert wanted.masks.iou is not None and wanted.masks.iou > 0.9
    assert wanted.int8_net == evaluate_model(data, int8_net).pooled


def test_weights_use_seven_bits(int8: Path) -> None:
    graph = onnx.load(int8).graph
    weights = {tensor.name: onnx.numpy_helper.to_array(tensor) for tensor in graph.initializer}
    makers = {node.output[0]: node for node in graph.node}
    kernels = [
        weights[makers[node.input[1]].input[0]]
        for node in graph.node
        if node.op_type == "Conv" and node.name not in ("ratios", "ratios_2")  # always floats
    ]
    assert {kernel.dtype for kernel in kernels} == {np.dtype(np.int8)}
    assert max(int(np.abs(kernel.astype(int)).max()) for kernel in kernels) == 64


def test_the_costliest_layer_is_the_one_whose_return_helps_most(
    recipe: Recipe, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[tuple[str, ...]] = []

    def disagreement(_: Recipe, floats: tuple[str, ...]) -> float:
        asked.append(floats)
        return {"up0": 0.1, "stem": 0.0}.get(floats[-1], 0.2)

    monkeypatch.setattr(Recipe, "disagreement", disagreement)
    assert recipe.costliest(()) == "stem"
    assert recipe.costliest(("stem",)) == "up0"
    assert ("stem", "head") in asked and ("stem", "stem") not in asked


def scores(iou: float, pixels: int = 1000) -> Confusion:
    found = round(iou * pixels)
    return Confusion(tp=found, fn=pixels - found, tn=pixels)


def test_a_missed_bar_puts_layers_back_to_float(
    taught: Path, data: DataSet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ious = iter([0.5, 0.5, 0.99])

    def compare_nets(*_: object) -> Agreement:
        return Agreement(scores(next(ious)), scores(0.8), scores(0.8))

    monkeypatch.setattr(module, "compare_nets", compare_nets)
    monkeypatch.setattr(
        Recipe, "costliest", lambda self, floats: ("up0", "up0_project")[len(floats) - 1]
    )
    path = tmp_path / "int8.onnx"
    quantised = quantise(taught, data, path, QuantiseOptions(float_layers=("stem",)))
    assert quantised.float_layers == ("stem", "up0", "up0_project")
    origin = json.loads(properties(path)[module.QUANTISED_KEY])
    assert origin["float_layers"] == ["stem", "up0", "up0_project"]


@pytest.mark.parametrize(
    ("agreement", "reason"),
    [
        (Agreement(scores(0.98), scores(0.8), scores(0.796)), None),
        (Agreement(scores(0.98), scores(0.8), scores(0.9)), None),
        (Agreement(scores(0.98), Confusion(), Confusion()), None),
        (Agreement(scores(0.98), Confusion(tn=5), Confusion(tn=5)), None),
        (Agreement(scores(0.96), scores(0.8), scores(0.8)), r"IoU of 0\.960 .* 0\.97 of --min-iou"),
        (Agreement(scores(0.98), scores(0.8), scores(0.794)), r"0\.0060, .* 0\.005 of --max-loss"),
        (Agreement(Confusion(tn=9), scores(0.8), scores(0.8)), "neither net finds cloud"),
    ],
)
def test_what_is_fit_to_be_published(agreement: Agreement, reason: str | None) -> None:
    fault = agreement.fault(QuantiseOptions())
    assert (fault is None) == (reason is None)
    if reason is not None and fault is not None:
        assert re.search(reason, fault)


def black_tiles(*_: object) -> Tiles:
    rng = np.random.default_rng(0)
    return rng.uniform(0.0, 1e-3, (4, 32, 32, 4)).astype(np.float32)


def test_absurd_calibration_is_refused_with_nothing_written(
    taught: Path, geotiff_dataset: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "calibration_tiles", black_tiles)
    monkeypatch.setattr(module, "MOST_FLOAT", 1)
    output = tmp_path / "made" / "int8.onnx"
    result = run_command("quantise", taught, geotiff_dataset, "-o", output)
    assert result.exit_code == 1
    assert result.stdout == ""
    assert result.stderr.startswith(
        f"Error: {output} is not published: its masks reach an IoU of 0"
    )
    assert result.stderr.count("\n") == 1
    assert not list(tmp_path.rglob("*.onnx"))


def test_answers_that_hang_on_the_kernels_are_refused(
    taught: Path, tiny_onnx: Path, data: DataSet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def other_kernels(content: bytes, *, optimised: bool = True) -> Any:
        return open_session(content if optimised else tiny_onnx.read_bytes())

    monkeypatch.setattr(module, "open_session", other_kernels)
    with pytest.raises(ExportError, match="run with other kernels"):
        quantise(taught, data, tmp_path / "int8.onnx")
    assert not list(tmp_path.iterdir())


def test_nothing_is_printed_and_logging_is_left_alone(
    taught: Path, data: DataSet, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    handlers = list(logging.getLogger().handlers)
    shares: list[float] = []
    quantise(taught, data, tmp_path / "int8.onnx", on_progress=shares.append)
    assert capfd.readouterr() == ("", "")
    assert logging.getLogger().handlers == handlers
    assert shares == sorted(shares) and shares[-1] == 1.0


def test_the_command_says_what_it_made(taught: Path, geotiff_dataset: Path, tmp_path: Path) -> None:
    output = tmp_path / "int8.onnx"
    result = run_command("quantise", taught, geotiff_dataset, "-o", output, "--float", "stem")
    assert (result.exit_code, result.stderr) == (0, "")
    lines = result.stdout.splitlines()
    assert lines[0].startswith(f"compared with {OWN}: largest difference 0.0e+00")
    assert re.fullmatch(rf"compared with {taught}: mask IoU (0\.9[7-9]\d\d|1\.0000)", lines[1])
    assert re.fullmatch(r"cloud IoU with the labels: 0\.\d{4} in float, 0\.\d{4} in INT8", lines[2])
    assert lines[3].endswith("in float: stem")
    assert lines[4] == f"{output}: {output.stat().st_size / 1e6:.3f} MB"
    assert len(lines) == 5


def test_the_core_install_is_enough_to_use_it(
    int8: Path, geotiff_dataset: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("onnx", "tensorflow", "keras", "tf2onnx", "onnxruntime.quantization"):
        monkeypatch.setitem(sys.modules, name, None)
    scene = geotiff_dataset / "scenes" / "scene00.tif"
    for words in (
        ("info", int8),
        ("compare", int8),
        ("evaluate", geotiff_dataset, "-m", int8),
        ("predict", scene, "-m", int8, "-o", tmp_path),
    ):
        result = run_command(*words)
        assert (result.exit_code, result.stderr) == (0, ""), words
    (summary,) = tmp_path.glob("*.json")
    comparison = json.loads(summary.read_text())["comparison"]
    assert comparison["reference"] == OWN
    assert comparison["atol"] == INT8_ATOL
    assert comparison["min_iou"] == OWN_IOU
    assert comparison["mask_iou"] == 1.0 and comparison["passed"]


def test_a_missing_extra_is_named(
    taught: Path, geotiff_dataset: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "onnx", None)
    result = run_command("quantise", taught, geotiff_dataset, "-o", tmp_path / "int8.onnx")
    assert result.exit_code == 2
    assert result.stderr == (
        'Error: onnx is not installed; get it with: pip install "cloudnet[train]"\n'
    )


def test_an_output_in_the_way_is_kept(
    taught: Path, data: DataSet, tmp_path: Path, recipe: Recipe, monkeypatch: pytest.MonkeyPatch
) -> None:
    output = tmp_path / "int8.onnx"
    output.write_text("mine")
    with pytest.raises(OutputError, match="--overwrite"):
        quantise(taught, data, output)
    assert output.read_text() == "mine"
    monkeypatch.setattr(module, "calibrate", lambda *_: recipe)
    quantise(taught, data, output, QuantiseOptions(overwrite=True))
    assert load_model(output).spec.name.endswith("-int8")


def test_bad_input_is_refused(taught: Path, int8: Path, data: DataSet, tmp_path: Path) -> None:
    output = tmp_path / "out.onnx"
    with pytest.raises(ModelError, match="INT8 already"):
        quantise(int8, data, output)
    with pytest.raises(ModelError, match="no layer steam; its layers are spread_ratios, stem"):
        quantise(taught, data, output, QuantiseOptions(float_layers=("stem", "steam")))
    with pytest.raises(ModelError, match="does not exist"):
        quantise(tmp_path / "none.onnx", data, output)
    other = onnx.load(taught)
    probe = read_probe(load_model(taught))
    write_probe(other, Probe(probe.tiles, probe.answers + 0.1), tmp_path / "off.onnx")
    with pytest.raises(ComparisonError, match="Keras says"):
        quantise(tmp_path / "off.onnx", data, output)
    assert not output.exists()


def test_a_graph_that_loses_its_meaning_is_refused(
    taught: Path, data: DataSet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(model: Any) -> Any:
        model = prepare(model)
        model.graph.node[0].op_type = "Unheard"
        return model

    monkeypatch.setattr(module, "prepare", broken)
    with pytest.raises(ExportError, match=r"taught\.onnx is no graph that can be made INT8"):
        quantise(taught, data, tmp_path / "out.onnx")


def with_answers(
    source: Path, path: Path, change: Callable[[Tiles], Tiles], atol: float = INT8_ATOL
) -> Path:
    """Write a copy of an INT8 file whose probe is changed."""
    probe = read_probe(load_model(source))
    write_probe(onnx.load(source), Probe(probe.tiles, change(probe.answers), atol), path)
    return path


def shifted(answers: Tiles) -> Tiles:
    """Put the certain far off, as a kernel that saturates would."""
    return np.where(answers > 0.9, answers - 0.2, answers).astype(np.float32)


def half_flipped(answers: Tiles) -> Tiles:
    """Bring answers that lie near the threshold to its other side, by less than the tolerance."""
    near = np.abs(answers - 0.5) < 0.02
    return np.where(near, 1 - answers, answers).astype(np.float32)


def test_the_probe_is_its_own_with_a_tolerance(int8: Path, tmp_path: Path) -> None:
    comparison = replay_probe(load_model(int8))
    assert (comparison.reference, comparison.atol, comparison.min_iou) == (OWN, INT8_ATOL, OWN_IOU)
    assert comparison.largest == 0 and comparison.mask_iou == 1.0
    near = with_answers(int8, tmp_path / "near.onnx", lambda answers: answers * np.float32(0.97))
    assert replay_probe(load_model(near)).largest == pytest.approx(0.03, abs=0.002)
    off = with_answers(int8, tmp_path / "off.onnx", shifted)
    comparison = replay_probe(load_model(off))
    with pytest.raises(
        ComparisonError, match=r"said at publication: on probe .* up to 0\.2 "
    ) as error:
        comparison.require(off)
    assert error.value.exit_code == 1
    result = run_command("compare", off)
    assert result.exit_code == 1


def test_a_file_cannot_allow_itself_more(int8: Path, tmp_path: Path) -> None:
    path = with_answers(int8, tmp_path / "lax.onnx", shifted, atol=0.5)
    with pytest.raises(ModelError, match=r"lax\.onnx: its probe is damaged"):
        replay_probe(load_model(path))


def test_the_mask_iou_counts_beside_the_tolerance() -> None:
    rows = (
        Case("a", 1, 8, 0.04, 0.01, 0, 0.5, 20),
        Case("b", 1, 8, 0.03, 0.01, 0, 1.0, 980),
        Case("c", 1, 8, 0.03, 0.01, 0, None, 0),
    )
    comparison = Comparison(rows, INT8_ATOL, OWN, OWN_IOU)
    assert comparison.mask_iou == pytest.approx(0.99)
    assert comparison.passed
    stricter = replace(comparison, min_iou=0.995)
    assert not stricter.passed
    with pytest.raises(ComparisonError, match=r"mask IoU 0\.990 in all; do not use it here"):
        stricter.require(Path("a.onnx"))
    assert replace(comparison, min_iou=None).passed
    assert Comparison(rows[2:], INT8_ATOL, OWN, OWN_IOU).passed
    assert comparison.to_dict()["mask_iou"] == comparison.mask_iou


def test_it_is_compared_with_keras_by_its_masks(
    taught: Path, int8: Path, tiny_run: Path, geotiff_dataset: Path, tmp_path: Path
) -> None:
    from cloudnet.compare import scene_tiles
    from cloudnet.model import load_net

    head = [node for node in onnx.load(taught).graph.node if node.op_type == "Conv"][-1]
    weights = {tensor.name: tensor for tensor in onnx.load(taught).graph.initializer}
    kernel, bias = (onnx.numpy_helper.to_array(weights[name]) for name in head.input[1:])
    net = load_net(tiny_run / "model.keras")
    net.get_layer("head").set_weights([kernel.transpose(2, 3, 1, 0), bias])
    net.save(tmp_path / "taught.keras")
    model = load_model(int8)
    tiles = scene_tiles(geotiff_dataset / "scenes" / "scene00.tif", model.spec)
    comparison = compare_with_keras(model, tmp_path / "taught.keras", [tiles])
    assert comparison.min_iou == INT8_IOU
    assert comparison.passed
    assert 1e-4 < comparison.largest < 0.4
    names = [case.name for case in comparison.cases]
    assert names[:2] == ["probe", "real tiles 1"]
    assert "overcast" in names and "random reflectance" not in names
    other = compare_with_keras(model, tiny_run / "model.keras", [tiles])
    with pytest.raises(ComparisonError, match="does not say what Keras says"):
        other.require(int8)


def test_a_shipped_model_is_taken_by_name(
    taught: Path, data: DataSet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "models"
    folder.mkdir()
    shutil.copy(taught, folder / "s2-rgbn.onnx")
    monkeypatch.setattr(shipped, "MODELS_FOLDER", folder)
    quantise(Path("s2-rgbn"), data, tmp_path / "int8.onnx")
    assert load_model(tmp_path / "int8.onnx").precision == "INT8"
    assert load_model("s2-rgbn").precision == "fp32"
