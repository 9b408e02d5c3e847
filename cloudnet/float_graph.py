"""Float graph: what is done to an ONNX graph between the converter and its file."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from math import prod
from typing import Any, TypeAlias

import numpy as np
import onnx
from numpy.typing import NDArray

Proto: TypeAlias = Any
"""A model, a graph or a node of onnx, whose classes are made at run time."""

CLIPPING = ("Min", "Max", "Clip", "Mul", "Transpose")
"""What becomes of reflectance before the first convolution."""

SHAPING = ("Reshape", "Squeeze", "Unsqueeze", "Transpose")
"""What turns the one channel of an answer to its place."""

DOUBLING = "doubling"
"""Name of the scales of a resize that repeats each cell twice both ways."""

LIMITS = ("lowest", "highest")
"""Names of what reflectance is clipped to."""

FLAT = ("flat", "flat_axis")
"""Names of the shape and the axis by which the bands of a scene come to lie along its rows."""


def tidy(graph: Proto) -> None:
    """Write a converted graph in the way that onnxruntime runs fastest; answers stay the same.

    On the first shipped net nodes other than convolutions took 38 % of the time.
    """
    double_by_constants(graph)
    clip_once(graph)
    flatten_bands(graph)
    shape_before_sigmoid(graph)


def double_by_constants(graph: Proto) -> None:
    """Make doublings resizes by a constant.

    As tf2onnx writes them, they ask a tensor for its shape; for that onnxruntime leaves its blocked
    layout, and an INT8 graph its integers.
    """
    if DOUBLING not in constants(graph):
        scales = np.array([1, 1, 2, 2], np.float32)
        graph.initializer.append(onnx.numpy_helper.from_array(scales, DOUBLING))
    for node in graph.node:
        modes = {entry.s for entry in node.attribute if entry.name == "mode"}
        if node.op_type == "Resize" and len(node.input) == 4 and modes == {b"nearest"}:
            node.input[1:] = ["", DOUBLING]
    prune(graph)


def clip_once(graph: Proto) -> None:
    """Clip in one node instead of two, Min and Max; the gain of reflectance goes into the weights.

    Each is a pass over the whole scene. What the convolution pads with is 0, with or without gain.
    """
    known, readers = constants(graph), users(graph)
    for least in [node for node in graph.node if node.op_type == "Min"]:
        following = readers[least.output[0]]
        if [node.op_type for node in following] == ["Max"]:
            _clip(graph, least, following[0], known)
    _fold_gain(graph)


def _clip(graph: Proto, least: Proto, most: Proto, known: Mapping[str, NDArray[Any]]) -> None:
    """Put a Clip in the place of a Min and the Max that follows, where both are with a number."""
    limits = [[known[name] for name in node.input if name in known] for node in (most, least)]
    if any(len(numbers) != 1 or numbers[0].size != 1 for numbers in limits):
        return
    (taken,) = (name for name in least.input if name not in known)
    names = [f"{most.output[0]}_{limit}" for limit in LIMITS]
    for name, (limit,) in zip(names, limits):
        scalar = np.asarray(limit, np.float32).reshape(())
        graph.initializer.append(onnx.numpy_helper.from_array(scalar, name))
    clip = onnx.helper.make_node("Clip", [taken, *names], most.output[:], most.name)
    replace_nodes(graph, [least, most], [clip])
    prune(graph)


def _fold_gain(graph: Proto) -> None:
    """Multiply the weights of the first convolution instead of clipped reflectance."""
    chain = input_chain(graph)
    if [node.op_type for node in chain[:2]] != ["Clip", "Mul"]:
        return
    clip, multiply = chain[:2]
    (convolution,) = users(graph)[chain[-1].output[0]]
    weights = constants(graph)[convolution.input[1]] * np.float32(gain(graph))
    clip.output[:] = multiply.output
    graph.node.remove(multiply)
    _set_weights(graph, convolution, weights)


def flatten_bands(graph: Proto) -> None:
    """Let convolutions of scenes read bands where they lie, last, without a transpose.

    In (batch, 1, height, width * bands) a kernel of k x k pixels is one of k x (k * bands), which
    moves on by as many bands as pixels before.
    """
    chain = [node for node in input_chain(graph) if node.op_type != "Transpose"]
    scenes = {graph.input[0].name, *(node.output[0] for node in chain)}
    for node in list(graph.node):
        if node.op_type == "Transpose" and node.input[0] in scenes:
            _flatten(graph, node)


def _flatten(graph: Proto, turn: Proto) -> None:
    (convolution,) = users(graph)[turn.output[0]]
    weights = constants(graph)[convolution.input[1]].transpose(0, 2, 3, 1)
    bands = weights.shape[-1]
    _set_weights(graph, convolution, weights.reshape(*weights.shape[:2], -1)[:, np.newaxis])
    _pad_by_numbers(convolution)
    _stretch(convolution, lambda columns: columns * bands)
    lying = f"{turn.output[0]}_rows"
    rows = onnx.helper.make_node("Reshape", [turn.input[0], FLAT[0]], [lying])
    plane = onnx.helper.make_node("Unsqueeze", [lying, FLAT[1]], turn.output[:])
    replace_nodes(graph, [turn], [rows, plane])
    known = constants(graph)
    for name, numbers in zip(FLAT, ([0, 0, -1], [1])):
        if name not in known:
            tensor = onnx.numpy_helper.from_array(np.array(numbers, np.int64), name)
            graph.initializer.append(tensor)


def shape_before_sigmoid(graph: Proto) -> None:
    """Give the answer its shape before the sigmoid, which comes last then.

    Between two nodes a change of shape costs nothing; the last one copies the whole scene.
    """
    producers, shaping = makers(graph), []
    node = producers[graph.output[0].name]
    while node.op_type in SHAPING and node.input[0] in producers:
        shaping.append(node)
        node = producers[node.input[0]]
    if node.op_type != "Sigmoid" or not shaping:
        return
    last, first = shaping[0], shaping[-1]
    first.input[0], node.input[0] = node.input[0], node.output[0]
    node.output[:], last.output[:] = last.output[:], node.output[:]
    graph.node.remove(node)
    graph.node.append(node)


def unflatten_bands(graph: Proto) -> None:
    """Undo `flatten_bands` for clipped reflectance, not for what ratios are made of.

    INT8 convolutions have bands last anyway, and single bytes are slow; ratios stay floats.
    """
    producers = makers(graph)
    for plane in [node for node in graph.node if FLAT[1] in node.input]:
        rows = producers[plane.input[0]]
        if rows.input[0] != graph.input[0].name:
            _unflatten(graph, rows, plane)
    prune(graph)


def _unflatten(graph: Proto, rows: Proto, plane: Proto) -> None:
    (convolution,) = users(graph)[plane.output[0]]
    weights = constants(graph)[convolution.input[1]]
    filters, _, height, _ = weights.shape
    bands = graph.input[0].type.tensor_type.shape.dim[3].dim_value
    weights = weights.reshape(filters, height, -1, bands).transpose(0, 3, 1, 2)
    _set_weights(graph, convolution, weights)
    _stretch(convolution, lambda columns: columns // bands)
    turn = onnx.helper.make_node("Transpose", rows.input[:1], plane.output[:], perm=[0, 3, 1, 2])
    replace_nodes(graph, [rows, plane], [turn])


def _pad_by_numbers(convolution: Proto) -> None:
    """Say how many zeros pad a scene whose sides are multiples of the stride, not just "same"."""
    settings = {entry.name: entry for entry in convolution.attribute}
    if "auto_pad" not in settings:
        return
    missing = [k - s for k, s in zip(settings["kernel_shape"].ints, settings["strides"].ints)]
    pads = [*(n // 2 for n in missing), *(n - n // 2 for n in missing)]
    convolution.attribute.remove(settings["auto_pad"])
    convolution.attribute.append(onnx.helper.make_attribute("pads", pads))


def _stretch(convolution: Proto, stretch: Callable[[int], int]) -> None:
    """Change what a convolution counts in columns: its kernel's width, its stride, its padding."""
    for entry in convolution.attribute:
        if entry.name in ("kernel_shape", "strides", "pads"):
            entry.ints[1::2] = [stretch(number) for number in entry.ints[1::2]]


