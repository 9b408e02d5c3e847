"""cloudnet predict: from scenes to masks."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from cloudnet.commands.options import (
    FILE,
    atol_option,
    c_notes_off,
    compared_model,
    describe,
    make_reading,
    model_option,
    overwrite_option,
    reading_options,
    share_bar,
)
from cloudnet.commands.product_options import make_options, product_options

if TYPE_CHECKING:
    from cloudnet.predict import PredictOptions
    from cloudnet.runtime import CloudModel
    from cloudnet.scene import Reading


@click.command(short_help="Write the cloud masks of scenes.")
@click.argument("scenes", type=FILE, nargs=-1, required=True)
@model_option
@click.option("-o", "--output", type=FILE, required=True, help="Folder of the products.")
@product_options
@click.option("--exact", is_flag=True, help="Tiled equals whole, at the cost of speed.")
@click.option(
    "--tile-px",
    type=click.IntRange(min=1),
    default=768,
    show_default=True,
    help="Side of a tile, halo included; rounded up to what the net takes.",
)
@click.option("--keras", "net", type=FILE, help="Run, .keras or name to compare with side by side.")
@atol_option
@overwrite_option
@click.option(
    "--dry-run", is_flag=True, help="Say what would be read and written, and what it takes."
)
@reading_options
def predict(
    scenes: tuple[Path, ...],
    model: Path | None,
    output: Path,
    net: Path | None,
    atol: float,
    bands: str | None,
    scale: float | None,
    offset: float | None,
    nodata: float | None,
    dry_run: bool,
    **settings: Any,
) -> None:
    """Write the cloud masks of SCENES: NAME_cloudmask.tif (0 clear, 1 cloud, 255 no data), a
    quicklook and a summary. The model is compared with Keras's answers before anything is written.
    """
    from cloudnet.predict import check_outputs, predict_scene

    options = make_options(settings)
    reading = make_reading(bands, scale, offset, nodata)
    check_outputs(scenes, output, options)
    loaded, comparison = compared_model(model, net, atol)
    if dry_run:
        tell_plans(scenes, loaded, output, options, reading)
        return
    click.echo(describe(comparison))
    for scene in scenes:
        with c_notes_off(), share_bar(scene.name) as advance:
            prediction = predict_scene(
                scene,
                loaded,
                output,
                comparison=comparison,
                options=options,
                reading=reading,
                on_progress=advance,
            )
        share = prediction.cloud_share
        cloud = "no pixel with data" if share is None else f"cloud {share:.1%}"
        click.echo(f"{prediction.outputs.mask}: {cloud}")


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
