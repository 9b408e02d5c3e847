"""Benchmarks, run by hand: `python -m tests.benchmarks.NAME`. Each prints what it measured.

Ratios are taken in one run, medians of interleaved rounds, since machines are noisy. Real scenes
are looked for at ../shared/scenes, or where CLOUDNET_SCENES says.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
SCENES = Path(os.environ.get("CLOUDNET_SCENES", ROOT.parent / "shared" / "scenes"))
LARGE_SCENE = SCENES / "rgbn" / "scenes" / "alberta_20190522_l2a.tif"


def require_scenes() -> list[Path]:
    """Return the folders of real scenes, or end with a sentence."""
    if not SCENES.is_dir():
        sys.exit(f"no real scenes at {SCENES}; set CLOUDNET_SCENES")
    return [SCENES / "catalogue", SCENES / "rgbn"]


def peak_rss_mb(command: list[str]) -> float:
    """Run a command and return its largest resident memory in 10^6 bytes."""
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    _, status, usage = os.wait4(process.pid, 0)
    if status:
        sys.exit(f"{' '.join(command)} ended with status {status}")
    return usage.ru_maxrss * 1024 / 1e6
