"""cloudnet bench: this machine's speed."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

import click

from cloudnet.commands.options import SCENE, provider_option, reading_options, share_bar

if TYPE_CHECKING:
    from cloudnet.bench import Bench, Speed
    from cloudnet.reading import Reading


@click.command(short_help="Measure this machine: speed, stages, memory, settings.")
@click.argument("scene", type=SCENE, required=False)
@click.option(
    "-m",
    "--model",
    "models",
    multiple=True,
    help="ONNX file or name; may be given again. The shipped models if not given.",
)
@click.option(
    "--rounds",
    type=click.IntRange(min=1),
    default=3,
    show_default=True,
    help="How often each setting is measured; the median counts.",
)
@provider_option
@reading_options
@click.option("--json", "as_json", is_flag=True, help="Print JSON instead of tables.")
def bench(
    scene: str | Path | None,
    models: tuple[str, ...],
    rounds: int,
    provider: str,
    reading: Reading,
    as_json: bool,
) -> None:
    """Measure the models on SCENE, or on a generated one, over threads and tiles.

    It says where the time goes, how much memory a prediction takes, and which settings are best.
    """
    from cloudnet.bench import run_bench
    from cloudnet.shipped import shipped_models

    names = models or tuple(model.name for model in shipped_models())
    with share_bar("bench") as advance:
        found = run_bench(
            names, scene, rounds=rounds, provider=provider, reading=reading, on_step=advance
        )
    click.echo(json.dumps(found.to_dict(), indent=2) if as_json else _text(found))


def _text(found: Bench) -> str:
    """Return the tables of a bench."""
    from cloudnet.report import text_table

    names = list(found.stages)
    speeds = text_table(
        ("model", "threads", "tile px", "MP/s"),
        [
            (speed.model, speed.threads, _tile(speed), f"{speed.megapixels_s:.1f}")
            for speed in found.speeds
        ],
    )
    totals = {name: sum(found.stages[name].values()) for name in names}
    stages = text_table(
        ("stage", *names),
        [
            (stage, *(f"{found.stages[name][stage] / totals[name]:.0%}" for name in names))
            for stage in found.stages[names[0]]
        ],
    )
    advice = []
    for name in names:
        best, peak = found.best(name), found.peak_mb[name]
        memory = "peak memory unknown" if peak is None else f"peak memory {peak:.0f} MB"
        tile = "" if best.tile_px is None else f" --tile-px {best.tile_px}"
        advice.append(
            f"{name}: {best.megapixels_s:.1f} MP/s, {memory}; recommended: "
            f"--threads {best.threads}{tile}"
        )
    scene = f"{found.rows} x {found.cols} pixels, {found.cores} cores"
    return "\n\n".join([scene, speeds, f"Shares of the time:\n{stages}", "\n".join(advice)])


def _tile(speed: Speed) -> str | int:
    return "chosen" if speed.tile_px is None else speed.tile_px
