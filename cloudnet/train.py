"""Training: from labelled scenes to a run folder that can be resumed at any epoch."""

from __future__ import annotations

import json
import time
import zipfile
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass, field, replace
from math import inf
from pathlib import Path
from typing import Any, TypeAlias

import keras
import numpy as np
import tensorflow as tf
from rasterio.errors import NotGeoreferencedWarning

from cloudnet.augment import Augmentation
from cloudnet.dataset import DataSet, LabelledScene
from cloudnet.ensemble import soft_targets
from cloudnet.errors import ModelError, RunError, TrainingError, require
from cloudnet.files import quiet, whole_file, writable_folder
from cloudnet.lock import output_lock
from cloudnet.losses import CloudIoU, CloudLoss
from cloudnet.mixture import SIMULATED, Mixture, SceneFacts, scene_weights, survey
from cloudnet.model import (
    UNetConfig,
    build_unet,
    first_line,
    make_spec,
    settle_normalisation,
)
from cloudnet.pipeline import (
    BlockReader,
    Soften,
    TrainingTiles,
    training_dataset,
    validation_dataset,
)
from cloudnet.probe import PROBE_TILE_PX, cut_probe_tiles, write_probe_tiles
from cloudnet.run import Run
from cloudnet.spec import LEVELS, Spec
from cloudnet.split import Split, split_folds, split_once
from cloudnet.tiles import round_up

Network: TypeAlias = Any

VALIDATION_TILE_PX = 256

CACHE_MB = 184
"""Memory for small training scenes."""

BEST, LAST = "best", "last"
"""Which net of a run is its model."""


@dataclass(frozen=True)
class TrainConfig:
    """Settings of a training.

    Attributes
    ----------
    epochs
        Passes over the training tiles.
    epoch_tiles
        An epoch has at least this many tiles, and goes over all scenes as often as that takes.
    batch
        Tiles a step.
    tile_px
        Side of a training tile in pixels, a multiple of the net's stride.
    learning_rate
        Its peak: a linear warm-up leads there and a cosine to zero.
    warmup_share
        Share of all steps that the warm-up takes.
    weight_decay
        Of AdamW (Loshchilov and Hutter 2019).
    dice_share
        Weight of soft Dice in the loss.
    patience
        Epochs without a better validation IoU after which training ends.
    keep
        Which net is the run's model: "best" by validation, or "last", which takes no choice from
        the validation scenes, so that their scores stay honest; then patience does not count, and
        one more pass settles the normalisation (see `settle_normalisation`).
    ensemble
        Nets that are trained first, alike but for their seeds, and then teach the run's net; 0:
        it learns from labels alone.
    ensemble_share
        How far it believes them: their share in the labels of the cross-entropy.
    seed
        Of split, weights, order and augmentation; see `seeds`.
    deterministic
        Use only operations that give the same bits each time; slower.
    name, version, threshold
        Of the model, as its spec tells them.
    levels
        Of products that the net is for, as its spec tells them; None: those that the training
        scenes tell, and both where none does.
    net, augmentation, mixture
        Shape of the net, how far tiles are changed, and what they are made of.
    """

    epochs: int = 40
    epoch_tiles: int = 2400
    batch: int = 16
    tile_px: int = 224
    learning_rate: float = 3e-3
    warmup_share: float = 0.05
    weight_decay: float = 1e-3
    dice_share: float = 0.3
    patience: int = 15
    keep: str = "best"
    ensemble: int = 0
    ensemble_share: float = 0.7
    seed: int = 0
    deterministic: bool = False
    name: str = "cloudnet"
    version: str = "0"
    threshold: float = 0.5
    levels: tuple[str, ...] | None = None
    net: UNetConfig = field(default=UNetConfig())
    augmentation: Augmentation = field(default=Augmentation())
    mixture: Mixture = field(default=Mixture())

    def __post_init__(self) -> None:
        if min(self.epochs, self.epoch_tiles, self.batch, self.patience) < 1:
            raise ModelError("epochs, tiles, batch and patience are 1 or more")
        if self.tile_px < 1 or self.tile_px % self.net.stride:
            raise ModelError(
                f"a tile of {self.tile_px} px is not a multiple of the net's stride, "
                f"{self.net.stride} px"
            )
        if not 0 < self.learning_rate < inf or not 0 <= self.warmup_share < 1:
            raise ModelError("the learning rate is above 0, the warm-up share from 0 to below 1")
        if not 0 <= self.weight_decay < inf or not 0 <= self.dice_share <= 1:
            raise ModelError("the weight decay is 0 or more, the share of Dice from 0 to 1")
        if self.keep not in (BEST, LAST):
            raise ModelError(f"a run keeps its {BEST} net or its {LAST}, not {self.keep!r}")
        if self.ensemble < 0 or not 0 < self.ensemble_share <= 1:
            raise ModelError("an ensemble has 0 nets or more, and a share above 0, at most 1")
        if not 0 <= self.seed < 2**32:
            raise ModelError(f"a seed is from 0 to {2**32 - 1}, not {self.seed}")

    def make_spec(self) -> Spec:
        """Return the spec of the net."""
        return make_spec(
            self.net,
            name=self.name,
            version=self.version,
            threshold=self.threshold,
            levels=self.levels or LEVELS,
        )

    @property
    def seeds(self) -> tuple[int, ...]:
        """Of weights, order and augmentation: of each member, and last of the run's own net.

        Runs of other seeds share none of theirs.
        """
        nets = self.ensemble + 1
        return tuple((self.seed * nets + number) % 2**32 for number in range(nets))

    def for_scenes(self, facts: Iterable[SceneFacts]) -> TrainConfig:
        """Return the same settings with levels that training scenes tell, where there are none."""
        if self.levels is not None:
            return self
        told = {fact.level for fact in facts}
        return replace(self, levels=tuple(level for level in LEVELS if level in told) or LEVELS)

    def to_dict(self) -> dict[str, Any]:
        """Return the settings as JSON types."""
        return json.loads(json.dumps(asdict(self)))  # type: ignore[no-any-return]


