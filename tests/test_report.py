"""Reports line up, tell what is undefined, and hold the numbers of the evaluation."""

from __future__ import annotations

import csv
import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from cloudnet.confusion import Confusion
from cloudnet.dataset import DataSet, LabelCounts, LabelledScene
from cloudnet.histogram import Histogram
from cloudnet.report import (
    dataset_table,
    evaluation_csv,
    evaluation_json,
    evaluation_table,
    percent,
    text_table,
)
from cloudnet.scores import Evaluation, SceneScore, ThresholdFit

EVALUATION = Evaluation(
    scenes=(
        SceneScore("ocean", "sea", "human", Confusion(tn=10)),
        SceneScore("storm, 2", "T49TGK", "teacher", Confusion(tp=6, fp=2, fn=1, tn=11), 4),
        SceneScore("plain", "T33UUB", "", Confusion(tp=1200, tn=34)),
    ),
    threshold=0.45,
    model="net 1.0",
)


def cells(line: str) -> list[str]:
    """Split a line of a table at two spaces or more."""
    return [cell.strip() for cell in line.split("  ") if cell.strip()]


def test_a_table_lines_up() -> None:
    table = text_table(
        ["scene", "pixels", "share", "size"],
        [("a", 7, "5.0 %", "1 x 7"), (), ("longer", 1234567, None, "x"), ("b", 3, 0.25, "–")],
    )
    assert table == (
        "scene      pixels  share  size\n"
        "------  ---------  -----  -----\n"
        "a               7  5.0 %  1 x 7\n"
        "------  ---------  -----  -----\n"
        "longer  1,234,567      –  x\n"
        "b               3   0.25  –"
    )


@pytest.mark.parametrize("number", ["1", "-1.5", "1,697", "1e-05", "100.0 %", "3%", ".5", "nan"])
def test_what_looks_like_a_number_stands_to_the_right(number: str) -> None:
    last = text_table(["a wide title"], [(number,)]).splitlines()[-1]
    assert last == number.rjust(12)


@pytest.mark.parametrize("text", ["a1", "1 x 2", "2019-05-22", "v1.0", "1.2.3", "12 px"])
def test_what_does_not_stands_to_the_left(text: str) -> None:
    assert text_table(["a wide title"], [(text,)]).splitlines()[-1] == text


def test_small_differences_keep_their_digits() -> None:
    assert text_table(["d"], [(1.23456e-7,)]).splitlines()[-1] == "1.235e-07"


def test_a_table_without_rows_is_its_header() -> None:
    assert text_table(["one", "two"], []) == "one  two\n---  ---"


def test_a_row_of_another_length_is_refused() -> None:
    with pytest.raises(ValueError, match="2 cells"):
        text_table(["a", "b"], [("x", "y"), ("x",)])


def test_shares_are_shown_as_percentages() -> None:
    assert [percent(0.0), percent(0.12345), percent(1.0), percent(None)] == [
        "0.0 %",
        "12.3 %",
        "100.0 %",
        "–",
    ]


def test_the_table_of_scores_tells_all_kinds_and_scenes() -> None:
    title, scenes, kinds, notes = evaluation_table(EVALUATION).split("\n\n")
    assert title == "net 1.0, threshold 0.45"
    rows = {cells(line)[0]: cells(line)[1:] for line in kinds.splitlines()[2:]}
    assert [name for name in rows if "---" not in name] == ["human", "teacher", "unknown", "all"]
    # tp 1206, fp 2, fn 1, tn 55.
    assert rows["all"] == [
        "3", "1,264", "95.5 %", "95.6 %", "0.9975", "0.9988", "0.9983", "0.9992", "0.9976",
        "0.9820", "0.0351",
    ]  # fmt: skip
    assert [cells(line) for line in scenes.splitlines()[2:4]] == [
        ["ocean", "10", "0.0 %", "0.0 %", "–", "–", "–", "–", "1.0000", "–", "0.0000"],
        [
            "storm, 2", "20", "35.0 %", "40.0 %", "0.6667", "0.8000", "0.7500", "0.8571",
            "0.8500", "0.8516", "0.1538",
        ],
    ]  # fmt: skip
    assert rows["teacher"] == ["1", *cells(scenes.splitlines()[3])[1:]]
    assert notes.splitlines()[-1].startswith("4 labelled pixels got no prediction")


def test_scenes_can_be_left_out_of_the_table() -> None:
    table = evaluation_table(EVALUATION, scenes=False)
    assert "teacher" in table
    assert "storm, 2" not in table


def test_masks_have_no_threshold_and_full_predictions_no_remark() -> None:
    table = evaluation_table(Evaluation(EVALUATION.scenes[:1], None, "masks in out"))
    assert table.splitlines()[0] == "masks in out"
    assert "got no prediction" not in table


