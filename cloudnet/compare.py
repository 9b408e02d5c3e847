"""Compare: do Keras and onnxruntime give the same answer to the same tiles?"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from cloudnet.errors import ComparisonError, ModelError, require
from cloudnet.probe import Probe
from cloudnet.runtime import PROBE_KEY, CloudModel
from cloudnet.scene import Reading, open_scene
from cloudnet.spec import CONTRACT_NHWC, Spec
from cloudnet.tiles import Window, round_up

Tiles: TypeAlias = NDArray[np.float32]
Answer: TypeAlias = Callable[[Tiles], NDArray[Any]]

DEFAULT_ATOL = 1e-5
FIXED_PX = 224
"""Side of a tile of the nchw-224 contract."""

TOO_CLOSE = 255
"""In a reference mask: the probability is within the tolerance of the threshold."""

OWN = "its own answers at publication"
"""Reference of the probe in an INT8 file."""

OWN_IOU = 0.99
"""Mask IoU with its own answers at publication that an INT8 net reaches on any machine."""

INT8_IOU, INT8_KERAS_ATOL = 0.97, 0.5
"""Mask IoU with Keras that an INT8 net reaches on real tiles, and the difference that no pixel of
them exceeds: where a cloud's edge is steep it reached 0.3 on 197 real scenes."""

NOISE = "random reflectance"

CASE_SIZES_PX = (64, 128, 224, 256)
CASE_BATCHES = (1, 3, 8)
SEED = 20180


@dataclass(frozen=True)
class Case:
    """One row of a comparison: how far two answers to the same tiles are apart.

    Attributes
    ----------
    name
        What the tiles were.
    tiles, size_px
        How many of which side.
    largest, mean
        Largest and mean absolute difference of probability; for masks, of 0 and 1.
    flips
        Pixels of another mask class whose reference probability lies further than the tolerance
        from the threshold.
    mask_iou
        Intersection over union of the two cloud masks; None where neither has cloud.
    cloud_px
        Pixels of that union.
    """

    name: str
    tiles: int
    size_px: int
    largest: float
    mean: float
    flips: int
    mask_iou: float | None
    cloud_px: int = 0


@dataclass(frozen=True)
class Comparison:
    """All rows of a comparison and what was compared.

    Attributes
    ----------
    cases
        The rows.
    atol
        Largest difference of probability that passes.
    reference
        Where the reference answers come from: "Keras, live", "probe", or `OWN`.
    min_iou
        Mask IoU over all rows that it needs to pass; None: any, as the tolerance says it all.
    """

    cases: tuple[Case, ...]
    atol: float
    reference: str
    min_iou: float | None = None

    @property
    def largest(self) -> float:
        """The largest difference of all rows."""
        return max(case.largest for case in self.cases)

    @property
    def flips(self) -> int:
        """The flipped mask pixels of all rows."""
        return sum(case.flips for case in self.cases)

    @property
    def mask_iou(self) -> float:
        """Mask IoU pooled over the rows; 1 where none has cloud."""
        rows = [(case.mask_iou, case.cloud_px) for case in self.cases]
        shared = sum(iou * pixels for iou, pixels in rows if iou is not None)
        union = sum(pixels for _, pixels in rows)
        return shared / union if union else 1.0

    @property
    def passed(self) -> bool:
        """True where nothing differs by more than the tolerance and no mask pixel is flipped."""
        close = bool(self.largest <= self.atol) and self.flips == 0
        return close and (self.min_iou is None or self.mask_iou >= self.min_iou)

    def require(self, model: Path) -> None:
        """Raise ComparisonError, naming the model file and the worst row, unless it passed."""
        if self.passed:
            return
        worst = max(
            self.cases, key=lambda case: (case.largest > self.atol, case.flips, case.largest)
        )
        own = self.reference == OWN
        said = "it said at publication" if own else "Keras says"
        mend = "it here, take its float model" if own else "it, export it again"
        iou = "" if self.min_iou is None else f", mask IoU {self.mask_iou:.3f} in all"
        raise ComparisonError(
            f"{model} does not say what {said}: on {worst.name} they differ by up to "
            f"{worst.largest:.2g} (allowed {self.atol:g}) with {worst.flips} mask pixels flipped"
            f"{iou}; do not use {mend}"
        )

    def to_dict(self) -> dict[str, Any]:
        """Return the summary as JSON types."""
        iou = {} if self.min_iou is None else {"mask_iou": self.mask_iou, "min_iou": self.min_iou}
        return {
            "reference": self.reference,
            "tiles": sum(case.tiles for case in self.cases),
            "largest_difference": self.largest,
            "mask_flips": self.flips,
            "atol": self.atol,
            **iou,
            "passed": self.passed,
        }