@dataclass(frozen=True)
class Progress:
    """Where training is: after how many steps of how many, and how well it does.

    Attributes
    ----------
    step, steps
        Steps done, and of all epochs.
    epoch, epochs
        The epoch under way, from 1, and their number.
    loss
        Mean of this epoch so far.
    validation_iou
        Of the last epoch that ended; None before.
    epoch_ended
        True once an epoch.
    member, members
        Which net of an ensemble is trained, from 1, and of how many; 0 for the run's own net.
    """

    step: int
    steps: int
    epoch: int
    epochs: int
    loss: float
    validation_iou: float | None
    epoch_ended: bool = False
    member: int = 0
    members: int = 0


OnProgress: TypeAlias = Callable[[Progress], None]


def train(
    dataset: DataSet,
    folder: Path,
    config: TrainConfig,
    *,
    resume: bool = False,
    on_progress: OnProgress | None = None,
) -> Run:
    """Train a net on about four fifths of the scenes, by place, and validate it on the rest.

    Parameters
    ----------
    dataset
        Labelled scenes of two places at least.
    folder
        The run's folder; it may not hold a run already unless `resume`.
    config
        Settings; a resumed run may change only `epochs` and `patience`. With more epochs it goes
        on at the learning rate of the longer run.
    resume
        Go on after the last finished epoch.
    on_progress
        Called after each step and each epoch.

    Raises
    ------
    RunError
        When the folder holds a run; with `resume`, when it holds none, or one that is damaged or
        was begun with other settings or data.
    OutputError
        When another process trains in the folder.
    TrainingError
        When the loss is no number; the message names the scenes of that step.
    """
    facts = scene_facts(dataset.scenes)
    split = split_once(dataset.scenes, list(facts.values()), config.seed)
    return train_split(split, facts, folder, config, resume=resume, on_progress=on_progress)


