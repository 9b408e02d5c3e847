"""Options and small habits that several commands share."""

from __future__ import annotations

import functools
import math
import os
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, redirect_stderr
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar, cast

import click

from cloudnet.spec import LEVELS

if TYPE_CHECKING:
    from cloudnet.compare import Comparison
    from cloudnet.runtime import CloudModel
    from cloudnet.scene import Reading

Command = TypeVar("Command", bound=Callable[..., Any])

Say = Callable[[str], None]

FILE = click.Path(path_type=Path)
"""Paths are checked by the library, whose messages name the mend."""

BAR_STEPS = 1000

INTERRUPTED = 130
"""Exit code of a command ended by Ctrl-C, as shells have it."""
RESOLUTIONS = ("10", "20")
READING_OPTIONS = ("bands", "scale", "offset", "nodata", "resolution", "level")


class Place(click.ParamType):  # type: ignore[type-arg]  # generic from click 8.3 on
    """A path, or an http(s) address as it was typed: a path would lose one of its slashes."""

    name = "scene"

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> str | Path:
        """Return an address as text, anything else as a path."""
        from cloudnet.reading import is_address

        return value if is_address(value) else Path(value)


SCENE = Place()


class Finite(click.FloatRange):
    """A number within a range; click's own lets NaN through every bound."""

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> float:
        """Return the number, or fail as click does."""
        number = float(super().convert(value, param, ctx))
        if not math.isfinite(number):
            self.fail(f"{value} is no finite number", param, ctx)
        return number


class SectionedCommand(click.Command):
    """A command whose help shows its options under titles.

    Parameters
    ----------
    sections
        Names of options by title; those that none names come last.
    """

    def __init__(self, *args: Any, sections: Mapping[str, Sequence[str]], **options: Any) -> None:
        super().__init__(*args, **options)
        self.sections = sections

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the options, section by section."""
        records = {
            parameter.name: record
            for parameter in self.get_params(ctx)
            if isinstance(parameter, click.Option)
            and (record := parameter.get_help_record(ctx)) is not None
        }
        for title, names in self.sections.items():
            with formatter.section(title):
                formatter.write_dl([records.pop(name) for name in names])
        with formatter.section("Options"):
            formatter.write_dl(list(records.values()))


def reading_options(command: Command) -> Command:
    """Add the options that say what a scene's file does not; the command gets a `reading`."""

    @functools.wraps(command)
    def with_reading(*args: Any, **settings: Any) -> Any:
        told = [settings.pop(name) for name in READING_OPTIONS]
        return command(*args, reading=make_reading(*told), **settings)

    result: Any = with_reading
    for option in (
        click.option(
            "--level",
            type=click.Choice(LEVELS, case_sensitive=False),
            help="L2A: surface reflectance, which is brought to the top of the atmosphere for nets "
            "trained there; where file and name do not tell.",
        ),
        click.option(
            "--resolution",
            type=click.Choice(RESOLUTIONS),
            help="Metres of a pixel; 20 decodes files of 10 m at half their resolution.",
        ),
        click.option("--nodata", type=float, help="Number that stands for no data in a band."),
        click.option("--offset", type=float, help="reflectance = number x SCALE + OFFSET."),
        click.option("--scale", type=float, help="Such as 0.0001 for Sentinel-2 digital numbers."),
        click.option(
            "--bands",
            metavar="R,G,B,NIR",
            help="Numbers from 1, or descriptions, of the bands for red, green, blue and NIR; of a "
            "STAC item its assets.",
        ),
    ):
        result = option(result)
    return cast(Command, result)


def make_reading(
    bands: str | None,
    scale: float | None,
    offset: float | None,
    nodata: float | None,
    resolution: str | None,
    level: str | None,
) -> Reading:
    """Return the reading that the options ask for."""
    from cloudnet.scene import Reading

    names = tuple(bands.split(",")) if bands is not None else None
    resolution_m = int(resolution) if resolution is not None else None
    return Reading(names, scale, offset, nodata, resolution_m, level)


def model_option(command: Command) -> Command:
    """Add -m, the model."""
    return click.option(
        "-m",
        "--model",
        type=FILE,
        help="ONNX file, or a name that cloudnet models lists; the default model if not given.",
    )(command)


def provider_option(command: Command) -> Command:
    """Add --provider, what computes."""
    return click.option(
        "--provider",
        type=click.Choice(["cpu", "cuda", "openvino", "coreml", "directml"]),
        default="cpu",
        show_default=True,
        help="What of onnxruntime computes; others than cpu need their own onnxruntime.",
    )(command)


def threads_option(command: Command) -> Command:
    """Add --threads."""
    return click.option(
        "--threads",
        type=click.IntRange(min=1),
        help="Threads inside the net; as many as there are cores if not given.",
    )(command)


def threshold_option(command: Command) -> Command:
    """Add --threshold."""
    return click.option(
        "--threshold",
        type=Finite(0, 1, min_open=True, max_open=True),
        help="Probability from which a pixel is cloud; the model's by default.",
    )(command)


