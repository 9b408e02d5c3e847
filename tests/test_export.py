"""Export: the graph's contract, its agreement with Keras, and what is not published."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

pytest.importorskip("tensorflow", reason="the train extra is not installed")
pytest.importorskip("tf2onnx", reason="the train extra is not installed")

import onnx
import onnxruntime

from cloudnet import export
from cloudnet.errors import ComparisonError, ExportError, ModelError, OutputError, RunError
from cloudnet.export import OPSET, export_onnx
from cloudnet.model import load_net, make_spec, measure
from cloudnet.probe import Probe, read_probe_tiles
from cloudnet.run import Run
from cloudnet.runtime import FACTS_KEY, PROBE_KEY
from cloudnet.spec import CONTRACT_NCHW_224, SPEC_KEY, Spec
from tests.helpers import tiny_config

ATOL = 1e-5


@pytest.fixture(scope="module")
def fixed_onnx(tiny_run: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tiny net in the fixed contract; not to be changed."""
    path = tmp_path_factory.mktemp("models") / "fixed.onnx"
    comparison = export_onnx(tiny_run, path, contract=CONTRACT_NCHW_224)
    assert comparison.passed and comparison.cases[0].name == "probe"
    return path


@pytest.fixture
def converted(tiny_onnx: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Let export find a graph that was converted before, changed as asked."""

    def arrange(change: Callable[[Any], None] = lambda graph: None) -> None:
        def convert(net: Path, spec: Spec) -> Any:
            graph = onnx.load(tiny_onnx)
            del graph.metadata_props[:]
            change(graph)
            return graph

        monkeypatch.setattr(export, "convert", convert)

    return arrange


def noise(*shape: int) -> NDArray[np.float32]:
    return np.random.default_rng(8).uniform(-0.1, 1.8, shape).astype(np.float32)


def run_onnx(path: Path, tiles: NDArray[np.float32]) -> NDArray[Any]:
    """The graph's answer by onnxruntime alone, as a user without cloudnet asks for it."""
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    return np.asarray(session.run(None, {"reflectance": tiles})[0])


def run_keras(run: Path, tiles: NDArray[np.float32]) -> NDArray[np.float32]:
    return np.asarray(load_net(Run(run).model)(tiles, training=False))


def dimensions(value: Any) -> list[str | int]:
    return [
        dimension.dim_param or dimension.dim_value for dimension in value.type.tensor_type.shape.dim
    ]


def described(path: Path) -> tuple[dict[str, str], Any, Any]:
    """Metadata, input and output of a graph that onnx has checked."""
    graph = onnx.load(path)
    onnx.checker.check_model(graph, full_check=True)
    assert [(entry.domain, entry.version) for entry in graph.opset_import if not entry.domain] == [
        ("", OPSET)
    ]
    assert {entry.domain for entry in graph.opset_import} <= {"", "ai.onnx.ml"}
    (given,), (wanted,) = graph.graph.input, graph.graph.output
    return {entry.key: entry.value for entry in graph.metadata_props}, given, wanted


# What is in the file.


def test_the_graph_takes_and_gives_what_the_contract_says(tiny_onnx: Path) -> None:
    _, given, answer = described(tiny_onnx)
    assert OPSET == 18
    assert (given.name, answer.name) == ("reflectance", "cloud_probability")
    assert dimensions(given) == ["batch", "height", "width", 4]
    assert dimensions(answer) == ["batch", "height", "width", 1]
    for value in (given, answer):
        assert value.type.tensor_type.elem_type == onnx.TensorProto.FLOAT


def test_the_fixed_contract_takes_and_gives_what_it_says(fixed_onnx: Path) -> None:
    metadata, given, answer = described(fixed_onnx)
    assert (given.name, answer.name) == ("reflectance", "cloud_mask")
    assert dimensions(given) == ["batch", 4, 224, 224]
    assert dimensions(answer) == ["batch", 224, 224]
    assert given.type.tensor_type.elem_type == onnx.TensorProto.FLOAT
    assert answer.type.tensor_type.elem_type == onnx.TensorProto.UINT8
    assert Spec.from_json(metadata[SPEC_KEY], "").contract == CONTRACT_NCHW_224
    probe = Probe.from_text(metadata[PROBE_KEY], "")
    assert probe.answers.shape == (2, 224, 224) and probe.answers.dtype == np.uint8


def test_the_metadata_say_what_the_net_is(tiny_onnx: Path, tiny_run: Path) -> None:
    metadata, _, _ = described(tiny_onnx)
    assert Spec.from_json(metadata[SPEC_KEY], "") == make_spec(tiny_config().net)
    assert json.loads(metadata[FACTS_KEY]) == asdict(measure(tiny_config().net))
    probe = Probe.from_text(metadata[PROBE_KEY], "")
    tiles = read_probe_tiles(Run(tiny_run).probe_tiles_file)
    np.testing.assert_array_equal(probe.tiles, tiles)
    np.testing.assert_allclose(probe.answers, run_keras(tiny_run, tiles), atol=1e-6)
    assert np.ptp(probe.answers) > 1e-3


def shape_between(graph: Any) -> None:
    """Leave a shape of the converter's own naming between input and output."""
    shape = ("unk__1", "unk__2", "unk__3", 4)
    name = graph.graph.node[0].output[0]
    graph.graph.value_info.append(
        onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, shape)
    )


