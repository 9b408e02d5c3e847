"""cloudnet info: what a model or a scene is."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

import click

from cloudnet.commands.options import SCENE, import_tensorflow, reading_options

if TYPE_CHECKING:
    from cloudnet.reading import Reading
    from cloudnet.scene import Scene

COSTS = {
    "parameters": ("parameters", "{:,}"),
    "macs_per_pixel": ("multiply-adds", "{:,.0f} per pixel"),
    "receptive_field_px": ("receptive field", "{} px"),
}
"""Title and format of the facts on a net."""


@click.command(short_help="Print what a model, a run or a scene is.")
@click.argument("path", type=SCENE)
@reading_options
def info(path: str | Path, reading: Reading) -> None:
    """Print what a model costs and takes, or how a scene is read.

    A model is an .onnx, a .keras, a run folder, or a name that cloudnet models lists. A scene is
    what cloudnet predict takes.
    """
    from cloudnet.shipped import is_name

    if isinstance(path, str) or _is_product(path):
        rows = _scene_rows(path, reading)
    elif path.suffix == ".onnx" or is_name(path):
        rows = _onnx_rows(path)
    elif path.suffix == ".keras" or path.is_dir():
        rows = _keras_rows(path)
    else:
        rows = _scene_rows(path, reading)
    width = max(len(name) for name, _ in rows)
    for name, value in rows:
        click.echo(f"{name:<{width}}  {value}")


def _is_product(path: Path) -> bool:
    """Tell a folder that is a scene from a run."""
    if not path.is_dir():
        return False
    from cloudnet.safe import is_product

    return is_product(path)


def _onnx_rows(path: Path) -> list[tuple[str, str]]:
    from cloudnet.runtime import load_model

    model = load_model(path)
    size = model.path.stat().st_size
    rows = [("model", f"{model.spec.name} {model.spec.version} ({model.path})")]
    rows += [*_cost_rows(model.facts), ("numbers", model.precision)]
    rows += [("file size", f"{size / 1e6:.3f} MB"), ("sha256", model.sha256)]
    return rows + _spec_rows(model.spec.to_dict())


def _keras_rows(path: Path) -> list[tuple[str, str]]:
    from cloudnet.run import find_net

    net = find_net(path)
    import_tensorflow()
    from cloudnet.model import config_of, load_net, measure, read_keras_spec

    spec = read_keras_spec(net)
    facts = asdict(measure(config_of(load_net(net))))
    rows = [("model", f"{spec.name} {spec.version} ({net})"), *_cost_rows(facts)]
    rows += [("file size", f"{net.stat().st_size / 1e6:.3f} MB")]
    return rows + _spec_rows(spec.to_dict())


def _cost_rows(facts: dict[str, float]) -> list[tuple[str, str]]:
    return [
        (title, text.format(facts[key])) for key, (title, text) in COSTS.items() if key in facts
    ]


def _spec_rows(spec: dict[str, object]) -> list[tuple[str, str]]:
    def text(value: object) -> str:
        return ", ".join(map(str, value)) if isinstance(value, list) else str(value)

    return [(f"spec: {key}", text(value)) for key, value in spec.items()]


def _scene_rows(path: str | Path, reading: Reading) -> list[tuple[str, str]]:
    from cloudnet.scene import open_scene

    with open_scene(path, reading) as scene:
        rows = [("scene", f"{scene.name} ({path})")]
        if scene.level is not None:
            rows.append(("level", scene.level))
        if scene.sun_zenith_deg is not None:
            rows.append(("sun zenith", f"{scene.sun_zenith_deg:.1f} degrees"))
        if scene.aerosol is not None:
            rows.append(("aerosol", f"{scene.aerosol:.3f}"))
        if scene.baseline is not None:
            rows.append(("baseline", scene.baseline))
        return [
            *rows,
            ("size", f"{scene.rows} x {scene.cols} pixels"),
            ("numbers", str(scene.dtype)),
            ("red, green, blue, NIR", _bands(scene)),
            ("scale", ", ".join(f"{value:g}" for value in scene.scale)),
            ("offset", ", ".join(f"{value:g}" for value in scene.offset)),
            ("pixel", f"{scene.pixel_m:.2f} m" if scene.pixel_m else "unknown"),
            ("upper left corner", _corner(scene)),
            ("CRS", str(scene.crs or "none")),
            ("without data", f"{_share_without_data(scene):.2%}"),
        ]


def _bands(scene: Scene) -> str:
    """Return names where the file has them, else numbers."""
    if all(scene.band_names) and scene.band_names:
        return ", ".join(scene.band_names)
    return f"bands {', '.join(map(str, scene.band_numbers))}"


def _corner(scene: Scene) -> str:
    return f"{scene.transform.c:.10g}, {scene.transform.f:.10g}" if scene.transform else "unknown"


def _share_without_data(scene: Scene) -> float:
    from cloudnet.tiles import grid

    missing = 0
    for tile in grid(scene.rows, scene.cols, 1024, 0):
        _, valid = scene.read(tile.write)
        missing += valid.size - int(valid.sum())
    return missing / (scene.rows * scene.cols)
