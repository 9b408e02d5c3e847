"""Predict: one scene becomes a mask and other products, on a model that was compared."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sized
from contextlib import ExitStack, closing
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import rasterio

from cloudnet._version import __version__
from cloudnet.cog import Counts, publish_layer
from cloudnet.compare import Comparison, replay_probe
from cloudnet.darkness import Darkness
from cloudnet.errors import ModelError, OutputError
from cloudnet.files import (
    refuse_existing,
    remove_leftovers,
    scratch_folder,
    whole_file,
    writable_folder,
)
from cloudnet.layer import MASK, PROBABILITY, open_layer, read_slabs
from cloudnet.lock import output_lock
from cloudnet.map_grid import MapGrid, grid_like
from cloudnet.polygons import check_vector, write_polygons
from cloudnet.product import VECTOR_FORMATS, Outputs, is_vector, to_percent, write_summary
from cloudnet.quicklook import Quicklook
from cloudnet.refine import Refinement, refine_mask
from cloudnet.regrid import regrid
from cloudnet.runtime import CloudModel, to_mask
from cloudnet.scene import Reading, Scene, open_scene
from cloudnet.spec import CLOUD, NO_DATA
from cloudnet.stac_item import TITLES, footprint, make_item

GDAL_CACHE_MB = 64
"""GDAL keeps decoded blocks up to this size; its own default, 5 % of the memory, is not bounded."""

NO_REFINEMENT = Refinement()


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
    like
        Raster file whose grid the products take; None: the scene's grid.
    refinement
        What is done to the mask, on the scene's grid.
    vector
        "gpkg" or "geojson", or a file with such a suffix: write polygons too.
    stac
        Write a STAC item too.
    acquired
        When the scene was taken, for the STAC item; None: told by the scene.
    """

    probability: bool = False
    quicklook: bool = True
    threshold: float | None = None
    tile_px: int | None = None
    exact: bool = False
    overwrite: bool = False
    like: Path | None = None
    refinement: Refinement = NO_REFINEMENT
    vector: str | None = None
    stac: bool = False
    acquired: datetime | None = None

    def __post_init__(self) -> None:
        if self.threshold is not None and not 0.0 < self.threshold < 1.0:
            raise ModelError(f"a threshold lies between 0 and 1, not at {self.threshold}")
        if self.tile_px is not None and self.tile_px < 1:
            raise ModelError(f"a tile has a side of 1 px or more, not {self.tile_px}")
        if self.vector is not None and not is_vector(self.vector):
            raise OutputError(
                f"--vector {self.vector} is neither gpkg nor geojson, nor a file named so"
            )

    def wanted(self, outputs: Outputs) -> dict[str, Path]:
        """Return the files to be made, as `Outputs.wanted` does."""
        return outputs.wanted(
            probability=self.probability,
            quicklook=self.quicklook,
            vector=self.vector,
            stac=self.stac,
        )


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
    note
        What is to be looked at, a sentence; None where there is nothing.
    """

    outputs: Outputs
    cloud_share: float | None
    valid_share: float
    note: str | None = None


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
        job = SceneJob(scene, model, options, comparison)
        outputs = Outputs(writable_folder(Path(folder)), scene.name)
        wanted = options.wanted(outputs)
        with output_lock(outputs.mask):
            refuse_existing([*wanted.values()], options.overwrite)
            for file in wanted.values():
                remove_leftovers(file)
            with ExitStack() as unpublished:
                # The last one entered appears first, and is the one that an error of writing names.
                files = {
                    kind: unpublished.enter_context(whole_file(path))
                    for kind, path in reversed(wanted.items())
                }
                scratch = unpublished.enter_context(scratch_folder(outputs.mask))
                summary = job.run(scratch, files, wanted, on_progress or (lambda _: None))
    return Prediction(outputs, summary["cloud_share"], summary["valid_share"], job.note)


def check_shared(scenes: Sized, options: PredictOptions) -> None:
    """Raise OutputError where several scenes would write their polygons to one file."""
    if len(scenes) > 1 and options.vector not in (None, *VECTOR_FORMATS):
        raise OutputError(
            f"{options.vector} is one file for {len(scenes)} scenes; give --vector gpkg or "
            "geojson, for a file each"
        )


class SceneJob:
    """A scene on its way to its products. Whatever does not fit together shows as it is made.

    Parameters
    ----------
    scene, model, options, comparison
        As in `predict_scene`; the comparison has passed. Without it, a job can only be looked at.

    Raises
    ------
    CloudnetError
        When the scene, or what is installed, cannot give what the options ask for.
    """

    def __init__(
        self,
        scene: Scene,
        model: CloudModel,
        options: PredictOptions,
        comparison: Comparison | None = None,
    ) -> None:
        self.scene, self.model, self.options, self.comparison = scene, model, options, comparison
        self.scene_grid = MapGrid.of(scene)
        name = str(scene.path)
        options.refinement.check(self.scene_grid, name)
        self.grid = (
            self.scene_grid
            if options.like is None
            else grid_like(options.like, self.scene_grid, name)
        )
        if options.vector:
            check_vector(Outputs(Path(), scene.name).vector(options.vector), self.grid, name)
        self.acquired = _acquired(scene, options, self.grid) if options.stac else None
        self._darkness = Darkness()

    def run(
        self,
        scratch: Path,
        files: Mapping[str, Path],
        final: Mapping[str, Path],
        on_progress: Callable[[float], None],
    ) -> dict[str, Any]:
        """Make all files; return the summary.

        Parameters
        ----------
        scratch
            Folder for layers on their way.
        files, final
            By kind: where each file is written, and where it will lie.
        on_progress
            Called with the share of the scene that is done.
        """
        picture = Quicklook(self.scene.rows, self.scene.cols)
        layers = self._stream(scratch, picture, on_progress)
        if self.options.refinement != NO_REFINEMENT:
            layers[MASK] = refine_mask(layers[MASK], self.scene_grid, self.options.refinement)
            picture.replace_mask(read_slabs(layers[MASK]))
        if "quicklook" in files:
            files["quicklook"].write_bytes(picture.encode())
        counts = self._publish(layers[MASK], files["mask"])
        if PROBABILITY in layers:
            self._publish(layers[PROBABILITY], files["probability"], files["mask"])
        if "vector" in files:
            traced = scratch / f"clouds{files['vector'].suffix}"
            write_polygons(files["mask"], traced, self.scene.name)
            traced.replace(files["vector"])
        summary = self._summarise(counts)
        write_summary(files["summary"], summary)
        if self.acquired is not None:
            parts = {kind: (path, files[kind]) for kind, path in final.items() if kind in TITLES}
            home = final["stac item"].parent
            item = make_item(self.scene.name, self.grid, self.acquired, parts, summary, home)
            write_summary(files["stac item"], item)
        return summary

    @property
    def note(self) -> str | None:
        """What is to be looked at once the job has run: that the scene, which does not tell its
        level, looks like Level-2A, and the model is for Level-1C."""
        if not self._darkness.shows_untold_l2a(self.scene, self.model.spec.levels):
            return None
        return (
            f"{self.scene.path} looks like Level-2A, darker in the blue than clear air, and does "
            "not say so; if it is, predict it again with --level L2A --overwrite (--level L1C "
            "silences this)"
        )

    @property
    def threshold(self) -> float:
        """Probability from which a pixel is cloud."""
        told = self.options.threshold
        return self.model.spec.threshold if told is None else told

    @property
    def tags(self) -> dict[str, str]:
        """What a layer says of itself."""
        spec, level = self.model.spec, self.scene.level
        return {
            "CLOUDNET_VERSION": __version__,
            "MODEL": f"{spec.name} {spec.version}",
            "MODEL_SHA256": self.model.sha256,
            "THRESHOLD": f"{self.threshold:g}",
            "SCENE": self.scene.name,
            **({"PROCESSING_LEVEL": level} if level else {}),
        }

    def _stream(
        self, scratch: Path, picture: Quicklook, on_progress: Callable[[float], None]
    ) -> dict[str, Path]:
        """Stream the scene into its layers and its picture; return where the layers are."""
        scene, options = self.scene, self.options
        paths = {MASK: scratch / "mask.tif"}
        paths |= {PROBABILITY: scratch / "probability.tif"} if options.probability else {}
        size = (scene.rows, scene.cols)
        done = 0
        with ExitStack() as stack:
            layers = {
                kind: stack.enter_context(open_layer(path, self.scene_grid, kind, self.tags))
                for kind, path in paths.items()
            }
            stream = stack.enter_context(
                closing(
                    self.model.stream(scene, size, tile_px=options.tile_px, exact=options.exact)
                )
            )
            for window, probability, reflectance in stream:
                mask = to_mask(probability, self.threshold)
                layers[MASK].write(window, mask)
                if PROBABILITY in layers:
                    layers[PROBABILITY].write(window, to_percent(probability))
                if options.quicklook:
                    picture.add(window, reflectance, mask)
                self._darkness.add(reflectance, mask != NO_DATA)
                done += mask.size
                on_progress(done / (scene.rows * scene.cols))
        return paths

    def _publish(self, layer: Path, path: Path, mask: Path | None = None) -> Counts:
        """Bring a layer to the products' grid and make a COG of it; remove what it was made of."""
        if self.grid != self.scene_grid:
            warped = layer.with_name(f"regridded_{layer.name}")
            regrid(layer, warped, self.grid, mask)
            layer.unlink()
            layer = warped
        cog = layer.with_name(f"cog_{layer.name}")
        counts = publish_layer(layer, cog)
        layer.unlink()
        cog.replace(path)
        return counts

    def _summarise(self, counts: Counts) -> dict[str, Any]:
        """Return the summary of a scene as JSON types."""
        valid = int(counts.sum() - counts[NO_DATA])
        cloud, pixel_m2 = int(counts[CLOUD]), self.grid.pixel_area_m2()
        refinement = self.options.refinement
        return {
            "scene": self.scene.name,
            "rows": self.grid.rows,
            "cols": self.grid.cols,
            "cloud_share": cloud / valid if valid else None,
            "valid_share": valid / (self.grid.rows * self.grid.cols),
            "cloud_km2": None if pixel_m2 is None else cloud * pixel_m2 / 1e6,
            "threshold": self.threshold,
            "min_area_m2": refinement.min_area_m2,
            "buffer_m": refinement.buffer_m,
            "like": None if self.options.like is None else self.options.like.name,
            "level": self.scene.level,
            "level_seen": self.scene.for_levels(self.model.spec.levels).level,
            "model": {**self.model.spec.to_dict(), "sha256": self.model.sha256},
            "comparison": self.comparison.to_dict() if self.comparison else None,
            "cloudnet": __version__,
        }


def _acquired(scene: Scene, options: PredictOptions, grid: MapGrid) -> datetime:
    """Return when a scene was taken, for its STAC item; the time is never guessed from a name."""
    footprint(grid, str(scene.path))
    acquired = options.acquired or scene.acquired
    if acquired is None:
        raise OutputError(
            f"{scene.path} does not tell when it was taken, which --stac needs; give --datetime, "
            "such as --datetime 2024-05-01T10:30:21Z"
        )
    return acquired
