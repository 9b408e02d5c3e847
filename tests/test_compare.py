"""Compare: a net that says something else is found out, wherever the difference comes from."""

from __future__ import annotations

import base64
import io
import json
import re
import sys
import zipfile
from collections.abc import Callable
from dataclasses import replace
from math import inf, nan
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner
from numpy.typing import NDArray

from cloudnet.commands import main
from cloudnet.compare import (
    CASE_BATCHES,
    CASE_SIZES_PX,
    TOO_CLOSE,
    Case,
    Comparison,
    compare_answers,
    compare_with_keras,
    keras_answer,
    made_up_batches,
    replay_probe,
    scene_tiles,
    to_contract,
)
from cloudnet.errors import ComparisonError, MissingExtraError, ModelError
from cloudnet.probe import Probe
from cloudnet.runtime import PROBE_KEY, CloudModel, load_model
from cloudnet.spec import CONTRACT_NCHW_224, SPEC_KEY, Spec
from tests.helpers import lopsided_scene, write_scene_npy, write_scene_tif

ATOL = 1e-5
SPEC = Spec("some", "1", threshold=0.5)
FIXED_SPEC = replace(SPEC, contract=CONTRACT_NCHW_224)

Weights = NDArray[np.float32]


def tampered(
    source: Path,
    path: Path,
    *,
    weights: Callable[[Weights], Weights] | None = None,
    metadata: dict[str, str | None] | None = None,
) -> Path:
    """Write a copy of an ONNX file with its largest weights or its metadata changed.

    Metadata of None is left out.
    """
    onnx = pytest.importorskip("onnx", reason="ONNX files are changed with the train extra")
    model = onnx.load(source)
    if weights is not None:
        largest = max(
            (tensor for tensor in model.graph.initializer if tensor.data_type == 1),
            key=lambda tensor: int(np.prod(tensor.dims)),
        )
        changed = weights(onnx.numpy_helper.to_array(largest))
        largest.CopyFrom(onnx.numpy_helper.from_array(changed, largest.name))
    properties = {entry.key: entry.value for entry in model.metadata_props} | (metadata or {})
    kept = {key: value for key, value in properties.items() if value is not None}
    onnx.helper.set_model_props(model, kept)
    path.write_bytes(model.SerializeToString())
    return path


def probe_of(path: Path) -> Probe:
    return Probe.from_text(load_model(path).metadata[PROBE_KEY], str(path))


def with_answers(source: Path, path: Path, change: float) -> Path:
    """Write a copy of an ONNX file in which one pixel of the probe's answers is changed."""
    probe = probe_of(source)
    answers = probe.answers.copy()
    answers[1, 30, 40, 0] += change
    return tampered(source, path, metadata={PROBE_KEY: Probe(probe.tiles, answers).to_text()})


def with_spec(source: Path, path: Path, **changes: Any) -> Path:
    """Write a copy of a `.keras` file whose spec is changed."""

    def walk(node: Any) -> Any:
        if isinstance(node, list):
            return [walk(item) for item in node]
        if not isinstance(node, dict):
            return node
        return {
            key: {**value, **changes} if key == "spec" else walk(value)
            for key, value in node.items()
        }

    with zipfile.ZipFile(source) as old, zipfile.ZipFile(path, "w") as new:
        for name in old.namelist():
            content = old.read(name)
            if name == "config.json":
                content = json.dumps(walk(json.loads(content))).encode()
            new.writestr(name, content)
    return path


@pytest.fixture(scope="module")
def model(tiny_onnx: Path) -> CloudModel:
    return load_model(tiny_onnx)


@pytest.fixture(scope="module")
def live(model: CloudModel, tiny_run: Path, geotiff_dataset: Path) -> Comparison:
    """A comparison with Keras on the tiles of one scene and on all that is made up."""
    tiles = scene_tiles(geotiff_dataset / "scenes" / "scene00.tif", model.spec)
    return compare_with_keras(model, tiny_run / "model.keras", [tiles])


@pytest.fixture
def no_tensorflow(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "tensorflow", None)


