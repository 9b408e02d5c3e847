"""cloudnet evaluate: how well masks agree with labels."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from cloudnet.commands.options import (
    FILE,
    SectionedCommand,
    atol_option,
    compared_model,
    import_tensorflow,
    model_option,
    overwrite_option,
    reading_options,
    share_bar,
    skip_bad_option,
    threshold_option,
)

if TYPE_CHECKING:
    from cloudnet.dataset import DataSet
    from cloudnet.evaluate import Masks
    from cloudnet.scores import Evaluation

SECTIONS = {
    "What is scored": ("model", "predictions", "folds", "threshold", "fit_threshold", "atol"),
    "What is shown": ("scenes", "by", "intervals", "reliability", "as_json"),
    "What is written": ("csv_file", "worst", "overwrite"),
    "How scenes are read": (
        "skip_bad",
        "bands",
        "scale",
        "offset",
        "nodata",
        "resolution",
        "level",
    ),
}


@click.command(
    cls=SectionedCommand,
    sections=SECTIONS,
    short_help="Score a model, or masks made before, on labelled scenes.",
)
@click.argument("data", type=FILE, nargs=-1, required=True)
@model_option
@click.option("--predictions", type=FILE, help="Folder of masks to score instead.")
@click.option(
    "--folds",
    type=FILE,
    metavar="RUNS",
    help="Folder of train --folds: each scene is scored by the net that did not see its place.",
)
@threshold_option
@click.option(
    "--fit-threshold",
    metavar="LABELS",
    help="With --folds: fit the threshold of each to the scenes of the others with such labels.",
)
@atol_option
@click.option("--scenes", is_flag=True, help="A row for each scene in the table.")
@click.option("--by", type=click.Choice(("ground",)), help="Scores by kind of ground too.")
@click.option(
    "--intervals", is_flag=True, help="Intervals of 95 % confidence, by bootstrap over places."
)
@click.option("--reliability", is_flag=True, help="How often it is cloud, by probability.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON instead of the table.")
@click.option("--csv", "csv_file", type=FILE, help="Write a row for each scene to this file.")
@click.option(
    "--worst", type=FILE, metavar="FILE.png", help="Draw the scenes with most wrong pixels."
)
@overwrite_option
@skip_bad_option
@reading_options
def evaluate(data: tuple[Path, ...], **settings: Any) -> None:
    """Score a model, or masks made before, on the labelled scenes of DATA, pooled over pixels."""
    from cloudnet.evaluate import evaluate
    from cloudnet.scores import fit_thresholds

    _check_use(settings)
    _check_outputs(settings)
    dataset = _open(data, settings)
    masks = _masks(dataset, settings)
    with share_bar("scenes") as advance:
        evaluation = evaluate(dataset, masks, on_scene=lambda done, total: advance(done / total))
    if settings["fit_threshold"] is not None:
        evaluation = fit_thresholds(evaluation, settings["fit_threshold"])
    if masks.untold_l2a:
        click.echo(_level_note(sorted(masks.untold_l2a)), err=True)
    # Shown first: where the files cannot be written, the scores are not lost.
    click.echo(_shown(evaluation, settings))
    _write(dataset, masks, evaluation, settings)


def _level_note(names: list[str]) -> str:
    """Return what is to be said of scenes that look like Level-2A and were taken as they are."""
    more = f" and {len(names) - 1} more look" if len(names) > 1 else " looks"
    return (
        f"Note: {names[0]}{more} like Level-2A, darker in the blue than clear air, without saying "
        "so; if that is what it is, give --level L2A, or say it in the column level of scenes.csv"
    )


def _check_use(settings: dict[str, Any]) -> None:
    """Raise a usage error where options do not go together."""
    scored = [key for key in ("model", "predictions", "folds") if settings[key] is not None]
    if len(scored) > 1:
        raise click.UsageError("give one of --model, --predictions and --folds")
    probable = settings["predictions"] is None
    if not probable and settings["threshold"] is not None:
        raise click.UsageError("--predictions are masks already; --threshold goes with --model")
    if not probable and settings["reliability"]:
        raise click.UsageError(
            "--predictions have no probability; --reliability goes with --model and --folds"
        )
    if settings["fit_threshold"] is not None:
        if settings["folds"] is None:
            raise click.UsageError("--fit-threshold goes with --folds")
        if settings["threshold"] is not None:
            raise click.UsageError("give either --threshold or --fit-threshold")
    if settings["csv_file"] is not None and settings["csv_file"] == settings["worst"]:
        raise click.UsageError("--csv and --worst are one file; name two")


def _check_outputs(settings: dict[str, Any]) -> None:
    """Raise what would be raised after the work: files in the way, extras that are missing."""
    from cloudnet.files import refuse_existing
    from cloudnet.sheet import check_sheet

    outputs = [settings[key] for key in ("csv_file", "worst") if settings[key] is not None]
    refuse_existing(outputs, settings["overwrite"])
    if settings["worst"] is not None:
        check_sheet(settings["worst"])
    if settings["folds"] is not None:
        import_tensorflow()


def _open(data: tuple[Path, ...], settings: dict[str, Any]) -> DataSet:
    """Open the data set, tell what is left out, and measure the ground where that is asked for."""
    from cloudnet.dataset import open_dataset
    from cloudnet.terrain import tell_ground

    dataset = open_dataset(data, settings["reading"], skip_bad=settings["skip_bad"])
    for problem in dataset.problems:
        click.echo(f"left out: {problem}", err=True)
    return tell_ground(dataset) if settings["by"] == "ground" else dataset


def _masks(dataset: DataSet, settings: dict[str, Any]) -> Masks:
    """Return what makes the masks; a model is compared first."""
    from cloudnet.evaluate import ModelMasks, StoredMasks

    if settings["predictions"] is not None:
        return StoredMasks(dataset, settings["predictions"])
    if settings["folds"] is None:
        model, _ = compared_model(settings["model"], None, settings["atol"])
        return ModelMasks(model, settings["threshold"])
    from cloudnet.folds import FoldMasks

    return FoldMasks(dataset, settings["folds"], settings["threshold"])


def _write(
    dataset: DataSet, masks: Masks, evaluation: Evaluation, settings: dict[str, Any]
) -> None:
    """Write the files that are asked for."""
    from cloudnet.failures import draw_failures
    from cloudnet.files import write_text
    from cloudnet.report import evaluation_csv

    if settings["csv_file"] is not None:
        ground = settings["by"] == "ground"
        write_text(settings["csv_file"], evaluation_csv(evaluation, ground=ground))
    if settings["worst"] is not None:
        draw_failures(dataset, evaluation, masks, settings["worst"])


def _shown(evaluation: Evaluation, settings: dict[str, Any]) -> str:
    """Return the scores as they are asked for."""
    from cloudnet.report import evaluation_json, evaluation_table

    ground, intervals = settings["by"] == "ground", settings["intervals"]
    if settings["as_json"]:
        return evaluation_json(evaluation, ground=ground, intervals=intervals)
    return evaluation_table(
        evaluation,
        scenes=settings["scenes"],
        ground=ground,
        intervals=intervals,
        reliability=settings["reliability"],
    )
