"""An INT8 graph is integers but for layers kept in float, and its shortcuts change no bit."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path

import numpy as np
import onnxruntime
import pytest

pytest.importorskip("onnx", reason="the train extra is not installed")

import onnx

from cloudnet import int8_graph
from cloudnet.calibration import calibration_tiles
from cloudnet.compare import replay_probe
from cloudnet.dataset import DataSet, open_dataset
from cloudnet.int8_graph import fixed_layers, layer_names, mix_logarithms, prepare
from cloudnet.quantise import QUANTISED_KEY, Recipe, calibrate, finish, run_graph
from cloudnet.runtime import load_model
from tests.helpers import teach


@pytest.fixture(scope="module")
def data(geotiff_dataset: Path) -> DataSet:
    return open_dataset([geotiff_dataset])


@pytest.fixture(scope="module")
def taught(tiny_onnx: Path, data: DataSet, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tiny net with a head that tells cloud from ground."""
    return teach(tiny_onnx, data, tmp_path_factory.mktemp("taught") / "taught.onnx")


@pytest.fixture(scope="module")
def recipe(taught: Path, data: DataSet) -> Recipe:
    float_net = load_model(taught)
    tiles = calibration_tiles(data, float_net.spec.stride, 4)
    return calibrate(prepare(onnx.load(taught)), float_net, tiles, lambda share: None)


def optimised_nodes(path: Path, folder: Path) -> Counter[str]:
    """Count the nodes of a file's graph as onnxruntime runs it."""
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    options.optimized_model_filepath = str(folder / "optimised.onnx")
    onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    return Counter(node.op_type for node in onnx.load(folder / "optimised.onnx").graph.node)


def test_it_is_integers_from_end_to_end(taught: Path, recipe: Recipe, tmp_path: Path) -> None:
    int8 = tmp_path / "int8.onnx"
    int8.write_bytes(finish(recipe.make(), load_model(taught), recipe, ()))
    nodes = optimised_nodes(int8, tmp_path)
    convolutions = len(layer_names(prepare(onnx.load(taught))))
    assert nodes["QLinearConv"] == convolutions == 11
    assert nodes["DequantizeLinear"] == 1
    floats = {"Add", "MaxPool", "Resize", "Min", "Relu"}
    assert not floats & set(nodes)
    # Ratios are floats until they are clipped: means of cells, logarithms, contrasts.
    assert nodes["QuantizeLinear"] == 2
    assert nodes["Conv"] == nodes["Max"] == nodes["Log"] == nodes["MatMul"] == 1
    assert not {"DepthToSpace", "QLinearConcat"} & set(nodes), "bytes are copied as they are"


def test_ratios_read_reflectance_without_turning_it(recipe: Recipe) -> None:
    graph = recipe.make().graph
    readers = [node for node in graph.node if graph.input[0].name in node.input]
    assert sorted(node.op_type for node in readers) == ["QuantizeLinear", "Reshape"]


def test_ratios_have_the_range_that_they_are_clipped_to(recipe: Recipe) -> None:
    nodes = {node.output[0]: node for node in recipe.graph.graph.node}
    clip = nodes[next(n.input[0] for n in nodes.values() if n.name == "spread_ratios")]
    assert clip.op_type == "Clip"
    assert recipe._fixed_ranges()[clip.output[0]] == [{"rmin": -3.0, "rmax": 3.0}]
    reflectance = next(n.input[0] for n in nodes.values() if n.name == "stem")
    assert recipe._fixed_ranges()[reflectance] == [{"rmin": 0.0, "rmax": np.float32(1.6)}]
    assert fixed_layers(recipe.graph) == ["ratios", "ratios_2"]
    assert "spread_ratios" in layer_names(recipe.graph)


