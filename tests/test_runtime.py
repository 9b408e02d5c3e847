"""The runtime: tiled equals whole, no data stays no data, a file that is not ours is refused."""

from __future__ import annotations

import hashlib
import json
import pickle
import threading
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from math import inf, nan
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from cloudnet.cores import usable_cores
from cloudnet.errors import ModelError
from cloudnet.mosaic import pad_mirrored
from cloudnet.runtime import (
    CloudModel,
    load_model,
    to_mask,
)
from cloudnet.scene import open_scene
from cloudnet.spec import (
    BANDS,
    CONTRACT_NCHW_224,
    PLAUSIBLE_REFLECTANCE,
    SPEC_KEY,
    Spec,
)
from cloudnet.tiles import Window, fit_tile
from tests.helpers import cloudy_scene, lopsided_scene

MEAN_SPEC = Spec("mean", "1", stride=1, halo_px=0, exact_halo_px=0)
ANY_SIZE = ("batch", "height", "width", len(BANDS))
FIXED_SIZE = ("batch", len(BANDS), 224, 224)


def write_graph(
    path: Path,
    metadata: dict[str, str] | None = None,
    *,
    inputs: Sequence[Sequence[str | int]] = (ANY_SIZE,),
    outputs: int = 1,
    number: str = "FLOAT",
) -> Path:
    """Write an ONNX file of which each output is the mean of the first input over its last axis.

    On reflectance its probability of cloud is the mean of the four bands, without any context.
    Without metadata it gets the spec that fits it.
    """
    onnx = pytest.importorskip("onnx", reason="foreign graphs are made with the train extra")
    helper, kind = onnx.helper, getattr(onnx.TensorProto, number)
    values = [
        helper.make_tensor_value_info(f"input{index}", kind, shape)
        for index, shape in enumerate(inputs)
    ]
    means = [f"output{index}" for index in range(outputs)]
    shape = [*inputs[0][:-1], 1] if inputs else [1]
    source = "input0" if inputs else "last"
    graph = helper.make_graph(
        [helper.make_node("ReduceMean", [source, "last"], [mean], keepdims=1) for mean in means],
        "mean",
        values,
        [helper.make_tensor_value_info(mean, kind, shape) for mean in means],
        [helper.make_tensor("last", onnx.TensorProto.INT64, [1], [-1])],
    )
    opset = [helper.make_opsetid("", 18)]
    model = helper.make_model(graph, opset_imports=opset, ir_version=8)
    helper.set_model_props(model, {SPEC_KEY: MEAN_SPEC.to_json()} if metadata is None else metadata)
    path.write_bytes(model.SerializeToString())
    return path


@pytest.fixture(scope="module")
def model(tiny_onnx: Path) -> CloudModel:
    """The tiny net: stride 4, a halo of 12 px."""
    return load_model(tiny_onnx)


@pytest.fixture(scope="module")
def mean_model(tmp_path_factory: pytest.TempPathFactory) -> CloudModel:
    """A net whose probability of cloud is the mean of the bands."""
    return load_model(write_graph(tmp_path_factory.mktemp("mean") / "mean.onnx"))


def scene_of(rows: int, cols: int, seed: int = 0) -> NDArray[np.float32]:
    return cloudy_scene(np.random.default_rng(seed), rows, cols)[0]


def whole(model: CloudModel, scene: NDArray[np.float32]) -> NDArray[np.float32]:
    """Run a scene through the net in one piece, padded by its mirror image to the stride."""
    rows, cols, _ = scene.shape
    missing = [(0, -rows % model.spec.stride), (0, -cols % model.spec.stride), (0, 0)]
    padded = np.pad(scene, missing, mode="symmetric")
    return np.asarray(model.run(padded[np.newaxis])[0, :rows, :cols, 0])


def with_spec(model: CloudModel, **changes: Any) -> CloudModel:
    return CloudModel(model.path, replace(model.spec, **changes), model._session, model.sha256)


def assert_one_sentence(error: BaseException, path: Path | None = None) -> None:
    """Assert that a message is one line and names the file."""
    assert "\n" not in str(error)
    assert path is None or str(path) in str(error)


