"""Products: names of the files, per cent, and the summary."""

from __future__ import annotations

import json
from math import nan
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from cloudnet.product import Outputs, to_percent, write_summary


def test_probability_in_per_cent() -> None:
    probability = np.array([[0.0, 0.004, 0.006, 0.5], [0.996, 1.0, nan, 0.29]], dtype=np.float32)
    percent = to_percent(probability)
    assert percent.dtype == np.uint8
    np.testing.assert_array_equal(percent, [[0, 0, 1, 50], [100, 100, 255, 29]])


def test_products_lie_side_by_side_under_the_scenes_name() -> None:
    outputs = Outputs(Path("out"), "S2A_scene.v1")
    everything = outputs.wanted(probability=True, quicklook=True)
    assert {kind: path.name for kind, path in everything.items()} == {
        "mask": "S2A_scene.v1_cloudmask.tif",
        "probability": "S2A_scene.v1_cloudprobability.tif",
        "quicklook": "S2A_scene.v1_quicklook.png",
        "summary": "S2A_scene.v1_cloudmask.json",
    }
    assert list(everything) == ["mask", "probability", "quicklook", "summary"]
    all_kinds = outputs.wanted(vector="gpkg", stac=True)
    assert list(all_kinds) == ["mask", "quicklook", "vector", "summary", "stac item"]
    assert all_kinds["vector"].name == "S2A_scene.v1_clouds.gpkg"
    assert all_kinds["stac item"].name == "S2A_scene.v1_stac.json"
    assert outputs.vector("elsewhere/x.geojson") == Path("elsewhere/x.geojson")
    assert list(outputs.wanted(probability=False, quicklook=False)) == ["mask", "summary"]
    assert {path.parent for path in everything.values()} == {Path("out")}


def test_a_summary_is_json_that_every_reader_takes(tmp_path: Path) -> None:
    content: dict[str, Any] = {"scene": "Köln", "cloud_share": None, "threshold": 0.5}
    write_summary(tmp_path / "s.json", content)
    text = (tmp_path / "s.json").read_text(encoding="utf-8")
    assert json.loads(text) == content
    assert text.endswith("}\n")
    with pytest.raises(ValueError, match="JSON compliant"):
        write_summary(tmp_path / "s.json", {"cloud_share": nan})
