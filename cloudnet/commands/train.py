"""cloudnet train: from labelled scenes to a run."""

from __future__ import annotations

import sys
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any

import click

from cloudnet.commands.options import (
    FILE,
    import_tensorflow,
    make_reading,
    reading_options,
    share_bar,
    skip_bad_option,
)

if TYPE_CHECKING:
    from cloudnet.catalogue import Protocol
    from cloudnet.dataset import DataSet
    from cloudnet.run import Run
    from cloudnet.train import Progress, TrainConfig

INTERRUPTED = 130
"""Exit code of a command ended by Ctrl-C, as shells have it."""

CLEAR_TO_END = "\x1b[K"
"""Tells a terminal to clear what the bar left on the line."""


@click.command(short_help="Train a net on labelled scenes.")
@click.argument("data", type=FILE, nargs=-1, required=True)
@click.option("--out", type=FILE, required=True, help="Folder of the run, such as runs/first.")
@click.option(
    "--epochs",
    type=click.IntRange(min=1),
    default=40,
    show_default=True,
    help="Passes over the training tiles.",
)
@click.option(
    "--batch", type=click.IntRange(min=1), default=16, show_default=True, help="Tiles a step."
)
@click.option("--tile-px", type=int, default=224, show_default=True, help="Side of a tile.")
@click.option(
    "--epoch-tiles",
    type=click.IntRange(min=1),
    default=2400,
    show_default=True,
    help="Least tiles an epoch; a large data set has more.",
)
@click.option("--learning-rate", type=float, default=3e-3, show_default=True, help="Its peak.")
@click.option(
    "--patience",
    type=click.IntRange(min=1),
    default=15,
    show_default=True,
    help="Stop after so many epochs without a better validation IoU.",
)
@click.option(
    "--seed",
    type=click.IntRange(min=0),
    default=0,
    show_default=True,
    help="Of split, weights, order and augmentation.",
)
@click.option("--folds", type=int, help="Train one net for each of so many folds.")
@click.option(
    "--protocol",
    type=click.Choice(("catalogue",)),
    help="Train on the catalogue's MAIN, test once on CALIBRATION and VALIDATION.",
)
@click.option("--deterministic", is_flag=True, help="The same bits each time; slower.")
@click.option("--resume", is_flag=True, help="Go on after the last finished epoch.")
@skip_bad_option
@reading_options
def train(data: tuple[Path, ...], out: Path, **settings: Any) -> None:
    """Train a net on the labelled scenes of DATA, split by place, and write a run folder."""
    folds, by_protocol = settings.pop("folds"), settings.pop("protocol") is not None
    if folds is not None and by_protocol:
        raise click.UsageError("--protocol has a split of its own; give it without --folds")
    reading = make_reading(*(settings.pop(key) for key in ("bands", "scale", "offset", "nodata")))
    from cloudnet.dataset import open_dataset

    dataset = open_dataset(data, reading, skip_bad=settings.pop("skip_bad"))
    for problem in dataset.problems:
        click.echo(f"left out: {problem}", err=True)
    protocol = _split_protocol(dataset) if by_protocol else None
    import_tensorflow("tensorboard", "matplotlib", *(("onnx", "tf2onnx") if protocol else ()))
    from cloudnet.train import TrainConfig, train_folds
    from cloudnet.train import train as train_once

    resume = settings.pop("resume")
    config = TrainConfig(**settings)
    try:
        with ProgressBar() as bar:
            if protocol is not None:
                runs = [_train_protocol(protocol, out, config, resume, bar)]
            elif folds is None:
                runs = [train_once(dataset, out, config, resume=resume, on_progress=bar.show)]
            else:
                runs = train_folds(dataset, out, config, folds, resume=resume, on_progress=bar.show)
    except KeyboardInterrupt:
        click.echo(f"\nStopped; go on with the same command and --resume: {out}", err=True)
        raise SystemExit(INTERRUPTED) from None
    for run in runs:
        best = max(run.read_history(), key=lambda row: row["val_iou"])
        click.echo(
            f"{run.model}: validation IoU {best['val_iou']:.3f} after epoch {best['epoch']:.0f}"
        )


def _split_protocol(dataset: DataSet) -> Protocol:
    """Split by the catalogue's protocol, and tell what it leaves out."""
    from cloudnet.catalogue import split_protocol

    protocol = split_protocol(dataset.scenes)
    if left_out := protocol.left_out:
        places = len({scene.group for scene in left_out})
        click.echo(
            f"left out, as their places are tested on: scenes {len(left_out)}, places {places}",
            err=True,
        )
    return protocol


def _train_protocol(
    protocol: Protocol, out: Path, config: TrainConfig, resume: bool, bar: ProgressBar
) -> Run:
    """Train and test by the catalogue's protocol, and print the test's scores."""
    from cloudnet.catalogue import TEST_FILE, score_protocol, train_protocol
    from cloudnet.report import evaluation_table

    run = train_protocol(protocol, out, config, resume=resume, on_progress=bar.show)
    with share_bar("test") as advance:
        evaluation = score_protocol(run, protocol, lambda done, total: advance(done / total))
    click.echo(f"{evaluation_table(evaluation, scenes=False)}\n\ntest: {run.folder / TEST_FILE}")
    return run


class ProgressBar:
    """A line for each epoch and, on a terminal, a bar over all steps with the time left."""

    def __init__(self) -> None:
        self._bar: Any = None

    def __enter__(self) -> ProgressBar:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._bar is not None:
            self._bar.__exit__(kind, error, trace)

    def show(self, progress: Progress) -> None:
        """Draw where training is."""
        live = sys.stdout.isatty()
        if progress.epoch_ended:
            line = _describe(progress)
            click.echo(f"\r{line}{CLEAR_TO_END}" if live else line)
        if not live:
            return
        if self._bar is None or progress.step < self._bar.pos:  # the first step, or a new fold's
            self._bar = click.progressbar(
                length=progress.steps, label="training", item_show_func=_describe, show_pos=True
            )
            self._bar.__enter__()
            self._bar.pos = progress.step - 1
        self._bar.update(progress.step - self._bar.pos, progress)
        if progress.epoch_ended and progress.step >= progress.steps:
            self._bar.__exit__(None, None, None)
            self._bar = None


def _describe(progress: Progress | None) -> str | None:
    if progress is None:
        return None
    iou = progress.validation_iou
    return f"epoch {progress.epoch}/{progress.epochs}: loss {progress.loss:.3f}" + (
        "" if iou is None else f", validation IoU {iou:.3f}"
    )
