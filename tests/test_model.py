"""The net: its sizes, its reach to the pixel, its cost by hand, and its file."""

from __future__ import annotations

import json
import subprocess
import sys
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

pytest.importorskip("tensorflow", reason="the train extra is not installed")

import keras
from keras import layers

from cloudnet.errors import ModelError
from cloudnet.model import (
    INPUT_GAIN,
    BandRatios,
    FusedNormalization,
    NormalisedReflectance,
    UNetConfig,
    build_unet,
    config_of,
    load_net,
    make_spec,
    measure,
    read_keras_spec,
    settle_normalisation,
)
from cloudnet.spec import BANDS, Spec

SHAPES = [
    UNetConfig((4,), blocks=1, stem=0),
    UNetConfig((4, 6), blocks=1, stem=0),
    UNetConfig((4, 6), blocks=2, stem=0),
    UNetConfig((6,), blocks=1, stem=4),
    UNetConfig((4, 6), blocks=2, stem=3),
    UNetConfig((4, 4, 6), blocks=2, stem=0),
    UNetConfig((4, 4, 6), blocks=2, stem=3),
    UNetConfig((4, 4, 4, 6), blocks=2, stem=0),
    UNetConfig((4, 6), blocks=2, stem=3, ratios=False),
]
TINY = SHAPES[1]


def lively(config: UNetConfig, spec: Spec | None = None) -> Any:
    """A net in which every pixel within reach counts: positive weights, no neuron at rest."""
    net = build_unet(config, spec or make_spec(config))
    rng = np.random.default_rng(11)
    for layer in net.layers:
        weights = [rng.uniform(0.5, 1.5, weight.shape) for weight in layer.get_weights()]
        if isinstance(layer, (layers.Conv2D, layers.DepthwiseConv2D)):
            fan_in = 9 if isinstance(layer, layers.DepthwiseConv2D) else weights[0][..., 0].size
            weights[0] /= fan_in
        if isinstance(layer, layers.BatchNormalization):
            weights[2] *= 0.2  # what it takes away is less than what it adds
        layer.set_weights(weights)
    head = net.get_layer("head")
    kernel, bias = head.get_weights()
    head.set_weights([kernel - kernel.mean() * 0.9, np.full_like(bias, -1.0)])
    return net


BRIGHT = np.array([1.3, 1.2, 1.1, 1.45], dtype=np.float32)
"""A pixel that pooling lets through, be it for its brightness or for what its ratios are."""


def noise(*shape: int, seed: int = 3) -> NDArray[np.float32]:
    """Tiles in which every pixel has its own brightness and its own colour.

    From blue over green and red to NIR each band is up to 12 % brighter: ratios that end at their
    limit, or are negative, would put to rest what a test is about.
    """
    rng = np.random.default_rng(seed)
    steps = rng.uniform(1.0, 1.12, (*shape, 3)).cumprod(axis=-1)
    blue = rng.uniform(0.05, 0.75, shape)[..., np.newaxis]
    return np.concatenate([steps[..., [1, 0]], np.ones_like(blue), steps[..., [2]]], -1).astype(
        np.float32
    ) * blue.astype(np.float32)


@contextmanager
def float64() -> Iterator[None]:
    """Nets built within compute in float64, but for their last layer."""
    policy = keras.config.dtype_policy()
    keras.config.set_dtype_policy("float64")
    try:
        yield
    finally:
        keras.config.set_dtype_policy(policy)


def answer(net: Any, tiles: NDArray[Any]) -> NDArray[Any]:
    return np.asarray(net(tiles, training=False))


def slopes_of(net: Any, tiles: NDArray[np.float32], cell: Any) -> NDArray[np.float32]:
    """(height, width): how much each pixel of a tile moves the answers of a cell."""
    import tensorflow as tf

    with tf.GradientTape() as tape:
        inputs = tf.constant(tiles)
        tape.watch(inputs)
        answers = tf.reduce_sum(net(inputs, training=False)[cell])
    return np.abs(tape.gradient(answers, inputs)).sum(axis=(0, 3))