def test_json_holds_every_number_and_null_for_undefined() -> None:
    content = json.loads(evaluation_json(EVALUATION))
    assert content["model"] == "net 1.0"
    assert content["threshold"] == 0.45
    assert content["pooled"]["iou"] == 1206 / 1209
    assert content["pooled"]["unpredicted"] == 4
    assert set(content["by_labels"]) == {"human", "teacher", ""}
    assert content["by_labels"]["human"]["iou"] is None
    assert content["by_labels"]["teacher"]["unpredicted"] == 4
    ocean, storm, _ = content["per_scene"]
    assert (ocean["name"], ocean["f1"], ocean["accuracy"]) == ("ocean", None, 1.0)
    assert storm == {
        "name": "storm, 2",
        "group": "T49TGK",
        "labels": "teacher",
        "scenes": 1,
        "tp": 6,
        "fp": 2,
        "fn": 1,
        "tn": 11,
        "unpredicted": 4,
        "iou": 6 / 9,
        "f1": 12 / 15,
        "precision": 6 / 8,
        "recall": 6 / 7,
        "accuracy": 17 / 20,
        "balanced_accuracy": (6 / 7 + 11 / 13) / 2,
        "false_cloud": 2 / 13,
        "cloud_share_truth": 7 / 20,
        "cloud_share_found": 8 / 20,
    }


def test_csv_marks_its_rows_and_leaves_undefined_empty() -> None:
    rows = list(csv.DictReader(evaluation_csv(EVALUATION).splitlines()))
    assert [row["level"] for row in rows] == ["pooled", *["labels"] * 3, *["scene"] * 3]
    assert [row["name"] for row in rows[4:]] == ["ocean", "storm, 2", "plain"]
    assert (rows[4]["iou"], rows[4]["accuracy"], rows[4]["tn"]) == ("", "1.0", "10")
    assert float(rows[5]["iou"]) == 6 / 9
    assert sum(int(row["tp"]) for row in rows[4:]) == int(rows[0]["tp"]) == 1206
    assert [row["labels"] for row in rows[1:4]] == ["human", "teacher", ""]


def with_probabilities() -> Evaluation:
    """Two scenes of two places: at 0.5 one pixel in ten is missed, and none is false."""
    truth = np.array([0] * 30 + [1] * 10, dtype=np.uint8)
    probability = np.array([0.05] * 31 + [0.95] * 9, dtype=np.float32)
    histogram = Histogram.of(truth, probability)
    scores = (
        SceneScore(name, name, labels, histogram.confusion(0.5), 0, ground, None, histogram)
        for name, labels, ground in (("a", "human", "water"), ("b", "", ""))
    )
    return Evaluation(tuple(scores), 0.5, "net 1.0")


def test_scores_by_kind_of_ground() -> None:
    _, _, grounds, _, _ = evaluation_table(with_probabilities(), ground=True).split("\n\n")
    rows = [cells(line)[:7] for line in grounds.splitlines()[2:]]
    shares = ["1", "40", "25.0 %", "22.5 %", "0.9000"]
    assert rows == [["unknown", "unknown", *shares], ["water", "human", *shares]]
    content = json.loads(evaluation_json(with_probabilities(), ground=True))
    assert [(part["ground"], part["labels"], part["fn"]) for part in content["by_ground"]] == [
        ("", "", 1),
        ("water", "human", 1),
    ]
    table = list(csv.DictReader(evaluation_csv(with_probabilities(), ground=True).splitlines()))
    assert [(row["level"], row["ground"]) for row in table[3:]] == [
        ("ground", ""),
        ("ground", "water"),
        ("scene", "water"),
        ("scene", ""),
    ]
    assert "by_ground" not in json.loads(evaluation_json(with_probabilities()))


def test_intervals_stand_beside_their_scores() -> None:
    text = evaluation_table(with_probabilities(), scenes=False, intervals=True)
    _, _, intervals, notes = text.split("\n\n")
    rows = [cells(line) for line in intervals.splitlines()[2:]]
    # Two places that are alike, and one of which nothing can be told.
    same = ["0.9000", "0.900 to 0.900", "1.0000", "1.000 to 1.000", "0.9000", "0.900 to 0.900"]
    alone = ["1", "0.9000", "–", "1.0000", "–", "0.9000", "–"]
    assert [rows[0], rows[1], rows[3]] == [
        ["human", *alone],
        ["unknown", *alone],
        ["all", "2", *same],
    ]
    assert notes.splitlines()[-1].startswith("95 %: interval of confidence from 1,000 resamples")
    content = json.loads(evaluation_json(with_probabilities(), intervals=True))["intervals"]
    assert (content["resamples"], content["seed"], content["level"]) == (1000, 0, 0.95)
    assert content["pooled"] == {
        "places": 2,
        "iou": [0.9, 0.9],
        "precision": [1.0, 1.0],
        "recall": [0.9, 0.9],
    }
    assert content["by_labels"]["human"]["iou"] is None


