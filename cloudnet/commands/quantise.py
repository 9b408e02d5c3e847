"""cloudnet quantise: from an ONNX file to a smaller, faster INT8 one."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from cloudnet.commands.options import (
    FILE,
    Finite,
    describe,
    overwrite_option,
    reading_options,
    share_bar,
    skip_bad_option,
)

if TYPE_CHECKING:
    from cloudnet.reading import Reading

SHARE = Finite(0, 1)


@click.command(short_help="Turn an ONNX file into an INT8 one.")
@click.argument("model", type=FILE)
@click.argument("data", type=FILE, nargs=-1, required=True)
@click.option("-o", "--output", type=FILE, required=True, help="The INT8 file.")
@click.option(
    "--min-iou",
    type=SHARE,
    default=0.97,
    show_default=True,
    help="IoU of its cloud masks with those of MODEL, at least.",
)
@click.option(
    "--max-loss",
    type=SHARE,
    default=0.005,
    show_default=True,
    help="How much lower its cloud IoU with the labels may be.",
)
@click.option(
    "--float",
    "float_layers",
    metavar="LAYER",
    multiple=True,
    help="Keep this layer in float; may be given several times.",
)
@overwrite_option
@skip_bad_option
@reading_options
def quantise(
    model: Path,
    data: tuple[Path, ...],
    output: Path,
    min_iou: float,
    max_loss: float,
    float_layers: tuple[str, ...],
    overwrite: bool,
    skip_bad: bool,
    reading: Reading,
) -> None:
    """Turn MODEL into an INT8 file, calibrated on tiles of the labelled scenes of DATA.

    It is published once its masks of all of DATA agree with those of MODEL. Layers that cost most
    are kept in float where they do not. MODEL is an ONNX file, or a name
    that cloudnet models lists.
    """
    from cloudnet.dataset import open_dataset
    from cloudnet.errors import require

    dataset = open_dataset(data, reading, skip_bad=skip_bad)
    for problem in dataset.problems:
        click.echo(f"left out: {problem}", err=True)
    require("onnx", "train")
    from cloudnet.quantise import QuantiseOptions
    from cloudnet.quantise import quantise as make_int8

    options = QuantiseOptions(min_iou, max_loss, float_layers, overwrite)
    with share_bar("quantising") as advance:
        made = make_int8(model, dataset, output, options, advance)
    before, after = made.agreement.float_net.iou, made.agreement.int8_net.iou
    click.echo(describe(made.comparison))
    click.echo(f"compared with {model}: mask IoU {made.agreement.masks.iou:.4f}")
    if before is not None and after is not None:
        click.echo(f"cloud IoU with the labels: {before:.4f} in float, {after:.4f} in INT8")
    click.echo(f"calibrated by {made.calibration}, in float: {', '.join(made.float_layers) or '–'}")
    click.echo(f"{output}: {output.stat().st_size / 1e6:.3f} MB")
