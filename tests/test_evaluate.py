"""Models and masks are scored scene by scene, over every labelled pixel, read in parts."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from cloudnet import dataset, evaluate, runtime
from cloudnet.confusion import Confusion
from cloudnet.dataset import SLAB_ROWS, DataSet, LabelledScene, open_dataset
from cloudnet.errors import DatasetError, ModelError
from cloudnet.evaluate import evaluate_model, evaluate_predictions
from cloudnet.histogram import Histogram
from cloudnet.runtime import CloudModel
from cloudnet.scores import SceneScore
from cloudnet.spec import Spec
from cloudnet.tiles import Window
from tests.test_confusion import BY_HAND, FOUND, TRUTH

Array = NDArray[Any]


SMALL_TILES = 650_000
"""Bytes, of which tiles of some ten thousand pixels are made."""


class BrightIsCloud:
    """Stands for onnxruntime's session: the probability of cloud is the red band."""

    def get_inputs(self) -> list[SimpleNamespace]:
        return [SimpleNamespace(name="reflectance")]

    def get_modelmeta(self) -> SimpleNamespace:
        return SimpleNamespace(custom_metadata_map={})

    def run(self, _: None, feeds: dict[str, Array]) -> list[Array]:
        return [feeds["reflectance"][..., :1]]


def bright_model() -> CloudModel:
    spec = Spec(name="bright", version="2", stride=4, halo_px=8, exact_halo_px=8, threshold=0.5)
    return CloudModel(Path("bright.onnx"), spec, BrightIsCloud(), "0123456789abcdef")


@dataclass
class Folder:
    """A data set to be filled with `.npy` scenes; the red band is what makes them cloudy."""

    path: Path

    def add(self, name: str, red: Array, mask: Array) -> None:
        for kind in ("scenes", "masks"):
            (self.path / kind).mkdir(parents=True, exist_ok=True)
        scene = np.repeat(red[..., np.newaxis], 4, axis=2).astype(np.float32)
        np.save(self.path / "scenes" / f"{name}.npy", scene)
        np.save(self.path / "masks" / f"{name}.npy", mask.astype(np.uint8))

    def tell(self, *rows: str) -> None:
        (self.path / "scenes.csv").write_text("\n".join(["scene,group,labels", *rows]))

    def open(self) -> DataSet:
        return open_dataset([self.path])


@pytest.fixture
def folder(tmp_path: Path) -> Folder:
    return Folder(tmp_path / "data")


def test_a_model_is_scored_scene_by_scene(folder: Folder) -> None:
    red = np.where(FOUND == 1, 0.9, 0.1)
    red[FOUND == 255] = np.nan
    folder.add("first", red, TRUTH)
    folder.add("second", np.full((2, 2), 0.9), np.array([[1, 1], [1, 0]]))
    folder.tell("first,P,human", "second,Q,teacher")
    calls: list[tuple[int, int]] = []
    evaluation = evaluate_model(
        folder.open(), bright_model(), on_scene=lambda done, total: calls.append((done, total))
    )
    assert evaluation.scenes == (
        SceneScore("first", "P", "human", BY_HAND, unpredicted=2),
        SceneScore("second", "Q", "teacher", Confusion(tp=3, fp=1)),
    )
    assert calls == [(1, 2), (2, 2)]
    assert evaluation.threshold == 0.5
    histogram = evaluation.histogram
    assert histogram is not None
    # At 0.1 and 0.9; the pixels without data are in neither.
    assert np.flatnonzero(histogram.cloud).tolist() == [20, 180]
    assert histogram.confusion(0.5) == evaluation.pooled
    assert "bright 2" in evaluation.model and "0123456789ab" in evaluation.model


