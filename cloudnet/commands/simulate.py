"""cloudnet simulate: scenes with clouds whose labels are exact."""

from __future__ import annotations

from pathlib import Path

import click

from cloudnet.commands.options import FILE, overwrite_option


@click.command(short_help="Write a data set of simulated scenes.")
@click.argument("output", type=FILE)
@click.option(
    "--scenes", type=click.IntRange(min=1), default=12, show_default=True, help="How many."
)
@click.option(
    "--seed",
    type=click.IntRange(min=0),
    default=0,
    show_default=True,
    help="The same seed gives the same scenes.",
)
@click.option(
    "--size-px",
    type=click.IntRange(min=16),
    default=256,
    show_default=True,
    help="Side of a scene.",
)
@click.option(
    "--layout",
    type=click.Choice(("geotiff", "catalogue")),
    default="geotiff",
    show_default=True,
    help="GeoTIFF of 4 bands, or the catalogue's .npy of 13.",
)
@overwrite_option
def simulate(
    output: Path, scenes: int, seed: int, size_px: int, layout: str, overwrite: bool
) -> None:
    """Write a data set of simulated scenes, clear to overcast, over many kinds of ground."""
    from cloudnet.dataset import SCENES_FILE
    from cloudnet.files import refuse_existing
    from cloudnet.simulated_set import remove_simulated, write_dataset

    refuse_existing([output / SCENES_FILE], overwrite)
    if overwrite:
        remove_simulated(output)
    paths = write_dataset(output, scenes, seed, size=(size_px, size_px), layout=layout)
    click.echo(f"{output}: {len(paths)} scene{'s' * (len(paths) > 1)}")
