"""A tidy graph says what it said before, in nodes that cost less."""

from __future__ import annotations

import copy
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest
from numpy.typing import NDArray

pytest.importorskip("tensorflow", reason="the train extra is not installed")
pytest.importorskip("tf2onnx", reason="the train extra is not installed")

import onnx

from cloudnet import export
from cloudnet.float_graph import DOUBLING, FLAT, constants, tidy, unflatten_bands
from cloudnet.int8_graph import layer_names, prepare
from cloudnet.model import UNetConfig, build_unet, make_spec
from cloudnet.shipped import MODELS_FOLDER
from cloudnet.spec import Spec
from tests.test_model import lively

CONFIGS = [
    UNetConfig((16, 32), blocks=1, stem=0),
    UNetConfig((16, 32), blocks=1, stem=16),
    UNetConfig((16, 32), blocks=1, stem=16, ratios=False),
]


@pytest.fixture(scope="module", params=CONFIGS, ids=["half", "quarter", "no ratios"])
def raw(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Any:
    """A graph as tf2onnx gives it; not to be changed."""
    net = tmp_path_factory.mktemp("nets") / "net.keras"
    lively(request.param).save(net)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(export, "tidy", lambda graph: None)
        return export.convert(net, make_spec(request.param))


def tidied(raw: Any) -> Any:
    model = copy.deepcopy(raw)
    tidy(model.graph)
    onnx.checker.check_model(model, full_check=True)
    return model


def answers(model: Any, folder: Path | None = None) -> NDArray[np.float32]:
    """What a graph says of tiles that are wider than high, with numbers out of range."""
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    if folder:
        options.optimized_model_filepath = str(folder / "run.onnx")
    session = onnxruntime.InferenceSession(
        model.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )
    tiles = np.random.default_rng(5).uniform(-0.3, 2.2, (2, 24, 40, 4)).astype(np.float32)
    return np.asarray(session.run(None, {"reflectance": tiles})[0])


def test_it_says_what_it_said(raw: Any) -> None:
    wanted = answers(raw)
    assert np.ptp(wanted) > 1e-3
    np.testing.assert_allclose(answers(tidied(raw)), wanted, atol=1e-6)


def test_it_clips_once_turns_nothing_and_asks_no_shape(raw: Any) -> None:
    before, after = (Counter(n.op_type for n in m.graph.node) for m in (raw, tidied(raw)))
    ratios = before["Log"]
    costly = {"Min", "Mul", "Transpose", "Shape"}
    assert costly <= set(before) and not costly & set(after)
    assert before["Max"] == 1 + 2 * ratios and after["Max"] == ratios
    assert after["Clip"] == after["Reshape"] == 1 + ratios
    assert after["Resize"] == 1 and after["Conv"] == before["Conv"]
    assert DOUBLING in constants(tidied(raw).graph)


def test_the_answer_is_turned_to_its_place_without_a_reshape(raw: Any) -> None:
    """In one conversion of fifty tf2onnx loses the squeeze that it puts behind such a reshape."""
    kinds = Counter(node.op_type for node in raw.graph.node)
    assert kinds["Reshape"] == 0 and kinds["Squeeze"] == kinds["Unsqueeze"] == 1


def test_onnxruntime_never_leaves_its_blocked_layout(raw: Any, tmp_path: Path) -> None:
    model = tidied(raw)
    answers(model, tmp_path)
    nodes = onnx.load(tmp_path / "run.onnx").graph.node
    kinds = Counter(node.op_type for node in nodes)
    if not kinds["ReorderOutput"]:
        pytest.skip("onnxruntime has no blocked layout on this machine")
    # What is a cell's mean and its contrasts, four channels each, is taken out of it.
    assert kinds["ReorderOutput"] == 1 + 2 * kinds["Log"] and kinds["ReorderInput"] == 0
    assert kinds["Relu"] == 0 and kinds["Add"] == 1
    assert kinds["Concat"] == kinds["Log"], "ratios and the stem's channels"


def test_what_is_tidy_stays_so(raw: Any) -> None:
    once = tidied(raw)
    assert tidied(once).graph == once.graph


def test_bands_come_back_to_an_axis_of_their_own(raw: Any) -> None:
    """Those that are clipped: ratios go on reading reflectance where it lies."""
    model = tidied(raw)
    wanted = answers(model)
    before = kernels(model)
    unflatten_bands(model.graph)
    after = kernels(model)
    ratios = [shape for shape in before if shape[0] == 4]
    assert before == [*ratios, (16, 1, 3, 12)] and after == [*ratios, (16, 4, 3, 3)]
    assert (FLAT[0] in constants(model.graph)) == bool(ratios)
    np.testing.assert_allclose(answers(model), wanted, atol=1e-6)


def kernels(model: Any) -> list[tuple[int, ...]]:
    """Shapes of the weights of the convolutions that read all bands of a scene."""
    known, sides = constants(model.graph), {3, 12, 8, 16}
    shapes = [known[n.input[1]].shape for n in model.graph.node if n.op_type == "Conv"]
    found = [shape for shape in shapes if shape[1:] == (4, 3, 3) or shape[3] > 3]
    assert {shape[3] for shape in found} <= sides
    return sorted(found)


def test_means_of_cells_are_read_where_bands_lie(raw: Any) -> None:
    """Its stride is its kernel: a cell of the first level is one reading."""
    model = tidied(raw)
    for node in model.graph.node:
        settings = {entry.name: list(entry.ints) for entry in node.attribute}
        if node.op_type == "Conv" and settings["strides"][0] == settings["strides"][1] // 4:
            side = settings["strides"][0]
            if constants(model.graph)[node.input[1]].shape[0] == 4:
                assert settings["kernel_shape"] == settings["strides"] == [side, 4 * side]
                assert not any(settings.get("pads", []))


def test_the_answer_has_its_shape_before_the_sigmoid(raw: Any) -> None:
    """A shape that is changed last is a copy of the whole scene."""
    assert raw.graph.node[-1].op_type != "Sigmoid"
    assert tidied(raw).graph.node[-1].op_type == "Sigmoid"


def test_layers_have_the_names_of_keras(raw: Any) -> None:
    names = layer_names(prepare(tidied(raw)))
    assert names == layer_names(prepare(raw))
    assert {"stem", "down0_0", "up0_project", "head"} <= set(names)


def test_a_graph_of_before_is_left_in_peace() -> None:
    model = onnx.load(MODELS_FOLDER / "s2-rgbn.onnx")
    before = copy.deepcopy(model)
    tidy(model.graph)
    assert list(model.graph.node) == list(before.graph.node)
    assert list(model.graph.initializer) == list(before.graph.initializer)


def test_a_graph_without_scenes_is_left_in_peace(tmp_path: Path) -> None:
    """A hand-off takes bands first."""
    net = tmp_path / "net.keras"
    config = CONFIGS[1]
    spec: Spec = make_spec(config)
    build_unet(config, spec).save(net)
    model = export.convert(net, export.replace(spec, contract=export.CONTRACT_NCHW_224))
    assert FLAT[0] not in constants(model.graph)
    onnx.checker.check_model(model, full_check=True)
