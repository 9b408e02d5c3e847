"""Tiles per second of the input pipeline alone against the training step of the default net."""

from __future__ import annotations

import statistics
import time

import keras

from cloudnet.augment import Augmentation
from cloudnet.dataset import open_dataset
from cloudnet.losses import CloudIoU, CloudLoss
from cloudnet.model import UNetConfig, build_unet, make_spec
from cloudnet.pipeline import BlockReader, TrainingTiles, training_dataset
from tests.benchmarks import require_scenes

ROUNDS = 5
BATCH = 16
STEPS = 12


def main() -> None:
    """Print medians of interleaved rounds and the ratio within each."""
    dataset = open_dataset(require_scenes())
    tiles = TrainingTiles(dataset.scenes, 224, 1, 0)
    reader = BlockReader(dataset.scenes)
    config = UNetConfig()
    net = build_unet(config, make_spec(config))
    net.compile(keras.optimizers.AdamW(), loss=CloudLoss(), metrics=[CloudIoU()], jit_compile=False)
    batches = training_dataset(tiles, reader, Augmentation(), BATCH, range(0, 1))
    image, target = next(iter(batches))
    net.train_on_batch(image, target)

    def read() -> float:
        began, count = time.perf_counter(), 0
        for part, _ in batches:
            count += len(part)
        return count / (time.perf_counter() - began)

    def step() -> float:
        began = time.perf_counter()
        for _ in range(STEPS):
            net.train_on_batch(image, target)
        return STEPS * BATCH / (time.perf_counter() - began)

    read()
    rounds = [(read(), step()) for _ in range(ROUNDS)]
    reading, training = (statistics.median(column) for column in zip(*rounds))
    ratio = statistics.median(r / t for r, t in rounds)
    print(
        f"pipeline {reading:.0f} tiles/s, training step {training:.0f} tiles/s, ratio {ratio:.1f}"
    )


if __name__ == "__main__":
    main()
