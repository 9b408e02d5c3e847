"""The spec: all that must be known to use a model rightly. It travels inside the model file."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields, replace
from typing import Any

from cloudnet.errors import ModelError

BANDS = ("B04", "B03", "B02", "B08")
"""Red, green, blue and NIR, by the names of Sentinel-2's MSI: the order of every array here."""

BAND_NAMES = {
    "B04": ("b04", "b4", "red"),
    "B03": ("b03", "b3", "green"),
    "B02": ("b02", "b2", "blue"),
    "B08": ("b08", "b8", "nir"),
}
"""What a band may be called in a file's band descriptions (compared in lower case)."""

CATALOGUE_BANDS = (
    "B01", "B02", "B03", "B04", "B05", "B06", "B07", "B08", "B8A", "B09", "B10", "B11", "B12",
)  # fmt: skip
"""Band order of a 13-band array of the Sentinel-2 Cloud Mask Catalogue (Zenodo 4172871)."""

CLEAR, CLOUD, NO_DATA = 0, 1, 255
"""Values of a mask."""

SPEC_KEY = "cloudnet_spec"
"""Key of the spec in the metadata of an ONNX file."""

CONTRACT_NHWC = "nhwc"
CONTRACT_NCHW_224 = "nchw-224"
CONTRACTS = (CONTRACT_NHWC, CONTRACT_NCHW_224)


@dataclass(frozen=True)
class Spec:
    """What a model takes and what its answer means.

    Attributes
    ----------
    name, version
        Of the model.
    bands
        Names of the input bands in order.
    reflectance_range
        Reflectance (1.0 = 100 %) is clipped to this inside the graph.
    pixel_m
        Smallest and largest pixel size, in metres, that it was trained for.
    levels
        Processing levels that it was trained for.
    stride
        Height and width of the graph's input are multiples of this, in pixels.
    halo_px, exact_halo_px
        Width of the border of a tile that is read and thrown away: by default, and for an answer
        equal to that of the whole scene (the receptive field's radius).
    threshold
        Probability from which a pixel is cloud.
    contract
        "nhwc": reflectance (batch, height, width, bands) to cloud probability (batch, height,
        width, 1). "nchw-224": reflectance (batch, bands, 224, 224) to a uint8 mask
        (batch, 224, 224), threshold applied.
    """

    name: str
    version: str
    bands: tuple[str, ...] = BANDS
    reflectance_range: tuple[float, float] = (0.0, 1.6)
    pixel_m: tuple[float, float] = (10.0, 60.0)
    levels: tuple[str, ...] = ("L1C", "L2A")
    stride: int = 16
    halo_px: int = 64
    exact_halo_px: int = 128
    threshold: float = 0.5
    contract: str = CONTRACT_NHWC

    def __post_init__(self) -> None:
        low, high = self.reflectance_range
        if not self.bands or len(set(self.bands)) != len(self.bands):
            raise ModelError(f"the spec's bands {self.bands} are empty or name a band twice")
        if not low < high:
            raise ModelError(f"the spec's reflectance range {self.reflectance_range} is empty")
        if self.stride < 1 or self.halo_px < 0 or self.exact_halo_px < 0:
            raise ModelError("the spec's stride is below 1 or a halo is negative")
        if not 0.0 < self.threshold < 1.0:
            raise ModelError(f"a threshold lies between 0 and 1, not at {self.threshold}")
        if self.contract not in CONTRACTS:
            raise ModelError(f"the spec's contract {self.contract!r} is not one of {CONTRACTS}")

    def with_threshold(self, threshold: float) -> Spec:
        """Return the same spec with another threshold."""
        return replace(self, threshold=threshold)

    def to_dict(self) -> dict[str, Any]:
        """Return the spec as JSON types."""
        return json.loads(json.dumps(asdict(self)))  # type: ignore[no-any-return]

    def to_json(self) -> str:
        """Return the spec as JSON text."""
        return json.dumps(asdict(self), indent=2)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any], source: str) -> Spec:
        """Rebuild a spec; `source` names the file in the error.

        Raises
        ------
        ModelError
            When a field is missing, unknown, or of another type.
        """
        known = {field.name for field in fields(cls)}
        if unknown := sorted(set(values) - known):
            raise ModelError(f"{source}: its spec holds {unknown}, unknown to this cloudnet")
        try:
            settings: dict[str, Any] = {
                key: tuple(value) if isinstance(value, list) else value
                for key, value in values.items()
            }
            return cls(**settings)
        except (TypeError, ValueError) as error:
            raise ModelError(f"{source}: its spec cannot be read ({error})") from error

    @classmethod
    def from_json(cls, text: str, source: str) -> Spec:
        """Rebuild a spec from JSON text; raises ModelError as `from_dict` does."""
        try:
            values = json.loads(text)
        except json.JSONDecodeError as error:
            raise ModelError(f"{source}: its spec is not JSON ({error})") from error
        if not isinstance(values, dict):
            raise ModelError(f"{source}: its spec is not a JSON object")
        return cls.from_dict(values, source)
