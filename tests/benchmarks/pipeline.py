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

    def read() -> tuple[float, float]:
        count, began = 0, clocks()
        for part, _ in batches:
            count += len(part)
        return rates(count, began)

    def step() -> tuple[float, float]:
        began = clocks()
        for _ in range(STEPS):
            net.train_on_batch(image, target)
        return rates(STEPS * BATCH, began)

    read()
    rounds = [(read(), step()) for _ in range(ROUNDS)]
    for clock, name in enumerate(("second", "second of processor time")):
        reading, training = (statistics.median(r[side][clock] for r in rounds) for side in (0, 1))
        ratio = statistics.median(r[0][clock] / r[1][clock] for r in rounds)
        print(
            f"tiles per {name}: pipeline {reading:.0f}, training step {training:.0f}, "
            f"ratio {ratio:.1f}"
        )


def clocks() -> tuple[float, float]:
    """Return the time of day and this process's time on all processors, in seconds."""
    return time.perf_counter(), time.process_time()


def rates(count: int, began: tuple[float, float]) -> tuple[float, float]:
    """Return tiles per second of either clock."""
    wall, processor = (now - then for now, then in zip(clocks(), began))
    return count / wall, count / processor


if __name__ == "__main__":
    main()