def test_no_name_of_the_converter_s_own_is_left(
    tiny_run: Path,
    tiny_onnx: Path,
    fixed_onnx: Path,
    tmp_path: Path,
    converted: Callable[..., None],
) -> None:
    converted(shape_between)
    export_onnx(tiny_run, tmp_path / "model.onnx")
    for path in (tiny_onnx, fixed_onnx, tmp_path / "model.onnx"):
        assert b"unk__" not in path.read_bytes()


# What it says.


@pytest.mark.parametrize("shape", [(1, 4, 4), (3, 64, 64), (2, 36, 100), (1, 256, 8)])
def test_it_says_what_keras_says(
    tiny_onnx: Path, tiny_run: Path, shape: tuple[int, int, int]
) -> None:
    tiles = noise(*shape, 4)
    tiles[0, : shape[1] // 2] = 0.0
    answer = run_onnx(tiny_onnx, tiles)
    assert answer.shape == (*shape, 1) and answer.dtype == np.float32
    np.testing.assert_allclose(answer, run_keras(tiny_run, tiles), atol=ATOL, rtol=0)


def test_the_fixed_contract_says_what_keras_says(fixed_onnx: Path, tiny_run: Path) -> None:
    real = read_probe_tiles(Run(tiny_run).probe_tiles_file)
    tiles = np.concatenate([np.tile(real, (1, 4, 4, 1))[:, :224, :224], noise(1, 224, 224, 4)])
    mask = run_onnx(fixed_onnx, np.ascontiguousarray(tiles.transpose(0, 3, 1, 2)))
    assert mask.shape == (3, 224, 224) and mask.dtype == np.uint8
    assert set(np.unique(mask)) == {0, 1}
    probability = run_keras(tiny_run, tiles)[..., 0]
    certain = np.abs(probability - 0.5) > ATOL
    np.testing.assert_array_equal(mask[certain], (probability >= 0.5)[certain])


def test_the_net_s_own_file_is_exported_as_its_run_is(
    tiny_run: Path, tiny_onnx: Path, tmp_path: Path, converted: Callable[..., None]
) -> None:
    converted()
    path = tmp_path / "model.onnx"
    assert export_onnx(Run(tiny_run).model, path).passed
    assert path.read_bytes() == tiny_onnx.read_bytes()


# What is not published.


def assert_nothing_published(folder: Path) -> None:
    assert list(folder.iterdir()) == []


def test_a_file_that_is_too_large_is_refused(
    tiny_run: Path, tiny_onnx: Path, tmp_path: Path, converted: Callable[..., None]
) -> None:
    converted()
    size_mb = tiny_onnx.stat().st_size / 1e6
    path = tmp_path / "model.onnx"
    with pytest.raises(ExportError, match="--max-mb") as caught:
        export_onnx(tiny_run, path, max_mb=size_mb - 1e-5)
    assert str(path) in str(caught.value) and f"{size_mb:.2f} MB" in str(caught.value)
    assert caught.value.exit_code == 1
    assert_nothing_published(tmp_path)
    export_onnx(tiny_run, path, max_mb=size_mb + 1e-5)
    assert path.exists()


def test_what_is_there_is_replaced_only_when_asked(
    tiny_run: Path, tmp_path: Path, converted: Callable[..., None]
) -> None:
    converted()
    path = tmp_path / "model.onnx"
    path.write_bytes(b"mine")
    with pytest.raises(OutputError, match="--overwrite") as caught:
        export_onnx(tiny_run, path)
    assert str(path) in str(caught.value)
    assert path.read_bytes() == b"mine"
    export_onnx(tiny_run, path, overwrite=True)
    onnx.checker.check_model(path)
    assert list(tmp_path.iterdir()) == [path]


def shift(graph: Any) -> None:
    """Change one number of the largest weight by a little."""
    initializer = max(graph.graph.initializer, key=lambda one: len(one.raw_data))
    values = onnx.numpy_helper.to_array(initializer).copy()
    values.flat[0] += 0.05
    initializer.CopyFrom(onnx.numpy_helper.from_array(values, initializer.name))


def test_a_graph_that_says_something_else_is_not_published(
    tiny_run: Path, tmp_path: Path, converted: Callable[..., None]
) -> None:
    converted(shift)
    path = tmp_path / "model.onnx"
    with pytest.raises(ComparisonError, match="does not say what Keras says") as caught:
        export_onnx(tiny_run, path)
    assert str(path) in str(caught.value) and caught.value.exit_code == 1
    assert_nothing_published(tmp_path)
    path.write_bytes(b"mine")
    with pytest.raises(ComparisonError):
        export_onnx(tiny_run, path, overwrite=True)
    assert path.read_bytes() == b"mine" and list(tmp_path.iterdir()) == [path]


def test_the_tolerance_is_the_user_s(
    tiny_run: Path, tmp_path: Path, converted: Callable[..., None]
) -> None:
    converted()
    with pytest.raises(ComparisonError, match="allowed 1e-12"):
        export_onnx(tiny_run, tmp_path / "model.onnx", atol=1e-12)
    assert_nothing_published(tmp_path)


def rename_output(graph: Any) -> None:
    for node in graph.graph.node:
        node.output[:] = ["other" if x == "cloud_probability" else x for x in node.output]
    graph.graph.output[0].name = "other"


def break_graph(graph: Any) -> None:
    graph.graph.node[0].op_type = "Nonsense"


def add_a_side(graph: Any) -> None:
    graph.graph.output[0].type.tensor_type.shape.dim.add().dim_value = 1


@pytest.mark.parametrize(
    ("change", "word"),
    [
        (rename_output, "other"),
        (add_a_side, "cloud_probability the shape .*, not one of 4 sides"),
        (break_graph, "onnx finds a fault"),
    ],
)
def test_a_graph_that_breaks_the_contract_is_not_published(
    tiny_run: Path, tmp_path: Path, converted: Callable[..., None], change: Any, word: str
) -> None:
    converted(change)
    with pytest.raises(ExportError, match=word):
        export_onnx(tiny_run, tmp_path / "model.onnx")
    assert_nothing_published(tmp_path)


def test_what_tf2onnx_died_of_is_told_in_a_line(
    tiny_run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        export, "write_saved_model", lambda net, spec, folder: folder.mkdir(parents=True)
    )
    with pytest.raises(ExportError, match="tf2onnx cannot convert") as caught:
        export_onnx(tiny_run, tmp_path / "model.onnx")
    message = str(caught.value)
    assert str(Run(tiny_run).model) in message and "\n" not in message
    assert "SavedModel file does not exist" in message
    assert_nothing_published(tmp_path)


def test_a_run_that_is_not_whole_is_named(tiny_run: Path, tmp_path: Path) -> None:
    output = tmp_path / "out" / "model.onnx"
    with pytest.raises(ModelError, match="does not exist"):
        export_onnx(tmp_path / "missing", output)
    run = Run(tmp_path / "run")
    run.folder.mkdir()
    with pytest.raises(RunError, match="train it for an epoch"):
        export_onnx(run.folder, output)
    shutil.copy(Run(tiny_run).model, run.model)
    with pytest.raises(RunError, match="missing or damaged") as caught:
        export_onnx(run.folder, output)
    assert str(run.probe_tiles_file) in str(caught.value)
    run.model.write_bytes(b"no net")
    with pytest.raises(ModelError, match=r"is no \.keras file"):
        export_onnx(run.folder, output)
    assert not output.parent.exists()
