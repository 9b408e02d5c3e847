"""INT8 graph: what is done to an ONNX graph before and after onnxruntime quantises it."""

from __future__ import annotations

import copy
import re
from collections.abc import Mapping, Sequence
from typing import Any, TypeAlias

import numpy as np
import onnx

from cloudnet.errors import ExportError
from cloudnet.float_graph import (
    DOUBLING,
    SHAPING,
    Proto,
    constants,
    double_by_constants,
    gain,
    input_chain,
    makers,
    prune,
    replace_nodes,
    unflatten_bands,
    users,
)

Step: TypeAlias = tuple[str, list[str], str, dict[str, Any]]
"""A node: what it does, its inputs, its output, its attributes."""

RATIOS_LAYER = "ratios"
"""Layer of ratios of bands: convolutions too, but ones whose weights are no result of training.
They stay in float: their answers are small differences of large numbers."""


def prepare(model: Proto) -> Proto:
    """Return a copy whose convolutions bear the names of their layers and shapes are known.

    Doublings are by constants, also in files of before 1.1, and bands have an axis of their own.
    onnxruntime's own `quant_pre_process` changes nothing in these graphs.
    """
    model = copy.deepcopy(model)
    graph = model.graph
    part_depthwise(graph)
    names = _names_of_layers(graph)
    for node in graph.node:
        node.name = names.get(node.output[0], node.name)
    double_by_constants(graph)
    unflatten_bands(graph)
    return onnx.shape_inference.infer_shapes(model)


def part_depthwise(graph: Proto) -> None:
    """Put channels side by side after a depthwise convolution that takes them so, not before.

    Each channel is for itself there; and after it none is clipped at 0, so that all can have one
    scale (`share_scales`).
    """
    readers, known = users(graph), constants(graph)
    for whole in [node for node in graph.node if node.op_type == "Concat"]:
        following = readers[whole.output[0]]
        if [node.op_type for node in following] != ["Conv"] or len(following[0].input) != 2:
            continue
        (convolution,) = following
        settings = {e.name: onnx.helper.get_attribute_value(e) for e in convolution.attribute}
        weights = known[convolution.input[1]]
        sizes = _channels(graph, whole.input)
        if settings.get("group") != len(weights) or sum(sizes) != len(weights):
            continue
        parted, begin = [], 0
        for number, (name, size) in enumerate(zip(whole.input, sizes)):
            own, made = (f"{of}_{number}" for of in (convolution.input[1], convolution.output[0]))
            part = np.ascontiguousarray(weights[begin : begin + size])
            graph.initializer.append(onnx.numpy_helper.from_array(part, own))
            some = {**settings, "group": size}
            parted.append(
                onnx.helper.make_node("Conv", [name, own], [made], convolution.name, **some)
            )
            begin += size
        outputs = [node.output[0] for node in parted]
        beside = onnx.helper.make_node("Concat", outputs, convolution.output[:], whole.name, axis=1)
        replace_nodes(graph, [whole, convolution], [*parted, beside])
    prune(graph)


def _channels(graph: Proto, names: Sequence[str]) -> list[int]:
    """Return how many channels each tensor has that a convolution made; 0 where none did."""
    producers, known = makers(graph), constants(graph)
    sizes = []
    for name in names:
        node = producers.get(name)
        if node is not None and node.op_type == "Relu":
            node = producers.get(node.input[0])
        sizes.append(len(known[node.input[1]]) if node and node.op_type == "Conv" else 0)
    return sizes


def layer_names(graph: Proto) -> list[str]:
    """Return the names of the layers of a prepared graph that can be INT8 or kept in float."""
    fixed = fixed_layers(graph)
    names = [node.name for node in graph.graph.node if node.op_type == "Conv"]
    return [name for name in names if name not in fixed]


def fixed_layers(graph: Proto) -> list[str]:
    """Return the names of the convolutions of a prepared graph that stay in float always."""
    names = [node.name for node in graph.graph.node if node.op_type == "Conv"]
    return [name for name in names if re.fullmatch(rf"{RATIOS_LAYER}(_\d+)?", name)]