def distances(size: int, first: int, last: int) -> NDArray[np.int64]:
    """(size, size): how far, in rows or columns, each pixel is from the square first … last."""
    along = np.maximum(np.maximum(first - np.arange(size), np.arange(size) - last), 0)
    return np.maximum(along[:, np.newaxis], along)


# What it costs.


def test_the_default_net_is_within_its_bars() -> None:
    facts = measure(UNetConfig())
    assert facts.parameters <= 300_000
    assert facts.macs_per_pixel <= 8_000
    assert facts.receptive_field_px == UNetConfig().receptive_field_px
    assert UNetConfig().stride == 16


def test_cost_of_a_tiny_net_by_hand() -> None:
    # Multiply-adds a pixel of the input, weights over the square of the scale: stem 9*4*4/4; at a
    # half, of 4 channels and 16 of ratios, 9*20/4 + 20*4/4; 9*4/16 + 4*6/16 at a quarter,
    # projection 6*4/16, and on the way up 9*4/4 + 4*4/4, head 4*4/4. Ratios: means of cells of
    # 2 x 2 pixels 4*4*4/4, contrasts 4*4/4, and what is learned of them 4*16/4.
    macs = 36 + (45 + 20) + (2.25 + 1.5) + 1.5 + (9 + 4) + 4 + (16 + 4 + 16)
    # Each convolution without bias and four numbers a channel for its normalisation; projection
    # and head with bias. Of the ratios, but what is learned of them.
    parameters = (
        64 + (144 + 16) + (180 + 80 + 16) + (36 + 24 + 24) + (24 + 4) + (36 + 16 + 16) + (16 + 4)
    )
    facts = measure(TINY)
    assert facts.macs_per_pixel == macs == 159.25
    assert facts.parameters == parameters == 700
    assert json.loads(facts.to_json()) == {
        "parameters": 700,
        "macs_per_pixel": 159.25,
        "receptive_field_px": TINY.receptive_field_px,
    }


def test_cost_of_a_stem_by_hand() -> None:
    config = UNetConfig((4,), blocks=1, stem=3, ratios=False)
    # To a half 9*4*3/4, to a quarter 9*3*4/16, there 9*4/16 + 4*4/16, and a head of 16 pixels.
    facts = measure(config)
    assert facts.macs_per_pixel == 27 + 6.75 + (2.25 + 1) + 4 == 41
    assert facts.parameters == (108 + 12) + (108 + 16) + (36 + 16 + 16) + (64 + 16) == 392
    assert (config.stride, config.cell_px) == (4, 4)
    # Means of cells of 4 x 4 pixels 16*4*4/16, contrasts 4*4/16, 4*16/16 learned of them, and by
    # 16 channels more the first separable convolution: 9*16/16 + 16*4/16.
    facts = measure(replace(config, ratios=True))
    assert facts.macs_per_pixel == 41 + (16 + 1) + 4 + (9 + 4)
    assert facts.parameters == 392 + 64 + (144 + 64)


# What it takes and gives.


@pytest.mark.parametrize("config", SHAPES)
def test_any_multiple_of_the_stride_comes_out_at_its_size(config: UNetConfig) -> None:
    net = lively(config)
    for batch, down, across in ((1, 1, 1), (2, 3, 1), (1, 2, 5)):
        tiles = noise(batch, down * config.stride, across * config.stride)
        found = answer(net, tiles)
        assert found.shape == (*tiles.shape[:3], 1) and found.dtype == np.float32
        assert found.min() > 0 and found.max() < 1 and np.ptp(found) > 1e-4


