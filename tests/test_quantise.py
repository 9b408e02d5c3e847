"""An INT8 file says what the float net says, keeps its contract, or does not appear at all."""

from __future__ import annotations

import json
import logging
import sys
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest
from click.testing import CliRunner, Result
from numpy.typing import NDArray

pytest.importorskip("onnx", reason="the train extra is not installed")

import onnx

from cloudnet import quantise as module
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
from cloudnet.dataset import DataSet, LabelledScene, open_dataset
from cloudnet.errors import ComparisonError, DatasetError, ExportError, ModelError, OutputError
from cloudnet.evaluate import Confusion, evaluate_model
from cloudnet.probe import INT8_ATOL, Probe
from cloudnet.quantise import (
    Agreement,
    Quantised,
    QuantiseOptions,
    Recipe,
    calibrate,
    calibration_tiles,
    layer_names,
    prepare,
    quantise,
)
from cloudnet.runtime import FACTS_KEY, PROBE_KEY, CloudModel, load_model
from cloudnet.scene import Scene
from cloudnet.spec import SPEC_KEY
from cloudnet.tiles import Window
from tests.helpers import lopsided_scene, write_mask_npy, write_scene_npy

Tiles = NDArray[np.float32]


@pytest.fixture(scope="module")
def data(geotiff_dataset: Path) -> DataSet:
    return open_dataset([geotiff_dataset])


@pytest.fixture(scope="module")
def made(
    tiny_onnx: Path, data: DataSet, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Path, Quantised]:
    """The tiny net in INT8, and what was found when it was made."""
    path = tmp_path_factory.mktemp("int8") / "tiny_int8.onnx"
    return path, quantise(tiny_onnx, data, path)


@pytest.fixture(scope="module")
def int8(made: tuple[Path, Quantised]) -> Path:
    return made[0]


@pytest.fixture(scope="module")
def recipe(tiny_onnx: Path, data: DataSet) -> Recipe:
    float_net = load_model(tiny_onnx)
    tiles = calibration_tiles(data, float_net.spec.stride, 4)
    return calibrate(prepare(onnx.load(tiny_onnx)), float_net, tiles, lambda share: None)


def run_command(*words: object) -> Result:
    return CliRunner().invoke(main, [str(word) for word in words])


def ends(path: Path) -> list[tuple[str, list[Any]]]:
    graph = onnx.load(path).graph
    return [
        (value.name, [side.dim_param or side.dim_value for side in value.type.tensor_type.shape.dim])
        for value in (*graph.input, *graph.output)
    ]


def properties(path: Path) -> dict[str, str]:
    return {entry.key: entry.value for entry in onnx.load(path).metadata_props}


def test_the_file_keeps_the_contract_and_is_smaller(tiny_onnx: Path, int8: Path) -> None:
    model, source = onnx.load(int8), onnx.load(tiny_onnx)
    onnx.checker.check_model(model, full_check=True)
    assert ends(int8) == ends(tiny_onnx)
    assert ends(int8)[0] == ("reflectance", ["batch", "height", "width", 4])
    assert ends(int8)[1][0] == "cloud_probability"
    assert model.opset_import == source.opset_import
    assert model.ir_version == source.ir_version
    assert int8.stat().st_size < tiny_onnx.stat().st_size


def test_the_metadata_are_kept_and_marked(tiny_onnx: Path, int8: Path) -> None:
    before, after = properties(tiny_onnx), properties(int8)
    assert after[FACTS_KEY] == before[FACTS_KEY]
    spec, marked = load_model(tiny_onnx).spec, load_model(int8).spec
    assert marked == replace(spec, name=f"{spec.name}-int8", halo_px=spec.exact_halo_px)
    assert set(after) == {SPEC_KEY, FACTS_KEY, PROBE_KEY, module.QUANTISED_KEY}
    origin = json.loads(after[module.QUANTISED_KEY])
    assert origin["float_sha256"] == load_model(tiny_onnx).sha256
    assert origin["calibration"] in module.CALIBRATIONS
    assert origin["float_layers"] == []


def test_the_halo_is_the_exact_one(
    tiny_onnx: Path, data: DataSet, tmp_path: Path, recipe: Recipe
) -> None:
    float_net = load_model(tiny_onnx)
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
    tiny_onnx: Path, made: tuple[Path, Quantised], data: DataSet
) -> None:
    path, quantised = made
    agreement = quantised.agreement
    assert agreement.masks.iou is not None and agreement.masks.iou >= 0.97
    assert agreement.loss is not None and agreement.loss <= 0.005
    assert agreement.float_net == evaluate_model(data, load_model(tiny_onnx)).pooled
    assert agreement.int8_net == evaluate_model(data, load_model(path)).pooled
    assert quantised.comparison.passed
    assert quantised.float_layers == ()


def optimised_nodes(path: Path, folder: Path) -> Counter[str]:
    """Count the nodes of a file's graph as onnxruntime runs it."""
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    options.optimized_model_filepath = str(folder / "optimised.onnx")
    onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    return Counter(node.op_type for node in onnx.load(folder / "optimised.onnx").graph.node)