def train_all(
    dataset: DataSet,
    folder: Path,
    config: TrainConfig,
    *,
    resume: bool = False,
    on_progress: OnProgress | None = None,
) -> Run:
    """Train a net on all scenes, with nothing to validate on, as one that is released.

    What it is worth is told by folds of the same settings (`train_folds`). Parameters and errors
    are those of `train`; `keep` has to be "last".
    """
    if config.keep != LAST:
        raise ModelError("without validation there is no best net; keep the last")
    facts = scene_facts(dataset.scenes)
    split = Split(train=dataset.scenes, validation=())
    return train_split(split, facts, folder, config, resume=resume, on_progress=on_progress)


def train_folds(
    dataset: DataSet,
    folder: Path,
    config: TrainConfig,
    folds: int,
    *,
    resume: bool = False,
    on_progress: OnProgress | None = None,
) -> list[Run]:
    """Train one net a fold, each validated on the places that the others were trained on.

    The runs are `fold1`, `fold2` … in `folder`. With `resume`, folds that were finished stay as
    they are, and those that were not begun are. Parameters and errors are those of `train`.
    """
    facts = scene_facts(dataset.scenes)
    splits = split_folds(dataset.scenes, list(facts.values()), folds, config.seed)
    runs = [Run(folder / f"fold{number}") for number in range(1, folds + 1)]
    if not resume:
        for run in runs:
            _check_free(run)
    return [
        train_split(
            split,
            facts,
            run.folder,
            config,
            resume=resume and run.config_file.exists(),
            on_progress=on_progress,
        )
        for run, split in zip(runs, splits, strict=True)
    ]


def scene_facts(scenes: Sequence[LabelledScene]) -> dict[Path, SceneFacts]:
    """Return what each scene shows, by its file, in the order of the scenes."""
    return dict(zip((scene.scene_path for scene in scenes), survey(scenes), strict=True))


def train_split(
    split: Split,
    facts: dict[Path, SceneFacts],
    folder: Path,
    config: TrainConfig,
    *,
    resume: bool = False,
    on_progress: OnProgress | None = None,
) -> Run:
    """Train on a split that was made before; the rest as `train`."""
    if not config.mixture.plain:  # refuses scenes of which none is to be drawn
        scene_weights(split.train, [facts[s.scene_path] for s in split.train], config.mixture)
    run = Run(folder)
    if resume:
        run.read_config()  # without a run there is nothing to lock
    else:
        _check_free(run)
    with output_lock(run.config_file):
        _train_run(run, split, facts, config, resume, on_progress or (lambda _: None))
    return run