def test_reflectance_is_clipped_and_scaled_inside_the_net() -> None:
    net = lively(replace(TINY, ratios=False))
    tiles = noise(1, 8, 8)
    tiles[0, 2, 3], tiles[0, 5, 5] = -0.3, 7.0
    clipped = np.clip(tiles, 0.0, 1.6)
    assert (clipped != tiles).sum() == 8
    np.testing.assert_array_equal(answer(net, tiles), answer(net, clipped))
    lower = np.minimum(tiles, 1.59)
    assert (answer(net, lower) != answer(net, clipped)).any(), "1.6 is not clipped before"


def test_the_range_is_that_of_the_spec() -> None:
    spec = Spec("mine", "1", stride=4, halo_px=0, exact_halo_px=0, reflectance_range=(0.25, 0.75))
    layer = NormalisedReflectance(spec.to_dict())
    values = np.array([-1.0, 0.25, 0.5, 0.75, 2.0], dtype=np.float32)
    wanted = np.array([0.25, 0.25, 0.5, 0.75, 0.75]) * INPUT_GAIN
    np.testing.assert_allclose(layer(values), wanted)


@pytest.mark.parametrize(
    ("config", "first"), [(TINY, "stem_convolution"), (SHAPES[4], "half_convolution")]
)
def test_no_data_filled_with_0_looks_to_the_first_convolution_like_its_padding(
    config: UNetConfig, first: str
) -> None:
    normalised = NormalisedReflectance(make_spec(TINY).to_dict())
    assert not np.asarray(normalised(np.zeros((1, 4, 4, 4), np.float32))).any()
    net = lively(config)
    stem = keras.Model(net.input, net.get_layer(first).output)
    tiles = noise(1, 16, 16)
    tiles[:, :, 8:] = 0.0
    np.testing.assert_allclose(
        answer(stem, tiles)[:, :, :4], answer(stem, tiles[:, :, :8]), atol=1e-6
    )


# What ratios it sees.


def ratios_of(*cell: float, cell_px: int = 2) -> list[float]:
    """What the layer says of a cell all of whose pixels have the same red, green, blue, NIR."""
    tiles = np.broadcast_to(np.float32(cell), (1, cell_px, cell_px, 4))
    (found,) = np.asarray(BandRatios(cell_px)(tiles)).reshape(-1, 4)
    return [float(number) for number in found]


def test_ratios_are_logarithms_of_neighbouring_bands() -> None:
    wanted = [*20 * np.log([0.31 / 0.30, 0.32 / 0.31, 0.30 / 0.32]), np.log(0.30)]
    found = ratios_of(0.32, 0.31, 0.30, 0.30)
    np.testing.assert_allclose(found, wanted, atol=2e-5)
    assert max(map(abs, wanted)) < 3, "nothing of it is clipped"


def test_ratios_do_not_hang_on_brightness_but_for_that_of_blue() -> None:
    dim, bright = (ratios_of(*(np.array([0.32, 0.31, 0.30, 0.33]) * n)) for n in (0.3, 2.0))
    np.testing.assert_allclose(dim[:3], bright[:3], atol=5e-5)
    assert bright[3] - dim[3] == pytest.approx(np.log(2.0 / 0.3), abs=1e-5)


def test_ratios_end_at_16_per_cent_and_no_data_is_a_number() -> None:
    assert ratios_of(0.4, 0.2, 0.4, 0.1)[:3] == [-3, 3, -3]
    assert ratios_of(0.25, 0.5, 0.25, 0.5)[:3] == [3, -3, 3]
    no_data = ratios_of(0, 0, 0, 0)
    assert no_data == ratios_of(-0.1, -0.2, -0.3, -0.4) == ratios_of(1e-3, 0, 2e-3, 1e-3)
    assert no_data[:3] == pytest.approx([0, 0, 0], abs=2e-5)
    assert no_data[3] == -3, "the logarithm of what counts as dark, 2e-3, is beyond the limit"
    assert ratios_of(*[0.06] * 4)[3] == pytest.approx(np.log(0.06), abs=1e-5)