def _names_of_layers(graph: Proto) -> dict[str, str]:
    """Return the name of each convolution's layer, by its output.

    tf2onnx keeps Keras's name in the path of a node, "…/up0_project_1/BiasAdd", but not where it
    folds the normalisation: then that of the activation that follows is taken, without "_relu".
    The second convolution of a layer gets a number.
    """
    readers = users(graph)
    names: dict[str, str] = {}
    for node in graph.node:
        if node.op_type != "Conv":
            continue
        paths = [node.name, *(user.name for user in readers[node.output[0]])]
        path = next((path for path in paths if "/" in path), node.name)
        name = re.sub(r"_(relu|norm)$", "", _layer_of(path))
        taken = sum(re.fullmatch(rf"{name}(_\d+)?", other) is not None for other in names.values())
        names[node.output[0]] = f"{name}_{taken + 1}" if taken else name
    return names


def _layer_of(path: str) -> str:
    """Return Keras's name in the path of a node, which tf2onnx numbers and may take apart."""
    *parts, last = path.split("/")
    layers = [part for part in parts if re.search(r"_\d+$", part)] or parts or [last]
    return re.sub(r"_\d+$", "", layers[-1]) if parts else last


def refine(graph: Proto, floats: Sequence[str], *, from_zero: bool) -> None:
    """Do to a quantised graph all that follows, from guarding floats to shorter names.

    Parameters
    ----------
    graph
        As onnxruntime quantised it; is changed.
    floats
        Layers kept in float.
    from_zero
        Whether the input is clipped at 0 below; only then can the clipping be folded.
    """
    guard_floats(graph, floats)
    if from_zero:
        fold_clipping(graph)
    pair_columns(graph)
    share_scales(graph)
    join_bytes(graph)
    mix_logarithms(graph)
    double_in_place(graph)
    spread_bytes(graph)
    shorten_names(graph)


def guard_floats(graph: Proto, floats: Sequence[str]) -> None:
    """Guard layers in float from onnxruntime, which would quantise them after all.

    From 1.21 on it does so, with one scale for the whole layer, wherever a convolution stands
    between dequantise and quantise and the former has a single scale. So a guarded layer gets a
    dequantise node of its own, with the same scale once for each channel.
    """
    producers, known = makers(graph), constants(graph)
    for node in [node for node in graph.node if node.name in floats]:
        before = producers.get(node.input[0])
        if before is None or before.op_type != "DequantizeLinear":
            continue
        groups = next((entry.i for entry in node.attribute if entry.name == "group"), 1)
        channels = known[node.input[1]].shape[1] * groups
        inputs = [before.input[0]]
        for name in before.input[1:]:
            inputs.append(f"{name}_of_{node.name}")
            each = np.full(channels, known[name])
            graph.initializer.append(onnx.numpy_helper.from_array(each, inputs[-1]))
        output = f"{node.name}_input"
        guard = onnx.helper.make_node("DequantizeLinear", inputs, [output], axis=1)
        graph.node.insert(list(graph.node).index(node), guard)
        node.input[0] = output
    prune(graph)


def fold_clipping(graph: Proto) -> None:
    """Quantise the input at once, where it was clipped and scaled as floats before.

    The quantised range begins at 0 and ends where the graph clips: numbers beyond are saturated,
    which is clipping, and the gain goes into the scale. Answers stay the same bits. Where the first
    convolution is in float nothing is done.
    """
    chain = input_chain(graph)
    readers = users(graph)[chain[-1].output[0]] if chain else []
    if [node.op_type for node in readers] != ["QuantizeLinear"]:
        return
    (quantize,) = readers
    scale = constants(graph)[quantize.input[1]] / np.float32(gain(graph))
    turns = [node for node in chain if node.op_type == "Transpose"]
    for node in chain:
        if node not in turns:
            graph.node.remove(node)
    graph.initializer.append(onnx.numpy_helper.from_array(scale, "input_scale"))
    names = [graph.input[0].name, *(f"input_{number}" for number in range(len(turns)))]
    names.append(quantize.output[0])
    for node, name, following in zip([quantize, *turns], names, names[1:]):
        node.input[0], node.output[0] = name, following
    quantize.input[1] = "input_scale"
    graph.node.remove(quantize)
    graph.node.insert(0, quantize)


