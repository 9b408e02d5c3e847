"""cloudnet train: from labelled scenes to a run."""

from __future__ import annotations

import math
import sys
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any

import click
import click.core

from cloudnet.commands.options import (
    FILE,
    INTERRUPTED,
    import_tensorflow,
    reading_options,
    share_bar,
    skip_bad_option,
)

if TYPE_CHECKING:
    from cloudnet.catalogue import Protocol
    from cloudnet.dataset import DataSet
    from cloudnet.run import Run
    from cloudnet.train import Progress, TrainConfig

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
@click.option(
    "--ensemble",
    type=click.IntRange(min=0),
    default=0,
    show_default=True,
    help="Nets to train first, with other seeds, whose mean teaches the net.",
)
@click.option(
    "--recipe",
    type=click.Choice(("s2-rgbn",)),
    help="Settings of a shipped model; options that are given replace its own.",
)
@click.option("--folds", type=int, help="Train one net for each of so many folds.")
@click.option(
    "--no-validation", is_flag=True, help="Train on all scenes, as for a release; with --recipe."
)
@click.option(
    "--protocol",
    type=click.Choice(("catalogue",)),
    help="Train on the catalogue's MAIN, test once on CALIBRATION and VALIDATION.",
)
@click.option("--deterministic", is_flag=True, help="The same bits each time; slower.")
@click.option("--resume", is_flag=True, help="Go on after the last finished epoch.")
@skip_bad_option
@reading_options
@click.pass_context
def train(context: click.Context, /, data: tuple[Path, ...], out: Path, **settings: Any) -> None:
    """Train a net on the labelled scenes of DATA, split by place, and write a run folder."""
    way = _Way(*(settings.pop(key) for key in ("folds", "protocol", "no_validation", "resume")))
    if way.no_validation and settings["recipe"] is None:
        raise click.UsageError("--no-validation needs a --recipe, which keeps the last net")
    if settings["recipe"] is not None and _given(context, "patience"):
        raise click.UsageError("--patience chooses the best net, and a --recipe keeps the last")
    from cloudnet.dataset import open_dataset

    reading, skip_bad, recipe = (settings.pop(key) for key in ("reading", "skip_bad", "recipe"))
    if recipe is not None:
        settings = {key: value for key, value in settings.items() if _given(context, key)}
    dataset = open_dataset(data, reading, skip_bad=skip_bad)
    for problem in dataset.problems:
        click.echo(f"left out: {problem}", err=True)
    protocol = _split_protocol(dataset) if way.protocol else None
    import_tensorflow("tensorboard", "matplotlib", *(("onnx", "tf2onnx") if protocol else ()))
    from cloudnet.recipe import settings_of

    config = settings_of(recipe, settings)
    try:
        with ProgressBar() as bar:
            runs = _train(way, dataset, protocol, out, config, bar)
    except KeyboardInterrupt:
        click.echo(f"\nStopped; go on with the same command and --resume: {out}", err=True)
        raise SystemExit(INTERRUPTED) from None
    for run in runs:
        click.echo(f"{run.model}: {_describe_result(run)}")


@dataclass(frozen=True)
class _Way:
    """How the scenes are parted: by folds, by the catalogue's protocol, not at all, or once."""

    folds: int | None
    protocol: str | None
    no_validation: bool
    resume: bool

    def __post_init__(self) -> None:
        if self.folds is not None and self.protocol is not None:
            raise click.UsageError("--protocol has a split of its own; give it without --folds")
        if self.no_validation and (self.folds is not None or self.protocol is not None):
            raise click.UsageError("--no-validation leaves nothing for --folds or --protocol")


def _given(context: click.Context, name: str) -> bool:
    return context.get_parameter_source(name) is click.core.ParameterSource.COMMANDLINE


def _train(
    way: _Way,
    dataset: DataSet,
    protocol: Protocol | None,
    out: Path,
    config: TrainConfig,
    bar: ProgressBar,
) -> list[Run]:
    """Train in the way that was asked for."""
    from cloudnet.train import train as train_once
    from cloudnet.train import train_all, train_folds

    if protocol is not None:
        return [_train_protocol(protocol, out, config, way.resume, bar)]
    if way.folds is not None:
        return train_folds(dataset, out, config, way.folds, resume=way.resume, on_progress=bar.show)
    train_whole = train_all if way.no_validation else train_once
    return [train_whole(dataset, out, config, resume=way.resume, on_progress=bar.show)]


def _describe_result(run: Run) -> str:
    """Return the validation IoU of the epoch that the run kept, or that there was none."""
    history = run.read_history()
    kept = history[-1] if run.read_config()["training"].get("keep") == "last" else None
    kept = kept or max(history, key=lambda row: row["val_iou"])
    if math.isnan(kept["val_iou"]):
        return f"loss {kept['loss']:.3f} after epoch {kept['epoch']:.0f}, no validation"
    return f"validation IoU {kept['val_iou']:.3f} after epoch {kept['epoch']:.0f}"


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
        live = sys.stdout is not None and sys.stdout.isatty()
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
    net = f"member {progress.member}/{progress.members}, " if progress.member else ""
    return f"{net}epoch {progress.epoch}/{progress.epochs}: loss {progress.loss:.3f}" + (
        "" if iou is None or math.isnan(iou) else f", validation IoU {iou:.3f}"
    )