def test_every_pixel_of_a_scene_of_many_tiles_counts_in_its_place(
    folder: Folder, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(runtime, "STREAMED_TILE_BYTES", SMALL_TILES)
    rng = np.random.default_rng(3)
    truth = (rng.random((1601, 30)) < 0.4).astype(np.uint8)
    found = (rng.random((1601, 30)) < 0.4).astype(np.uint8)
    folder.add("long", 0.1 + 0.8 * found, truth)
    (score,) = evaluate_model(folder.open(), bright_model()).scenes
    assert score.confusion == Confusion.of(truth, found)
    assert score.confusion.pixels == 1601 * 30


def test_masks_are_read_by_parts(folder: Folder, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(runtime, "STREAMED_TILE_BYTES", SMALL_TILES)
    folder.add("long", np.full((1601, 5), 0.3), np.zeros((1601, 5)))
    windows: list[Window] = []
    read_mask = LabelledScene.read_mask

    def spy(scene: LabelledScene, window: Window | None = None) -> Array:
        windows.append(window or Window(0, 0, scene.rows, scene.cols))
        return read_mask(scene, window)

    monkeypatch.setattr(LabelledScene, "read_mask", spy)
    evaluate_model(folder.open(), bright_model())
    evaluate_predictions(folder.open(), folder.path / "masks")
    assert sum(window.rows for window in windows) == 2 * 1601
    assert max(window.rows for window in windows) <= 768


def test_the_threshold_can_be_given(folder: Folder) -> None:
    folder.add("grey", np.full((3, 4), 0.4), np.ones((3, 4)))
    dataset = folder.open()
    assert evaluate_model(dataset, bright_model()).pooled == Confusion(fn=12)
    given_lower = evaluate_model(dataset, bright_model(), threshold=0.4)
    assert given_lower.pooled == Confusion(tp=12)
    assert given_lower.threshold == 0.4
    with pytest.raises(ModelError, match="threshold"):
        evaluate_model(dataset, bright_model(), threshold=1.0)


def write_tif(path: Path, mask: Array) -> None:
    import rasterio
    from rasterio.errors import NotGeoreferencedWarning

    from cloudnet.files import quiet

    path.parent.mkdir(exist_ok=True)
    rows, cols = mask.shape
    with (
        quiet(NotGeoreferencedWarning),
        rasterio.open(
            path, "w", driver="GTiff", width=cols, height=rows, count=1, dtype="uint8", nodata=255
        ) as target,
    ):
        target.write(mask.astype(np.uint8), 1)


def test_predicted_masks_are_scored(folder: Folder, tmp_path: Path) -> None:
    folder.add("a", np.full((3, 4), 0.3), TRUTH)
    write_tif(tmp_path / "out" / "a_cloudmask.tif", FOUND)
    evaluation = evaluate_predictions(folder.open(), tmp_path / "out")
    assert evaluation.scenes == (SceneScore("a", "a", "", BY_HAND, unpredicted=2),)
    assert evaluation.threshold is None
    assert evaluation.histogram is None
    assert str(tmp_path / "out") in evaluation.model


def test_the_histogram_of_many_tiles_is_that_of_the_whole(folder: Folder) -> None:
    rng = np.random.default_rng(5)
    red = rng.random((1601, 30)).astype(np.float32)
    truth = (rng.random(red.shape) < red).astype(np.uint8)
    folder.add("long", red, truth)
    (score,) = evaluate_model(folder.open(), bright_model()).scenes
    whole = Histogram.of(truth, red)
    assert score.histogram is not None
    assert score.histogram.cloud.tolist() == whole.cloud.tolist()
    assert score.histogram.clear.tolist() == whole.clear.tolist()


def test_the_mask_that_predict_writes_comes_first(folder: Folder, tmp_path: Path) -> None:
    folder.add("a", np.full((3, 4), 0.3), np.ones((3, 4)))
    out, dataset = tmp_path / "out", folder.open()
    out.mkdir()
    np.save(out / "a.npy", np.zeros((3, 4), dtype=np.uint8))
    assert evaluate_predictions(dataset, out).pooled == Confusion(fn=12)
    write_tif(out / "a.tif", np.eye(3, 4))
    assert evaluate_predictions(dataset, out).pooled == Confusion(tp=3, fn=9)
    write_tif(out / "a_cloudmask.tif", np.ones((3, 4)))
    assert evaluate_predictions(dataset, out).pooled == Confusion(tp=12)


def test_masks_of_others_are_not_scored_where_the_scene_has_no_data(
    folder: Folder, tmp_path: Path
) -> None:
    red = np.array([[0.9, 0.1, np.nan], [0.1, np.nan, np.nan]])
    folder.add("scene", red, np.array([[1, 0, 0], [0, 1, 255]]))
    (tmp_path / "out").mkdir()
    np.save(tmp_path / "out" / "scene.npy", np.array([[1, 0, 0], [1, 1, 0]], dtype=np.uint8))
    (score,) = evaluate_predictions(folder.open(), tmp_path / "out").scenes
    assert (score.confusion, score.unpredicted) == (Confusion(tp=1, fp=1, tn=1), 2)


def test_predicted_masks_are_read_in_slabs(
    folder: Folder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rng = np.random.default_rng(8)
    truth, found = (rng.random((2, SLAB_ROWS + 77, 6)) < 0.3).astype(np.uint8)
    folder.add("long", np.full(truth.shape, 0.3), truth)
    write_tif(tmp_path / "out" / "long.tif", found)
    read: list[int] = []

    def spy(path: Path, window: Window) -> Array:
        read.append(window.rows)
        return open_mask(path, window)

    open_mask = dataset.read_mask
    monkeypatch.setattr(evaluate, "read_mask", spy)
    assert evaluate_predictions(folder.open(), tmp_path / "out").pooled == Confusion.of(
        truth, found
    )
    assert read == [SLAB_ROWS, 77]


def test_missing_predictions_are_named_before_any_is_scored(folder: Folder, tmp_path: Path) -> None:
    for name in ("a", "b", "c"):
        folder.add(name, np.full((3, 4), 0.3), TRUTH)
    write_tif(tmp_path / "out" / "a.tif", FOUND)
    calls: list[int] = []
    with pytest.raises(DatasetError, match=r"b_cloudmask\.tif or b\.tif .*1 more.*predict"):
        evaluate_predictions(
            folder.open(), tmp_path / "out", on_scene=lambda done, _: calls.append(done)
        )
    assert not calls
    with pytest.raises(DatasetError, match="no folder"):
        evaluate_predictions(folder.open(), tmp_path / "absent")


def test_a_prediction_of_another_size_is_named(folder: Folder, tmp_path: Path) -> None:
    folder.add("a", np.full((3, 4), 0.3), TRUTH)
    write_tif(tmp_path / "out" / "a.tif", FOUND.T)
    with pytest.raises(DatasetError, match=r"a\.tif has 4 x 3 pixels, its scene 3 x 4"):
        evaluate_predictions(folder.open(), tmp_path / "out")


def test_a_prediction_that_is_no_mask_is_named(folder: Folder, tmp_path: Path) -> None:
    folder.add("a", np.full((3, 4), 0.3), TRUTH)
    write_tif(tmp_path / "out" / "a.tif", np.full((3, 4), 100))
    with pytest.raises(DatasetError, match=r"a\.tif holds the value 100"):
        evaluate_predictions(folder.open(), tmp_path / "out")


def test_scenes_of_one_name_cannot_share_a_prediction(folder: Folder, tmp_path: Path) -> None:
    other = Folder(tmp_path / "other")
    for each in (folder, other):
        each.add("a", np.full((3, 4), 0.3), TRUTH)
    write_tif(tmp_path / "out" / "a.tif", FOUND)
    with pytest.raises(DatasetError, match="2 scenes of the data set are named a"):
        evaluate_predictions(open_dataset([folder.path, other.path]), tmp_path / "out")