def _set_weights(graph: Proto, convolution: Proto, weights: NDArray[Any]) -> None:
    """Give a convolution weights of its own."""
    name = f"{convolution.input[1]}_own"
    graph.initializer.append(onnx.numpy_helper.from_array(np.ascontiguousarray(weights), name))
    convolution.input[1] = name
    prune(graph)


def replace_nodes(graph: Proto, old: Sequence[Proto], new: Sequence[Proto]) -> None:
    """Put new nodes where old ones stood."""
    at = list(graph.node).index(old[0])
    for node in old:
        graph.node.remove(node)
    for node in reversed(new):
        graph.node.insert(at, node)


def input_chain(graph: Proto) -> list[Proto]:
    """Return the nodes that clip, scale and turn the input, in order.

    Ratios of bands are made of the input as it is: where several nodes read it, the chain is the
    one that clips.
    """
    readers = users(graph)
    chains = [_chain_from(node, readers) for node in readers[graph.input[0].name]]
    return max(chains, key=lambda chain: any(node.op_type in ("Max", "Clip") for node in chain))


def _chain_from(first: Proto, readers: Mapping[str, list[Proto]]) -> list[Proto]:
    following, chain = [first], []
    while len(following) == 1 and following[0].op_type in CLIPPING:
        chain.append(following[0])
        following = readers[chain[-1].output[0]]
    return chain


def gain(graph: Proto) -> float:
    """Return what reflectance is multiplied by before the first convolution; 1 where by nothing."""
    known = constants(graph)
    factors = [node.input[:] for node in input_chain(graph) if node.op_type == "Mul"]
    return prod(float(known[name]) for names in factors for name in names if name in known)


def constants(graph: Proto) -> dict[str, NDArray[Any]]:
    """Return the numbers that a graph holds, by name."""
    return {tensor.name: onnx.numpy_helper.to_array(tensor) for tensor in graph.initializer}


def users(graph: Proto) -> Mapping[str, list[Proto]]:
    """Return the nodes that take each tensor."""
    found: dict[str, list[Proto]] = defaultdict(list)
    for node in graph.node:
        for name in node.input:
            found[name].append(node)
    return found


def makers(graph: Proto) -> dict[str, Proto]:
    """Return the node that makes each tensor."""
    return {name: node for node in graph.node for name in node.output}


def prune(graph: Proto) -> None:
    """Remove nodes and numbers that no output needs."""
    needed = {value.name for value in graph.output}
    for node in reversed(list(graph.node)):
        if needed.isdisjoint(node.output):
            graph.node.remove(node)
        else:
            needed.update(node.input)
    for tensor in list(graph.initializer):
        if tensor.name not in needed:
            graph.initializer.remove(tensor)
