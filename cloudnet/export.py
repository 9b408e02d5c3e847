"""Export: from a run to an ONNX file that was compared with Keras before anyone sees it."""

from __future__ import annotations

import subprocess
import sys
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import onnx
import tensorflow as tf
from keras.export import ExportArchive
from numpy.typing import NDArray

from cloudnet.compare import (
    DEFAULT_ATOL,
    FIXED_PX,
    Comparison,
    compare_with_keras,
    keras_answer,
    replay_probe,
    to_contract,
)
from cloudnet.errors import ExportError
from cloudnet.files import refuse_existing, whole_file
from cloudnet.float_graph import tidy
from cloudnet.model import config_of, load_net, measure, read_keras_spec
from cloudnet.probe import Probe, read_probe_tiles
from cloudnet.run import Run, find_net
from cloudnet.runtime import FACTS_KEY, PROBE_KEY, load_model
from cloudnet.spec import CONTRACT_NCHW_224, CONTRACT_NHWC, SPEC_KEY, Spec

Tiles: TypeAlias = NDArray[np.float32]
Proto: TypeAlias = Any

OPSET = 18
MAX_MB = 250.0
MEGABYTE = 1_000_000

INPUT_NAME = "reflectance"
OUTPUT_NAMES = {CONTRACT_NHWC: "cloud_probability", CONTRACT_NCHW_224: "cloud_mask"}
DIMENSIONS = {
    CONTRACT_NHWC: (("batch", "height", "width", None), ("batch", "height", "width", None)),
    CONTRACT_NCHW_224: (("batch", None, None, None), ("batch", None, None)),
}
"""Names of the free dimensions of input and output; None: fixed."""

CHANNEL_AXIS = "channel_axis"
"""Name of the axis that `give_channel_axis` puts last."""


def export_onnx(
    run_folder: Path,
    output: Path,
    *,
    contract: str = CONTRACT_NHWC,
    max_mb: float = MAX_MB,
    atol: float = DEFAULT_ATOL,
    overwrite: bool = False,
) -> Comparison:
    """Export a run as ONNX, compare it with Keras, and only then give it its name.

    Parameters
    ----------
    run_folder
        A run with a net and its probe tiles, or the net's file in it.
    output
        The ONNX file.
    contract
        One of `spec.CONTRACTS`.
    max_mb
        Largest file that is published, in 10^6 bytes.
    atol
        Largest difference of probability that passes.
    overwrite
        Replace `output` where it exists.

    Returns
    -------
    The comparison, which passed.

    Raises
    ------
    ComparisonError
        When the ONNX file does not say what Keras says; nothing is published.
    ExportError
        When the conversion fails or the file is too large.
    """
    refuse_existing([output], overwrite)
    net = find_net(run_folder)
    spec = replace(read_keras_spec(net), contract=contract)
    probe_tiles = read_probe_tiles(Run(net.parent).probe_tiles_file)
    with whole_file(output) as scratch:
        graph = convert(net, spec)
        answers = keras_answer(net, spec, atol)(to_contract(probe_tiles, spec))
        finish(graph, spec, Probe(probe_tiles, answers), _facts_of(net))
        scratch.write_bytes(graph.SerializeToString())
        size_mb = scratch.stat().st_size / MEGABYTE
        if size_mb > max_mb:
            raise ExportError(
                f"{output} would have {size_mb:.2f} MB, more than the {max_mb:g} MB of --max-mb"
            )
        model = load_model(scratch)
        comparison = compare_with_keras(model, net, [probe_tiles], atol)
        comparison = replace(
            comparison, cases=(*replay_probe(model, atol).cases, *comparison.cases)
        )
        comparison.require(output)
    return comparison


def convert(net: Path, spec: Spec) -> Proto:
    """Convert a `.keras` file to a tidy ONNX graph of the spec's contract, by way of a SavedModel.

    tf2onnx has no public Python call for a SavedModel, and `from_keras` is broken for some Keras 3
    models (tf2onnx issues 2329, 2348), so its command line is run.

    Raises
    ------
    ExportError
        When tf2onnx fails; the message ends with its last line.
    """
    with tempfile.TemporaryDirectory(prefix="cloudnet-") as folder:
        saved_model, onnx_file = Path(folder, "saved_model"), Path(folder, "model.onnx")
        write_saved_model(net, spec, saved_model)
        command = [sys.executable, "-m", "tf2onnx.convert", "--saved-model", str(saved_model)]
        command += ["--opset", str(OPSET), "--output", str(onnx_file)]
        result = subprocess.run(command, capture_output=True, text=True, check=False)
        if result.returncode or not onnx_file.exists():
            lines = result.stderr.strip().splitlines() or ["no message"]
            raise ExportError(f"tf2onnx cannot convert {net}: {lines[-1]}")
        model = onnx.load(onnx_file)
    if spec.contract == CONTRACT_NHWC:
        give_channel_axis(model.graph)
    tidy(model.graph)
    return model