def pair_columns(graph: Proto) -> None:
    """Let the first convolution, of 3 x 3 pixels and stride 2, take its columns by twos.

    Two pixels that lie side by side are one of twice the bands, without a copy, so that onnxruntime
    gathers six runs of 8 bytes for an answer, not nine of 4; the weights of each fourth column are
    0. That saves some 7 % of the net's time and gives the same bits. Where the convolution is
    another, or does not read bytes, nothing is done.
    """
    producers, readers, known = makers(graph), users(graph), constants(graph)
    scene = readers[graph.input[0].name]
    quantize = next((node for node in scene if node.op_type == "QuantizeLinear"), None)
    if quantize is None:
        return
    (turn,) = readers[quantize.output[0]]
    (bytes_read,) = readers[turn.output[0]]
    (convolution,) = readers[bytes_read.output[0]]
    settings = {entry.name: entry for entry in convolution.attribute}
    weights = producers.get(convolution.input[1])
    if weights is None or weights.op_type != "DequantizeLinear" or "pads" not in settings:
        return
    kernel = known[weights.input[0]]
    shape = [list(settings[name].ints) for name in ("kernel_shape", "strides", "pads")]
    if turn.op_type != "Transpose" or shape != [[3, 3], [2, 2], [0, 0, 1, 1]]:
        return
    filters, bands, rows, _ = kernel.shape
    padded = np.pad(kernel, [(0, 0), (0, 0), (0, 0), (0, 1)])
    pairs = padded.reshape(filters, bands, rows, 2, 2).transpose(0, 4, 1, 2, 3)
    pairs = np.ascontiguousarray(pairs.reshape(filters, 2 * bands, rows, 2))
    numbers = {"pairs": np.array([0, 0, -1, 2 * bands], np.int64), "pair_weights": pairs}
    for name, array in numbers.items():
        graph.initializer.append(onnx.numpy_helper.from_array(array, name))
    weights.input[0] = "pair_weights"
    settings["kernel_shape"].ints[:], settings["strides"].ints[:] = [3, 2], [2, 1]
    paired = onnx.helper.make_node("Reshape", [turn.input[0], "pairs"], ["paired"])
    graph.node.insert(list(graph.node).index(turn), paired)
    turn.input[0] = "paired"
    prune(graph)


def share_scales(graph: Proto) -> None:
    """Quantise what is put side by side in the scale of the whole.

    Bytes are copied then, where onnxruntime turned each from one scale into another: a tenth of the
    net's time. They were rounded to that scale anyway, after another one. What begins at 0 is left
    as it is where the whole does not: its clipping is in its scale.
    """
    producers, readers, known = makers(graph), users(graph), constants(graph)
    for whole in [node for node in graph.node if node.op_type == "Concat"]:
        before = [producers.get(name) for name in whole.input]
        after = readers[whole.output[0]]
        parts = [node for node in before if node and node.op_type == "DequantizeLinear"]
        if len(parts) < len(before) or [node.op_type for node in after] != ["QuantizeLinear"]:
            continue
        shared = list(after[0].input[1:])
        for part in parts:
            quantize = producers.get(part.input[0])
            alone = len(readers[part.input[0]]) == len(readers[part.output[0]]) == 1
            if quantize is None or quantize.op_type != "QuantizeLinear" or not alone:
                continue
            if known[part.input[2]] != 0 or known[shared[1]] == 0:
                quantize.input[1:] = part.input[1:] = shared
    prune(graph)


def join_bytes(graph: Proto) -> None:
    """Put bytes of one scale side by side, last, as they are.

    onnxruntime would look each up in a table of its scale: 3 % of the net's time.
    """
    producers, readers, known = makers(graph), users(graph), constants(graph)
    for whole in [node for node in graph.node if node.op_type == "Concat"]:
        parts = [producers[name] for name in whole.input if name in producers]
        after = readers[whole.output[0]]
        kinds = [node.op_type for node in (*parts, *after)]
        if kinds != ["DequantizeLinear"] * len(whole.input) + ["QuantizeLinear"]:
            continue
        if len({(*(known[name].item() for name in n.input[1:]),) for n in (*parts, *after)}) > 1:
            continue
        made = whole.output[0]
        turned = [f"{made}_last_{number}" for number in range(len(parts))]
        steps: list[Step] = [
            ("Transpose", part.input[:1], name, {"perm": [0, 2, 3, 1]})
            for part, name in zip(parts, turned)
        ]
        steps.append(("Concat", turned, f"{made}_last", {"axis": 3}))
        steps.append(("Transpose", [f"{made}_last"], after[0].output[0], {"perm": [0, 3, 1, 2]}))
        replace_nodes(graph, [whole, after[0]], _chain(steps))
    prune(graph)


