"""Training tiles per second of the recipe on one core: input pipeline, training step, and both."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable

import tensorflow as tf

from cloudnet import train
from cloudnet.dataset import open_dataset
from cloudnet.mixture import SIMULATION_USES, SIMULATIONS_AT_ONCE
from cloudnet.pipeline import BlockReader, TrainingTiles, training_dataset
from cloudnet.recipe import settings_of
from tests.benchmarks import require_scenes

RECIPE = "s2-rgbn"
ROUNDS = 3


def main() -> None:
    """Print medians of interleaved rounds, by either clock, and each round's ratio to the step.

    A round is as long as simulated blocks take turns, so that it draws as many as it should.
    """
    tf.config.threading.set_intra_op_parallelism_threads(1)
    tf.config.threading.set_inter_op_parallelism_threads(1)
    dataset, config = open_dataset(require_scenes()), settings_of(RECIPE, {})
    facts = tuple(train.scene_facts(dataset.scenes).values())
    tiles = TrainingTiles(
        dataset.scenes, config.tile_px, config.epoch_tiles, 0, config.mixture, facts
    )
    turns = SIMULATIONS_AT_ONCE * SIMULATION_USES / config.mixture.simulated
    steps = round(turns / config.batch)
    reader = BlockReader(dataset.scenes, train.CACHE_MB)
    batches = training_dataset(tiles, reader, config.augmentation, config.batch, range(1000))
    coming = iter(batches)
    still = tf.data.Dataset.from_tensors(next(coming)).repeat()
    net = train._new_net(config, steps)
    net.fit(still, steps_per_epoch=2, verbose=0)

    def read() -> None:
        for _ in range(steps):
            next(coming)

    def step() -> None:
        net.fit(still, steps_per_epoch=steps, verbose=0)

    def both() -> None:
        net.fit(batches, steps_per_epoch=steps, verbose=0)

    def rates(work: Callable[[], None]) -> tuple[float, float]:
        began = time.perf_counter(), time.process_time()
        work()
        wall, processor = time.perf_counter() - began[0], time.process_time() - began[1]
        return steps * config.batch / wall, steps * config.batch / processor

    read()  # fills the store of scenes
    rounds = [(rates(read), rates(step), rates(both)) for _ in range(ROUNDS)]
    for clock, name in enumerate(("second", "second of processor time")):
        for part, what in enumerate(("pipeline", "training step", "both")):
            rate = statistics.median(found[part][clock] for found in rounds)
            ratio = statistics.median(found[part][clock] / found[1][clock] for found in rounds)
            print(f"tiles per {name}: {what} {rate:.0f}, {ratio:.2f} of the step")


if __name__ == "__main__":
    main()
