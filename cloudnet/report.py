"""Reports: tables that people read, JSON and CSV that programs read. Text only, no pixels."""

from __future__ import annotations

import csv
import io
import json
import re
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass
from typing import Any, TypeAlias

from cloudnet.dataset import DataSet, LabelCounts, total_counts
from cloudnet.intervals import LEVEL, RESAMPLES, SEED, Intervals, bootstrap
from cloudnet.scores import Evaluation

Cell: TypeAlias = str | int | float | None

UNDEFINED = "–"

UNKNOWN = "unknown"
"""What the tables call the kind of label, or of ground, that is not told; empty in JSON and CSV."""

POOLED, LABELS, GROUND, SCENE = "pooled", "labels", "ground", "scene"
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


def evaluation_table(
    evaluation: Evaluation,
    *,
    scenes: bool = True,
    ground: bool = False,
    intervals: bool = False,
    reliability: bool = False,
) -> str:
    """Return the scores as tables: scene by scene, then pooled by kind of label and in all.

    Parameters
    ----------
    evaluation
        The scores.
    scenes
        Whether to list each scene.
    ground
        Whether to show scores by kind of ground and kind of label.
    intervals
        Whether to show how far scores would move with other places.
    reliability
        Whether to show how often it is cloud, by probability; only where probabilities are known.
    """
    entries = _entries(evaluation, ground)
    tables = []
    if scenes:
        # Without the number of scenes, which is 1.
        rows = [_score_cells(entry) for entry in entries if entry.level == SCENE]
        tables.append(text_table(["scene", *SCORE_TITLES], [(row[0], *row[2:]) for row in rows]))
    if ground:
        grounds = [entry for entry in entries if entry.level == GROUND]
        tables.append(
            text_table(
                ["ground", "labels", "scenes", *SCORE_TITLES],
                [(entry.ground or UNKNOWN, *_score_cells(entry)) for entry in grounds],
            )
        )
    totals = [entry for entry in entries if entry.level in (POOLED, LABELS)]
    pooled, *kinds = [_score_cells(entry) for entry in totals]
    tables.append(text_table(["labels", "scenes", *SCORE_TITLES], [*kinds, (), pooled]))
    if intervals:
        tables.append(_intervals_table(totals))
    if reliability:
        tables += _reliability_table(totals)
    notes = _notes(evaluation, intervals, reliability)
    return "\n\n".join([_heading(evaluation), *tables, "\n".join(notes)])


def evaluation_json(
    evaluation: Evaluation, *, ground: bool = False, intervals: bool = False
) -> str:
    """Return the scores as JSON text; what is undefined is null.

    The reliability of the probabilities is in it wherever they are known.

    Parameters
    ----------
    evaluation, ground, intervals
        As for `evaluation_table`.
    """
    entries = _entries(evaluation, ground)
    content: dict[str, Any] = {"model": evaluation.model, "threshold": evaluation.threshold}
    if (fit := evaluation.fit) is not None:
        by_fold = {str(fold): threshold for fold, threshold in fit.by_fold.items()}
        content["fit"] = {"labels": fit.labels, "by_fold": by_fold, "final": fit.final}
    content |= _by_level(entries, _counts)
    if ground:
        content["by_ground"] = [
            {"ground": entry.ground, "labels": entry.labels, **_counts(entry)}
            for entry in entries
            if entry.level == GROUND
        ]
    if intervals:
        settings = {"resamples": RESAMPLES, "seed": SEED, "level": LEVEL}
        content["intervals"] = {**settings, **_by_level(entries, _interval_counts)}
    if evaluation.histogram is not None:
        content["reliability"] = _by_level(entries, _reliability_counts)
    content["per_scene"] = [
        {"name": entry.name, "group": entry.group, "labels": entry.labels, **_scene_facts(entry)}
        for entry in entries
        if entry.level == SCENE
    ]
    return json.dumps(content, indent=2, ensure_ascii=False, allow_nan=False)


def evaluation_csv(evaluation: Evaluation, *, ground: bool = False) -> str:
    """Return the scores as CSV text; what is undefined is empty.

    Column `level` tells the rows apart: `pooled` (one row, all scenes), `labels` (a row for each
    kind of label), `ground` (a row for each kind of ground and of label, where asked for), `scene`.
    """
    buffer = io.StringIO()
    writer = csv.writer(buffer, lineterminator="\n")
    for index, entry in enumerate(_entries(evaluation, ground)):
        counts = _counts(entry)
        if index == 0:
            writer.writerow(["level", "name", "group", "labels", "ground", "fold", *counts])
        facts = [entry.level, entry.name, entry.group, entry.labels, entry.ground, entry.fold]
        writer.writerow([*facts, *counts.values()])
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
    """A row of a report on an evaluation, and the scenes that it is about."""

    level: str
    part: Evaluation
    name: str = ""
    group: str = ""
    labels: str = ""
    ground: str = ""
    fold: int | None = None


def _entries(evaluation: Evaluation, ground: bool) -> list[_Entry]:
    """Return all rows: pooled, by kind of label, by kind of ground where wanted, by scene."""
    kinds = [_Entry(LABELS, evaluation.only(kind), labels=kind) for kind in evaluation.kinds]
    grounds = [
        _Entry(GROUND, part, labels=labels, ground=kind)
        for (kind, labels), part in (evaluation.by_ground().items() if ground else ())
    ]
    scenes = [
        _Entry(
            SCENE,
            evaluation.part([score]),
            score.name,
            score.group,
            score.labels,
            score.ground,
            score.fold,
        )
        for score in evaluation.scenes
    ]
    return [_Entry(POOLED, evaluation), *kinds, *grounds, *scenes]