@given(
    rows=st.integers(1, 75),
    cols=st.integers(1, 75),
    tile_px=st.integers(1, 90),
    seed=st.integers(0, 99),
)
def test_tiled_equals_whole(
    model: CloudModel, rows: int, cols: int, tile_px: int, seed: int
) -> None:
    scene = scene_of(rows, cols, seed)
    expected = whole(model, scene)
    exact = model.predict(scene, tile_px=tile_px, exact=True)
    assert exact.shape == (rows, cols)
    assert exact.dtype == np.float32
    np.testing.assert_allclose(exact, expected, rtol=0, atol=1e-5)
    np.testing.assert_allclose(model.predict(scene, tile_px=tile_px), expected, rtol=0, atol=1e-3)


@pytest.mark.parametrize("size", [(1, 1), (1, 50), (50, 1), (3, 3), (4, 4), (28, 28), (61, 47)])
def test_any_size_of_scene_is_covered(model: CloudModel, size: tuple[int, int]) -> None:
    scene = scene_of(*size)
    expected = whole(model, scene)
    np.testing.assert_allclose(model.predict(scene), expected, rtol=0, atol=1e-5)
    small = model.predict(scene, tile_px=1, exact=True)
    np.testing.assert_allclose(small, expected, rtol=0, atol=1e-5)


def test_without_a_halo_the_seams_would_show(model: CloudModel) -> None:
    """Or else the tests above could not fail."""
    scene = scene_of(75, 61)
    bare = with_spec(model, exact_halo_px=0)
    difference = np.abs(bare.predict(scene, tile_px=28, exact=True) - whole(model, scene))
    assert difference.max() > 1e-3


def test_exact_reads_the_wider_halo(model: CloudModel) -> None:
    scene = scene_of(75, 61)
    narrow = with_spec(model, halo_px=0)
    assert np.abs(narrow.predict(scene, tile_px=28) - whole(model, scene)).max() > 1e-3
    exact = narrow.predict(scene, tile_px=28, exact=True)
    np.testing.assert_allclose(exact, whole(model, scene), rtol=0, atol=1e-5)


def test_tiled_equals_whole_on_a_real_scene(model: CloudModel, real_scenes: Path) -> None:
    with open_scene(real_scenes / "rgbn" / "scenes" / "cr_6317_cloudy.tif") as source:
        scene, valid = source.read(Window(0, 0, 201, 187))
    assert valid.all()
    expected = whole(model, scene)
    np.testing.assert_allclose(model.predict(scene, tile_px=64, exact=True), expected, atol=1e-5)
    default = model.predict(scene, tile_px=64)
    np.testing.assert_allclose(default, expected, rtol=0, atol=1e-3)
    assert np.mean(model.mask(default) != model.mask(expected)) <= 1e-5


def test_nothing_is_flipped_shifted_or_exchanged(mean_model: CloudModel) -> None:
    scene = lopsided_scene(37, 53)
    expected = scene.mean(axis=2)
    for tile_px in (1, 7, 16, 768):
        found = mean_model.predict(scene, tile_px=tile_px)
        np.testing.assert_allclose(found, expected, rtol=0, atol=1e-6)


@pytest.mark.parametrize("number", [nan, inf, -inf, 1e300])
def test_what_is_no_number_in_any_band_is_no_data(model: CloudModel, number: float) -> None:
    scene = scene_of(40, 50).astype(np.float64)
    scene[10, 20, 2] = number
    probability = model.predict(scene, tile_px=28)
    assert np.isnan(probability[10, 20])
    assert np.isnan(probability).sum() == 1
    mask = model.mask(probability)
    assert mask[10, 20] == 255
    assert (mask == 255).sum() == 1


def test_zero_in_all_bands_is_no_data_and_in_some_is_not(model: CloudModel) -> None:
    scene = scene_of(40, 50)
    scene[5, 6] = 0.0
    scene[7, 8, :3] = 0.0
    missing = np.argwhere(np.isnan(model.predict(scene)))
    np.testing.assert_array_equal(missing, [(5, 6)])


def test_invalid_pixels_are_no_data_and_their_numbers_do_not_matter(model: CloudModel) -> None:
    scene = scene_of(60, 70)
    valid = np.ones((60, 70), dtype=bool)
    valid[20:35, 30:52] = False
    answers = []
    for number in (0.0, nan, inf, 0.9, 65535.0, -9999.0):
        filled = scene.copy()
        filled[~valid] = number
        answers.append(model.predict(filled, valid, tile_px=40))
    np.testing.assert_array_equal(np.isnan(answers[0]), ~valid)
    for answer in answers[1:]:
        np.testing.assert_array_equal(answer, answers[0])


