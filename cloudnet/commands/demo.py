"""cloudnet demo: the whole chain in under two minutes."""

from __future__ import annotations

from pathlib import Path

import click

from cloudnet.commands.options import FILE, import_tensorflow
from cloudnet.commands.train import ProgressBar


@click.command(short_help="Run the whole chain on generated scenes in two minutes.")
@click.option(
    "--out", type=FILE, default=Path("demo"), show_default=True, help="Folder of the results."
)
def demo(out: Path) -> None:
    """Train a small net on generated scenes, export, compare, predict, evaluate: the whole chain.

    Takes less than two minutes on two cores and needs the train extra.
    """
    import_tensorflow("tensorboard", "matplotlib", "onnx", "tf2onnx")
    from cloudnet.demo import run_demo

    with ProgressBar() as bar:
        for line in run_demo(out, bar.show):
            click.echo(line)