def assert_fails(comparison: Comparison, path: Path) -> ComparisonError:
    """Assert that a comparison fails with a sentence on the file, and exit code 1."""
    assert not comparison.passed
    with pytest.raises(ComparisonError) as caught:
        comparison.require(path)
    assert caught.value.exit_code == 1
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)
    return caught.value


def test_the_probe_is_replayed(model: CloudModel) -> None:
    comparison = replay_probe(model)
    (case,) = comparison.cases
    assert comparison.reference == "probe"
    assert (case.name, case.size_px) == ("probe", 64)
    assert case.tiles >= 2
    assert case.mean <= case.largest <= 1e-5
    assert comparison.passed
    comparison.require(model.path)


@pytest.mark.parametrize("change", [0.001, -0.001, 0.3, nan, inf])
def test_an_answer_that_differs_fails(tiny_onnx: Path, tmp_path: Path, change: float) -> None:
    path = with_answers(tiny_onnx, tmp_path / "off.onnx", change)
    comparison = replay_probe(load_model(path))
    expected = abs(change) if np.isfinite(change) else inf
    assert comparison.largest == pytest.approx(expected, abs=1e-5)
    error = assert_fails(comparison, path)
    assert "on probe" in str(error)


def test_the_tolerance_is_the_callers(tiny_onnx: Path, tmp_path: Path) -> None:
    model = load_model(with_answers(tiny_onnx, tmp_path / "off.onnx", 0.001))
    assert replay_probe(model, 0.002).passed
    assert not replay_probe(model, 0.0005).passed
    close = load_model(with_answers(tiny_onnx, tmp_path / "close.onnx", 4e-6))
    assert replay_probe(close).passed


@pytest.mark.parametrize("factor", [1.01, 0.0, nan])
def test_other_weights_fail_by_probe_and_live(
    tiny_onnx: Path, tiny_run: Path, tmp_path: Path, factor: float
) -> None:
    path = tampered(tiny_onnx, tmp_path / "off.onnx", weights=lambda array: array * factor)
    model = load_model(path)
    probe = replay_probe(model)
    assert_fails(probe, path)
    live = compare_with_keras(model, tiny_run / "model.keras")
    assert_fails(live, path)
    if np.isnan(factor):
        assert probe.largest == live.largest == inf


def test_a_file_without_a_probe_is_refused(tiny_onnx: Path, tmp_path: Path) -> None:
    path = tampered(tiny_onnx, tmp_path / "bare.onnx", metadata={PROBE_KEY: None})
    with pytest.raises(ModelError, match="holds no probe") as caught:
        replay_probe(load_model(path))
    assert str(path) in str(caught.value)


def packed(**arrays: NDArray[Any]) -> str:
    buffer = io.BytesIO()
    np.savez_compressed(buffer, **arrays)  # type: ignore[arg-type]
    return base64.b64encode(buffer.getvalue()).decode()


DAMAGED = {
    "no base64": ("so?", "damaged"),
    "cut short": (packed(tiles=np.ones((4, 8, 8, 4), "u2"), answers=np.ones(4))[:400], "damaged"),
    "no tiles": (packed(tiles=np.ones((0, 8, 8, 4), "u2"), answers=np.ones((0, 8, 8, 1))), "probe"),
    "three bands": (
        packed(tiles=np.ones((1, 8, 8, 3), "u2"), answers=np.ones((1, 8, 8, 1))),
        "holds no tiles of 4 bands",
    ),
    "off the stride": (
        packed(tiles=np.ones((1, 9, 9, 4), "u2"), answers=np.ones((1, 9, 9, 1))),
        "fails on tiles of shape",
    ),
}


