"""cloudnet predict: from scenes to masks."""

from __future__ import annotations

from pathlib import Path
from typing import Any

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
    provider_option,
    reading_options,
    share_bar,
    threads_option,
    threshold_option,
)


@click.command(short_help="Write the cloud masks of scenes.")
@click.argument("scenes", type=FILE, nargs=-1, required=True)
@model_option
@click.option("-o", "--output", type=FILE, required=True, help="Folder of the products.")
@click.option("--probability", is_flag=True, help="Write the probability too, in per cent.")
@threshold_option
@click.option("--exact", is_flag=True, help="Tiled equals whole, at the cost of speed.")
@click.option(
    "--tile-px",
    type=click.IntRange(min=1),
    help="Side of a tile, halo included; by default what reads least within 190 MB.",
)
@threads_option
@provider_option
@click.option("--quicklook/--no-quicklook", default=True, show_default=True, help="Draw a PNG.")
@click.option("--keras", "net", type=FILE, help="Run, .keras or name to compare with side by side.")
@atol_option
@overwrite_option
@reading_options
def predict(
    scenes: tuple[Path, ...],
    model: Path | None,
    output: Path,
    net: Path | None,
    threads: int | None,
    provider: str,
    atol: float,
    bands: str | None,
    scale: float | None,
    offset: float | None,
    nodata: float | None,
    **settings: Any,
) -> None:
    """Write the cloud masks of SCENES: NAME_cloudmask.tif (0 clear, 1 cloud, 255 no data), a
    quicklook and a summary. The model is compared with Keras's answers before anything is written.
    """
    from cloudnet.predict import PredictOptions, check_outputs, predict_scene

    options = PredictOptions(**settings)
    reading = make_reading(bands, scale, offset, nodata)
    check_outputs(scenes, output, options)
    loaded, comparison = compared_model(model, net, atol, threads=threads, provider=provider)
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