def give_channel_axis(graph: Proto) -> None:
    """Turn an answer of (batch, height, width) to (batch, height, width, 1)."""
    (answer,) = graph.output
    (maker,) = (node for node in graph.node if answer.name in node.output)
    maker.output[0] = f"{answer.name}_plane"
    axis = onnx.numpy_helper.from_array(np.array([3], np.int64), CHANNEL_AXIS)
    graph.initializer.append(axis)
    inputs = [maker.output[0], CHANNEL_AXIS]
    graph.node.append(onnx.helper.make_node("Unsqueeze", inputs, [answer.name]))
    answer.type.tensor_type.shape.dim.add().dim_value = 1


def write_saved_model(net: Path, spec: Spec, folder: Path) -> None:
    """Write a SavedModel whose one signature is the spec's contract, but for a last axis of one.

    That axis is put back by `give_channel_axis`. tf2onnx 1.17 turns a last axis of one to its place
    by a reshape of unknown sizes, then by a reshape and a squeeze. Where it has removed the
    graph's last Identity before, as in one conversion of fifty, nothing reads that reshape, and the
    squeeze is lost (`ReshapeOptimizer`, `Graph.insert_node_on_output`): five sides, not four.
    """
    network = load_net(net)
    bands = len(spec.bands)

    def probability(reflectance: tf.Tensor) -> dict[str, tf.Tensor]:
        answer = network(reflectance, training=False)
        return {OUTPUT_NAMES[CONTRACT_NHWC]: tf.squeeze(answer, axis=3)}

    def mask(reflectance: tf.Tensor) -> dict[str, tf.Tensor]:
        answer = network(tf.transpose(reflectance, [0, 2, 3, 1]), training=False)
        cloud = tf.cast(answer[..., 0] >= spec.threshold, tf.uint8)
        return {OUTPUT_NAMES[spec.contract]: cloud}

    if spec.contract == CONTRACT_NHWC:
        signature, function = tf.TensorSpec((None, None, None, bands), name=INPUT_NAME), probability
    else:
        shape = (None, bands, FIXED_PX, FIXED_PX)
        signature, function = tf.TensorSpec(shape, name=INPUT_NAME), mask
    archive = ExportArchive()
    archive.track(network)
    archive.add_endpoint("serve", function, input_signature=[signature])
    archive.write_out(folder, verbose=False)


def finish(graph: Proto, spec: Spec, probe: Probe, facts: str) -> None:
    """Name the dimensions of a converted graph, give it its metadata, and have onnx check it.

    Raises
    ------
    ExportError
        When the graph's input and output are not those of the contract, or onnx finds a fault.
    """
    ends = [graph.graph.input, graph.graph.output]
    names = [[value.name for value in end] for end in ends]
    if names != [[INPUT_NAME], [OUTPUT_NAMES[spec.contract]]]:
        raise ExportError(f"tf2onnx named input and output {names}, not as the contract asks")
    # What lies between keeps no shape: tf2onnx's own dimension names would contradict ours.
    del graph.graph.value_info[:]
    for (value,), dimensions in zip(ends, DIMENSIONS[spec.contract]):
        shape = value.type.tensor_type.shape.dim
        if len(shape) != len(dimensions):
            found = [dimension.dim_param or dimension.dim_value for dimension in shape]
            raise ExportError(
                f"tf2onnx gave {value.name} the shape {found}, not one of {len(dimensions)} sides"
            )
        for dimension, name in zip(shape, dimensions):
            if name:
                dimension.dim_param = name
    graph.producer_name = "cloudnet"
    graph.producer_version = spec.version
    graph.doc_string = (
        "Probability of cloud of Sentinel-2 reflectance (1.0 = 100 %): "
        f"bands {', '.join(spec.bands)}; contract {spec.contract}"
    )
    onnx.helper.set_model_props(
        graph, {SPEC_KEY: spec.to_json(), PROBE_KEY: probe.to_text(), FACTS_KEY: facts}
    )
    try:
        onnx.checker.check_model(graph, full_check=True)
    except (onnx.checker.ValidationError, onnx.shape_inference.InferenceError) as error:
        raise ExportError(f"onnx finds a fault in the converted graph: {error}") from error


def _facts_of(net: Path) -> str:
    """Return what a net costs, as JSON."""
    return measure(config_of(load_net(net))).to_json()
