"""Predict: a scene becomes right products, all of them or none."""

from __future__ import annotations

import errno
import hashlib
import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from datetime import datetime
from math import nan
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
import rasterio.shutil
from click.testing import CliRunner
from numpy.typing import NDArray
from rasterio.errors import NotGeoreferencedWarning

from cloudnet import predict
from cloudnet._version import __version__
from cloudnet.commands import main
from cloudnet.compare import Case, Comparison, replay_probe
from cloudnet.errors import ComparisonError, ModelError, OutputError, SceneError
from cloudnet.files import quiet
from cloudnet.layer import LayerWriter
from cloudnet.lock import output_lock
from cloudnet.predict import Prediction, PredictOptions, check_shared, predict_scene
from cloudnet.product import Outputs, to_percent
from cloudnet.quicklook import OUTLINE_COLOR
from cloudnet.refine import Refinement
from cloudnet.runtime import PROBE_KEY, CloudModel, load_model
from cloudnet.scene import Reading, open_scene
from cloudnet.spec import CONTRACT_NCHW_224
from tests.helpers import cloudy_scene, lopsided_scene, write_scene_npy, write_scene_tif
from tests.test_compare import tampered
from tests.test_runtime import write_graph

PASSED = Comparison((Case("some", 1, 64, 1e-7, 1e-8, 0, None),), 1e-5, "probe")
FAILED = Comparison((Case("some", 1, 64, 1e-2, 1e-3, 3, None),), 1e-5, "probe")
ALL = PredictOptions(probability=True, tile_px=40)


@pytest.fixture(scope="module")
def model(tiny_onnx: Path) -> CloudModel:
    return load_model(tiny_onnx)


@pytest.fixture(scope="module")
def mean_model(tmp_path_factory: pytest.TempPathFactory) -> CloudModel:
    """A net whose probability of cloud is the mean of the bands; it brings no probe."""
    return load_model(write_graph(tmp_path_factory.mktemp("mean") / "mean.onnx"))


def write_cloudy(path: Path, rows: int = 90, cols: int = 130, **settings: Any) -> Path:
    """Write a cloudy scene, with no data along its left edge, that takes several tiles."""
    reflectance, _ = cloudy_scene(np.random.default_rng(7), rows, cols)
    reflectance[:, :9] = 0.0
    return write_scene_tif(path, reflectance, **settings)


