"""cloudnet evaluate: how well masks agree with labels."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from cloudnet.commands.options import (
    FILE,
    atol_option,
    compared_model,
    make_reading,
    model_option,
    overwrite_option,
    reading_options,
    share_bar,
    skip_bad_option,
    threshold_option,
)

if TYPE_CHECKING:
    from cloudnet.dataset import DataSet
    from cloudnet.evaluate import Evaluation


@click.command(short_help="Score a model, or masks made before, on labelled scenes.")
@click.argument("data", type=FILE, nargs=-1, required=True)
@model_option
@click.option("--predictions", type=FILE, help="Folder of masks to score instead.")
@threshold_option
@click.option("--scenes", is_flag=True, help="A row for each scene in the table.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON instead of the table.")
@click.option("--csv", "csv_file", type=FILE, help="Write a row for each scene to this file.")
@atol_option
@overwrite_option
@skip_bad_option
@reading_options
def evaluate(
    data: tuple[Path, ...],
    model: Path | None,
    predictions: Path | None,
    threshold: float | None,
    scenes: bool,
    as_json: bool,
    csv_file: Path | None,
    atol: float,
    overwrite: bool,
    skip_bad: bool,
    bands: str | None,
    scale: float | None,
    offset: float | None,
    nodata: float | None,
) -> None:
    """Score a model, or masks made before, on the labelled scenes of DATA, pooled over pixels."""
    from cloudnet.dataset import open_dataset
    from cloudnet.evaluate import evaluate_predictions
    from cloudnet.files import refuse_existing, write_text
    from cloudnet.report import evaluation_csv, evaluation_json, evaluation_table

    if model is not None and predictions is not None:
        raise click.UsageError("give either --model or --predictions")
    if predictions is not None and threshold is not None:
        raise click.UsageError("--predictions are masks already; --threshold goes with --model")
    if csv_file is not None:
        refuse_existing([csv_file], overwrite)
    dataset = open_dataset(data, make_reading(bands, scale, offset, nodata), skip_bad=skip_bad)
    for problem in dataset.problems:
        click.echo(f"left out: {problem}", err=True)
    if predictions is not None:
        evaluation = evaluate_predictions(dataset, predictions)
    else:
        evaluation = _score_model(dataset, model, threshold, atol)
    if csv_file is not None:
        write_text(csv_file, evaluation_csv(evaluation))
    click.echo(
        evaluation_json(evaluation) if as_json else evaluation_table(evaluation, scenes=scenes)
    )


def _score_model(
    dataset: DataSet, path: Path | None, threshold: float | None, atol: float
) -> Evaluation:
    """Compare the model, then score it behind a progress bar on stderr."""
    from cloudnet.evaluate import evaluate_model

    model, _ = compared_model(path, None, atol)
    with share_bar("scenes") as advance:
        return evaluate_model(
            dataset,
            model,
            threshold=threshold,
            on_scene=lambda done, total: advance(done / total),
        )
