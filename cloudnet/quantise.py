"""Quantise: from a float ONNX file to an INT8 one, published once its masks were compared."""

from __future__ import annotations

import copy
import io
import json
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, closing, redirect_stdout
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import onnx
from numpy.typing import NDArray
from onnxruntime.quantization import CalibrationMethod, QDQQuantizer, QuantType, create_calibrator

from cloudnet.calibration import BATCH, Tiles, batches, calibration_tiles
from cloudnet.compare import (
    DEFAULT_ATOL,
    OWN_IOU,
    Comparison,
    compare_answers,
    read_probe,
    replay_probe,
)
from cloudnet.confusion import Confusion
from cloudnet.dataset import DataSet, LabelledScene, Mask
from cloudnet.errors import ExportError, ModelError
from cloudnet.files import refuse_existing, whole_file
from cloudnet.float_graph import Proto, constants, gain, input_chain
from cloudnet.int8_graph import fixed_layers, layer_names, prepare, refine, serialise
from cloudnet.mosaic import Probability, Reflectance
from cloudnet.probe import INT8_ATOL, Probe
from cloudnet.runtime import (
    FACTS_KEY,
    PROBE_KEY,
    QUANTISED_KEY,
    CloudModel,
    load_model,
)
from cloudnet.session import open_session
from cloudnet.spec import SPEC_KEY, Spec
from cloudnet.tiles import Window

Ranges: TypeAlias = Any
Progress: TypeAlias = Callable[[float], None]

COMPARED_TILE_PX = 768
"""Side of the tiles that two nets are compared on."""

SUFFIX = "-int8"
"""Added to the name of a spec."""

CALIBRATIONS: dict[str, tuple[Any, dict[str, Any]]] = {
    "percentile 99.9": (CalibrationMethod.Percentile, {"percentile": 99.9, "symmetric": False}),
    "percentile 99.99": (CalibrationMethod.Percentile, {"percentile": 99.99, "symmetric": False}),
    "minmax": (CalibrationMethod.MinMax, {}),
}
"""Ways to find the range of each layer's output; the one that changes fewest mask pixels is taken.

On a first net, masks of 197 scenes reached an IoU of 0.993, 0.992 and 0.990 with the float net's;
with entropy, left out here, 0.977 to 0.988 by what tiles were drawn, in three times the time."""

QUANTISED_OPS = ["Conv", "Relu", "MaxPool", "Resize", "Add", "Concat"]

LOGITS = 6.0
"""Logits end at -6 and 6, probability 0.0025 and 0.9975: steps are finer where masks part."""

MOST_FLOAT = 3
"""Layers that the search keeps in float at most."""


@dataclass(frozen=True)
class QuantiseOptions:
    """What an INT8 file must reach to be published, and how it is made.

    Attributes
    ----------
    min_iou
        Intersection over union of its cloud masks with those of the float net, at least.
    max_loss
        How much lower its cloud IoU with the labels may be.
    float_layers
        Layers to keep in float.
    overwrite
        Replace the output where it exists.
    """

    min_iou: float = 0.97
    max_loss: float = 0.005
    float_layers: tuple[str, ...] = ()
    overwrite: bool = False


@dataclass(frozen=True)
class Agreement:
    """How masks of an INT8 net compare with those of the float net, and both with the labels.

    Attributes
    ----------
    masks
        Pixels of the two nets' masks; the float net's count as truth.
    float_net, int8_net
        Pixels of each net's masks against the labels.
    """

    masks: Confusion
    float_net: Confusion
    int8_net: Confusion

    @classmethod
    def of(cls, before: Mask, after: Mask, truth: Mask) -> Agreement:
        """Count the masks of the float and the INT8 net, and the labels, of one place."""
        return cls(
            Confusion.of(before, after), Confusion.of(truth, before), Confusion.of(truth, after)
        )

    def __add__(self, other: Agreement) -> Agreement:
        return Agreement(
            self.masks + other.masks,
            self.float_net + other.float_net,
            self.int8_net + other.int8_net,
        )

    @property
    def loss(self) -> float | None:
        """How much lower the cloud IoU with the labels is; None where they hold no cloud."""
        before, after = self.float_net.iou, self.int8_net.iou
        return None if before is None or after is None else before - after

    def fault(self, options: QuantiseOptions) -> str | None:
        """Return why the INT8 net is not fit to be published; None where it is."""
        iou, loss = self.masks.iou, self.loss
        if iou is None:
            return "neither net finds cloud in the data, which proves nothing; add cloudy scenes"
        if iou < options.min_iou:
            return (
                f"its masks reach an IoU of {iou:.3f} with those of the float net, less than the "
                f"{options.min_iou:g} of --min-iou"
            )
        if loss is not None and loss > options.max_loss:
            return (
                f"its cloud IoU with the labels is lower by {loss:.4f}, more than the "
                f"{options.max_loss:g} of --max-loss"
            )
        return None