def _train_run(
    run: Run,
    split: Split,
    facts: dict[Path, SceneFacts],
    config: TrainConfig,
    resume: bool,
    on_progress: OnProgress,
) -> None:
    """Begin a run or go on with it; its lock is ours."""
    config = config.for_scenes(facts[scene.scene_path] for scene in split.train)
    shares = {path: fact.cloud_share for path, fact in facts.items()}
    if resume:
        _check_same(run, config, split, shares)
    else:
        _check_free(run, *run.members(config.ensemble))
    # Told, and imported, before the first step: Ctrl-C in an import at an epoch's end may come out
    # as another error.
    for module in ("tensorboard", "matplotlib.backends.backend_agg"):
        require(module, "train")
    if not resume:
        _write_beginning(run, split, shares, config)
    if not run.read_history():
        _train_members(run, split, facts, config, resume, on_progress)
    _seed_everything(config)
    tiles = TrainingTiles(
        split.train,
        config.tile_px,
        config.epoch_tiles,
        config.seeds[-1],
        config.mixture,
        tuple(facts[scene.scene_path] for scene in split.train),
    )
    steps = -(-tiles.count // config.batch)
    strategy = _strategy()
    with strategy.scope():
        net = _new_net(config, steps)
        history = _restore(run, net, steps) if resume else []
        recorder = _Recorder(run, config, tiles, history, on_progress)
    if recorder.finished:
        return
    soften = None
    if config.ensemble:
        members = run.members(config.ensemble)
        soften = soft_targets([member.model for member in members], config.ensemble_share)
    with quiet(NotGeoreferencedWarning), strategy.scope():
        _fit(net, split, recorder, soften)


def _train_members(
    run: Run,
    split: Split,
    facts: dict[Path, SceneFacts],
    config: TrainConfig,
    resume: bool,
    on_progress: OnProgress,
) -> None:
    """Train the nets that the run's net will learn from, or go on with them."""
    members = run.members(config.ensemble)
    for number, (member, seed) in enumerate(zip(members, config.seeds), start=1):

        def tell(progress: Progress, number: int = number) -> None:
            on_progress(replace(progress, member=number, members=len(members)))

        train_split(
            split,
            facts,
            member.folder,
            replace(config, seed=seed, ensemble=0),
            resume=resume and member.config_file.exists(),
            on_progress=tell,
        )


def _fit(net: Network, split: Split, recorder: _Recorder, soften: Soften | None) -> None:
    """Run Keras's fit from the first epoch that is missing."""
    config, first, reader = recorder.config, len(recorder.history), recorder.reader
    checker = BlockReader(split.validation, levels=config.levels or LEVELS)
    train_tiles = recorder.read_tiles(range(first, config.epochs), soften)
    validation_px = round_up(max(config.tile_px, VALIDATION_TILE_PX), config.net.stride)
    validation_tiles = (
        validation_dataset(
            split.validation, checker, validation_px, config.net.stride, config.batch
        )
        if split.validation
        else None
    )
    try:
        net.fit(
            train_tiles,
            initial_epoch=first,
            epochs=config.epochs,
            steps_per_epoch=recorder.steps,
            validation_data=validation_tiles,
            callbacks=[recorder, keras.callbacks.TensorBoard(recorder.run.logs, write_graph=False)],
            shuffle=False,
            verbose=0,
        )
    except tf.errors.OpError as error:
        if cause := reader.error or checker.error:
            raise cause from error
        raise


def _check_free(run: Run, *members: Run) -> None:
    """Refuse a folder that holds a run already, or a member's."""
    for one in (run, *members):
        if one.config_file.exists():
            raise RunError(f"{one.folder} holds a run; give --resume, or another --out")
    writable_folder(run.folder)


def _check_same(run: Run, config: TrainConfig, split: Split, shares: dict[Path, float]) -> None:
    """Refuse to resume with other settings or data than the run was begun with."""
    stored = run.read_config()
    begun, readings = stored.get("training"), stored.get("readings")
    if not isinstance(begun, dict) or readings is None:
        raise RunError(f"{run.config_file} is damaged; start a new run")
    # A setting that is younger than the run was what it now is by default.
    begun = {**TrainConfig().to_dict(), **begun}
    for key, value in config.to_dict().items():
        if key not in ("epochs", "patience") and begun[key] != value:
            raise RunError(
                f"{run.folder} was begun with {key} {begun[key]}, not {value}; "
                "resume it with the settings it was begun with, or give another --out"
            )
    if not run.has_split(split, shares):
        raise RunError(
            f"the scenes are not those that {run.folder} was begun with (see its "
            f"{run.split_file.name}); give the same data, or another --out"
        )
    if json.dumps(readings) != json.dumps(_readings(split)):
        raise RunError(
            f"{run.folder} was begun with other --bands, --scale, --offset or --nodata; resume it "
            "with those it was begun with, or give another --out"
        )
    run.write_config({**stored, "training": config.to_dict()})


def _readings(split: Split) -> list[Any]:
    """Return each way in which the scenes are read, once, as JSON types."""
    ways = dict.fromkeys(scene.reading for scene in (*split.train, *split.validation))
    return [json.loads(json.dumps(asdict(way))) for way in ways]


def _write_beginning(
    run: Run, split: Split, shares: dict[Path, float], config: TrainConfig
) -> None:
    """Write all that is known before the first step; the configuration last, as it marks a run."""
    run.write_split(split, shares)
    by_cloud = sorted(split.validation or split.train, key=lambda scene: shares[scene.scene_path])
    probe_px = round_up(PROBE_TILE_PX, config.net.stride)
    write_probe_tiles(run.probe_tiles_file, cut_probe_tiles(by_cloud, probe_px))
    run.write_spec(config.make_spec())
    run.write_config(
        {
            "training": config.to_dict(),
            "readings": _readings(split),
            "train_scenes": len(split.train),
            "validation_scenes": len(split.validation),
            "tensorflow": tf.__version__,
            "keras": keras.__version__,
        }
    )


def _seed_everything(config: TrainConfig) -> None:
    keras.utils.set_random_seed(config.seeds[-1])
    if config.deterministic:
        tf.config.experimental.enable_op_determinism()


def _strategy() -> Any:
    """Return a strategy over all GPUs where there are several, else TensorFlow's default."""
    gpus = tf.config.list_logical_devices("GPU")
    return tf.distribute.MirroredStrategy() if len(gpus) > 1 else tf.distribute.get_strategy()


def _new_net(config: TrainConfig, steps: int) -> Network:
    net = build_unet(config.net, config.make_spec())
    total = steps * config.epochs
    warmup = round(total * config.warmup_share)
    rate = keras.optimizers.schedules.CosineDecay(
        initial_learning_rate=0.0 if warmup else config.learning_rate,
        decay_steps=max(total - warmup, 1),
        warmup_target=config.learning_rate if warmup else None,
        warmup_steps=warmup,
    )
    optimizer = keras.optimizers.AdamW(rate, weight_decay=config.weight_decay)
    optimizer.exclude_from_weight_decay(var_names=["beta", "gamma", "bias"])
    net.compile(
        optimizer=optimizer,
        loss=CloudLoss(config.dice_share),
        metrics=[CloudIoU()],
        jit_compile=False,
    )
    return net


def _restore(run: Run, net: Network, steps: int) -> list[dict[str, float]]:
    """Bring a new net and its optimizer to where the run was left; return the history up to there.

    Only numbers are loaded. The optimizer that Keras would rebuild from the file decays the
    weights that ours leaves alone, and keeps the learning rates of the epochs it was begun for.
    """
    history = run.read_history()
    if not run.last.exists() and len(history) <= 1:
        return []
    net.optimizer.build(net.trainable_variables)
    try:
        net.load_weights(run.last)
    except (OSError, ValueError, KeyError, zipfile.BadZipFile) as error:
        raise RunError(
            f"{run.last} cannot be resumed from ({first_line(error)}); start a new run"
        ) from error
    # Across several GPUs the number is mirrored and has no __int__ of its own.
    done, rest = divmod(int(keras.ops.convert_to_numpy(net.optimizer.iterations)), steps)
    if rest or done > len(history):
        raise RunError(
            f"{run.last} and {run.history_file.name} beside it are not of one run; start a new run"
        )
    return history[:done]


class _Recorder(keras.callbacks.Callback):  # type: ignore[misc]
    """Writes the run as it grows, tells of progress, and ends it when it is done or broken."""

    def __init__(
        self,
        run: Run,
        config: TrainConfig,
        tiles: TrainingTiles,
        history: list[dict[str, float]],
        on_progress: OnProgress,
    ) -> None:
        super().__init__()
        self.run = run
        self.config = config
        self.tiles = tiles
        self.reader = BlockReader(tiles.scenes, CACHE_MB, config.levels or LEVELS)
        self.history = history
        self.steps = -(-tiles.count // config.batch)
        self._tell = on_progress
        self._began = 0.0
        self._progress = Progress(
            step=len(history) * self.steps,
            steps=config.epochs * self.steps,
            epoch=len(history),
            epochs=config.epochs,
            loss=float("nan"),
            validation_iou=history[-1]["val_iou"] if history else None,
        )

    @property
    def finished(self) -> bool:
        """True when all epochs are done, or no better one was seen for long enough."""
        if self.config.keep == LAST:
            return len(self.history) >= self.config.epochs
        scores = [row["val_iou"] for row in self.history]
        stale = len(scores) - 1 - int(np.argmax(scores)) if scores else 0
        return len(scores) >= self.config.epochs or stale >= self.config.patience

    def read_tiles(self, epochs: range, soften: Soften | None = None) -> Any:
        """Return batches of training tiles of some epochs."""
        config = self.config
        return training_dataset(
            self.tiles, self.reader, config.augmentation, config.batch, epochs, soften
        )

    def on_epoch_begin(self, epoch: int, logs: dict[str, float] | None = None) -> None:
        self._began = time.monotonic()
        self._progress = replace(self._progress, epoch=epoch + 1)

    def on_train_batch_end(self, batch: int, logs: dict[str, float] | None = None) -> None:
        loss = float((logs or {})["loss"])
        if not np.isfinite(loss):
            raise TrainingError(self._name_culprits(self._progress.epoch - 1, batch))
        self._progress = replace(self._progress, step=self._progress.step + 1, loss=loss)
        self._tell(self._progress)

    def on_epoch_end(self, epoch: int, logs: dict[str, float] | None = None) -> None:
        seen = logs or {}
        if "val_loss" in seen:
            sound, what = np.isfinite(seen["val_loss"]), "the validation loss is no number"
        else:
            sound, what = _is_finite(self.model), "some weights are no numbers"
        if not sound:
            raise TrainingError(
                f"{what} after epoch {epoch + 1}, so the weights have run away; start a new run "
                "with a lower --learning-rate"
            )
        keys = ("loss", "iou", "val_loss", "val_iou")
        row = {key: float(seen.get(key, "nan")) for key in keys}
        row["epoch"] = epoch + 1
        row["learning_rate"] = float(self.model.optimizer.learning_rate)
        if self.config.keep == LAST and epoch + 1 == self.config.epochs:
            one_more = self.read_tiles(range(epoch + 1, epoch + 2))
            settle_normalisation(self.model, (image for image, _ in one_more))
        row["seconds"] = round(time.monotonic() - self._began, 2)
        better = not self.history or row["val_iou"] > max(r["val_iou"] for r in self.history)
        self.history.append(row)
        if better or self.config.keep == LAST:
            _save(self.model, self.run.model)
        self.run.write_history(self.history)
        # The checkpoint comes last: an epoch that it lacks is done again, whatever stands above.
        _save(self.model, self.run.last)
        draw_curves(self.history, self.run.curves_file)
        self._progress = replace(self._progress, validation_iou=row["val_iou"])
        self._tell(replace(self._progress, epoch_ended=True))
        if self.finished:
            self.model.stop_training = True

    def _name_culprits(self, epoch: int, batch: int) -> str:
        plan, _ = self.tiles.epoch(epoch)
        part = plan[batch * self.config.batch : (batch + 1) * self.config.batch]
        shown = part[part[:, 1] != SIMULATED][:, [0, 2]]
        names = sorted({self.tiles.scenes[number].name for number in shown.ravel()})
        step = f"the loss is no number in epoch {epoch + 1}, step {batch + 1}"
        if not names:
            return f"{step}, on simulated tiles; lower --learning-rate"
        return (
            f"{step}, on tiles of {', '.join(names)}; look at them with cloudnet inspect --sheet, "
            "or lower --learning-rate"
        )


def _is_finite(net: Network) -> bool:
    return all(np.isfinite(weight).all() for weight in net.get_weights())


def _save(net: Network, path: Path) -> None:
    with whole_file(path) as scratch:
        net.save(scratch)


def draw_curves(history: Sequence[dict[str, float]], path: Path) -> None:
    """Draw loss and IoU over the epochs, training beside validation, as a PNG.

    Raises
    ------
    MissingExtraError
        When matplotlib is not installed.
    """
    figure_module = require("matplotlib.figure", "train")
    figure = figure_module.Figure(figsize=(9, 3.6), layout="constrained")
    epochs = [row["epoch"] for row in history]
    for axes, key, title in zip(figure.subplots(1, 2), ("loss", "iou"), ("loss", "cloud IoU")):
        axes.plot(epochs, [row[key] for row in history], label="training", marker=".")
        axes.plot(epochs, [row[f"val_{key}"] for row in history], label="validation", marker=".")
        axes.set(xlabel="epoch", title=title)
        axes.grid(alpha=0.3)
        axes.legend()
    with whole_file(path) as scratch:
        figure.savefig(scratch, dpi=110)
