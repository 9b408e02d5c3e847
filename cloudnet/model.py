"""The net: a compact Keras U-Net from reflectance to the probability of cloud."""

from __future__ import annotations

import json
import zipfile
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, dataclass, fields
from itertools import pairwise
from pathlib import Path
from typing import Any, TypeAlias

import keras
import numpy as np
from keras import layers

from cloudnet.errors import ModelError
from cloudnet.spec import BANDS, LEVELS, Spec
from cloudnet.tiles import round_up

Tensor: TypeAlias = Any
Network: TypeAlias = Any

INPUT_GAIN = 2.0
"""Reflectance is multiplied by this after clipping, which brings the spread of land scenes near 1.
There is no offset, so that no data, filled with 0, looks to the first convolution like its zero
padding."""

DARK = 2e-3
"""Least mean reflectance of a cell whose logarithm is taken."""

RATIO_GAIN, RATIO_LIMIT = 20.0, 3.0
"""Logarithms of ratios are multiplied by the one and end at the other, 16 % up or down: snow and
cloud differ by a few per cent of NIR over red, given green over blue."""

RATIO_WIDTH = 16
"""Channels that ratios take beside the stem's: onnxruntime computes sixteen at once."""

CONTRASTS = np.array(
    [
        [0.0, RATIO_GAIN, -RATIO_GAIN, 0.0],
        [RATIO_GAIN, -RATIO_GAIN, 0.0, 0.0],
        [-RATIO_GAIN, 0.0, 0.0, 1.0],
        [0.0, 0.0, RATIO_GAIN, 0.0],
    ],
    dtype=np.float32,
)
"""What each contrast takes of the logarithms of red, green, blue and NIR, (bands, contrasts)."""


@dataclass(frozen=True)
class UNetConfig:
    """Shape of the net.

    Attributes
    ----------
    widths
        Channels of each level, as many as entries; cells of a level are twice as wide as those of
        the one before.
    blocks
        Separable convolutions at each level on the way down; on the way up there is one.
    stem
        Channels at 1/2 of the resolution before the first level, which then is at 1/4; 0: none, and
        the first level is at 1/2.
    ratios
        Whether the first level also sees ratios of bands; see `BandRatios`.
    """

    widths: tuple[int, ...] = (48, 128, 256)
    blocks: int = 2
    stem: int = 16
    ratios: bool = True

    def __post_init__(self) -> None:
        if not self.widths or min(self.widths) < 1 or self.blocks < 1:
            raise ModelError(f"a net needs at least one level, width and block, not {self}")
        if self.stem < 0:
            raise ModelError(f"a stem has 0 channels or more, not {self.stem}")

    @property
    def stride(self) -> int:
        """What height and width of the input are multiples of, in pixels."""
        return self._scales[-1]

    @property
    def cell_px(self) -> int:
        """Side of a cell of the first level, where the answer is computed, in pixels."""
        return 4 if self.stem else 2

    @property
    def _scales(self) -> tuple[int, ...]:
        """Pixels a cell, along a side, at each level."""
        return tuple(self.cell_px << level for level in range(len(self.widths)))

    @property
    def cell_reach_px(self) -> int:
        """How far from a square of one stride a pixel can lie and still change an answer in it.

        At scale s a cell stands for s x s pixels, and a 3 x 3 convolution reaches one cell further:
        from the answer back, one cell a level on the way up, each then counted to the edge of the
        coarser cell it lies in; `blocks` cells a level on the way down; and half a cell in each
        convolution of stride 2 that leads to the first level, together a pixel less than its cell.
        """
        reach = 0
        for scale, coarser in pairwise(self._scales):
            reach = round_up(reach + scale, coarser)
        return reach + self.blocks * sum(self._scales) + self.cell_px - 1

    @property
    def receptive_field_px(self) -> int:
        """Side of the square of pixels that can change the answer at its middle, at most.

        The reach of its coarsest cell would be too much to add: a pixel at one edge of that cell
        does not see from the other. Counting from each cell to the edge of the coarser one adds
        less than a stride over all levels.
        """
        cells = self.blocks * sum(self._scales) + sum(self._scales[:-1])
        return 2 * (self.stride - 1 + cells + self.cell_px - 1) + 1

    @property
    def exact_halo_px(self) -> int:
        """The smallest halo with which tiled equals whole.

        Tiles begin, end and are cut at multiples of the stride, so a kept pixel's coarsest cell is
        kept whole, and the reach counts from that cell's edge.
        """
        return round_up(self.cell_reach_px, self.stride)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> UNetConfig:
        """Rebuild a configuration from JSON types; the first nets knew neither stem nor ratios."""
        known = {field.name for field in fields(cls)}
        kept = {"stem": 0, "ratios": False} | {
            key: value for key, value in values.items() if key in known
        }
        settings: dict[str, Any] = {
            key: tuple(value) if isinstance(value, list) else value for key, value in kept.items()
        }
        return cls(**settings)

    def to_dict(self) -> dict[str, Any]:
        """Return the configuration as JSON types."""
        return {**asdict(self), "widths": list(self.widths)}


