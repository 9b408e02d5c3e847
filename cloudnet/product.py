"""Products: the files that come of a scene, their names and their summary."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cloudnet.layer import PERCENT, Layer
from cloudnet.spec import NO_DATA

VECTOR_FORMATS = ("gpkg", "geojson")


@dataclass(frozen=True)
class Outputs:
    """Where the products of one scene go.

    Attributes
    ----------
    folder, name
        The files are `folder/name_cloudmask.tif` and so on.
    """

    folder: Path
    name: str

    @property
    def mask(self) -> Path:
        """COG, uint8: 0 clear, 1 cloud, 255 no data."""
        return self.folder / f"{self.name}_cloudmask.tif"

    @property
    def probability(self) -> Path:
        """COG, uint8: 0 to 100 per cent, 255 no data."""
        return self.folder / f"{self.name}_cloudprobability.tif"

    @property
    def quicklook(self) -> Path:
        """PNG: true colour with the mask's outline."""
        return self.folder / f"{self.name}_quicklook.png"

    @property
    def summary(self) -> Path:
        """JSON: cloud share, model, threshold, comparison."""
        return self.folder / f"{self.name}_cloudmask.json"

    @property
    def stac_item(self) -> Path:
        """JSON: the STAC item of the products."""
        return self.folder / f"{self.name}_stac.json"

    def wanted(
        self,
        *,
        probability: bool = False,
        quicklook: bool = True,
        vector: str | None = None,
        stac: bool = False,
    ) -> dict[str, Path]:
        """Return the files to be made by what they are: mask first, summary and item last."""
        files = {"mask": self.mask}
        files |= {"probability": self.probability} if probability else {}
        files |= {"quicklook": self.quicklook} if quicklook else {}
        files |= {"vector": self.vector(vector)} if vector else {}
        files |= {"summary": self.summary}
        return files | ({"stac item": self.stac_item} if stac else {})

    def vector(self, wanted: str) -> Path:
        """Return where the polygons go.

        Parameters
        ----------
        wanted
            "gpkg" or "geojson": `folder/name_clouds.gpkg` and so on. Anything else is a path.
        """
        if wanted in VECTOR_FORMATS:
            return self.folder / f"{self.name}_clouds.{wanted}"
        return Path(wanted)


def is_vector(wanted: str) -> bool:
    """Tell whether a word is a vector format, or a file that bears its suffix."""
    return wanted in VECTOR_FORMATS or Path(wanted).suffix.lower()[1:] in VECTOR_FORMATS


def to_percent(probability: NDArray[np.float32]) -> Layer:
    """Return probability (rows, cols) as whole per cent, 255 where it is NaN."""
    percent = np.full(probability.shape, NO_DATA, dtype=np.uint8)
    known = ~np.isnan(probability)
    percent[known] = np.round(probability[known] * PERCENT).astype(np.uint8)
    return percent


def write_summary(path: Path, summary: dict[str, Any]) -> None:
    """Write the summary of a scene as JSON, in place."""
    path.write_text(json.dumps(summary, indent=2, allow_nan=False) + "\n", encoding="utf-8")