def replay_probe(model: CloudModel, atol: float = DEFAULT_ATOL) -> Comparison:
    """Run the probe in the model's file through onnxruntime and compare with the answers in it.

    They are Keras's, or those of an INT8 net at its publication, which bring a tolerance of their
    own: the larger of the two counts.

    Raises
    ------
    ModelError
        When the file holds no probe, or one that is damaged or does not fit its graph.
    """
    probe = read_probe(model)
    reference, min_iou = ("probe", None) if probe.atol is None else (OWN, OWN_IOU)
    atol = max(atol, probe.atol or 0.0)
    case = _compare("probe", model, to_contract(probe.tiles, model.spec), probe.answers, atol)
    return Comparison((case,), atol, reference, min_iou)


def read_probe(model: CloudModel) -> Probe:
    """Return the probe in the model's file; raises ModelError as `replay_probe` does."""
    text = model.metadata.get(PROBE_KEY)
    if text is None:
        raise ModelError(
            f"{model.path} holds no probe to compare with; export it again with cloudnet export"
        )
    probe = Probe.from_text(text, str(model.path))
    bands = len(model.spec.bands)
    if probe.tiles.ndim != 4 or probe.tiles.shape[3] != bands or not probe.tiles.size:
        raise ModelError(
            f"{model.path}: its probe of shape {probe.tiles.shape} holds no tiles of {bands} "
            "bands; export the model again"
        )
    return probe


def compare_with_keras(
    model: CloudModel, net: Path, tiles: Sequence[Tiles] = (), atol: float = DEFAULT_ATOL
) -> Comparison:
    """Run Keras and onnxruntime side by side on real and made-up tiles. Needs TensorFlow.

    An INT8 net is calibrated on real ground: it is judged by its masks of real tiles, those of its
    probe among them, and not on noise.

    Parameters
    ----------
    model
        The ONNX file in onnxruntime.
    net
        The `.keras` file.
    tiles
        Real tiles: arrays (n, rows, cols, 4) of reflectance, each a row; sides are multiples of
        the stride.
    atol
        Largest difference of probability that passes.

    Raises
    ------
    MissingExtraError
        When TensorFlow is not installed.
    ModelError
        When the net is no net of ours, or not of the model's bands and stride.
    """
    spec = model.spec
    batches, min_iou = [*_real_batches(tiles), *made_up_batches(spec)], None
    if PROBE_KEY in model.metadata and (probe := read_probe(model)).atol is not None:
        batches = [("probe", probe.tiles), *(pair for pair in batches if pair[0] != NOISE)]
        atol, min_iou = max(atol, INT8_KERAS_ATOL), INT8_IOU
    answer = keras_answer(net, spec, atol)
    cases = []
    for name, batch in batches:
        batch = to_contract(batch, spec)
        cases.append(_compare(name, model, batch, answer(batch), atol))
    return Comparison(tuple(cases), atol, "Keras, live", min_iou)


def _compare(
    name: str, model: CloudModel, tiles: Tiles, reference: NDArray[Any], atol: float
) -> Case:
    """Run tiles in the contract's layout through onnxruntime and compare with the reference."""
    found = model.run(tiles)
    if found.shape != reference.shape:
        raise ComparisonError(
            f"{model.path} answers {found.shape} on {name} where Keras answers {reference.shape}; "
            "do not use it, export it again"
        )
    return compare_answers(name, found, reference, model.spec, atol)


def keras_answer(net: Path, spec: Spec, atol: float = DEFAULT_ATOL) -> Answer:
    """Return a function from tiles in the spec's contract to Keras's answer in that contract.

    A mask is `TOO_CLOSE` where the probability is within `atol` of the threshold.
    """
    require("tensorflow", "train")
    from cloudnet.model import load_net, read_keras_spec

    stored = read_keras_spec(net)
    if (stored.bands, stored.stride) != (spec.bands, spec.stride):
        raise ModelError(
            f"{net} takes the bands {', '.join(stored.bands)} at stride {stored.stride}, the ONNX "
            f"file {', '.join(spec.bands)} at stride {spec.stride}; they are not the same net"
        )
    network = load_net(net)

    def answer(tiles: Tiles) -> NDArray[Any]:
        if spec.contract == CONTRACT_NHWC:
            return np.asarray(network(tiles, training=False))
        probability = np.asarray(network(tiles.transpose(0, 2, 3, 1), training=False))[..., 0]
        mask = (probability >= spec.threshold).astype(np.uint8)
        mask[np.abs(probability - spec.threshold) <= atol] = TOO_CLOSE
        return mask

    return answer