def mix_logarithms(graph: Proto) -> None:
    """Make contrasts of the bands' logarithms by a product of matrices.

    As a convolution of four channels it is computed as one of sixteen, and put in order again: 3 %
    of the net's time.
    """
    producers, known = makers(graph), constants(graph)
    for node in [node for node in graph.node if node.op_type == "Conv"]:
        logarithms, weights = producers.get(node.input[0]), known.get(node.input[1])
        if logarithms is None or logarithms.op_type != "Log" or weights is None:
            continue
        if weights.shape[2:] != (1, 1) or weights.shape[1] == 1 or len(node.input) > 2:
            continue
        names = {end: f"{node.output[0]}_{end}" for end in ("mix", "flat", "size", "in", "out")}
        for end, array in (("mix", weights[..., 0, 0]), ("flat", np.array([0, 0, -1], np.int64))):
            tensor = onnx.numpy_helper.from_array(np.ascontiguousarray(array), names[end])
            graph.initializer.append(tensor)
        steps: list[Step] = [
            ("Shape", node.input[:1], names["size"], {}),
            ("Reshape", [node.input[0], names["flat"]], names["in"], {}),
            ("MatMul", [names["mix"], names["in"]], names["out"], {}),
            ("Reshape", [names["out"], names["size"]], node.output[0], {}),
        ]
        replace_nodes(graph, [node], _chain(steps))
    prune(graph)


def double_in_place(graph: Proto) -> None:
    """Double uint8 cells by copying, where a resize stands between dequantise and quantise.

    onnxruntime computes INT8 convolutions with channels last, where its resize looks each cell up
    by itself: 19 % of the net's time. Here cells are copied twice within a row, then rows twice,
    which takes a ninth of that and gives the same bits.
    """
    producers, readers = makers(graph), users(graph)
    for name, numbers in (("rows_apart", [0, 0, 1, -1]), ("twice", [1, 2, 2, 1])):
        graph.initializer.append(onnx.numpy_helper.from_array(np.array(numbers, np.int64), name))
    for resize in [node for node in graph.node if DOUBLING in node.input]:
        before, after = producers[resize.input[0]], readers[resize.output[0]]
        kinds = [before.op_type, *(node.op_type for node in after)]
        if kinds != ["DequantizeLinear", "QuantizeLinear"]:
            continue
        at = list(graph.node).index(resize)
        for node in reversed(_doubling(before.input[0], after[0].output[0])):
            graph.node.insert(at, node)
        graph.node.remove(resize)
        graph.node.remove(after[0])
    prune(graph)


def _doubling(cells: str, doubled: str) -> list[Proto]:
    """Return the nodes that double uint8 cells (batch, channels, height, width) in both ways."""

    def name(step: str) -> str:
        return f"{doubled}_{step}"

    steps: list[Step] = [
        ("Transpose", [cells], name("last"), {"perm": [0, 2, 3, 1]}),
        ("Concat", [name("last"), name("last")], name("pairs"), {"axis": 3}),
        ("Reshape", [name("pairs"), "rows_apart"], name("rows"), {}),
        ("Concat", [name("rows"), name("rows")], name("both"), {"axis": 2}),
        ("Shape", [name("last")], name("size"), {}),
        ("Mul", [name("size"), "twice"], name("new_size"), {}),
        ("Reshape", [name("both"), name("new_size")], name("cells"), {}),
        ("Transpose", [name("cells")], doubled, {"perm": [0, 3, 1, 2]}),
    ]
    return _chain(steps)


def _chain(steps: Sequence[Step]) -> list[Proto]:
    return [
        onnx.helper.make_node(kind, inputs, [output], **attributes)
        for kind, inputs, output, attributes in steps
    ]


