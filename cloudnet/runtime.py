"""The runtime: an ONNX file, onnxruntime, and tiles streamed through them. No TensorFlow."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Generator
from functools import cached_property, lru_cache
from pathlib import Path
from threading import local
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import ArrayLike, NDArray

from cloudnet.cores import usable_cores as usable_cores
from cloudnet.errors import ModelError
from cloudnet.mosaic import ArrayPixels, Mosaic, Numbers, Probability, Reader, Reflectance, Valid
from cloudnet.session import open_session
from cloudnet.shipped import find_model, is_shipped
from cloudnet.spec import (
    BANDS,
    CLEAR,
    CLOUD,
    CONTRACT_NCHW_224,
    CONTRACT_NHWC,
    NO_DATA,
    PLAUSIBLE_REFLECTANCE,
    SPEC_KEY,
    Spec,
)
from cloudnet.tiles import Tile, Window, choose_tile, fit_tile, grid

Mask: TypeAlias = NDArray[np.uint8]

PROBE_KEY = "cloudnet_probe"
"""Key of the probe in the metadata of an ONNX file."""

FACTS_KEY = "cloudnet_facts"
"""Key of parameters, multiply-adds and receptive field in the metadata of an ONNX file."""

QUANTISED_KEY = "cloudnet_quantised"
"""Key of how a net became INT8 in the metadata of its file."""

TILE_BYTES = 190_000_000
"""What the net and its tile may take; a tile of more pixels has less halo."""

STREAMED_TILE_BYTES = 150_000_000
"""The same where a scene's rows are held beside it."""

PIXEL_BYTES = {"fp32": 80, "INT8": 70}
"""What the shipped nets take for a pixel of a tile, by `tests.benchmarks.memory net` (74 and 45),
rounded up. With tiles of twice the memory a large scene takes 6 % less time (REPORT.md), and the
peak of a streamed one grew with its height (by 16 % for four times the rows)."""

HELD_BYTES = 100_000_000
"""What full rows of a streamed scene may take while tiles still need them."""

SAMPLE_PX = 32
"""An array is looked at in about this many rows and columns."""

SEARCH_PX = 512
"""Side of the windows that are looked at where none of those holds data."""

SHAPES = {
    CONTRACT_NHWC: ((None, None, None, len(BANDS)), 4),
    CONTRACT_NCHW_224: ((None, len(BANDS), 224, 224), 3),
}
"""By contract: the shape of a graph's input, None where it is free, and its output's dimensions."""


