"""Histograms of probability: how cloud and clear pixels share it out. Any threshold follows."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from cloudnet.confusion import Confusion
from cloudnet.spec import CLEAR, CLOUD

Counts = NDArray[np.int64]

BINS = 200
"""Bins of [0, 1]; a threshold is as fine as one of them."""

EDGES = (np.arange(1, BINS) / BINS).astype(np.float32)
"""Lower edges of all bins but the first. In the precision of a probability, so that a pixel on an
edge is on the same side of it as in a mask."""

CENTRES = (np.arange(BINS) + 0.5) / BINS

RELIABILITY_BINS = 10


@dataclass(frozen=True)
class ReliabilityBin:
    """Pixels whose probability of cloud is from `low` to below `high`.

    Attributes
    ----------
    low, high
        Bounds; the last bin includes its upper one.
    pixels
        How many there are.
    probability, cloud_share
        Their mean probability, and the share of them that is cloud; None where there are none.
    """

    low: float
    high: float
    pixels: int
    probability: float | None
    cloud_share: float | None


@dataclass(frozen=True, eq=False)
class Histogram:
    """Labelled pixels by probability.

    Attributes
    ----------
    cloud, clear
        (BINS,) int64: the pixels that are labelled cloud, and clear, in each bin.
    """

    cloud: Counts
    clear: Counts

    @classmethod
    def empty(cls) -> Histogram:
        """Return a histogram of no pixels."""
        return cls(np.zeros(BINS, dtype=np.int64), np.zeros(BINS, dtype=np.int64))

    @classmethod
    def of(cls, truth: NDArray[np.uint8], probability: NDArray[np.float32]) -> Histogram:
        """Count the pixels of a mask (rows, cols) by their probability (rows, cols).

        What is unlabelled, or has no probability (NaN), counts for nothing.

        Raises
        ------
        ValueError
            When the shapes differ.
        """
        if truth.shape != probability.shape:
            raise ValueError(f"arrays of shape {truth.shape} and {probability.shape} do not match")
        known = ~np.isnan(probability)
        cloud, clear = (
            np.bincount(
                np.searchsorted(EDGES, probability[known & (truth == value)], side="right"),
                minlength=BINS,
            )
            for value in (CLOUD, CLEAR)
        )
        return cls(cloud.astype(np.int64), clear.astype(np.int64))

    def __add__(self, other: Histogram) -> Histogram:
        return Histogram(self.cloud + other.cloud, self.clear + other.clear)

    @property
    def pixels(self) -> int:
        """Number of pixels counted."""
        return int(self.cloud.sum() + self.clear.sum())

    def confusion(self, threshold: float) -> Confusion:
        """Return the confusion of the mask at a threshold, exact for a multiple of 1 / BINS.

        Raises
        ------
        ValueError
            When the threshold is no such multiple: what the bin holds cannot be told apart.
        """
        first = round(threshold * BINS)
        if abs(first - threshold * BINS) > 1e-6:
            raise ValueError(f"the threshold {threshold} is no multiple of 1 / {BINS}")
        tp, fp = int(self.cloud[first:].sum()), int(self.clear[first:].sum())
        return Confusion(tp, fp, int(self.cloud.sum()) - tp, int(self.clear.sum()) - fp)

    def best_threshold(self) -> float | None:
        """Return the threshold with the largest IoU of cloud; None where no pixel is cloud.

        Of thresholds between 0 and 1 that do equally well, the one nearest to a half.
        """
        if not self.cloud.any():
            return None
        numbers = np.arange(1, BINS)
        hits = self.cloud[::-1].cumsum()[::-1][1:]
        false = self.clear[::-1].cumsum()[::-1][1:]
        iou = hits / (self.cloud.sum() + false)
        best = numbers[iou == iou.max()]
        nearest = best[np.argmin(np.abs(best - BINS // 2))]
        return float(nearest / BINS)

    def reliability(self) -> tuple[ReliabilityBin, ...]:
        """Return ten bins of probability with the share of cloud in each.

        A reliability diagram (Murphy and Winkler 1977, doi:10.2307/2346866). Probabilities are
        taken as the centres of the histogram's bins, so their means are right to 1 / (2 BINS).
        """
        parts = (RELIABILITY_BINS, BINS // RELIABILITY_BINS)
        cloud = self.cloud.reshape(parts).sum(axis=1)
        every = (self.cloud + self.clear).reshape(parts)
        sums = (every * CENTRES.reshape(parts)).sum(axis=1)
        bins = []
        for number, pixels in enumerate(every.sum(axis=1).tolist()):
            low, high = number / RELIABILITY_BINS, (number + 1) / RELIABILITY_BINS
            mean = float(sums[number]) / pixels if pixels else None
            share = int(cloud[number]) / pixels if pixels else None
            bins.append(ReliabilityBin(low, high, pixels, mean, share))
        return tuple(bins)

    def calibration_error(self) -> float | None:
        """Return the expected calibration error over the ten bins; None where no pixel is counted.

        The mean over pixels of | share of cloud - mean probability | of their bin (Naeini et al.
        2015, doi:10.1609/aaai.v29i1.9602).
        """
        if not self.pixels:
            return None
        return sum(
            part.pixels / self.pixels * abs(part.cloud_share - part.probability)
            for part in self.reliability()
            if part.cloud_share is not None and part.probability is not None
        )