def _heading(evaluation: Evaluation) -> str:
    """Return what made the masks, and the threshold or thresholds."""
    if (fit := evaluation.fit) is not None:
        by_fold = ", ".join(f"{value:g}" for value in fit.by_fold.values())
        return (
            f"{evaluation.model}\nthreshold of each fold fitted to {fit.labels or UNKNOWN} labels "
            f"of the others: {by_fold}; to those of all: {fit.final:g}"
        )
    threshold = "" if evaluation.threshold is None else f", threshold {evaluation.threshold:g}"
    return f"{evaluation.model}{threshold}"


def _notes(evaluation: Evaluation, intervals: bool, reliability: bool) -> list[str]:
    """Return what must be known to read the tables."""
    notes = [LEGEND]
    if intervals:
        notes.append(
            f"95 %: interval of confidence from {RESAMPLES:,} resamples of the places (seed {SEED})"
        )
    if reliability and evaluation.histogram is not None:
        notes.append(
            "calibration error: mean gap between share of cloud and probability, weighted by pixels"
        )
    if evaluation.unpredicted:
        notes.append(
            f"{evaluation.unpredicted:,} labelled pixels got no prediction and count for nothing"
        )
    return notes


def _by_level(
    entries: Sequence[_Entry], content: Callable[[_Entry], dict[str, Any]]
) -> dict[str, Any]:
    """Return what there is to tell of all scenes, and of each kind of label."""
    return {
        "pooled": next(content(entry) for entry in entries if entry.level == POOLED),
        "by_labels": {entry.labels: content(entry) for entry in entries if entry.level == LABELS},
    }


def _counts(entry: _Entry) -> dict[str, Any]:
    """Return the numbers of a row by name."""
    confusion = entry.part.pooled
    return {
        "scenes": len(entry.part.scenes),
        "tp": confusion.tp,
        "fp": confusion.fp,
        "fn": confusion.fn,
        "tn": confusion.tn,
        "unpredicted": entry.part.unpredicted,
        **{name: getattr(confusion, name) for name in SCORES},
    }


def _scene_facts(entry: _Entry) -> dict[str, Any]:
    """Return what is known of a scene beside its name and labels, and its numbers."""
    facts = {"ground": entry.ground or None, "fold": entry.fold}
    return {**{key: fact for key, fact in facts.items() if fact is not None}, **_counts(entry)}


def _interval_counts(entry: _Entry) -> dict[str, Any]:
    """Return the intervals of a row by score."""
    intervals = bootstrap(entry.part)
    return {"places": intervals.places, **intervals.scores}


def _reliability_counts(entry: _Entry) -> dict[str, Any]:
    """Return the reliability of the probabilities of a row."""
    histogram = entry.part.histogram
    if histogram is None:
        return {}
    bins = [asdict(part) for part in histogram.reliability()]
    return {"expected_calibration_error": histogram.calibration_error(), "bins": bins}


def _intervals_table(entries: Sequence[_Entry]) -> str:
    """Return the intervals of all scenes and of each kind of label."""

    def row(entry: _Entry) -> list[Cell]:
        confusion, intervals = entry.part.pooled, bootstrap(entry.part)
        cells: list[Cell] = [_title(entry), intervals.places]
        for name in intervals.scores:
            cells += [_score(getattr(confusion, name)), _interval(intervals, name)]
        return cells

    pooled, *kinds = [row(entry) for entry in entries]
    header = ["labels", "places", "IoU", "95 %", "precision", "95 %", "recall", "95 %"]
    return text_table(header, [*kinds, (), pooled])


def _reliability_table(entries: Sequence[_Entry]) -> list[str]:
    """Return the share of cloud by probability, a column of shares for each kind of label."""
    known = [(entry, entry.part.histogram) for entry in (*entries[1:], entries[0])]
    columns = [(entry, histogram) for entry, histogram in known if histogram is not None]
    if not columns:
        return []
    header = ["probability"]
    for entry, _ in columns:
        header += [f"{_title(entry)}: pixels", "cloud"]
    every = [histogram.reliability() for _, histogram in columns]
    rows: list[list[Cell]] = []
    for parts in zip(*every):
        cells: list[Cell] = [f"{parts[0].low:.1f} to {parts[0].high:.1f}"]
        for part in parts:
            cells += [part.pixels, percent(part.cloud_share)]
        rows.append(cells)
    errors: list[Cell] = ["calibration error"]
    for _, histogram in columns:
        errors += ["", percent(histogram.calibration_error())]
    return [text_table(header, [*rows, [], errors])]


def _title(entry: _Entry) -> str:
    """Return what a row is called."""
    return {POOLED: "all", SCENE: entry.name}.get(entry.level, entry.labels or UNKNOWN)


def _score(score: float | None) -> str:
    return UNDEFINED if score is None else f"{score:.4f}"


def _interval(intervals: Intervals, name: str) -> str:
    ends = intervals.scores[name]
    return UNDEFINED if ends is None else f"{ends[0]:.3f} to {ends[1]:.3f}"


def _score_cells(entry: _Entry) -> list[Cell]:
    """Return the cells of a row of the table."""
    confusion = entry.part.pooled
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
        _title(entry),
        len(entry.part.scenes),
        confusion.pixels,
        percent(confusion.cloud_share_truth),
        percent(confusion.cloud_share_found),
        *map(_score, scores),
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
            scene.labels or UNKNOWN,
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
        row(kind or UNKNOWN, [i for i in indices if dataset.scenes[i].labels == kind])
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
