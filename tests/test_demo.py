"""The demo: every step says what it did, and its sample is what the repository holds."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
import rasterio

from tests import helpers

SAMPLE = Path(__file__).parents[1] / "data" / "sample"


def test_the_sample_is_what_the_generator_writes(tmp_path: Path) -> None:
    pytest.importorskip("tensorflow", reason="the demo needs the train extra")
    from cloudnet.demo import write_sample

    write_sample(tmp_path / "sample")
    written = sorted(path.relative_to(tmp_path / "sample") for path in tmp_path.rglob("*.tif"))
    assert written == sorted(path.relative_to(SAMPLE) for path in SAMPLE.rglob("*.tif"))
    for path in written:
        with rasterio.open(SAMPLE / path) as kept, rasterio.open(tmp_path / "sample" / path) as new:
            difference = np.abs(kept.read().astype(int) - new.read().astype(int))
        # Mathematical libraries differ in the last bit, which may round to another integer.
        assert difference.mean() < 0.01, path


def test_the_demo_runs_twice_in_one_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("tensorflow", reason="the demo needs the train extra")
    from cloudnet import demo

    shutil.copytree(SAMPLE, tmp_path / "data" / "sample")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(demo, "CONFIG", helpers.tiny_config(epochs=1))
    first = list(demo.run_demo(Path("demo")))
    steps = [line.split(":")[0] for line in first if ":" in line]
    assert steps[:6] == ["data", "train", "export", "compare", "predict", "evaluate"]
    assert len(list(Path("demo/masks").glob("*_cloudmask.tif"))) == 1
    assert len(list(Path("demo/masks").glob("*_quicklook.png"))) == 1
    assert Path("demo/run/curves.png").exists()
    again = list(demo.run_demo(Path("demo")))
    assert [line for line in again if line.startswith("train")] == [
        line for line in first if line.startswith("train")
    ]
