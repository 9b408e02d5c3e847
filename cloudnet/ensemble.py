"""Learning from an ensemble: the mean of several nets as the target of one."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import tensorflow as tf

from cloudnet.losses import TARGET_LABEL
from cloudnet.model import load_net
from cloudnet.pipeline import Soften, Tensor

LEAST_PROBABILITY = 1e-4
"""Probabilities are kept so far from 0 and 1: no member outvotes the others by being sure."""


def soft_targets(members: Sequence[Path], share: float) -> Soften:
    """Return what adds the opinion of an ensemble to batches of tiles.

    Knowledge distillation (Hinton, Vinyals and Dean 2015, arXiv:1503.02531), with the geometric
    mean of the members: what single nets have from their seeds mostly cancels, and a label that
    all of them doubt counts for less.

    Parameters
    ----------
    members
        `.keras` files.
    share
        Of the members in the soft label, from 0 to 1; the rest is the label itself.

    Returns
    -------
    A function for `tf.data.Dataset.map`. It takes images (b, h, w, 4) and targets (b, h, w, 2), and
    returns the images and targets (b, h, w, 3) as `losses` describes them.

    Raises
    ------
    ModelError
        When a file is no net of ours.
    """
    # A pipeline runs on the processor, whatever the training runs on.
    with tf.device("/CPU:0"):
        nets = [load_net(path) for path in members]

    def soften(image: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
        logits = [_logit(net(image, training=False)) for net in nets]
        mean = tf.sigmoid(tf.add_n(logits) / len(logits))
        label = target[..., TARGET_LABEL, tf.newaxis]
        return image, tf.concat([target, (1.0 - share) * label + share * mean], axis=-1)

    return soften


def _logit(probability: Tensor) -> Tensor:
    bounded = tf.clip_by_value(
        tf.cast(probability, tf.float32), LEAST_PROBABILITY, 1.0 - LEAST_PROBABILITY
    )
    return tf.math.log(bounded) - tf.math.log1p(-bounded)
