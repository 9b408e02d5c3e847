"""cloudnet inspect: what is in a data set, and what is wrong with it."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from cloudnet.commands.options import FILE, overwrite_option, reading_options

if TYPE_CHECKING:
    from cloudnet.reading import Reading


@click.command(short_help="Print what a data set holds and what is wrong with it.")
@click.argument("data", type=FILE, nargs=-1, required=True)
@click.option("--sheet", type=FILE, metavar="FILE.png", help="Draw a contact sheet to this file.")
@click.option("--totals", is_flag=True, help="Leave out the row for each scene.")
@overwrite_option
@reading_options
def inspect(
    data: tuple[Path, ...],
    sheet: Path | None,
    totals: bool,
    overwrite: bool,
    reading: Reading,
) -> None:
    """Print the scenes of data sets, their sizes, cloud shares, places, and problems.

    DATA are folders with scenes/ (or subscenes/) and masks/. Exits with 1 where there are problems.
    """
    from cloudnet.dataset import open_dataset
    from cloudnet.files import refuse_existing
    from cloudnet.report import dataset_table
    from cloudnet.sheet import check_sheet, draw_sheet

    if sheet is not None:
        check_sheet(sheet)
        refuse_existing([sheet], overwrite)
    dataset = open_dataset(data, reading, skip_bad=True)
    counts = [scene.count_labels() for scene in dataset.scenes]
    click.echo(dataset_table(dataset, counts, scenes=not totals))
    if sheet is not None:
        draw_sheet(dataset, sheet)
        click.echo(f"contact sheet: {sheet}")
    if dataset.problems:
        raise SystemExit(1)