@dataclass(frozen=True)
class Quantised:
    """What was published.

    Attributes
    ----------
    agreement
        With the float net, over all of the data.
    comparison
        Of the file's probe, replayed.
    calibration
        One of `CALIBRATIONS`.
    float_layers
        Layers kept in float.
    """

    agreement: Agreement
    comparison: Comparison
    calibration: str
    float_layers: tuple[str, ...]


def quantise(
    source: Path,
    dataset: DataSet,
    output: Path,
    options: QuantiseOptions | None = None,
    on_progress: Progress | None = None,
) -> Quantised:
    """Make an INT8 file of a float one, compare their masks, and only then give it its name.

    Static quantisation with quantise and dequantise nodes (QDQ): activations are uint8; weights
    are int8, a scale for each output channel, and use 7 bits. CPUs without VNNI add products in
    pairs in 16 bits, where 8-bit weights overflow (with them, up to 63 % of a layer's outputs would
    be off by more than a step there); 7-bit ones cannot, so answers are the same on any CPU, at the
    same speed and 0.0007 less mask IoU. int8 activations halve the speed. Where a bar is missed,
    layers that cost most are kept in float, up to `MOST_FLOAT`.

    Parameters
    ----------
    source
        An ONNX file of the "nhwc" contract, as `cloudnet export` wrote it, or the name of a shipped
        model.
    dataset
        Labelled scenes of all kinds of ground and cloud, for calibration and comparison.
    output
        The INT8 file.
    options
        What it must reach.
    on_progress
        Called with the share that is done; it falls back when a layer is put back to float.

    Raises
    ------
    ComparisonError
        When the float file does not say what Keras says.
    DatasetError
        When the data hold nothing to calibrate on.
    ExportError
        When the INT8 net does not reach the bars; nothing is published.
    ModelError
        When the float file is none, or has no layer of a name.
    """
    options = options or QuantiseOptions()
    advance = on_progress or (lambda share: None)
    refuse_existing([output], options.overwrite)
    float_net = _load_float(source)
    graph = prepare(onnx.load_from_string(float_net.path.read_bytes()))
    _check_layers(options.float_layers, graph, source)
    tiles = calibration_tiles(dataset, float_net.spec.stride)
    recipe = calibrate(graph, float_net, tiles, lambda share: advance(0.4 * share))
    floats = options.float_layers
    most = min(len(floats) + MOST_FLOAT, len(layer_names(graph)))
    with whole_file(output) as scratch:
        while True:
            scratch.write_bytes(finish(recipe.make(floats), float_net, recipe, floats))
            int8_net = load_model(scratch)
            agreement = compare_nets(
                dataset, float_net, int8_net, lambda share: advance(0.4 + 0.6 * share)
            )
            fault = agreement.fault(options)
            if fault is None or len(floats) >= most:
                break
            floats = (*floats, recipe.costliest(floats))
        if fault is not None:
            raise ExportError(f"{output} is not published: {fault}")
        comparison = replay_probe(int8_net)
        comparison.require(output)
        _check_portable(int8_net, output)
    return Quantised(agreement, comparison, recipe.calibration, floats)


def _load_float(source: Path) -> CloudModel:
    """Load the float net, proven to say here what Keras says."""
    model = load_model(source)
    model.require_scenes()
    if read_probe(model).atol is not None:
        raise ModelError(f"{source} is INT8 already; give the float file that export wrote")
    replay_probe(model).require(source)
    return model


def _check_layers(names: Iterable[str], graph: Proto, source: Path) -> None:
    """Raise ModelError where a layer is none of the graph's."""
    known = layer_names(graph)
    if unknown := [name for name in names if name not in known]:
        raise ModelError(f"{source} has no layer {unknown[0]}; its layers are {', '.join(known)}")


