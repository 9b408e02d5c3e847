"""Loss and score, by numbers worked out by hand; unlabelled pixels count for nothing."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

pytest.importorskip("tensorflow", reason="the train extra is not installed")

import keras
import tensorflow as tf

from cloudnet.losses import CloudIoU, CloudLoss

# A tile of 2 x 2 pixels, the last one unlabelled.
LABEL = [1.0, 0.0, 1.0, 0.0]
WEIGHT = [1.0, 1.0, 1.0, 0.0]
PROBABILITY = [0.8, 0.3, 0.6, 0.9]
ENTROPY = 0.3635480  # -(ln 0.8 + ln 0.7 + ln 0.6) / 3
DICE = 0.1914894  # 1 - (2 (0.8 + 0.6) + 1) / (2 + 1.7 + 1)


def target(label: list[float], weight: list[float]) -> NDArray[np.float32]:
    """(1, 2, n / 2, 2) of label and weight."""
    return np.stack([label, weight], axis=-1).reshape(1, 2, -1, 2).astype(np.float32)


def answer(probability: list[float]) -> NDArray[np.float32]:
    return np.array(probability, dtype=np.float32).reshape(1, 2, -1, 1)


def loss(label: list[float], weight: list[float], probability: list[float], dice: float) -> float:
    return float(CloudLoss(dice)(target(label, weight), answer(probability)))


@pytest.mark.parametrize(
    ("dice_share", "wanted"), [(0.0, ENTROPY), (1.0, DICE), (0.3, 0.7 * ENTROPY + 0.3 * DICE)]
)
def test_the_loss_of_a_tile_by_hand(dice_share: float, wanted: float) -> None:
    assert loss(LABEL, WEIGHT, PROBABILITY, dice_share) == pytest.approx(wanted, abs=1e-5)


def test_cross_entropy_is_taken_against_a_soft_label_and_dice_is_not() -> None:
    hard = target(LABEL, WEIGHT)
    soft = np.array([0.9, 0.2, 0.5, 1.0], dtype=np.float32).reshape(1, 2, -1, 1)
    both = np.concatenate([hard, soft], axis=-1)
    # -(.9 ln .8 + .1 ln .2 + .2 ln .3 + .8 ln .7 + .5 ln .6 + .5 ln .4) / 3
    assert float(CloudLoss(0.0)(both, answer(PROBABILITY))) == pytest.approx(0.5338219, abs=1e-5)
    assert float(CloudLoss(1.0)(both, answer(PROBABILITY))) == pytest.approx(DICE, abs=1e-5)


def test_cross_entropy_is_weighted() -> None:
    # -(2 ln 0.8 + ln 0.7) / 3
    found = loss([1, 0, 1, 0], [2, 1, 0, 0], PROBABILITY, 0.0)
    assert found == pytest.approx(0.2676540, abs=1e-5)


@pytest.mark.parametrize("dice_share", [0.0, 0.3, 1.0])
def test_unlabelled_pixels_change_nothing(dice_share: float) -> None:
    wanted = loss(LABEL, WEIGHT, PROBABILITY, dice_share)
    for label, probability in ((0.0, 0.0), (1.0, 0.0), (1.0, 1.0), (0.0, 1.0)):
        changed = loss([*LABEL[:3], label], WEIGHT, [*PROBABILITY[:3], probability], dice_share)
        assert changed == wanted
    # Nor does it count how many there are of them.
    more = loss([*LABEL, 1.0, 0.0], [*WEIGHT, 0.0, 0.0], [*PROBABILITY, 0.1, 0.7], dice_share)
    assert more == pytest.approx(wanted, abs=1e-6)


def test_no_gradient_comes_from_unlabelled_pixels() -> None:
    probability = tf.Variable(answer(PROBABILITY))
    with tf.GradientTape() as tape:
        value = CloudLoss()(target(LABEL, WEIGHT), probability)
    gradient = tape.gradient(value, probability).numpy().ravel()
    assert (gradient[:3] != 0).all() and gradient[3] == 0
    assert (np.sign(gradient[:3]) == [-1, 1, -1]).all(), "towards the label"


def test_dice_is_taken_over_the_batch_not_over_its_tiles() -> None:
    tiles = np.concatenate([target(LABEL, WEIGHT), target([0, 0, 0, 0], [1, 1, 1, 1])])
    answers = np.concatenate([answer(PROBABILITY), answer([0.1, 0.1, 0.1, 0.1])])
    # 1 - (2 (0.8 + 0.6) + 1) / (2 + 1.7 + 0.4 + 1)
    assert float(CloudLoss(1.0)(tiles, answers)) == pytest.approx(1 - 3.8 / 5.1, abs=1e-5)


@pytest.mark.parametrize("dice_share", [0.0, 0.3, 1.0])
@pytest.mark.parametrize("probability", [0.0, 0.5, 1.0])
def test_a_batch_without_labels_costs_nothing(dice_share: float, probability: float) -> None:
    assert loss(LABEL, [0.0] * 4, [probability] * 4, dice_share) == pytest.approx(0, abs=1e-6)


@pytest.mark.parametrize("wrong", [0.0, 1.0])
def test_a_certain_answer_that_is_wrong_costs_much_and_is_a_number(wrong: float) -> None:
    found = loss([1 - wrong] * 4, [1.0] * 4, [wrong] * 4, 0.3)
    assert 5 < found < 50


def test_the_score_is_pooled_over_batches() -> None:
    score = CloudIoU()
    assert float(score.result()) == 0.0
    score.update_state(target([1, 0, 1, 0], [1, 1, 1, 1]), answer([0.8, 0.3, 0.6, 0.9]))
    assert float(score.result()) == pytest.approx(2 / 3)
    score.update_state(target([1, 1, 1, 1], [1, 1, 1, 1]), answer([0.8, 0.1, 0.2, 0.3]))
    # Hits 2 + 1 of a union of 3 + 4, which is no mean of 2/3 and 1/4.
    assert float(score.result()) == pytest.approx(3 / 7)
    score.reset_state()
    assert float(score.result()) == 0.0


def test_the_score_leaves_out_unlabelled_pixels() -> None:
    score = CloudIoU()
    score.update_state(target([1, 1, 0, 0], [1, 0, 0, 1]), answer([0.9, 0.1, 0.9, 0.1]))
    assert float(score.result()) == 1.0


def test_a_probability_at_the_threshold_is_cloud() -> None:
    for threshold, wanted in ((0.5, 1.0), (0.25, 1.0), (0.75, 0.0)):
        score = CloudIoU(threshold)
        score.update_state(target([1, 1, 1, 1], [1, 1, 1, 1]), answer([0.5] * 4))
        assert float(score.result()) == wanted


@pytest.mark.parametrize("part", [CloudLoss(0.125), CloudIoU(0.625)])
def test_loss_and_score_are_rebuilt_from_their_configuration(part: CloudLoss | CloudIoU) -> None:
    again = keras.saving.deserialize_keras_object(keras.saving.serialize_keras_object(part))
    assert type(again) is type(part)
    assert again.get_config() == part.get_config()
    assert 0.125 in part.get_config().values() or 0.625 in part.get_config().values()
