"""A data set as Level-2A would show it, for scores of nets on surface reflectance.

    python -m tests.benchmarks.level2a DATA… OUT [--sun DEG] [--aerosol T]
    cloudnet evaluate OUT --folds FOLDS --level L2A

Scenes are corrected for air that is clear over all of them, with the sun where it is said to be;
masks, places and labels stay, so that each scene is scored by the net that had not seen its place.
Scenes that are Level-2A by their name are left out.
"""

from __future__ import annotations

import argparse
import csv
import io
from pathlib import Path

import numpy as np

from cloudnet.dataset import SCENES_FILE, open_dataset
from cloudnet.files import write_text
from cloudnet.surface import clear_sky
from cloudnet.tiles import Window

DARKEST = 1e-4
"""Least reflectance: one step of Sentinel-2's numbers, whose 0 means no data."""


def main() -> None:
    """Write the corrected data set."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("data", nargs="+", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--sun", type=float, default=50.0, help="zenith angle, degrees")
    parser.add_argument("--aerosol", type=float, default=0.1, help="optical thickness at 550 nm")
    arguments = parser.parse_args()
    gain, path = clear_sky(arguments.sun, arguments.aerosol)
    for part in ("scenes", "masks"):
        (arguments.out / part).mkdir(parents=True)
    table = io.StringIO()
    rows = csv.writer(table, lineterminator="\n")
    rows.writerow(["scene", "group", "labels"])
    for labelled in open_dataset(arguments.data).scenes:
        with labelled.open() as scene:
            if scene.level == "L2A":
                continue
            reflectance, valid = scene.read()
        # Where the air is clearer than that, processors see it by dark pixels below 0.
        added = np.minimum(path, reflectance[valid].min(axis=0, initial=1.0))
        surface = np.maximum((reflectance - added) / gain, DARKEST).astype(np.float32)
        surface[~valid] = 0.0
        mask = labelled.read_mask(Window(0, 0, labelled.rows, labelled.cols))
        np.save(arguments.out / "scenes" / f"{labelled.name}.npy", surface)
        np.save(arguments.out / "masks" / f"{labelled.name}.npy", mask)
        rows.writerow([labelled.name, labelled.group, labelled.labels])
    write_text(arguments.out / SCENES_FILE, table.getvalue())


if __name__ == "__main__":
    main()
