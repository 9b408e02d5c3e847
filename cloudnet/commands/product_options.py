"""Options of the products: what is written, on which grid, and how the mask is refined."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import TYPE_CHECKING, Any

import click

from cloudnet.commands.options import FILE, Command, Finite, threshold_option

if TYPE_CHECKING:
    from cloudnet.predict import PredictOptions


def product_options(command: Command) -> Command:
    """Add the options that `make_options` takes."""
    for option in reversed(
        (
            click.option("--probability", is_flag=True, help="Write it too, in per cent."),
            threshold_option,
            click.option(
                "--min-area-m2",
                type=Finite(min=0),
                default=0.0,
                show_default=True,
                help="Patches of cloud below this become clear; holes in clouds stay.",
            ),
            click.option(
                "--buffer-m",
                type=Finite(min=0),
                default=0.0,
                show_default=True,
                help="Then cloud grows by this, from pixel centre to pixel centre.",
            ),
            click.option("--like", type=FILE, help="Raster file whose grid the products take."),
            click.option(
                "--vector",
                metavar="gpkg|geojson|FILE",
                help="Write polygons too: NAME_clouds.gpkg and so on, or to a file so named.",
            ),
            click.option(
                "--quicklook/--no-quicklook", default=True, show_default=True, help="Draw a PNG."
            ),
            click.option("--stac", is_flag=True, help="Write a STAC item too."),
            click.option(
                "--datetime",
                "acquired",
                callback=_to_datetime,
                metavar="ISO8601",
                help="When the scene was taken, for --stac, where its file does not tell.",
            ),
        )
    ):
        command = option(command)
    return command


def make_options(settings: Mapping[str, Any]) -> PredictOptions:
    """Return how to predict, from the values of the options by their names."""
    from cloudnet.predict import PredictOptions
    from cloudnet.refine import Refinement

    rest = dict(settings)
    refinement = Refinement(rest.pop("min_area_m2"), rest.pop("buffer_m"))
    return PredictOptions(refinement=refinement, **rest)


def _to_datetime(
    context: click.Context, parameter: click.Parameter, text: str | None
) -> datetime | None:
    try:
        return None if text is None else datetime.fromisoformat(text)
    except ValueError:
        raise click.BadParameter(
            f"{text!r} is no time such as 2024-05-01T10:30:21Z", context, parameter
        ) from None
