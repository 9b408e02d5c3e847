"""The demo: the whole chain on a small generated data set, step by step."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from cloudnet.augment import Augmentation
from cloudnet.compare import compare_with_keras, scene_tiles
from cloudnet.dataset import DataSet, open_dataset
from cloudnet.evaluate import evaluate_model
from cloudnet.export import export_onnx
from cloudnet.model import UNetConfig
from cloudnet.predict import PredictOptions, predict_scene
from cloudnet.report import evaluation_table
from cloudnet.run import Run
from cloudnet.runtime import CloudModel, load_model
from cloudnet.simulated_set import EASY, write_dataset
from cloudnet.train import OnProgress, TrainConfig, train

SAMPLE = Path("data", "sample")
SAMPLE_SCENES = 24
SAMPLE_SIZE = (144, 144)
SAMPLE_SEED = 2018

CONFIG = TrainConfig(
    epochs=8,
    epoch_tiles=480,
    batch=8,
    tile_px=96,
    net=UNetConfig(widths=(16, 32, 48, 64), stem=0),
    augmentation=Augmentation(zoom_share=0.25),
)
"""A small net, trained for less than a minute on two cores."""


def write_sample(folder: Path) -> None:
    """Write the sample data set: generated scenes, the same bytes each time."""
    write_dataset(folder, SAMPLE_SCENES, SAMPLE_SEED, size=SAMPLE_SIZE, plan=EASY)


def run_demo(folder: Path, on_progress: OnProgress | None = None) -> Iterator[str]:
    """Train, export, compare, predict and evaluate in `folder`; yield a line for each step.

    The data are `data/sample` where the working folder has it, as a checkout does; else they are
    generated into `folder`. What an earlier demo left there is replaced, except a finished run of
    the same settings, which is used again.

    Parameters
    ----------
    folder
        Where everything goes.
    on_progress
        Called after each step of training.
    """
    data = SAMPLE
    if not data.is_dir():
        data = folder / "sample"
        write_sample(data)
    dataset = open_dataset([data])
    yield f"data: {len(dataset.scenes)} generated scenes with exact labels in {data}"
    run = Run(folder / "run")
    train(dataset, run.folder, CONFIG, resume=run.config_file.exists(), on_progress=on_progress)
    best = max(run.read_history(), key=lambda row: row["val_iou"])
    yield f"train: validation IoU {best['val_iou']:.2f}, net {run.model}, curves {run.curves_file}"
    model_file = folder / "model.onnx"
    exported = export_onnx(run.folder, model_file, overwrite=True)
    yield (
        f"export: {model_file}, {model_file.stat().st_size / 1e6:.2f} MB, "
        f"differs from Keras by at most {exported.largest:.0e}"
    )
    yield from _use(load_model(model_file), run, dataset, folder / "masks")


def _use(model: CloudModel, run: Run, dataset: DataSet, masks: Path) -> Iterator[str]:
    """Compare the exported model, predict a scene of mixed cloud with it, and score it."""
    scene = min(dataset.scenes, key=lambda scene: abs(scene.count_labels().cloud_share - 0.4))
    tiles = [scene_tiles(scene.scene_path, model.spec)]
    comparison = compare_with_keras(model, run.model, tiles)
    comparison.require(model.path)
    yield (
        f"compare: {sum(case.tiles for case in comparison.cases)} tiles, largest difference "
        f"{comparison.largest:.0e}, {comparison.flips} mask pixels flipped"
    )
    prediction = predict_scene(
        scene.scene_path,
        model,
        masks,
        comparison=comparison,
        options=PredictOptions(probability=True, overwrite=True),
    )
    yield (
        f"predict: cloud {prediction.cloud_share or 0:.0%}, mask {prediction.outputs.mask}, "
        f"picture {prediction.outputs.quicklook}"
    )
    evaluation = evaluate_model(dataset, model)
    yield "evaluate: all scenes, those trained on included, so of no use as a measure\n"
    yield evaluation_table(evaluation, scenes=False)
