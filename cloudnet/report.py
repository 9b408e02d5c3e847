"""Reports: tables that people read, JSON and CSV that programs read. Text only, no pixels."""

from __future__ import annotations

import csv
import io
import json
import re
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeAlias

from cloudnet.dataset import DataSet, LabelCounts, total_counts

if TYPE_CHECKING:  # for the types alone: it brings onnxruntime, which `cloudnet inspect` need not
    from cloudnet.evaluate import Confusion, Evaluation

Cell: TypeAlias = str | int | float | None

UNDEFINED = "–"

UNKNOWN_LABELS = "unknown"
"""What the tables call the kind of label that no scenes.csv tells; empty in JSON and CSV."""

POOLED, LABELS, SCENE = "pooled", "labels", "scene"
"""Levels of the rows of a report on an evaluation."""

SCORES = (
    "iou", "f1", "precision", "recall", "accuracy", "balanced_accuracy", "false_cloud",
    "cloud_share_truth", "cloud_share_found",
)  # fmt: skip
"""Properties of a Confusion, in the order of JSON and CSV."""

SCORE_TITLES = (
    "pixels", "cloud", "found", "IoU", "F1", "precision", "recall", "accuracy", "balanced",
    "false cloud",
)  # fmt: skip

LEGEND = (
    "pixels: labelled and predicted; cloud, found: share of cloud in truth and as found;\n"
    "precision: user's accuracy; recall: producer's accuracy; balanced: balanced accuracy;\n"
    f"false cloud: share of the clear pixels called cloud; {UNDEFINED}: nothing to take a share of"
)

SIZES = 8
"""Different sizes that a report on a data set names."""

NUMBER = re.compile(r"[-+]?(\d[\d,]*)?\.?\d+(e[-+]?\d+)?( ?%)?|nan|inf|–|", re.IGNORECASE)
"""What a cell of a column of numbers may hold."""


def text_table(header: Sequence[str], rows: Iterable[Sequence[Cell]]) -> str:
    """Return a table as text, columns aligned: numbers to the right, text to the left.

    Parameters
    ----------
    header
        A title a column.
    rows
        Cells of each row, as many as there are titles; an empty row draws a line. Integers get
        thousands separators, floats four significant digits, None is shown as undefined. A column
        is one of numbers when all its cells look like one, text such as "12.3 %" included.

    Raises
    ------
    ValueError
        When a row has more or fewer cells than the header.
    """
    shown = [[_text(cell) for cell in row] for row in rows]
    filled = [row for row in shown if row]
    if any(len(row) != len(header) for row in filled):
        raise ValueError(f"a row does not have {len(header)} cells")
    columns = list(zip(*filled)) if filled else [() for _ in header]
    widths = [max(map(len, (title, *column))) for title, column in zip(header, columns)]
    numeric = [bool(column) and all(map(NUMBER.fullmatch, column)) for column in columns]

    def line(cells: Sequence[str]) -> str:
        aligned = [
            cell.rjust(width) if right else cell.ljust(width)
            for cell, width, right in zip(cells, widths, numeric)
        ]
        return "  ".join(aligned).rstrip()

    rule = "  ".join("-" * width for width in widths)
    return "\n".join([line(header), rule, *(line(row) if row else rule for row in shown)])


def evaluation_table(evaluation: Evaluation, *, scenes: bool = True) -> str:
    """Return the scores as tables: scene by scene, then pooled by kind of label and in all.

    Parameters
    ----------
    evaluation
        The scores.
    scenes
        Whether to list each scene.
    """
    entries = _entries(evaluation)
    tables = []
    if scenes:
        # Without the number of scenes, which is 1.
        rows = [_score_cells(entry) for entry in entries if entry.level == SCENE]
        tables.append(text_table(["scene", *SCORE_TITLES], [(row[0], *row[2:]) for row in rows]))
    pooled, *kinds = [_score_cells(entry) for entry in entries if entry.level != SCENE]
    tables.append(text_table(["labels", "scenes", *SCORE_TITLES], [*kinds, (), pooled]))
    threshold = "" if evaluation.threshold is None else f", threshold {evaluation.threshold:g}"
    notes = [LEGEND]
    if evaluation.unpredicted:
        notes.append(
            f"{evaluation.unpredicted:,} labelled pixels got no prediction and count for nothing"
        )
    return "\n\n".join([f"{evaluation.model}{threshold}", *tables, "\n".join(notes)])


def evaluation_json(evaluation: Evaluation) -> str:
    """Return the scores as JSON text; what is undefined is null."""
    entries = _entries(evaluation)
    content = {
        "model": evaluation.model,
        "threshold": evaluation.threshold,
        "pooled": next(_counts(entry) for entry in entries if entry.level == POOLED),
        "by_labels": {entry.labels: _counts(entry) for entry in entries if entry.level == LABELS},
        "per_scene": [
            {
                "name": entry.name,
                "group": entry.group,
                "labels": entry.labels,
                **_counts(entry),
            }
            for entry in entries
            if entry.level == SCENE
        ],
    }
    return json.dumps(content, indent=2, ensure_ascii=False, allow_nan=False)


def evaluation_csv(evaluation: Evaluation) -> str:
    """Return the scores as CSV text; what is undefined is empty.

    Column `level` tells the rows apart: `pooled` (one row, all scenes), `labels` (a row for each
    kind of label), `scene`.
    """
    buffer = io.StringIO()
    writer = csv.writer(buffer, lineterminator="\n")
    for index, entry in enumerate(_entries(evaluation)):
        counts = _counts(entry)
        if index == 0:
            writer.writerow(["level", "name", "group", "labels", *counts])
        writer.writerow([entry.level, entry.name, entry.group, entry.labels, *counts.values()])
    return buffer.getvalue()