@pytest.mark.parametrize("damage", DAMAGED)
def test_a_damaged_probe_is_refused(tiny_onnx: Path, tmp_path: Path, damage: str) -> None:
    text, reason = DAMAGED[damage]
    path = tampered(tiny_onnx, tmp_path / "bad.onnx", metadata={PROBE_KEY: text})
    with pytest.raises(ModelError, match=reason) as caught:
        replay_probe(load_model(path))
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_answers_of_another_shape_are_a_failed_comparison(tiny_onnx: Path, tmp_path: Path) -> None:
    text = packed(tiles=np.ones((1, 8, 8, 4), "u2"), answers=np.ones((1, 4, 4, 1)))
    path = tampered(tiny_onnx, tmp_path / "bad.onnx", metadata={PROBE_KEY: text})
    with pytest.raises(ComparisonError, match=r"\(1, 8, 8, 1\) on probe.*\(1, 4, 4, 1\)") as caught:
        replay_probe(load_model(path))
    assert str(path) in str(caught.value)


def test_live_covers_what_the_issue_asks_for(live: Comparison) -> None:
    assert live.reference == "Keras, live"
    assert live.passed
    assert live.flips == 0
    assert live.largest <= 1e-5
    names = {case.name for case in live.cases}
    assert names == {
        "real tiles 1",
        "real tiles 1, a third no data",
        "random reflectance",
        "overcast",
        "black",
        "no data",
    }
    noise = [case for case in live.cases if case.name == "random reflectance"]
    assert len({case.size_px for case in noise}) >= 3
    assert len({case.tiles for case in noise}) >= 3


def test_made_up_tiles_are_what_their_names_say() -> None:
    spec = replace(SPEC, stride=48, halo_px=48, exact_halo_px=48)
    batches = list(made_up_batches(spec))
    noise = [batch for name, batch in batches if name == "random reflectance"]
    assert [len(batch) for batch in noise[:3]] == list(CASE_BATCHES)
    assert len(noise) == len(CASE_SIZES_PX)
    low, high = spec.reflectance_range
    assert all(batch.min() < low and batch.max() > high for batch in noise)
    by_name = dict(batches)
    assert by_name["overcast"].mean() > 0.8
    assert by_name["overcast"].min() > 0.5
    assert 0 < by_name["black"].max() < 0.01
    assert not by_name["no data"].any()
    for _, batch in batches:
        assert batch.dtype == np.float32
        assert batch.shape[1] % spec.stride == batch.shape[2] % spec.stride == 0
        assert batch.shape[3] == len(spec.bands)
    for (_, first), (_, again) in zip(batches, made_up_batches(spec)):
        np.testing.assert_array_equal(first, again)