class CloudModel:
    """A net in onnxruntime with its spec. Made by `load_model`; safe to use from several threads.

    It pickles as the name or path of its file: where it arrives, the same file has to be.

    Attributes
    ----------
    spec
        What the net takes and what its answer means.
    path, sha256
        The file and its digest.
    """

    def __init__(self, path: Path, spec: Spec, session: Any, sha256: str) -> None:
        self.path = path
        self.spec = spec
        self.sha256 = sha256
        self._session = session
        self._input = session.get_inputs()[0].name
        self._buffers = local()
        self._loading: tuple[int | None, str] | None = None

    def __reduce__(self) -> tuple[Any, ...]:
        if self._loading is None:
            raise TypeError("only a CloudModel that load_model made can be pickled")
        source = self.path.stem if is_shipped(self.path) else str(self.path.absolute())
        return _load_same, (source, self.sha256, *self._loading)

    @property
    def metadata(self) -> dict[str, str]:
        """The ONNX file's metadata."""
        return dict(self._session.get_modelmeta().custom_metadata_map)

    @property
    def facts(self) -> dict[str, float]:
        """What the net costs, by the names of `model.Facts`, as far as the file tells.

        Raises
        ------
        ModelError
            When they are damaged.
        """
        try:
            facts = dict(json.loads(self.metadata.get(FACTS_KEY, "{}")))
            if not all(isinstance(value, int | float) for value in facts.values()):
                raise TypeError("a fact is no number")
        except (TypeError, ValueError) as error:
            raise ModelError(
                f"{self.path}: its {FACTS_KEY} are damaged; export it again"
            ) from error
        return facts

    @cached_property
    def precision(self) -> str:
        """The numbers that the net computes with: "fp32" or "INT8"."""
        return "INT8" if QUANTISED_KEY in self.metadata else "fp32"

    def run(self, tiles: NDArray[np.float32]) -> NDArray[Any]:
        """Run the net on a batch as it is.

        Parameters
        ----------
        tiles
            Reflectance in the layout of the spec's contract: (batch, height, width, 4), height and
            width multiples of the stride, or (batch, 4, 224, 224).

        Returns
        -------
        (batch, height, width, 1) float32 probability, or (batch, 224, 224) uint8 mask.

        Raises
        ------
        ModelError
            When the graph cannot take them.
        """
        stride = self.spec.stride
        if self.spec.contract == CONTRACT_NHWC and any(side % stride for side in tiles.shape[1:3]):
            raise ModelError(
                f"{self.path} fails on tiles of shape {tiles.shape}: their sides are to be "
                f"multiples of {stride} px"
            )
        try:
            return np.asarray(self._session.run(None, {self._input: tiles})[0])
        except Exception as error:  # onnxruntime's errors share no base but Exception
            raise ModelError(
                f"{self.path} fails on tiles of shape {tiles.shape} ({_first_line(error)}); try "
                "smaller ones with --tile-px, or export it again"
            ) from error

    def require_scenes(self) -> None:
        """Raise ModelError where the model takes single tiles only."""
        if self.spec.contract != CONTRACT_NHWC:
            raise ModelError(
                f"{self.path} is a hand-off of contract {self.spec.contract}, for single tiles; "
                "export without --contract for a model that takes scenes"
            )

    def tiles(
        self,
        size: tuple[int, int],
        *,
        tile_px: int | None = None,
        exact: bool = False,
        held_bytes_px: int = 0,
    ) -> list[Tile]:
        """Return the tiles that a scene is cut into, row by row.

        Parameters
        ----------
        size
            (rows, cols) of the scene.
        tile_px
            Side of a tile as read, halo included; rounded up to what stride and halo need. None:
            the tiles with the least halo that the net can take within `TILE_BYTES`.
        exact
            With a halo of the whole receptive field, so that the result equals that of the whole
            scene in one piece; else the spec's default halo.
        held_bytes_px
            Bytes of a pixel of the full rows that are held while tiles need them.
        """
        spec = self.spec
        halo_px = spec.exact_halo_px if exact else spec.halo_px
        if tile_px is not None:
            side = fit_tile(tile_px, halo_px, spec.stride)
            return grid(*size, side, halo_px, spec.stride)
        rows = HELD_BYTES // (held_bytes_px * max(size[1], 1)) if held_bytes_px else None
        buffers = 2 if held_bytes_px else 1  # a streamed tile is in use while the next one is run
        total = STREAMED_TILE_BYTES if held_bytes_px else TILE_BYTES
        area_px = total // (PIXEL_BYTES[self.precision] + buffers * 4 * len(spec.bands))
        tile = choose_tile(size, halo_px, spec.stride, area_px=area_px, most_rows=rows)
        return grid(*size, tile, halo_px, spec.stride)

    def predict(
        self,
        reflectance: ArrayLike,
        valid: ArrayLike | None = None,
        *,
        tile_px: int | None = None,
        exact: bool = False,
    ) -> Probability:
        """Return the probability of cloud of an array.

        Parameters
        ----------
        reflectance
            (rows, cols, 4): red, green, blue, NIR; 1.0 = 100 %. Any size. What a masked array masks
            in any band is no data. Of Level-2A, where that is none of the spec's levels, give what
            `surface.at_top` makes of it.
        valid
            (rows, cols) bool; False where there is no data. Pixels that are not a number or
            infinite in a band, or 0 in all of them, are taken as no data anyway, as in a file.
        tile_px, exact
            As in `tiles`.

        Returns
        -------
        (rows, cols) float32 in [0, 1]; NaN where there is no data.

        Raises
        ------
        ModelError
            When the array has another shape, or numbers that fit no reflectance; when the model
            takes single tiles only.
        """
        self.require_scenes()
        scene, known = _check_array(reflectance, valid, len(self.spec.bands))
        size = scene.shape[0], scene.shape[1]
        pixels, mosaic = ArrayPixels(scene, known), self._mosaic()
        probability = np.empty(size, dtype=np.float32)
        for tile in self.tiles(size, tile_px=tile_px, exact=exact):
            buffer = self._buffer(tile.read.rows, tile.read.cols)
            kept = probability[tile.write.slices]
            mosaic.run_tile(pixels, tile, tile.read.clip(*size), buffer, kept)
        return probability

    def _mosaic(self) -> Mosaic:
        return Mosaic(self.run, len(self.spec.bands))

    def _buffer(self, rows: int, cols: int) -> Reflectance:
        """Return this thread's buffer of a tile: fresh memory costs as much as filling it."""
        numbers = rows * cols * len(self.spec.bands)
        held = getattr(self._buffers, "held", None)
        if held is None or held.size < numbers:
            held = self._buffers.held = np.empty(numbers, dtype=np.float32)
        buffer: Reflectance = held[:numbers].reshape(rows, cols, -1)
        return buffer

    def mask(self, probability: Probability, threshold: float | None = None) -> Mask:
        """Return the mask of a probability: 0 clear, 1 cloud, 255 no data (NaN).

        Parameters
        ----------
        probability
            (rows, cols), as `predict` gives it.
        threshold
            Probability from which a pixel is cloud; the spec's by default.

        Raises
        ------
        ModelError
            When the threshold does not lie between 0 and 1.
        """
        spec = self.spec if threshold is None else self.spec.with_threshold(threshold)
        return to_mask(probability, spec.threshold)

    def stream(
        self,
        source: Reader | Numbers,
        size: tuple[int, int],
        *,
        tile_px: int | None = None,
        exact: bool = False,
    ) -> Generator[tuple[Window, Probability, Reflectance], None, None]:
        """Stream a scene through the net, tile by tile, row by row.

        It is read once, in slabs of full rows, by another thread than the caller's; close the
        generator (`contextlib.closing`) before what it reads from.

        Parameters
        ----------
        source
            A `scene.Scene`, whose numbers become reflectance tile by tile, of a level that the spec
            names (see `Scene.for_levels`); or a function that gives reflectance (rows, cols, 4) and
            validity (rows, cols) of a window of the scene, reflectance finite everywhere and 0
            where not valid.
        size
            (rows, cols) of the scene.
        tile_px, exact
            As in `tiles`.

        Yields
        ------
        window, probability (rows, cols), reflectance (rows, cols, 4)
            Each pixel of the scene exactly once; probability is NaN where there is no data.

        Raises
        ------
        ModelError
            At once when the model takes single tiles only.
        """
        self.require_scenes()
        tiles = self.stream_tiles(source, size, tile_px=tile_px, exact=exact)
        if hasattr(source, "for_levels"):
            source = source.for_levels(self.spec.levels)
        return self._mosaic().stream(source, size, tiles)

    def stream_tiles(
        self,
        source: Reader | Numbers,
        size: tuple[int, int],
        *,
        tile_px: int | None = None,
        exact: bool = False,
    ) -> list[Tile]:
        """Return the tiles that `stream` cuts a scene into, with the same arguments."""
        held = _held_bytes(source, len(self.spec.bands))
        return self.tiles(size, tile_px=tile_px, exact=exact, held_bytes_px=held)