@pytest.fixture(scope="module")
def scene(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_cloudy(tmp_path_factory.mktemp("scene") / "cloudy.tif")


@pytest.fixture(scope="module")
def prediction(
    scene: Path, model: CloudModel, tmp_path_factory: pytest.TempPathFactory
) -> Prediction:
    """All products of the cloudy scene, in a folder that had to be made."""
    return predict_scene(scene, model, tmp_path_factory.mktemp("out") / "a" / "b", options=ALL)


def read_layer(path: Path) -> NDArray[np.uint8]:
    with quiet(NotGeoreferencedWarning), rasterio.open(path) as file:
        return np.asarray(file.read(1))


def names_in(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_the_mask_is_that_of_the_whole_scene(
    scene: Path, model: CloudModel, prediction: Prediction
) -> None:
    with open_scene(scene) as source:
        reflectance, valid = source.read()
    probability = model.predict(reflectance, valid)
    mask = read_layer(prediction.outputs.mask)
    np.testing.assert_array_equal(mask, model.mask(probability))
    np.testing.assert_array_equal(mask == 255, ~valid)
    assert {0, 1, 255} == set(np.unique(mask))
    percent = read_layer(prediction.outputs.probability)
    np.testing.assert_array_equal(percent == 255, ~valid)
    assert np.abs(percent[valid] - 100 * probability[valid]).max() <= 0.501


def test_products_lie_where_the_prediction_says(prediction: Prediction) -> None:
    outputs = prediction.outputs
    assert outputs == Outputs(outputs.folder, "cloudy")
    wanted = outputs.wanted(probability=True, quicklook=True).values()
    assert names_in(outputs.folder) == sorted(path.name for path in wanted)


def test_the_layers_say_what_made_them(
    scene: Path, model: CloudModel, prediction: Prediction
) -> None:
    for path in (prediction.outputs.mask, prediction.outputs.probability):
        with rasterio.open(path) as file, rasterio.open(scene) as source:
            assert file.tags()["MODEL_SHA256"] == model.sha256
            assert file.tags()["MODEL"] == f"{model.spec.name} {model.spec.version}"
            assert file.tags()["THRESHOLD"] == "0.5"
            assert file.tags()["SCENE"] == "cloudy"
            assert file.tags()["CLOUDNET_VERSION"] == __version__
            assert (file.crs, file.transform) == (source.crs, source.transform)


def test_the_summary_tells_the_share_and_what_it_rests_on(
    model: CloudModel, prediction: Prediction
) -> None:
    mask = read_layer(prediction.outputs.mask)
    valid = (mask != 255).sum()
    summary = json.loads(prediction.outputs.summary.read_text(encoding="utf-8"))
    comparison = summary.pop("comparison")
    assert summary == {
        "scene": "cloudy",
        "rows": 90,
        "cols": 130,
        "cloud_share": (mask == 1).sum() / valid,
        "valid_share": valid / mask.size,
        "cloud_km2": pytest.approx((mask == 1).sum() * 1e-4),
        "threshold": 0.5,
        "min_area_m2": 0.0,
        "buffer_m": 0.0,
        "like": None,
        "level": None,
        "level_seen": None,
        "model": {**model.spec.to_dict(), "sha256": model.sha256},
        "cloudnet": __version__,
    }
    assert comparison == replay_probe(model).to_dict()
    assert prediction.cloud_share == summary["cloud_share"]
    assert prediction.valid_share == summary["valid_share"]


def test_the_quicklook_shows_the_clouds_outlined(prediction: Prediction) -> None:
    with quiet(NotGeoreferencedWarning), rasterio.open(prediction.outputs.quicklook) as file:
        assert file.driver == "PNG"
        picture = file.read().transpose(1, 2, 0)
    assert picture.shape[0] / picture.shape[1] == pytest.approx(90 / 130, abs=0.01)
    share = (picture == OUTLINE_COLOR).all(axis=2).mean()
    assert 0.005 < share < 0.5


@pytest.mark.parametrize("tile_px", [8, 33, 768])
@pytest.mark.parametrize("suffix", [".tif", ".npy"])
def test_no_axis_or_band_is_flipped(
    mean_model: CloudModel, tmp_path: Path, tile_px: int, suffix: str
) -> None:
    values = lopsided_scene(41, 67)
    write = write_scene_tif if suffix == ".tif" else write_scene_npy
    path = write(tmp_path / f"scene{suffix}", values)
    options = PredictOptions(probability=True, threshold=0.4, tile_px=tile_px)
    outputs = predict_scene(
        path, mean_model, tmp_path / "out", comparison=PASSED, options=options
    ).outputs
    mean = values.mean(axis=2)
    clear_cut = np.abs(mean - 0.4) > 1e-4  # the GeoTIFF rounds reflectance to 1e-4
    mask = read_layer(outputs.mask)
    np.testing.assert_array_equal(mask[clear_cut], (mean >= 0.4)[clear_cut])
    percent = read_layer(outputs.probability)
    assert np.abs(percent - 100.0 * mean).max() <= 0.52


def test_the_threshold_is_that_of_the_options(mean_model: CloudModel, tmp_path: Path) -> None:
    path = write_scene_npy(tmp_path / "scene.npy", lopsided_scene(20, 30))
    spec = replace(mean_model.spec, threshold=0.455)
    model = CloudModel(mean_model.path, spec, mean_model._session, mean_model.sha256)
    mean = lopsided_scene(20, 30).mean(axis=2)
    for threshold in (None, 0.305, 0.555):
        found = predict_scene(
            path,
            model,
            tmp_path / str(threshold),
            comparison=PASSED,
            options=PredictOptions(threshold=threshold),
        )
        expected = threshold or 0.455
        summary = json.loads(found.outputs.summary.read_text())
        assert summary["threshold"] == expected
        with quiet(NotGeoreferencedWarning), rasterio.open(found.outputs.mask) as file:
            assert file.tags()["THRESHOLD"] == f"{expected:g}"
        assert found.cloud_share == (mean >= expected).mean()
        assert 0 < (mean >= expected).mean() < 1


@pytest.mark.parametrize("threshold", [0.0, 1.0, -0.1, 2.0, nan])
def test_a_threshold_lies_between_0_and_1(threshold: float) -> None:
    with pytest.raises(ModelError, match="between 0 and 1"):
        PredictOptions(threshold=threshold)


def test_a_tile_has_pixels() -> None:
    with pytest.raises(ModelError, match="1 px or more, not 0"):
        PredictOptions(tile_px=0)


def test_exact_is_passed_on(tmp_path: Path, model: CloudModel, scene: Path) -> None:
    """With a default halo of none, only the exact one gives the mask of the whole scene."""
    spec = replace(model.spec, halo_px=0)
    narrow = CloudModel(model.path, spec, model._session, model.sha256)
    with open_scene(scene) as source:
        expected = model.mask(model.predict(*source.read()))
    found = {}
    for exact in (False, True):
        options = PredictOptions(exact=exact, tile_px=16)
        out = predict_scene(
            scene, narrow, tmp_path / str(exact), comparison=PASSED, options=options
        ).outputs
        found[exact] = read_layer(out.mask)
    np.testing.assert_array_equal(found[True], expected)
    assert (found[False] != expected).any()


@pytest.mark.parametrize("suffix", [".tif", ".npy"])
def test_a_scene_without_a_valid_pixel_gets_a_mask_of_no_data(
    model: CloudModel, tmp_path: Path, suffix: str
) -> None:
    values = np.zeros((30, 50, 4), dtype=np.float32)
    write = write_scene_tif if suffix == ".tif" else write_scene_npy
    found = predict_scene(
        write(tmp_path / f"empty{suffix}", values), model, tmp_path / "out", options=ALL
    )
    assert found.cloud_share is None
    assert found.valid_share == 0.0
    assert (read_layer(found.outputs.mask) == 255).all()
    assert (read_layer(found.outputs.probability) == 255).all()
    summary = json.loads(found.outputs.summary.read_text())
    assert summary["cloud_share"] is None
    assert found.outputs.quicklook.exists()


@pytest.mark.parametrize("suffix", [".tif", ".npy"])
def test_a_scene_of_one_pixel_gets_a_mask_of_one_pixel(
    mean_model: CloudModel, tmp_path: Path, suffix: str
) -> None:
    write = write_scene_tif if suffix == ".tif" else write_scene_npy
    for value, expected in ((0.9, 1), (0.1, 0)):
        values = np.full((1, 1, 4), value, dtype=np.float32)
        path = write(tmp_path / f"pixel{expected}{suffix}", values)
        found = predict_scene(path, mean_model, tmp_path / "out", comparison=PASSED, options=ALL)
        assert read_layer(found.outputs.mask).tolist() == [[expected]]
        assert read_layer(found.outputs.probability).tolist() == [[round(100 * value)]]
        assert found.cloud_share == expected
        assert found.outputs.quicklook.exists()


@pytest.mark.parametrize("suffix", [".tif", ".npy"])
def test_a_single_nan_is_one_pixel_of_no_data(
    model: CloudModel, tmp_path: Path, suffix: str
) -> None:
    values, _ = cloudy_scene(np.random.default_rng(3), 50, 70)
    values[20, 30, 1] = nan
    path = (
        write_scene_tif(tmp_path / "nan.tif", values, scale=None)
        if suffix == ".tif"
        else write_scene_npy(tmp_path / "nan.npy", values)
    )
    found = predict_scene(path, model, tmp_path / "out", options=ALL)
    mask = read_layer(found.outputs.mask)
    np.testing.assert_array_equal(np.argwhere(mask == 255), [(20, 30)])
    np.testing.assert_array_equal(mask, model.mask(model.predict(values)))


def test_what_the_file_does_not_tell_comes_from_the_reading(
    mean_model: CloudModel, tmp_path: Path
) -> None:
    numbers = np.rint(lopsided_scene(20, 30) * 5000).astype(np.uint16)[..., ::-1]
    path = write_scene_tif(tmp_path / "dn.tif", numbers, scale=None, descriptions=None)
    reading = Reading(("4", "3", "2", "1"), scale=2e-4, offset=0.0)
    outputs = predict_scene(
        path,
        mean_model,
        tmp_path,
        comparison=PASSED,
        reading=reading,
        options=PredictOptions(probability=True),
    ).outputs
    expected = to_percent(lopsided_scene(20, 30).mean(axis=2))
    found = read_layer(outputs.probability).astype(int)
    assert np.abs(found - expected).max() <= 1


def test_progress_grows_to_1(model: CloudModel, scene: Path, tmp_path: Path) -> None:
    shares: list[float] = []
    predict_scene(scene, model, tmp_path, options=ALL, on_progress=shares.append)
    assert len(shares) > 4
    assert shares == sorted(shares)
    assert shares[-1] == 1.0


def test_no_quicklook_and_no_probability_unless_wanted(
    model: CloudModel, scene: Path, tmp_path: Path
) -> None:
    predict_scene(scene, model, tmp_path, options=PredictOptions(quicklook=False))
    assert names_in(tmp_path) == ["cloudy_cloudmask.json", "cloudy_cloudmask.tif"]


def test_a_failed_comparison_writes_nothing(model: CloudModel, scene: Path, tmp_path: Path) -> None:
    with pytest.raises(ComparisonError, match=r"tiny\.onnx does not say what Keras says"):
        predict_scene(scene, model, tmp_path / "out", comparison=FAILED)
    assert names_in(tmp_path) == []


def test_the_probe_is_replayed_where_no_comparison_is_given(
    tiny_onnx: Path, mean_model: CloudModel, scene: Path, tmp_path: Path
) -> None:
    off = load_model(tampered(tiny_onnx, tmp_path / "off.onnx", weights=lambda array: array * 1.1))
    with pytest.raises(ComparisonError, match="on probe"):
        predict_scene(scene, off, tmp_path / "out")
    bare = load_model(tampered(tiny_onnx, tmp_path / "bare.onnx", metadata={PROBE_KEY: None}))
    for model in (bare, mean_model):
        with pytest.raises(ModelError, match="holds no probe"):
            predict_scene(scene, model, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_model_of_single_tiles_is_refused_before_anything_is_made(
    model: CloudModel, scene: Path, tmp_path: Path
) -> None:
    spec = replace(model.spec, contract=CONTRACT_NCHW_224)
    fixed = CloudModel(model.path, spec, model._session, model.sha256)
    with pytest.raises(ModelError, match="hand-off of contract nchw-224"):
        predict_scene(scene, fixed, tmp_path / "out", comparison=PASSED)
    assert names_in(tmp_path) == []


def failing(
    function: Callable[..., Any], error: BaseException, good_calls: int
) -> Callable[..., Any]:
    """Return a function that does as another one, until it raises."""
    left = [good_calls]

    def call(*arguments: Any, **settings: Any) -> Any:
        if left[0] == 0:
            raise error
        left[0] -= 1
        return function(*arguments, **settings)

    return call


FULL = OSError(errno.ENOSPC, "No space left on device")
MIDWAY = {
    "at the first tile": (LayerWriter, "write", 0),
    "at a later tile": (LayerWriter, "write", 5),
    "refining": (predict, "refine_mask", 0),
    "on the other grid": (predict, "regrid", 0),
    "finishing the first layer": (predict, "publish_layer", 0),
    "finishing the second layer": (predict, "publish_layer", 1),
    "at the polygons": (predict, "write_polygons", 0),
    "at the quicklook": (predict.Quicklook, "encode", 0),
    "at the summary": (predict, "write_summary", 0),
    "at the STAC item": (predict, "write_summary", 1),
}


@pytest.fixture
def everything(tmp_path_factory: pytest.TempPathFactory) -> PredictOptions:
    """All products there are, refined, on another grid."""
    like = write_cloudy(tmp_path_factory.mktemp("like") / "like.tif", 80, 120)
    return replace(
        ALL,
        like=like,
        refinement=Refinement(min_area_m2=300.0, buffer_m=10.0),
        vector="geojson",
        stac=True,
        acquired=datetime(2024, 5, 1, 10, 30),
    )


def all_products(folder: Path) -> list[Path]:
    outputs = Outputs(folder, "cloudy")
    return [*outputs.wanted(probability=True, vector="geojson", stac=True).values()]


def test_everything_at_once(
    mean_model: CloudModel, scene: Path, tmp_path: Path, everything: PredictOptions
) -> None:
    found = predict_scene(scene, mean_model, tmp_path, comparison=PASSED, options=everything)
    assert names_in(tmp_path) == sorted(path.name for path in all_products(tmp_path))
    summary = json.loads(found.outputs.summary.read_text())
    told = [summary[key] for key in ("rows", "cols", "min_area_m2", "buffer_m", "like")]
    assert told == [80, 120, 300.0, 10.0, "like.tif"]
    item = json.loads(found.outputs.stac_item.read_text())
    assert item["properties"]["datetime"] == "2024-05-01T10:30:00Z"
    assert item["properties"]["eo:cloud_cover"] == pytest.approx(
        100 * summary["cloud_share"], abs=1e-4
    )
    for asset in item["assets"].values():
        content = (tmp_path / asset["href"]).read_bytes()
        assert asset["file:checksum"] == "1220" + hashlib.sha256(content).hexdigest()
        assert asset["file:size"] == len(content)
    assert set(item["assets"]) == {"mask", "probability", "quicklook", "vector", "summary"}


@pytest.mark.parametrize("stage", MIDWAY)
def test_no_room_leaves_no_product_and_no_temporary(
    model: CloudModel,
    scene: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    everything: PredictOptions,
    stage: str,
) -> None:
    place, name, good_calls = MIDWAY[stage]
    monkeypatch.setattr(place, name, failing(getattr(place, name), FULL, good_calls))
    with pytest.raises(OutputError, match="cannot be written: No space left") as caught:
        predict_scene(scene, model, tmp_path, options=everything)
    assert str(tmp_path / "cloudy_cloud") in str(caught.value)
    assert "part" not in str(caught.value)
    assert names_in(tmp_path) == []


@pytest.mark.parametrize("stage", MIDWAY)
def test_ctrl_c_leaves_what_was_there_before(
    model: CloudModel,
    scene: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    everything: PredictOptions,
    stage: str,
) -> None:
    wanted = all_products(tmp_path)
    for path in wanted:
        path.write_text("of yesterday")
    place, name, good_calls = MIDWAY[stage]
    stop = failing(getattr(place, name), KeyboardInterrupt(), good_calls)
    monkeypatch.setattr(place, name, stop)
    with pytest.raises(KeyboardInterrupt):
        predict_scene(scene, model, tmp_path, options=replace(everything, overwrite=True))
    assert names_in(tmp_path) == sorted(path.name for path in wanted)
    assert all(path.read_text() == "of yesterday" for path in wanted)


def test_a_scene_cut_short_leaves_nothing(model: CloudModel, tmp_path: Path) -> None:
    """Its header is whole and its first rows can be read; the error comes midway."""
    path = tmp_path / "cut.tif"
    # This driver writes the header before the pixels.
    whole = write_cloudy(tmp_path / "whole.tif", 900, 70)
    rasterio.shutil.copy(whole, path, driver="COG", blocksize=128, compress="none")
    content = path.read_bytes()
    path.write_bytes(content[: len(content) * 2 // 3])
    with open_scene(path) as source:
        assert source.rows == 900
    shares: list[float] = []
    with pytest.raises(SceneError, match="cut short") as caught:
        predict_scene(path, model, tmp_path / "out", options=ALL, on_progress=shares.append)
    assert str(path) in str(caught.value)
    assert 0.2 < shares[-1] < 0.9
    assert names_in(tmp_path / "out") == []


@pytest.mark.parametrize("kind", ["mask", "probability", "quicklook", "summary"])
def test_any_product_in_the_way_stops_before_work(
    model: CloudModel, scene: Path, tmp_path: Path, kind: str
) -> None:
    path = Outputs(tmp_path, "cloudy").wanted(probability=True, quicklook=True)[kind]
    path.write_text("of yesterday")
    with pytest.raises(OutputError, match="exists; give --overwrite") as caught:
        predict_scene(scene, model, tmp_path, options=ALL)
    assert str(path) in str(caught.value)
    assert names_in(tmp_path) == [path.name]
    assert path.read_text() == "of yesterday"
    predict_scene(scene, model, tmp_path, options=replace(ALL, overwrite=True))
    assert len(names_in(tmp_path)) == 4
    assert path.read_bytes() != b"of yesterday"


def test_products_that_are_not_wanted_are_not_in_the_way(
    model: CloudModel, scene: Path, tmp_path: Path
) -> None:
    (tmp_path / "cloudy_cloudprobability.tif").write_text("of yesterday")
    predict_scene(scene, model, tmp_path)
    assert (tmp_path / "cloudy_cloudprobability.tif").read_text() == "of yesterday"


def test_an_output_that_is_a_file_is_refused(
    model: CloudModel, scene: Path, tmp_path: Path
) -> None:
    (tmp_path / "out").write_text("a file")
    with pytest.raises(OutputError, match="is a file where an output folder is needed"):
        predict_scene(scene, model, tmp_path / "out")
    assert (tmp_path / "out").read_text() == "a file"


def test_an_output_that_another_process_writes_is_left_to_it(
    mean_model: CloudModel, scene: Path, tmp_path: Path
) -> None:
    with (
        output_lock(Outputs(tmp_path, "cloudy").mask),
        pytest.raises(OutputError, match="being written by another process"),
    ):
        predict_scene(scene, mean_model, tmp_path, comparison=PASSED)
    assert names_in(tmp_path) == []
    predict_scene(scene, mean_model, tmp_path, comparison=PASSED)
    assert len(names_in(tmp_path)) == 3


def test_what_a_killed_process_left_is_removed(
    mean_model: CloudModel, scene: Path, tmp_path: Path
) -> None:
    (tmp_path / ".cloudy_cloudmask.0123abcd.part").mkdir()
    (tmp_path / ".cloudy_cloudmask.0123abcd.part" / "mask.tif").write_text("half")
    (tmp_path / ".cloudy_cloudmask.4567abcd.part.tif").write_text("half")
    (tmp_path / ".cloudy_2_cloudmask.4567abcd.part.tif").write_text("of another scene")
    predict_scene(scene, mean_model, tmp_path, comparison=PASSED)
    assert [name for name in names_in(tmp_path) if "part" in name] == [
        ".cloudy_2_cloudmask.4567abcd.part.tif"
    ]


def test_one_vector_file_is_for_one_scene(tmp_path: Path) -> None:
    scenes = [tmp_path / "a.tif", tmp_path / "b.tif"]
    with pytest.raises(OutputError, match="one file for 2 scenes"):
        check_shared(scenes, PredictOptions(vector=str(tmp_path / "clouds.gpkg")))
    check_shared(scenes, PredictOptions(vector="gpkg"))


@pytest.mark.parametrize("word", ["clouds.shp", "GPKG", ".gpkg", "out/.geojson"])
def test_a_vector_file_has_a_suffix_that_tells_its_format(word: str) -> None:
    with pytest.raises(OutputError, match="neither gpkg nor geojson"):
        PredictOptions(vector=word)
    PredictOptions(vector="CLOUDS.GPKG")


def test_a_scene_that_tells_no_time_gets_no_stac_item(
    mean_model: CloudModel, scene: Path, tmp_path: Path
) -> None:
    with pytest.raises(OutputError, match=r"does not tell when it was taken.*--datetime"):
        predict_scene(
            scene, mean_model, tmp_path, comparison=PASSED, options=PredictOptions(stac=True)
        )
    assert names_in(tmp_path) == []


@pytest.mark.parametrize(
    ("options", "told"),
    [
        (PredictOptions(refinement=Refinement(buffer_m=20.0)), "--buffer-m"),
        (PredictOptions(refinement=Refinement(min_area_m2=20.0)), "--min-area-m2"),
        (PredictOptions(vector="geojson"), "--vector"),
        (PredictOptions(stac=True, acquired=datetime(2024, 5, 1)), "--stac"),
    ],
)
def test_a_scene_without_georeference_is_told_what_needs_it(
    mean_model: CloudModel, tmp_path: Path, options: PredictOptions, told: str
) -> None:
    path = write_scene_npy(tmp_path / "scene.npy", lopsided_scene(20, 30))
    with pytest.raises(OutputError, match=rf"scene\.npy has no .*{told}"):
        predict_scene(path, mean_model, tmp_path / "out", comparison=PASSED, options=options)
    assert not (tmp_path / "out").exists()


def test_several_scenes_in_one_command(
    tiny_onnx: Path, geotiff_dataset: Path, tmp_path: Path
) -> None:
    scenes = sorted((geotiff_dataset / "scenes").glob("*.tif"))[:3]
    arguments = [*map(str, scenes), "-m", str(tiny_onnx), "-o", str(tmp_path), "--no-quicklook"]
    result = CliRunner().invoke(main, ["predict", *arguments])
    assert (result.exit_code, result.stderr) == (0, "")
    first, *lines = result.stdout.splitlines()
    assert first.startswith("compared with probe: largest difference")
    assert len(lines) == 3
    for path, line in zip(scenes, lines):
        mask = tmp_path / f"{path.stem}_cloudmask.tif"
        cloud = (read_layer(mask) == 1).mean()
        assert line == f"{mask}: cloud {cloud:.1%}"
    assert len(names_in(tmp_path)) == 6 + 1  # the manifest


def test_two_scenes_of_one_name_are_refused(tiny_onnx: Path, scene: Path, tmp_path: Path) -> None:
    twin = tmp_path / "other" / scene.name
    twin.parent.mkdir()
    shutil.copy(scene, twin)
    out = tmp_path / "out"
    arguments = [str(scene), str(twin), "-m", str(tiny_onnx), "-o", str(out), "--overwrite"]
    result = CliRunner().invoke(main, ["predict", *arguments])
    assert result.exit_code == 2
    assert str(scene) in result.stderr and str(twin) in result.stderr
    assert "one name" in result.stderr
    assert not out.exists()


def test_a_product_in_the_way_of_the_last_scene_stops_before_the_first(
    tiny_onnx: Path, geotiff_dataset: Path, tmp_path: Path
) -> None:
    scenes = sorted((geotiff_dataset / "scenes").glob("*.tif"))[:2]
    (tmp_path / "scene01_cloudmask.tif").write_text("of yesterday")
    arguments = [*map(str, scenes), "-m", str(tiny_onnx), "-o", str(tmp_path)]
    result = CliRunner().invoke(main, ["predict", *arguments])
    assert (result.exit_code, result.stdout) == (2, "")
    assert names_in(tmp_path) == ["scene01_cloudmask.tif"]


def test_a_real_scene(model: CloudModel, real_scenes: Path, tmp_path: Path) -> None:
    path = real_scenes / "rgbn" / "scenes" / "cr_6317_cloudy.tif"
    outputs = predict_scene(path, model, tmp_path, options=replace(ALL, exact=True)).outputs
    with open_scene(path) as source:
        probability = model.predict(*source.read())
        crs, transform = source.crs, source.transform
    sure = np.abs(probability - 0.5) > 1e-5
    np.testing.assert_array_equal(read_layer(outputs.mask)[sure], model.mask(probability)[sure])
    with quiet(NotGeoreferencedWarning), rasterio.open(outputs.mask) as file:
        assert file.crs == crs
        if transform is not None:
            assert file.transform == transform