@keras.saving.register_keras_serializable(package="cloudnet")
class NormalisedReflectance(layers.Layer):  # type: ignore[misc]
    """Clip reflectance to the model's range and scale it; carries the model's spec in its config.

    Parameters
    ----------
    spec
        The spec as JSON types: it is saved with the layer, in the `.keras` file.
    """

    def __init__(self, spec: Mapping[str, Any], **settings: Any) -> None:
        super().__init__(**settings)
        self.spec = dict(spec)

    def call(self, reflectance: Tensor) -> Tensor:
        """Return (batch, height, width, bands) of clipped reflectance times `INPUT_GAIN`."""
        low, high = self.spec["reflectance_range"]
        return keras.ops.clip(reflectance, low, high) * INPUT_GAIN

    def compute_output_shape(self, input_shape: tuple[int | None, ...]) -> tuple[int | None, ...]:
        """Return the input's shape."""
        return input_shape

    def get_config(self) -> dict[str, Any]:
        """Return what the layer is rebuilt from."""
        return {**super().get_config(), "spec": self.spec}


@keras.saving.register_keras_serializable(package="cloudnet")
class BandRatios(layers.Layer):  # type: ignore[misc]
    """Logarithms of the ratios of neighbouring bands, and of blue, of the mean of each cell.

    By them alone snow and cloud part on most scenes. Convolutions of reflectance have to find a
    difference of a few per cent beside a brightness that varies tenfold, which took them longer
    than a training lasts.

    Parameters
    ----------
    cell_px
        Side of a cell in pixels.
    """

    def __init__(self, cell_px: int, **settings: Any) -> None:
        super().__init__(**settings)
        self.cell_px = cell_px

    def call(self, reflectance: Tensor) -> Tensor:
        """Return (batch, height / cell_px, width / cell_px, 4) of reflectance in the order of
        `BANDS`: green over blue, red over green, NIR over red, blue."""
        # A convolution, as pooling would turn the bands of the whole scene round once more.
        side = self.cell_px
        each = np.eye(len(BANDS), dtype=self.compute_dtype) / side**2
        mean = keras.ops.conv(reflectance, np.tile(each, (side, side, 1, 1)), side)
        logs = keras.ops.log(keras.ops.maximum(mean, DARK))
        contrasts = keras.ops.conv(
            logs, CONTRASTS[np.newaxis, np.newaxis].astype(self.compute_dtype)
        )
        return keras.ops.clip(contrasts, -RATIO_LIMIT, RATIO_LIMIT)

    def compute_output_shape(self, input_shape: tuple[int | None, ...]) -> tuple[int | None, ...]:
        """Return the shape with height and width divided."""
        batch, height, width, _ = input_shape
        side = self.cell_px
        return (batch, height and height // side, width and width // side, len(BANDS))

    def get_config(self) -> dict[str, Any]:
        """Return what the layer is rebuilt from."""
        return {**super().get_config(), "cell_px": self.cell_px}


@keras.saving.register_keras_serializable(package="cloudnet")
class UpsampleNearest(layers.Layer):  # type: ignore[misc]
    """Double height and width by repetition.

    Keras's own `UpSampling2D` becomes a chain of Tile and Transpose in ONNX; TensorFlow's resize
    becomes the one node Resize.
    """

    def call(self, cells: Tensor) -> Tensor:
        """Return (batch, 2 height, 2 width, channels)."""
        if keras.backend.backend() == "tensorflow":
            import tensorflow as tf

            return tf.raw_ops.ResizeNearestNeighbor(images=cells, size=tf.shape(cells)[1:3] * 2)
        return keras.ops.repeat(keras.ops.repeat(cells, 2, axis=1), 2, axis=2)

    def compute_output_shape(self, input_shape: tuple[int | None, ...]) -> tuple[int | None, ...]:
        """Return the shape with height and width doubled."""
        batch, height, width, channels = input_shape
        return (batch, height and height * 2, width and width * 2, channels)


@keras.saving.register_keras_serializable(package="cloudnet")
class DepthToSpace(layers.Layer):  # type: ignore[misc]
    """Turn the channels of a cell into its pixels (Shi et al. 2016).

    Parameters
    ----------
    cell_px
        Side of a cell in pixels.
    """

    def __init__(self, cell_px: int = 2, **settings: Any) -> None:
        super().__init__(**settings)
        self.cell_px = cell_px

    def call(self, cells: Tensor) -> Tensor:
        """Return (batch, height * cell_px, width * cell_px, channels / cell_px²)."""
        return keras.ops.depth_to_space(cells, self.cell_px)

    def compute_output_shape(self, input_shape: tuple[int | None, ...]) -> tuple[int | None, ...]:
        """Return the shape with height and width multiplied and the channels divided."""
        batch, height, width, channels = input_shape
        side = self.cell_px
        pixels = (height and height * side, width and width * side)
        return (batch, *pixels, channels and channels // side**2)

    def get_config(self) -> dict[str, Any]:
        """Return what the layer is rebuilt from."""
        return {**super().get_config(), "cell_px": self.cell_px}


@keras.saving.register_keras_serializable(package="cloudnet")
class FusedNormalization(layers.BatchNormalization):  # type: ignore[misc]
    """Batch normalisation (Ioffe and Szegedy 2015) that trains by TensorFlow's fused kernel.

    Keras 3 writes it as some fifteen operations, forwards and back, each a pass over memory; they
    took half of a training step's time on a CPU.
    """

    def call(self, inputs: Tensor, training: bool | None = None, mask: Tensor = None) -> Tensor:
        """Return (batch, height, width, channels), normalised over all but the channels."""
        if not training or not self.trainable or keras.backend.backend() != "tensorflow":
            return super().call(inputs, training=training, mask=mask)
        import tensorflow as tf

        outputs, mean, variance, *_ = tf.raw_ops.FusedBatchNormV3(
            x=inputs,
            scale=self.gamma,
            offset=self.beta,
            mean=tf.zeros([0]),
            variance=tf.zeros([0]),
            epsilon=self.epsilon,
            is_training=True,
        )
        for moving, seen in ((self.moving_mean, mean), (self.moving_variance, variance)):
            moving.assign(moving * self.momentum + seen * (1.0 - self.momentum))
        return outputs


def settle_normalisation(net: Network, images: Iterable[Tensor]) -> None:
    """Give a net's normalisations the mean of their statistics over many batches, in place.

    In training they are moving averages over some twenty batches, which are still on the move when
    the weights are at rest, and flip what a net says of ground that it is not sure of (Wu and
    Johnson 2021, arXiv:2105.07576, section 3).

    Parameters
    ----------
    net
        As `build_unet` made it.
    images
        Batches of training tiles (batch, height, width, bands), at least one.
    """
    norms = [layer for layer in net.layers if isinstance(layer, FusedNormalization)]
    usual = [norm.momentum for norm in norms]
    moving = [value for norm in norms for value in (norm.moving_mean, norm.moving_variance)]
    seen = []
    for norm in norms:
        norm.momentum = 0.0  # each batch leaves its own statistics
    try:
        pass_through = _traced(net)
        for image in images:
            pass_through(image)
            seen.append([keras.ops.convert_to_numpy(value) for value in moving])
    finally:
        for norm, momentum in zip(norms, usual):
            norm.momentum = momentum
    for value, numbers in zip(moving, zip(*seen, strict=True)):
        value.assign(np.mean(numbers, axis=0))


def _traced(net: Network) -> Callable[[Tensor], Tensor]:
    """Return a net in training as one function of TensorFlow's."""
    import tensorflow as tf

    traced: Callable[[Tensor], Tensor] = tf.function(
        lambda image: net(image, training=True), reduce_retracing=True
    )
    return traced


def make_spec(
    config: UNetConfig,
    *,
    name: str = "cloudnet",
    version: str = "0",
    threshold: float = 0.5,
    levels: tuple[str, ...] = LEVELS,
) -> Spec:
    """Return the spec of a net of this shape.

    The default halo is the exact one: with a stride less, the zero padding at tile edges changed
    probabilities on real scenes by up to 0.02, twenty times what contract 4 allows.
    """
    return Spec(
        name=name,
        version=version,
        levels=levels,
        threshold=threshold,
        stride=config.stride,
        halo_px=config.exact_halo_px,
        exact_halo_px=config.exact_halo_px,
    )


def build_unet(config: UNetConfig, spec: Spec, size_px: int | None = None) -> Network:
    """Build the net.

    One or two convolutions of stride 2 lead from reflectance to the first level, beside which
    `BandRatios` shows what they hide; separable convolutions (Chollet 2017) do the rest at 1/4,
    1/8, 1/16 …; the way up adds the coarse level, projected to the finer one's width, to what came
    down (LinkNet, Chaurasia and Culurciello 2017): a U-Net (Ronneberger et al. 2015) but for the
    copies that concatenation costs there; the answer is computed at the first level, all pixels of
    a cell at once. At 1/2 there is but the stem: what is done there moves four times the memory,
    and that is what a net waits for.

    Parameters
    ----------
    config
        Shape of the net.
    spec
        Carried by the first layer.
    size_px
        Height and width of the input, multiples of the stride; None: any.

    Returns
    -------
    keras.Model from reflectance (batch, height, width, 4) to probability (batch, height, width, 1).
    """
    reflectance = keras.Input((size_px, size_px, len(spec.bands)), name="reflectance")
    cells = NormalisedReflectance(spec.to_dict(), name="normalised")(reflectance)
    if config.stem:
        cells = _convolve(cells, config.stem, "half")
    cells = _convolve(cells, config.widths[0], "stem")
    if config.ratios:
        ratios = BandRatios(config.cell_px, name="ratios")(reflectance)
        ratios = layers.Conv2D(RATIO_WIDTH, 1, use_bias=False, name="spread_ratios")(ratios)
        cells = layers.Concatenate(name="with_ratios")([cells, ratios])
    skips = []
    for level, width in enumerate(config.widths):
        if level:
            skips.append(cells)
            cells = layers.MaxPooling2D(2, name=f"down{level}_pool")(cells)
        for block in range(config.blocks):
            cells = _separable(cells, width, f"down{level}_{block}")
    for level in reversed(range(len(skips))):
        width = config.widths[level]
        coarse = layers.Conv2D(width, 1, name=f"up{level}_project")(cells)
        coarse = UpsampleNearest(name=f"up{level}_upsample")(coarse)
        cells = layers.Add(name=f"up{level}_add")([coarse, skips[level]])
        cells = _separable(cells, width, f"up{level}")
    logits = layers.Conv2D(config.cell_px**2, 1, name="head")(cells)
    logits = DepthToSpace(config.cell_px, name="to_pixels")(logits)
    probability = layers.Activation("sigmoid", dtype="float32", name="cloud_probability")(logits)
    return keras.Model(reflectance, probability, name=spec.name)


def _convolve(cells: Tensor, width: int, name: str) -> Tensor:
    cells = layers.Conv2D(
        width, 3, strides=2, padding="same", use_bias=False, name=f"{name}_convolution"
    )(cells)
    return _normalise(cells, name)


def _separable(cells: Tensor, width: int, name: str) -> Tensor:
    cells = layers.DepthwiseConv2D(3, padding="same", use_bias=False, name=f"{name}_depthwise")(
        cells
    )
    cells = layers.Conv2D(width, 1, use_bias=False, name=f"{name}_pointwise")(cells)
    return _normalise(cells, name)


def _normalise(cells: Tensor, name: str) -> Tensor:
    cells = FusedNormalization(momentum=0.95, name=f"{name}_norm")(cells)
    return layers.ReLU(name=f"{name}_relu")(cells)


@dataclass(frozen=True)
class Facts:
    """What a net costs: parameters, multiply-adds per input pixel, receptive field in pixels."""

    parameters: int
    macs_per_pixel: float
    receptive_field_px: int

    def to_json(self) -> str:
        """Return the facts as JSON text."""
        return json.dumps(asdict(self))


def measure(config: UNetConfig) -> Facts:
    """Count what a net of this shape costs.

    Multiply-adds are those of its convolutions, fixed ones included.
    """
    size_px = config.stride
    net = build_unet(config, make_spec(config), size_px)
    macs = 0
    for layer in net.layers:
        if isinstance(layer, (layers.Conv2D, layers.DepthwiseConv2D)):
            kernel = layer.kernel
            _, height, width, _ = layer.output.shape
            macs += int(keras.ops.size(kernel)) * height * width
        elif isinstance(layer, BandRatios):
            _, height, width, _ = layer.output.shape
            macs += (layer.cell_px**2 + 1) * CONTRASTS.size * height * width
    return Facts(net.count_params(), macs / size_px**2, config.receptive_field_px)


def config_of(net: Network) -> UNetConfig:
    """Return the shape of a net that `build_unet` made, read from its layers."""
    names = {layer.name: layer for layer in net.layers}
    widths: list[int] = []
    while (name := f"down{len(widths)}_0_pointwise") in names:
        widths.append(int(names[name].filters))
    blocks = sum(name.startswith("down0_") and name.endswith("_pointwise") for name in names)
    stem = int(names["half_convolution"].filters) if "half_convolution" in names else 0
    return UNetConfig(tuple(widths), blocks, stem, "ratios" in names)


def load_net(path: Path) -> Network:
    """Load a `.keras` file of ours, in Keras's safe mode.

    Raises
    ------
    ModelError
        When it is missing, is no `.keras` file, carries no spec, or takes other bands.
    """
    spec = read_keras_spec(path)
    if spec.bands != BANDS:
        raise ModelError(
            f"{path} takes the bands {', '.join(spec.bands)}; "
            f"this cloudnet feeds {', '.join(BANDS)}, so train a net on those"
        )
    try:
        return keras.models.load_model(path, compile=False, safe_mode=True)
    except (ValueError, TypeError, OSError, KeyError, zipfile.BadZipFile) as error:
        raise ModelError(f"{path} cannot be loaded by Keras ({first_line(error)})") from error


def first_line(error: Exception) -> str:
    """Return the first line of an error's message, or its kind where it has none."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0]


def read_keras_spec(path: Path) -> Spec:
    """Read the spec out of a `.keras` file without building the net.

    Raises
    ------
    ModelError
        When it is missing, is no `.keras` file, or carries no spec.
    """
    layer = _read_layers(path).get("NormalisedReflectance", {})
    settings = layer.get("config")
    spec = settings.get("spec") if isinstance(settings, dict) else None
    if not isinstance(spec, dict):
        raise ModelError(
            f"{path} is no net of cloudnet's: it carries no spec; make one with cloudnet train"
        )
    return Spec.from_dict(spec, str(path))


def _read_layers(path: Path) -> dict[str, dict[str, Any]]:
    """Return the last layer of each class in a `.keras` file's configuration."""
    if not path.is_file():
        raise ModelError(f"{path} does not exist, or is no file; give a .keras file or a run")
    try:
        with zipfile.ZipFile(path) as archive:
            config = json.loads(archive.read("config.json"))
        return {layer["class_name"]: layer for layer in config["config"]["layers"]}
    except (zipfile.BadZipFile, KeyError, TypeError, ValueError, OSError) as error:
        raise ModelError(f"{path} is no .keras file of a functional net ({error})") from error