def load_model(
    path: str | Path | None = None, *, threads: int | None = None, provider: str = "cpu"
) -> CloudModel:
    """Load a model that comes with cloudnet, or an ONNX file that `cloudnet export` wrote.

    Parameters
    ----------
    path
        The file, or the name of a shipped model; None: the default one.
    threads
        Threads inside the net; None: as many as the process may use.
    provider
        What of onnxruntime computes: "cpu", or "cuda", "openvino", "coreml", "directml" where that
        is installed. A comparison (`replay_probe`) tells whether its answers are good.

    Raises
    ------
    ModelError
        When it is missing, is no ONNX file, or is not one of ours; when the provider is not there.
    """
    path = find_model(path)
    if not path.is_file():
        raise ModelError(f"{path} is no file; give an ONNX file")
    try:
        content = path.read_bytes()
    except OSError as error:
        raise ModelError(f"{path} cannot be read: {error.strerror or error}") from error
    try:
        session = open_session(content, threads=threads, provider=provider)
    except ModelError:
        raise
    except Exception as error:  # onnxruntime's errors share no base but Exception
        again = "install cloudnet again"
        mend = again if is_shipped(path) else "make one with: cloudnet export RUN -o FILE.onnx"
        raise ModelError(
            f"{path} is no ONNX file that runs here ({_first_line(error)}); {mend}"
        ) from error
    model = _with_spec(path, session, hashlib.sha256(content).hexdigest())
    model._loading = threads, provider
    return model


@lru_cache(maxsize=2)  # dask sends it with each chunk
def _load_same(source: str, sha256: str, threads: int | None, provider: str) -> CloudModel:
    """Load what was pickled, and nothing else."""
    model = load_model(source, threads=threads, provider=provider)
    if model.sha256 != sha256:
        raise ModelError(
            f"{model.path} is not the model that was pickled; give every process the same file"
        )
    return model


