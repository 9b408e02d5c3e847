"""What training minimises and watches, over labelled pixels only. Runs on every Keras backend."""

from __future__ import annotations

from typing import Any, TypeAlias

import keras
from keras import ops

Tensor: TypeAlias = Any

TARGET_LABEL, TARGET_WEIGHT, TARGET_SOFT = 0, 1, 2
"""Channels of the target (batch, height, width, 2 or 3): cloud 0 or 1, the pixel's weight, and,
where there is an ensemble to learn from, the soft label, a probability of cloud."""


@keras.saving.register_keras_serializable(package="cloudnet")
class CloudLoss(keras.losses.Loss):  # type: ignore[misc]
    """Weighted binary cross-entropy plus soft Dice, each over the labelled pixels of the batch.

    Cross-entropy is taken against the soft label where there is one. Dice (Milletari et al. 2016,
    V-Net) is taken over the whole batch at once: over single tiles it would be undefined where
    there is no cloud.

    Parameters
    ----------
    dice_share
        Weight of the Dice term; that of the cross-entropy is one minus this.
    """

    def __init__(self, dice_share: float = 0.3, name: str = "cloud_loss", **settings: Any) -> None:
        super().__init__(name=name, reduction="sum", **settings)
        self.dice_share = dice_share

    def call(self, y_true: Tensor, y_pred: Tensor) -> Tensor:
        """Return the loss, a scalar, of target (b, h, w, 2 or 3) and probability (b, h, w, 1)."""
        label = y_true[..., TARGET_LABEL]
        weight = y_true[..., TARGET_WEIGHT]
        probability = ops.cast(y_pred[..., 0], "float32")
        soft = y_true[..., TARGET_SOFT] if y_true.shape[-1] > TARGET_SOFT else label
        entropy = ops.binary_crossentropy(soft, probability)
        cross_entropy = ops.sum(weight * entropy) / (ops.sum(weight) + keras.config.epsilon())
        overlap = ops.sum(weight * label * probability)
        total = ops.sum(weight * label) + ops.sum(weight * probability)
        dice = 1.0 - (2.0 * overlap + 1.0) / (total + 1.0)
        return (1.0 - self.dice_share) * cross_entropy + self.dice_share * dice

    def get_config(self) -> dict[str, Any]:
        """Return what the loss is rebuilt from."""
        return {"name": self.name, "dice_share": self.dice_share}


@keras.saving.register_keras_serializable(package="cloudnet")
class CloudIoU(keras.metrics.Metric):  # type: ignore[misc]
    """Intersection over union of cloud, pooled over the labelled pixels seen; 0 before any cloud.

    Parameters
    ----------
    threshold
        Probability from which a pixel is cloud.
    """

    def __init__(self, threshold: float = 0.5, name: str = "iou", **settings: Any) -> None:
        super().__init__(name=name, **settings)
        self.threshold = threshold
        self.hits = self.add_weight(name="hits", initializer="zeros")
        self.union = self.add_weight(name="union", initializer="zeros")

    def update_state(self, y_true: Tensor, y_pred: Tensor, sample_weight: Tensor = None) -> None:
        """Add a batch: target (b, h, w, 2 or 3) and probability (b, h, w, 1)."""
        known = ops.cast(y_true[..., TARGET_WEIGHT] > 0, "float32")
        truth = ops.cast(y_true[..., TARGET_LABEL] > 0.5, "float32")
        found = ops.cast(y_pred[..., 0] >= self.threshold, "float32")
        self.hits.assign_add(ops.sum(known * truth * found))
        self.union.assign_add(ops.sum(known * ops.maximum(truth, found)))

    def result(self) -> Tensor:
        """Return the score of all batches since the last reset."""
        return self.hits / ops.maximum(self.union, 1.0)

    def get_config(self) -> dict[str, Any]:
        """Return what the metric is rebuilt from."""
        return {"name": self.name, "threshold": self.threshold}