def test_reliability_is_shown_by_kind_of_label_and_in_all() -> None:
    text = evaluation_table(with_probabilities(), scenes=False, reliability=True)
    _, _, reliability, _ = text.split("\n\n")
    lines = [cells(line) for line in reliability.splitlines()]
    assert lines[0][1:3] == ["human: pixels", "cloud"]
    assert lines[2] == ["0.0 to 0.1", "31", "3.2 %", "31", "3.2 %", "62", "3.2 %"]
    assert lines[11] == ["0.9 to 1.0", "9", "100.0 %", "9", "100.0 %", "18", "100.0 %"]
    # The bins of 0.05 and 0.95 have their centres at 0.0525 and 0.9525.
    error = (31 * (0.0525 - 1 / 31) + 9 * (1 - 0.9525)) / 40
    assert lines[13] == ["calibration error", *[f"{100 * error:.1f} %"] * 3]
    content = json.loads(evaluation_json(with_probabilities()))["reliability"]
    assert content["pooled"]["expected_calibration_error"] == pytest.approx(error)
    assert content["by_labels"]["human"]["bins"][9]["cloud_share"] == 1.0
    assert "reliability" not in json.loads(evaluation_json(EVALUATION))
    assert "calibration" not in evaluation_table(EVALUATION, reliability=True)


def test_fitted_thresholds_stand_in_the_heading_and_in_json() -> None:
    fit = ThresholdFit("human", {1: 0.45, 2: 0.505}, 0.48)
    evaluation = replace(EVALUATION, threshold=None, fit=fit)
    assert evaluation_table(evaluation).split("\n\n")[0] == (
        "net 1.0\nthreshold of each fold fitted to human labels of the others: 0.45, 0.505; "
        "to those of all: 0.48"
    )
    content = json.loads(evaluation_json(evaluation))
    assert content["threshold"] is None
    assert content["fit"] == {"labels": "human", "by_fold": {"1": 0.45, "2": 0.505}, "final": 0.48}


def labelled(name: str, rows: int, cols: int, group: str, labels: str) -> LabelledScene:
    return LabelledScene(
        name, Path(f"{name}.tif"), Path(f"m/{name}.tif"), rows, cols, group, labels
    )


DATASET = DataSet(
    (
        labelled("lake", 10, 20, "T1", "human"),
        labelled("hill", 10, 20, "T1", "teacher"),
        labelled("dune", 5, 6, "T2", ""),
    ),
    ("x.npy is cut short", "y.tif has no mask"),
)
COUNTS = [LabelCounts(150, 50, 0), LabelCounts(60, 40, 100), LabelCounts(0, 0, 30)]


def test_a_data_set_is_told_scene_by_scene_and_in_all() -> None:
    scenes, kinds, sizes, problems = dataset_table(DATASET, COUNTS).split("\n\n")
    assert [cells(line) for line in scenes.splitlines()[2:]] == [
        ["lake", "10", "20", "25.0 %", "0.0 %", "T1", "human"],
        ["hill", "10", "20", "40.0 %", "50.0 %", "T1", "teacher"],
        ["dune", "5", "6", "–", "100.0 %", "T2", "unknown"],
    ]
    told = {cells(line)[0]: cells(line)[1:] for line in kinds.splitlines()}
    assert told["human"] == ["1", "1", "200", "25.0 %", "0.0 %"]
    assert told["unknown"] == ["1", "1", "0", "–", "100.0 %"]
    # 90 of 300 labelled pixels are cloud, 130 of 430 are unlabelled.
    assert told["all"] == ["3", "2", "300", "30.0 %", "30.2 %"]
    assert sizes.endswith("10 x 20 (2), 5 x 6 (1)")
    assert problems == "2 problems:\n  x.npy is cut short\n  y.tif has no mask"


def test_a_data_set_in_short_lists_no_scene_and_no_problem_where_none_is() -> None:
    text = dataset_table(DataSet(DATASET.scenes), COUNTS, scenes=False)
    assert "lake" not in text
    assert "problem" not in text
    assert "T1" not in text


def test_many_sizes_are_not_all_listed() -> None:
    scenes = tuple(labelled(f"s{n}", n, n, "T", "") for n in range(1, 12))
    text = dataset_table(DataSet(scenes), [LabelCounts(1, 0, 0)] * 11, scenes=False)
    assert text.endswith("8 x 8 (1), 3 more")


def test_counts_that_do_not_fit_the_scenes_are_refused() -> None:
    with pytest.raises(ValueError, match="2 counts do not fit 3 scenes"):
        dataset_table(DATASET, COUNTS[:2])


def test_a_report_on_a_data_set_brings_no_onnxruntime() -> None:
    code = "import sys, cloudnet.report; sys.exit('onnxruntime' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