def _with_spec(path: Path, session: Any, sha256: str) -> CloudModel:
    """Wrap a session whose file holds a spec that fits its graph."""
    metadata = session.get_modelmeta().custom_metadata_map
    if SPEC_KEY not in metadata:
        raise ModelError(
            f"{path} holds no cloudnet spec, so its bands and units are unknown; "
            "make it with: cloudnet export RUN -o FILE.onnx"
        )
    spec = Spec.from_json(metadata[SPEC_KEY], str(path))
    if spec.bands != BANDS:
        raise ModelError(
            f"{path} takes the bands {', '.join(spec.bands)}; this cloudnet feeds "
            f"{', '.join(BANDS)}, so export a net trained on those"
        )
    ends = [
        [(node.type, node.shape) for node in nodes]
        for nodes in (session.get_inputs(), session.get_outputs())
    ]
    if not _fits(spec, *ends):
        taken, given = (" and ".join(f"{kind} {shape}" for kind, shape in end) for end in ends)
        raise ModelError(
            f"{path}: its graph makes {given or 'nothing'} of {taken or 'nothing'}, which does "
            f"not fit its spec's contract, {spec.contract}; export it again"
        )
    return CloudModel(path, spec, session, sha256)


def _fits(spec: Spec, inputs: list[tuple[str, Any]], outputs: list[tuple[str, Any]]) -> bool:
    """Tell whether a graph takes and gives what the spec's contract promises."""
    if len(inputs) != 1 or len(outputs) != 1:
        return False
    kind, shape = inputs[0]
    fixed = tuple(side if isinstance(side, int) else None for side in shape)
    return kind == "tensor(float)" and (fixed, len(outputs[0][1])) == SHAPES[spec.contract]


def _first_line(error: Exception) -> str:
    """Return the first line of a message, or what kind of error it is where there is none."""
    return next(iter(str(error).splitlines()), "").strip() or type(error).__name__


def to_mask(probability: Probability, threshold: float) -> Mask:
    """Return the mask (rows, cols) uint8 of a probability: 0 clear, 1 cloud, 255 where NaN."""
    mask = np.where(probability >= threshold, np.uint8(CLOUD), np.uint8(CLEAR))
    mask[np.isnan(probability)] = NO_DATA
    return mask


def _held_bytes(source: Reader | Numbers, bands: int) -> int:
    """Return the bytes of a pixel as a source gives it, with its validity."""
    stored = getattr(source, "dtype", np.float32) if hasattr(source, "read_numbers") else np.float32
    return bands * min(np.dtype(stored).itemsize, 4) + 1


def _check_array(
    reflectance: ArrayLike, valid: ArrayLike | None, bands: int
) -> tuple[NDArray[Any], Valid | None]:
    """Return the two arrays once their shapes and numbers are what `predict` takes."""
    scene = np.asarray(reflectance)
    if scene.ndim != 3 or scene.shape[2] != bands or scene.dtype.kind not in "fiu":
        raise ModelError(
            f"an array of {scene.dtype} and shape {scene.shape} is no reflectance; "
            f"it is (rows, cols, {bands}), 1.0 = 100 %"
        )
    known = None if valid is None else np.asarray(valid, dtype=bool)
    if known is not None and known.shape != scene.shape[:2]:
        raise ModelError(f"valid has shape {known.shape}, the reflectance {scene.shape}")
    if isinstance(reflectance, np.ma.MaskedArray):
        masked = np.asarray(np.ma.getmaskarray(reflectance).any(axis=2))
        known = ~masked if known is None else np.asarray(known & ~masked)
    if scene.dtype.kind in "iu":
        raise ModelError(
            "the array holds digital numbers, not reflectance (1.0 = 100 %); "
            "turn them with: number * scale + offset"
        )
    _check_plausible(scene, known)
    return scene, known


def _check_plausible(scene: NDArray[Any], known: Valid | None) -> None:
    """Raise ModelError where a sample of the pixels with data fits no reflectance."""
    rows, cols, _ = scene.shape
    steps = tuple(slice(None, None, max(side // SAMPLE_PX, 1)) for side in (rows, cols))
    places = [steps, *(tile.read.slices for tile in grid(rows, cols, SEARCH_PX, 0))]
    samples = (_numbers_with_data(scene, known, place) for place in places)
    sample = next((numbers for numbers in samples if numbers.size), None)
    if sample is None:
        return
    low, high = np.percentile(sample, [1, 99])
    if low < PLAUSIBLE_REFLECTANCE[0] or high > PLAUSIBLE_REFLECTANCE[1]:
        raise ModelError(
            f"the array's numbers, from {low:g} to {high:g}, are not reflectance (1.0 = 100 %); "
            "turn digital numbers with: number * scale + offset, and no data into NaN"
        )


def _numbers_with_data(
    scene: NDArray[Any], known: Valid | None, place: tuple[slice, ...]
) -> NDArray[Any]:
    """Return the numbers of those pixels of a part of an array that are taken as data."""
    part = scene[place]
    usable = np.isfinite(part).all(axis=2) & part.any(axis=2)
    numbers: NDArray[Any] = part[usable if known is None else usable & known[place]]
    return numbers
