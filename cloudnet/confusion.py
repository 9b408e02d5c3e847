"""Confusion: the pixels of two masks counted by what both say, and the scores that follow."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from cloudnet.spec import CLEAR, CLOUD, NO_DATA


@dataclass(frozen=True)
class Confusion:
    """Pixels of two masks, truth and found, counted by what both say; cloud is the positive.

    Scores follow Congalton (1991, doi:10.1016/0034-4257(91)90048-B) and Foody (2002,
    doi:10.1016/S0034-4257(01)00295-4). Each is a share in [0, 1], or None where it is undefined:
    where nothing is there to take a share of.

    Attributes
    ----------
    tp, fp, fn, tn
        Pixels that are cloud and found so; clear but found cloud; cloud but found clear; clear and
        found so.
    """

    tp: int = 0
    fp: int = 0
    fn: int = 0
    tn: int = 0

    @classmethod
    def of(cls, truth: NDArray[np.uint8], found: NDArray[np.uint8]) -> Confusion:
        """Count the pixels of two masks (rows, cols) uint8; 255 in either counts for nothing.

        Raises
        ------
        ValueError
            When their shapes differ, or one holds a value that is not 0, 1 or 255.
        """
        if truth.shape != found.shape:
            raise ValueError(f"masks of shape {truth.shape} and {found.shape} do not match")
        for mask in (truth, found):
            if ((mask > CLOUD) & (mask != NO_DATA)).any():
                raise ValueError("a mask holds a value other than 0, 1 and 255")
        true_cloud, true_clear = truth == CLOUD, truth == CLEAR
        found_cloud, found_clear = found == CLOUD, found == CLEAR
        return cls(
            tp=int(np.count_nonzero(true_cloud & found_cloud)),
            fp=int(np.count_nonzero(true_clear & found_cloud)),
            fn=int(np.count_nonzero(true_cloud & found_clear)),
            tn=int(np.count_nonzero(true_clear & found_clear)),
        )

    def __add__(self, other: Confusion) -> Confusion:
        return Confusion(
            self.tp + other.tp, self.fp + other.fp, self.fn + other.fn, self.tn + other.tn
        )

    @property
    def pixels(self) -> int:
        """Number of pixels counted."""
        return self.tp + self.fp + self.fn + self.tn

    @property
    def iou(self) -> float | None:
        """Intersection over union, tp / (tp + fp + fn) (Jaccard 1912, New Phytologist 11, 37)."""
        return _share(self.tp, self.tp + self.fp + self.fn)

    @property
    def f1(self) -> float | None:
        """F1 = 2 tp / (2 tp + fp + fn), the harmonic mean of precision and recall.

        Dice (1945, Ecology 26, 297). Undefined where there is no cloud and none was found.
        """
        return _share(2 * self.tp, 2 * self.tp + self.fp + self.fn)

    @property
    def precision(self) -> float | None:
        """Precision = user's accuracy, tp / (tp + fp): how much of the found cloud is cloud."""
        return _share(self.tp, self.tp + self.fp)

    @property
    def recall(self) -> float | None:
        """Recall = producer's accuracy, tp / (tp + fn): how much of the cloud was found."""
        return _share(self.tp, self.tp + self.fn)

    @property
    def accuracy(self) -> float | None:
        """Overall accuracy, (tp + tn) / all."""
        return _share(self.tp + self.tn, self.pixels)

    @property
    def balanced_accuracy(self) -> float | None:
        """Mean of the recalls of both classes, (tp / (tp + fn) + tn / (tn + fp)) / 2.

        Brodersen et al. (2010, doi:10.1109/ICPR.2010.764). Undefined unless both are in truth.
        """
        cloud, clear = self.recall, _share(self.tn, self.tn + self.fp)
        return None if cloud is None or clear is None else (cloud + clear) / 2

    @property
    def false_cloud(self) -> float | None:
        """Share of the clear pixels that was called cloud, fp / (fp + tn) (false positive rate)."""
        return _share(self.fp, self.fp + self.tn)

    @property
    def cloud_share_truth(self) -> float | None:
        """Share of cloud in truth, (tp + fn) / all."""
        return _share(self.tp + self.fn, self.pixels)

    @property
    def cloud_share_found(self) -> float | None:
        """Share of cloud as found, (tp + fp) / all."""
        return _share(self.tp + self.fp, self.pixels)


def _share(part: int, whole: int) -> float | None:
    """Return `part` / `whole`; None where there is nothing to take a share of."""
    return part / whole if whole else None
