"""Clusters: Dask workers make the bytes that one process makes, also when one of them dies."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import rasterio
from rasterio.transform import Affine

from cloudnet import predict_dataset
from cloudnet.errors import BatchError, ComparisonError
from cloudnet.manifest import DONE, FAILED, Record
from cloudnet.predict import PredictOptions
from cloudnet.task import Job
from tests.helpers import UTM_10M, write_scene_tif
from tests.server import serving
from tests.test_batch import ROOT, bad, contents, net, scenes, write_one
from tests.test_compare import tampered
from tests.test_workers import job

__all__ = ["bad", "job", "net", "scenes"]

pytest.importorskip("distributed", reason="the scale extra is not installed")


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, list[int]]]:
    """A scheduler and two workers, started as the README says: address, and workers' numbers."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    address = f"tcp://127.0.0.1:{port}"
    dask = [sys.executable, "-m", "dask"]
    plain = ["--no-dashboard", "--host", "127.0.0.1"]
    worker = [*dask, "worker", address, "--nthreads", "1", "--no-nanny", *plain]
    commands = [[*dask, "scheduler", "--port", str(port), *plain], worker, worker]
    folder = tmp_path_factory.mktemp("dask")
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    with (folder / "log").open("w") as log:
        processes = [
            subprocess.Popen(line, cwd=folder, env=environment, stdout=log, stderr=log)
            for line in commands
        ]
        try:
            wait_for_workers(address, 2)
            yield address, [process.pid for process in processes[1:]]
        finally:
            for process in reversed(processes):
                process.kill()
                process.wait()


def wait_for_workers(address: str, count: int) -> None:
    from distributed import Client

    end = time.monotonic() + 60
    while True:
        try:
            socket.create_connection(("127.0.0.1", int(address.rpartition(":")[2]))).close()
            break
        except OSError:
            assert time.monotonic() < end, "the scheduler does not start"
            time.sleep(0.1)
    with Client(address, set_as_default=False) as client:
        client.wait_for_workers(count, timeout=60)


def test_a_cluster_makes_the_same_bytes(
    cluster: tuple[str, list[int]],
    scenes: tuple[Path, ...],
    bad: Path,
    net: Path,
    tmp_path: Path,
) -> None:
    named = [*scenes, bad]
    predict_dataset(named, tmp_path / "one", net)
    records = predict_dataset(named, tmp_path / "dask", net, scheduler=cluster[0])
    assert [record.state for record in records] == [DONE] * 4 + [FAILED]
    assert records[-1].error and "bad.tif is no readable image" in records[-1].error
    assert contents(tmp_path / "one") == contents(tmp_path / "dask")


def test_paths_are_those_of_the_command(
    cluster: tuple[str, list[int]],
    scenes: tuple[Path, ...],
    net: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The workers were started in another folder."""
    values = np.zeros((9, 8, 4), np.float32)
    write_scene_tif(tmp_path / "like.tif", values, transform=UTM_10M @ Affine.scale(5))
    shutil.copy(scenes[0], tmp_path / "a.tif")
    monkeypatch.chdir(tmp_path)
    options = PredictOptions(like=Path("like.tif"), vector="clouds.geojson", quicklook=False)
    (record,) = predict_dataset(["a.tif"], "out", net, options=options, scheduler=cluster[0])
    assert record.error is None
    with rasterio.open(tmp_path / "out" / "a_cloudmask.tif") as file:
        assert file.shape == (9, 8)
    assert (tmp_path / "clouds.geojson").exists()


def test_a_worker_on_which_the_model_says_something_else_ends_the_run(
    cluster: tuple[str, list[int]], job: Job, scenes: tuple[Path, ...], net: Path
) -> None:
    from dataclasses import replace

    from cloudnet.cluster import run_on_dask
    from cloudnet.task import Task

    off = tampered(net, job.folder.parent / "off.onnx", weights=lambda array: array * 1.1)
    wrong = replace(job, content=off.read_bytes())
    with pytest.raises(ComparisonError, match=r"does not say what.*on the Dask worker"):
        [*run_on_dask(wrong, [Task(str(scenes[0]), "a")], cluster[0], 1)]
    assert contents(job.folder) == {}


@pytest.mark.skipif(sys.platform == "win32", reason="it has no SIGKILL")
def test_a_dead_workers_scenes_are_done_by_others(
    cluster: tuple[str, list[int]], net: Path, tmp_path: Path
) -> None:
    """The last test of the cluster: one of its workers is killed."""
    address, workers = cluster
    named = [write_one(tmp_path / f"s{seed:02d}.tif", seed, 150) for seed in range(12)]
    told: list[Record] = []

    def tell(record: Record) -> None:
        told.append(record)
        if len(told) == 3:
            os.kill(workers[0], signal.SIGKILL)

    out = tmp_path / "out"
    records = predict_dataset(named, out, net, scheduler=address, on_result=tell)
    assert [record.state for record in records] == [DONE] * 12
    assert len(contents(out)) == 36
    assert not [name for name in contents(out) if name.startswith(".")]


@pytest.mark.parametrize(
    "address", ["tcp://127.0.0.1:9", "nonsense", "ucx://127.0.0.1:9", "tcp://nowhere.invalid:8786"]
)
def test_a_scheduler_that_does_not_answer(
    scenes: tuple[Path, ...], net: Path, tmp_path: Path, address: str
) -> None:
    with pytest.raises(
        BatchError, match=rf"no Dask scheduler answers at {address} \(.+\); start one"
    ):
        predict_dataset(scenes, tmp_path / "out", net, scheduler=address)
    assert contents(tmp_path / "out") == {}


def test_an_address_of_something_else(
    scenes: tuple[Path, ...], net: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As Dask's own dashboard, whose port is the next one, and which waits to be spoken to."""
    monkeypatch.setattr("cloudnet.cluster.ANSWER_S", 1)
    with serving(tmp_path) as server:
        address = server.address("").replace("http", "tcp").rstrip("/")
        with pytest.raises(BatchError, match=rf"no Dask scheduler answers at {address} \(") as it:
            predict_dataset(scenes, tmp_path / "out", net, scheduler=address)
    assert "\n" not in str(it.value)