def _check_portable(model: CloudModel, output: Path) -> None:
    """Raise ExportError where the answers hang on how onnxruntime computes them.

    Run without optimising, as floats, the net must keep to the tolerance that its probe states.
    """
    probe = read_probe(model)
    session = open_session(model.path.read_bytes(), optimised=False)
    plain = CloudModel(model.path, model.spec, session, model.sha256)
    case = compare_answers("probe", plain.run(probe.tiles), probe.answers, model.spec, INT8_ATOL)
    if not Comparison((case,), INT8_ATOL, "probe", OWN_IOU).passed:
        raise ExportError(
            f"{output} is not published: run with other kernels, its probe differs by up to "
            f"{case.largest:.2g}, more than the {INT8_ATOL:g} that another machine is allowed"
        )


@dataclass(frozen=True)
class Recipe:
    """All that an INT8 net is made of, and what the float net says of the calibration tiles.

    Attributes
    ----------
    graph
        A prepared graph.
    ranges
        Of each layer's output, as onnxruntime's calibrators give them.
    calibration
        Which of `CALIBRATIONS` found them.
    spec
        Of the float net.
    tiles, wanted
        Calibration tiles and the float net's answers.
    """

    graph: Proto
    ranges: Ranges
    calibration: str
    spec: Spec
    tiles: Tiles
    wanted: NDArray[np.float32]

    def make(self, floats: Sequence[str] = ()) -> Proto:
        """Return the INT8 net, with these layers kept in float."""
        quantizer = QDQQuantizer(
            copy.deepcopy(self.graph),
            per_channel=True,
            reduce_range=True,
            weight_qType=QuantType.QInt8,
            activation_qType=QuantType.QUInt8,
            tensors_range=self.ranges,
            nodes_to_quantize=[],
            nodes_to_exclude=[*fixed_layers(self.graph), *floats],
            op_types_to_quantize=QUANTISED_OPS,
            extra_options={"TensorQuantOverrides": self._fixed_ranges()},
        )
        quantizer.quantize_model()
        quantizer.model.topological_sort()
        model = quantizer.model.model
        refine(model.graph, floats, from_zero=self.spec.reflectance_range[0] == 0.0)
        return model

    def _fixed_ranges(self) -> dict[str, list[dict[str, Any]]]:
        """Return the ranges of the input and of ratios, which are known, and that of the logits."""
        graph = self.graph.graph
        known = constants(graph)
        bounds: dict[str, Any] = {
            node.output[0]: [known[name] for name in node.input[1:]]
            for node in graph.node
            if node.op_type == "Clip"
        }
        if chain := input_chain(graph):
            bounds[chain[-1].output[0]] = gain(graph) * np.array(self.spec.reflectance_range)
        logits = [node for node in graph.node if node.op_type == "Conv"][-1].output[0]
        bounds[logits] = np.clip(np.ravel(self.ranges[logits].range_value), -LOGITS, LOGITS)
        return {
            name: [{"rmin": np.float32(low), "rmax": np.float32(high)}]
            for name, (low, high) in bounds.items()
        }

    def disagreement(self, floats: Sequence[str] = ()) -> float:
        """Return the share of cloud on the calibration tiles that one net alone finds."""
        after = run_graph(self.make(floats), self.tiles) >= self.spec.threshold
        before = self.wanted >= self.spec.threshold
        return int((after != before).sum()) / max(int((after | before).sum()), 1)

    def costliest(self, floats: Sequence[str]) -> str:
        """Return the layer that, kept in float besides `floats`, brings the masks closest."""
        others = [name for name in layer_names(self.graph) if name not in floats]
        return min(others, key=lambda name: self.disagreement((*floats, name)))


def calibrate(graph: Proto, float_net: CloudModel, tiles: Tiles, on_progress: Progress) -> Recipe:
    """Return the recipe whose ranges, of all `CALIBRATIONS`, change fewest mask pixels.

    Raises
    ------
    ExportError
        When the prepared graph is not the same net any more.
    """
    wanted = np.concatenate([float_net.run(batch) for batch in batches(tiles)])
    _check_prepared(graph, tiles[:BATCH], wanted[:BATCH], float_net.path)
    recipes = []
    for name, (method, settings) in CALIBRATIONS.items():
        ranges = find_ranges(graph, tiles, method, settings)
        recipes.append(Recipe(graph, ranges, name, float_net.spec, tiles, wanted))
        on_progress(len(recipes) / len(CALIBRATIONS))
    return min(recipes, key=Recipe.disagreement)