def test_depthwise_convolutions_are_parted_where_channels_lie_side_by_side(taught: Path) -> None:
    whole = onnx.load(taught)
    parted = prepare(whole)
    depthwise = [node for node in parted.graph.node if node.name.startswith("down0_0_depthwise")]
    (beside,) = (node for node in parted.graph.node if node.op_type == "Concat")
    assert list(beside.input) == [node.output[0] for node in depthwise]
    tiles = np.random.default_rng(4).uniform(0, 1, (2, 64, 64, 4)).astype(np.float32)
    answers = [
        onnxruntime.InferenceSession(
            model.SerializeToString(), providers=["CPUExecutionProvider"]
        ).run(None, {"reflectance": tiles})[0]
        for model in (whole, parted)
    ]
    np.testing.assert_allclose(*answers, atol=1e-6)


def test_what_lies_side_by_side_has_one_scale(recipe: Recipe) -> None:
    """Bytes are copied then, not turned."""
    graph = recipe.make().graph
    producers = {node.output[0]: node for node in graph.node}
    turns = [
        [producers[name] for name in node.input]
        for node in graph.node
        if node.op_type == "Concat" and len(set(node.input)) > 1
    ]
    assert [[node.op_type for node in pair] for pair in turns] == [["Transpose", "Transpose"]]
    one, other = (producers[node.input[0]] for node in turns[0])
    assert one.op_type == other.op_type == "QuantizeLinear"
    assert list(one.input[1:]) == list(other.input[1:])


SHORTCUTS = (
    "fold_clipping", "pair_columns", "join_bytes", "double_in_place", "spread_bytes",
    "shorten_names",
)  # fmt: skip


def test_shortcuts_change_no_bit(recipe: Recipe, monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(4)
    tiles = rng.uniform(-0.3, 2.5, (3, 24, 40, 4)).astype(np.float32)
    short = recipe.make()
    for shortcut in SHORTCUTS:
        monkeypatch.setattr(int8_graph, shortcut, lambda graph: None)
    long = recipe.make()
    kinds = [Counter(node.op_type for node in model.graph.node) for model in (short, long)]
    assert [(k["Clip"], k["Resize"], k["DepthToSpace"]) for k in kinds] == [(1, 0, 0), (2, 1, 1)]
    kernels = [
        [list(entry.ints) for entry in node.attribute if entry.name == "kernel_shape"]
        for model in (short, long)
        for node in model.graph.node
        if node.name == "stem"
    ]
    assert kernels == [[[3, 2]], [[3, 3]]]
    np.testing.assert_array_equal(run_graph(short, tiles), run_graph(long, tiles))


def test_a_product_of_matrices_makes_the_contrasts_that_a_convolution_made(taught: Path) -> None:
    tiles = np.random.default_rng(5).uniform(0, 1.2, (2, 48, 64, 4)).astype(np.float32)
    model = prepare(onnx.load(taught))
    wanted = run_graph(model, tiles)
    mix_logarithms(model.graph)
    assert [node.op_type for node in model.graph.node].count("MatMul") == 1
    assert "ratios_2" not in {node.name for node in model.graph.node}
    np.testing.assert_allclose(run_graph(model, tiles), wanted, atol=1e-5)


@pytest.mark.parametrize(
    "layer", ["stem", "spread_ratios", "down0_0_depthwise", "up0_project", "head"]
)
def test_a_layer_is_kept_in_float(
    taught: Path, data: DataSet, recipe: Recipe, tmp_path: Path, layer: str
) -> None:
    path = tmp_path / "int8.onnx"
    path.write_bytes(finish(recipe.make([layer]), load_model(taught), recipe, [layer]))
    graph = onnx.load(path).graph
    floats = {tensor.name for tensor in graph.initializer if tensor.data_type == 1}
    kept = [node.name for node in graph.node if node.op_type == "Conv" and node.input[1] in floats]
    assert kept == sorted(["ratios", layer], key=kept.index)
    assert optimised_nodes(path, tmp_path)["QLinearConv"] == 10
    assert replay_probe(load_model(path)).passed
    assert json.loads(load_model(path).metadata[QUANTISED_KEY])["float_layers"] == [layer]
    assert recipe.disagreement([layer]) < 0.03
