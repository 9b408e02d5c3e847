"""Plans: what is told before the work, and that nothing is done."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from click.testing import CliRunner

from cloudnet.commands import main
from cloudnet.errors import OutputError
from cloudnet.plan import plan_scene, resident_bytes
from cloudnet.predict import PredictOptions
from cloudnet.product import Outputs
from cloudnet.refine import Refinement
from cloudnet.runtime import CloudModel, load_model
from tests.helpers import lopsided_scene, write_scene_npy, write_scene_tif
from tests.test_runtime import write_graph


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> CloudModel:
    return load_model(write_graph(tmp_path_factory.mktemp("mean") / "mean.onnx"))


def test_a_plan_tells_sizes_and_files_and_writes_nothing(model: CloudModel, tmp_path: Path) -> None:
    path = write_scene_tif(tmp_path / "scene.tif", lopsided_scene(90, 130))
    options = PredictOptions(probability=True, vector="geojson", tile_px=40)
    plan = plan_scene(path, model, tmp_path / "out" / "deep", options)
    assert plan.size == plan.grid_size == (90, 130)
    assert plan.read_bytes == path.stat().st_size
    outputs = Outputs(tmp_path / "out" / "deep", "scene")
    assert plan.files == tuple(options.wanted(outputs).values())
    assert plan.memory_bytes == sum(plan.memory.values()) > resident_bytes() / 2
    assert 0 < plan.disk_bytes < plan.most_disk_bytes < plan.free_bytes
    text = "\n".join(plan.to_lines())
    assert "scene_clouds.geojson" in text and "90 x 130" in text
    assert not (tmp_path / "out").exists()


def test_memory_depends_on_what_is_asked_for(model: CloudModel, tmp_path: Path) -> None:
    path = write_scene_tif(tmp_path / "scene.tif", lopsided_scene(900, 900))

    def memory(**settings: object) -> int:
        plan = plan_scene(path, model, tmp_path, replace(PredictOptions(), **settings))
        return plan.memory_bytes - plan.memory["process and model"]

    assert memory(quicklook=False) < memory()
    assert memory(tile_px=256) < memory()


def test_a_plan_refuses_what_predict_would(model: CloudModel, tmp_path: Path) -> None:
    path = write_scene_npy(tmp_path / "scene.npy", lopsided_scene(9, 13))
    options = PredictOptions(refinement=Refinement(buffer_m=10.0))
    with pytest.raises(OutputError, match="--buffer-m"):
        plan_scene(path, model, tmp_path, options)


def test_a_dry_run_writes_nothing(tmp_path: Path) -> None:
    path = write_scene_tif(tmp_path / "scene.tif", lopsided_scene(90, 130))
    arguments = ["predict", str(path), "-o", str(tmp_path / "out"), "--dry-run", "--buffer-m", "20"]
    result = CliRunner().invoke(main, arguments)
    assert (result.exit_code, result.stderr) == (0, "")
    assert "memory about" in result.stdout and "disk about" in result.stdout
    assert [file.name for file in tmp_path.iterdir()] == ["scene.tif"]