def test_no_data_changes_nothing_beyond_the_halo(model: CloudModel) -> None:
    scene = scene_of(90, 100)
    holed = scene.copy()
    holed[40:48, 44:56] = nan
    before, after = model.predict(scene), model.predict(holed)
    reach = model.spec.exact_halo_px + model.spec.stride - 1
    near = np.zeros(before.shape, dtype=bool)
    near[40 - reach : 48 + reach, 44 - reach : 56 + reach] = True
    np.testing.assert_allclose(after[~near], before[~near], rtol=0, atol=1e-6)
    assert np.nanmax(np.abs(after - before)[near]) > 1e-3  # or else nothing was tested


@pytest.mark.parametrize("valid", [None, np.ones((30, 45), dtype=bool)])
def test_a_scene_without_a_valid_pixel_is_all_no_data_and_not_run(
    model: CloudModel, valid: NDArray[np.bool_] | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> None:
        raise AssertionError("a tile without data was run")

    monkeypatch.setattr(model, "run", refuse)
    scene = np.full((30, 45, 4), nan, dtype=np.float32)
    probability = model.predict(scene, valid)
    assert probability.shape == (30, 45)
    assert np.isnan(probability).all()
    assert (model.mask(probability) == 255).all()


def test_an_empty_array_gives_an_empty_answer(model: CloudModel) -> None:
    assert model.predict(np.zeros((0, 5, 4), dtype=np.float32)).shape == (0, 5)


def test_lists_and_doubles_are_taken_and_not_changed(model: CloudModel) -> None:
    scene = scene_of(9, 11)
    scene[2, 3] = nan
    kept = scene.copy()
    expected = model.predict(scene)
    np.testing.assert_array_equal(scene, kept)
    np.testing.assert_array_equal(model.predict(scene.tolist()), expected)
    np.testing.assert_array_equal(model.predict(scene.astype(np.float64)), expected)


REFUSED = {
    "no bands": np.zeros((5, 6)),
    "three bands": np.zeros((5, 6, 3)),
    "thirteen bands": np.zeros((5, 6, 13)),
    "a batch": np.zeros((1, 5, 6, 4)),
    "booleans": np.zeros((5, 6, 4), dtype=bool),
    "text": np.full((5, 6, 4), "0.1"),
}


@pytest.mark.parametrize("what", REFUSED)
def test_other_arrays_are_refused_in_a_sentence(model: CloudModel, what: str) -> None:
    array = REFUSED[what]
    with pytest.raises(ModelError, match=r"no reflectance; it is \(rows, cols, 4\)") as caught:
        model.predict(array)
    assert_one_sentence(caught.value)
    assert str(array.shape) in str(caught.value)


@pytest.mark.parametrize("kind", [np.uint16, np.int16, np.float32])
def test_digital_numbers_are_refused_with_the_mend(model: CloudModel, kind: type) -> None:
    numbers: NDArray[Any] = (scene_of(70, 300) * 10_000).astype(kind)
    with pytest.raises(ModelError, match=r"digital numbers.*number \* scale \+ offset") as caught:
        model.predict(numbers)
    assert_one_sentence(caught.value)


def test_numbers_of_no_data_do_not_make_a_scene_of_digital_numbers(model: CloudModel) -> None:
    scene = scene_of(40, 50)
    scene[:30] = 65535.0
    valid = scene[..., 0] < 2.0
    np.testing.assert_array_equal(np.isnan(model.predict(scene, valid)), ~valid)


def test_arrays_and_files_are_plausible_within_the_same_limits(mean_model: CloudModel) -> None:
    for limit, beyond in zip(PLAUSIBLE_REFLECTANCE, (-9, 9)):
        mean_model.predict(np.full((4, 4, 4), limit, dtype=np.float32))
        with pytest.raises(ModelError, match="digital numbers"):
            mean_model.predict(np.full((4, 4, 4), np.nextafter(np.float32(limit), beyond)))


@pytest.mark.parametrize("empty", [0.0, nan])
@pytest.mark.parametrize("side", [2, 40])
def test_few_digital_numbers_among_no_data_are_refused(
    mean_model: CloudModel, empty: float, side: int
) -> None:
    scene = np.full((700, 800, 4), empty, dtype=np.float32)
    scene[601 : 601 + side, 701 : 701 + side] = 3000.0
    with pytest.raises(ModelError, match=r"from 3000 to 3000.*number \* scale \+ offset") as caught:
        mean_model.predict(scene)
    assert_one_sentence(caught.value)


def test_numbers_of_no_data_are_not_taken_as_dark_ground(mean_model: CloudModel) -> None:
    scene = scene_of(60, 50)
    scene[:10] = -9999.0
    with pytest.raises(ModelError, match=r"from -9999 to .*no data into NaN") as caught:
        mean_model.predict(scene)
    assert_one_sentence(caught.value)


def test_what_a_masked_array_masks_is_no_data(mean_model: CloudModel) -> None:
    scene = scene_of(40, 50)
    mask = np.zeros(scene.shape, dtype=bool)
    mask[3:9, 5:30, 2] = True
    masked = np.ma.masked_array(np.where(mask, np.float32(-9999), scene), mask)
    missing = np.isnan(mean_model.predict(masked))
    np.testing.assert_array_equal(missing, mask[..., 2])
    valid = np.ones((40, 50), dtype=bool)
    valid[20:] = False
    missing = np.isnan(mean_model.predict(masked, valid))
    np.testing.assert_array_equal(missing, mask[..., 2] | ~valid)


@pytest.mark.parametrize("threshold", [0.0, 1.0, 40.0, nan])
def test_a_threshold_that_is_none_makes_no_mask(mean_model: CloudModel, threshold: float) -> None:
    with pytest.raises(ModelError, match="between 0 and 1"):
        mean_model.mask(np.full((2, 3), 0.5, dtype=np.float32), threshold)


@pytest.mark.parametrize("shape", [(5, 5), (6, 5), (5,), (5, 6, 4), (1, 1)])
def test_validity_of_another_shape_is_refused(model: CloudModel, shape: tuple[int, ...]) -> None:
    with pytest.raises(ModelError, match="valid has shape") as caught:
        model.predict(np.full((5, 6, 4), 0.1), np.ones(shape, dtype=bool))
    assert_one_sentence(caught.value)


def test_a_mask_is_0_1_255() -> None:
    probability = np.array([[0.0, 0.3, 0.29999998], [1.0, nan, 0.5]], dtype=np.float32)
    mask = to_mask(probability, float(np.float32(0.3)))
    assert mask.dtype == np.uint8
    np.testing.assert_array_equal(mask, [[0, 1, 0], [1, 255, 1]])


def test_the_threshold_is_the_specs_unless_given(model: CloudModel) -> None:
    probability = np.array([[0.2, 0.4, 0.6]], dtype=np.float32)
    strict = with_spec(model, threshold=0.59)
    np.testing.assert_array_equal(strict.mask(probability), [[0, 0, 1]])
    np.testing.assert_array_equal(strict.mask(probability, 0.3), [[0, 1, 1]])


def test_the_stream_covers_each_pixel_once_and_reads_inside_the_scene(model: CloudModel) -> None:
    rows, cols = 67, 81
    scene = scene_of(rows, cols)
    covered = np.zeros((rows, cols), dtype=int)
    windows = []

    def read(window: Window) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
        windows.append(window)
        return scene[window.slices], np.ones((window.rows, window.cols), dtype=bool)

    for window, probability, reflectance in model.stream(read, (rows, cols), tile_px=32):
        covered[window.slices] += 1
        assert probability.shape == (window.rows, window.cols)
        np.testing.assert_array_equal(reflectance, scene[window.slices])
    assert (covered == 1).all()
    assert windows == [Window(0, 0, 67, 81)]
    assert all(window == window.clip(rows, cols) for window in windows)


def test_several_threads_may_share_a_model(model: CloudModel) -> None:
    scenes = [scene_of(60 + 3 * index, 70, seed=index) for index in range(6)]
    alone = [model.predict(scene, tile_px=40) for scene in scenes]
    start = threading.Barrier(2)

    def work(_: int) -> list[NDArray[np.float32]]:
        start.wait(timeout=10)
        return [model.predict(scene, tile_px=40) for scene in scenes]

    with ThreadPoolExecutor(2) as pool:
        for together in pool.map(work, range(2)):
            for found, expected in zip(together, alone):
                np.testing.assert_allclose(found, expected, rtol=0, atol=1e-6)


def test_a_model_arrives_from_a_pickle_as_it_was(tiny_onnx: Path) -> None:
    sent = load_model(tiny_onnx, threads=1)
    arrived = pickle.loads(pickle.dumps(sent))
    assert (arrived.path, arrived.sha256) == (tiny_onnx.absolute(), sent.sha256)
    assert arrived._session.get_session_options().intra_op_num_threads == 1
    np.testing.assert_array_equal(arrived.predict(scene_of(20, 30)), sent.predict(scene_of(20, 30)))


def test_a_shipped_model_is_pickled_by_its_name() -> None:
    pickled = pickle.dumps(load_model("s2-rgbn-int8"))
    assert b"s2-rgbn-int8" in pickled and b".onnx" not in pickled  # paths differ between machines
    assert pickle.loads(pickled).precision == "INT8"


def test_a_pickle_does_not_become_another_model(tmp_path: Path, tiny_onnx: Path) -> None:
    path = tmp_path / "net.onnx"
    path.write_bytes(tiny_onnx.read_bytes())
    pickled = pickle.dumps(load_model(path))
    write_graph(path)
    with pytest.raises(ModelError, match="is not the model that was pickled") as caught:
        pickle.loads(pickled)
    assert_one_sentence(caught.value, path)


def test_a_model_of_no_file_is_not_pickled(model: CloudModel) -> None:
    with pytest.raises(TypeError, match="load_model"):
        pickle.dumps(with_spec(model, threshold=0.4))


def test_a_hand_off_of_single_tiles_is_refused_at_once(tmp_path: Path) -> None:
    spec = replace(MEAN_SPEC, contract=CONTRACT_NCHW_224)
    metadata = {SPEC_KEY: spec.to_json()}
    # Its mean over the last axis has four dimensions; a mask has three.
    path = write_graph(tmp_path / "fixed.onnx", metadata, inputs=[FIXED_SIZE])
    with pytest.raises(ModelError, match="does not fit its spec's contract, nchw-224"):
        load_model(path)
    model = CloudModel(path, spec, load_model(write_graph(tmp_path / "m.onnx"))._session, "")
    for use in (
        lambda: model.predict(scene_of(8, 8)),
        lambda: model.stream(lambda window: (scene_of(8, 8), np.ones((8, 8), bool)), (8, 8)),
        model.require_scenes,
    ):
        with pytest.raises(ModelError, match="hand-off of contract nchw-224") as caught:
            use()
        assert_one_sentence(caught.value, path)


def test_tiles_that_the_graph_cannot_take_are_an_error_that_names_the_file(
    model: CloudModel,
) -> None:
    for shape in [(1, 8, 8, 3), (8, 8, 4), (1, 30, 30, 4)]:  # the last: no multiple of the stride
        with pytest.raises(ModelError, match="fails on tiles of shape") as caught:
            model.run(np.zeros(shape, dtype=np.float32))
        assert_one_sentence(caught.value, model.path)
        off_the_stride = shape == (1, 30, 30, 4)
        assert (caught.value.__cause__ is None) == off_the_stride


@given(
    tile_px=st.integers(-5, 900), halo_cells=st.integers(0, 12), stride=st.sampled_from([1, 4, 16])
)
def test_a_tile_is_rounded_up_to_stride_and_halo(
    tile_px: int, halo_cells: int, stride: int
) -> None:
    halo_px = halo_cells * stride
    fitted = fit_tile(tile_px, halo_px, stride)
    assert fitted % stride == 0
    assert fitted >= max(tile_px, 2 * halo_px + stride)
    assert fitted < max(tile_px, 2 * halo_px + stride) + stride


def test_padding_mirrors_and_adds_no_edge() -> None:
    scene = lopsided_scene(2, 3)
    assert pad_mirrored(scene, 2, 3) is scene
    padded = pad_mirrored(scene, 7, 8)
    np.testing.assert_array_equal(padded[:, 0, 0], scene[[0, 1, 1, 0, 0, 1, 1], 0, 0])
    np.testing.assert_array_equal(padded[0, :, 1], scene[0, [0, 1, 2, 2, 1, 0, 0, 1], 1])


def test_a_model_knows_its_file(tiny_onnx: Path, model: CloudModel) -> None:
    assert model.path == tiny_onnx
    assert model.sha256 == hashlib.sha256(tiny_onnx.read_bytes()).hexdigest()
    assert model.spec.bands == BANDS
    assert json.loads(model.metadata[SPEC_KEY]) == model.spec.to_dict()


def test_the_number_of_threads_is_a_choice(tiny_onnx: Path, model: CloudModel) -> None:
    one = load_model(str(tiny_onnx), threads=1)
    assert one._session.get_session_options().intra_op_num_threads == 1
    assert model._session.get_session_options().intra_op_num_threads == usable_cores()
    scene = scene_of(33, 29)
    np.testing.assert_allclose(one.predict(scene), model.predict(scene), rtol=0, atol=1e-6)


@pytest.mark.parametrize("content", [None, b"", b"no model at all\n", "folder", "half"])
def test_what_is_no_onnx_file_is_refused(
    tiny_onnx: Path, tmp_path: Path, content: bytes | str | None
) -> None:
    path = tmp_path / "bad.onnx"
    if content == "folder":
        path.mkdir()
    elif content == "half":
        path.write_bytes(tiny_onnx.read_bytes()[: tiny_onnx.stat().st_size // 2])
    elif isinstance(content, bytes):
        path.write_bytes(content)
    missing = content in (None, "folder")
    with pytest.raises(
        ModelError, match="give an ONNX file" if missing else "cloudnet export RUN"
    ) as caught:
        load_model(path)
    assert_one_sentence(caught.value, path)


def test_a_file_that_cannot_be_read_is_an_error_with_the_reason(
    tiny_onnx: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(self: Path) -> bytes:
        raise PermissionError(13, "Permission denied", str(self))

    monkeypatch.setattr(Path, "read_bytes", refuse)
    with pytest.raises(ModelError, match="cannot be read: Permission denied") as caught:
        load_model(tiny_onnx)
    assert_one_sentence(caught.value, tiny_onnx)


def spec_text(**changes: Any) -> str:
    """Return the fitting spec as JSON with fields changed, or left out where None."""
    values = {**MEAN_SPEC.to_dict(), **changes}
    return json.dumps({key: value for key, value in values.items() if value is not None})


SPECS = {
    "none": ({}, "holds no cloudnet spec"),
    "no JSON": ({SPEC_KEY: "{"}, "not JSON"),
    "a list": ({SPEC_KEY: "[]"}, "not a JSON object"),
    "without stride": ({SPEC_KEY: spec_text(stride=None)}, "lacks stride"),
    "with more": ({SPEC_KEY: spec_text(colour="red")}, "colour, unknown"),
    "threshold 2": ({SPEC_KEY: spec_text(threshold=2.0)}, "threshold"),
    "blue first": ({SPEC_KEY: spec_text(bands=BANDS[::-1])}, "takes the bands B08"),
}


@pytest.mark.parametrize("damage", SPECS)
def test_a_file_without_a_spec_that_can_be_used_is_refused(tmp_path: Path, damage: str) -> None:
    metadata, reason = SPECS[damage]
    path = write_graph(tmp_path / "foreign.onnx", metadata)
    with pytest.raises(ModelError, match=reason) as caught:
        load_model(path)
    assert_one_sentence(caught.value, path)


FIXED = {SPEC_KEY: replace(MEAN_SPEC, contract=CONTRACT_NCHW_224).to_json()}
GRAPHS: dict[str, dict[str, Any]] = {
    "five bands": {"inputs": [("batch", "height", "width", 5)]},
    "one size": {"inputs": [("batch", 256, 256, 4)]},
    "one batch": {"inputs": [(1, "height", "width", 4)]},
    "channels first": {"inputs": [FIXED_SIZE]},
    "no batch": {"inputs": [("height", "width", 4)]},
    "doubles": {"number": "DOUBLE"},
    "two inputs": {"inputs": [ANY_SIZE, ANY_SIZE]},
    "no input": {"inputs": [], "number": "INT64"},
    "two outputs": {"outputs": 2},
    "channels last for nchw": {"metadata": FIXED},
    "another side for nchw": {"metadata": FIXED, "inputs": [("batch", 4, 256, 256)]},
}


@pytest.mark.parametrize("graph", GRAPHS)
def test_a_graph_that_does_not_fit_its_spec_is_refused(tmp_path: Path, graph: str) -> None:
    path = write_graph(tmp_path / "foreign.onnx", **GRAPHS[graph])
    with pytest.raises(ModelError, match="does not fit its spec's contract") as caught:
        load_model(path)
    assert_one_sentence(caught.value, path)