def test_the_net_may_differ_on_one_real_tile_alone(
    model: CloudModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    tiles = np.full((2, 16, 16, 4), 0.3, dtype=np.float32)
    tiles[1, 9, 4] = 0.123

    def keras_of_this_test(*_: object) -> Callable[[NDArray[Any]], NDArray[Any]]:
        return lambda batch: model.run(batch) + 0.1 * (batch[..., :1] == np.float32(0.123))

    monkeypatch.setattr("cloudnet.compare.keras_answer", keras_of_this_test)
    comparison = compare_with_keras(model, Path("some.keras"), [tiles[:1], tiles])
    failed = [case.name for case in comparison.cases if case.largest > comparison.atol]
    assert failed == ["real tiles 2", "real tiles 2, a third no data"]
    assert "on real tiles 2" in str(assert_fails(comparison, model.path))


def answers(*values: float) -> NDArray[np.float32]:
    return np.array(values, dtype=np.float32).reshape(1, 1, -1, 1)


def test_differences_are_measured_pixel_by_pixel() -> None:
    found, wanted = answers(0.1, 0.2, 0.6, 0.9), answers(0.1, 0.3, 0.6, 0.7)
    case = compare_answers("some", found, wanted, SPEC, ATOL)
    assert case.largest == pytest.approx(0.2, abs=1e-6)
    assert case.mean == pytest.approx(0.3 / 4, abs=1e-6)
    assert (case.name, case.tiles, case.size_px, case.flips) == ("some", 1, 4, 0)
    assert case.mask_iou == 1.0


def test_flips_count_only_where_the_reference_is_clear_of_the_threshold() -> None:
    wanted = answers(0.5 + 0.6 * ATOL, 0.5 - 0.6 * ATOL, 0.5 + 3 * ATOL, 0.5 - 3 * ATOL, 0.9)
    found = answers(0.5 - 0.2 * ATOL, 0.5 + 0.2 * ATOL, 0.5 - 3 * ATOL, 0.5 + 3 * ATOL, 0.9)
    case = compare_answers("some", found, wanted, SPEC, ATOL)
    assert case.flips == 2
    assert case.mask_iou == pytest.approx(1 / 5)
    other = compare_answers("some", found, wanted, replace(SPEC, threshold=0.7), ATOL)
    assert (other.flips, other.mask_iou) == (0, 1.0)


@pytest.mark.parametrize(
    ("found", "wanted"), [(nan, 0.2), (0.2, nan), (nan, nan), (inf, inf), (inf, 0.2)]
)
def test_what_is_no_number_never_passes(found: float, wanted: float) -> None:
    case = compare_answers("some", answers(0.1, found), answers(0.1, wanted), SPEC, ATOL)
    assert case.largest == inf
    assert_fails(Comparison((case,), ATOL, "probe"), Path("some.onnx"))


def test_without_cloud_in_either_the_mask_iou_is_undefined() -> None:
    case = compare_answers("some", answers(0.1), answers(0.2), SPEC, ATOL)
    assert case.mask_iou is None


def test_masks_are_compared_where_the_reference_is_certain() -> None:
    wanted = np.array([[[0, 1, 1, TOO_CLOSE, TOO_CLOSE]]], dtype=np.uint8)
    same = np.array([[[0, 1, 1, 0, 1]]], dtype=np.uint8)
    case = compare_answers("some", same, wanted, FIXED_SPEC, ATOL)
    assert (case.largest, case.mean, case.flips, case.mask_iou) == (0.0, 0.0, 0, 1.0)
    flipped = np.array([[[1, 1, 0, 0, 1]]], dtype=np.uint8)
    case = compare_answers("some", flipped, wanted, FIXED_SPEC, ATOL)
    assert (case.largest, case.flips) == (1.0, 2)
    assert case.mask_iou == pytest.approx(1 / 3)
    assert_fails(Comparison((case,), ATOL, "probe"), Path("some.onnx"))


def test_answers_of_different_shape_are_not_stretched_to_fit() -> None:
    with pytest.raises(ValueError, match="do not match"):
        compare_answers("some", answers(0.1), answers(0.1, 0.1), SPEC, ATOL)


def row(name: str, largest: float, flips: int) -> Case:
    return Case(name, 2, 64, largest, largest / 2, flips, None)


def test_the_error_names_a_row_that_failed() -> None:
    rows = (row("good", 9e-6, 0), row("bad", 2e-3, 7), row("less bad", 1e-3, 0))
    comparison = Comparison(rows, ATOL, "probe")
    assert (comparison.largest, comparison.flips, comparison.passed) == (2e-3, 7, False)
    error = str(assert_fails(comparison, Path("a.onnx")))
    assert "on bad they differ by up to 0.002 (allowed 1e-05) with 7 mask pixels" in error
    flipped = Comparison((row("good", 9e-6, 0), row("flipped", 1e-6, 1)), ATOL, "probe")
    assert "on flipped" in str(assert_fails(flipped, Path("a.onnx")))


def test_a_comparison_as_json() -> None:
    comparison = Comparison((row("a", 1e-6, 0), row("b", 2e-6, 0)), ATOL, "probe")
    assert comparison.to_dict() == {
        "reference": "probe",
        "tiles": 4,
        "largest_difference": 2e-6,
        "mask_flips": 0,
        "atol": ATOL,
        "passed": True,
    }


@pytest.mark.parametrize(
    "change", [{"bands": ["B02", "B03", "B04", "B08"]}, {"stride": 8, "halo_px": 16}]
)
def test_a_net_of_other_bands_or_stride_is_refused(
    model: CloudModel, tiny_run: Path, tmp_path: Path, change: dict[str, Any]
) -> None:
    change = {**change, "exact_halo_px": 16} if "stride" in change else change
    net = with_spec(tiny_run / "model.keras", tmp_path / "other.keras", **change)
    with pytest.raises(ModelError, match="they are not the same net") as caught:
        compare_with_keras(model, net)
    assert str(net) in str(caught.value)
    result = CliRunner().invoke(main, ["compare", str(model.path), "--keras", str(net)])
    assert (result.exit_code, result.stdout) == (2, "")
    assert result.stderr == f"Error: {caught.value}\n"


def test_keras_answers_the_fixed_contract_with_a_mask(tiny_run: Path) -> None:
    net = tiny_run / "model.keras"
    spec = replace(FIXED_SPEC, stride=4, halo_px=12, exact_halo_px=12)
    free = replace(spec, contract="nhwc")
    tiles = lopsided_scene(224, 224)[np.newaxis]
    probability = keras_answer(net, free)(tiles)[..., 0]
    middle = float(np.median(probability))
    mask = keras_answer(net, replace(spec, threshold=middle), 1e-3)(to_contract(tiles, spec))
    close = np.abs(probability - middle) <= 1e-3
    assert mask.shape == (1, 224, 224)
    assert 0 < close.mean() < 1
    assert (mask[close] == TOO_CLOSE).mean() > 0.99  # both ends of the tolerance are rounded
    sure = np.abs(probability - middle) > 1.01e-3
    np.testing.assert_array_equal(mask[sure], probability[sure] >= middle)


def test_tiles_are_brought_to_the_contract() -> None:
    tiles = lopsided_scene(64, 300)[np.newaxis]
    assert to_contract(tiles, SPEC) is tiles
    fixed = to_contract(tiles, FIXED_SPEC)
    assert fixed.shape == (1, 4, 224, 224)
    assert fixed.flags.c_contiguous
    np.testing.assert_array_equal(fixed[0, 2, :64], tiles[0, :, :224, 2])
    np.testing.assert_array_equal(fixed[0, 2, 64:128], tiles[0, ::-1, :224, 2])


@pytest.mark.parametrize("size", [(1, 1), (100, 40), (300, 500)])
def test_tiles_of_a_scene_lie_on_its_diagonal(tmp_path: Path, size: tuple[int, int]) -> None:
    scene = lopsided_scene(*size)
    path = write_scene_npy(tmp_path / "scene.npy", scene)
    spec = replace(SPEC, stride=24, halo_px=24, exact_halo_px=24)
    tiles = scene_tiles(path, spec)
    assert tiles.shape == (5, 240, 240, 4)
    rows, cols = (min(side, 240) for side in size)
    np.testing.assert_array_equal(tiles[0, :rows, :cols], scene[:rows, :cols])
    np.testing.assert_array_equal(tiles[-1, :rows, :cols], scene[-rows:, -cols:])


def test_without_tensorflow_a_live_comparison_names_the_install_line(
    model: CloudModel, tiny_run: Path, no_tensorflow: None
) -> None:
    with pytest.raises(MissingExtraError, match=r'pip install "cloudnet\[train\]"'):
        compare_with_keras(model, tiny_run / "model.keras")


def test_without_tensorflow_the_commands_replay_the_probe_and_say_so(
    tiny_onnx: Path, tiny_run: Path, geotiff_dataset: Path, tmp_path: Path, no_tensorflow: None
) -> None:
    scene = str(geotiff_dataset / "scenes" / "scene00.tif")
    compared = CliRunner().invoke(
        main, ["compare", str(tiny_onnx), "--keras", str(tiny_run), scene]
    )
    predicted = CliRunner().invoke(
        main,
        ["predict", scene, "-m", str(tiny_onnx), "--keras", str(tiny_run), "-o", str(tmp_path)],
    )
    for result in (compared, predicted):
        assert result.exit_code == 0, result.stderr
        assert "compared with probe" in result.stdout
        assert result.stderr.startswith("Note: tensorflow is not installed")
        assert 'pip install "cloudnet[train]"' in result.stderr
        assert "probe" in result.stderr
        assert result.stderr.count("\n") == 1
    summary = json.loads((tmp_path / "scene00_cloudmask.json").read_text())
    assert summary["comparison"]["reference"] == "probe"


def test_predict_with_keras_compares_live(
    tiny_onnx: Path, tiny_run: Path, geotiff_dataset: Path, tmp_path: Path
) -> None:
    scene = geotiff_dataset / "scenes" / "scene00.tif"
    arguments = [str(scene), "-m", str(tiny_onnx), "--keras", str(tiny_run), "-o", str(tmp_path)]
    result = CliRunner().invoke(main, ["predict", *arguments])
    assert result.exit_code == 0, result.stderr
    assert "compared with Keras, live" in result.stdout
    summary = json.loads((tmp_path / "scene00_cloudmask.json").read_text())
    assert summary["comparison"]["reference"] == "Keras, live"
    assert summary["comparison"]["passed"]


def test_a_probe_that_fails_is_not_outvoted_by_keras(
    tiny_onnx: Path, tiny_run: Path, geotiff_dataset: Path, tmp_path: Path
) -> None:
    bad = with_answers(tiny_onnx, tmp_path / "off.onnx", 0.2)
    scene = geotiff_dataset / "scenes" / "scene00.tif"
    out = tmp_path / "out"
    arguments = [str(scene), "-m", str(bad), "--keras", str(tiny_run), "-o", str(out)]
    result = CliRunner().invoke(main, ["predict", *arguments])
    assert result.exit_code == 1
    assert result.stderr.startswith(f"Error: {bad} does not say what Keras says: on probe")
    assert not out.exists()


def test_the_command_prints_a_row_for_each_kind_of_tile(
    tiny_onnx: Path, tiny_run: Path, tmp_path: Path
) -> None:
    scenes = [
        write_scene_tif(tmp_path / name, lopsided_scene(40, 60)) for name in ("a.tif", "b.tif")
    ]
    arguments = ["compare", str(tiny_onnx), "--keras", str(tiny_run), *map(str, scenes)]
    result = CliRunner().invoke(main, arguments)
    assert result.exit_code == 0, result.stderr
    lines = result.stdout.splitlines()
    titles = ["tiles", "count", "px", "largest", "mean", "mask flips", "mask IoU"]
    assert re.split(r"  +", lines[0]) == titles
    assert sum(line.startswith("real tiles") for line in lines) == 4
    assert sum(line.startswith("random reflectance") for line in lines) == 4
    assert lines[-1].startswith("compared with Keras, live: largest difference")
    assert result.stderr == ""


def test_the_command_exits_with_1_past_the_tolerance(tiny_onnx: Path, tmp_path: Path) -> None:
    path = with_answers(tiny_onnx, tmp_path / "off.onnx", 0.001)
    result = CliRunner().invoke(main, ["compare", str(path)])
    assert result.exit_code == 1
    assert "1.0e-03" in result.stdout  # the table is shown all the same
    assert result.stderr.startswith(f"Error: {path} does not say what Keras says: on probe")
    assert result.stderr.count("\n") == 1
    result = CliRunner().invoke(main, ["compare", str(path), "--atol", "0.01"])
    assert result.exit_code == 0
    assert "allowed 0.01" in result.stdout


def test_scenes_without_keras_are_a_wrong_use(tiny_onnx: Path, geotiff_dataset: Path) -> None:
    scene = geotiff_dataset / "scenes" / "scene00.tif"
    result = CliRunner().invoke(main, ["compare", str(tiny_onnx), str(scene)])
    assert result.exit_code == 2
    assert "--keras" in result.stderr


def test_the_spec_of_a_tampered_file_is_kept(tiny_onnx: Path, tmp_path: Path) -> None:
    """Or else the tests above would fail for another reason than they say."""
    same = tampered(tiny_onnx, tmp_path / "same.onnx", weights=lambda array: array)
    assert load_model(same).metadata[SPEC_KEY] == load_model(tiny_onnx).metadata[SPEC_KEY]
    assert replay_probe(load_model(same)).passed
