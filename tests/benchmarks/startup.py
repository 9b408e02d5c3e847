"""What `cloudnet --help` imports and how long it takes, against Python's own start."""

from __future__ import annotations

import statistics
import subprocess
import sys
import time

HEAVY = ("tensorflow", "onnxruntime", "rasterio", "numpy")
HELP = "import sys; sys.argv = ['cloudnet', '--help']; from cloudnet.commands import main; main()"


def seconds(code: str) -> float:
    """Time a Python process that runs `code`."""
    began = time.perf_counter()
    subprocess.run([sys.executable, "-c", code], stdout=subprocess.DEVNULL, check=True)
    return time.perf_counter() - began


def main() -> None:
    """Print medians of twenty interleaved rounds."""
    rounds = [(seconds(HELP), seconds("pass")) for _ in range(20)]
    shown, bare = (statistics.median(column) for column in zip(*rounds))
    print(f"cloudnet --help: {shown:.3f} s; python alone: {bare:.3f} s (medians of {len(rounds)})")
    code = (
        f"import sys, cloudnet.commands; print([name for name in {HEAVY!r} if name in sys.modules])"
    )
    loaded = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    )
    print(f"heavy modules imported: {loaded.stdout.strip()}")


if __name__ == "__main__":
    main()