def _check_prepared(graph: Proto, tiles: Tiles, wanted: NDArray[np.float32], source: Path) -> None:
    """Raise ExportError where a prepared graph does not say what it said before."""
    try:
        same = np.allclose(run_graph(graph, tiles), wanted, atol=DEFAULT_ATOL)
        cause = None
    except Exception as error:  # onnxruntime's errors share no base but Exception
        same, cause = False, error
    if not same:
        raise ExportError(f"{source} is no graph that can be made INT8; export it again") from cause


def find_ranges(graph: Proto, tiles: Tiles, method: Any, settings: Mapping[str, Any]) -> Ranges:
    """Run onnxruntime's calibrator over tiles, batch by batch, and return each output's range."""
    name = graph.graph.input[0].name
    # The calibrators print what they do.
    with tempfile.TemporaryDirectory(prefix="cloudnet-") as folder, redirect_stdout(io.StringIO()):
        file = Path(folder, "float.onnx")
        onnx.save(graph, file)
        calibrator = create_calibrator(
            file,
            QUANTISED_OPS,
            augmented_model_path=str(Path(folder, "all_outputs.onnx")),
            calibrate_method=method,
            extra_options=dict(settings),
        )
        for batch in batches(tiles):
            calibrator.collect_data(_Feed({name: batch}))
        return calibrator.compute_data()


class _Feed:
    """One batch, as onnxruntime's calibrators ask for it."""

    def __init__(self, batch: dict[str, Tiles]) -> None:
        self._batches = iter([batch])

    def get_next(self) -> dict[str, Tiles] | None:
        """Return the batch, then None."""
        return next(self._batches, None)


def run_graph(model: Proto, tiles: Tiles) -> NDArray[np.float32]:
    """Run a graph on tiles."""
    session = open_session(model.SerializeToString())
    name = session.get_inputs()[0].name
    return np.concatenate([session.run(None, {name: batch})[0] for batch in batches(tiles)])


def finish(model: Proto, float_net: CloudModel, recipe: Recipe, floats: Sequence[str]) -> bytes:
    """Give an INT8 graph its metadata and its probe, have onnx check it, and return the file.

    The halo becomes the exact one: what a smaller one lets through as 1e-3 of probability is, once
    rounded to steps, 0.02.

    Raises
    ------
    ExportError
        When onnx finds a fault.
    """
    spec = float_net.spec
    spec = replace(spec, name=f"{spec.name}{SUFFIX}", halo_px=spec.exact_halo_px)
    tiles = read_probe(float_net).tiles
    origin = {
        "float_sha256": float_net.sha256,
        "calibration": recipe.calibration,
        "calibration_tiles": len(recipe.tiles),
        "float_layers": list(floats),
    }
    properties = {
        SPEC_KEY: spec.to_json(),
        PROBE_KEY: Probe(tiles, run_graph(model, tiles), INT8_ATOL).to_text(),
        FACTS_KEY: float_net.metadata.get(FACTS_KEY, "{}"),
        QUANTISED_KEY: json.dumps(origin),
    }
    return serialise(model, properties, spec.version)


def compare_nets(
    dataset: DataSet, float_net: CloudModel, int8_net: CloudModel, on_progress: Progress
) -> Agreement:
    """Run both nets over every scene, tile by tile, and compare their masks and the labels.

    Both with one size of tile and the exact halo, so that their tiles are the same.
    """
    agreement = Agreement(Confusion(), Confusion(), Confusion())
    for number, labelled in enumerate(dataset.scenes, start=1):
        with ExitStack() as closed:
            streams = [_masks(net, labelled, closed) for net in (float_net, int8_net)]
            for (window, before, _), (_, after, _) in zip(*streams, strict=True):
                truth = labelled.read_mask(window)
                agreement += Agreement.of(float_net.mask(before), int8_net.mask(after), truth)
        on_progress(number / len(dataset.scenes))
    return agreement


def _masks(
    net: CloudModel, labelled: LabelledScene, closed: ExitStack
) -> Iterator[tuple[Window, Probability, Reflectance]]:
    """Stream a scene, opened anew: streams read by threads of their own."""
    scene = closed.enter_context(labelled.open())
    stream = net.stream(scene, (scene.rows, scene.cols), tile_px=COMPARED_TILE_PX, exact=True)
    return closed.enter_context(closing(stream))
