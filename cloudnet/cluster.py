"""Clusters: the tasks of an archive on Dask workers, on this machine or on many."""

from __future__ import annotations

import logging
import socket
import threading
import time
import uuid
from collections.abc import Generator, Iterable, Iterator
from concurrent.futures import CancelledError
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from typing import Any
from urllib.parse import urlsplit

from cloudnet.errors import BatchError, CloudnetError, require
from cloudnet.runtime import CloudModel
from cloudnet.task import Job, Outcome, Task, prepare, run_task

LOCAL = "local"
"""Instead of a scheduler's address: a cluster on this machine for the length of the run."""

ANSWER_S = 20
"""A scheduler answers within this time."""

WORKERS_S = 120
"""A cluster may be without a worker this long."""

LOOK_S = 5
"""How often the number of workers is looked up."""

SCHEMES = ("tcp", "tls", "ws", "wss")

AHEAD = 2
"""Tasks that the scheduler holds for each thread of its workers, so that none waits for the next;
the whole archive would be as many futures."""


def run_on_dask(
    job: Job, tasks: Iterable[Task], scheduler: str, jobs: int
) -> Generator[tuple[Task, Outcome], None, None]:
    """Yield each task with its outcome, as they come, done by Dask workers.

    A dead worker's scenes are done by others; one that several workers died of has failed. A
    thread of a worker does a scene on one core.

    Parameters
    ----------
    job
        What the tasks share; the model's file is sent along, once a worker.
    tasks
        Taken as workers need them.
    scheduler
        Its address, such as tcp://HOST:8786, or "local".
    jobs
        Worker processes of a local cluster.

    Raises
    ------
    MissingExtraError
        When Dask is not installed.
    CloudnetError
        When a worker finds that it can do no task at all, as `task.prepare` says.
    BatchError
        When the scheduler does not answer or goes away, or no worker is there.
    """
    with _connect(scheduler, jobs) as client:
        yield from _Run(client, replace(job, threads=job.threads or 1), scheduler).run(iter(tasks))


class _Run:
    """The tasks of an archive that a scheduler holds."""

    def __init__(self, client: Any, job: Job, scheduler: str) -> None:
        self._client = client
        self._scheduler = scheduler
        # A task of its own, not scattered data: when the workers that hold it die, it is done anew.
        self._key = f"cloudnet-job-{uuid.uuid4().hex}"
        self._job = client.submit(_same, job, key=self._key)
        self._tasks: dict[Any, Task] = {}
        self._looked, self._threads = -float(LOOK_S), 0
        self._worked = time.monotonic()

    def run(self, tasks: Iterator[Task]) -> Iterator[tuple[Task, Outcome]]:
        while True:
            self._submit(tasks)
            if not self._tasks:
                return
            for future in self._wait():
                task = self._tasks.pop(future)
                yield task, self._outcome(future, task)

    def _submit(self, tasks: Iterator[Task]) -> None:
        """Keep as many tasks with the scheduler as its workers need."""
        self._look()
        while len(self._tasks) < max(AHEAD * self._threads, 1) and (task := next(tasks, None)):
            key = f"cloudnet-scene-{uuid.uuid4().hex}"
            future = self._client.submit(_run_on_worker, self._job, self._key, task, key=key)
            self._tasks[future] = task

    def _look(self) -> None:
        """Look up the workers, and raise BatchError where there is none for long."""
        now = time.monotonic()
        if now - self._looked < LOOK_S:
            return
        self._looked = now
        try:
            self._threads = sum(self._client.nthreads().values())
        except OSError as error:
            raise self._gone() from error
        if self._threads:
            self._worked = now
        elif now - self._worked > WORKERS_S:
            raise BatchError(
                f"the Dask scheduler {self._scheduler} has had no worker for {WORKERS_S} s; "
                f"start some with: dask worker {self._scheduler}"
            )

    def _wait(self) -> list[Any]:
        """Return the futures that are done, none after a while."""
        from distributed import wait

        with self._client.as_current():
            try:
                ended = wait([*self._tasks], timeout=LOOK_S, return_when="FIRST_COMPLETED")
            except TimeoutError:
                return []
            except (CancelledError, OSError) as error:
                raise self._gone() from error
        return [*ended.done]

    def _outcome(self, future: Any, task: Task) -> Outcome:
        """Return the outcome of a task that is done; raise what ends the run."""
        from distributed import KilledWorker

        try:
            outcome: Outcome = future.result()
        except KilledWorker as error:
            deaths = error.allowed_failures + 1
            sentence = f"{task.scene} was given up: {deaths} Dask workers died while they did it"
            return Outcome(error=f"{sentence}; give them more memory, or a smaller --tile-px")
        except CancelledError as error:
            raise self._gone() from error
        except CloudnetError:
            raise
        except Exception as error:  # what it could not take in, or send back
            cause = " ".join(f"{type(error).__name__} {error.__cause__ or error}".split())
            raise BatchError(
                f"Dask at {self._scheduler} cannot do the scenes ({cause}); install the same "
                "cloudnet[scale] where its scheduler and its workers run"
            ) from error
        return outcome

    def _gone(self) -> BatchError:
        return BatchError(
            f"the Dask scheduler {self._scheduler} went away; start it and give the same command "
            "again, it goes on where it was"
        )


@contextmanager
def _connect(scheduler: str, jobs: int) -> Iterator[Any]:
    """Give a client of a scheduler, or of a cluster of its own that ends with the block."""
    distributed = require("distributed", "scale")
    with ExitStack() as stack:
        address = scheduler
        try:
            if scheduler == LOCAL:
                cluster = distributed.LocalCluster(
                    n_workers=jobs,
                    threads_per_worker=1,
                    memory_limit=0,
                    dashboard_address=None,
                    silence_logs=logging.CRITICAL,
                )
                address = stack.enter_context(cluster).scheduler_address
            _reach(address)
            client = distributed.Client(address, timeout=ANSWER_S, set_as_default=False)
        except Exception as error:  # what speaks another language there makes Dask raise anything
            cause = " ".join(f"{error}".split()) or type(error).__name__
            raise BatchError(
                f"no Dask scheduler answers at {scheduler} ({cause}); start one with: "
                "dask scheduler, and give its address, such as tcp://HOST:8786"
            ) from error
        yield stack.enter_context(client)


def _reach(address: str) -> None:
    """Raise an OSError or a ValueError unless Dask answers: itself it takes long to say."""
    found = urlsplit(address)
    if found.scheme not in SCHEMES or not found.hostname or found.port is None:
        raise ValueError("that is no address of one")
    with socket.create_connection((found.hostname, found.port), timeout=ANSWER_S) as asked:
        # Dask speaks first, and waits without an end for what never does.
        if found.scheme == "tcp" and not asked.recv(1):
            raise OSError("it hangs up")


_models: dict[str, CloudModel] = {}
_models_lock = threading.Lock()


def _same(job: Job) -> Job:
    return job


def _run_on_worker(job: Job, key: str, task: Task) -> Outcome:
    """Do a task with the model that this process has loaded for the first one of the job."""
    with _models_lock:
        if key not in _models:
            try:
                model = prepare(job)
            except CloudnetError as error:
                raise type(error)(f"{error} (on the Dask worker {socket.gethostname()})") from None
            _models.clear()
            _models[key] = model
        model = _models[key]
    return run_task(job, model, task)