@pytest.mark.parametrize("cell_px", [2, 4])
def test_ratios_are_those_of_the_mean_of_each_cell(cell_px: int) -> None:
    tiles = noise(2, 3 * cell_px, 5 * cell_px) / 20 + 0.3
    layer = BandRatios(cell_px)
    found = np.asarray(layer(tiles))
    assert found.shape == layer.compute_output_shape(tiles.shape) == (2, 3, 5, 4)
    for image, row, col in ((0, 0, 0), (0, 2, 1), (1, 1, 4)):
        rows, cols = (slice(i * cell_px, (i + 1) * cell_px) for i in (row, col))
        wanted = ratios_of(*tiles[image, rows, cols].mean((0, 1)), cell_px=cell_px)
        np.testing.assert_allclose(found[image, row, col], wanted, atol=5e-5)
    assert layer.compute_output_shape((None, None, None, 4)) == (None, None, None, 4)
    assert BandRatios.from_config(layer.get_config()).cell_px == cell_px


def test_ratios_reach_the_answer() -> None:
    net = lively(SHAPES[4])
    tiles = noise(1, 8, 8)
    layer = net.get_layer("spread_ratios")
    wanted = answer(net, tiles)
    layer.set_weights([np.zeros_like(layer.get_weights()[0])])
    assert np.abs(answer(net, tiles) - wanted).max() > 1e-3
    assert "spread_ratios" not in {one.name for one in lively(SHAPES[8]).layers}


# How far it sees.


def walk_back(config: UNetConfig) -> int:
    """How far right of an aligned cell the net looks, by the cells that each layer takes."""
    far, cells = 64 * config.stride - 1, []
    last = far // config.cell_px
    for _ in config.widths[1:]:
        cells.append(last + 1)
        last = (last + 1) // 2
    for level in reversed(range(len(config.widths))):
        last = max([last, *cells[level : level + 1]]) + config.blocks
        last = 2 * last + 1 if level else last
    for _ in range(2 if config.stem else 1):
        last = 2 * last + 2
    return last - far


@pytest.mark.parametrize("config", [*SHAPES, UNetConfig(), UNetConfig((4, 4, 4), 3, 0)])
def test_the_reach_is_what_a_walk_back_through_the_layers_finds(config: UNetConfig) -> None:
    assert config.cell_reach_px == walk_back(config)