def dataset_table(dataset: DataSet, counts: Sequence[LabelCounts], *, scenes: bool = True) -> str:
    """Return what a data set holds as text, its problems at the end.

    Parameters
    ----------
    dataset
        The labelled scenes.
    counts
        Pixels by label of each scene, in the same order.
    scenes
        Whether to list each scene.

    Raises
    ------
    ValueError
        When there are not as many counts as scenes.
    """
    if len(counts) != len(dataset.scenes):
        raise ValueError(f"{len(counts)} counts do not fit {len(dataset.scenes)} scenes")
    sections = []
    if scenes:
        sections.append(_scene_rows(dataset, counts))
    sections += [_kind_rows(dataset, counts), _sizes(dataset)]
    if dataset.problems:
        title = f"{_count(len(dataset.problems), 'problem')}:"
        sections.append("\n".join([title, *(f"  {problem}" for problem in dataset.problems)]))
    return "\n\n".join(sections)


def percent(share: float | None) -> str:
    """Return a share as a percentage with one digit; what is undefined as such."""
    return UNDEFINED if share is None else f"{100 * share:.1f} %"


@dataclass(frozen=True)
class _Entry:
    """A row of a report on an evaluation."""

    level: str
    name: str
    group: str
    labels: str
    scenes: int
    confusion: Confusion
    unpredicted: int


def _entries(evaluation: Evaluation) -> list[_Entry]:
    """Return all rows: pooled, by kind of label, by scene."""
    count = len(evaluation.scenes)
    pooled = _Entry(POOLED, "", "", "", count, evaluation.pooled, evaluation.unpredicted)
    kinds = []
    for labels, confusion in evaluation.by_labels().items():
        part = evaluation.only(labels)
        kinds.append(_Entry(LABELS, "", "", labels, len(part.scenes), confusion, part.unpredicted))
    scenes = [
        _Entry(
            SCENE,
            score.name,
            score.group,
            score.labels,
            1,
            score.confusion,
            score.unpredicted,
        )
        for score in evaluation.scenes
    ]
    return [pooled, *kinds, *scenes]


def _counts(entry: _Entry) -> dict[str, Any]:
    """Return the numbers of a row by name."""
    confusion = entry.confusion
    return {
        "scenes": entry.scenes,
        "tp": confusion.tp,
        "fp": confusion.fp,
        "fn": confusion.fn,
        "tn": confusion.tn,
        "unpredicted": entry.unpredicted,
        **{name: getattr(confusion, name) for name in SCORES},
    }


def _score_cells(entry: _Entry) -> list[Cell]:
    """Return the cells of a row of the table."""
    title = {POOLED: "all", LABELS: entry.labels or UNKNOWN_LABELS, SCENE: entry.name}[entry.level]
    confusion = entry.confusion
    scores = (
        confusion.iou,
        confusion.f1,
        confusion.precision,
        confusion.recall,
        confusion.accuracy,
        confusion.balanced_accuracy,
        confusion.false_cloud,
    )
    return [
        title,
        entry.scenes,
        confusion.pixels,
        percent(confusion.cloud_share_truth),
        percent(confusion.cloud_share_found),
        *(UNDEFINED if score is None else f"{score:.4f}" for score in scores),
    ]


def _scene_rows(dataset: DataSet, counts: Sequence[LabelCounts]) -> str:
    """Return a row for each scene."""
    rows = [
        (
            scene.name,
            scene.rows,
            scene.cols,
            percent(_cloud_share(count)),
            percent(count.unlabelled_share),
            scene.group,
            scene.labels or UNKNOWN_LABELS,
        )
        for scene, count in zip(dataset.scenes, counts)
    ]
    return text_table(["scene", "rows", "cols", "cloud", "unlabelled", "place", "labels"], rows)


def _kind_rows(dataset: DataSet, counts: Sequence[LabelCounts]) -> str:
    """Return a row for each kind of label, and one for all scenes."""
    kinds = sorted({scene.labels for scene in dataset.scenes}, key=lambda kind: (not kind, kind))

    def row(title: str, chosen: Sequence[int]) -> list[Cell]:
        total = total_counts([counts[index] for index in chosen])
        return [
            title,
            len(chosen),
            len({dataset.scenes[index].group for index in chosen}),
            total.clear + total.cloud,
            percent(_cloud_share(total)),
            percent(total.unlabelled_share),
        ]

    indices = range(len(dataset.scenes))
    rows: list[Sequence[Cell]] = [
        row(kind or UNKNOWN_LABELS, [i for i in indices if dataset.scenes[i].labels == kind])
        for kind in kinds
    ]
    header = ["labels", "scenes", "places", "labelled pixels", "cloud", "unlabelled"]
    return text_table(header, [*rows, (), row("all", indices)])


def _sizes(dataset: DataSet) -> str:
    """Return the sizes of the scenes, the most common first."""
    sizes = Counter((scene.rows, scene.cols) for scene in dataset.scenes)
    common = [f"{rows} x {cols} ({times})" for (rows, cols), times in sizes.most_common(SIZES)]
    rest = f", {len(sizes) - SIZES} more" if len(sizes) > SIZES else ""
    return f"sizes in pixels, rows x cols (scenes): {', '.join(common)}{rest}"


def _cloud_share(counts: LabelCounts) -> float | None:
    """Return the share of cloud among the labelled pixels; None where none is labelled."""
    return counts.cloud_share if counts.clear + counts.cloud else None


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


def _text(cell: Cell) -> str:
    """Return a cell as it is shown."""
    if cell is None:
        return UNDEFINED
    if isinstance(cell, float):
        return f"{cell:.4g}"
    return f"{cell:,}" if isinstance(cell, int) else cell
