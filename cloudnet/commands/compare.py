"""cloudnet compare: does the ONNX file say what Keras says?"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from cloudnet.commands.options import (
    FILE,
    SCENE,
    atol_option,
    describe,
    import_tensorflow,
    reading_options,
)

if TYPE_CHECKING:
    from cloudnet.compare import Comparison
    from cloudnet.runtime import CloudModel
    from cloudnet.scene import Reading


@click.command(short_help="Compare Keras and onnxruntime on the same tiles.")
@click.argument("model", type=FILE)
@click.argument("scenes", type=SCENE, nargs=-1)
@click.option(
    "--keras",
    "net",
    type=FILE,
    help="Run folder, .keras file, or name of a model that comes with one.",
)
@atol_option
@reading_options
def compare(
    model: Path,
    scenes: tuple[str | Path, ...],
    net: Path | None,
    atol: float,
    reading: Reading,
) -> None:
    """Compare the answers of Keras and onnxruntime to the same tiles; exit 1 where they differ.

    With --keras both run side by side, on tiles of the SCENES, on noise, overcast, black and no
    data. Without it, or without TensorFlow, the probe in MODEL is replayed: real tiles with Keras's
    own answers. MODEL is an ONNX file, or a name that cloudnet models lists.
    """
    from cloudnet.compare import replay_probe
    from cloudnet.runtime import load_model

    if scenes and net is None:
        raise click.UsageError("SCENES are compared with --keras; without it give none")
    loaded = load_model(model)
    comparison = None if net is None else _live(loaded, net, scenes, atol, reading)
    comparison = comparison or replay_probe(loaded, atol)
    click.echo(_table(comparison))
    click.echo(describe(comparison))
    comparison.require(loaded.path)


def _live(
    model: CloudModel, net: Path, scenes: tuple[str | Path, ...], atol: float, reading: Reading
) -> Comparison | None:
    """Compare side by side; None, with a note, where TensorFlow is not installed."""
    from cloudnet.compare import compare_with_keras, scene_tiles
    from cloudnet.errors import MissingExtraError
    from cloudnet.run import find_net
    from cloudnet.shipped import find_keras

    net = find_net(find_keras(net))
    tiles = [scene_tiles(scene, model.spec, reading) for scene in scenes]
    try:
        import_tensorflow()
        return compare_with_keras(model, net, tiles, atol)
    except MissingExtraError as error:
        click.echo(f"Note: {error}; the probe is replayed instead", err=True)
        return None


def _table(comparison: Comparison) -> str:
    from cloudnet.report import text_table

    header = ("tiles", "count", "px", "largest", "mean", "mask flips", "mask IoU")
    rows = [
        (
            case.name,
            str(case.tiles),
            str(case.size_px),
            f"{case.largest:.1e}",
            f"{case.mean:.1e}",
            str(case.flips),
            "–" if case.mask_iou is None else f"{case.mask_iou:.4f}",
        )
        for case in comparison.cases
    ]
    return text_table(header, rows)
