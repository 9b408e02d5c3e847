"""Fixtures of more than one test module: thin coats over `tests.helpers`."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import settings

from tests import helpers

REAL_SCENES = Path(__file__).resolve().parents[1].parent / "shared" / "scenes"

# A machine under load is no defect of the code.
settings.register_profile("cloudnet", deadline=None, max_examples=60)
settings.load_profile("cloudnet")


@pytest.fixture
def write_scene_tif() -> Callable[..., Path]:
    """`helpers.write_scene_tif`: write a GeoTIFF scene."""
    return helpers.write_scene_tif


@pytest.fixture
def write_mask_tif() -> Callable[..., Path]:
    """`helpers.write_mask_tif`: write a GeoTIFF mask."""
    return helpers.write_mask_tif


@pytest.fixture
def make_dataset() -> Callable[..., Path]:
    """`helpers.make_dataset`: write a small labelled data set."""
    return helpers.make_dataset


@pytest.fixture(scope="session")
def geotiff_dataset(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Six small labelled scenes of three places, as GeoTIFF; not to be changed."""
    return helpers.make_dataset(tmp_path_factory.mktemp("data") / "geotiff", "geotiff")


@pytest.fixture(scope="session")
def catalogue_dataset(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Six small labelled scenes of three places, as the catalogue has them; not to be changed."""
    return helpers.make_dataset(tmp_path_factory.mktemp("data") / "catalogue", "catalogue")


@pytest.fixture(scope="session")
def real_scenes() -> Path:
    """The folder of real satellite scenes; skips where it is not on this machine."""
    if not (REAL_SCENES / "rgbn").is_dir():
        pytest.skip(f"the real scenes are not on this machine ({REAL_SCENES})")
    return REAL_SCENES


@pytest.fixture(scope="session")
def tiny_run(geotiff_dataset: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of a tiny net, trained for two short epochs; not to be changed."""
    pytest.importorskip("tensorflow", reason="the train extra is not installed")
    from cloudnet.dataset import open_dataset
    from cloudnet.train import train

    folder = tmp_path_factory.mktemp("runs") / "tiny"
    return train(open_dataset([geotiff_dataset]), folder, helpers.tiny_config()).folder


@pytest.fixture(scope="session")
def tiny_onnx(tiny_run: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tiny net as ONNX, by way of the real export; not to be changed."""
    from cloudnet.export import export_onnx

    path = tmp_path_factory.mktemp("models") / "tiny.onnx"
    export_onnx(tiny_run, path)
    return path


@pytest.fixture
def tiny_shipped(
    tiny_onnx: Path,
    tiny_run: Path,
    tmp_path_factory: pytest.TempPathFactory,
    monkeypatch: pytest.MonkeyPatch,
) -> Path:
    """A folder of shipped models in the place of the package's: the tiny net under their names.

    The second one differs in its threshold and is marked as INT8, which it is not.
    """
    from cloudnet import shipped

    folder = tmp_path_factory.mktemp("shipped")
    helpers.ship_tiny(folder, tiny_onnx, tiny_run)
    monkeypatch.setattr(shipped, "MODELS_FOLDER", folder)
    return folder
