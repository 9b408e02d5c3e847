"""cloudnet predict: from scenes to masks."""

from __future__ import annotations

import io
import sys
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from cloudnet.commands.options import (
    FILE,
    INTERRUPTED,
    archive_options,
    atol_option,
    c_notes_off,
    compared_model,
    count_bar,
    describe,
    model_option,
    overwrite_option,
    provider_option,
    reading_options,
    share_bar,
    threads_option,
)
from cloudnet.commands.product_options import make_options, product_options

if TYPE_CHECKING:
    from cloudnet.batch import Batch
    from cloudnet.predict import PredictOptions
    from cloudnet.reading import Reading
    from cloudnet.runtime import CloudModel


@click.command(short_help="Write the cloud masks of scenes.")
@click.argument("scenes", nargs=-1, required=True)
@model_option
@click.option("-o", "--output", type=FILE, required=True, help="Folder of the products.")
@product_options
@click.option("--exact", is_flag=True, help="Tiled equals whole, at the cost of speed.")
@click.option(
    "--tile-px",
    type=click.IntRange(min=1),
    help="Side of a tile, halo included; by default what reads least within 150 MB.",
)
@threads_option
@provider_option
@click.option("--keras", "net", type=FILE, help="Run, .keras or name to compare with side by side.")
@atol_option
@overwrite_option
@click.option(
    "--dry-run", is_flag=True, help="Say what would be read and written, and what it takes."
)
@archive_options
@reading_options
def predict(
    scenes: tuple[str, ...],
    model: Path | None,
    output: Path,
    net: Path | None,
    threads: int | None,
    provider: str,
    atol: float,
    dry_run: bool,
    jobs: int | None,
    scheduler: str | None,
    skip_existing: bool,
    reading: Reading,
    **settings: Any,
) -> None:
    """Write the cloud masks of SCENES: NAME_cloudmask.tif (0 clear, 1 cloud, 255 no data), a
    quicklook and a summary. The model is compared with Keras's answers before anything is written.

    SCENES are files, addresses, patterns, or - for a list on standard input. Of several, each gets
    a line in OUTPUT/manifest.jsonl; the same command again goes on where it was.
    """
    from cloudnet.batch import Spread, open_batch
    from cloudnet.predict import check_shared, predict_scene
    from cloudnet.scene import scene_name
    from cloudnet.scene_list import STDIN, list_scenes
    from cloudnet.task import make_job

    options = make_options(settings)
    spread = Spread(jobs, scheduler, skip_existing)
    if skip_existing and options.overwrite:
        raise click.UsageError("--skip-existing and --overwrite exclude each other")
    named = list_scenes(scenes, stdin_lines() if STDIN in scenes else ())
    check_shared(named, options)
    loaded, comparison = compared_model(model, net, atol, threads=threads, provider=provider)
    if dry_run:
        tell_plans(named, loaded, output, options, reading)
        return
    if len(named) > 1 or STDIN in scenes or spread != Spread():
        job = make_job(loaded, comparison, output, options, reading)
        job = replace(job, threads=threads, provider=provider)
        batch = open_batch(named, loaded, job, spread)
        click.echo(describe(comparison))
        predict_many(batch, output)
        return
    click.echo(describe(comparison))
    for scene in named:
        with c_notes_off(), share_bar(scene_name(scene)) as advance:
            prediction = predict_scene(
                scene,
                loaded,
                output,
                comparison=comparison,
                options=options,
                reading=reading,
                on_progress=advance,
            )
        click.echo(told(prediction.outputs.mask, prediction.cloud_share))
        if prediction.note:
            click.echo(f"Note: {prediction.note}", err=True)


def stdin_lines() -> Iterable[str]:
    """Return the lines of standard input, none where it is closed; names of files are any bytes."""
    if sys.stdin is None:
        return ()
    if isinstance(sys.stdin, io.TextIOWrapper):
        sys.stdin.reconfigure(errors="surrogateescape")
    return sys.stdin


def told(mask: Path, share: float | None) -> str:
    """Return what a scene's mask says as a line."""
    return f"{mask}: {'no pixel with data' if share is None else f'cloud {share:.1%}'}"


def predict_many(batch: Batch, output: Path) -> None:
    """Do a batch and tell of each scene; raise BatchError where some failed."""
    from cloudnet.errors import BatchError
    from cloudnet.manifest import DONE, FAILED, SKIPPED, Record
    from cloudnet.product import Outputs

    failed = 0
    before = len(batch.tasks) - batch.waiting

    def tell(record: Record) -> None:
        nonlocal failed
        failed += record.state == FAILED
        advance(1)
        if record.state == DONE:
            say(told(Outputs(output, record.name).mask, record.cloud_share))
            if record.note:
                complain(f"Note: {record.note}")
        elif record.state == SKIPPED:
            say(f"{record.scene}: skipped, {record.error}")
        else:
            complain(f"Failed: {record.error}")

    if before:
        click.echo(f"{before} of {len(batch.tasks)} scenes were done before")
    try:
        with c_notes_off(), count_bar("scenes", batch.waiting) as (advance, say, complain):
            batch.run(tell)
    except KeyboardInterrupt:
        click.echo("\nStopped; the same command goes on where it was", err=True)
        raise SystemExit(INTERRUPTED) from None
    if failed:
        raise BatchError(
            f"{failed} of {len(batch.tasks)} scenes failed; {batch.manifest.path} says why, and "
            "the same command tries them again"
        )


def tell_plans(
    scenes: Iterable[str | Path],
    model: CloudModel,
    output: Path,
    options: PredictOptions,
    reading: Reading,
) -> None:
    """Print what predicting scenes would take; nothing is written."""
    from cloudnet.plan import plan_scene

    for scene in scenes:
        plan = plan_scene(scene, model, output, options, reading)
        click.echo("\n".join(plan.to_lines()))
