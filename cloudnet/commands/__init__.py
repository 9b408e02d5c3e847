"""The command line. Only this package imports click, and only it prints."""

from __future__ import annotations

import logging
import sys
from typing import Any

import click

from cloudnet._version import __version__
from cloudnet.commands.bench import bench
from cloudnet.commands.compare import compare
from cloudnet.commands.demo import demo
from cloudnet.commands.evaluate import evaluate
from cloudnet.commands.export import export
from cloudnet.commands.fetch import fetch
from cloudnet.commands.info import info
from cloudnet.commands.inspect import inspect
from cloudnet.commands.models import models
from cloudnet.commands.options import INTERRUPTED
from cloudnet.commands.predict import predict
from cloudnet.commands.quantise import quantise
from cloudnet.commands.simulate import simulate
from cloudnet.commands.train import train
from cloudnet.errors import CloudnetError


class _Group(click.Group):
    """A group that ends on our errors with their sentence on stderr and their exit code."""

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except CloudnetError as error:
            # One line, whatever a library's message brought along.
            click.echo(f"Error: {' '.join(str(error).splitlines())}", err=True)
            sys.exit(error.exit_code)
        except KeyboardInterrupt:
            # click would end with 1, which says that a check failed.
            click.echo("\nAborted!", err=True)
            sys.exit(INTERRUPTED)

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Return the commands in the order in which they are used."""
        return list(self.commands)


@click.group(cls=_Group, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="cloudnet")
def main() -> None:
    """Cloud masks for Sentinel-2: predict with a model, or train, export and compare one.

    Bad input ends with exit code 2, a failed check (a comparison, a training) with 1.
    """
    # GDAL's notes would stand beside our sentence; what matters of them is in the error's cause.
    logging.getLogger("rasterio").addHandler(logging.NullHandler())


for command in (
    predict,
    models,
    bench,
    info,
    evaluate,
    compare,
    inspect,
    train,
    export,
    quantise,
    fetch,
    simulate,
    demo,
):
    main.add_command(command)