def test_it_is_integers_from_end_to_end(tiny_onnx: Path, int8: Path, tmp_path: Path) -> None:
    nodes = optimised_nodes(int8, tmp_path)
    convolutions = len(layer_names(prepare(onnx.load(tiny_onnx))))
    assert nodes["QLinearConv"] == convolutions == 9
    assert nodes["QuantizeLinear"] == nodes["DequantizeLinear"] == 1
    floats = {"Conv", "FusedConv", "Add", "MaxPool", "Resize", "Min", "Max", "Clip", "Relu"}
    assert not floats & set(nodes)


def test_shortcuts_change_no_bit(recipe: Recipe, monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(4)
    tiles = rng.uniform(-0.3, 2.5, (3, 24, 40, 4)).astype(np.float32)
    short = recipe.make()
    for shortcut in ("fold_clipping", "double_in_place", "shorten_names"):
        monkeypatch.setattr(module, shortcut, lambda graph: None)
    long = recipe.make()
    kinds = [{node.op_type for node in model.graph.node} for model in (short, long)]
    assert {"Min", "Max", "Resize"} <= kinds[1]
    assert not {"Min", "Max", "Resize"} & kinds[0]
    np.testing.assert_array_equal(module._run(short, tiles), module._run(long, tiles))


def test_weights_use_seven_bits(int8: Path) -> None:
    graph = onnx.load(int8).graph
    weights = {tensor.name: onnx.numpy_helper.to_array(tensor) for tensor in graph.initializer}
    makers = {node.output[0]: node for node in graph.node}
    kernels = [
        weights[makers[node.input[1]].input[0]] for node in graph.node if node.op_type == "Conv"
    ]
    assert {kernel.dtype for kernel in kernels} == {np.dtype(np.int8)}
    assert max(int(np.abs(kernel.astype(int)).max()) for kernel in kernels) == 64


@pytest.mark.parametrize("layer", ["stem", "down0_0_depthwise", "up0_project", "head"])
def test_a_layer_is_kept_in_float(
    tiny_onnx: Path, data: DataSet, recipe: Recipe, tmp_path: Path, layer: str
) -> None:
    path = tmp_path / "int8.onnx"
    path.write_bytes(module.finish(recipe.make([layer]), load_model(tiny_onnx), recipe, [layer]))
    graph = onnx.load(path).graph
    floats = {tensor.name for tensor in graph.initializer if tensor.data_type == 1}
    kept = [node.name for node in graph.node if node.op_type == "Conv" and node.input[1] in floats]
    assert kept == [layer]
    assert optimised_nodes(path, tmp_path)["QLinearConv"] == 8
    assert replay_probe(load_model(path)).passed
    assert json.loads(properties(path)[module.QUANTISED_KEY])["float_layers"] == [layer]
    assert recipe.disagreement([layer]) < 0.03


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
    tiny_onnx: Path, data: DataSet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ious = iter([0.5, 0.5, 0.99])

    def compare_nets(*_: object) -> Agreement:
        return Agreement(scores(next(ious)), scores(0.8), scores(0.8))

    monkeypatch.setattr(module, "compare_nets", compare_nets)
    monkeypatch.setattr(
        Recipe, "costliest", lambda self, floats: ("up0", "up0_project")[len(floats) - 1]
    )
    path = tmp_path / "int8.onnx"
    quantised = quantise(tiny_onnx, data, path, QuantiseOptions(float_layers=("stem",)))
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
        assert pytest.raises(ExportError, match=reason)
        with pytest.raises(ExportError, match=reason):
            raise ExportError(fault)


def black_tiles(*_: object) -> Tiles:
    rng = np.random.default_rng(0)
    return rng.uniform(0.0, 1e-3, (4, 32, 32, 4)).astype(np.float32)


def test_absurd_calibration_is_refused_with_nothing_written(
    tiny_onnx: Path, geotiff_dataset: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "calibration_tiles", black_tiles)
    monkeypatch.setattr(module, "MOST_FLOAT", 1)
    output = tmp_path / "made" / "int8.onnx"
    result = run_command("quantise", tiny_onnx, geotiff_dataset, "-o", output)
    assert result.exit_code == 1
    assert result.stdout == ""
    assert result.stderr.startswith(f"Error: {output} is not published: its masks reach an IoU of 0")
    assert result.stderr.count("\n") == 1
    assert not list(tmp_path.rglob("*.onnx"))


def test_answers_that_hang_on_the_kernels_are_refused(
    tiny_onnx: Path, data: DataSet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    open_session = module.open_session

    def other_kernels(content: bytes, *, optimised: bool = True) -> Any:
        return open_session(content if optimised else tiny_onnx.read_bytes())

    monkeypatch.setattr(module, "open_session", other_kernels)
    monkeypatch.setattr(module, "INT8_ATOL", 1e-6)
    with pytest.raises(ExportError, match="run with other kernels"):
        quantise(tiny_onnx, data, tmp_path / "int8.onnx")
    assert not list(tmp_path.iterdir())
