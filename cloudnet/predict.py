"""Predict: one scene becomes a mask, a quicklook and a summary, on a model that was compared."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack, closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import rasterio
from numpy.typing import NDArray

from cloudnet._version import __version__
from cloudnet.compare import Comparison, replay_probe
from cloudnet.errors import ModelError, OutputError
from cloudnet.files import refuse_existing, whole_file, writable_folder
from cloudnet.product import Outputs, open_layer, to_percent, write_summary
from cloudnet.quicklook import Quicklook
from cloudnet.runtime import CloudModel, to_mask
from cloudnet.scene import Reading, Scene, open_scene, scene_name
from cloudnet.spec import CLOUD, NO_DATA

Counts: TypeAlias = NDArray[np.int64]

GDAL_CACHE_MB = 64
"""GDAL keeps decoded blocks up to this size; its own default, 5 % of the memory, is not bounded."""


@dataclass(frozen=True)
class PredictOptions:
    """How scenes are predicted.

    Attributes
    ----------
    probability
        Write the probability too.
    quicklook
        Write the picture.
    threshold
        Probability from which a pixel is cloud; None: the model's.
    tile_px, exact
        As in `CloudModel.tiles`.
    overwrite
        Replace products that exist.
    """

    probability: bool = False
    quicklook: bool = True
    threshold: float | None = None
    tile_px: int | None = None
    exact: bool = False
    overwrite: bool = False

    def __post_init__(self) -> None:
        if self.threshold is not None and not 0.0 < self.threshold < 1.0:
            raise ModelError(f"a threshold lies between 0 and 1, not at {self.threshold}")
        if self.tile_px is not None and self.tile_px < 1:
            raise ModelError(f"a tile has a side of 1 px or more, not {self.tile_px}")


@dataclass(frozen=True)
class Prediction:
    """What was found in a scene and where it lies.

    Attributes
    ----------
    outputs
        The files.
    cloud_share
        Share of cloud among the valid pixels; None where none is valid.
    valid_share
        Share of pixels with data.
    """

    outputs: Outputs
    cloud_share: float | None
    valid_share: float


def predict_scene(
    path: str | Path,
    model: CloudModel,
    folder: str | Path,
    *,
    comparison: Comparison | None = None,
    options: PredictOptions | None = None,
    reading: Reading | None = None,
    on_progress: Callable[[float], None] | None = None,
) -> Prediction:
    """Write the products of one scene; they appear together once all are written, or not at all.

    Parameters
    ----------
    path
        The scene.
    model
        A model of the "nhwc" contract.
    folder
        Where the products go; made if need be.
    comparison
        Of this model on this machine (contract 5: compare before inference); None: the probe in
        the model's file is replayed first.
    options, reading
        How to predict, and what the scene's file does not tell.
    on_progress
        Called with the share of the scene that is done.

    Raises
    ------
    ComparisonError
        When the comparison did not pass; nothing is written.
    ModelError
        When the model takes single tiles only.
    SceneError, OutputError
        When the scene cannot be read or a product cannot be written; no product appears.
    """
    comparison = comparison or replay_probe(model)
    comparison.require(model.path)
    model.require_scenes()
    options = options or PredictOptions()
    with rasterio.Env(GDAL_CACHEMAX=GDAL_CACHE_MB), open_scene(path, reading) as scene:
        outputs = Outputs(writable_folder(Path(folder)), scene.name)
        wanted = _wanted(outputs, options)
        refuse_existing([*wanted.values()], options.overwrite)
        with ExitStack() as unpublished:
            # The last one entered appears first, and is the one that an error of writing names.
            files = {
                kind: unpublished.enter_context(whole_file(path))
                for kind, path in reversed(wanted.items())
            }
            counts = _write_layers(scene, model, files, options, on_progress or (lambda _: None))
            summary = _summarise(scene, model, comparison, options, counts)
            write_summary(files["summary"], summary)
    return Prediction(outputs, summary["cloud_share"], summary["valid_share"])


def check_outputs(scenes: Sequence[str | Path], folder: Path, options: PredictOptions) -> None:
    """Check, before any work, that the products of all scenes can go to one folder.

    Raises
    ------
    OutputError
        When two scenes bear one name, or a product is in the way.
    """
    name, times = Counter(map(scene_name, scenes)).most_common(1)[0]
    if times > 1:
        alike = " and ".join(str(scene) for scene in scenes if scene_name(scene) == name)
        raise OutputError(
            f"{alike} bear one name, so would their products; predict each into its own folder"
        )
    for scene in scenes:
        wanted = _wanted(Outputs(folder, scene_name(scene)), options)
        refuse_existing([*wanted.values()], options.overwrite)


def _wanted(outputs: Outputs, options: PredictOptions) -> dict[str, Path]:
    return outputs.wanted(probability=options.probability, quicklook=options.quicklook)


def _write_layers(
    scene: Scene,
    model: CloudModel,
    files: Mapping[str, Path],
    options: PredictOptions,
    on_progress: Callable[[float], None],
) -> Counts:
    """Stream the scene into its layers and its picture; return the pixels by mask value."""
    threshold = _threshold(model, options)
    tags = {
        "CLOUDNET_VERSION": __version__,
        "MODEL": f"{model.spec.name} {model.spec.version}",
        "MODEL_SHA256": model.sha256,
        "THRESHOLD": f"{threshold:g}",
        "SCENE": scene.name,
    }
    counts = np.zeros(256, dtype=np.int64)
    picture = Quicklook(scene.rows, scene.cols)
    with ExitStack() as layers:
        mask_layer = layers.enter_context(open_layer(files["mask"], scene, "cloud mask", tags))
        probability_layer = (
            layers.enter_context(open_layer(files["probability"], scene, "cloud probability", tags))
            if "probability" in files
            else None
        )
        stream = layers.enter_context(
            closing(
                model.stream(
                    scene.read,
                    (scene.rows, scene.cols),
                    tile_px=options.tile_px,
                    exact=options.exact,
                )
            )
        )
        for window, probability, reflectance in stream:
            mask = to_mask(probability, threshold)
            mask_layer.write(window, mask)
            if probability_layer:
                probability_layer.write(window, to_percent(probability))
            picture.add(window, reflectance, mask)
            counts += np.bincount(mask.ravel(), minlength=256)
            on_progress(float(counts.sum()) / (scene.rows * scene.cols))
    if "quicklook" in files:
        files["quicklook"].write_bytes(picture.encode())
    return counts


def _summarise(
    scene: Scene,
    model: CloudModel,
    comparison: Comparison,
    options: PredictOptions,
    counts: Counts,
) -> dict[str, Any]:
    """Return the summary of a scene as JSON types."""
    valid = int(counts.sum() - counts[NO_DATA])
    return {
        "scene": scene.name,
        "rows": scene.rows,
        "cols": scene.cols,
        "cloud_share": int(counts[CLOUD]) / valid if valid else None,
        "valid_share": valid / (scene.rows * scene.cols),
        "threshold": _threshold(model, options),
        "model": {**model.spec.to_dict(), "sha256": model.sha256},
        "comparison": comparison.to_dict(),
        "cloudnet": __version__,
    }


def _threshold(model: CloudModel, options: PredictOptions) -> float:
    return model.spec.threshold if options.threshold is None else options.threshold
