"""cloudnet export: from a run to an ONNX file."""

from __future__ import annotations

from pathlib import Path

import click

from cloudnet.commands.options import (
    FILE,
    Finite,
    atol_option,
    describe,
    import_tensorflow,
    overwrite_option,
)
from cloudnet.spec import CONTRACT_NHWC, CONTRACTS


@click.command(short_help="Turn a run's net into an ONNX file.")
@click.argument("run", type=FILE)
@click.option("-o", "--output", type=FILE, required=True, help="The ONNX file.")
@click.option(
    "--contract",
    type=click.Choice(CONTRACTS),
    default=CONTRACT_NHWC,
    show_default=True,
    help="nhwc: any size, probability out. nchw-224: (batch, 4, 224, 224) in, a 0/1 mask out.",
)
@click.option(
    "--max-mb",
    type=Finite(min=0, min_open=True),
    default=250.0,
    show_default=True,
    help="Refuse a larger file.",
)
@atol_option
@overwrite_option
def export(
    run: Path, output: Path, contract: str, max_mb: float, atol: float, overwrite: bool
) -> None:
    """Turn the net of a RUN folder into an ONNX file, published once it agrees with Keras."""
    from cloudnet.run import find_net

    find_net(run)
    import_tensorflow("onnx", "tf2onnx")
    from cloudnet.export import export_onnx

    comparison = export_onnx(
        run, output, contract=contract, max_mb=max_mb, atol=atol, overwrite=overwrite
    )
    click.echo(describe(comparison))
    click.echo(f"{output}: {output.stat().st_size / 1e6:.3f} MB, contract {contract}")
