"""The spec: all that must be known to use a model rightly. It travels inside the model file."""

from __future__ import annotations

import json
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass, fields, replace
from math import inf
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

PLAUSIBLE_REFLECTANCE = (-0.5, 3.0)
"""What the 1st and 99th percentile of a scene may be. The largest top-of-atmosphere reflectance
in the Sentinel-2 Cloud Mask Catalogue is 1.94; atmospheric correction gives values a little below
0."""

CLEAR, CLOUD, NO_DATA = 0, 1, 255
"""Values of a mask."""

LEVELS = ("L1C", "L2A")
"""Of Sentinel-2 products: at the top of the atmosphere, and corrected for clear air."""

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
        Processing levels that it was trained for. Where Level-2A is not among them, the runtime
        brings scenes of it to the top of the atmosphere (see `surface`).
    stride
        Height and width of the graph's input are multiples of this, in pixels.
    halo_px, exact_halo_px
        Width of the border of a tile that is read and thrown away: by default, and for an answer
        equal to that of the whole scene. Multiples of the stride.
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
    levels: tuple[str, ...] = LEVELS
    stride: int = 16
    halo_px: int = 64
    exact_halo_px: int = 128
    threshold: float = 0.5
    contract: str = CONTRACT_NHWC

    def __post_init__(self) -> None:
        low, high = self.reflectance_range
        if not self.bands or len(set(self.bands)) != len(self.bands):
            raise ModelError(f"the spec's bands {self.bands} are empty or name a band twice")
        if not -inf < low < high < inf:
            raise ModelError(f"the spec's reflectance range {self.reflectance_range} is empty")
        if not 0 < self.pixel_m[0] <= self.pixel_m[1]:
            raise ModelError(f"the spec's pixel sizes {self.pixel_m} are no range in metres")
        if self.stride < 1 or self.halo_px < 0 or self.exact_halo_px < 0:
            raise ModelError("the spec's stride is below 1 or a halo is negative")
        if self.halo_px % self.stride or self.exact_halo_px % self.stride:
            raise ModelError("the spec's halos are not multiples of its stride")
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
            When a field is missing, unknown, of another type, or out of its range.
        """
        kinds = {field.name: str(field.type) for field in fields(cls)}
        if unknown := sorted(set(values) - set(kinds)):
            raise ModelError(
                f"{source}: its spec holds {', '.join(unknown)}, unknown to this cloudnet; get a "
                "newer cloudnet"
            )
        # A default of today's says nothing of a model that was made without it.
        if missing := [name for name in kinds if name not in values]:
            raise ModelError(f"{source}: its spec lacks {', '.join(missing)}; export it again")
        try:
            return cls(**{name: _typed(name, values[name], kinds[name]) for name in kinds})
        except (TypeError, ModelError) as error:
            raise ModelError(f"{source}: its spec cannot be used ({error})") from error

    @classmethod
    def from_json(cls, text: str, source: str) -> Spec:
        """Rebuild a spec from JSON text; raises ModelError as `from_dict` does."""
        try:
            values = json.loads(text)
        except (ValueError, RecursionError) as error:
            raise ModelError(f"{source}: its spec is not JSON ({error})") from error
        if not isinstance(values, dict):
            raise ModelError(f"{source}: its spec is not a JSON object")
        return cls.from_dict(values, source)


def _typed(name: str, value: Any, kind: str) -> Any:
    """Return a JSON value as the type that the field declares; raises TypeError if it is none."""
    number = isinstance(value, int | float) and not isinstance(value, bool)
    several = list(value) if isinstance(value, list | tuple) else None
    if kind == "str" and isinstance(value, str):
        return value
    if kind == "int" and number and isinstance(value, int):
        return value
    if kind == "float" and number:
        with suppress(OverflowError):  # JSON's whole numbers have no limit
            return float(value)
    if several is not None and kind == "tuple[str, ...]":
        return tuple(_typed(name, item, "str") for item in several)
    if several is not None and kind == "tuple[float, float]" and len(several) == 2:
        return tuple(_typed(name, item, "float") for item in several)
    raise TypeError(f"{name} is {value!r}, not {kind}")
