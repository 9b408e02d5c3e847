"""A run: the folder that training writes, and what is read back from it. No TensorFlow."""

from __future__ import annotations

import csv
import io
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cloudnet.errors import RunError
from cloudnet.files import write_text
from cloudnet.spec import Spec
from cloudnet.split import Split

HISTORY_FIELDS = ("epoch", "loss", "iou", "val_loss", "val_iou", "learning_rate", "seconds")


@dataclass(frozen=True)
class Run:
    """The files of a run.

    Attributes
    ----------
    folder
        Holds them all.
    """

    folder: Path

    @property
    def model(self) -> Path:
        """The best net so far, with its spec inside."""
        return self.folder / "model.keras"

    @property
    def last(self) -> Path:
        """The net after the last finished epoch with the optimizer's state: what resume reads."""
        return self.folder / "last.keras"

    @property
    def spec_file(self) -> Path:
        """The spec as JSON."""
        return self.folder / "spec.json"

    @property
    def config_file(self) -> Path:
        """Data, net and training settings as JSON."""
        return self.folder / "config.json"

    @property
    def split_file(self) -> Path:
        """Which scene is on which side, as CSV."""
        return self.folder / "split.csv"

    @property
    def history_file(self) -> Path:
        """Losses and scores by epoch, as CSV."""
        return self.folder / "history.csv"

    @property
    def curves_file(self) -> Path:
        """The history drawn."""
        return self.folder / "curves.png"

    @property
    def probe_tiles_file(self) -> Path:
        """A few tiles of the validation scenes, which export compares with and ships."""
        return self.folder / "probe_tiles.npz"

    def members(self, count: int) -> list[Run]:
        """Return the runs of so many nets that this run's net learns from."""
        return [Run(self.folder / f"member{number}") for number in range(1, count + 1)]

    @property
    def logs(self) -> Path:
        """TensorBoard's event files."""
        return self.folder / "logs"

    def write_spec(self, spec: Spec) -> None:
        """Write the spec."""
        write_text(self.spec_file, spec.to_json() + "\n")

    def read_config(self) -> dict[str, Any]:
        """Read the configuration; raises RunError where there is none that can be read."""
        try:
            config = json.loads(self.config_file.read_text(encoding="utf-8"))
        except OSError as error:
            raise RunError(
                f"{self.folder} is no run: {self.config_file.name} is missing; start a new run"
            ) from error
        except ValueError as error:
            raise self._damaged(self.config_file, error) from error
        if not isinstance(config, dict):
            raise self._damaged(self.config_file, "no JSON object")
        return config

    def write_config(self, config: dict[str, Any]) -> None:
        """Write the configuration."""
        write_text(self.config_file, json.dumps(config, indent=2) + "\n")

    def write_split(self, split: Split, cloud_shares: dict[Path, float]) -> None:
        """Write the split: a row a scene with its side, place and cloud share."""
        write_text(self.split_file, _split_table(split, cloud_shares))

    def has_split(self, split: Split, cloud_shares: dict[Path, float]) -> bool:
        """Tell whether the run was begun with this split, by scenes, sides and cloud shares."""
        try:
            text = self.split_file.read_text(encoding="utf-8")
        except OSError as error:
            raise RunError(f"{self.split_file} is missing; start a new run") from error
        except ValueError as error:
            raise self._damaged(self.split_file, error) from error
        begun, now = (
            [row[:-1] for row in csv.reader(io.StringIO(table))]
            for table in (text, _split_table(split, cloud_shares))
        )
        return begun == now

    def read_history(self) -> list[dict[str, float]]:
        """Read the history, a row an epoch; empty before the first epoch's end."""
        if not self.history_file.exists():
            return []
        try:
            with self.history_file.open(newline="", encoding="utf-8") as file:
                rows = [
                    {key: float(row[key]) for key in HISTORY_FIELDS} for row in csv.DictReader(file)
                ]
        except KeyError as error:
            raise self._damaged(self.history_file, f"no column {error}") from error
        except (OSError, TypeError, ValueError, csv.Error) as error:
            raise self._damaged(self.history_file, error) from error
        if [row["epoch"] for row in rows] != list(range(1, len(rows) + 1)):
            raise self._damaged(self.history_file, "its epochs are not 1, 2, 3 …")
        return rows

    def write_history(self, rows: list[dict[str, float]]) -> None:
        """Write the history whole."""
        text = io.StringIO()
        writer = csv.DictWriter(text, HISTORY_FIELDS, lineterminator="\n")
        writer.writeheader()
        for row in rows:
            writer.writerow({**row, "epoch": int(row["epoch"])})
        write_text(self.history_file, text.getvalue())

    @staticmethod
    def _damaged(file: Path, cause: object) -> RunError:
        return RunError(f"{file} is damaged ({cause}); start a new run")


def _split_table(split: Split, cloud_shares: dict[Path, float]) -> str:
    """Return the split as CSV, the files' paths in the last column."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(("scene", "side", "group", "labels", "cloud_share", "path"))
    for side, scenes in (("train", split.train), ("validation", split.validation)):
        for scene in scenes:
            share = f"{cloud_shares[scene.scene_path]:.4f}"
            path = scene.scene_path.as_posix()
            writer.writerow((scene.name, side, scene.group, scene.labels, share, path))
    return text.getvalue()


def find_net(path: Path) -> Path:
    """Return the `.keras` file of a run folder, or the file itself.

    Raises
    ------
    RunError
        When the folder holds no finished epoch.
    """
    if not path.is_dir():
        return path
    run = Run(path)
    if not run.model.exists():
        raise RunError(f"{path} holds no {run.model.name}; train it for an epoch at least")
    return run.model
