"""Where a net's time goes, by kind of node: `python -m tests.benchmarks.profile_graph MODEL…`."""

from __future__ import annotations

import json
import sys
import tempfile
from collections import Counter
from pathlib import Path

import numpy as np
import onnxruntime

from cloudnet.cores import usable_cores
from cloudnet.shipped import find_model

RUNS = 8
TILE_PX = 1008
"""A multiple of every stride."""

CONVOLUTIONS = ("Conv", "QLinearConv", "ConvInteger", "FusedConv")


def profile(path: Path) -> tuple[Counter[str], Counter[str]]:
    """Return microseconds and nodes a run by kind of node."""
    with tempfile.TemporaryDirectory() as folder:
        options = onnxruntime.SessionOptions()
        options.enable_profiling = True
        options.profile_file_prefix = str(Path(folder, "profile"))
        options.intra_op_num_threads = usable_cores()
        session = onnxruntime.InferenceSession(
            path.read_bytes(), sess_options=options, providers=["CPUExecutionProvider"]
        )
        rng = np.random.default_rng(0)
        tile = rng.uniform(0, 0.6, (1, TILE_PX, TILE_PX, 4)).astype(np.float32)
        for _ in range(RUNS):
            session.run(None, {session.get_inputs()[0].name: tile})
        events = json.loads(Path(session.end_profiling()).read_text())
    spent: Counter[str] = Counter()
    nodes: Counter[str] = Counter()
    for event in events:
        if event.get("cat") == "Node" and event["name"].endswith("_kernel_time"):
            spent[event["args"]["op_name"]] += event["dur"] / RUNS
            nodes[event["args"]["op_name"]] += 1
    return spent, Counter({kind: count // RUNS for kind, count in nodes.items()})


def main(*models: str) -> None:
    """Print a Markdown table for each model."""
    for model in models or ("s2-rgbn", "s2-rgbn-int8"):
        spent, nodes = profile(find_model(model))
        total = sum(spent.values())
        print(f"| {model}: {total / 1000:.1f} ms for {TILE_PX} px a side | share | nodes |")
        print("|---|---|---|")
        for kind, duration in spent.most_common():
            print(f"| {kind} | {duration / total:.1%} | {nodes[kind]} |")
        outside = 1 - sum(spent[kind] for kind in CONVOLUTIONS) / total
        print(f"| **outside convolutions** | **{outside:.1%}** | |\n")


if __name__ == "__main__":
    main(*sys.argv[1:])