def atol_option(command: Command) -> Command:
    """Add --atol, the tolerance of a comparison."""
    return click.option(
        "--atol",
        type=Finite(min=0, min_open=True),
        default=1e-5,
        show_default=True,
        help="Largest difference of probability that passes.",
    )(command)


def overwrite_option(command: Command) -> Command:
    """Add --overwrite."""
    return click.option("--overwrite", is_flag=True, help="Replace outputs that exist.")(command)


def archive_options(command: Command) -> Command:
    """Add the options of many scenes: --jobs, --scheduler and --skip-existing."""
    for option in (
        click.option(
            "--skip-existing", is_flag=True, help="Leave out scenes whose products are there."
        ),
        click.option(
            "--scheduler",
            metavar="ADDRESS",
            help="Dask scheduler whose workers do the scenes, tcp://HOST:8786; or local.",
        ),
        click.option(
            "--jobs",
            type=click.IntRange(min=1),
            help="Processes that do scenes side by side; this one alone if not given.",
        ),
    ):
        command = option(command)
    return command


def skip_bad_option(command: Command) -> Command:
    """Add --skip-bad."""
    return click.option(
        "--skip-bad", is_flag=True, help="Leave out scenes with a problem, instead of stopping."
    )(command)


@contextmanager
def c_notes_off() -> Iterator[None]:
    """Turn away what C and C++ libraries write to stderr; what Python writes there arrives.

    TensorFlow's start-up notes come before its logging is set up, and libtiff's errors of a full
    disk go past GDAL's: no setting of theirs silences them. Their errors reach us as exceptions.
    """
    if sys.stderr is None:  # the command was started with stderr closed
        yield
        return
    sys.stderr.flush()
    replaced = sys.stderr is not sys.__stderr__  # as in a test: it does not write to 2 anyway
    kept, nowhere = os.dup(2), os.open(os.devnull, os.O_WRONLY)
    try:
        os.dup2(nowhere, 2)
        with (
            os.fdopen(kept, "w", buffering=1, closefd=False) as stderr,
            redirect_stderr(sys.stderr if replaced else stderr),
        ):
            yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)
        os.close(nowhere)


def import_tensorflow(*others: str) -> None:
    """Import TensorFlow without its start-up notes.

    Parameters
    ----------
    others
        Modules of the train extra that the command comes to need later.

    Raises
    ------
    MissingExtraError
        When it, or one of the others, is not installed.
    """
    from cloudnet.errors import require

    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    with c_notes_off():
        for module in ("tensorflow", *others):
            require(module, "train")


def compared_model(
    path: Path | None,
    net: Path | None,
    atol: float,
    *,
    threads: int | None = None,
    provider: str = "cpu",
) -> tuple[CloudModel, Comparison]:
    """Load a model, replay its probe, and compare it with Keras too where a net is given.

    The model is a path or a name; None: the default one. Without TensorFlow the probe has
    to do, which a note says.

    Raises
    ------
    ComparisonError
        When they differ.
    """
    from cloudnet.compare import compare_with_keras, replay_probe
    from cloudnet.errors import MissingExtraError
    from cloudnet.run import find_net
    from cloudnet.runtime import load_model
    from cloudnet.shipped import find_keras

    model = load_model(path, threads=threads, provider=provider)
    net = None if net is None else find_net(find_keras(net))
    comparison = replay_probe(model, atol)
    comparison.require(model.path)
    if net is not None:
        try:
            import_tensorflow()
            comparison = compare_with_keras(model, net, (), atol)
        except MissingExtraError as error:
            click.echo(f"Note: {error}; the probe was replayed instead", err=True)
    comparison.require(model.path)
    return model, comparison


@contextmanager
def share_bar(label: str) -> Iterator[Callable[[float], None]]:
    """Show a bar on stderr where that is a terminal; give a function that takes the share done."""
    if sys.stderr is None or not sys.stderr.isatty():
        yield lambda share: None
        return
    with click.progressbar(length=BAR_STEPS, label=label, file=sys.stderr) as bar:
        yield lambda share: bar.update(int(share * BAR_STEPS) - bar.pos)


@contextmanager
def count_bar(label: str, count: int) -> Iterator[tuple[Callable[[int], None], Say, Say]]:
    """Show a bar on stderr where that is a terminal.

    Give functions that take how many are done more, a line for stdout, and a line for stderr. Lines
    that would break the bar wait for its end, and those for a terminal's stdout are left out.
    """
    if sys.stderr is None or not sys.stderr.isatty():
        yield lambda more: None, click.echo, lambda line: click.echo(line, err=True)
        return
    held: list[str] = []
    try:
        with click.progressbar(length=count, label=label, file=sys.stderr, show_pos=True) as bar:
            shown = sys.stdout is not None and sys.stdout.isatty()
            say: Say = (lambda line: None) if shown else click.echo
            yield bar.update, say, held.append
    finally:
        for line in held:
            click.echo(line, err=True)


def describe(comparison: Comparison) -> str:
    """Return a comparison as a line."""
    return (
        f"compared with {comparison.reference}: largest difference {comparison.largest:.1e}, "
        f"{comparison.flips} mask pixels flipped, allowed {comparison.atol:g}"
    )