def spread_bytes(graph: Proto) -> None:
    """Bring the answers of a cell to its pixels while they are bytes, not floats.

    That moves a quarter of the memory: 4 % of the net's time. Where what comes out is no scene of
    one channel nothing is done.
    """
    producers, readers, answer = makers(graph), users(graph), graph.output[0]
    sizes = [size.dim_value for size in answer.type.tensor_type.shape.dim]
    if len(sizes) != 4 or sizes[-1] != 1:
        return
    for spread in [node for node in graph.node if node.op_type == "DepthToSpace"]:
        before = producers.get(spread.input[0])
        old = [before, spread]
        following = readers[spread.output[0]]
        while len(following) == 1 and following[0].op_type in SHAPING:
            old.append(following[0])
            following = readers[following[0].output[0]]
        side = next(entry.i for entry in spread.attribute if entry.name == "blocksize")
        ends = [(node.op_type, node.output[0]) for node in following]
        if before is None or before.op_type != "DequantizeLinear" or len(old) == 2:
            continue
        if ends == [("Sigmoid", answer.name)] and _filters(graph, before.input[0]) == side**2:
            replace_nodes(graph, old, _spreading(graph, before, old[-1].output[0], side))
    prune(graph)


def _filters(graph: Proto, quantised: str) -> int:
    """Return how many channels a quantised tensor has that a convolution made; else 0."""
    producers, known = makers(graph), constants(graph)
    quantize = producers.get(quantised)
    convolution = producers.get(quantize.input[0]) if quantize else None
    if convolution is None or convolution.op_type != "Conv":
        return 0
    weights = producers.get(convolution.input[1])
    return len(known[weights.input[0]]) if weights else 0


def _spreading(graph: Proto, dequantize: Proto, answer: str, side: int) -> list[Proto]:
    """Return the nodes from bytes (batch, side², height, width) to floats (batch, side * height,
    side * width, 1)."""

    def name(step: str) -> str:
        return f"{answer}_{step}"

    numbers = {"apart": [0, 0, 0, side, side], "larger": [1, side, side, 1]}
    for step, array in {**numbers, "channels": [1, 1, 1, side**2]}.items():
        tensor = onnx.numpy_helper.from_array(np.array(array, np.int64), name(step))
        graph.initializer.append(tensor)
    steps: list[Step] = [
        ("Transpose", [dequantize.input[0]], name("last"), {"perm": [0, 2, 3, 1]}),
        ("Reshape", [name("last"), name("apart")], name("cells"), {}),
        ("Transpose", [name("cells")], name("rows"), {"perm": [0, 1, 3, 2, 4]}),
        ("Shape", [name("last")], name("cell_size"), {}),
        ("Mul", [name("cell_size"), name("larger")], name("all_size"), {}),
        ("Div", [name("all_size"), name("channels")], name("size"), {}),
        ("Reshape", [name("rows"), name("size")], name("pixels"), {}),
        ("DequantizeLinear", [name("pixels"), *dequantize.input[1:]], answer, {}),
    ]
    return _chain(steps)


def shorten_names(graph: Proto) -> None:
    """Number all that is not a layer, an input or an output: names were a seventh of the file."""
    kept = {value.name for value in (*graph.input, *graph.output)} | {""}
    short: dict[str, str] = {}

    def shorten(name: str) -> str:
        return name if name in kept else short.setdefault(name, f"t{len(short)}")

    for tensor in graph.initializer:
        tensor.name = shorten(tensor.name)
    for number, node in enumerate(graph.node):
        node.input[:] = [shorten(name) for name in node.input]
        node.output[:] = [shorten(name) for name in node.output]
        if node.op_type != "Conv":
            node.name = f"{node.op_type}{number}"


def serialise(model: Proto, properties: Mapping[str, str], version: str) -> bytes:
    """Give a model its producer and metadata, have onnx check it, and return the file.

    Raises
    ------
    ExportError
        When onnx finds a fault.
    """
    del model.graph.value_info[:]
    model.producer_name, model.producer_version = "cloudnet", version
    onnx.helper.set_model_props(model, dict(properties))
    try:
        onnx.checker.check_model(model, full_check=True)
    except (onnx.checker.ValidationError, onnx.shape_inference.InferenceError) as error:
        raise ExportError(f"onnx finds a fault in the INT8 graph: {error}") from error
    return bytes(model.SerializeToString())