def compare_answers(
    name: str, found: NDArray[Any], reference: NDArray[Any], spec: Spec, atol: float
) -> Case:
    """Compare two answers of the same shape; a difference that is no number counts as infinite.

    Parameters
    ----------
    name
        What the tiles were.
    found, reference
        Answers in the layout of the spec's contract; a reference mask may hold `TOO_CLOSE`, whose
        pixels count for nothing.
    spec
        Gives contract and threshold.
    atol
        How far from the threshold a probability lies whose mask pixel counts as flipped.

    Raises
    ------
    ValueError
        When the shapes differ.
    """
    if found.shape != reference.shape:
        raise ValueError(f"answers of shape {found.shape} and {reference.shape} do not match")
    if spec.contract == CONTRACT_NHWC:
        threshold = spec.threshold
        certain = ~(np.abs(reference - threshold) <= atol)
    else:
        threshold = 0.5
        certain = reference != TOO_CLOSE
        found, reference = (np.where(certain, mask, 0) for mask in (found, reference))
    with np.errstate(invalid="ignore"):  # infinite in both
        difference = np.abs(found.astype(np.float64) - reference.astype(np.float64))
    difference[~np.isfinite(difference)] = np.inf
    cloud, wanted = found >= threshold, reference >= threshold
    union = int((cloud | wanted).sum())
    return Case(
        name=name,
        tiles=len(found),
        size_px=found.shape[2],
        largest=float(difference.max()),
        mean=float(difference.mean()),
        flips=int(((cloud != wanted) & certain).sum()),
        mask_iou=int((cloud & wanted).sum()) / union if union else None,
        cloud_px=union,
    )


def to_contract(tiles: Tiles, spec: Spec) -> Tiles:
    """Bring tiles (n, rows, cols, 4) to the layout that the spec's contract takes.

    For the fixed contract they are mirrored or cut to 224 x 224 pixels.
    """
    if spec.contract == CONTRACT_NHWC:
        return tiles
    missing = [(0, max(FIXED_PX - side, 0)) for side in tiles.shape[1:3]]
    grown = np.pad(tiles, [(0, 0), *missing, (0, 0)], mode="symmetric")
    return np.ascontiguousarray(grown[:, :FIXED_PX, :FIXED_PX].transpose(0, 3, 1, 2))


def scene_tiles(path: str | Path, spec: Spec, reading: Reading | None = None) -> Tiles:
    """Cut tiles (n, side, side, 4) out of a scene for a comparison, spread over its diagonal.

    Raises
    ------
    SceneError
        When the scene cannot be read.
    """
    with open_scene(path, reading) as scene:
        side = max(CASE_SIZES_PX[-1] // spec.stride, 1) * spec.stride
        tiles = []
        for share in (0.0, 0.25, 0.5, 0.75, 1.0):
            row, col = (int(max(size - side, 0) * share) for size in (scene.rows, scene.cols))
            window = Window(row, col, side, side).clip(scene.rows, scene.cols)
            reflectance, _ = scene.read(window)
            missing = [(0, side - window.rows), (0, side - window.cols), (0, 0)]
            tiles.append(np.pad(reflectance, missing, mode="symmetric"))
    return np.stack(tiles)


def _real_batches(tiles: Sequence[Tiles]) -> Iterator[tuple[str, Tiles]]:
    for number, batch in enumerate(tiles, start=1):
        yield f"real tiles {number}", batch
        holed = batch.copy()
        holed[:, : batch.shape[1] // 3] = 0.0
        yield f"real tiles {number}, a third no data", holed


def made_up_batches(spec: Spec) -> Iterator[tuple[str, Tiles]]:
    """Yield named batches (n, side, side, bands): noise in several sizes, and the extremes."""
    rng = np.random.default_rng(SEED)
    bands = len(spec.bands)
    for number, size_px in enumerate(CASE_SIZES_PX):
        side = round_up(size_px, spec.stride)
        batch = CASE_BATCHES[number % len(CASE_BATCHES)]
        noise = rng.uniform(-0.05, 1.7, (batch, side, side, bands))
        yield NOISE, noise.astype(np.float32)
    side = round_up(CASE_SIZES_PX[1], spec.stride)
    bright = rng.normal(0.85, 0.05, (2, side, side, bands))
    yield "overcast", bright.astype(np.float32)
    yield "black", np.full((2, side, side, bands), 1e-3, dtype=np.float32)
    yield "no data", np.zeros((2, side, side, bands), dtype=np.float32)
