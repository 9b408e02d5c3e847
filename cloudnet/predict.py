"""Predict: one scene becomes a mask, a quicklook and a summary, on a model that was compared."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import rasterio

from cloudnet._version import __version__
from cloudnet.compare import Comparison, replay_probe
from cloudnet.errors import ModelError
from cloudnet.files import refuse_existing, writable_folder
from cloudnet.product import Outputs, open_layer, to_percent, write_summary
from cloudnet.quicklook import Quicklook
from cloudnet.runtime import DEFAULT_TILE_PX, CloudModel, to_mask
from cloudnet.scene import Reading, Scene, open_scene
from cloudnet.spec import CLOUD, NO_DATA

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
        As in `CloudModel.stream`.
    overwrite
        Replace products that exist.
    """

    probability: bool = False
    quicklook: bool = True
    threshold: float | None = None
    tile_px: int = DEFAULT_TILE_PX
    exact: bool = False
    overwrite: bool = False

    def __post_init__(self) -> None:
        if self.threshold is not None and not 0.0 < self.threshold < 1.0:
            raise ModelError(f"a threshold lies between 0 and 1, not at {self.threshold}")
        if self.tile_px < 1:
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
    """Write the products of one scene.

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
    SceneError, OutputError
        When the scene cannot be read or a product cannot be written; no product appears.
    """
    comparison = comparison or replay_probe(model)
    comparison.require(model.path)
    options = options or PredictOptions()
    with rasterio.Env(GDAL_CACHEMAX=GDAL_CACHE_MB), open_scene(path, reading) as scene:
        outputs = Outputs(writable_folder(Path(folder)), scene.name)
        wanted = [outputs.mask, outputs.summary]
        wanted += [outputs.probability] if options.probability else []
        wanted += [outputs.quicklook] if options.quicklook else []
        refuse_existing(wanted, options.overwrite)
        counts = _write_layers(scene, model, outputs, options, on_progress or (lambda _: None))
        summary = _summarise(scene, model, comparison, options, counts)
        write_summary(outputs.summary, summary)
    return Prediction(outputs, summary["cloud_share"], summary["valid_share"])


def _write_layers(
    scene: Scene,
    model: CloudModel,
    outputs: Outputs,
    options: PredictOptions,
    on_progress: Callable[[float], None],
) -> np.ndarray[tuple[int], np.dtype[np.int64]]:
    """Stream the scene into its layers; return the number of pixels by mask value."""
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
        mask_layer = layers.enter_context(open_layer(outputs.mask, scene, "cloud mask", tags))
        probability_layer = (
            layers.enter_context(open_layer(outputs.probability, scene, "cloud probability", tags))
            if options.probability
            else None
        )
        stream = model.stream(
            scene.read, (scene.rows, scene.cols), tile_px=options.tile_px, exact=options.exact
        )
        for window, probability, reflectance in stream:
            mask = to_mask(probability, threshold)
            mask_layer.write(window, mask)
            if probability_layer:
                probability_layer.write(window, to_percent(probability))
            picture.add(window, reflectance, mask)
            counts += np.bincount(mask.ravel(), minlength=256)
            on_progress(float(counts.sum()) / (scene.rows * scene.cols))
        if options.quicklook:
            picture.write(outputs.quicklook)
    return counts


def _summarise(
    scene: Scene,
    model: CloudModel,
    comparison: Comparison,
    options: PredictOptions,
    counts: np.ndarray[tuple[int], np.dtype[np.int64]],
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