@pytest.mark.parametrize("config", SHAPES)
def test_nothing_beyond_the_reach_changes_an_aligned_cell(config: UNetConfig) -> None:
    net, stride, reach = lively(config), config.stride, config.cell_reach_px
    first = (reach // stride + 2) * stride
    last = first + stride - 1
    size = first + stride + (reach // stride + 2) * stride
    cell = (0, slice(first, last + 1), slice(first, last + 1))
    far = distances(size, first, last)
    tiles = noise(1, size, size)
    wanted = answer(net, tiles)[cell]
    outside = np.where((far > reach)[..., np.newaxis], noise(1, size, size, seed=4), tiles)
    assert (outside != tiles).any()
    np.testing.assert_array_equal(answer(net, outside)[cell], wanted)
    assert not slopes_of(net, tiles, cell)[far > reach].any()


@pytest.mark.parametrize("config", SHAPES[:5])
def test_the_reach_is_met(config: UNetConfig) -> None:
    """In deeper nets, what arrives from so far is lost among the rest: see the walk back."""
    net, stride, reach = lively(config), config.stride, config.cell_reach_px
    first = (reach // stride + 2) * stride
    last = first + stride - 1
    size = first + stride + (reach // stride + 2) * stride
    cell = (0, slice(first, last + 1), slice(first, last + 1))
    far = distances(size, first, last)
    # Convolutions of stride 2 reach to the right and below only, so that is where the bound is met.
    across, near = np.arange(size), reach - (config.cell_px - 1)
    beside = ((across >= first) & (across <= last))[:, np.newaxis]
    right, left = (far == reach) & (across > last), (far == near) & (across < first)
    for brim in (right & beside, (right & beside).T, left & beside, (left & beside).T):
        # Bright before what hardly varies, so that it is what the pooling lets through.
        dim = 0.2 * BRIGHT + 0.02 * noise(1, size, size)
        bright = np.where(brim[..., np.newaxis], BRIGHT, dim)
        assert slopes_of(net, bright, cell)[brim].any()


@pytest.mark.parametrize("config", SHAPES[:5])
def test_no_pixel_sees_beyond_the_receptive_field_and_some_see_as_far(config: UNetConfig) -> None:
    net, half = lively(config), config.receptive_field_px // 2
    assert config.receptive_field_px == 2 * half + 1
    middle = (half // config.stride + 2) * config.stride
    size = 2 * middle + config.stride
    tiles = noise(1, size, size)
    wanted = answer(net, tiles)[0]
    seen = []
    for pixel in range(middle, middle + config.stride):
        far = distances(size, pixel, pixel)[..., np.newaxis]
        outside = np.where(far > half, noise(1, size, size, seed=4), tiles)
        assert answer(net, outside)[0, pixel, pixel] == wanted[pixel, pixel]
        brim = np.where(far == half, BRIGHT, tiles)
        seen.append(bool(answer(net, brim)[0, pixel, pixel] != wanted[pixel, pixel]))
    assert any(seen)


@pytest.mark.parametrize("config", SHAPES)
def test_the_exact_halo_is_exact_and_a_stride_less_is_not(config: UNetConfig) -> None:
    """In float64 what arrives from the last stride, 1e-7 at times, is not lost in rounding."""
    with float64():
        net = lively(config)
    net = keras.Model(net.input, net.get_layer("to_pixels").output)
    stride, halo = config.stride, config.exact_halo_px
    assert halo % stride == 0
    size = 2 * (halo + stride) + 3 * stride
    # Bright, so that the zeros around a tile that is cut too small stand out.
    tiles = noise(1, size, size).astype(np.float64) + 0.5
    whole = answer(net, tiles)
    first, last = halo + stride, halo + 4 * stride

    def cut(border: int) -> NDArray[np.floating]:
        part = slice(first - border, last + border)
        return answer(net, tiles[:, part, part])[:, border:][:, :, border:][
            :, : last - first, : last - first
        ]

    wanted = whole[:, first:last, first:last]
    assert wanted.dtype == np.float64
    np.testing.assert_allclose(cut(halo), wanted, rtol=0, atol=1e-12)
    assert np.abs(cut(halo - stride) - wanted).max() > 1e-9
    spec = make_spec(config)
    assert (spec.stride, spec.halo_px, spec.exact_halo_px) == (stride, halo, halo)


# Its normalisation.


def norms(channels: int = 5) -> tuple[Any, Any]:
    """A fused normalisation and Keras's own, built, with the same lively numbers."""
    rng = np.random.default_rng(2)
    pair = FusedNormalization(momentum=0.9), layers.BatchNormalization(momentum=0.9)
    gamma, beta, mean = (rng.normal(0.5, 1.0, channels) for _ in range(3))
    for layer in pair:
        layer.build((None, None, None, channels))
        layer.set_weights([gamma, beta, mean, np.full(channels, 1.5)])
    return pair


def cells(*shape: int) -> NDArray[np.float32]:
    """Activations whose channels differ in mean and spread."""
    values = np.random.default_rng(8).normal(0.0, 1.0, shape)
    channels = np.arange(shape[-1])
    return (values * (1 + channels) + 3.0 - 2.0 * channels).astype(np.float32)


def test_the_fused_normalisation_trains_as_keras_s_own() -> None:
    import tensorflow as tf

    fused, plain = norms()
    inputs = tf.constant(cells(3, 6, 7, 5))
    weight = tf.constant(np.random.default_rng(9).normal(0.0, 1.0, (3, 6, 7, 5)), tf.float32)
    results = []
    for layer in (fused, plain):
        with tf.GradientTape() as tape:
            tape.watch(inputs)
            outputs = layer(inputs, training=True)
            loss = tf.reduce_sum(weight * outputs + outputs**2)
        gradients = tape.gradient(loss, [inputs, layer.gamma.value, layer.beta.value])
        results.append([outputs, *gradients])
    for found, wanted in zip(*results, strict=True):
        scale = np.abs(wanted).max()
        np.testing.assert_allclose(found, wanted, rtol=1e-4, atol=1e-5 * scale)
    np.testing.assert_allclose(fused.moving_mean, plain.moving_mean, rtol=1e-5)
    # The kernel's variance is the unbiased one, over n - 1 of n cells.
    count = 3 * 6 * 7
    seen = (np.asarray(plain.moving_variance) - 0.9 * 1.5) * count / (count - 1) + 0.9 * 1.5
    np.testing.assert_allclose(fused.moving_variance, seen, rtol=1e-5)


def test_the_fused_normalisation_answers_as_keras_s_own() -> None:
    fused, plain = norms()
    values = cells(2, 4, 5, 5)
    for training in (False, None):
        np.testing.assert_array_equal(
            fused(values, training=training), plain(values, training=training)
        )
    before = [weight.copy() for weight in fused.get_weights()]
    fused.trainable = plain.trainable = False
    # What is frozen uses the averages even in training, and leaves them.
    np.testing.assert_array_equal(fused(values, training=True), plain(values, training=True))
    for now, then in zip(fused.get_weights(), before, strict=True):
        np.testing.assert_array_equal(now, then)


def test_the_averages_follow_what_is_seen() -> None:
    fused, plain = norms()
    values = cells(4, 8, 8, 5)
    for _ in range(80):
        fused(values, training=True)
        plain(values, training=True)
    np.testing.assert_allclose(fused.moving_mean, values.mean((0, 1, 2)), rtol=1e-3, atol=1e-3)
    np.testing.assert_allclose(fused.moving_variance, values.var((0, 1, 2), ddof=1), rtol=1e-3)
    np.testing.assert_allclose(fused(values), plain(values), rtol=1e-2, atol=1e-2)


def test_the_fused_normalisation_is_used_saved_and_rebuilt(tmp_path: Path) -> None:
    net = build_unet(TINY, make_spec(TINY))
    fused = [layer for layer in net.layers if isinstance(layer, layers.BatchNormalization)]
    assert len(fused) == 4 and all(type(layer) is FusedNormalization for layer in fused)
    one = fused[0]
    again = FusedNormalization.from_config(one.get_config())
    assert again.get_config() == one.get_config() and again.momentum == one.momentum
    tiles = noise(2, 8, 8)
    for _ in range(3):
        net(tiles, training=True)
    net.save(tmp_path / "net.keras")
    loaded = load_net(tmp_path / "net.keras")
    assert type(loaded.get_layer(one.name)) is FusedNormalization
    np.testing.assert_array_equal(answer(loaded, tiles), answer(net, tiles))
    assert not np.allclose(one.get_weights()[2], 0.0), "averages were made and kept"


def test_a_settled_normalisation_has_the_mean_of_what_batches_had() -> None:
    net = build_unet(TINY, make_spec(TINY))
    first = next(layer for layer in net.layers if isinstance(layer, FusedNormalization))
    batches = [noise(2, 16, 16), 0.5 * noise(3, 16, 16), noise(1, 32, 32) + 0.3]
    settle_normalisation(net, batches)
    before = keras.Model(net.input, first.input)
    values = [np.asarray(before(batch)) for batch in batches]
    means = [value.mean((0, 1, 2)) for value in values]
    variances = [value.var((0, 1, 2), ddof=1) for value in values]
    np.testing.assert_allclose(first.moving_mean, np.mean(means, 0), rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(first.moving_variance, np.mean(variances, 0), rtol=1e-4)
    fused = [layer for layer in net.layers if isinstance(layer, FusedNormalization)]
    assert {layer.momentum for layer in fused} == {0.95}, "it trains on as before"
    settled = net.get_weights()
    settle_normalisation(net, batches[::-1])
    for number, again in zip(settled, net.get_weights(), strict=True):
        np.testing.assert_allclose(again, number, rtol=1e-5, atol=1e-6)


def test_on_another_backend_the_normalisation_is_keras_s_own(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(keras.backend, "backend", lambda: "other")
    fused, plain = norms()
    values = cells(2, 4, 5, 5)
    np.testing.assert_array_equal(fused(values, training=True), plain(values, training=True))
    for found, wanted in zip(fused.get_weights(), plain.get_weights(), strict=True):
        np.testing.assert_array_equal(found, wanted)


# Its configuration.


@pytest.mark.parametrize("config", [*SHAPES, UNetConfig(), UNetConfig((8, 16, 8, 4, 2), 3)])
def test_a_configuration_is_read_back_from_json_and_from_the_net(config: UNetConfig) -> None:
    assert UNetConfig.from_dict(json.loads(json.dumps(config.to_dict()))) == config
    assert config_of(build_unet(config, make_spec(config))) == config


@pytest.mark.parametrize(
    "wrong", [{"widths": ()}, {"widths": (8, 0)}, {"blocks": 0}, {"widths": (8,), "blocks": -1}]
)
def test_a_net_without_levels_widths_or_blocks_is_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(ModelError, match="at least one level"):
        UNetConfig(**wrong)


def test_a_stem_of_less_than_no_channels_is_refused() -> None:
    with pytest.raises(ModelError, match="0 channels or more, not -1"):
        UNetConfig(stem=-1)


def test_a_configuration_of_before_there_was_a_stem_has_none() -> None:
    first = {"widths": [32, 64, 128, 192], "blocks": 2}
    assert UNetConfig.from_dict(first) == UNetConfig((32, 64, 128, 192), 2, stem=0, ratios=False)
    second = {"widths": [64, 128, 256], "blocks": 2, "stem": 16}
    assert UNetConfig.from_dict(second) == UNetConfig((64, 128, 256), ratios=False)
    assert UNetConfig.from_dict({**second, "ratios": True}) == UNetConfig((64, 128, 256))


# Its file.

SPEC = Spec("mine", "2026.1", stride=4, halo_px=16, exact_halo_px=20, threshold=0.375)
FRESH = """
import sys, numpy
from pathlib import Path
from cloudnet.model import load_net, read_keras_spec
net, tiles, answers = map(Path, sys.argv[1:])
numpy.save(answers, numpy.asarray(load_net(net)(numpy.load(tiles), training=False)))
print(read_keras_spec(net).to_json())
"""


@pytest.fixture(scope="module")
def net_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny net with a spec of its own, on disk; not to be changed."""
    path = tmp_path_factory.mktemp("nets") / "net.keras"
    lively(TINY, SPEC).save(path)
    return path


def test_a_net_comes_back_from_its_file(net_file: Path) -> None:
    tiles = noise(2, 16, 8)
    again = load_net(net_file)
    np.testing.assert_array_equal(answer(again, tiles), answer(lively(TINY, SPEC), tiles))
    assert read_keras_spec(net_file) == SPEC
    assert config_of(again) == TINY


def test_a_process_that_knows_nothing_of_the_net_loads_it(net_file: Path, tmp_path: Path) -> None:
    tiles = noise(1, 8, 12)
    np.save(tmp_path / "tiles.npy", tiles)
    result = subprocess.run(
        [sys.executable, "-c", FRESH, net_file, tmp_path / "tiles.npy", tmp_path / "answers.npy"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode == 0, result.stderr
    assert Spec.from_json(result.stdout, "stdout") == SPEC
    np.testing.assert_array_equal(
        np.load(tmp_path / "answers.npy"), answer(lively(TINY, SPEC), tiles)
    )


def refused(path: Path, *words: str) -> None:
    """Assert that both readers refuse a file in one line that names it."""
    for read in (load_net, read_keras_spec):
        with pytest.raises(ModelError) as caught:
            read(path)
        message = str(caught.value)
        assert str(path) in message and "\n" not in message
        assert all(word in message for word in words), message


def test_a_file_that_is_none_is_named(tmp_path: Path) -> None:
    refused(tmp_path / "missing.keras", "does not exist")
    refused(tmp_path, "give a .keras file or a run")


@pytest.mark.parametrize("content", [b"", b"text, not a net", b"PK\x03\x04 and no more"])
def test_a_file_that_is_no_archive_is_named(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "net.keras"
    path.write_bytes(content)
    refused(path, "is no .keras file")


@pytest.mark.parametrize("config", [None, "", "[]", '"net"', '{"config": {}}', '{"config": 3}'])
def test_an_archive_without_a_net_is_named(tmp_path: Path, config: str | None) -> None:
    path = tmp_path / "net.keras"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("readme.txt" if config is None else "config.json", config or "")
    refused(path, "is no .keras file")


def test_a_net_of_someone_else_is_named(tmp_path: Path) -> None:
    path = tmp_path / "net.keras"
    inputs = keras.Input((None, None, 4))
    for net in (
        keras.Model(inputs, layers.Conv2D(1, 1)(inputs)),
        keras.Sequential([keras.Input((4,)), layers.Dense(1)]),
    ):
        net.save(path)
        refused(path, "is no net of cloudnet's")


@pytest.mark.parametrize(
    "bands", [("B02", "B03", "B04", "B08"), ("B04", "B03", "B02"), (*BANDS, "B11")]
)
def test_a_net_of_other_bands_is_refused_with_both_sets_named(
    tmp_path: Path, bands: tuple[str, ...]
) -> None:
    path = tmp_path / "net.keras"
    build_unet(SHAPES[0], Spec("mine", "1", bands, stride=2, halo_px=0, exact_halo_px=0)).save(path)
    with pytest.raises(ModelError) as caught:
        load_net(path)
    message = str(caught.value)
    assert str(path) in message
    assert ", ".join(bands) in message and ", ".join(BANDS) in message


def test_a_file_that_was_cut_short_is_named(net_file: Path, tmp_path: Path) -> None:
    content = net_file.read_bytes()
    path = tmp_path / "net.keras"
    for length in (len(content) - 40, len(content) // 2, 100):
        path.write_bytes(content[:length])
        refused(path, "is no .keras file")


def rewritten(source: Path, target: Path, **changes: bytes) -> Path:
    """Copy an archive with members of other content."""
    with zipfile.ZipFile(source) as old, zipfile.ZipFile(target, "w") as new:
        for member in old.namelist():
            new.writestr(member, changes.get(member.split(".")[-1], old.read(member)))
    return target


def test_damaged_weights_are_named(net_file: Path, tmp_path: Path) -> None:
    with zipfile.ZipFile(net_file) as archive:
        start = archive.getinfo("model.weights.h5").header_offset
    content = bytearray(net_file.read_bytes())
    content[start + 3000] ^= 0xFF
    flipped = tmp_path / "flipped.keras"
    flipped.write_bytes(content)
    for path in (flipped, rewritten(net_file, tmp_path / "junk.keras", h5=b"no weights")):
        with pytest.raises(ModelError, match="cannot be loaded by Keras") as caught:
            load_net(path)
        assert str(path) in str(caught.value) and "\n" not in str(caught.value)


@pytest.mark.parametrize("spec", [None, [], {}, {"name": "mine"}])
def test_a_net_whose_spec_is_damaged_is_named(net_file: Path, tmp_path: Path, spec: Any) -> None:
    with zipfile.ZipFile(net_file) as archive:
        config = json.loads(archive.read("config.json"))
    for layer in config["config"]["layers"]:
        if layer["class_name"] == "NormalisedReflectance":
            layer["config"]["spec"] = spec
    refused(rewritten(net_file, tmp_path / "net.keras", json=json.dumps(config).encode()), "spec")
